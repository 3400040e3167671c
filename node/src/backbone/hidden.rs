//! What goes from block to block.

use candle_core::{DType, Result as Computed, Tensor};
use std::sync::Arc;

/// A hidden state, and what the blocks need to know besides.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// `[n, tokens, d]`.
    pub values: Tensor,
    /// How many tokens of each input are its own; none where no input is padded.
    pub lengths: Option<Arc<[usize]>>,
}

impl Hidden {
    /// Other values of the same inputs.
    pub fn with(&self, values: Tensor) -> Self {
        Self { values, lengths: self.lengths.clone() }
    }

    /// Some of the inputs, without padding that none of them needs.
    ///
    /// # Errors
    /// A row that does not exist.
    pub fn rows(&self, rows: &[u32]) -> Computed<Self> {
        let values = self.values.index_select(&Tensor::new(rows, self.values.device())?, 0)?;
        let Some(lengths) = &self.lengths else { return Ok(Self { values, lengths: None }) };
        let lengths: Arc<[usize]> = rows.iter().filter_map(|row| lengths.get(*row as usize).copied()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        Ok(Self { values: values.narrow(1, 0, longest)?, lengths: Some(lengths) })
    }

    /// All inputs of several states, padded with zeros to the longest.
    ///
    /// # Errors
    /// States of different widths, or none.
    pub fn cat(parts: &[Self]) -> Computed<Self> {
        let sizes = parts.iter().map(|part| part.values.dim(1)).collect::<Computed<Vec<_>>>()?;
        let longest = sizes.iter().copied().max().unwrap_or(0);
        let padded = parts.iter().map(|part| part.values.pad_with_zeros(1, 0, longest - part.values.dim(1)?));
        let values = Tensor::cat(&padded.collect::<Computed<Vec<_>>>()?, 0)?;
        let all: Vec<usize> = parts
            .iter()
            .zip(&sizes)
            .flat_map(|(part, size)| match &part.lengths {
                Some(lengths) => lengths.to_vec(),
                None => vec![*size; part.values.dims().first().copied().unwrap_or(0)],
            })
            .collect();
        let padded = all.iter().any(|length| *length < longest);
        Ok(Self { values, lengths: padded.then(|| all.into()) })
    }

    /// All tokens of all inputs, without padding: `[.., d]`.
    ///
    /// # Errors
    /// None that are known.
    pub fn tokens(&self) -> Computed<Tensor> {
        let Some(lengths) = &self.lengths else { return self.values.flatten(0, 1) };
        let own = lengths.iter().enumerate().map(|(row, length)| self.values.get(row)?.narrow(0, 0, *length));
        Tensor::cat(&own.collect::<Computed<Vec<_>>>()?, 0)
    }

    /// Each input's last own token: `[n, d]`.
    ///
    /// # Errors
    /// An input without tokens.
    pub fn last(&self) -> Computed<Tensor> {
        let (_, tokens, _) = self.values.dims3()?;
        let Some(lengths) = &self.lengths else {
            return self.values.narrow(1, tokens.saturating_sub(1), 1)?.squeeze(1);
        };
        let rows = lengths.iter().enumerate().map(|(row, length)| (row * tokens + length.saturating_sub(1)) as u32);
        let rows = Tensor::new(rows.collect::<Vec<_>>(), self.values.device())?;
        self.values.flatten(0, 1)?.index_select(&rows, 0)
    }

    /// The mean over each input's own tokens from `first` on, as f32: `[n, d]`.
    ///
    /// # Errors
    /// An input that has no token there.
    pub fn mean(&self, first: usize) -> Computed<Tensor> {
        let (_, tokens, _) = self.values.dims3()?;
        let values = self.values.to_dtype(DType::F32)?;
        let Some(lengths) = &self.lengths else {
            return values.narrow(1, first, tokens.saturating_sub(first))?.mean(1);
        };
        let weights = lengths.iter().flat_map(|length| {
            let share = 1.0 / (length.saturating_sub(first)) as f32;
            (0..tokens).map(move |at| if (first..*length).contains(&at) { share } else { 0.0 })
        });
        let weights = Tensor::from_vec(weights.collect::<Vec<f32>>(), (lengths.len(), 1, tokens), values.device())?;
        weights.matmul(&values.contiguous()?)?.squeeze(1)
    }
}
