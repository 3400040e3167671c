//! What a node will need, by its backbone's `config.json`, its settings and the charter, before anything is loaded.
//!
//! Memory is counted tensor by tensor, as training keeps them: see [`crate::train`] and [`crate::ops`]. All numbers are
//! those of the CPU, where everything is computed in f32.

mod time;

use crate::{
    backbone::{Options, Precision},
    dema,
    train::Settings,
};
use heterotune_protocol::{charter::Adapter, mixture::Layout};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// What of `config.json` says how large a model is; the families name things differently.
#[derive(Clone, Debug, Deserialize)]
pub struct Shape {
    model_type: String,
    #[serde(alias = "dim")]
    hidden_size: u64,
    #[serde(alias = "n_layers")]
    num_hidden_layers: u64,
    #[serde(alias = "hidden_dim")]
    intermediate_size: Option<u64>,
    #[serde(default)]
    vocab_size: u64,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    image_size: Option<u64>,
    patch_size: Option<u64>,
}

/// The largest `config.json`.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// No model is larger than this in any direction.
const SIZE_MAX: u64 = 1 << 32;

/// Bytes of a value.
const F32: u64 = 4;

/// The program with its threads, sockets and database, in bytes.
const PROGRAM: u64 = 24_000_000;

/// Logits that are in memory at once, in bytes.
const LOGITS: u64 = 16 << 20;

/// Rows that are inside a feed-forward layer at once.
const FEED_ROWS: u64 = 1_024;

/// Copies of what is trained: the mixture before and after, the variable, its gradient twice, two moments, the update.
const COPIES: u64 = 8;

/// Bytes, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The frozen weights.
    pub weights: u64,
    /// What the blocks leave for the way back.
    pub kept: u64,
    /// The same for the adapters.
    pub adapters: u64,
    /// What comes and goes.
    pub passing: u64,
    /// What is trained, with its gradients and moments.
    pub trained: u64,
    /// The program itself.
    pub program: u64,
}

impl Plan {
    /// All bytes at once, at the most.
    pub fn peak(&self) -> u64 {
        [self.weights, self.kept, self.adapters, self.passing, self.trained, self.program]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// What training looks like.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The network's adapter.
    pub adapter: &'a Adapter,
    /// Values that the network shares.
    pub shared: u64,
    /// Whether tokens are foretold.
    pub foretells: bool,
    /// Batch, length, checkpointing.
    pub settings: &'a Settings,
    /// Tokens of a text, where texts are shorter than the settings' length.
    pub tokens: Option<u64>,
}

impl<'a> Work<'a> {
    /// What a charter asks for.
    pub fn new(charter: &'a heterotune_protocol::charter::Charter, settings: &'a Settings) -> Self {
        let shared = Layout::new(charter).values() as u64;
        let foretells = matches!(charter.task, heterotune_protocol::charter::Task::CausalLm { .. });
        Self { adapter: &charter.adapter, shared, foretells, settings, tokens: None }
    }
}

impl Shape {
    /// Of the model in `folder`; none where it has no configuration that is understood.
    pub fn read(folder: &Path) -> Option<Self> {
        let path = folder.join("config.json");
        let fits = fs::metadata(&path).is_ok_and(|file| file.len() <= CONFIG_BYTES_MAX);
        serde_json::from_slice(&fits.then(|| fs::read(&path).ok()).flatten()?).ok()
    }

    fn inner(&self) -> u64 {
        self.intermediate_size.unwrap_or_else(|| self.hidden_size.saturating_mul(4))
    }

    fn depth(&self, options: Options) -> u64 {
        options.layers.map_or(self.num_hidden_layers, |layers| self.num_hidden_layers.min(layers as u64))
    }

    /// Whether it is a decoder: keys and values shared among heads, and a gate in the feed-forward layer.
    fn decodes(&self) -> bool {
        self.num_key_value_heads.is_some() || crate::backbone::decodes(&self.model_type)
    }

    /// Values of all heads' queries, and of all heads' keys.
    fn attention(&self) -> Option<(u64, u64)> {
        let heads = self.num_attention_heads.unwrap_or(1).max(1);
        let size = self.head_dim.unwrap_or(self.hidden_size / heads);
        Some((heads.checked_mul(size)?, self.num_key_value_heads.unwrap_or(heads).checked_mul(size)?))
    }

    /// Weights of a block.
    fn block(&self) -> Option<u64> {
        let (queries, keys) = self.attention()?;
        let maps = if self.decodes() { 3 } else { 2 };
        let attention = self.hidden_size.checked_mul(queries.checked_add(keys)?.checked_mul(2)?)?;
        attention.checked_add(self.hidden_size.checked_mul(self.inner())?.checked_mul(maps)?)
    }

    /// Tokens of an image.
    fn patches(&self) -> Option<u64> {
        let side = self.image_size?.checked_div(self.patch_size?)?;
        side.checked_mul(side)?.checked_add(1)
    }

    /// Whether it normalises behind its halves, as BERT does.
    fn normalises_behind(&self) -> bool {
        crate::backbone::encodes_text(&self.model_type)
    }

    /// Tokens of an input.
    fn tokens(&self, work: &Work<'_>) -> u64 {
        self.patches().or(work.tokens).unwrap_or(work.settings.length as u64)
    }

    /// Blocks below the first slot, through which there is no way back, and those above it.
    fn depths(&self, options: Options, work: &Work<'_>) -> (u64, u64) {
        let depth = self.depth(options);
        let slots = dema::positions(usize::try_from(depth).unwrap_or(usize::MAX), work.adapter.slots.into());
        let first = slots.first().map_or(0, |at| *at as u64);
        (first, depth.saturating_sub(first))
    }

    /// How many bytes the frozen weights take in memory: within a tenth for the known families.
    pub fn weights(&self, options: Options) -> Option<u64> {
        let eighths_of_a_byte = match options.precision {
            Precision::F32 => 32,
            Precision::F16 | Precision::Bf16 => 16,
            // With their scales.
            Precision::Q8 => 9,
            Precision::Q4 => 5,
        };
        let blocks = self.block()?.checked_mul(self.depth(options))?.checked_mul(eighths_of_a_byte)? / 8;
        // A decoder's embedding is its head, too. Those of encoders stay in their file.
        let embedding = if self.decodes() { self.vocab_size } else { 0 };
        blocks.checked_add(embedding.checked_mul(self.hidden_size)?.checked_mul(F32)?)
    }

    /// What a node needs that trains like this; none where the configuration can't be meant.
    pub fn plan(&self, options: Options, work: &Work<'_>) -> Option<Plan> {
        let (width, inner, depth) = (self.hidden_size, self.inner(), self.depth(options));
        let tokens = self.tokens(work);
        let (queries, keys) = self.attention()?;
        // A file may say anything: from here on small multiples of these can't overflow.
        if [width, inner, depth, tokens, queries, keys, self.vocab_size].into_iter().any(|size| size > SIZE_MAX) {
            return None;
        }
        let rows = tokens.checked_mul(work.settings.batch as u64)?;
        let (adapter, (_, above)) = (work.adapter, self.depths(options, work));
        // Of both halves what goes in, and where norms come behind them the sums; queries, keys, values, and what is
        // before the nonlinearity, with a gate two of it.
        let sums = if self.normalises_behind() { 4 * width } else { 2 * width };
        let wide = if self.decodes() { 2 * inner } else { inner };
        let inside = sums.checked_add(queries)?.checked_add(2 * keys)?.checked_add(wide)?;
        let values = |a_row: u64| a_row.checked_mul(rows)?.checked_mul(F32);
        let kept = match work.settings.checkpoint {
            // What goes into each block, and one block's insides with their gradients.
            true => values(width)?.checked_mul(above)?.checked_add(values(inside.checked_add(4 * width)?)?)?,
            false => values(inside)?.checked_mul(above)?,
        };
        let (rank, branches) = (u64::from(adapter.rank), u64::from(adapter.branches));
        // Projections that are trained keep what goes into them.
        let wide = if work.foretells { 3 * width } else { width };
        let an_adapter = values(wide.checked_add(6 * rank)?.checked_add(3 * rank * branches)?)?;
        let readout = match work.foretells {
            true => values(4 * width.checked_add(u64::from(adapter.readout_rank))?)?.checked_add(LOGITS)?,
            false => values(width)?,
        };
        let feed = FEED_ROWS.min(rows).checked_mul(inner)?.checked_mul(F32)?;
        let projections = match work.foretells {
            true => 2 * width.checked_mul(rank)?.checked_mul(adapter.slots.into())?,
            false => 0,
        };
        Some(Plan {
            weights: self.weights(options)?,
            kept,
            adapters: an_adapter.checked_mul(adapter.slots.into())?,
            passing: readout.checked_add(values(4 * width)?)?.checked_add(feed)?,
            trained: work.shared.checked_add(projections)?.checked_mul(COPIES * F32)?,
            program: PROGRAM,
        })
    }
}

/// This machine's memory in bytes, or what its container may have of it: all, and what is free. None where the system
/// does not say.
pub fn memory() -> Option<(u64, u64)> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    match system.cgroup_limits() {
        _ if system.total_memory() == 0 => None,
        Some(limits) => Some((limits.total_memory, limits.free_memory.min(system.available_memory()))),
        None => Some((system.total_memory(), system.available_memory())),
    }
}

/// Refuses, in words, what needs more memory than there is.
///
/// # Errors
/// How much is needed, how much is there, and what would fit.
pub fn ensure_fits(shape: &Shape, options: Options, work: &Work<'_>, total: u64) -> Result<(), String> {
    let Some(need) = shape.plan(options, work).map(|plan| plan.peak()).filter(|need| *need > total) else {
        return Ok(());
    };
    let mend = match mend(shape, options, work, total) {
        Some(flags) => format!("with {flags} it fits"),
        None => "take a smaller backbone, or fewer of its --layers".into(),
    };
    Err(format!(
        "training this backbone needs about {} MB of memory, but there are {} MB; {mend}",
        need / 1_000_000,
        total / 1_000_000
    ))
}

/// The settings that would make it fit into so many bytes, in words; none do where even all together are not enough.
pub fn mend(shape: &Shape, options: Options, work: &Work<'_>, bytes: u64) -> Option<String> {
    let with = |settings: Settings, precision: Precision| {
        let options = Options { precision, ..options };
        let plan = shape.plan(options, &Work { settings: &settings, ..*work })?;
        (plan.peak() <= bytes).then_some(())
    };
    let settings = *work.settings;
    let lean = Settings { checkpoint: true, ..settings };
    if with(lean, options.precision).is_some() {
        return Some("--checkpoint".into());
    }
    if with(lean, Precision::Q8).is_some() {
        return Some("--checkpoint --precision q8".into());
    }
    if with(lean, Precision::Q4).is_some() {
        return Some("--checkpoint --precision q4".into());
    }
    let mut batch = settings.batch / 2;
    while batch > 0 {
        if with(Settings { batch, ..lean }, Precision::Q4).is_some() {
            return Some(format!("--checkpoint --precision q4 --batch {batch}"));
        }
        batch /= 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{self, Shape as Example};

    fn parse(text: &str) -> Shape {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn weights_are_estimated_from_the_configuration_alone() {
        // Qwen2.5-0.5B has 494 M weights; bert-base 110 M, 24 M of them the embeddings, which stay on the disk.
        let qwen = parse(
            r#"{"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864,
                "vocab_size": 151936, "num_attention_heads": 14, "num_key_value_heads": 2}"#,
        );
        let bert = parse(
            r#"{"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072,
                "vocab_size": 30522, "num_attention_heads": 12}"#,
        );
        let options = |layers, precision| Options { layers, precision, ..Options::default() };
        let near = |bytes: Option<u64>, weights: f64| {
            let share = bytes.unwrap() as f64 / (4.0 * weights);
            assert!((0.9..1.1).contains(&share), "{share}");
        };
        near(qwen.weights(options(None, Precision::F32)), 494e6);
        near(bert.weights(options(None, Precision::F32)), 86e6);
        let halves = |layers, precision| qwen.weights(options(layers, precision)).unwrap();
        assert!(halves(None, Precision::Q4) < halves(None, Precision::Q8));
        assert!(halves(Some(12), Precision::F32) < halves(None, Precision::F32));
        // A file that lies does not overflow.
        let huge = parse(r#"{"model_type": "x", "dim": 18446744073709551615, "n_layers": 18446744073709551615}"#);
        assert_eq!(huge.weights(Options::default()), None);
        let (charter, settings) = (bench::charter_of(Example::Encoder), Settings::default());
        let work = Work::new(&charter, &settings);
        assert!(bert.plan(Options::default(), &work).is_some());
        let wide = parse(r#"{"model_type": "bert", "dim": 4611686018427387904, "n_layers": 1, "hidden_dim": 1}"#);
        assert_eq!(wide.plan(Options::default(), &work), None);
    }

    #[test]
    fn what_would_fit_is_named() {
        let shape = parse(&Example::Vit.config().to_string());
        let charter = bench::charter_of(Example::Vit);
        let settings = Settings { batch: 8, ..Settings::default() };
        let work = Work::new(&charter, &settings);
        let need = |settings: &Settings, precision| {
            let options = Options { precision, ..Options::default() };
            shape.plan(options, &Work { settings, ..work }).unwrap().peak()
        };
        let lean = Settings { checkpoint: true, ..settings };
        let all = [need(&settings, Precision::F32), need(&lean, Precision::F32), need(&lean, Precision::Q8)];
        assert!(all.is_sorted_by(|a, b| a > b), "{all:?}");
        let mend = |bytes| mend(&shape, Options::default(), &work, bytes);
        assert_eq!(mend(all[1]).unwrap(), "--checkpoint");
        assert_eq!(mend(all[2]).unwrap(), "--checkpoint --precision q8");
        assert!(mend(need(&lean, Precision::Q4) - 1).unwrap().ends_with("--batch 4"));
        assert_eq!(mend(1_000_000), None);
        let fits = |total| ensure_fits(&shape, Options::default(), &work, total);
        assert_eq!(fits(all[0]), Ok(()));
        let refusal = fits(all[0] - 1).unwrap_err();
        assert!(refusal.contains("needs about") && refusal.ends_with("with --checkpoint it fits"), "{refusal}");
        assert!(fits(1_000_000).unwrap_err().ends_with("fewer of its --layers"));
    }
}
