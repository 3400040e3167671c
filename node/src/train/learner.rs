//! The learner's life before the first round: reading, aligning, class statistics, saving.

use super::{Description, Settings, Statistics, TrainError, load, model::Net, private::Private, trunk::Samples};
use crate::{
    backbone::{self, Backbone},
    data::{Inputs, Set, Targets},
    dema::{Projection, Projections},
};
use heterotune_crypto::Digest;
use heterotune_protocol::{charter::Charter, limits};
use std::path::Path;

/// One node's backbone and data. It lives on the training thread.
pub struct Learner {
    pub(super) net: Net,
    pub(super) settings: Settings,
    /// Rounds that the network runs; 0 for no end.
    pub(super) rounds: u64,
    pub(super) train: Samples,
    pub(super) test: Option<Samples>,
    pub(super) held: Option<Samples>,
    pub(super) private: Option<Private>,
    anchors: Samples,
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
}

impl Learner {
    /// A learner by its backbone and samples, which must fit each other and the charter's task. A language model whose
    /// tokenizer has this digest shares the readout that the charter has for it.
    ///
    /// # Errors
    /// Settings, or a backbone, that can't do the task.
    pub fn new(
        backbone: Box<dyn Backbone>,
        tokenizer: Option<Digest>,
        sets: Sets,
        charter: &Charter,
        settings: Settings,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        let net = Net::new(backbone, tokenizer, charter)?;
        let trunk = &net.trunk;
        let all = [Some(&sets.train), sets.test.as_ref(), sets.held.as_ref()].into_iter().flatten();
        let cached = trunk.fits_cache(all.map(|set| &set.inputs).chain([&sets.anchors]));
        let samples = |set: Set| trunk.samples(set, cached);
        let anchors = samples(Set { inputs: sets.anchors, targets: Targets::None })?;
        let train = samples(sets.train)?;
        let (test, held) = (sets.test.map(samples).transpose()?, sets.held.map(samples).transpose()?);
        Ok(Self { net, settings, rounds: charter.rounds.total, train, test, held, private: None, anchors })
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
        let backbone = backbone::load(folder, options)?;
        let (sets, tokenizer) = load::sets(folder, backbone.as_ref(), data, charter, &settings)?;
        Self::new(backbone, tokenizer, sets, charter, settings)
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
            shares_readout: self.net.readout.is_some(),
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
        self.private = Some(Private::new(Projections { slots: projections, readout }, self.net.private_shape())?);
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
        self.private = Some(Private::decode(bytes, self.net.private_shape())?);
        Ok(())
    }

    /// Whether training changes what is private.
    pub fn trains_privately(&self) -> bool {
        self.projection_rate().is_some() || self.net.readout.is_none()
    }
}
