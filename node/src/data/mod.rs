//! Samples: what files hold, in the form that a backbone takes.

pub(crate) mod table;

use crate::backbone::Batch;
use candle_core::{Device, Result, Tensor};

/// Inputs of samples, as a backbone takes them.
#[derive(Clone, Debug)]
pub enum Inputs {
    /// Raw pixel values `[n, channels x height x width]`.
    Pixels(Tensor),
    /// Token ids, at least one each.
    Tokens(Vec<Vec<u32>>),
}

/// Samples to learn from or to be measured by.
#[derive(Clone, Debug)]
pub struct Set {
    /// What goes in.
    pub inputs: Inputs,
    /// What should come out.
    pub targets: Targets,
}

/// What should come out for each sample.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Nothing: the samples are anchors.
    None,
    /// The index of its label.
    Labels(Vec<u32>),
    /// Its own tokens, each after those before it, where these say so: the first never counts.
    Next(Vec<Vec<bool>>),
}

impl Inputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Pixels(pixels) => pixels.dims().first().copied().unwrap_or(0),
            Self::Tokens(texts) => texts.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The inputs of some rows, in their order; text is padded to the longest of them.
    ///
    /// # Errors
    /// A row that does not exist.
    pub fn batch(&self, rows: &[u32]) -> Result<Batch> {
        match self {
            Self::Pixels(pixels) => Ok(Batch::Pixels(pixels.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)),
            Self::Tokens(texts) => {
                let texts: Vec<&Vec<u32>> = rows.iter().filter_map(|row| texts.get(*row as usize)).collect();
                let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
                let padded = texts
                    .iter()
                    .flat_map(|text| text.iter().copied().chain(std::iter::repeat_n(0, longest - text.len())));
                let ids = Tensor::from_vec(padded.collect::<Vec<u32>>(), (rows.len(), longest), &Device::Cpu)?;
                Ok(Batch::Tokens { ids, lengths: texts.iter().map(|text| text.len()).collect() })
            }
        }
    }
}
