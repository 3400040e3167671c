//! Frozen matrices in half precision or in GGUF's blocks, unpacked to f32 some rows at a time.

use candle_core::{
    Device, Result, Tensor,
    quantized::{GgmlDType, QTensor},
};
use rayon::prelude::*;
use std::ops::Range;

/// Values that one thread packs or unpacks at a time.
const PIECE: usize = 1 << 17;

/// Pieces that are in memory as f32 together.
const PANEL: usize = 8;

/// A packed matrix `[out, in]`.
#[derive(Debug)]
pub struct Packed {
    pieces: Vec<QTensor>,
    /// Rows of every piece but the last.
    step: usize,
    outputs: usize,
    inputs: usize,
}

impl Packed {
    /// Packs a matrix, of which `rows` gives the f32 rows of a range, `[rows, in]`. The whole is never in memory as f32.
    ///
    /// # Errors
    /// Those of `rows`, and an `in` that is no multiple of the format's blocks.
    pub fn new<E: From<candle_core::Error> + Send>(
        (outputs, inputs): (usize, usize),
        format: GgmlDType,
        rows: impl Fn(Range<usize>) -> std::result::Result<Tensor, E> + Sync,
    ) -> std::result::Result<Self, E> {
        let step = (PIECE / inputs.max(1)).max(1);
        let pack = |piece: usize| {
            let rows = rows(piece * step..outputs.min((piece + 1) * step))?;
            // The library packs all of a tensor's storage, so this must not be a view of some of it.
            let rows = Tensor::from_vec(rows.flatten_all()?.to_vec1::<f32>()?, rows.shape(), &Device::Cpu)?;
            Ok(QTensor::quantize(&rows, format)?)
        };
        let pieces = (0..outputs.div_ceil(step)).into_par_iter().map(pack).collect::<std::result::Result<_, E>>()?;
        Ok(Self { pieces, step, outputs, inputs })
    }

    /// Rows and columns, `(out, in)`.
    pub fn dims(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(QTensor::storage_size_in_bytes).sum()
    }

    /// The whole matrix as f32: what the map computes with.
    ///
    /// # Errors
    /// None that are known.
    pub fn unpack(&self) -> Result<Tensor> {
        let panels = self.panels().map(|panel| panel.map(|(_, rows)| rows));
        Tensor::cat(&panels.collect::<Result<Vec<_>>>()?, 0)
    }

    /// The matrix in parts: the first row's number and the rows as f32.
    pub(super) fn panels(&self) -> impl Iterator<Item = Result<(usize, Tensor)>> {
        self.pieces.chunks(PANEL).enumerate().map(|(index, pieces)| {
            let rows = pieces.par_iter().map(|piece| piece.dequantize(&Device::Cpu)).collect::<Result<Vec<_>>>()?;
            Ok((index * PANEL * self.step, Tensor::cat(&rows, 0)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{
        Linear,
        tests::{check, noise},
    };

    fn packed(weight: &Tensor, format: GgmlDType) -> Packed {
        Packed::new(weight.dims2().unwrap(), format, |rows| weight.narrow(0, rows.start, rows.len())).unwrap()
    }

    #[test]
    fn it_maps_and_differentiates_like_the_unpacked_matrix() {
        let weight = noise(&[5, 256], 3);
        for (format, worst, bytes) in [
            (GgmlDType::F16, 5e-4, 2 * 5 * 256),
            (GgmlDType::BF16, 4e-3, 2 * 5 * 256),
            (GgmlDType::Q8_0, 5e-3, 5 * 8 * 34),
            (GgmlDType::Q4_0, 0.13, 5 * 8 * 18),
            (GgmlDType::Q4K, 0.08, 5 * 144),
        ] {
            let matrix = packed(&weight, format);
            assert_eq!(matrix.bytes(), bytes);
            let unpacked = matrix.unpack().unwrap();
            let difference = (&unpacked - &weight).unwrap().abs().unwrap().flatten_all().unwrap();
            let difference = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
            assert!(difference > 0.0 && difference < worst, "{format:?}: {difference}");
            let map = Linear::packed(matrix, Some(noise(&[5], 4))).unwrap();
            let plain = Linear::new(unpacked, Some(noise(&[5], 4))).unwrap();
            check(&[1, 2, 256], |x| map.forward(x).unwrap(), |x| plain.forward(x).unwrap());
        }
    }

    #[test]
    fn a_matrix_of_many_panels_is_as_one_of_one() {
        // 256 rows are a piece, 2048 a panel.
        let weight = noise(&[5000, 512], 3);
        let matrix = packed(&weight, GgmlDType::F16);
        assert_eq!(matrix.panels().count(), 3);
        let plain = Linear::new(matrix.unpack().unwrap(), None).unwrap();
        let map = Linear::packed(matrix, None).unwrap();
        let x = candle_core::Var::from_tensor(&noise(&[3, 512], 1)).unwrap();
        let outer = noise(&[3, 5000], 2);
        let [(y, dx), (twin_y, twin_dx)] = [map, plain].map(|map| {
            let y = map.forward(&x).unwrap();
            let gradients = (&y * &outer).unwrap().sum_all().unwrap().backward().unwrap();
            (y.detach(), gradients.get(&x).unwrap().clone())
        });
        for (ours, theirs) in [(y, twin_y), (dx, twin_dx)] {
            let difference = (ours - theirs).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-3);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let weight = noise(&[5, 31], 3);
        let rows = |rows: Range<usize>| weight.narrow(0, rows.start, rows.len());
        assert!(Packed::new((5, 31), GgmlDType::Q8_0, rows).is_err());
        assert!(Linear::packed(packed(&weight, GgmlDType::F16), Some(noise(&[4], 1))).is_err());
        let map = Linear::packed(packed(&weight, GgmlDType::F16), None).unwrap();
        assert!(map.forward(&noise(&[2, 30], 1)).is_err());
    }
}
