//! `heterotune eval`, `predict` and `generate`: a model in use.

use super::model::Frozen;
use crate::{
    backbone::Options,
    config::read_charter,
    data::Tokenizer,
    train::{Predictor, Snapshot, TrainError},
    trainer::ALONE,
};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use heterotune_protocol::charter::Charter;
use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(super) struct Model {
    #[command(flatten)]
    frozen: Frozen,
    /// The state folder of a node that has learnt with this backbone; without one, the bare backbone with its own head.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// What the node knew after this round [default: the round that it uses, or the newest].
    #[arg(long, value_name = "N", requires = "state")]
    round: Option<u64>,
    /// What the node reached by itself, without the network.
    #[arg(long, requires = "state", conflicts_with = "round")]
    alone: bool,
}

impl Model {
    /// The backbone's folder, and how it is loaded.
    pub(super) fn frozen(&self) -> Result<(PathBuf, Options)> {
        Ok((self.frozen.folder()?, self.frozen.options()))
    }

    /// The model as it is asked for.
    pub(super) fn open(&self) -> Result<Predictor> {
        let (folder, options) = self.frozen()?;
        let Some(state) = &self.state else { return Ok(Predictor::bare(&folder, options)?) };
        let charter = charter(state)?;
        let model = if self.alone {
            let path = state.join(ALONE);
            let saved = fs::read(&path).with_context(|| {
                format!("cannot read {}; run the node with --alone first, and a test in its data", path.display())
            })?;
            Predictor::alone(&folder, options, &charter, &saved)
        } else {
            Predictor::node(&folder, options, &charter, &Snapshot::read(state, self.which(state)?)?)
        };
        model.with_context(|| format!("{} does not belong to this backbone", state.display()))
    }

    /// What a node has learnt.
    pub(super) fn learnt(&self) -> Result<(Charter, Snapshot)> {
        let state =
            self.state.as_ref().context("--state is missing: the folder of a node that has learnt something")?;
        Ok((charter(state)?, Snapshot::read(state, self.which(state)?)?))
    }

    /// The round that is asked for.
    fn which(&self, state: &Path) -> Result<u64> {
        if let Some(round) = self.round {
            return Ok(round);
        }
        if let Some(used) = crate::acceptance::used_round(&state.join("in_use.safetensors"))? {
            return Ok(used);
        }
        let newest = Snapshot::rounds(state).last().copied();
        newest.with_context(|| format!("{} keeps no round yet: the node has not learnt anything", state.display()))
    }
}

fn charter(state: &Path) -> Result<Charter> {
    read_charter(&state.join("charter.toml"))
        .with_context(|| format!("{} is no state folder of a node that has run", state.display()))
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TaskKind {
    /// The perplexity of texts.
    CausalLm,
    /// The share of texts whose label is told.
    TextClassification,
    /// The share of images whose label is told.
    ImageClassification,
}

#[derive(Debug, Args)]
pub(super) struct Eval {
    #[command(flatten)]
    model: Model,
    /// What to measure.
    #[arg(long, value_name = "TASK")]
    task: TaskKind,
    /// The samples: .jsonl, .csv, .parquet or .txt; images also as a folder per class, IDX or CIFAR binary.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Print {"perplexity": ..} or {"accuracy": ..} instead of a sentence.
    #[arg(long)]
    json: bool,
}

pub(super) fn eval(flags: &Eval) -> Result<()> {
    let model = flags.model.open()?;
    let takes_text = model.tokenizer().is_some();
    match flags.task {
        TaskKind::ImageClassification if takes_text => bail!("this backbone takes text, not images"),
        TaskKind::CausalLm | TaskKind::TextClassification if !takes_text => {
            bail!("this backbone takes images, not text")
        }
        _ => (),
    }
    let mut counter = Counter::new("samples");
    let (name, value, count, report) = if flags.task == TaskKind::CausalLm {
        let (value, count, report) = model.perplexity(&flags.data, |done| counter.show(done))?;
        ("perplexity", value, count, report)
    } else {
        let (value, count, report) = model.accuracy(&flags.data, |done| counter.show(done))?;
        ("accuracy", value, count, report)
    };
    counter.end();
    if report.bad_rows > 0 {
        eprintln!("{report}");
    }
    let counted = if name == "perplexity" { "tokens" } else { "samples" };
    if flags.json {
        println!("{}", serde_json::json!({ name: value, counted: count }));
    } else {
        println!("{name} {value:.4} over {count} {counted} of {}", flags.data.display());
    }
    Ok(())
}

#[derive(Debug, Args)]
pub(super) struct Predict {
    #[command(flatten)]
    model: Model,
    /// The samples, in any form that eval takes; labels in them are not looked at.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// How many labels to give for each sample, the likeliest first.
    #[arg(long, value_name = "K", default_value_t = 1)]
    top: usize,
}

/// Prints a line for each sample: `{"label": .., "probability": .., "top": [[label, probability], ..]}`.
pub(super) fn predict(flags: &Predict) -> Result<()> {
    let model = flags.model.open()?;
    let (inputs, report) = model.read(&flags.data)?;
    let mut counter = Counter::new("samples");
    let logits = model.classify(&inputs, |done| counter.show(done))?;
    counter.end();
    if report.bad_rows > 0 {
        eprintln!("{report}");
    }
    let mut out = std::io::stdout().lock();
    for logits in logits {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = logits.iter().map(|value| f64::from(value - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut ranked: Vec<(&String, f64)> =
            model.labels().iter().zip(weights.iter().map(|weight| weight / sum)).collect();
        ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        ranked.truncate(flags.top.max(1));
        let Some((label, probability)) = ranked.first() else { continue };
        writeln!(out, "{}", serde_json::json!({"label": label, "probability": probability, "top": ranked}))?;
    }
    Ok(())
}

#[derive(Debug, Args)]
pub(super) struct TokenizerFlags {
    /// The backbone's folder.
    folder: PathBuf,
    /// Print {"digest": .., "tokens": ..}.
    #[arg(long)]
    json: bool,
}

/// Prints what tells a tokenizer from others, for a charter's vocabularies.
pub(super) fn tokenizer(flags: &TokenizerFlags) -> Result<()> {
    let tokenizer = Tokenizer::open(&flags.folder).map_err(TrainError::from)?;
    let digest = tokenizer.digest();
    match flags.json {
        true => println!("{}", serde_json::json!({"digest": digest, "tokens": tokenizer.tokens()})),
        false => println!("{digest}, {} tokens", tokenizer.tokens()),
    }
    Ok(())
}

/// A changing line on a terminal for what takes long.
struct Counter {
    what: &'static str,
    shown: bool,
    terminal: bool,
}

impl Counter {
    fn new(what: &'static str) -> Self {
        Self { what, shown: false, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, done: usize) {
        if self.terminal {
            self.shown = true;
            eprint!("\r{done} {}", self.what);
        }
    }

    fn end(&self) {
        if self.shown {
            eprintln!();
        }
    }
}
