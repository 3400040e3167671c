//! A node of a HeteroTune network, and the parts it is made of.
//!
//! # Layout
//! - [`runtime`]: one select loop that carries what happens to `heterotune_protocol::round::State` and back
//! - [`net`]: the libp2p swarm; [`invite`]: a way into a network; [`doctor`]: what would keep a node from running
//! - [`store`], [`folder`], [`disk`], [`events`], [`status`]: the state folder; [`config`]: files people write; [`console`]: what is printed
//! - [`backbone`]: frozen pretrained models, a family a file; [`data`]: samples from files; [`dema`]: adapters, projections, alignment;
//!   [`hub`]: backbones from the Hugging Face hub;
//!   [`ops`]: operations whose frozen weights get no gradients; [`train`]: local training and evaluation;
//!   [`mod@bench`]: how fast all that is; [`device`]: what computes; [`plan`]: what a node will need; [`exit`]: what the exit status says;
//!   [`acceptance`]: which mixture the node uses; [`trainer`]: its thread; [`lie`]: what a liar in a scenario makes of its contributions;
//!   [`inproc`]: a scenario's nodes in one process
//! - [`cli`]: the binary's verbs, one a file
//!
//! The two types to know are [`runtime::Options`] (what a node is) and [`train::Learner`] (what it learns with).
//!
//! # What never comes in
//! Decisions: what counts, when a round closes and how updates fuse is `heterotune_protocol`'s. This crate never fuses.

pub mod acceptance;
pub mod backbone;
pub mod bench;
pub mod cli;
pub mod config;
pub mod console;
pub mod data;
pub mod dema;
pub mod device;
pub mod disk;
pub mod doctor;
pub mod events;
pub mod exit;
pub mod folder;
pub mod hub;
pub mod inproc;
pub mod invite;
pub mod lie;
pub mod net;
pub mod ops;
pub mod plan;
pub mod runtime;
mod signals;
pub mod status;
pub mod store;
pub mod train;
pub mod trainer;
mod usage;
