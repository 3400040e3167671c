//! What a node's updates owe to those before.

use crate::dema::le_bytes;
use anyhow::Result;
use safetensors::SafeTensors;
use std::collections::BTreeMap;

/// How tensors from before the last round are called in the private file.
pub(super) const BEFORE: &str = "before.";

/// What rounding took from this node's updates and the next one gets back (error feedback). The state before the last
/// round is kept too: a node killed between training and publishing trains that round again, to the same bits.
#[derive(Default)]
pub(super) struct Residual {
    pub(super) round: u64,
    /// What was private to the learner before the round, where training changes it.
    pub(super) private: Option<Vec<u8>>,
    pub(super) before: Vec<Vec<f32>>,
    pub(super) after: Vec<Vec<f32>>,
}

impl Residual {
    pub(super) fn bytes(&self) -> BTreeMap<String, Vec<u8>> {
        let named = |name: &'static str, groups: &[Vec<f32>]| {
            groups
                .iter()
                .enumerate()
                .map(|(at, group)| (format!("residual.{name}.{at}"), le_bytes(group)))
                .collect::<Vec<_>>()
        };
        named("before", &self.before).into_iter().chain(named("after", &self.after)).collect()
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes)?;
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let round =
            header.metadata().as_ref().and_then(|notes| notes.get("round")).and_then(|round| round.parse().ok());
        let group = |name: &str, at: usize| {
            let view = tensors.tensor(&format!("residual.{name}.{at}")).ok()?;
            Some(view.data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
        };
        let groups = |name| (0..).map_while(|at| group(name, at)).collect();
        let all = tensors.tensors();
        let before = all.iter().filter_map(|(name, view)| Some((name.strip_prefix(BEFORE)?, view)));
        let before: Vec<_> = before.collect();
        let private = (!before.is_empty()).then(|| safetensors::serialize(before, None)).transpose()?;
        Ok(Self { round: round.unwrap_or(0), private, before: groups("before"), after: groups("after") })
    }
}
