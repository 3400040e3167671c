//! `heterotune pretrain`: backbones from unlabelled images or texts.

use crate::train::pretrain::pretrain;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The recipe: data, split, steps, and the backbones to make.
    recipe: PathBuf,
    /// The folder to write them into, each in a folder of its own [default: `backbones` beside the recipe].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    let beside = || flags.recipe.parent().map_or_else(|| "backbones".into(), |folder| folder.join("backbones"));
    let out = flags.out.clone().unwrap_or_else(beside);
    let made = pretrain(&flags.recipe, &out, |progress| {
        if progress.step % 100 == 0 || progress.step == progress.steps {
            eprintln!("{}: step {} of {}, loss {:.4}", progress.name, progress.step, progress.steps, progress.loss);
        }
    })?;
    for backbone in made {
        println!(
            "{} ({} parameters, loss {:.4})",
            out.join(&backbone.name).display(),
            backbone.parameters,
            backbone.loss
        );
    }
    Ok(())
}
