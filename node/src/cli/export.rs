//! `heterotune export`: what a node has learnt, for other programs.

use super::using::Model;
use crate::{
    store::write_atomically,
    train::export::{RECIPE, export, merge_refusal},
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::{fs, path::PathBuf};

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    model: Model,
    /// The folder to write: adapter_model.safetensors, adapter_config.json, and README.md, which says how to use them.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write the backbone's own files with the adapter merged into them; refused where the mathematics does not allow it.
    #[arg(long)]
    merged: bool,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let (folder, options) = flags.model.frozen()?;
    let (charter, snapshot) = flags.model.learnt()?;
    let made = export(&folder, options, &charter, &snapshot)?;
    if flags.merged {
        let model_type = made.config["base"]["model_type"].as_str().unwrap_or_default().to_string();
        bail!("{}", merge_refusal(&charter, &model_type));
    }
    if flags.out.join("adapter_config.json").exists() {
        bail!("{} holds an adapter already; choose another --out, or delete it first", flags.out.display());
    }
    fs::create_dir_all(&flags.out).with_context(|| format!("cannot make {}", flags.out.display()))?;
    write_atomically(&flags.out.join("adapter_model.safetensors"), &made.weights, false)?;
    write_atomically(&flags.out.join("README.md"), RECIPE.as_bytes(), false)?;
    let config = serde_json::to_string_pretty(&made.config)? + "\n";
    write_atomically(&flags.out.join("adapter_config.json"), config.as_bytes(), false)?;
    println!("{}: the adapter of round {}", flags.out.display(), snapshot.round);
    Ok(())
}
