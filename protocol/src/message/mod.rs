//! What nodes tell each other: signed messages for everyone, and requests between two peers.
//!
//! A gossiped message is an [`Envelope`]: where it belongs, who says it, the payload's bytes and a signature over all
//! of that. The payload's bytes are kept, hashed and sent on as they arrived.

mod context;
mod request;
#[cfg(test)]
mod tests;

pub use context::Context;
pub use request::{Batch, Fetch, Greeting, Hello, Piece, Pull, Reply, Request, Response, Snapshot, StateBytes};

use crate::{
    charter::NetworkId,
    codec::{EncodedGroup, Group},
    enrolment::Enrolment,
    genesis::{Kernels, Statistics},
    limits,
    manifest::{Blob, Manifest},
    seal::{List, Proposal, Vote},
};
use heterotune_crypto::{Digest, NodeId, Signed};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::{fmt, sync::Arc};

/// A step of the network's life. Each is sealed, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Genesis, first half: the founders' anchor kernels become the reference.
    Kernels,
    /// Genesis, second half: the founders' class statistics become the starting readout.
    Statistics,
    /// A round of training, from 1.
    Round(#[serde(deserialize_with = "round")] u64),
}

/// Reads the number of a round, at most [`limits::ROUND_MAX`].
pub(crate) fn round<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let round = u64::deserialize(deserializer)?;
    let refuse = || D::Error::custom(format!("there is no round {round}; the last is {}", limits::ROUND_MAX));
    if round <= limits::ROUND_MAX { Ok(round) } else { Err(refuse()) }
}

impl Step {
    /// The round's number; 0 in genesis.
    pub fn round(self) -> u64 {
        match self {
            Step::Kernels | Step::Statistics => 0,
            Step::Round(round) => round,
        }
    }

    /// Its place in the order of all steps, from 0.
    pub fn height(self) -> u64 {
        match self {
            Step::Kernels => 0,
            Step::Statistics => 1,
            Step::Round(round) => round.saturating_add(1),
        }
    }

    /// The step after it.
    pub fn next(self) -> Self {
        match self {
            Step::Kernels => Step::Statistics,
            Step::Statistics => Step::Round(1),
            Step::Round(round) => Step::Round(round.saturating_add(1)),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Kernels => f.write_str("kernels"),
            Step::Statistics => f.write_str("statistics"),
            Step::Round(round) => write!(f, "round {round}"),
        }
    }
}

/// What kind of message an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`Kernels`], in genesis.
    Kernels,
    /// [`Statistics`], in genesis.
    Statistics,
    /// An [`Update`] of a round.
    Update,
    /// An [`Enrolment`], in a round.
    Enrolment,
    /// A [`Head`].
    Head,
    /// A sealer's [`List`].
    List,
    /// A proposer's [`Proposal`].
    Proposal,
    /// A sealer's [`Vote`].
    Vote,
}

impl Kind {
    /// The signature's domain tag, so that no payload of one kind passes for another.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Kind::Kernels => "kernels",
            Kind::Statistics => "statistics",
            Kind::Update => "update",
            Kind::Enrolment => "enrolment",
            Kind::Head => "head",
            Kind::List => "list",
            Kind::Proposal => "proposal",
            Kind::Vote => "vote",
        }
    }

    /// Whether a message of this kind can belong to `step`.
    pub fn belongs_to(self, step: Step) -> bool {
        match self {
            Kind::Kernels => step == Step::Kernels,
            Kind::Statistics => step == Step::Statistics,
            Kind::Update | Kind::Enrolment => matches!(step, Step::Round(1..)),
            Kind::Head | Kind::List | Kind::Proposal | Kind::Vote => step != Step::Round(0),
        }
    }

    /// Whether it is an entry of the ledger.
    pub fn is_entry(self) -> bool {
        matches!(self, Kind::Kernels | Kind::Statistics | Kind::Update | Kind::Enrolment)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())
    }
}

/// A message as it travels. Everything but the signature is under the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The protocol's version.
    pub version: u16,
    /// The network it belongs to.
    pub network: NetworkId,
    /// What the network's genesis had made of itself in this step: zero while the kernels are gathered, a digest of
    /// the first half's seal while the statistics are, the genesis id in the rounds.
    pub genesis: Digest,
    /// What it is.
    pub kind: Kind,
    /// The step it belongs to.
    pub step: Step,
    /// Who says it.
    pub author: NodeId,
    /// Grows with everything that the author says, so that the same thing said again is a new message.
    pub sequence: u64,
    /// The bytes of a [`Content`].
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
    /// The author's signature, 64 bytes.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

impl Envelope {
    /// See [`Message::id`].
    pub(crate) fn id(&self) -> Digest {
        self.id_with(&self.payload)
    }

    fn id_with(&self, payload: &[u8]) -> Digest {
        let height = self.step.height().to_le_bytes();
        let (kind, genesis, author) = (self.kind.tag().as_bytes(), self.genesis.as_bytes(), self.author.as_bytes());
        Digest::of("heterotune 2026 message", &[kind, genesis, &height, author, payload])
    }
}

/// What was said, decoded and checked against the charter.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A founder's anchor kernels.
    Kernels(Kernels),
    /// A founder's class statistics.
    Statistics(Statistics),
    /// A round's update.
    Update(Vec<Group>),
    /// A round's update that is still to be fetched.
    Announced(Manifest),
    /// A newcomer's wish to be a member.
    Enrolment(Enrolment),
    /// Where a node is.
    Head(Head),
    /// What a sealer holds of a step.
    List(List),
    /// What a proposer wants to seal.
    Proposal(Proposal),
    /// A sealer's vote.
    Vote(Vote),
}

impl Content {
    /// What kind of message it makes.
    pub fn kind(&self) -> Kind {
        match self {
            Content::Kernels(_) => Kind::Kernels,
            Content::Statistics(_) => Kind::Statistics,
            Content::Update(_) | Content::Announced(_) => Kind::Update,
            Content::Enrolment(_) => Kind::Enrolment,
            Content::Head(_) => Kind::Head,
            Content::List(_) => Kind::List,
            Content::Proposal(_) => Kind::Proposal,
            Content::Vote(_) => Kind::Vote,
        }
    }
}

/// A round's update as it travels: one node's mixture after its local steps, minus the round's base mixture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Update {
    /// The groups, in the layout's order.
    Groups(Vec<EncodedGroup>),
    /// What such groups, as bytes, are made of, where they are more than [`limits::PAYLOAD_BYTES_MAX`].
    Announced(Manifest),
}

/// Where a node is. Said to neighbours, and not passed on. The envelope's step is the one open to the sender; after
/// the last round, one round more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The first step that is not sealed to the sender.
    pub unsealed: Step,
    /// The digest of the state that the sealed steps made.
    pub state: Digest,
    /// The digest of the sets of the steps that are not sealed, up to the open one.
    pub sets: Digest,
}

/// A message that verified: who said what, and the bytes to pass on.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The step it belongs to.
    pub step: Step,
    /// The genesis it was said under.
    pub genesis: Digest,
    /// The author's running number.
    pub sequence: u64,
    /// The author, the content, and the payload's own bytes.
    pub signed: Signed<Content>,
    /// The envelope's bytes, as they arrived.
    pub bytes: Vec<u8>,
    /// What the payload only announces, once that is there.
    pub body: Option<Arc<Blob>>,
    id: Digest,
}

impl Message {
    fn new(envelope: &Envelope, signed: Signed<Content>, bytes: Vec<u8>) -> Self {
        let Envelope { kind, step, genesis, sequence, .. } = *envelope;
        let id = envelope.id_with(signed.payload());
        Self { kind, step, genesis, sequence, signed, bytes, body: None, id }
    }

    /// Who said it.
    pub fn author(&self) -> NodeId {
        self.signed.author()
    }

    /// What the ledger knows it by: its place, author and payload. The same thing said again, with another sequence
    /// number, has the same id.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// How many bytes it has, with its body.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.body.as_ref().map_or(0, |body| body.bytes().len())
    }

    /// Never: an envelope has fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is still to be fetched of it.
    pub fn announces(&self) -> Option<&Manifest> {
        match self.signed.value() {
            Content::Announced(manifest) => Some(manifest),
            _ => None,
        }
    }
}

/// An envelope on its way through the checks.
#[derive(Clone, Debug)]
pub enum Opened {
    /// It verified before.
    Known(Arc<Message>),
    /// Its signature is still to be verified.
    New(Box<Envelope>),
}

/// What is read of a message before its signature is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// The step it belongs to.
    pub step: Step,
    /// Who says it.
    pub author: NodeId,
    /// The genesis it was said under.
    pub genesis: Digest,
    /// See [`Message::id`].
    pub id: Digest,
}

impl Opened {
    /// Where it belongs.
    pub fn header(&self) -> Header {
        match self {
            Opened::Known(message) => {
                let Message { kind, step, genesis, id, .. } = **message;
                Header { kind, step, author: message.author(), genesis, id }
            }
            Opened::New(envelope) => {
                let Envelope { kind, step, author, genesis, .. } = **envelope;
                Header { kind, step, author, genesis, id: envelope.id() }
            }
        }
    }
}
