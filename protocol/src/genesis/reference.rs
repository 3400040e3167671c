//! The network's reference: what every backbone's projections are fitted to, from the founders' anchor kernels.

use super::{
    Kernels, SCREEN_FOUNDERS_MIN, grid,
    kernel::EXPONENT_LOWEST,
    linalg::{Square, eigen},
};
use crate::charter::{Charter, Task};
use heterotune_crypto::{Digest, Hasher, NodeId};
use std::collections::BTreeMap;

/// The smallest cosine that a founder's kernel may have to the entrywise median of all, in any space. Kernels of
/// backbones that see anything of what the others see share their leading directions; one that captures directions of
/// its own choice shares next to nothing.
const KERNEL_COSINE_MIN: f64 = 0.3;

/// The network's reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// One matrix a space, row-major: R `[n_a, r]` for each slot in order, then `[n_a, r_h]` for the end. Each has
    /// unit root mean square.
    pub spaces: Vec<Vec<f64>>,
    /// Founders whose kernels were left out because they contradict the others', in order of their keys.
    pub left_out: Vec<NodeId>,
}

/// The reference that the founders' `kernels` make: per space the leading eigenvectors of their exact integer sum,
/// each times eigenvalue^0.375 (classification) or eigenvalue^0.5 (language models; measured), signs fixed, scaled to
/// unit root mean square by one factor.
///
/// One factor for all columns, since a factor a column would undo the eigenvalues. Kernels that [`Kernels::check`]
/// refuses don't count; without any the reference is zero.
pub fn reference(charter: &Charter, kernels: &BTreeMap<NodeId, Kernels>) -> Reference {
    let anchors = usize::from(charter.anchors.count);
    let founders: Vec<(NodeId, Vec<Vec<i64>>)> = kernels
        .iter()
        .filter(|(_, kernels)| kernels.check(charter).is_ok())
        .map(|(author, kernels)| (*author, integers(kernels)))
        .collect();
    let (kept, left_out) = screen(anchors, &founders);
    let (adapter, language) = (&charter.adapter, matches!(charter.task, Task::CausalLm { .. }));
    let slots = usize::from(adapter.slots);
    let mut spaces = Vec::with_capacity(slots + 1);
    for slot in 0..slots {
        // 64 founders' entries, below 2^25 each, stay below 2^31.
        let mut sum = vec![0i64; grid::triangle(anchors)];
        for kernel in &kept {
            sum.iter_mut().zip(&kernel[slot]).for_each(|(sum, entry)| *sum += entry);
        }
        let spectrum = spectrum(anchors, &sum);
        spaces.push(coordinates(&spectrum, adapter.rank.into(), language));
        if slot + 1 == slots {
            // The end is where the last slot is.
            spaces.push(coordinates(&spectrum, adapter.readout_rank.into(), language));
        }
    }
    Reference { spaces, left_out }
}

impl Reference {
    /// The digest of its matrices, bit for bit.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("heterotune 2026 reference");
        for space in &self.spaces {
            let bytes: Vec<u8> = space.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
            hasher.part(&bytes);
        }
        hasher.finish()
    }
}

/// A founder's triangles in the common unit 2^[`EXPONENT_LOWEST`]. Checked kernels have |m| < 2^15 and exponents up
/// to 10 above the lowest: entries stay below 2^25.
fn integers(kernels: &Kernels) -> Vec<Vec<i64>> {
    let shifted = |block: &super::KernelBlock| {
        let shift = block.exponent - EXPONENT_LOWEST;
        block.entries().iter().map(|entry| i64::from(*entry) << shift).collect()
    };
    kernels.spaces.iter().map(shifted).collect()
}

/// Parts the founders whose kernels agree with the entrywise lower median of all, in every space, from those whose
/// don't. Fewer than [`SCREEN_FOUNDERS_MIN`] are trusted, and if fewer than half would remain, nobody is left out:
/// then the median is no witness.
fn screen(anchors: usize, founders: &[(NodeId, Vec<Vec<i64>>)]) -> (Vec<&Vec<Vec<i64>>>, Vec<NodeId>) {
    let spaces = founders.first().map_or(0, |(_, kernel)| kernel.len());
    let medians: Vec<Vec<i64>> = (0..spaces).map(|space| median(anchors, founders, space)).collect();
    let agrees = |kernel: &[Vec<i64>]| {
        kernel.iter().zip(&medians).all(|(kernel, median)| cosine(anchors, kernel, median) >= KERNEL_COSINE_MIN)
    };
    let (kept, left_out): (Vec<_>, Vec<_>) = founders.iter().partition(|(_, kernel)| agrees(kernel));
    if founders.len() < SCREEN_FOUNDERS_MIN || 2 * kept.len() < founders.len() {
        return (founders.iter().map(|(_, kernel)| kernel).collect(), vec![]);
    }
    (kept.iter().map(|(_, kernel)| kernel).collect(), left_out.iter().map(|(author, _)| *author).collect())
}

/// The entrywise lower median of all founders' kernels in one space.
fn median(anchors: usize, founders: &[(NodeId, Vec<Vec<i64>>)], space: usize) -> Vec<i64> {
    let mut column = Vec::with_capacity(founders.len());
    (0..grid::triangle(anchors))
        .map(|at| {
            column.clear();
            column.extend(founders.iter().map(|(_, kernel)| kernel[space][at]));
            column.sort_unstable();
            column[(column.len() - 1) / 2]
        })
        .collect()
}

/// The cosine between two symmetric matrices given as upper triangles; 0 where one is zero. The inner products are
/// exact: 2^16 products below 2^50 are below 2^66.
fn cosine(anchors: usize, a: &[i64], b: &[i64]) -> f64 {
    let inner = |a: &[i64], b: &[i64]| {
        let product = |((row, column), (a, b)): ((usize, usize), (&i64, &i64))| {
            let twice = if row == column { 1 } else { 2 };
            twice * i128::from(*a) * i128::from(*b)
        };
        grid::triangle_places(anchors).zip(a.iter().zip(b)).map(product).sum::<i128>() as f64
    };
    let norms = inner(a, a).sqrt() * inner(b, b).sqrt();
    if norms > 0.0 { inner(a, b) / norms } else { 0.0 }
}

/// Eigenvalues, largest first, and eigenvectors, a row each, of the summed kernel.
fn spectrum(anchors: usize, sum: &[i64]) -> (Vec<f64>, Square) {
    eigen(Square::from_fn(anchors, |row, column| {
        sum[grid::triangle_at(anchors, row.min(column), row.max(column))] as f64
    }))
}

/// R `[anchors, rank]` from the summed kernel's spectrum.
fn coordinates((values, vectors): &(Vec<f64>, Square), rank: usize, language: bool) -> Vec<f64> {
    let anchors = values.len();
    let mut coordinates = vec![0.0; anchors * rank];
    for (column, value) in values.iter().take(rank).enumerate() {
        let vector = vectors.row(column);
        // Rounding leaves eigenvalues that should be 0 a little below it.
        let half = value.max(0.0).sqrt();
        let eighth = half.sqrt().sqrt();
        let factor = sign(vector) * if language { half } else { eighth * eighth * eighth };
        for (row, entry) in vector.iter().enumerate() {
            coordinates[row * rank + column] = factor * entry;
        }
    }
    let mean = coordinates.iter().fold(0.0, |sum, value| sum + value * value) / coordinates.len() as f64;
    if mean > 0.0 {
        let scale = mean.sqrt();
        coordinates.iter_mut().for_each(|value| *value /= scale);
    }
    coordinates
}

/// The sign of the entry that is largest in absolute value, the first of them on ties: eigenvectors come with either.
fn sign(vector: &[f64]) -> f64 {
    let largest = vector.iter().fold(0f64, |largest, entry| if entry.abs() > largest.abs() { *entry } else { largest });
    if largest < 0.0 { -1.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        genesis::samples,
        testing::{charter, identity},
    };

    fn founders(count: usize) -> (Charter, BTreeMap<NodeId, Kernels>) {
        let charter = charter(count);
        let kernels = (0..count).map(|k| (identity(k).id(), samples::kernels(&charter, k as u64))).collect();
        (charter, kernels)
    }

    #[test]
    fn it_has_unit_scale_its_shape_and_fixed_signs() {
        let (charter, kernels) = founders(5);
        let reference = reference(&charter, &kernels);
        assert!(reference.left_out.is_empty());
        assert_eq!(reference.spaces.iter().map(Vec::len).collect::<Vec<_>>(), [12 * 3, 12 * 4]);
        for (space, rank) in reference.spaces.iter().zip([3, 4]) {
            let mean = space.iter().map(|v| v * v).sum::<f64>() / space.len() as f64;
            assert!((mean - 1.0).abs() < 1e-12);
            let mut norms = vec![];
            for column in 0..rank {
                let vector: Vec<f64> = space.iter().skip(column).step_by(rank).copied().collect();
                assert_eq!(sign(&vector), 1.0);
                assert!(vector.iter().sum::<f64>().abs() < 1e-2, "kernels are centred");
                norms.push(vector.iter().map(|v| v * v).sum::<f64>());
            }
            assert!(norms.is_sorted_by(|a, b| a > b));
        }
    }

    #[test]
    fn one_founder_is_aligned_to_itself() {
        // K = V diag(l) V^T, so R's column norms are in the ratio of l^0.375, and R's columns are eigenvectors of K.
        let (charter, kernels) = founders(1);
        let reference = reference(&charter, &kernels);
        let upper = integers(&kernels[&identity(0).id()]);
        let kernel = |i: usize, j: usize| upper[0][grid::triangle_at(12, i.min(j), i.max(j))] as f64;
        let column = |c: usize| (0..12).map(|i| reference.spaces[0][i * 3 + c]).collect::<Vec<_>>();
        let values: Vec<f64> = (0..3)
            .map(|c| {
                let v = column(c);
                let kv: Vec<f64> = (0..12).map(|i| (0..12).map(|j| kernel(i, j) * v[j]).sum()).collect();
                let value = kv[0] / v[0];
                kv.iter().zip(&v).for_each(|(kv, v)| assert!((kv - value * v).abs() < 1e-9 * value));
                value
            })
            .collect();
        let norm = |c: usize| column(c).iter().map(|v| v * v).sum::<f64>().sqrt();
        // (a^(3/8))^8 = a^3.
        let (norms, values) = (norm(0) / norm(2), values[0] / values[2]);
        let eighth_power = [norms; 8].iter().product::<f64>();
        assert!((eighth_power / (values * values * values) - 1.0).abs() < 1e-8);
    }

    #[test]
    fn a_kernel_of_its_own_is_left_out_of_six_and_trusted_among_three() {
        let (charter, mut kernels) = founders(6);
        let honest = reference(&charter, &kernels);
        // Two directions that the others hardly use.
        let liar = samples::kernel(12, 2, 77);
        let liar = Kernels::from_features(&charter, &[liar]).unwrap();
        kernels.insert(identity(2).id(), liar.clone());
        let screened = reference(&charter, &kernels);
        assert_eq!(screened.left_out, [identity(2).id()]);
        kernels.remove(&identity(2).id());
        assert_eq!(reference(&charter, &kernels).digest(), screened.digest());
        assert_ne!(honest.digest(), screened.digest());
        let (charter, mut three) = founders(3);
        three.insert(identity(2).id(), liar);
        assert!(reference(&charter, &three).left_out.is_empty());
    }

    #[test]
    fn where_no_two_agree_nobody_is_left_out() {
        // Four kernels with nothing in common: their entrywise median is zero.
        let only = |at: usize| (0..10).map(|entry| i64::from(entry == at)).collect::<Vec<i64>>();
        let founders: Vec<_> = [0, 4, 7, 9].map(|at| (identity(at).id(), vec![only(at)])).into();
        let (kept, left_out) = screen(4, &founders);
        assert_eq!((kept.len(), left_out.len()), (4, 0));
    }

    #[test]
    fn nothing_in_is_zero_out() {
        let charter = charter(4);
        let refused = Kernels { spaces: vec![] };
        let reference = reference(&charter, &BTreeMap::from([(identity(0).id(), refused)]));
        assert!(reference.spaces.iter().flatten().all(|value| *value == 0.0));
    }

    #[test]
    fn every_machine_gets_these_bits() {
        let (charter, kernels) = founders(5);
        assert_eq!(
            reference(&charter, &kernels).digest().to_string(),
            "dd188145fa45ab49d62770b4a959f02caadf04956334daa0832a7c137b67b677"
        );
    }
}
