//! Position embeddings for images of another size than those they were trained with.

use candle_core::{Device, Result as Computed, Tensor};

/// The slope of the cubic kernel; PyTorch's bicubic interpolation has it, and so the models that were trained with it.
const SLOPE: f64 = -0.75;

/// Positions `[1, specials + before^2, d]` of a square grid, to `[1, specials + after^2, d]` of a finer or coarser one;
/// the first `specials` stay as they are.
pub(super) fn interpolate(positions: &Tensor, specials: usize, before: usize, after: usize) -> Computed<Tensor> {
    let (_, _, width) = positions.dims3()?;
    let (first, grid) = (positions.narrow(1, 0, specials)?, positions.narrow(1, specials, before * before)?);
    let weights = weights(before, after)?;
    // One dimension after the other: the rows first, then, turned, the columns.
    let along = |grid: Tensor, other: usize| -> Computed<Tensor> {
        let along = weights.matmul(&grid.contiguous()?.reshape((before, other * width))?)?;
        along.reshape((after, other, width))?.transpose(0, 1)
    };
    let grid = along(along(grid.reshape((before, before, width))?, before)?, after)?;
    Tensor::cat(&[&first, &grid.contiguous()?.reshape((1, after * after, width))?], 1)
}

/// Which share every old place has in every new one, `[after, before]`. Places beyond the border are those at it.
fn weights(before: usize, after: usize) -> Computed<Tensor> {
    let mut weights = vec![0f32; after * before];
    for (new, row) in weights.chunks_exact_mut(before.max(1)).enumerate() {
        let centre = (new as f64 + 0.5) * before as f64 / after as f64 - 0.5;
        for place in (-1..=2).map(|step| centre.floor() + f64::from(step)) {
            let old = (place.max(0.0) as usize).min(before.saturating_sub(1));
            row.get_mut(old).into_iter().for_each(|weight| *weight += cubic(centre - place) as f32);
        }
    }
    Tensor::from_vec(weights, (after, before), &Device::Cpu)
}

/// Keys' cubic convolution kernel at `x` from -2 to 2 (Cubic convolution interpolation, 1981).
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    match x <= 1.0 {
        true => ((SLOPE + 2.0) * x - (SLOPE + 3.0)) * x * x + 1.0,
        false => ((SLOPE * x - 5.0 * SLOPE) * x + 8.0 * SLOPE) * x - 4.0 * SLOPE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one_and_the_same_grid_stays() {
        for (before, after) in [(3, 5), (37, 16), (2, 7), (1, 4)] {
            for row in weights(before, after).unwrap().to_vec2::<f32>().unwrap() {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            }
        }
        let positions = Tensor::arange(0f32, 40.0, &Device::Cpu).unwrap().reshape((1, 10, 4)).unwrap();
        let same = interpolate(&positions, 1, 3, 3).unwrap();
        assert_eq!(same.to_vec3::<f32>().unwrap(), positions.to_vec3::<f32>().unwrap());
    }
}
