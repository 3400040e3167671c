//! Samples, whose way to the first slot is walked only once where there is room for what comes of it.

use super::disk::OnDisk;
use crate::{
    backbone::Hidden,
    data::{Inputs, Set, Targets},
};

/// Samples that go through the backbone together.
pub(super) const CHUNK: usize = 64;

/// Samples, and what the backbone makes of their inputs up to the first slot.
pub(super) struct Samples {
    pub(super) kept: Kept,
    pub(super) goals: Goals,
}

pub(super) enum Kept {
    Inputs(Inputs),
    /// Hidden states, padded to the longest.
    Hidden(Hidden),
    /// The same, in a file.
    OnDisk(OnDisk),
}

/// What should come out for each sample.
pub(super) enum Goals {
    None,
    Labels(Vec<u32>),
    /// For each sample: the tokens that count, each with the place before it, from where it is foretold.
    Next(Vec<Vec<(u32, u32)>>),
}

impl Goals {
    /// How many tokens, or else samples, count among some rows.
    pub(super) fn count(&self, rows: &[u32]) -> usize {
        match self {
            Self::Next(goals) => rows.iter().filter_map(|row| goals.get(*row as usize)).map(Vec::len).sum(),
            _ => rows.len(),
        }
    }

    fn new(set: &Set) -> Self {
        match (&set.targets, &set.inputs) {
            (Targets::Labels(labels), _) => Self::Labels(labels.clone()),
            (Targets::Next(counted), Inputs::Tokens(texts)) => {
                let goals = texts.iter().zip(counted).map(|(text, counted)| {
                    let tokens = (0..).zip(text.iter().zip(counted).skip(1));
                    tokens.filter(|(_, (_, counts))| **counts).map(|(place, (token, _))| (place, *token)).collect()
                });
                Self::Next(goals.collect())
            }
            _ => Self::None,
        }
    }
}

impl Samples {
    /// Samples as they are.
    pub(super) fn new(set: Set) -> Self {
        Self { goals: Goals::new(&set), kept: Kept::Inputs(set.inputs) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match &self.kept {
            Kept::Inputs(inputs) => inputs.len(),
            Kept::Hidden(hidden) => hidden.values.dims().first().copied().unwrap_or(0),
            Kept::OnDisk(disk) => disk.len(),
        }
    }

    /// The index of each sample's label; none where there are no labels.
    pub(super) fn labels(&self) -> &[u32] {
        match &self.goals {
            Goals::Labels(labels) => labels,
            _ => &[],
        }
    }

    /// How many there are of each of `classes` classes.
    pub(super) fn counts(&self, classes: usize) -> Vec<u32> {
        let mut counts = vec![0; classes];
        for label in self.labels() {
            counts.get_mut(*label as usize).into_iter().for_each(|count| *count += 1);
        }
        counts
    }

    /// All row numbers, in pieces.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Vec<u32>> {
        let end = self.len() as u32;
        (0..end).step_by(CHUNK).map(move |start| (start..end.min(start + CHUNK as u32)).collect())
    }
}
