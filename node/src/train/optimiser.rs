//! AdamW (<https://arxiv.org/abs/1711.05101>) whose state can be kept: moments by name, a rate for each tensor, clipping.

use candle_core::{Result, Tensor, Var, bail};
use std::collections::BTreeMap;

/// The decay of the first moment.
const BETA1: f32 = 0.9;
/// The decay of the second moment.
const BETA2: f32 = 0.99;
/// What the root of the second moment is never below.
const EPSILON: f32 = 1e-8;

/// A tensor's moments, and how many steps made them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) steps: u32,
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
}

/// A trained tensor.
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) variable: Var,
    /// Its learning rate.
    pub(super) rate: f64,
}

/// The optimiser of some tensors.
pub(super) struct AdamW {
    pub(super) parameters: Vec<Parameter>,
    /// By the tensors' names; those of tensors that are not trained now are kept as they are.
    pub(super) moments: BTreeMap<String, Moments>,
    /// Decoupled weight decay.
    pub(super) decay: f64,
    /// The largest norm of all gradients together; longer ones are shortened to it. None: any.
    pub(super) clip: Option<f64>,
}

impl AdamW {
    /// The gradients of a loss, one for each parameter in their order.
    ///
    /// # Errors
    /// A parameter that gets no gradient: the loss does not depend on it, or an operation between them cuts it off
    /// silently. Where branches start at zero, their projections get zeros in the first step (`step` 0).
    pub(super) fn gradients(&self, loss: &Tensor, step: usize) -> Result<Vec<Tensor>> {
        let store = loss.backward()?;
        let of = |parameter: &Parameter| {
            let name = &parameter.name;
            let Some(gradient) = store.get(&parameter.variable) else {
                bail!("the loss does not depend on {name}, or an operation between them has no gradient");
            };
            if step == 1 && gradient.abs()?.max_all()?.to_scalar::<f32>()? == 0.0 {
                bail!("the gradient of {name} is zero everywhere, so it would never be trained");
            }
            Ok(gradient.clone())
        };
        self.parameters.iter().map(of).collect()
    }

    /// One step along `gradients`, one for each parameter in their order; all rates times `factor`.
    ///
    /// # Errors
    /// Gradients of another shape.
    pub(super) fn step(&mut self, gradients: &[Tensor], factor: f64) -> Result<()> {
        let gradients: Vec<Vec<f32>> =
            gradients.iter().map(|gradient| gradient.flatten_all()?.to_vec1()).collect::<Result<_>>()?;
        let scale = self.clip.map_or(1.0, |most| {
            let square: f64 = gradients.iter().flatten().map(|value| f64::from(*value).powi(2)).sum();
            (most / square.sqrt().max(f64::MIN_POSITIVE)).min(1.0)
        }) as f32;
        for (parameter, gradient) in self.parameters.iter().zip(&gradients) {
            let moments = self.moments.entry(parameter.name.clone()).or_default();
            if moments.first.len() != gradient.len() {
                *moments = Moments { steps: 0, first: vec![0.0; gradient.len()], second: vec![0.0; gradient.len()] };
            }
            moments.steps += 1;
            let unbiased = |beta: f32| 1.0 / (1.0 - f64::from(beta).powi(moments.steps as i32));
            let (scale1, scale2) = (unbiased(BETA1) as f32, unbiased(BETA2) as f32);
            let rate = parameter.rate * factor;
            let (step, keep) = (rate as f32, (1.0 - rate * self.decay) as f32);
            let mut values: Vec<f32> = parameter.variable.flatten_all()?.to_vec1()?;
            let state = moments.first.iter_mut().zip(&mut moments.second);
            for ((value, gradient), (first, second)) in values.iter_mut().zip(gradient).zip(state) {
                let gradient = gradient * scale;
                *first = *first * BETA1 + gradient * (1.0 - BETA1);
                *second = *second * BETA2 + gradient * gradient * (1.0 - BETA2);
                *value = *value * keep - (*first * scale1) / ((*second * scale2).sqrt() + EPSILON) * step;
            }
            let shape = parameter.variable.shape();
            parameter.variable.set(&Tensor::from_vec(values, shape, parameter.variable.device())?)?;
        }
        Ok(())
    }
}

/// How the rates change over the steps of a whole training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Schedule {
    /// Steps over which the rates rise from nothing.
    pub(super) warm_up: u64,
    /// All steps, at the end of which the rates have fallen to nothing by a cosine; none: they stay.
    pub(super) total: Option<u64>,
}

impl Schedule {
    /// What the rates are multiplied by in a step (from 0).
    pub(super) fn factor(self, step: u64) -> f64 {
        if step < self.warm_up {
            return (step + 1) as f64 / self.warm_up as f64;
        }
        let Some(total) = self.total else { return 1.0 };
        let done = (step - self.warm_up) as f64 / total.saturating_sub(self.warm_up).max(1) as f64;
        (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_nn::{Optimizer, ParamsAdamW};

    fn variable(values: [f32; 3]) -> Var {
        Var::from_tensor(&Tensor::new(&values, &Device::Cpu).unwrap()).unwrap()
    }

    fn ours(variable: &Var, clip: Option<f64>) -> AdamW {
        let parameters = vec![Parameter { name: "x".into(), variable: variable.clone(), rate: 0.1 }];
        AdamW { parameters, moments: BTreeMap::new(), decay: 0.01, clip }
    }

    fn loss(variable: &Var, step: usize) -> Tensor {
        let target = Tensor::new(&[1f32, step as f32, -3.0], &Device::Cpu).unwrap();
        (variable.as_tensor() - target).unwrap().sqr().unwrap().sum_all().unwrap()
    }

    #[test]
    fn it_steps_as_the_librarys_and_goes_on_from_kept_moments() {
        let (mine, theirs) = (variable([0.5, -1.0, 2.0]), variable([0.5, -1.0, 2.0]));
        let parameters = ParamsAdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
        let mut library = candle_nn::AdamW::new(vec![theirs.clone()], parameters).unwrap();
        let mut optimiser = ours(&mine, None);
        for step in 0..20 {
            let gradient = loss(&mine, step).backward().unwrap().get(&mine).unwrap().clone();
            if step == 10 {
                let moments = optimiser.moments;
                optimiser = AdamW { moments, ..ours(&mine, None) };
            }
            optimiser.step(&[gradient], 1.0).unwrap();
            library.step(&loss(&theirs, step).backward().unwrap()).unwrap();
        }
        let (mine, theirs): (Vec<f32>, Vec<f32>) = (mine.to_vec1().unwrap(), theirs.to_vec1().unwrap());
        mine.iter().zip(&theirs).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} is not {b}"));
        assert_eq!(optimiser.moments["x"].steps, 20);
    }

    #[test]
    fn gradients_are_shortened_all_by_one_factor() {
        let gradient = Tensor::new(&[3f32, 0.0, 4.0], &Device::Cpu).unwrap();
        let moments = |clip| {
            let mut optimiser = ours(&variable([0.0; 3]), clip);
            optimiser.step(std::slice::from_ref(&gradient), 1.0).unwrap();
            optimiser.moments["x"].first.clone()
        };
        let near = |a: Vec<f32>, b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(moments(Some(1.0)), [0.06, 0.0, 0.08]));
        assert!(near(moments(Some(9.0)), [0.3, 0.0, 0.4]));
        assert!(near(moments(None), [0.3, 0.0, 0.4]));
    }

    #[test]
    fn rates_rise_and_fall() {
        let schedule = Schedule { warm_up: 4, total: Some(12) };
        let factors: Vec<f64> = (0..14).map(|step| schedule.factor(step)).collect();
        assert_eq!(factors[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((factors[8] - 0.5).abs() < 1e-12 && factors[12] < 1e-12 && factors[13] < 1e-12);
        assert_eq!(Schedule { warm_up: 0, total: None }.factor(1_000), 1.0);
    }
}
