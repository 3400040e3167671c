//! Hidden states in a file without a name, which is gone with the process.

use crate::backbone::Hidden;
use candle_core::{DType, Device, Result, Tensor, bail};
use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// Hidden states, padded to the longest, one after another as f32.
pub(super) struct OnDisk {
    file: File,
    tokens: usize,
    width: usize,
    /// How many tokens of each are its own.
    lengths: Vec<usize>,
    /// Where and as what they are computed with.
    like: (Device, DType),
}

impl OnDisk {
    /// An empty file in the folder for temporary files (`TMPDIR`), for inputs of at most so many `tokens`.
    ///
    /// # Errors
    /// A folder that can't be written to.
    pub(super) fn new(tokens: usize, width: usize) -> Result<Self> {
        let file = tempfile::tempfile().map_err(refuse)?;
        Ok(Self { file, tokens, width, lengths: Vec::new(), like: (Device::Cpu, DType::F32) })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Adds some `[n, tokens, d]`.
    ///
    /// # Errors
    /// A disk that is full.
    pub(super) fn push(&mut self, hidden: &Hidden) -> Result<()> {
        let (inputs, tokens, width) = hidden.values.dims3()?;
        let Some(padding) = self.tokens.checked_sub(tokens).filter(|_| width == self.width) else {
            bail!("hidden states {:?} in a file for {} tokens of {}", hidden.values.dims(), self.tokens, self.width)
        };
        self.like = (hidden.values.device().clone(), hidden.values.dtype());
        let values = hidden.values.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.pad_with_zeros(1, 0, padding)?;
        let values: Vec<f32> = values.flatten_all()?.to_vec1()?;
        self.file.write_all(bytemuck::cast_slice(&values)).map_err(refuse)?;
        match &hidden.lengths {
            Some(lengths) => self.lengths.extend_from_slice(lengths),
            None => self.lengths.extend(vec![tokens; inputs]),
        }
        Ok(())
    }

    /// Some of the inputs, without padding that none of them needs.
    ///
    /// # Errors
    /// A row that does not exist, or a disk that fails.
    pub(super) fn rows(&self, rows: &[u32]) -> Result<Hidden> {
        let lengths = rows.iter().map(|row| self.lengths.get(*row as usize).copied()).collect::<Option<Arc<[usize]>>>();
        let Some(lengths) = lengths else { bail!("of {} samples there are none of {rows:?}", self.len()) };
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let (row, size) = (longest * self.width, size_of::<f32>());
        let mut values = vec![0f32; rows.len() * row];
        for (index, values) in rows.iter().zip(values.chunks_exact_mut(row.max(1))) {
            let place = *index as usize * self.tokens * self.width * size;
            self.file.read_exact_at(bytemuck::cast_slice_mut(values), place as u64).map_err(refuse)?;
        }
        let (device, dtype) = &self.like;
        let values = Tensor::from_vec(values, (rows.len(), longest, self.width), &Device::Cpu)?;
        let padded = lengths.iter().any(|length| *length < longest);
        Ok(Hidden { values: values.to_dtype(*dtype)?.to_device(device)?, lengths: padded.then_some(lengths) })
    }
}

fn refuse(error: io::Error) -> candle_core::Error {
    let folder = std::env::temp_dir();
    candle_core::Error::Msg(format!(
        "the samples' hidden states can't be kept in {} ({error}); set TMPDIR to a folder with more room, or use --cache memory or none",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::noise;

    #[test]
    fn what_is_read_is_what_was_written() {
        let mut disk = OnDisk::new(5, 3).unwrap();
        let first = Hidden { values: noise(&[2, 4, 3], 1), lengths: Some([4, 2].into()) };
        let second = Hidden { values: noise(&[1, 5, 3], 2), lengths: None };
        disk.push(&first).unwrap();
        disk.push(&second).unwrap();
        let whole = Hidden::cat(&[first, second]).unwrap();
        for rows in [&[2u32, 0, 1][..], &[1], &[0, 0], &[1, 2]] {
            let (ours, theirs) = (disk.rows(rows).unwrap(), whole.rows(rows).unwrap());
            let values = |hidden: &Hidden| hidden.values.to_vec3::<f32>().unwrap();
            assert_eq!(values(&ours), values(&theirs));
            let lengths = |hidden: &Hidden| match &hidden.lengths {
                Some(lengths) => lengths.to_vec(),
                None => vec![hidden.values.dim(1).unwrap(); rows.len()],
            };
            assert_eq!(lengths(&ours), lengths(&theirs));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut disk = OnDisk::new(2, 3).unwrap();
        let hidden = |tokens, width| Hidden { values: noise(&[1, tokens, width], 1), lengths: None };
        assert!(disk.push(&hidden(3, 3)).is_err() && disk.push(&hidden(2, 4)).is_err());
        disk.push(&hidden(2, 3)).unwrap();
        assert!(disk.rows(&[1]).is_err());
    }
}
