//! A node's samples, from its data folder.

use super::{Settings, TrainError, learner::Sets};
use crate::{
    backbone::{self, Backbone, Takes},
    data::{self, Inputs, Report, Set, Targets, Template, Tokenizer, language},
};
use heterotune_crypto::Digest;
use heterotune_protocol::charter::{Anchors, Charter, Task};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The fewest held-out samples that say anything of a mixture.
const HELD_MIN: usize = 8;

/// What is read beside a backbone's weights to bring samples into its form.
pub(super) struct Desk {
    takes: Takes,
    tokenizer: Option<Tokenizer>,
    template: Option<Template>,
    processor: Option<backbone::Processor>,
}

impl Desk {
    /// What the backbone in `folder` needs.
    pub(super) fn open(folder: &Path, backbone: &dyn Backbone) -> Result<Self, TrainError> {
        let takes = backbone.takes();
        let tokenizer = matches!(takes, Takes::Tokens { .. }).then(|| Tokenizer::open(folder)).transpose()?;
        let template = tokenizer.as_ref().map(|tokenizer| Template::open(folder, tokenizer)).transpose()?;
        let processor = match takes {
            Takes::Pixels { .. } => backbone::processor(folder)?,
            Takes::Tokens { .. } => None,
        };
        Ok(Self { takes, tokenizer, template, processor })
    }

    /// The tokenizer, where the backbone takes text.
    pub(super) fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The chat template, where the backbone takes text.
    pub(super) fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// What tells the tokenizer from others.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.tokenizer.as_ref().map(Tokenizer::digest)
    }

    /// How samples are read.
    pub(super) fn reader<'a>(&'a self, labels: &'a [String]) -> data::Reader<'a> {
        data::Reader { takes: self.takes, tokenizer: self.tokenizer.as_ref(), processor: self.processor, labels }
    }

    /// Samples with labels.
    pub(super) fn labelled(&self, path: &Path, labels: &[String]) -> Result<(Set, Report), TrainError> {
        let (labelled, report) = data::classification(path, &self.reader(labels))?;
        Ok((Set { inputs: labelled.inputs, targets: Targets::Labels(labelled.labels) }, report))
    }

    /// Texts of which tokens are foretold.
    pub(super) fn language(&self, path: &Path, length: usize, pack: bool) -> Result<(Set, Report), TrainError> {
        let (Takes::Tokens { vocabulary, context }, Some(tokenizer), Some(template)) =
            (self.takes, self.tokenizer(), self.template())
        else {
            return Err(TrainError::Value("this backbone takes images, but the task is one of text".into()));
        };
        let reader = language::Reader { tokenizer, template, vocabulary, context: context.min(length), pack };
        let (corpus, report) = data::language(path, &reader)?;
        if corpus.sequences.is_empty() {
            return Err(TrainError::file(path, "holds nothing to learn: no row has a token that counts"));
        }
        let (tokens, counted) = corpus.sequences.into_iter().map(|row| (row.tokens, row.counted)).unzip();
        Ok((Set { inputs: Inputs::Tokens(tokens), targets: Targets::Next(counted) }, report))
    }
}

/// The samples in the folder `data`, as the backbone takes them, and what their files were like.
pub(super) fn sets(
    desk: &Desk,
    data: &Path,
    charter: &Charter,
    settings: &Settings,
) -> Result<(Sets, Vec<Report>), TrainError> {
    let refuse = |task: &str, takes: &str| {
        Err(TrainError::Value(format!("this backbone takes {takes}, but the charter's task is {task}")))
    };
    match (&charter.task, desk.takes) {
        (Task::ImageClassification { .. }, Takes::Tokens { .. }) => return refuse("image-classification", "text"),
        (Task::TextClassification { .. }, Takes::Pixels { .. }) => return refuse("text-classification", "images"),
        (Task::CausalLm { .. }, Takes::Pixels { .. }) => return refuse("causal-lm", "images"),
        _ => (),
    }
    let mut reports = Vec::new();
    let anchors = anchors(desk, &data::require(data, "anchors")?, charter)?;
    let mut read = |path: &Path, pack: bool| -> Result<Set, TrainError> {
        let (set, report) = match &charter.task {
            Task::CausalLm { .. } => desk.language(path, settings.length, pack)?,
            task => desk.labelled(path, task.labels())?,
        };
        reports.push(report);
        Ok(set)
    };
    let train = read(&data::require(data, "train")?, settings.pack)?;
    let mut if_there = |name: &str| -> Result<Option<(PathBuf, Set)>, TrainError> {
        data::find(data, name)?.map(|path| Ok((path.clone(), read(&path, false)?))).transpose()
    };
    let (test, held, validation) = (if_there("test")?, if_there("held")?, if_there("validation")?);
    if let Some((path, held)) = &held
        && held.inputs.len() < HELD_MIN
    {
        let few = held.inputs.len();
        let problem = format!("holds {few} samples, too few to judge by; give it {HELD_MIN} or more, or remove it");
        return Err(TrainError::file(path, problem));
    }
    let set = |of: Option<(PathBuf, Set)>| of.map(|(_, set)| set);
    let sets = Sets { anchors, train, test: set(test), held: set(held), validation: set(validation) };
    Ok((sets, reports))
}

/// The charter's anchors, from their file.
fn anchors(desk: &Desk, path: &Path, charter: &Charter) -> Result<Inputs, TrainError> {
    let bytes = fs::read(path).map_err(|error| TrainError::file(path, format!("can't be read ({error})")))?;
    if Anchors::digest_of(&bytes) != charter.anchors.digest {
        return Err(TrainError::file(path, "is not the file that the charter names; take the network's own anchors"));
    }
    let (anchors, _) = match charter.task {
        Task::CausalLm { .. } => data::beginnings(path, &desk.reader(&[]))?,
        _ => data::unlabelled(path, &desk.reader(&[]))?,
    };
    let (found, expected) = (anchors.len(), usize::from(charter.anchors.count));
    if found != expected {
        return Err(TrainError::file(path, format!("holds {found} anchors, but the charter says {expected}")));
    }
    Ok(anchors)
}
