//! What two peers ask each other directly. Not signed: the connection authenticates them, and what counts is signed
//! by its author.

use super::Step;
use crate::{charter::NetworkId, seal::Seal};
use heterotune_crypto::Digest;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What one peer asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// "This is who I am; who are you, and whom do you know?"
    Hello(Hello),
    /// "Give me what you have of this step and I lack."
    Pull(Pull),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// To a hello.
    Hello(Hello),
    /// To a pull.
    Batch(Batch),
}

/// How peers introduce themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The protocol's version.
    pub version: u16,
    /// The network's id.
    pub network: NetworkId,
    /// The charter's bytes, so that a difference can be named; none if they are many
    /// ([`crate::limits::HELLO_CHARTER_BYTES_MAX`]).
    #[serde(with = "serde_bytes")]
    pub charter: Vec<u8>,
    /// Addresses of members that the sender is connected to, as multiaddr texts.
    pub peers: Vec<String>,
}

/// A request for what the sender lacks of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// The step.
    pub step: Step,
    /// What the sender holds, by id.
    pub have: Vec<Digest>,
    /// What it needs above all, by id: these come first.
    pub want: Vec<Digest>,
}

/// What a peer holds of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The step.
    pub step: Step,
    /// The sender's open step.
    pub open: Step,
    /// The sender's first step that is not sealed.
    pub unsealed: Step,
    /// Whether there is more than fitted.
    pub more: bool,
    /// The envelopes' bytes: the ledger's entries, and what the sealers have said.
    pub messages: Vec<ByteBuf>,
    /// The step's seal, if it is sealed.
    pub seal: Option<Box<Seal>>,
    /// Where the step is older than what the sender keeps: the newest sealed state.
    pub snapshot: Option<Box<Snapshot>>,
}

/// A sealed state, for whoever is too far behind to come step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The seal of the last round in it.
    pub seal: Seal,
    /// The bytes of a [`crate::round::Checkpoint`]: the state after that round.
    #[serde(with = "serde_bytes")]
    pub state: Vec<u8>,
}
