//! What two peers ask each other directly. Not signed: the connection authenticates them, and what counts is signed
//! by its author.

use super::Step;
use crate::{
    admission::{Membership, Revocations},
    charter::NetworkId,
    limits,
    manifest::Manifest,
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
    /// What the sender's clock says, in seconds since 1970 (UTC). Anybody may say anything here, so nothing is decided by
    /// it: a node only warns its owner where clocks differ, as memberships expire by them.
    pub seconds: u64,
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
    /// "Give me this piece."
    Fetch(Fetch),
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
    /// To a fetch.
    Piece(Piece),
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
    /// The state after that round.
    pub state: StateBytes,
}

/// The bytes of a [`crate::round::Checkpoint`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum StateBytes {
    /// They.
    Here(ByteBuf),
    /// What they are made of, where they are more than [`limits::STATE_INLINE_BYTES_MAX`].
    Announced(Manifest),
}

/// A request for a piece of an update or a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The digest of its manifest.
    pub blob: Digest,
    /// Which piece, from 0.
    pub piece: u32,
}

/// What a peer has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// The piece, if it has that.
    pub bytes: Option<ByteBuf>,
    /// A bit for each piece that it has ([`crate::manifest::Pieces`]).
    pub held: ByteBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        charter::NetworkId,
        testing::{charter, identity},
    };
    use std::collections::BTreeMap;

    fn greeting() -> Greeting {
        let network = charter(3).id().unwrap();
        let membership = Membership::sign(&identity(0), &network, identity(1).id(), u64::MAX).unwrap();
        let charter = vec![7; limits::GREETING_CHARTER_BYTES_MAX];
        Greeting { version: u16::MAX, network, charter, membership: Some(membership), seconds: u64::MAX }
    }

    #[test]
    fn the_largest_greeting_and_reply_fit() {
        let bytes = wire::encode(&greeting(), limits::GREETING_BYTES_MAX).unwrap();
        assert_eq!(Greeting::decode(&bytes), Ok(greeting()));
        let refusal = Reply::Refused("x".repeat(limits::REFUSAL_BYTES_MAX));
        let bytes = wire::encode(&refusal, limits::REPLY_BYTES_MAX).unwrap();
        assert_eq!(wire::decode(&bytes, limits::REPLY_BYTES_MAX), Ok(refusal));
    }

    /// What other versions of this program read first: whoever changes it changes the protocol's version.
    #[test]
    fn a_greeting_s_bytes_are_fixed() {
        let greeting = Greeting {
            version: 1,
            network: NetworkId(Digest::ZERO),
            charter: vec![7],
            membership: None,
            seconds: 1 << 40,
        };
        let bytes = wire::encode(&greeting, limits::GREETING_BYTES_MAX).unwrap();
        let text = |text: &str| [&[0x60 + u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let parts: [&[u8]; 13] = [
            &[0xa5],
            &text("version"),
            &[1],
            &text("network"),
            &[0x58, 32],
            &[0; 32],
            &text("charter"),
            &[0x41, 7],
            &text("membership"),
            &[0xf6],
            &text("seconds"),
            &[0x1b],
            &(1u64 << 40).to_be_bytes(),
        ];
        assert_eq!(bytes, parts.concat());
    }

    #[test]
    fn the_largest_revocations_fit_into_an_answer() {
        let network = NetworkId(Digest::ZERO);
        let key = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            NodeId::from_bytes(bytes)
        };
        let members = (0..limits::MEMBERS_MAX as u32 / 2).map(key).collect();
        let list = Revocations::sign(&identity(0), &network, u64::MAX, members).unwrap();
        let answer = Response::Revocations(Some(Box::new(list)));
        let bytes = wire::encode(&answer, limits::RESPONSE_BYTES_MAX).unwrap();
        assert_eq!(wire::decode(&bytes, limits::RESPONSE_BYTES_MAX), Ok(answer));
    }

    #[test]
    fn the_version_is_read_from_greetings_of_any_version() {
        let bytes = wire::encode(&greeting(), limits::GREETING_BYTES_MAX).unwrap();
        assert_eq!(Greeting::version_of(&bytes), Some(u16::MAX));
        let future = BTreeMap::from([("colour", 3), ("version", 9)]);
        assert_eq!(Greeting::version_of(&wire::encode(&future, 64).unwrap()), Some(9));
        assert_eq!(Greeting::version_of(b"nonsense"), None);
        assert_eq!(Greeting::version_of(&vec![0; limits::GREETING_BYTES_MAX + 1]), None);
    }
}
