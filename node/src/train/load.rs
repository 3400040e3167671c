//! A node's samples, from its data folder.

use super::{Settings, TrainError, learner::Sets};
use crate::{
    backbone::{Backbone, Takes},
    data::{Inputs, Set, Targets, table},
};
use heterotune_crypto::Digest;
use heterotune_protocol::charter::{Anchors, Charter};
use std::path::Path;

/// The fewest held-out samples that say anything of a mixture.
const HELD_MIN: usize = 8;

/// The samples in `data`, and what tells the tokenizer of the backbone in `folder` from others.
pub(super) fn sets(
    _folder: &Path,
    backbone: &dyn Backbone,
    data: &Path,
    charter: &Charter,
    _settings: &Settings,
) -> Result<(Sets, Option<Digest>), TrainError> {
    let Takes::Pixels { channels, size } = backbone.takes() else {
        return Err(TrainError::Value("this backbone takes text, but the charter's task is one of images".into()));
    };
    let pixels = channels * size * size;
    let path = data.join("anchors.csv");
    let bytes = table::bytes(&path)?;
    if Anchors::digest_of(&bytes) != charter.anchors.digest {
        return Err(TrainError::file(&path, "is not the file that the charter names; take the network's own anchors"));
    }
    let anchors = table::parse(&path, &bytes, pixels, table::Labels::Absent)?;
    let (found, expected) = (anchors.pixels.dim(0)?, usize::from(charter.anchors.count));
    if found != expected {
        return Err(TrainError::file(&path, format!("holds {found} anchors, but the charter says {expected}")));
    }
    let labelled = |name: &str| -> Result<Set, TrainError> {
        let path = data.join(name);
        let labels = table::Labels::OneOf(charter.task.labels());
        let table = table::parse(&path, &table::bytes(&path)?, pixels, labels)?;
        Ok(Set { inputs: Inputs::Pixels(table.pixels), targets: Targets::Labels(table.labels) })
    };
    let if_there = |name: &str| data.join(name).exists().then(|| labelled(name)).transpose();
    let (train, test, held) = (labelled("train.csv")?, if_there("test.csv")?, if_there("held.csv")?);
    if let Some(few) = held.as_ref().map(|held| held.inputs.len()).filter(|held| *held < HELD_MIN) {
        let problem = format!("holds {few} samples, too few to judge by; give it {HELD_MIN} or more, or remove it");
        return Err(TrainError::file(&data.join("held.csv"), problem));
    }
    Ok((Sets { anchors: Inputs::Pixels(anchors.pixels), train, test, held }, None))
}
