//! The learner's life before the first round: reading, aligning, class statistics, saving.

use super::{
    Description, Settings, Statistics, TrainError,
    load::{self, Desk},
    model::Net,
    predict::best,
    private::Private,
    samples::{Goals, Samples},
};
use crate::{
    backbone::{self, Backbone, Past, Takes},
    data::{Inputs, Report, Set, Targets},
    dema::{Projection, Projections},
    device::DeviceChoice,
    plan::{self, Work},
};
use heterotune_crypto::Digest;
use heterotune_protocol::{charter::Charter, limits};
use std::{path::Path, sync::Arc};

/// Refuses what can't be trained in the memory that there is. On a GPU that is not known.
fn fits(folder: &Path, options: backbone::Options, work: &Work<'_>) -> Result<(), TrainError> {
    let (Some(shape), Some((total, _))) = (plan::Shape::read(folder), plan::memory()) else { return Ok(()) };
    match options.device {
        DeviceChoice::Cpu => plan::ensure_fits(&shape, options, work, total).map_err(TrainError::Value),
        _ => Ok(()),
    }
}

/// Tokens that a sample begins with.
const PROMPT_TOKENS: usize = 16;
/// Tokens that a sample goes on for.
const SAMPLE_TOKENS: usize = 64;

/// One node's backbone and data. It lives on the training thread.
pub struct Learner {
    pub(super) net: Net,
    pub(super) settings: Settings,
    /// Rounds that the network runs; 0 for no end.
    pub(super) rounds: u64,
    pub(super) train: Samples,
    pub(super) test: Option<Samples>,
    pub(super) held: Option<Samples>,
    pub(super) validation: Option<Samples>,
    pub(super) private: Option<Private>,
    anchors: Samples,
    /// What files were like, and how text is read; none where samples did not come from files.
    reports: Vec<Report>,
    desk: Option<Desk>,
}

/// A node's samples.
pub struct Sets {
    /// What all backbones are aligned by.
    pub anchors: Inputs,
    /// What is learnt from.
    pub train: Set,
    /// The common test.
    pub test: Option<Set>,
    /// What mixtures are judged by.
    pub held: Option<Set>,
    /// What people who compare settings choose between them by, where that is done.
    pub validation: Option<Set>,
}

impl Learner {
    /// A learner by its backbone and samples, which must fit each other and the charter's task. A language model whose
    /// tokenizer has this digest shares the readout that the charter has for it.
    ///
    /// # Errors
    /// Settings, or a backbone, that can't do the task.
    pub fn new(
        backbone: impl Into<Arc<dyn Backbone>>,
        tokenizer: Option<Digest>,
        sets: Sets,
        charter: &Charter,
        settings: Settings,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        let backbone = backbone.into();
        if settings.checkpoint && !backbone.device().is_cpu() {
            return Err(TrainError::Value("gradient checkpointing is for the CPU only; leave checkpoint out".into()));
        }
        let mut net = Net::new(backbone, tokenizer, charter)?;
        net.trunk.checkpoint = settings.checkpoint;
        let trunk = &net.trunk;
        let others = [&sets.test, &sets.held, &sets.validation].into_iter().flatten();
        let all = [&sets.train].into_iter().chain(others);
        let place = trunk.place(settings.cache, all.map(|set| &set.inputs).chain([&sets.anchors]));
        let samples = |set: Set| trunk.samples(set, place);
        let anchors = samples(Set { inputs: sets.anchors, targets: Targets::None })?;
        let train = samples(sets.train)?;
        let [test, held, validation] = [sets.test, sets.held, sets.validation].map(|set| set.map(samples).transpose());
        let (test, held, validation) = (test?, held?, validation?);
        Ok(Self {
            net,
            settings,
            rounds: charter.rounds.total,
            train,
            test,
            held,
            validation,
            private: None,
            anchors,
            reports: Vec::new(),
            desk: None,
        })
    }

    /// Reads a backbone's folder and a data folder: `train`, `anchors`, and `test` and `held` if there are any.
    ///
    /// # Errors
    /// Files that are missing, damaged, or do not belong to the backbone or the charter.
    pub fn load(
        folder: &Path,
        options: backbone::Options,
        data: &Path,
        charter: &Charter,
        settings: Settings,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        // The weights first; how large a batch will be the data say.
        let one = Settings { batch: 1, ..settings };
        fits(folder, options, &Work { tokens: Some(1), ..Work::new(charter, &one) })?;
        Self::load_for(backbone::load(folder, options)?.into(), folder, options, data, charter, settings)
    }

    /// As [`Learner::load`], with a backbone from `folder` that is there already.
    ///
    /// # Errors
    /// As [`Learner::load`].
    pub fn load_for(
        backbone: Arc<dyn Backbone>,
        folder: &Path,
        options: backbone::Options,
        data: &Path,
        charter: &Charter,
        settings: Settings,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        let desk = Desk::open(folder, backbone.as_ref())?;
        let (sets, reports) = load::sets(&desk, data, charter, &settings)?;
        let batch = Settings { batch: settings.batch.min(sets.train.inputs.len()), ..settings };
        fits(folder, options, &Work { tokens: sets.train.inputs.longest(), ..Work::new(charter, &batch) })?;
        let mut learner = Self::new(backbone, desk.digest(), sets, charter, settings)?;
        (learner.reports, learner.desk) = (reports, Some(desk));
        Ok(learner)
    }

    /// Begins anew in another network, with the same backbone and samples. False, and nothing done, where these would not do
    /// there.
    ///
    /// # Errors
    /// Settings that can't be.
    pub fn renew(&mut self, charter: &Charter, settings: Settings) -> Result<bool, TrainError> {
        settings.check()?;
        let same = |settings: &Settings| (settings.length, settings.pack, settings.cache, settings.checkpoint);
        if same(&self.settings) != same(&settings) || !self.net.renew(charter)? {
            return Ok(false);
        }
        (self.settings, self.rounds, self.private) = (settings, charter.rounds.total, None);
        Ok(true)
    }

    /// What it works with.
    pub fn description(&self) -> Description {
        let backbone = &self.net.trunk.backbone;
        let seen = self.labels().iter().zip(self.counts()).filter(|(_, count)| *count > 0);
        Description {
            model_type: backbone.model_type().into(),
            width: backbone.width(),
            depth: backbone.depth(),
            parameters: backbone.parameters(),
            samples: self.train.len(),
            classes: seen.map(|(label, _)| label.clone()).collect(),
            has_test: self.test.is_some(),
            held: self.held.as_ref().map_or(0, Samples::len),
            left_out: self.reports.iter().filter(|report| report.bad_rows > 0).map(Report::to_string).collect(),
            shares_readout: self.net.readout.is_some(),
        }
    }

    /// How a language model goes on from the beginning of the first test text, the likeliest token each time: by itself,
    /// or with a mixture. None for other tasks, or without a test.
    ///
    /// # Errors
    /// As [`Learner::evaluate`].
    pub fn sample(&self, mixture: Option<&[Vec<f32>]>) -> Result<Option<[String; 2]>, TrainError> {
        let tokenizer = self.desk.as_ref().and_then(Desk::tokenizer).filter(|_| self.net.foretells());
        let (Some(tokenizer), Some(Goals::Next(goals))) = (tokenizer, self.test.as_ref().map(|test| &test.goals))
        else {
            return Ok(None);
        };
        let first = goals.first().into_iter().flatten().map(|(_, token)| *token);
        let mut ids: Vec<u32> = tokenizer.bos().into_iter().chain(first.take(PROMPT_TOKENS)).collect();
        let ready = mixture.map(|mixture| self.ready(mixture)).transpose()?;
        let decode = |ids: &[u32]| tokenizer.decode(ids).map_err(TrainError::Value);
        let prompt = decode(&ids)?;
        let (mut past, mut said, context) = (Past::default(), Vec::new(), self.context());
        while said.len() < SAMPLE_TOKENS && ids.len() + said.len() + PROMPT_TOKENS < context {
            let logits = match &ready {
                Some((model, parts)) => self.net.next(model, parts, &ids, &mut past)?,
                None => self.net.trunk.backbone.step(&ids, &mut past)?,
            };
            let Some(id) = best(&logits.flatten_all()?.to_vec1::<f32>()?) else { break };
            if tokenizer.ends(id as u32) {
                break;
            }
            said.push(id as u32);
            ids = vec![id as u32];
        }
        Ok(Some([prompt, decode(&said)?]))
    }

    /// The most tokens that the backbone takes.
    fn context(&self) -> usize {
        match self.net.trunk.backbone.takes() {
            Takes::Tokens { context, .. } => context,
            Takes::Pixels { .. } => 0,
        }
    }

    /// The labels of a classification.
    pub(super) fn labels(&self) -> &[String] {
        self.net.task.labels()
    }

    /// Training samples of each class.
    pub(super) fn counts(&self) -> Vec<u32> {
        self.train.counts(self.labels().len())
    }

    /// The rate at which projections are trained, if they are.
    pub(super) fn projection_rate(&self) -> Option<f64> {
        let usual = if self.net.foretells() { self.settings.rate } else { 0.0 };
        Some(self.settings.projection_rate.unwrap_or(usual)).filter(|rate| *rate > 0.0)
    }

    /// The anchor kernel of every space (slots 0 to S - 1, then the end), each `[anchors, anchors]`, row-major.
    ///
    /// # Errors
    /// A backbone that makes the same of all anchors.
    pub fn kernels(&self) -> Result<Vec<Vec<f64>>, TrainError> {
        let spaces = self.net.trunk.spaces(&self.anchors)?;
        Ok(spaces.iter().map(|space| space.kernel()).collect::<Result<_, _>>()?)
    }

    /// Fits the projections to the network's references: for every space, `[anchors, r]` (`[anchors, r_h]` at the
    /// end), row-major. Gives the share of each reference's variance that the backbone explains.
    ///
    /// # Errors
    /// References of another number or shape, or that nothing can be fitted to.
    pub fn align(&mut self, references: &[Vec<f64>]) -> Result<Vec<f64>, TrainError> {
        let spaces = self.net.trunk.spaces(&self.anchors)?;
        if spaces.len() != references.len() {
            let (found, must) = (references.len(), spaces.len());
            return Err(TrainError::Value(format!("{found} references for {must} spaces (the slots and the readout)")));
        }
        let (mut projections, mut explained) = (Vec::new(), Vec::new());
        for (space, (features, reference)) in spaces.iter().zip(references).enumerate() {
            let fit = features.fit(reference, self.rank_of(space), space < self.net.trunk.slots())?;
            projections.push(fit.projection);
            explained.push(fit.explained);
        }
        self.adopt(projections)?;
        Ok(explained)
    }

    /// Takes random projections of the same size instead, made from the settings' seed.
    ///
    /// # Errors
    /// A backbone that makes the same of all anchors.
    pub fn randomise(&mut self) -> Result<(), TrainError> {
        let spaces = self.net.trunk.spaces(&self.anchors)?;
        let random = spaces.iter().enumerate().map(|(space, features)| {
            features.random(self.rank_of(space), space < self.net.trunk.slots(), self.settings.seed, space)
        });
        let projections = random.collect::<Result<_, _>>()?;
        self.adopt(projections)
    }

    /// The width of a space.
    fn rank_of(&self, space: usize) -> usize {
        usize::from(if space < self.net.trunk.slots() { self.net.shape.rank } else { self.net.shape.readout_rank })
    }

    /// Takes projections, the readout's last, into use.
    fn adopt(&mut self, mut projections: Vec<Projection>) -> Result<(), TrainError> {
        let readout = projections.pop().ok_or(TrainError::NotAligned)?;
        let private = Private::new(Projections { slots: projections, readout }, self.net.private_shape())?;
        self.private = Some(private.on(self.net.device())?);
        Ok(())
    }

    /// Class statistics of the training samples' codes, before any adapter. Codes longer than
    /// [`limits::CODE_NORM_MAX`] times sqrt(r_h) are shortened to that.
    ///
    /// # Errors
    /// A node that is not aligned yet.
    pub fn statistics(&self) -> Result<Statistics, TrainError> {
        let model = self.net.model(self.private.as_ref().ok_or(TrainError::NotAligned)?)?;
        let width = usize::from(self.net.shape.readout_rank);
        let most = limits::CODE_NORM_MAX as f64 * (width as f64).sqrt();
        let (mut sums, mut gram) = (vec![0.0; self.labels().len() * width], vec![0.0; width * width]);
        let mut labels = self.train.labels().iter();
        for rows in self.train.chunks() {
            let features = self
                .net
                .trunk
                .features(self.net.trunk.first(&self.train, &rows)?, |_, hidden| Ok(hidden.values.clone()))?;
            let codes: Vec<f32> = model.encode(&features)?.flatten_all()?.to_vec1()?;
            for (code, label) in codes.chunks_exact(width).zip(&mut labels) {
                let norm = code.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                let shrink = if norm > most { most / norm } else { 1.0 };
                let code: Vec<f64> = code.iter().map(|value| f64::from(*value) * shrink).collect();
                let sum = sums.chunks_exact_mut(width).nth(*label as usize);
                sum.into_iter().flatten().zip(&code).for_each(|(sum, value)| *sum += value);
                for (line, factor) in gram.chunks_exact_mut(width).zip(&code) {
                    line.iter_mut().zip(&code).for_each(|(cell, value)| *cell += factor * value);
                }
            }
        }
        Ok(Statistics { counts: self.counts(), sums, gram })
    }

    /// The bytes of a safetensors file with what is private to the node.
    ///
    /// # Errors
    /// A node that is not aligned yet.
    pub fn save(&self) -> Result<Vec<u8>, TrainError> {
        self.private.as_ref().ok_or(TrainError::NotAligned)?.encode()
    }

    /// Takes what was saved into use.
    ///
    /// # Errors
    /// Bytes that are damaged or belong to another backbone or network.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        self.private = Some(Private::decode(bytes, self.net.private_shape())?.on(self.net.device())?);
        Ok(())
    }

    /// Whether training changes what is private.
    pub fn trains_privately(&self) -> bool {
        self.projection_rate().is_some() || self.net.readout.is_none()
    }
}
