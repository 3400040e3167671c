//! How a node comes by its private projections: fitted to the network's reference over public anchors.
//!
//! The reference R `[anchors, r]` of a space comes from the anchor kernels of all founders. A node finds the linear
//! map from its own features of the anchors to R (Down), and the one back from R to its own hidden state (Up).

use super::{DemaError, Projection, algebra::Matrix};
use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The ridge of the fit, as a share of the mean of the diagonal of X^T X.
const RIDGE: f64 = 0.01;

/// What one space of a backbone makes of the anchors.
pub struct Features {
    /// Normalised and pooled features `[anchors, d]`: what kernels and fits are made of.
    pub pooled: Matrix,
    /// Pooled hidden states, not normalised `[anchors, d]`: what Up leads back to.
    pub hidden: Matrix,
    /// Normalised features of single tokens `[.., d]`, over which codes get unit size; none where only pooled
    /// features are ever encoded.
    pub tokens: Option<Tensor>,
}

/// A projection and how much of the reference's variance it explains (R^2, at most 1).
pub struct Fit {
    /// The projection.
    pub projection: Projection,
    /// The coefficient of determination of Down.
    pub explained: f64,
}

impl Features {
    /// The centred anchor kernel X X^T / |X|^2 `[anchors, anchors]`, row-major. It has no trace of the width.
    ///
    /// # Errors
    /// Features that are the same for all anchors.
    pub fn kernel(&self) -> Result<Vec<f64>, DemaError> {
        let (centred, _) = self.centred()?;
        let size = centred.square_sum();
        Ok(centred.gram().times(1.0 / size).values().to_vec())
    }

    /// Fits a projection to the reference `[anchors, rank]`, row-major. With `back`, Up is fitted as well.
    ///
    /// # Errors
    /// A reference of another shape, or one that nothing can be fitted to.
    pub fn fit(&self, reference: &[f64], rank: usize, back: bool) -> Result<Fit, DemaError> {
        let anchors = self.pooled.rows();
        let shape =
            || DemaError::Shape { what: "a reference".into(), found: reference.len(), expected: anchors * rank };
        let target = Matrix::new(anchors, rank, reference.to_vec()).ok_or_else(shape)?;
        if !target.values().iter().all(|value| value.is_finite()) {
            return Err(DemaError::Fit("the reference holds a value that is not a finite number".into()));
        }
        let (centred, mean) = self.centred()?;
        // (X^T X + a I)^-1 X^T R = X^T (X X^T + a I)^-1 R: as many equations as anchors, however wide the backbone.
        let amount = RIDGE * centred.square_sum() / centred.columns() as f64;
        let down = centred.transposed().dot(&centred.gram().ridged(amount).solve(&target));
        let explained = explained(&target, &centred.dot(&down));
        let up = match back {
            true => Some(self.way_back(&target)?),
            false => None,
        };
        let projection = self.scaled(Projection { mean, down: down.to_tensor()?, up })?;
        Ok(Fit { projection, explained })
    }

    /// A random projection of the same size: the control that shows what alignment is worth.
    ///
    /// # Errors
    /// Features that are the same for all anchors.
    pub fn random(&self, rank: usize, back: bool, seed: u64, space: usize) -> Result<Projection, DemaError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(space as u64);
        let mut normal = |rows: usize, columns: usize, scale: f64| {
            let mut matrix = Matrix::zeros(rows, columns);
            matrix.values_mut().iter_mut().for_each(|value| *value = rng.sample::<f64, _>(StandardNormal) * scale);
            matrix
        };
        let (centred, mean) = self.centred()?;
        let width = centred.columns();
        let down = normal(width, rank, (width as f64).powf(-0.5)).to_tensor()?;
        let means = self.hidden.means();
        let spread = self.hidden.clone().less(&means);
        let size = (spread.square_sum() / spread.values().len() as f64 / rank as f64).sqrt();
        let up = back.then(|| normal(rank, width, size).to_tensor()).transpose()?;
        self.scaled(Projection { mean, down, up })
    }

    /// Features less their mean, and the mean `[d]`.
    fn centred(&self) -> Result<(Matrix, Tensor), DemaError> {
        let means = self.pooled.means();
        let centred = self.pooled.clone().less(&means);
        let size = centred.square_sum();
        if !(size.is_finite() && size > 1e-12 * self.pooled.square_sum().max(f64::MIN_POSITIVE)) {
            return Err(DemaError::Fit("the backbone makes the same of all anchors".into()));
        }
        let mean = Matrix::new(1, means.len(), means).map(|mean| mean.to_tensor()).transpose()?;
        let mean = mean.ok_or_else(|| DemaError::Fit("there are no features".into()))?.squeeze(0)?;
        Ok((centred, mean))
    }

    /// Up `[r, d]`: least squares from the reference to the centred hidden state. The reference's last columns may be
    /// all but zero, so the normal equations get a ridge far below anything that counts.
    fn way_back(&self, target: &Matrix) -> Result<Tensor, DemaError> {
        let columns = target.transposed();
        let gram = columns.gram();
        let amount = 1e-9 * gram.diagonal_mean();
        let means = self.hidden.means();
        Ok(gram.ridged(amount).solve(&columns.dot(&self.hidden.clone().less(&means))).to_tensor()?)
    }

    /// Scales Down so that codes have unit root mean square.
    fn scaled(&self, projection: Projection) -> Result<Projection, DemaError> {
        let encoder = projection.encoder()?;
        let codes = match &self.tokens {
            Some(tokens) => encoder.forward(tokens)?,
            None => encoder.forward(&self.pooled.to_tensor()?)?,
        };
        let size = f64::from(codes.sqr()?.mean_all()?.to_scalar::<f32>()?).sqrt();
        if !(size.is_finite() && size > 1e-12) {
            return Err(DemaError::Fit("all codes are zero, so the reference has nothing in common with them".into()));
        }
        Ok(Projection { down: (&projection.down / size)?, ..projection })
    }
}

/// 1 - |R - prediction|^2 / |R - mean|^2.
fn explained(target: &Matrix, prediction: &Matrix) -> f64 {
    let total = target.clone().less(&target.means()).square_sum();
    let rest: f64 = target.values().iter().zip(prediction.values()).map(|(a, b)| (a - b) * (a - b)).sum();
    1.0 - rest / total.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features of `width` that are a linear picture of 3 hidden causes, the same for every seed of the picture.
    fn example(width: usize, seed: u64) -> (Features, Matrix) {
        let noise = |rows: usize, columns: usize, seed: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            Matrix::new(rows, columns, (0..rows * columns).map(|_| rng.sample(StandardNormal)).collect()).unwrap()
        };
        let causes = noise(40, 3, 0);
        let pooled = causes.dot(&noise(3, width, seed));
        let hidden = pooled.clone().times(3.0);
        let means = causes.means();
        (Features { pooled, hidden, tokens: None }, causes.less(&means))
    }

    #[test]
    fn different_backbones_get_the_same_codes() {
        let codes = |width, seed| {
            let (features, causes) = example(width, seed);
            let fit = features.fit(causes.values(), 3, true).unwrap();
            assert!(fit.explained > 0.98, "{}", fit.explained);
            fit.projection.encoder().unwrap().forward(&features.pooled.to_tensor().unwrap()).unwrap()
        };
        let difference = (codes(8, 1) - codes(60, 2)).unwrap().sqr().unwrap().mean_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 0.02);
    }

    #[test]
    fn up_leads_from_a_code_to_the_hidden_state() {
        let (features, causes) = example(8, 1);
        let up = features.fit(causes.values(), 3, true).unwrap().projection.up.unwrap();
        let back = causes.dot(&Matrix::from_tensor(&up).unwrap());
        let means = features.hidden.means();
        let rest = explained(&features.hidden.clone().less(&means), &back);
        assert!(rest > 0.999, "{rest}");
    }

    #[test]
    fn kernels_are_centred_and_of_unit_trace() {
        let kernel = Matrix::new(40, 40, example(8, 1).0.kernel().unwrap()).unwrap();
        assert!((kernel.diagonal_mean() * 40.0 - 1.0).abs() < 1e-9);
        assert!(kernel.means().iter().all(|mean| mean.abs() < 1e-9));
    }

    #[test]
    fn random_projections_have_unit_codes_and_follow_the_seed() {
        let (features, _) = example(8, 1);
        let values = |seed| features.random(4, true, seed, 0).unwrap().down.to_vec2::<f32>().unwrap();
        assert_eq!(values(1), values(1));
        assert_ne!(values(1), values(2));
    }

    #[test]
    fn what_can_not_be_fitted_is_refused() {
        let (mut features, causes) = example(8, 1);
        assert!(features.fit(&causes.values()[1..], 3, true).is_err());
        assert!(features.fit(&[f64::NAN; 120], 3, true).is_err());
        features.pooled = Matrix::new(40, 8, vec![0.3; 320]).unwrap();
        assert!(features.kernel().is_err());
    }
}
