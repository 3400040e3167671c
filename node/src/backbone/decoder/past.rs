//! Keys and values of the tokens that went before, so that a text's next token costs one token's work.

use candle_core::{Result, Tensor};

/// What the blocks of a decoder remember of the tokens of a text. A new one, by its `Default`, remembers nothing; a
/// clone is another continuation of the same beginning.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Keys and values of every block, `[n, tokens, groups, d]`.
    blocks: Vec<Option<(Tensor, Tensor)>>,
}

impl Past {
    /// How many tokens block `index` remembers.
    pub fn tokens(&self, index: usize) -> usize {
        let keys = self.blocks.get(index).and_then(Option::as_ref).map(|(keys, _)| keys.dims());
        keys.and_then(|dims| dims.get(1)).copied().unwrap_or(0)
    }

    /// Adds keys and values of more tokens to a block, and gives all it has.
    pub(in crate::backbone) fn extend(
        &mut self,
        index: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        if self.blocks.len() <= index {
            self.blocks.resize(index + 1, None);
        }
        let (keys, values) = (keys.detach(), values.detach());
        let all = match self.blocks.get(index).and_then(Option::as_ref) {
            Some((old_keys, old_values)) => {
                (Tensor::cat(&[old_keys, &keys], 1)?, Tensor::cat(&[old_values, &values], 1)?)
            }
            None => (keys, values),
        };
        self.blocks.get_mut(index).into_iter().for_each(|block| *block = Some(all.clone()));
        Ok(all)
    }
}
