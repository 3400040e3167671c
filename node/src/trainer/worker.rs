//! A node's work: alignment, statistics, rounds of training. What is private to the node (projections, what rounding has kept
//! back) stays here and in `private.safetensors`.

use super::{
    Report,
    residual::{BEFORE, Residual},
};
use crate::{
    acceptance::Acceptance,
    store::write_atomically,
    train::{Learner, Score, Snapshot, TrainError, drawn},
};
use anyhow::{Context as _, Result, anyhow, bail};
use heterotune_crypto::NodeId;
use heterotune_protocol::{
    charter::Charter,
    codec,
    genesis::{Kernels, Reference, Statistics},
    round::{Contribution, Work},
};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView},
};
use std::{
    fs,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Instant,
};

/// The share of a reference's variance that a backbone must explain. Backbones that fit their task explain 0.8 and
/// more (measured on digits); below a twentieth, what the others send means nothing here.
const FIT_MIN: f64 = 0.05;

/// The file of what the node reaches alone.
pub(crate) const ALONE: &str = "alone.safetensors";

/// Where a worker's reports go.
pub(crate) type Reports = Box<dyn FnMut(Report) -> Result<()> + Send>;

/// Does a node's work.
pub(crate) struct Worker {
    learner: Learner,
    charter: Charter,
    /// The file of what is private; none where nothing is to outlive the process.
    private: Option<PathBuf>,
    /// Who draws its updates instead of training.
    pub(super) idle: Option<NodeId>,
    reports: Reports,
    /// The digest of the reference that the projections are fitted to.
    reference: String,
    residual: Residual,
    /// Where there are held-out samples.
    acceptance: Option<Acceptance>,
    /// The thread that writes what the node knew before the round.
    keeping: Option<JoinHandle<Result<()>>>,
}

impl Worker {
    /// A worker that has done nothing yet.
    pub(crate) fn new(learner: Learner, charter: Charter, private: Option<PathBuf>, reports: Reports) -> Self {
        let (idle, reference, residual, acceptance, keeping) = Default::default();
        Self { learner, charter, private, idle, reports, reference, residual, acceptance, keeping }
    }

    /// The learner, for other work.
    pub(crate) fn into_learner(self) -> Learner {
        self.learner
    }

    fn report(&mut self, report: Report) -> Result<()> {
        (self.reports)(report)
    }

    /// What is reported before any work; with `alone`, also what the node reaches without the network.
    pub(crate) fn begin(&mut self, alone: bool) -> Result<()> {
        let description = self.learner.description();
        self.report(Report::Loaded(description))?;
        self.sample(None)?;
        if alone && let Some(alone) = self.learner.alone(&self.charter)? {
            if let Some(private) = &self.private {
                write_atomically(&private.with_file_name(ALONE), &alone.saved, true)?;
            }
            self.report(Report::Alone(alone))?;
        }
        Ok(())
    }

    /// Does some work, and reports what came of it.
    pub(crate) fn work(&mut self, work: Work) -> Result<()> {
        match work {
            Work::Kernels => {
                let mut kernels = self.learner.kernels()?;
                // The end's is the last slot's.
                kernels.truncate(self.charter.adapter.slots.into());
                let kernels = Kernels::from_features(&self.charter, &kernels)?;
                self.report(Report::Contribution(Contribution::Kernels(kernels), None))
            }
            Work::Align(reference) => self.align(reference.as_deref()),
            Work::Statistics => {
                let measured = self.learner.statistics()?;
                let statistics =
                    Statistics::from_values(&self.charter, &measured.counts, &measured.sums, &measured.gram)?;
                self.report(Report::Contribution(Contribution::Statistics(statistics), None))
            }
            Work::Round { round, mixture } => {
                if let Some(private) = self.residual.private.as_ref().filter(|_| round == self.residual.round) {
                    // Trained before, but cut off before anybody knew: once more from the same beginning.
                    self.learner.restore(private)?;
                }
                self.evaluate(round, &mixture)?;
                self.train(round, &mixture)
            }
            Work::Finish { round, mixture } => {
                self.evaluate(round, &mixture)?;
                self.kept()?;
                self.sample(Some(&mixture))?;
                self.report(Report::Finished)
            }
        }
    }

    /// How the model goes on from a text before it has learnt anything, or after.
    fn sample(&mut self, mixture: Option<&[Vec<f32>]>) -> Result<()> {
        match self.learner.sample(mixture)? {
            Some([prompt, text]) => self.report(Report::Sample { after: mixture.is_some(), prompt, text }),
            None => Ok(()),
        }
    }

    fn evaluate(&mut self, round: u64, mixture: &[Vec<f32>]) -> Result<()> {
        let made_by = round.saturating_sub(1);
        self.keep(made_by, mixture)?;
        if self.idle.is_some() {
            return self.report(Report::Evaluated(made_by, Score::default()));
        }
        let (accuracy, losses) = (self.learner.evaluate(mixture)?, self.learner.held_losses(mixture)?);
        if accuracy.is_some() || losses.is_some() {
            // What is told of can be used.
            self.kept()?;
        }
        if let Some(accuracy) = accuracy {
            self.report(Report::Evaluated(made_by, accuracy))?;
        }
        if let Some(score) = self.learner.validate(mixture)? {
            self.report(Report::Validated(made_by, score))?;
        }
        if let (Some(acceptance), Some(losses)) = (&mut self.acceptance, losses) {
            let judgement = acceptance.judge(made_by, mixture, losses)?;
            self.report(Report::Judged(judgement))?;
        }
        Ok(())
    }

    /// Begins to keep what the node knows after a round. Nothing of the next is said before it is kept.
    fn keep(&mut self, round: u64, mixture: &[Vec<f32>]) -> Result<()> {
        self.kept()?;
        let Some(private) = &self.private else { return Ok(()) };
        let state = private.parent().context("the private file is in no folder")?.to_path_buf();
        let used = self.acceptance.as_ref().and_then(Acceptance::uses);
        let snapshot = Snapshot { round, mixture: mixture.to_vec(), private: self.learner.save()? };
        let write = move || write_snapshot(&state, used, &snapshot);
        self.keeping = Some(thread::Builder::new().name("snapshot".into()).spawn(write)?);
        Ok(())
    }

    /// Waits until that is done.
    fn kept(&mut self) -> Result<()> {
        let thread = self.keeping.take();
        thread.map_or(Ok(()), |thread| thread.join().unwrap_or_else(|_| Err(anyhow!("keeping a round has failed"))))
    }

    /// Projections are fitted once and kept: a fit on another machine would differ in its last bits.
    fn align(&mut self, reference: Option<&Reference>) -> Result<()> {
        self.reference = reference.map_or("random".into(), |reference| reference.digest().to_string());
        let held = self.learner.description().held;
        if let Some(private) = &self.private {
            if held > 0 {
                let path = private.with_file_name("in_use.safetensors");
                self.acceptance = Some(Acceptance::load(path, &self.reference, held)?);
            }
            if let Some(bytes) = self.saved(private)? {
                self.learner.restore(&bytes).with_context(|| format!("in {}", private.display()))?;
                self.residual = Residual::read(&bytes).with_context(|| format!("in {}", private.display()))?;
                return self.report(Report::Aligned(Vec::new()));
            }
        }
        let fit = match reference {
            Some(reference) => self.learner.align(&reference.spaces)?,
            None => {
                self.learner.randomise()?;
                Vec::new()
            }
        };
        if let Some(worst) = fit.iter().copied().reduce(f64::min).filter(|worst| *worst < FIT_MIN) {
            bail!(
                "this backbone explains only {:.1} % of what the network's backbones see in the anchors, so it cannot be aligned; use one that fits the task",
                100.0 * worst
            );
        }
        self.save()?;
        self.report(Report::Aligned(fit))
    }

    /// The private state on disk, if it belongs to this reference.
    fn saved(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).with_context(|| {
            format!("{} is damaged; delete it, and the node fits its projections anew", path.display())
        })?;
        let belongs = header
            .metadata()
            .as_ref()
            .and_then(|notes| notes.get("reference"))
            .is_some_and(|saved| *saved == self.reference);
        Ok(belongs.then_some(bytes))
    }

    fn save(&self) -> Result<()> {
        let Some(path) = &self.private else { return Ok(()) };
        let private = self.learner.save()?;
        let tensors = SafeTensors::deserialize(&private)?;
        let residual = self.residual.bytes();
        let mut views: Vec<(String, TensorView<'_>)> = tensors.tensors();
        if let Some(before) = &self.residual.private {
            let before = SafeTensors::deserialize(before)?.tensors();
            views.extend(before.into_iter().map(|(name, view)| (format!("{BEFORE}{name}"), view)));
        }
        for (name, bytes) in &residual {
            views.push((name.clone(), TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?));
        }
        let notes =
            [("reference".to_string(), self.reference.clone()), ("round".to_string(), self.residual.round.to_string())];
        let bytes = safetensors::serialize(views, Some(notes.into()))?;
        write_atomically(path, &bytes, true)
    }

    fn train(&mut self, round: u64, mixture: &[Vec<f32>]) -> Result<()> {
        if round != self.residual.round {
            self.residual.before = std::mem::take(&mut self.residual.after);
            self.residual.private = self.learner.trains_privately().then(|| self.learner.save()).transpose()?;
            self.residual.round = round;
        }
        let started = Instant::now();
        let trained = match &self.idle {
            Some(node) => drawn(node, round, mixture),
            None => self.learner.train(round, mixture)?,
        };
        let seconds = started.elapsed().as_secs_f64();
        let (groups, after) = trained
            .delta
            .iter()
            .enumerate()
            .map(|(at, delta)| {
                let kept = self.residual.before.get(at).filter(|kept| kept.len() == delta.len());
                let wanted: Vec<f32> = match kept {
                    Some(kept) => delta.iter().zip(kept).map(|(delta, kept)| delta + kept).collect(),
                    None => delta.clone(),
                };
                let group = codec::quantise(&self.charter.codec, &wanted);
                let lost = wanted.iter().zip(group.view()).map(|(wanted, said)| wanted - said).collect();
                (group, lost)
            })
            .unzip();
        self.residual.after = after;
        if !trained.loss.is_finite() {
            let loss = trained.loss;
            let message = format!("training diverged in round {round} (the loss is {loss}); lower --rate");
            return Err(TrainError::Diverged(message).into());
        }
        self.save()?;
        self.kept()?;
        let speed = trained.seen.1 as f64 / seconds.max(1e-9);
        self.report(Report::Contribution(Contribution::Update { round, groups }, Some((trained.loss, speed))))
    }
}

/// Writes what a node knew after a round; what it knew long ago goes.
fn write_snapshot(state: &Path, used: Option<u64>, snapshot: &Snapshot) -> Result<()> {
    let old = Snapshot::make_room(state, used).with_context(|| format!("cannot write to {}", state.display()))?;
    write_atomically(&Snapshot::path(state, snapshot.round), &snapshot.encode()?, true)?;
    old.iter().for_each(|path| drop(fs::remove_file(path)));
    Ok(())
}
