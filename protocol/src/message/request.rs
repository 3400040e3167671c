//! What two peers ask each other directly. Not signed: the connection authenticates them, and what counts is signed
//! by its author.

use super::Step;
use crate::{
    admission::{Membership, Revocations},
    charter::NetworkId,
    limits,
    seal::Seal,
    wire::{self, WireError},
};
use heterotune_crypto::{Digest, NodeId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The first words on a connection, before anything else is said or believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Greeting {
    /// The protocol's version.
    pub version: u16,
    /// The network's id.
    pub network: NetworkId,
    /// The charter's bytes, so that a difference can be named; none if they are many
    /// ([`crate::limits::GREETING_CHARTER_BYTES_MAX`]).
    #[serde(with = "serde_bytes")]
    pub charter: Vec<u8>,
    /// What lets the sender in where the charter does not name it.
    pub membership: Option<Membership>,
}

impl Greeting {
    /// A greeting from its bytes.
    ///
    /// # Errors
    /// Bytes that are too many, not readable or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode(bytes, limits::GREETING_BYTES_MAX)
    }

    /// The version in a greeting of any version: whatever else it holds, it is a map that names its `version`.
    pub fn version_of(bytes: &[u8]) -> Option<u16> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u16,
        }
        let few = bytes.len() <= limits::GREETING_BYTES_MAX;
        let read = few.then(|| ciborium::de::from_reader_with_recursion_limit::<Versioned, _>(bytes, 8));
        read?.ok().map(|versioned| versioned.version)
    }
}

/// What a node says to a greeting. Only after both have said [`Reply::Welcome`] is anything else said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// "Come in."
    Welcome,
    /// "No", and why, in one sentence of at most [`crate::limits::REFUSAL_BYTES_MAX`] bytes.
    Refused(String),
}

/// What one peer asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// "These I know; whom do you know?"
    Hello(Hello),
    /// "Give me what you have of this step and I lack."
    Pull(Pull),
    /// "Give me the newest revocations of this admin."
    Revocations(NodeId),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// To a hello.
    Hello(Hello),
    /// To a pull.
    Batch(Batch),
    /// To the question for an admin's revocations; none if it is not known to have revoked anybody.
    Revocations(Option<Box<Revocations>>),
}

/// What connected peers tell each other from time to time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Addresses of peers that the sender is connected to, as multiaddr texts.
    pub peers: Vec<String>,
    /// The number of the newest revocations that the sender holds, by admin.
    pub revocations: Vec<(NodeId, u64)>,
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
