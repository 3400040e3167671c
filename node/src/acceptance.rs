//! Which of the network's mixtures a node uses for itself: the newest, unless its own held-out samples say that an
//! earlier one is better. Nothing that is shared depends on that.

use crate::{dema::le_bytes, store::write_atomically};
use anyhow::{Context as _, Result};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView},
};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// How many standard errors of the mean difference a mixture may be worse by: more than chance makes of one in forty.
const ERRORS_MOST: f64 = 2.0;

/// What a node's held-out samples say of a mixture.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The round after which the mixture was made.
    pub round: u64,
    /// Its mean loss (cross entropy in nats) on the samples.
    pub loss: f64,
    /// The round whose mixture the node uses: this one, if it is accepted.
    pub uses: u64,
    /// The mean loss of the best mixture so far.
    pub best: f64,
}

impl Judgement {
    /// Whether the node uses this mixture.
    pub fn accepted(&self) -> bool {
        self.uses == self.round
    }
}

/// The mixture in use, kept in the file `in_use.safetensors`.
pub(crate) struct Acceptance {
    path: PathBuf,
    /// What the mixtures are trained from: those of another genesis are no match for them.
    reference: String,
    /// The round of the mixture in use.
    uses: Option<u64>,
    /// The losses of the best mixture so far, by sample.
    best: Vec<f64>,
}

impl Acceptance {
    /// What `path` says of mixtures with this `reference`, judged by `samples` samples; begun afresh where it says
    /// nothing of them.
    ///
    /// # Errors
    /// A file that can't be read or is damaged.
    pub(crate) fn load(path: PathBuf, reference: &str, samples: usize) -> Result<Self> {
        let mut acceptance = Self { path, reference: reference.into(), uses: None, best: Vec::new() };
        let path = &acceptance.path;
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(acceptance),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let read = read(&bytes)
            .with_context(|| format!("{} is damaged; delete it, and the node begins to judge anew", path.display()))?;
        if read.reference == reference && read.best.len() == samples {
            (acceptance.uses, acceptance.best) = (Some(read.round), read.best);
        }
        Ok(acceptance)
    }

    /// The round whose mixture is in use.
    pub(crate) fn uses(&self) -> Option<u64> {
        self.uses
    }

    /// Judges the mixture after `round` by its losses on the held-out samples, and keeps it for use unless they are
    /// worse than the best so far by more than chance explains.
    ///
    /// # Errors
    /// A disk that is full or broken.
    pub(crate) fn judge(&mut self, round: u64, mixture: &[Vec<f32>], losses: Vec<f64>) -> Result<Judgement> {
        // What is not a number is nothing to measure later mixtures by.
        let fresh = self.best.len() != losses.len() || !mean(&self.best).is_finite();
        if fresh || !is_worse(&losses, &self.best) {
            if fresh || mean(&losses) < mean(&self.best) {
                self.best.clone_from(&losses);
            }
            self.uses = Some(round);
            write(&self.path, &self.reference, round, mixture, &self.best)?;
        }
        let uses = self.uses.unwrap_or(round);
        Ok(Judgement { round, loss: mean(&losses), uses, best: mean(&self.best) })
    }
}

/// The round in use, as the file at `path` says; none without a file.
///
/// # Errors
/// A file that can't be read or is damaged.
pub fn used_round(path: &Path) -> Result<Option<u64>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(read(&bytes).with_context(|| format!("{} is damaged", path.display()))?.round)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Whether the new losses are worse than the old ones, sample by sample, beyond chance. What is not a number is.
fn is_worse(new: &[f64], old: &[f64]) -> bool {
    let differences: Vec<f64> = new.iter().zip(old).map(|(new, old)| new - old).collect();
    let (count, average) = (differences.len() as f64, mean(&differences));
    let variance = differences.iter().map(|d| (d - average).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let within_chance = average <= ERRORS_MOST * (variance / count).sqrt();
    !within_chance
}

/// What the file holds, but for the mixture.
struct Saved {
    reference: String,
    round: u64,
    best: Vec<f64>,
}

fn read(bytes: &[u8]) -> Result<Saved> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let note = |name: &str| header.metadata().as_ref().and_then(|notes| notes.get(name)).cloned();
    let best = SafeTensors::deserialize(bytes)?.tensor("best")?.data().as_chunks::<8>().0.to_vec();
    Ok(Saved {
        reference: note("reference").context("no reference")?,
        round: note("round").and_then(|round| round.parse().ok()).context("no round")?,
        best: best.into_iter().map(f64::from_le_bytes).collect(),
    })
}

fn write(path: &Path, reference: &str, round: u64, mixture: &[Vec<f32>], best: &[f64]) -> Result<()> {
    let groups: Vec<Vec<u8>> = mixture.iter().map(|group| le_bytes(group)).collect();
    let best: Vec<u8> = best.iter().flat_map(|loss| loss.to_le_bytes()).collect();
    let mut views = vec![("best".to_string(), TensorView::new(Dtype::F64, vec![best.len() / 8], &best)?)];
    for (at, bytes) in groups.iter().enumerate() {
        views.push((format!("mixture.{at}"), TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?));
    }
    let notes = [("reference".to_string(), reference.to_string()), ("round".to_string(), round.to_string())];
    write_atomically(path, &safetensors::serialize(views, Some(notes.into()))?, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_mixture_stays_in_use_while_later_ones_are_worse() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in_use.safetensors");
        let start = |reference: &str, samples| Acceptance::load(path.clone(), reference, samples).unwrap();
        let losses = |add: f64| -> Vec<f64> { (0..20).map(|i| f64::from(i % 5) * 0.1 + add).collect() };
        let saved = || {
            let bytes = fs::read(&path).unwrap();
            let view = SafeTensors::deserialize(&bytes).unwrap().tensor("mixture.0").unwrap().data().to_vec();
            f32::from_le_bytes(view.try_into().unwrap())
        };
        let mut acceptance = start("a", 20);
        let judge = |acceptance: &mut Acceptance, round: u64, losses| {
            acceptance.judge(round, &[vec![round as f32]], losses).unwrap()
        };
        assert!(judge(&mut acceptance, 0, losses(0.5)).accepted());
        assert!(judge(&mut acceptance, 1, losses(0.3)).accepted());
        let spoiled = judge(&mut acceptance, 2, losses(0.4));
        assert_eq!((spoiled.accepted(), spoiled.uses, saved()), (false, 1, 1.0));
        assert!(spoiled.loss > spoiled.best);
        assert!(!judge(&mut acceptance, 3, vec![f64::NAN; 20]).accepted());
        assert!(!judge(&mut acceptance, 3, vec![f64::INFINITY; 20]).accepted());
        // It holds after a restart, by the same samples and in the same network.
        acceptance = start("a", 20);
        assert_eq!(judge(&mut acceptance, 4, losses(0.4)).uses, 1);
        // Worse on average, but so little that chance explains it.
        let mut noisy = losses(0.3);
        noisy.iter_mut().enumerate().for_each(|(i, loss)| *loss += if i % 2 == 0 { 0.2 } else { -0.19 });
        assert!(judge(&mut acceptance, 5, noisy).accepted());
        assert_eq!(saved(), 5.0);
        // Little by little is measured against the best, too.
        assert!(!judge(&mut acceptance, 6, losses(0.31)).accepted());
        assert!(judge(&mut start("b", 20), 1, losses(9.0)).accepted());
        assert!(judge(&mut start("b", 3), 1, vec![99.0; 3]).accepted());
        // A first mixture that is spoiled does not keep better ones away.
        let mut acceptance = start("c", 2);
        assert!(judge(&mut acceptance, 1, vec![f64::NAN; 2]).accepted());
        assert_eq!(judge(&mut acceptance, 2, vec![1.0; 2]).best, 1.0);
        assert!(!judge(&mut acceptance, 3, vec![f64::NAN; 2]).accepted());
        fs::write(&path, [1, 2, 3]).unwrap();
        let told = Acceptance::load(path.clone(), "a", 20).map(|_| ()).unwrap_err().to_string();
        assert!(told.contains("is damaged; delete it"), "{told}");
    }
}
