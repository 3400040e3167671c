//! One slot's adapter: frozen private projections around trained shared branches.

use super::Projection;
use crate::ops::{LayerNorm, Linear, enter, gelu, leave, softmax};
use candle_core::{DType, Device, Result, Tensor, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The gate matrix G `[r, branches]` of each slot, N(0, 1) 2 / sqrt(r): the same on every node, as `seed` is the
/// charter's.
///
/// # Errors
/// None that are known.
pub fn gates(seed: u64, slots: usize, rank: usize, branches: usize) -> Result<Vec<Tensor>> {
    let scale = 2.0 / (rank as f64).sqrt();
    let gate = |slot: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(slot as u64);
        let values = (0..rank * branches).map(|_| (rng.sample::<f64, _>(StandardNormal) * scale) as f32).collect();
        Tensor::from_vec(values, (rank, branches), &Device::Cpu)
    };
    (0..slots).map(gate).collect()
}

/// The frozen part of a slot. Branches are given to every pass.
pub struct Adapter {
    norm: LayerNorm,
    encoder: Linear,
    gate: Linear,
    decoder: Linear,
}

impl Adapter {
    /// An adapter by its projection and its gate matrix `[r, branches]`.
    ///
    /// # Errors
    /// A projection without a way back, or tensors that do not fit each other.
    pub fn new(projection: &Projection, gate: &Tensor) -> Result<Self> {
        let Some(up) = &projection.up else { bail!("a slot's projection has no way back") };
        Ok(Self {
            norm: LayerNorm::plain(),
            encoder: projection.encoder()?,
            gate: Linear::new(gate.t()?.contiguous()?, None)?,
            decoder: Linear::new(up.t()?.contiguous()?, None)?,
        })
    }

    /// `[n, tokens, d]` to `[n, tokens, d]`, through branches `[M, r, r]`. It computes in f32, whatever the hidden state is.
    ///
    /// # Errors
    /// Tensors that do not fit the adapter.
    pub fn forward(&self, hidden: &Tensor, branches: &Tensor) -> Result<Tensor> {
        let (count, rank, _) = branches.dims3()?;
        let wide = hidden.to_dtype(DType::F32)?;
        let code = enter(&self.norm, &self.encoder, &wide)?;
        let gate = softmax(&self.gate.forward(&code)?)?;
        let (inputs, tokens, _) = code.dims3()?;
        let rows = inputs * tokens;
        // sum_m g_m (a B_m) is one product: the row of all g_m a times the B_m on top of each other.
        let active = gelu(&code)?.reshape((rows, 1, rank))?;
        let mixed = gate.reshape((rows, count, 1))?.broadcast_mul(&active)?.reshape((rows, count * rank))?;
        let step = mixed.matmul(&branches.reshape((count * rank, rank))?)?.reshape((inputs, tokens, rank))?;
        leave(&wide, &self.decoder, &step)?.to_dtype(hidden.dtype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{D, Var};

    fn noise(shape: &[usize], seed: u64) -> Tensor {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values = (0..shape.iter().product()).map(|_| rng.random_range(-1f32..1.0)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    const WIDTH: usize = 6;
    const RANK: usize = 3;
    const BRANCHES: usize = 2;

    fn example() -> (Projection, Tensor, Adapter) {
        let projection =
            Projection { mean: noise(&[WIDTH], 1), down: noise(&[WIDTH, RANK], 2), up: Some(noise(&[RANK, WIDTH], 3)) };
        let gate = gates(7, 2, RANK, BRANCHES).unwrap().remove(1);
        let adapter = Adapter::new(&projection, &gate).unwrap();
        (projection, gate, adapter)
    }

    /// The definition, branch by branch, from the library's operations.
    fn twin(projection: &Projection, gate: &Tensor, hidden: &Tensor, branches: &Tensor) -> Tensor {
        let centred = hidden.broadcast_sub(&hidden.mean_keepdim(D::Minus1).unwrap()).unwrap();
        let variance = centred.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let normal = centred.broadcast_div(&(variance + crate::ops::EPSILON).unwrap().sqrt().unwrap()).unwrap();
        let code = normal.broadcast_sub(&projection.mean).unwrap().broadcast_matmul(&projection.down).unwrap();
        let gates = candle_nn::ops::softmax(&code.broadcast_matmul(gate).unwrap(), D::Minus1).unwrap();
        let active = code.gelu_erf().unwrap();
        let mut step = active.zeros_like().unwrap();
        for m in 0..BRANCHES {
            let through = active.broadcast_matmul(&branches.get(m).unwrap()).unwrap();
            step = (step + through.broadcast_mul(&gates.narrow(2, m, 1).unwrap()).unwrap()).unwrap();
        }
        (hidden + step.broadcast_matmul(projection.up.as_ref().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn it_is_what_its_definition_says_in_value_and_gradient() {
        let (projection, gate, adapter) = example();
        let hidden = Var::from_tensor(&noise(&[2, 4, WIDTH], 4)).unwrap();
        let branches = Var::from_tensor(&noise(&[BRANCHES, RANK, RANK], 5)).unwrap();
        let ours = adapter.forward(&hidden, &branches).unwrap();
        let theirs = twin(&projection, &gate, &hidden, &branches);
        let difference = |a: &Tensor, b: &Tensor| -> f32 {
            (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
        };
        assert!(difference(&ours, &theirs) < 1e-5);
        let weights = noise(&[2, 4, WIDTH], 6);
        let gradients = |y: &Tensor| (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        let (ours, theirs) = (gradients(&ours), gradients(&theirs));
        for variable in [&hidden, &branches] {
            assert!(difference(ours.get(variable).unwrap(), theirs.get(variable).unwrap()) < 1e-4);
        }
    }

    #[test]
    fn the_gradient_of_the_branches_is_that_of_finite_differences() {
        let (_, _, adapter) = example();
        let hidden = noise(&[2, 4, WIDTH], 4);
        let start = noise(&[BRANCHES, RANK, RANK], 5);
        let loss = |branches: &Tensor| adapter.forward(&hidden, branches).unwrap().sqr().unwrap().sum_all().unwrap();
        let branches = Var::from_tensor(&start).unwrap();
        let gradients = loss(&branches).backward().unwrap();
        let gradient: Vec<f32> = gradients.get(&branches).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let values: Vec<f32> = start.flatten_all().unwrap().to_vec1().unwrap();
        for (index, gradient) in gradient.iter().enumerate() {
            let moved = |by: f32| -> f32 {
                let mut values = values.clone();
                values[index] += by;
                loss(&Tensor::from_vec(values, start.shape(), &Device::Cpu).unwrap()).to_scalar().unwrap()
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((difference - gradient).abs() < 2e-2 * (1.0 + gradient.abs()), "{difference} is not {gradient}");
        }
    }

    #[test]
    fn branches_of_zeros_change_nothing() {
        let (_, _, adapter) = example();
        let hidden = noise(&[2, 4, WIDTH], 4);
        let zeros = noise(&[BRANCHES, RANK, RANK], 5).zeros_like().unwrap();
        let after: Vec<Vec<Vec<f32>>> = adapter.forward(&hidden, &zeros).unwrap().to_vec3().unwrap();
        assert_eq!(after, hidden.to_vec3::<f32>().unwrap());
    }

    #[test]
    fn gates_follow_the_seed_and_differ_by_slot() {
        let values = |seed| -> Vec<Vec<Vec<f32>>> {
            gates(seed, 2, 16, 4).unwrap().iter().map(|gate| gate.to_vec2().unwrap()).collect()
        };
        assert_eq!(values(1), values(1));
        assert_ne!(values(1), values(2));
        let both = values(1);
        assert_ne!(both[0], both[1]);
        let square: f32 = both.iter().flatten().flatten().map(|value| value * value).sum::<f32>() / 128.0;
        assert!((0.1..0.5).contains(&square), "the mean square is {square}, not about 4 / 16");
    }
}
