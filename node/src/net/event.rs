//! What happens on the network.

use super::Path;
use heterotune_crypto::NodeId;
use heterotune_protocol::{
    message::{Batch, Fetch, Piece, Pull},
    round::Ticket,
};
use libp2p::{Multiaddr, PeerId};

/// What happens on the network.
#[derive(Debug)]
pub enum NetEvent {
    /// This node listens here.
    Listening(Multiaddr),
    /// Others reach this node here: they have called back, or its router or a relay says so.
    Reachable(Multiaddr),
    /// A peer was asked to call this node back here; whether it has reached it.
    CalledBack(Multiaddr, bool),
    /// A peer is connected, and has come through the gate.
    Connected(NodeId, Multiaddr, Path),
    /// By how many seconds the clock of a peer that is just connected is ahead of this node's.
    Clock(NodeId, i64),
    /// A peer that was connected through a relay is connected directly.
    Upgraded(NodeId, Multiaddr),
    /// It is gone.
    Disconnected(NodeId, String),
    /// A gossiped message; answer with [`Network::judge`](super::Network::judge).
    Message(Ticket, NodeId, Vec<u8>),
    /// A question; answer with [`Network::answer`](super::Network::answer).
    Asked(Ticket, Pull),
    /// An answer to [`Network::pull`](super::Network::pull).
    Answered(NodeId, Batch),
    /// None came.
    Unanswered(NodeId),
    /// A question for a piece; answer with [`Network::give`](super::Network::give).
    AskedPiece(Ticket, Fetch),
    /// What a peer has of what [`Network::fetch`](super::Network::fetch) has asked for; none if it does not answer.
    Piece(NodeId, Fetch, Option<Piece>),
    /// A peer was refused at the gate, or refused this node.
    Misfit {
        /// Who.
        peer: PeerId,
        /// Why, in words.
        reason: String,
        /// Whether no address is left at which a peer could be that fits.
        hopeless: bool,
    },
    /// An address could not be reached.
    Unreachable(String),
    /// A message could not be published, or a peer is too slow for its messages.
    Dropped(String),
    /// Something that whoever runs the node may want to know.
    Notice(String),
}
