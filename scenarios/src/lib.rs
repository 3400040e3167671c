//! Whole HeteroTune networks on one machine: deal the data, start real node processes, check and report.
//!
//! A [`Scenario`] is a TOML file: data, nodes, what they agree on. A [`Runner`] runs it with processes of a given
//! program and comes back with a [`Summary`], or with one sentence in a [`RunError`].
//!
//! # Layout
//! - what to run: [`file`](Scenario), its tables' `plan`s and charter `settings`, `places` (where its files are),
//!   `embedded` (the quickstart, built in)
//! - what networks are aligned by where they have nothing of their own: [`anchors`]
//! - who lies when that is asked for: [`Liars`]
//! - who learns what: [`split()`] parts training from test rows, [`Data`] holds them, a [`Deal`] deals them out
//! - running: `folder` (the output), `stage` (a scenario with its files read), `process` (one node), `network` (all of them,
//!   phase by phase), `inproc` (the same without processes, by an [`InProcess`] engine), [`Runner`]
//! - [`compare`]: methods on the same data and seeds, with settings chosen on rows that nobody learns from
//! - what nodes report: `events` (the lines of their logs), [`history`] (a node's lines put together)
//! - what comes of it: [`check`] (what must hold in every run), [`summary`], [`Metric`] (what scores are), [`damage`]
//!   (what lies did), `progress` and `table` (text), `report` and `plot` (HTML)
//! - [`world`]: thousands of round machines in virtual time, instead of processes
//!
//! # What never comes in
//! Tensors, sockets, async: nodes do the work, this crate starts them by path and reads their event logs. It never
//! links the node, so it sees no more than any operator would. Worlds need the protocol alone.

pub mod anchors;
pub mod check;
pub mod compare;
pub mod damage;
mod data;
mod deal;
mod embedded;
mod error;
mod events;
mod file;
mod folder;
pub mod history;
mod inproc;
mod liars;
mod metric;
mod network;
mod places;
mod plan;
mod plot;
mod process;
mod progress;
mod report;
mod runner;
mod settings;
mod split;
mod stage;
pub mod summary;
mod table;
#[cfg(test)]
mod testing;
mod tokenizer;
pub mod world;

pub use data::{Data, Row};
pub use deal::{Deal, Share};
pub use error::RunError;
pub use events::{Alone, Backbone, Closed, Finished, Sample, Score, When};
pub use file::{Scenario, Variant};
pub use inproc::{Heard, InProcess};
pub use liars::{Liars, Lie};
pub use metric::Metric;
pub use network::Plan;
pub use places::locate;
pub use plan::{DataPlan, NodePlan, Partition, Precision, TaskKind, TaskPlan, TrainPlan};
pub use report::Report;
pub use runner::Runner;
pub use split::split;
pub use summary::Summary;
