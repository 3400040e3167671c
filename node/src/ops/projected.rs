//! Frozen ways into a narrow space and back, which keep nothing as wide as a hidden state but that itself.

use super::{LayerNorm, Linear, values, with_values};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// map(norm(x)), from `[.., d]` to `[.., r]`.
///
/// # Errors
/// Another width.
pub fn enter(norm: &LayerNorm, map: &Linear, x: &Tensor) -> Result<Tensor> {
    match map.map() {
        Some(_) if x.device().is_cpu() && !norm.is_trained() => {
            x.contiguous()?.apply_op1(Enter { norm: norm.clone(), map: map.clone() })
        }
        _ => map.forward(&norm.forward(x)?),
    }
}

/// x + map(z), from `[.., d]` and `[.., r]` to `[.., d]`.
///
/// # Errors
/// Other widths, or values of another number of rows.
pub fn leave(x: &Tensor, map: &Linear, z: &Tensor) -> Result<Tensor> {
    match map.map() {
        Some(_) if x.device().is_cpu() => x.contiguous()?.apply_op2(&z.contiguous()?, Leave { map: map.clone() }),
        _ => x + map.forward(z)?,
    }
}

struct Enter {
    norm: LayerNorm,
    map: Linear,
}

impl CustomOp1 for Enter {
    fn name(&self) -> &'static str {
        "enter"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (width, mut shape) = (self.map.inputs(), layout.dims().to_vec());
        let fits = self.norm.width().is_none_or(|own| own == width);
        let (Some(map), Some(last), true) = (self.map.map(), shape.last_mut().filter(|last| **last == width), fits)
        else {
            bail!("a map from {width} values was given {:?}", layout.dims())
        };
        *last = self.map.outputs();
        let y = map.apply(&self.norm.apply(values(x, layout)?, width)?)?;
        Ok((CpuStorage::F32(y), shape.into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(map) = self.map.map() else { bail!("the map is trained") };
        let back = |x: &[f32], gradient: &[f32]| self.norm.back(x, &map.back(gradient)?, self.map.inputs());
        let dx = with_values(x, |x| with_values(gradient, |gradient| back(x, gradient)))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

struct Leave {
    map: Linear,
}

impl CustomOp2 for Leave {
    fn name(&self) -> &'static str {
        "leave"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        z: &CpuStorage,
        z_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut shape = z_layout.dims().to_vec();
        let (inputs, outputs) = (self.map.inputs(), self.map.outputs());
        let from = shape.last().copied();
        shape.last_mut().into_iter().for_each(|last| *last = outputs);
        let (Some(map), true) = (self.map.map(), from == Some(inputs) && shape == x_layout.dims()) else {
            bail!("{:?} can't be mapped to {:?}", z_layout.dims(), x_layout.dims())
        };
        let mut y = values(x, x_layout)?.to_vec();
        map.add(values(z, z_layout)?, &mut y)?;
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, z: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(map) = self.map.map() else { bail!("the map is trained") };
        let dz = with_values(gradient, |gradient| map.back(gradient))?;
        Ok((Some(gradient.clone()), Some(Tensor::from_vec(dz, z.shape(), z.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{agree, noise};

    #[test]
    fn they_compute_and_differentiate_like_their_plain_twins() {
        let norm = LayerNorm::affine(noise(&[6], 1), noise(&[6], 2), 1e-6).unwrap();
        let (down, up) = (noise(&[3, 6], 3), noise(&[6, 3], 4));
        for bias in [false, true] {
            let down = Linear::new(down.clone(), bias.then(|| noise(&[3], 5))).unwrap();
            let up = Linear::new(up.clone(), bias.then(|| noise(&[6], 6))).unwrap();
            for norm in [&norm, &LayerNorm::plain()] {
                let plain = |x: &Tensor| down.forward(&norm.forward(x).unwrap()).unwrap();
                agree(&[2, 4, 6], |x| enter(norm, &down, x).unwrap(), plain);
            }
            let (x, z) = (noise(&[2, 4, 6], 7), noise(&[2, 4, 3], 8));
            let plain = |x: &Tensor, z: &Tensor| (x + up.forward(z).unwrap()).unwrap();
            agree(&[2, 4, 6], |x| leave(x, &up, &z).unwrap(), |x| plain(x, &z));
            agree(&[2, 4, 3], |z| leave(&x, &up, z).unwrap(), |z| plain(&x, z));
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (down, up) = (Linear::new(noise(&[3, 6], 1), None).unwrap(), Linear::new(noise(&[6, 3], 2), None).unwrap());
        assert!(enter(&LayerNorm::plain(), &down, &noise(&[2, 5], 3)).is_err());
        assert!(leave(&noise(&[2, 6], 3), &up, &noise(&[2, 4], 4)).is_err());
        assert!(leave(&noise(&[2, 6], 3), &up, &noise(&[3, 3], 4)).is_err());
        assert!(leave(&noise(&[2, 5], 3), &up, &noise(&[2, 3], 4)).is_err());
    }
}
