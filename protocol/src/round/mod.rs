//! The round machine: everything a node decides, as a pure function of what it is told.
//!
//! [`State::handle`] takes an [`Input`] and the time, and returns [`Output`]s: what to send, keep, compute, train and
//! tell. It has no socket, clock, thread or file of its own; long computations leave it as a [`Job`] and come back as
//! a [`Product`]. A whole network of states runs inside one test.
//!
//! One round: `Output::Train` -> `Input::Contribution` -> `Output::Keep`, then `Output::Publish` -> the others' updates
//! as `Input::Message` -> closed when all expected members have delivered, or at the deadline with the quorum ->
//! `Output::Compute(Job::Fold)` -> `Input::Computed` -> the next round.
//!
//! That is provisional: late updates mark their round dirty and are folded in once, at the next close or seal. Behind
//! it the sealers agree on each step for good ([`crate::seal`]), and no node closes a round before the one `horizon`
//! rounds earlier is sealed. Where a leader closes, nothing is provisional: the next round begins when its one before
//! is sealed.
//!
//! A node that the charter does not name, and whom its admission lets in, follows, enrols in a round (`enrol`), and
//! contributes once that is sealed for as long as the horizon.

mod close;
mod enrol;
mod fetch;
mod genesis;
mod job;
mod receive;
mod sealing;
mod snapshot;
mod state;
mod sync;
#[cfg(test)]
mod tests;

pub use fetch::{KeptPiece, Progress};
pub use job::{Checkpoint, Closed, Job, Product, RoundSet};
pub use state::{Saved, State};

use crate::{
    codec::Group,
    fuse::Standing,
    genesis::{Kernels, Reference, Statistics},
    message::{Batch, Fetch, Kind, Message, Piece, Pull},
    seal::Seal,
    verdict::Verdict,
};
use heterotune_crypto::{Digest, NodeId};
use serde::Serialize;
use std::sync::Arc;

/// Milliseconds since some moment that the caller chose; only differences count.
pub type Now = u64;

/// Names a message or question in a later output.
pub type Ticket = u64;

/// What a node is told.
#[derive(Debug)]
pub enum Input {
    /// Begin.
    Start,
    /// Time has passed.
    Tick,
    /// A gossiped message came, sent on by `from`.
    Message {
        /// Comes back in [`Output::Judge`].
        ticket: Ticket,
        /// The peer it came from, not necessarily its author.
        from: NodeId,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The trainer has done what [`Output::Train`] asked for.
    Contribution(Contribution),
    /// A [`Job`] is done.
    Computed(Product),
    /// A peer is connected: a member, or one that may become one.
    Connected(NodeId),
    /// It no longer is.
    Disconnected(NodeId),
    /// A peer asks for messages.
    Asked {
        /// Comes back in [`Output::Answer`].
        ticket: Ticket,
        /// What it asks for.
        pull: Pull,
    },
    /// A peer answers an [`Output::Pull`].
    Answered {
        /// Who answers.
        from: NodeId,
        /// What it sends.
        batch: Batch,
    },
    /// A peer does not answer an [`Output::Pull`].
    Unanswered {
        /// Who.
        from: NodeId,
    },
    /// A peer asks for a piece.
    AskedPiece {
        /// Comes back in [`Output::Piece`].
        ticket: Ticket,
        /// Which.
        fetch: Fetch,
    },
    /// A peer answers an [`Output::Fetch`], or does not.
    Piece {
        /// Who answers.
        from: NodeId,
        /// What was asked for.
        fetch: Fetch,
        /// What it has of it; none if there is no answer.
        piece: Option<Piece>,
    },
}

/// What a node is to do. Outputs of one input are in order: what it says (publishes or answers) after something to keep
/// must wait until that is on disk, so that a node never says after a crash what contradicts what it said before.
#[derive(Debug)]
pub enum Output {
    /// What became of a message.
    Judge {
        /// The message's ticket.
        ticket: Ticket,
        /// Whether to pass it on.
        verdict: Verdict,
    },
    /// Gossip this.
    Publish(Arc<Message>),
    /// Write this message to disk.
    Keep(Arc<Message>),
    /// Write this seal to disk. Of its step only the messages that it names are still needed; messages, states and
    /// seals of rounds before `forget_before` may go, but genesis.
    Seal {
        /// The seal.
        seal: Arc<Seal>,
        /// The first round still needed.
        forget_before: u64,
    },
    /// Write this state to disk; of those before it, only the ones since the last seal are still needed.
    Checkpoint(Arc<Checkpoint>),
    /// Train, or measure.
    Train(Work),
    /// Compute this on another thread.
    Compute(Job),
    /// Ask a peer.
    Pull {
        /// Whom.
        to: NodeId,
        /// For what.
        pull: Pull,
    },
    /// Answer a peer.
    Answer {
        /// The question's ticket.
        ticket: Ticket,
        /// The answer.
        batch: Batch,
    },
    /// Ask a peer for a piece: directly, as relays are not for big things.
    Fetch {
        /// Whom.
        to: NodeId,
        /// For what.
        fetch: Fetch,
    },
    /// Answer a peer that asks for a piece.
    Piece {
        /// The question's ticket.
        ticket: Ticket,
        /// The answer.
        piece: Piece,
    },
    /// Write this piece to disk, so that it need not be fetched again. Nothing waits for it.
    KeepPiece(KeptPiece),
    /// Something happened that people and logs should know.
    Tell(Event),
}

/// Work for the trainer.
#[derive(Debug, Clone)]
pub enum Work {
    /// Measure the anchors' kernels; answer with [`Contribution::Kernels`].
    Kernels,
    /// Fit the private projections to the reference, or draw them where there is none. No answer.
    Align(Option<Arc<Reference>>),
    /// Measure the class statistics; answer with [`Contribution::Statistics`].
    Statistics,
    /// Train a round from this mixture; answer with [`Contribution::Update`].
    Round {
        /// The round.
        round: u64,
        /// The f32 view of the round's base mixture.
        mixture: Vec<Vec<f32>>,
    },
    /// The last round is closed: this is the network's mixture. No answer.
    Finish {
        /// The round that does not come any more.
        round: u64,
        /// The f32 view of the final mixture.
        mixture: Vec<Vec<f32>>,
    },
}

/// What the trainer delivers.
#[derive(Debug)]
pub enum Contribution {
    /// Its anchor kernels.
    Kernels(Kernels),
    /// Its class statistics.
    Statistics(Statistics),
    /// Its update.
    Update {
        /// The round it was trained for.
        round: u64,
        /// The groups, on the codec's grid.
        groups: Vec<Group>,
    },
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// This node said something.
    Published {
        /// What.
        kind: Kind,
        /// For which round.
        round: u64,
        /// How long the message is.
        bytes: usize,
        /// Its payload.
        payload: Digest,
    },
    /// A valid, new message came.
    Received {
        /// What it is.
        kind: Kind,
        /// For which round.
        round: u64,
        /// Who said it.
        author: NodeId,
        /// Who sent it on.
        from: NodeId,
        /// How long it is.
        bytes: usize,
        /// Its payload.
        payload: Digest,
    },
    /// Something too large for a message is being fetched: an update, or a state.
    Fetching {
        /// The update's author; none for a state.
        author: Option<NodeId>,
        /// For which round.
        round: u64,
        /// How long it is.
        bytes: u64,
        /// Who has told of it.
        from: NodeId,
    },
    /// A message was refused.
    Refused {
        /// Why, in words.
        reason: String,
        /// Who sent it on.
        from: NodeId,
        /// How long it is.
        bytes: usize,
    },
    /// An author has said two different things in one step; neither counts.
    Conflict {
        /// Who.
        author: NodeId,
        /// Of what kind.
        kind: Kind,
        /// In which round.
        round: u64,
    },
    /// The network has its reference and its starting readout.
    Genesis {
        /// The id that every later signature names.
        genesis_id: Digest,
        /// Founders whose kernels or statistics were left out.
        left_out: Vec<NodeId>,
    },
    /// A sealed round has made a newcomer a member.
    Enrolled {
        /// Who.
        member: NodeId,
        /// The round.
        round: u64,
    },
    /// A round is open.
    RoundOpened {
        /// Which.
        round: u64,
    },
    /// A round is closed, provisionally, or closed again with late updates.
    RoundClosed {
        /// Which.
        round: u64,
        /// Updates in it.
        updates: usize,
        /// L2 norm of the fused update.
        update_norm: f64,
        /// L2 norm of all branches afterwards.
        branch_norm: f64,
        /// Mean cosine between the updates.
        agreement: f64,
        /// Members whose updates were screened out.
        left_out: Vec<NodeId>,
        /// How each sender's update stands to the others'.
        standings: Vec<Standing>,
        /// The mixture that came out.
        mixture_hash: Digest,
    },
    /// A round is sealed: its updates and the state after it are final.
    Sealed {
        /// Which.
        round: u64,
        /// The view, from 0, in which the sealers agreed; each one more is a proposer that failed.
        view: u32,
        /// Updates in it.
        updates: usize,
        /// Members that said two different things.
        conflicts: Vec<NodeId>,
        /// The digest of the state after it.
        state: Digest,
    },
    /// A step's deadline has passed without these members.
    DeadlineMissed {
        /// The step's round; 0 in genesis.
        round: u64,
        /// Who has not delivered.
        missing: Vec<NodeId>,
    },
    /// A step's deadline has passed with everybody's delivery, and it waits for a seal.
    SealOverdue {
        /// The round of the step that is not sealed; 0 in genesis.
        round: u64,
        /// The sealers that have not listed what they hold of it.
        silent: Vec<NodeId>,
    },
    /// A peer that has sealed as much claims another state: it lies, or computes wrongly, or this node does.
    StateDiffers {
        /// Who.
        peer: NodeId,
        /// The first round that is not sealed.
        round: u64,
    },
    /// The sealers have sealed another state than this node computes from the same updates. It goes no further.
    Miscomputes {
        /// The round.
        round: u64,
        /// What is sealed.
        sealed: Digest,
        /// What this node gets.
        computed: Digest,
    },
    /// A round cannot close before an earlier one is sealed; training goes on.
    WaitsForSeal {
        /// The open round.
        round: u64,
        /// The one that is not sealed.
        unsealed: u64,
    },
    /// This node was too far behind to come step by step, and has taken a sealed state.
    Snapshot {
        /// The last round in it.
        round: u64,
        /// Who gave it.
        from: NodeId,
    },
    /// Something this node wanted to say does not fit into a message.
    Unsayable {
        /// Why.
        reason: String,
    },
}
