//! The cross entropy of a language model's tokens, whose logits are never in memory all at once: they are a thousand times
//! as many as the values that they are made of.

use super::{
    Linear,
    product::{Into, View, multiply},
    values,
    vector::{exp, largest, sum, tanh, wide},
    with_values,
};
use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use candle_nn::{loss::cross_entropy as cross_entropy_of, ops::log_softmax};
use rayon::prelude::*;
use std::sync::{Arc, Mutex};

/// Logits that are in memory together.
const CHUNK: usize = 1 << 22;

/// The frozen head, and the readout that is added to it: the logits of a place are
/// softcap tanh(W x / softcap) + R^T z + b, or W x + R^T z + b without a softcap.
pub struct Vocabulary<'a> {
    /// W `[tokens, d]`, frozen.
    pub head: &'a Tensor,
    /// See there.
    pub softcap: Option<f64>,
    /// R `[r, tokens]`.
    pub weight: &'a Tensor,
    /// b `[tokens]`.
    pub bias: &'a Tensor,
}

impl Vocabulary<'_> {
    /// The mean cross entropy (nats) of `goals`, one for each place, from what the head reads `x` `[places, d]` and what
    /// the readout reads `z` `[places, r]`. Gradients are made at once, while the logits are there.
    ///
    /// # Errors
    /// Shapes that do not fit each other; values that are not f32 in main memory.
    pub fn loss(&self, x: &Tensor, z: &Tensor, goals: &[u32]) -> Result<Tensor> {
        if !x.device().is_cpu() {
            return cross_entropy_of(&self.logits(x, z)?, &self.known(goals, x.device())?);
        }
        let (op, joined) = self.op(x, z, goals)?;
        joined.apply_op3(&self.weight.contiguous()?, &self.bias.contiguous()?, op)
    }

    /// The cross entropy (nats) of every place by itself, without gradients.
    ///
    /// # Errors
    /// As [`Vocabulary::loss`].
    pub fn losses(&self, x: &Tensor, z: &Tensor, goals: &[u32]) -> Result<Vec<f64>> {
        if !x.device().is_cpu() {
            let all = log_softmax(&self.logits(x, z)?, D::Minus1)?;
            let goals = self.known(goals, x.device())?.unsqueeze(1)?;
            let losses: Vec<f32> = all.gather(&goals, 1)?.neg()?.flatten_all()?.to_vec1()?;
            return Ok(losses.into_iter().map(f64::from).collect());
        }
        let (op, joined) = self.op(x, z, goals)?;
        let mut losses = Vec::with_capacity(goals.len());
        with_values(&joined, |joined| {
            with_values(self.weight, |weight| {
                with_values(self.bias, |bias| {
                    with_values(&op.head, |head| {
                        op.chunks(Matrices { joined, head, weight, bias }, |chunk| {
                            losses.extend(chunk.losses);
                            Ok(())
                        })
                    })
                })
            })
        })?;
        Ok(losses)
    }

    /// All logits at once, in f32, by the library's operations.
    fn logits(&self, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        let own = Linear::new(self.head.clone(), None)?.forward(x)?.to_dtype(DType::F32)?;
        let own = match self.softcap {
            Some(cap) => ((own / cap)?.tanh()? * cap)?,
            None => own,
        };
        own + z.to_dtype(DType::F32)?.matmul(self.weight)?.broadcast_add(self.bias)?
    }

    /// Goals on a device, if they are tokens: a GPU does not look.
    fn known(&self, goals: &[u32], device: &Device) -> Result<Tensor> {
        let tokens = self.head.dim(0)?;
        match goals.iter().all(|goal| (*goal as usize) < tokens) {
            true => Tensor::new(goals, device),
            false => bail!("a goal beyond the {tokens} tokens"),
        }
    }

    fn op(&self, x: &Tensor, z: &Tensor, goals: &[u32]) -> Result<(Op, Tensor)> {
        let ((tokens, width), (rank, columns)) = (self.head.dims2()?, self.weight.dims2()?);
        let places = goals.len();
        let fits = x.dims2()? == (places, width) && z.dims2()? == (places, rank);
        if !fits || columns != tokens || self.bias.dims1()? != tokens || places == 0 {
            bail!(
                "{places} goals among {tokens} tokens, of places {:?} and codes {:?} with a readout {:?} and a bias {:?}",
                x.dims(),
                z.dims(),
                self.weight.dims(),
                self.bias.dims()
            );
        }
        if goals.iter().any(|goal| *goal as usize >= tokens) {
            bail!("a goal beyond the {tokens} tokens");
        }
        let sizes = Sizes { tokens, width, rank, softcap: self.softcap.map(|cap| cap as f32) };
        let op = Op { sizes, head: self.head.contiguous()?, goals: goals.into(), gradients: Mutex::new(None) };
        Ok((op, Tensor::cat(&[x, z], D::Minus1)?))
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    width: usize,
    rank: usize,
    softcap: Option<f32>,
}

struct Op {
    sizes: Sizes,
    head: Tensor,
    goals: Arc<[u32]>,
    /// Those of the three arguments, from the forward pass.
    gradients: Mutex<Option<[Vec<f32>; 3]>>,
}

#[derive(Clone, Copy)]
struct Matrices<'a> {
    /// `[places, d + r]`.
    joined: &'a [f32],
    head: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
}

/// Some places.
struct Chunk<'a> {
    /// The first.
    first: usize,
    places: usize,
    losses: Vec<f64>,
    /// What a token's probability is, less 1 where it is the goal: `[places, tokens]`.
    errors: &'a mut [f32],
    /// The slope of each logit of the head with a softcap.
    slopes: Option<&'a [f32]>,
}

impl Op {
    /// Computes chunk after chunk.
    fn chunks(&self, matrices: Matrices<'_>, mut each: impl FnMut(Chunk<'_>) -> Result<()>) -> Result<()> {
        let Sizes { tokens, width, rank, softcap } = self.sizes;
        let step = (CHUNK / tokens).clamp(1, self.goals.len());
        let mut logits = vec![0f32; step * tokens];
        let mut slopes = softcap.map(|_| vec![0f32; step * tokens]);
        for (index, goals) in self.goals.chunks(step).enumerate() {
            let (first, places) = (index * step, goals.len());
            let rows = matrices.joined.get(first * (width + rank)..).unwrap_or_default();
            let codes = rows.get(width..).unwrap_or_default();
            let logits = logits.get_mut(..places * tokens).unwrap_or_default();
            let head = View::new(matrices.head, tokens, width).t();
            let x = View::columns(rows, places, width, width + rank);
            multiply((logits, tokens), Into::Set, x, head, true)?;
            if let (Some(cap), Some(slopes)) = (softcap, &mut slopes) {
                let all = logits.par_chunks_mut(tokens).zip(slopes.par_chunks_mut(tokens));
                all.for_each(|(logits, slopes)| bend(logits, slopes, cap));
            }
            let z = View::columns(codes, places, rank, width + rank);
            multiply((logits, tokens), Into::Add, z, View::new(matrices.weight, rank, tokens), true)?;
            let rows = logits.par_chunks_mut(tokens).zip(goals);
            let losses = rows.map(|(row, goal)| cross_entropy(row, matrices.bias, *goal as usize)).collect();
            each(Chunk { first, places, losses, errors: logits, slopes: slopes.as_deref() })?;
        }
        Ok(())
    }

    /// The mean loss, and its gradients.
    fn run(&self, matrices: Matrices<'_>) -> Result<(f32, [Vec<f32>; 3])> {
        let Sizes { tokens, width, rank, .. } = self.sizes;
        let share = 1.0 / self.goals.len() as f32;
        let mut sum = 0.0;
        let (mut dx, mut dweight, mut dbias) =
            (vec![0f32; matrices.joined.len()], vec![0f32; matrices.weight.len()], vec![0f32; tokens]);
        self.chunks(matrices, |chunk| {
            let Chunk { first, places, losses, errors, slopes } = chunk;
            sum += losses.iter().sum::<f64>();
            errors.par_chunks_mut(tokens).for_each(|row| wide(|| row.iter_mut().for_each(|error| *error *= share)));
            let start = first * (width + rank);
            let codes = matrices.joined.get(start + width..).unwrap_or_default();
            let codes = View::columns(codes, places, rank, width + rank);
            multiply((&mut dweight, tokens), Into::Add, codes.t(), View::new(errors, places, tokens), true)?;
            for row in errors.chunks_exact(tokens) {
                wide(|| dbias.iter_mut().zip(row).for_each(|(sum, error)| *sum += error));
            }
            let step = width + rank;
            let (_, dcodes) = dx.split_at_mut(start + width);
            let readout = View::new(matrices.weight, rank, tokens).t();
            multiply((dcodes, step), Into::Set, View::new(errors, places, tokens), readout, true)?;
            if let Some(slopes) = slopes {
                errors.par_chunks_mut(tokens).zip(slopes.par_chunks(tokens)).for_each(|(errors, slopes)| {
                    wide(|| errors.iter_mut().zip(slopes).for_each(|(error, slope)| *error *= slope));
                });
            }
            let (_, dx) = dx.split_at_mut(start);
            let head = View::new(matrices.head, tokens, width);
            multiply((dx, step), Into::Set, View::new(errors, places, tokens), head, true)
        })?;
        Ok(((sum * f64::from(share)) as f32, [dx, dweight, dbias]))
    }
}

/// The softcap, in place, and its slopes.
fn bend(logits: &mut [f32], slopes: &mut [f32], cap: f32) {
    wide(|| {
        for (logit, slope) in logits.iter_mut().zip(slopes) {
            let bent = tanh(*logit / cap);
            (*logit, *slope) = (cap * bent, 1.0 - bent * bent);
        }
    });
}

/// The cross entropy of a row of logits and a bias; of the logits become the probabilities, less 1 at the goal.
fn cross_entropy(row: &mut [f32], bias: &[f32], goal: usize) -> f64 {
    wide(|| {
        row.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
        let largest = largest(row);
        let at_goal = row.get(goal).map_or(f32::NAN, |logit| logit - largest);
        row.iter_mut().for_each(|logit| *logit = exp(*logit - largest));
        let sum = sum(row);
        let inverse = 1.0 / sum;
        row.iter_mut().for_each(|value| *value *= inverse);
        if let Some(value) = row.get_mut(goal) {
            *value -= 1.0;
        }
        f64::from(sum).ln() - f64::from(at_goal)
    })
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "vocabulary-loss"
    }

    fn cpu_fwd(
        &self,
        joined: &CpuStorage,
        joined_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (joined, weight) = (values(joined, joined_layout)?, values(weight, weight_layout)?);
        let bias = values(bias, bias_layout)?;
        let (loss, gradients) = with_values(&self.head, |head| self.run(Matrices { joined, head, weight, bias }))?;
        if let Ok(mut kept) = self.gradients.lock() {
            *kept = Some(gradients);
        }
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn bwd(
        &self,
        joined: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _loss: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let kept = self.gradients.lock().ok().and_then(|mut kept| kept.take());
        let Some(gradients) = kept else { bail!("a loss over a vocabulary goes backward once") };
        let scale = gradient.to_scalar::<f32>()?;
        let tensor = |mut values: Vec<f32>, like: &Tensor| {
            if scale != 1.0 {
                values.iter_mut().for_each(|value| *value *= scale);
            }
            Tensor::from_vec(values, like.shape(), like.device()).map(Some)
        };
        let [dx, dweight, dbias] = gradients;
        Ok((tensor(dx, joined)?, tensor(dweight, weight)?, tensor(dbias, bias)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::noise;
    use candle_core::Var;

    const PLACES: usize = 6;

    /// The same from the library's operations.
    fn twin(v: &Vocabulary<'_>, x: &Tensor, z: &Tensor, goals: &[u32]) -> Tensor {
        cross_entropy_of(&v.logits(x, z).unwrap(), &Tensor::new(goals, x.device()).unwrap()).unwrap()
    }

    #[test]
    fn loss_and_gradients_are_those_of_its_plain_twin() {
        // So many tokens that not all places fit into a chunk.
        let tokens = CHUNK / 4;
        let goals: Vec<u32> = (0..PLACES).map(|place| (place * 77_777 % tokens) as u32).collect();
        let head = noise(&[tokens, 3], 1);
        let variable = |shape: &[usize], seed| Var::from_tensor(&noise(shape, seed)).unwrap();
        let (x, z) = (variable(&[PLACES, 3], 2), variable(&[PLACES, 2], 3));
        let (weight, bias) = (variable(&[2, tokens], 4), variable(&[tokens], 5));
        for softcap in [None, Some(0.7)] {
            let vocabulary = Vocabulary { head: &head, softcap, weight: &weight, bias: &bias };
            let ours = vocabulary.loss(&x, &z, &goals).unwrap();
            let theirs = twin(&vocabulary, &x, &z, &goals);
            let value = |loss: &Tensor| loss.to_scalar::<f32>().unwrap();
            assert!((value(&ours) - value(&theirs)).abs() < 1e-4, "{ours} is not {theirs}");
            let each = vocabulary.losses(&x, &z, &goals).unwrap();
            assert!((each.iter().sum::<f64>() / PLACES as f64 - f64::from(value(&ours))).abs() < 1e-5);
            let [ours, theirs] = [ours, theirs].map(|loss| (loss * 3.0).unwrap().backward().unwrap());
            for variable in [&x, &z, &weight, &bias] {
                let (ours, theirs) = (ours.get(variable).unwrap(), theirs.get(variable).unwrap());
                let norm = |a: &Tensor| value(&a.sqr().unwrap().sum_all().unwrap()).sqrt();
                assert!(norm(&(ours - theirs).unwrap()) < 1e-4 * norm(theirs));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (head, weight, bias) = (noise(&[5, 3], 1), noise(&[2, 5], 2), noise(&[5], 3));
        let vocabulary = Vocabulary { head: &head, softcap: None, weight: &weight, bias: &bias };
        let loss = |x: &[usize], z: &[usize], goals: &[u32]| vocabulary.loss(&noise(x, 4), &noise(z, 5), goals);
        assert!(loss(&[2, 3], &[2, 2], &[0, 4]).is_ok());
        assert!(loss(&[2, 3], &[2, 2], &[0, 5]).is_err());
        assert!(loss(&[2, 3], &[2, 3], &[0, 4]).is_err());
        assert!(loss(&[3, 3], &[2, 2], &[0, 4]).is_err());
        assert!(loss(&[2, 3], &[2, 2], &[]).is_err());
    }
}
