//! What can go wrong in a scenario.

use crate::check::Violation;
use heterotune_protocol::charter::CharterError;
use std::{io, path::PathBuf};

/// Why a scenario did not run, or did not run as it should. Each one is a sentence for the person who started it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A file or folder that can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder that can't be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mistake in a scenario or data file.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Where, from 1, in characters.
        column: usize,
        /// What, and how to mend it.
        message: String,
    },
    /// A data file that is not what it should be.
    #[error("{}: {message}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What, and how to mend it.
        message: String,
    },
    /// A path below the folder of real data, which is not known.
    #[error(
        "{} is below HETEROTUNE_DATA, which is not set: set this environment variable to the folder that holds models/, \
         text/ and vision/ with the pretrained models and data sets that this scenario uses",
        .0.display()
    )]
    NoDataFolder(PathBuf),
    /// A backbone whose tokenizer can't be told.
    #[error("cannot tell the tokenizer of {}: {said}", path.display())]
    Tokenizer {
        /// The backbone.
        path: PathBuf,
        /// What the program said.
        said: String,
    },
    /// The wanted deal does not exist, or is too rare to be drawn.
    #[error("no deal found: {0}; mend [data] in the scenario")]
    Deal(String),
    /// Lies are wanted of a scenario that names no liars.
    #[error("scenario {0} names no liars: give it a table [liars] with nodes and lies, as scenarios/liars.toml has it")]
    NoLiars(String),
    /// A method to compare that there is not.
    #[error("there is no method {name}; there are {known}")]
    NoMethod {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// No rows to choose settings by.
    #[error(
        "the nodes of {0} leave no rows to choose settings by: set data.validation, lower data.labelled_per_node, or choose \
         nothing (--no-search)"
    )]
    NoValidation(String),
    /// The scenario's settings make no charter.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// Something that can't be written as TOML or JSON.
    #[error("cannot write {what}: {message}")]
    Encode {
        /// What was to be written.
        what: &'static str,
        /// Why not.
        message: String,
    },
    /// The output folder holds something else.
    #[error("{} is not empty and not from an earlier run: choose another --out", .0.display())]
    NotOurs(PathBuf),
    /// Another run writes to the output folder.
    #[error("{} is in use by another run: wait for it, or choose another --out", .0.display())]
    InUse(PathBuf),
    /// A backbone that isn't there.
    #[error(
        "node {node}: {} is not a backbone: it has no config.json (`heterotune fetch` downloads backbones, and \
         `heterotune pretrain` makes small ones by a recipe)",
        path.display()
    )]
    Backbone {
        /// The node that should use it.
        node: String,
        /// The folder.
        path: PathBuf,
    },
    /// A process that can't be started.
    #[error("cannot start {}: {source}", binary.display())]
    Start {
        /// The program.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A node that ended before its time.
    #[error("node {node} ended early ({status}), saying: {said}; its log is {}", log.display())]
    Died {
        /// Which node.
        node: String,
        /// Its exit status or the signal that killed it.
        status: String,
        /// The last of what it wrote to stderr.
        said: String,
        /// Where all of it is.
        log: PathBuf,
    },
    /// A node that says that it failed.
    #[error("node {node} failed: {message}; its log is {}", log.display())]
    Reported {
        /// Which node.
        node: String,
        /// What it says.
        message: String,
        /// Where its log is.
        log: PathBuf,
    },
    /// A line of an event log that is none.
    #[error("{}:{line}: not an event: {message}", path.display())]
    Event {
        /// The event log.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Why.
        message: String,
    },
    /// A round that was not complete in time.
    #[error("node {node} waited in vain for {missing} in round {round}: raise rounds.deadline_ms, or see the logs in {}", logs.display())]
    DeadlineMissed {
        /// Who waited.
        node: String,
        /// In which round.
        round: u64,
        /// For whom.
        missing: String,
        /// The folder of all nodes.
        logs: PathBuf,
    },
    /// Nothing happened for too long.
    #[error("no node reported anything for {seconds} s while {phase}: see the logs in {}", logs.display())]
    Stalled {
        /// How long.
        seconds: u64,
        /// What the run was waiting for.
        phase: String,
        /// The folder of all nodes.
        logs: PathBuf,
    },
    /// A node that finished without having told what the summary needs.
    #[error("node {node} finished without reporting {what}: its events are in {}", log.display())]
    Incomplete {
        /// Which node.
        node: String,
        /// What is missing.
        what: &'static str,
        /// Its event log.
        log: PathBuf,
    },
    /// A network in this process that can't go on.
    #[error("{0}")]
    Network(String),
    /// Training whose loss is no longer a number.
    #[error("{0}")]
    Diverged(String),
    /// Something that must hold in every run and did not.
    #[error(transparent)]
    Broken(#[from] Violation),
}
