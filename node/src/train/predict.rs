//! A model in use: a bare backbone with its own head, or a node's backbone with what its network has learnt.

use super::{
    Snapshot, TrainError,
    alone::Classifier,
    load::Desk,
    model::{Model, Net, Parts},
    private::Private,
    score::{cross_entropies, perplexity},
};
use crate::{
    backbone::{self, Backbone, Batch, Head, Past, Takes},
    data::{Inputs, Report, Set, Targets, Template, Tokenizer},
};
use candle_core::Tensor;
use heterotune_protocol::charter::{Charter, Task};
use std::path::Path;

/// Numbers that the logits of a batch may have: 128 MB.
const LOGITS_MAX: usize = 32 << 20;
/// Tokens that a batch may have, padding included.
const TOKENS_MAX: usize = 8_192;
/// Inputs that a batch may have.
const BATCH_MAX: usize = 64;

/// A model in use.
pub struct Predictor {
    desk: Desk,
    body: Body,
    /// What it says of an input: labels, or none where it foretells tokens.
    labels: Vec<String>,
}

enum Body {
    Bare(Box<dyn Backbone>),
    Node(Box<Node>),
    Alone(Box<(Net, Classifier)>),
}

struct Node {
    net: Net,
    model: Model,
    parts: Parts,
}

impl Predictor {
    /// The backbone in `folder` with the head that it came with.
    ///
    /// # Errors
    /// A backbone that can't be loaded, or without a head.
    pub fn bare(folder: &Path, options: backbone::Options) -> Result<Self, TrainError> {
        let backbone = backbone::load(folder, options)?;
        let desk = Desk::open(folder, backbone.as_ref())?;
        let labels = match backbone.head() {
            Head::Classes(labels) => labels,
            Head::Vocabulary => Vec::new(),
            Head::None => {
                let problem = "has no head of its own, so it says nothing by itself; give the --state folder of a node that has learnt with it";
                return Err(TrainError::file(folder, problem));
            }
        };
        Ok(Self { desk, body: Body::Bare(backbone), labels })
    }

    /// The backbone in `folder` with what a node of the charter's network knew after a round.
    ///
    /// # Errors
    /// A backbone that can't be loaded, or that the snapshot doesn't belong to.
    pub fn node(
        folder: &Path,
        options: backbone::Options,
        charter: &Charter,
        snapshot: &Snapshot,
    ) -> Result<Self, TrainError> {
        let backbone = backbone::load(folder, options)?;
        let desk = Desk::open(folder, backbone.as_ref())?;
        let net = Net::new(backbone, desk.digest(), charter)?;
        let private = Private::decode(&snapshot.private, net.private_shape())?.on(net.device())?;
        let (model, parts) = net.ready(&private, &snapshot.mixture)?;
        let labels = charter.task.labels().to_vec();
        Ok(Self { desk, body: Body::Node(Box::new(Node { net, model, parts })), labels })
    }

    /// The backbone in `folder` with what a node of the charter's network reached alone, by the bytes that it saved.
    ///
    /// # Errors
    /// As [`Predictor::node`].
    pub fn alone(
        folder: &Path,
        options: backbone::Options,
        charter: &Charter,
        saved: &[u8],
    ) -> Result<Self, TrainError> {
        if matches!(charter.task, Task::CausalLm { .. }) {
            return Self::node(folder, options, charter, &Snapshot::decode(0, saved)?);
        }
        let backbone = backbone::load(folder, options)?;
        let desk = Desk::open(folder, backbone.as_ref())?;
        let labels = charter.task.labels().to_vec();
        let classifier = Classifier::decode(saved, backbone.width(), labels.len(), backbone.device())?;
        let classifier = classifier.ok_or_else(|| TrainError::Value("there is no model in what was saved".into()))?;
        let net = Net::new(backbone, desk.digest(), charter)?;
        Ok(Self { desk, body: Body::Alone(Box::new((net, classifier))), labels })
    }

    /// The labels that it tells apart; none where it foretells tokens.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The tokenizer, where it takes text.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.desk.tokenizer()
    }

    /// The chat template, where it takes text.
    pub fn template(&self) -> Option<&Template> {
        self.desk.template()
    }

    fn backbone(&self) -> &dyn Backbone {
        match &self.body {
            Body::Bare(backbone) => backbone.as_ref(),
            Body::Node(node) => node.net.trunk.backbone.as_ref(),
            Body::Alone(alone) => alone.0.trunk.backbone.as_ref(),
        }
    }

    /// What the backbone takes.
    pub fn takes(&self) -> Takes {
        self.backbone().takes()
    }

    /// Logits of a batch: `[n, C]`, or where tokens are foretold `[n x tokens, vocabulary]`.
    fn logits(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        match &self.body {
            Body::Bare(backbone) => {
                let mut hidden = backbone.embed(batch)?;
                for index in 0..backbone.depth() {
                    hidden = hidden.with(backbone.block(index, &hidden)?);
                }
                let logits = backbone.logits(&hidden)?;
                Ok(if logits.rank() == 3 { logits.flatten(0, 1)? } else { logits })
            }
            Body::Node(node) => {
                let start = node.net.trunk.enter(batch)?;
                Ok(node.net.logits(&node.model, &node.parts, start)?)
            }
            Body::Alone(alone) => {
                let (net, classifier) = alone.as_ref();
                Ok(classifier.logits(&net.trunk, net.trunk.enter(batch)?)?)
            }
        }
    }

    /// Class logits `[C]` of each input.
    ///
    /// # Errors
    /// Inputs of another kind, or a model that foretells tokens.
    pub fn classify(&self, inputs: &Inputs, mut progress: impl FnMut(usize)) -> Result<Vec<Vec<f32>>, TrainError> {
        if self.labels.is_empty() {
            return Err(TrainError::Value("this model foretells tokens; it has no labels to tell apart".into()));
        }
        let mut logits = vec![Vec::new(); inputs.len()];
        let mut done = 0;
        for rows in batches(inputs, self.labels.len()) {
            let made: Vec<Vec<f32>> = self.logits(&inputs.batch(&rows)?)?.to_vec2()?;
            done += rows.len();
            for (row, made) in rows.iter().zip(made) {
                logits.get_mut(*row as usize).into_iter().for_each(|slot| slot.clone_from(&made));
            }
            progress(done);
        }
        Ok(logits)
    }

    /// Of each text: the sum of its tokens' cross entropies (nats), and how many count.
    fn token_losses(&self, set: &Set, mut progress: impl FnMut(usize)) -> Result<Vec<(f64, usize)>, TrainError> {
        let (Inputs::Tokens(texts), Targets::Next(counted), Takes::Tokens { vocabulary, .. }) =
            (&set.inputs, &set.targets, self.takes())
        else {
            return Err(TrainError::Value("this model takes images; it foretells no tokens".into()));
        };
        if !self.labels.is_empty() {
            return Err(TrainError::Value("this model tells labels apart; it foretells no tokens".into()));
        }
        let mut losses = Vec::with_capacity(texts.len());
        for rows in batches(&set.inputs, vocabulary) {
            let logits = self.logits(&set.inputs.batch(&rows)?)?;
            let longest = logits.dim(0)? / rows.len().max(1);
            for (at, row) in rows.iter().enumerate() {
                let (text, counted) = (&texts[*row as usize], &counted[*row as usize]);
                let places = (1..text.len()).filter(|place| counted.get(*place) == Some(&true));
                let (places, goals): (Vec<u32>, Vec<u32>) =
                    places.map(|place| ((at * longest + place - 1) as u32, text[place])).unzip();
                if places.is_empty() {
                    continue;
                }
                let rows = logits.index_select(&Tensor::new(places, logits.device())?, 0)?;
                let rows: Vec<f32> = rows.flatten_all()?.to_vec1()?;
                losses.push((cross_entropies(&rows, &goals, vocabulary).sum(), goals.len()));
            }
            progress(losses.len());
        }
        Ok(losses)
    }

    /// The share of samples in a file that are told right, how many there are, and what the file was like.
    ///
    /// # Errors
    /// A file or a model of another kind.
    pub fn accuracy(&self, path: &Path, progress: impl FnMut(usize)) -> Result<(f64, usize, Report), TrainError> {
        let (set, report) = self.desk.labelled(path, &self.labels)?;
        let logits = self.classify(&set.inputs, progress)?;
        let Targets::Labels(labels) = &set.targets else { return Err(TrainError::file(path, "has no labels")) };
        let right = logits.iter().zip(labels).filter(|(logits, label)| best(logits) == Some(**label as usize)).count();
        Ok((right as f64 / labels.len().max(1) as f64, labels.len(), report))
    }

    /// The perplexity of the texts in a file, each up to the context, how many tokens that are, and what the file was
    /// like.
    ///
    /// # Errors
    /// A file or a model of another kind.
    pub fn perplexity(&self, path: &Path, progress: impl FnMut(usize)) -> Result<(f64, usize, Report), TrainError> {
        let (mut set, report) = self.desk.language(path, usize::MAX, false)?;
        if let (Some(tokenizer), Takes::Tokens { context, .. }) = (self.tokenizer(), self.takes()) {
            begin(&mut set, tokenizer.bos(), context);
        }
        let losses = self.token_losses(&set, progress)?;
        Ok((perplexity(&losses), losses.iter().map(|(_, count)| count).sum(), report))
    }

    /// Reads inputs without labels.
    ///
    /// # Errors
    /// A file of another kind.
    pub fn read(&self, path: &Path) -> Result<(Inputs, Report), TrainError> {
        Ok(crate::data::unlabelled(path, &self.desk.reader(&[]))?)
    }

    /// The logits `[vocabulary]` of what comes after `ids`, which come after those that `past` remembers.
    ///
    /// # Errors
    /// A model that does not foretell tokens, or a text that is too long for it.
    pub fn next(&self, ids: &[u32], past: &mut Past) -> Result<Vec<f32>, TrainError> {
        let logits = match &self.body {
            Body::Node(node) => node.net.next(&node.model, &node.parts, ids, past)?,
            Body::Bare(_) | Body::Alone(_) => self.backbone().step(ids, past)?,
        };
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}

/// Puts the token that begins texts before those that lack it, where there is one.
fn begin(set: &mut Set, bos: Option<u32>, context: usize) {
    let (Inputs::Tokens(texts), Targets::Next(counted), Some(bos)) = (&mut set.inputs, &mut set.targets, bos) else {
        return;
    };
    for (text, counted) in texts.iter_mut().zip(counted).filter(|(text, _)| text.first() != Some(&bos)) {
        // What was the first token is now foretold too, if all the text counts.
        let whole = counted.iter().skip(1).all(|counts| *counts);
        text.insert(0, bos);
        counted.insert(0, false);
        if let (true, Some(first)) = (whole, counted.get_mut(1)) {
            *first = true;
        }
        text.truncate(context);
        counted.truncate(context);
    }
}

/// The index of the largest.
pub(super) fn best(logits: &[f32]) -> Option<usize> {
    let best = logits.iter().enumerate().fold(None, |best: Option<(usize, f32)>, (at, value)| match best {
        Some((_, most)) if most >= *value => best,
        _ => Some((at, *value)),
    });
    best.map(|(at, _)| at)
}

/// All rows, in batches of similar lengths whose logits, `width` a token, fit in memory.
fn batches(inputs: &Inputs, width: usize) -> Vec<Vec<u32>> {
    let Inputs::Tokens(texts) = inputs else {
        let rows: Vec<u32> = (0..inputs.len() as u32).collect();
        return rows.chunks(BATCH_MAX).map(<[u32]>::to_vec).collect();
    };
    let mut rows: Vec<u32> = (0..texts.len() as u32).collect();
    let length = |row: &u32| texts.get(*row as usize).map_or(0, Vec::len);
    rows.sort_by_key(|row| std::cmp::Reverse(length(row)));
    let mut batches: Vec<Vec<u32>> = Vec::new();
    for row in rows {
        match batches.last_mut() {
            Some(batch)
                if batch.len() < BATCH_MAX && {
                    let tokens = (batch.len() + 1) * batch.first().map_or(0, length);
                    tokens <= TOKENS_MAX && tokens.saturating_mul(width) <= LOGITS_MAX
                } =>
            {
                batch.push(row);
            }
            _ => batches.push(vec![row]),
        }
    }
    batches
}
