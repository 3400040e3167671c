//! What a node thinks of a message, and why.

use crate::{
    admission::AdmissionError,
    charter::NetworkId,
    codec::CodecError,
    genesis::GenesisError,
    manifest::ManifestError,
    message::{Kind, Step},
    wire::WireError,
};
use heterotune_crypto::{Digest, NodeId, SignedError};

/// What is to become of a message. Maps one to one to gossip's acceptance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Valid and new: pass it on.
    Accept,
    /// Valid and new, but for those who have heard it alone: don't pass it on.
    Heard,
    /// Not wanted, but an honest peer may have sent it on: don't, and hold it against nobody.
    Ignore(Reason),
    /// No honest peer passes this on.
    Reject(Reason),
}

impl From<Reason> for Verdict {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Duplicate
            | Reason::Stale { .. }
            | Reason::Early { .. }
            | Reason::OtherGenesis { .. }
            // Who is a step behind passes updates on before it can know who contributes.
            | Reason::NotAContributor { .. }
            // Nor who has been enrolled, or will be.
            | Reason::Stranger { .. }
            | Reason::Enrolled { .. }
            | Reason::Crowded { .. }
            | Reason::Equivocation { .. }
            | Reason::Spoiled { .. }
            | Reason::Flood
            | Reason::Relayed => Verdict::Ignore(reason),
            _ => Verdict::Reject(reason),
        }
    }
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Not a message at all.
    #[error("malformed: {0}")]
    Malformed(#[from] WireError),
    /// Another version of the protocol.
    #[error("other version: the sender speaks version {version} of the protocol")]
    OtherVersion {
        /// The version it claims.
        version: u16,
    },
    /// Another network's.
    #[error("other network: it belongs to {network}")]
    OtherNetwork {
        /// The network it names.
        network: NetworkId,
    },
    /// The author is not in the charter, and nobody else may join.
    #[error("not a member: {author} is not in the charter")]
    NotAMember {
        /// Who claims to have said it.
        author: NodeId,
    },
    /// The author is not in the charter, and no round that is known to be sealed has enrolled it.
    #[error("stranger: {author} has not been enrolled")]
    Stranger {
        /// Who claims to have said it.
        author: NodeId,
    },
    /// An enrolment that admission does not allow.
    #[error("not admitted: {0}")]
    NotAdmitted(#[from] AdmissionError),
    /// An enrolment by a member.
    #[error("enrolled: {author} is a member")]
    Enrolled {
        /// Who.
        author: NodeId,
    },
    /// More enrolments than a round has places for; others come first.
    #[error("crowded: others come first in round {round}")]
    Crowded {
        /// Its round.
        round: u64,
    },
    /// Said under another genesis.
    #[error("other genesis: it was said under {genesis}")]
    OtherGenesis {
        /// The genesis it names.
        genesis: Digest,
    },
    /// The signature does not verify.
    #[error("forged: the signature does not verify")]
    Forged,
    /// A step that this kind of message cannot belong to.
    #[error("malformed: {kind} of {step}")]
    WrongStep {
        /// What it is.
        kind: Kind,
        /// The step it names.
        step: Step,
    },
    /// The author has no vote.
    #[error("not a sealer: {author}")]
    NotASealer {
        /// Who claims to have said it.
        author: NodeId,
    },
    /// The author is not among those whose updates the round is made of, or has contradicted itself before.
    #[error("not a contributor: {author} has not been drawn for this round, or is banned")]
    NotAContributor {
        /// Who.
        author: NodeId,
    },
    /// A list, vote, proposal or seal that is not what it must be.
    #[error("unsound seal: {what}")]
    Seal {
        /// What is wrong.
        what: &'static str,
    },
    /// A peer has sent so much that does not verify that nothing of it is looked at for a while.
    #[error("flood: too much of what this peer sends does not verify")]
    Flood,
    /// A head that somebody else passes on.
    #[error("relayed: heads are for neighbours alone")]
    Relayed,
    /// Too old to count.
    #[error("stale: round {round} is sealed, the open round is {open}")]
    Stale {
        /// Its round.
        round: u64,
        /// Ours.
        open: u64,
    },
    /// Too far ahead to be kept.
    #[error("early: round {round} is too far ahead, the open round is {open}")]
    Early {
        /// Its round.
        round: u64,
        /// Ours.
        open: u64,
    },
    /// Held already.
    #[error("duplicate")]
    Duplicate,
    /// The author has said two different things in one step.
    #[error("equivocation: {author} has said two different things in one step")]
    Equivocation {
        /// Who.
        author: NodeId,
    },
    /// An update of another shape, or out of range.
    #[error(transparent)]
    Update(#[from] CodecError),
    /// A manifest that no update of this network has.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What was fetched is not what was announced.
    #[error("malformed: what was fetched is not the update that was announced")]
    OtherBody,
    /// The author has announced something in this step that was no update.
    #[error("spoiled: {author} has announced what is no update in this step")]
    Spoiled {
        /// Who.
        author: NodeId,
    },
    /// Kernels or statistics that cannot be what they claim.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

impl From<SignedError> for Reason {
    fn from(_: SignedError) -> Self {
        Reason::Forged
    }
}
