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
    /// Others have reached this node here, or its owner says that they do.
    Reachable(Multiaddr),
    /// A peer is connected, and has come through the gate.
    Connected(NodeId, Multiaddr, Path),
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
