//! The learner's life before the first round: reading, aligning, class statistics, saving.

use super::{
    Description, Settings, Statistics, TrainError,
    trunk::{Samples, Trunk},
};
use crate::{
    backbone::{self, Hidden, Takes},
    data::{Inputs, Labelled, table},
    dema::{Adapter, Projections, gates},
    ops::Linear,
};
use candle_core::Tensor;
use heterotune_protocol::{
    charter::{self, Anchors, Charter},
    limits,
    mixture::Layout,
};
use std::path::Path;

/// The fewest held-out samples that say anything of a mixture.
const HELD_MIN: usize = 8;

/// One node's backbone and data. It lives on the training thread.
pub struct Learner {
    pub(super) trunk: Trunk,
    pub(super) shape: charter::Adapter,
    pub(super) layout: Layout,
    pub(super) settings: Settings,
    pub(super) labels: Vec<String>,
    pub(super) train: Samples,
    pub(super) test: Option<Samples>,
    pub(super) held: Option<Samples>,
    pub(super) private: Option<Private>,
    anchors: Samples,
}

/// The private projections, ready to compute with.
pub(super) struct Private {
    saved: Projections,
    pub(super) adapters: Vec<Adapter>,
    pub(super) readout: Linear,
}

impl Learner {
    /// Reads a backbone's folder and a data folder: `train.csv`, `anchors.csv`, and `test.csv` and `held.csv` if there
    /// are any.
    ///
    /// # Errors
    /// Files that are missing, damaged, or do not belong to the backbone or the charter.
    pub fn load(backbone: &Path, data: &Path, charter: &Charter, settings: Settings) -> Result<Self, TrainError> {
        if settings.steps == 0 || settings.batch == 0 || !(settings.rate.is_finite() && settings.rate > 0.0) {
            return Err(TrainError::Value("steps, batch and rate of the training must be more than 0".into()));
        }
        let backbone = backbone::load(backbone, backbone::Options::default())?;
        let Takes::Pixels { channels, size } = backbone.takes() else {
            return Err(TrainError::Value("this backbone takes text, but the charter's task is one of images".into()));
        };
        let pixels = channels * size * size;
        let trunk = Trunk::new(backbone, usize::from(charter.adapter.slots));
        let path = data.join("anchors.csv");
        let bytes = table::bytes(&path)?;
        if Anchors::digest_of(&bytes) != charter.anchors.digest {
            return Err(TrainError::file(
                &path,
                "is not the file that the charter names; take the network's own anchors",
            ));
        }
        let anchors = table::parse(&path, &bytes, pixels, table::Labels::Absent)?;
        let (found, expected) = (anchors.pixels.dim(0)?, usize::from(charter.anchors.count));
        if found != expected {
            return Err(TrainError::file(&path, format!("holds {found} anchors, but the charter says {expected}")));
        }
        let labelled = |name: &str| -> Result<Labelled, TrainError> {
            let path = data.join(name);
            let table =
                table::parse(&path, &table::bytes(&path)?, pixels, table::Labels::OneOf(charter.task.labels()))?;
            Ok(Labelled { inputs: Inputs::Pixels(table.pixels), labels: table.labels })
        };
        let anchors = Labelled { inputs: Inputs::Pixels(anchors.pixels), labels: Vec::new() };
        let train = labelled("train.csv")?;
        let if_there = |name: &str| data.join(name).exists().then(|| labelled(name)).transpose();
        let (test, held) = (if_there("test.csv")?, if_there("held.csv")?);
        if let Some(few) = held.as_ref().map(|held| held.labels.len()).filter(|held| *held < HELD_MIN) {
            let problem = format!("holds {few} samples, too few to judge by; give it {HELD_MIN} or more, or remove it");
            return Err(TrainError::file(&data.join("held.csv"), problem));
        }
        let all = [&anchors, &train].into_iter().chain(&test).chain(&held).map(|set| &set.inputs);
        let cached = trunk.fits_cache(all);
        let samples = |set: Labelled| trunk.samples(set.inputs, set.labels, cached);
        let (anchors, train) = (samples(anchors)?, samples(train)?);
        let (test, held) = (test.map(samples).transpose()?, held.map(samples).transpose()?);
        Ok(Self {
            trunk,
            shape: charter.adapter.clone(),
            layout: Layout::new(charter),
            settings,
            labels: charter.task.labels().to_vec(),
            train,
            test,
            held,
            private: None,
            anchors,
        })
    }

    /// What it works with.
    pub fn description(&self) -> Description {
        let backbone = &self.trunk.backbone;
        let seen = self.labels.iter().zip(self.counts()).filter(|(_, count)| *count > 0);
        Description {
            model_type: backbone.model_type().into(),
            width: backbone.width(),
            depth: backbone.depth(),
            parameters: backbone.parameters(),
            samples: self.train.len(),
            classes: seen.map(|(label, _)| label.clone()).collect(),
            has_test: self.test.is_some(),
            held: self.held.as_ref().map_or(0, Samples::len),
        }
    }

    /// Training samples of each class.
    pub(super) fn counts(&self) -> Vec<u32> {
        self.train.counts(self.labels.len())
    }

    /// The anchor kernel of every space (slots 0 to S - 1, then the end), each `[anchors, anchors]`, row-major.
    ///
    /// # Errors
    /// A backbone that makes the same of all anchors.
    pub fn kernels(&self) -> Result<Vec<Vec<f64>>, TrainError> {
        let spaces = self.trunk.spaces(&self.anchors)?;
        Ok(spaces.iter().map(|space| space.kernel()).collect::<Result<_, _>>()?)
    }

    /// Fits the projections to the network's references: for every space, `[anchors, r]` (`[anchors, r_h]` at the
    /// end), row-major. Gives the share of each reference's variance that the backbone explains.
    ///
    /// # Errors
    /// References of another number or shape, or that nothing can be fitted to.
    pub fn align(&mut self, references: &[Vec<f64>]) -> Result<Vec<f64>, TrainError> {
        let spaces = self.trunk.spaces(&self.anchors)?;
        if spaces.len() != references.len() {
            let (found, must) = (references.len(), spaces.len());
            return Err(TrainError::Value(format!("{found} references for {must} spaces (the slots and the readout)")));
        }
        let (mut projections, mut explained) = (Vec::new(), Vec::new());
        for (space, (features, reference)) in spaces.iter().zip(references).enumerate() {
            let fit = features.fit(reference, self.rank_of(space), space < self.trunk.slots())?;
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
        let spaces = self.trunk.spaces(&self.anchors)?;
        let random = spaces.iter().enumerate().map(|(space, features)| {
            features.random(self.rank_of(space), space < self.trunk.slots(), self.settings.seed, space)
        });
        let projections = random.collect::<Result<_, _>>()?;
        self.adopt(projections)
    }

    /// The width of a space.
    fn rank_of(&self, space: usize) -> usize {
        usize::from(if space < self.trunk.slots() { self.shape.rank } else { self.shape.readout_rank })
    }

    /// Takes projections, the readout's last, into use.
    fn adopt(&mut self, mut projections: Vec<crate::dema::Projection>) -> Result<(), TrainError> {
        let readout = projections.pop().ok_or(TrainError::NotAligned)?;
        self.private = Some(Private::new(Projections { slots: projections, readout }, &self.shape)?);
        Ok(())
    }

    /// Class statistics of the training samples' codes, before any adapter. Codes longer than
    /// [`limits::CODE_NORM_MAX`] times sqrt(r_h) are shortened to that.
    ///
    /// # Errors
    /// A node that is not aligned yet.
    pub fn statistics(&self) -> Result<Statistics, TrainError> {
        let private = self.private.as_ref().ok_or(TrainError::NotAligned)?;
        let width = usize::from(self.shape.readout_rank);
        let most = limits::CODE_NORM_MAX as f64 * (width as f64).sqrt();
        let (mut sums, mut gram) = (vec![0.0; self.labels.len() * width], vec![0.0; width * width]);
        let mut labels = self.train.labels.iter();
        for rows in self.train.chunks() {
            let features =
                self.trunk.features(self.trunk.first(&self.train, &rows)?, |_, hidden| Ok(hidden.values.clone()))?;
            let codes: Vec<f32> = private.readout.forward(&features)?.flatten_all()?.to_vec1()?;
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

    /// The bytes of a safetensors file with the private projections.
    ///
    /// # Errors
    /// A node that is not aligned yet.
    pub fn save(&self) -> Result<Vec<u8>, TrainError> {
        Ok(self.private.as_ref().ok_or(TrainError::NotAligned)?.saved.encode()?)
    }

    /// Takes saved projections into use.
    ///
    /// # Errors
    /// Bytes that are damaged or belong to another backbone or network.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        let (rank, readout_rank) = (usize::from(self.shape.rank), usize::from(self.shape.readout_rank));
        let saved = Projections::decode(bytes, self.trunk.backbone.width(), self.trunk.slots(), rank, readout_rank)?;
        self.private = Some(Private::new(saved, &self.shape)?);
        Ok(())
    }

    /// Codes `[n, r_h]` from the hidden states of samples at the first slot, through `branches` (none: no adapters).
    pub(super) fn codes(&self, private: &Private, hidden: Hidden, branches: &[Tensor]) -> candle_core::Result<Tensor> {
        let features =
            self.trunk.features(hidden, |slot, hidden| match (private.adapters.get(slot), branches.get(slot)) {
                (Some(adapter), Some(branches)) => adapter.forward(&hidden.values, branches),
                _ => Ok(hidden.values.clone()),
            })?;
        private.readout.forward(&features)
    }
}

impl Private {
    fn new(saved: Projections, shape: &charter::Adapter) -> Result<Self, TrainError> {
        let (rank, branches) = (usize::from(shape.rank), usize::from(shape.branches));
        let adapters = match branches {
            0 => Vec::new(),
            _ => {
                let gates = gates(shape.seed, saved.slots.len(), rank, branches)?;
                let pairs = saved.slots.iter().zip(&gates);
                pairs.map(|(projection, gate)| Adapter::new(projection, gate)).collect::<Result<_, _>>()?
            }
        };
        let readout = saved.readout.encoder()?;
        Ok(Self { saved, adapters, readout })
    }
}
