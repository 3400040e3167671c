//! Fetches: what is too large for a message comes in pieces, from whoever holds them.
//!
//! An announcement is passed on like any message; what it announces is not in the ledger before it is there whole. Each
//! piece verifies by itself, so it may come from anybody, and who has some of them gives them on. Every answer says what
//! its sender holds, and each node begins at a piece of its own, so that those who fetch the same thing soon have
//! different pieces for each other.

use super::{Event, Now, Output, State};
use crate::{
    ledger::Entry,
    limits,
    manifest::{Blob, Manifest, Pieces},
    message::{Fetch, Message, Piece, Step},
    seal::Seal,
    verdict::{Reason, Verdict},
};
use heterotune_crypto::{Digest, NodeId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A piece to keep, so that a node that starts again need not fetch it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPiece {
    /// The height of the step that it is for. Once that is sealed here nobody needs it any more.
    pub height: u64,
    /// The digest of its manifest.
    pub blob: Digest,
    /// Which piece.
    pub piece: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How far something is that is being fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The update's author; none for a state.
    pub author: Option<NodeId>,
    /// Its round.
    pub round: u64,
    /// Bytes that are here.
    pub held: u64,
    /// Bytes that there are.
    pub bytes: u64,
}

/// What a fetch is for.
#[derive(Clone, Debug)]
enum Goal {
    /// An update, and who has sent its announcement on.
    Update(Arc<Message>, NodeId),
    /// The state after a sealed round, and who has offered it.
    State(Box<Seal>, NodeId),
}

impl Goal {
    fn step(&self) -> Step {
        match self {
            Goal::Update(message, _) => message.step,
            Goal::State(seal, _) => seal.step,
        }
    }
}

/// What is known of a peer that may hold pieces.
#[derive(Debug, Default)]
struct Holder {
    /// What it has said that it holds, if it was asked yet.
    held: Option<Pieces>,
    /// Until then it is not asked for what it has not said to hold.
    quiet_until: Now,
    /// It has given what is no piece of this.
    lies: bool,
}

/// Something on its way here.
#[derive(Debug)]
struct Fetching {
    goal: Goal,
    manifest: Manifest,
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Pieces that are asked for, of whom, and since when.
    asked: BTreeMap<u32, (NodeId, Now)>,
    holders: BTreeMap<NodeId, Holder>,
    /// When it last got on, and when it was last given a chance to.
    moved_at: Now,
    tried_at: Now,
}

impl Fetching {
    fn count(&self) -> u32 {
        u32::try_from(self.manifest.pieces.len()).unwrap_or(u32::MAX)
    }

    fn is_stalled(&self, now: Now) -> bool {
        now >= self.moved_at.saturating_add(limits::FETCH_STALL_MS)
    }

    /// Whether others come first.
    fn has_had_its_chance(&self, now: Now) -> bool {
        self.is_stalled(now) && now >= self.tried_at.saturating_add(limits::FETCH_STALL_MS)
    }

    /// What is missing and not asked for, from piece `first` on, round to it.
    fn open(&self, first: u32) -> impl Iterator<Item = u32> {
        let pieces = (first..self.count()).chain(0..first);
        pieces.filter(|piece| !self.pieces.contains_key(piece) && !self.asked.contains_key(piece))
    }

    /// The next piece to ask this peer for, if it is to be asked now.
    fn next_of(&self, peer: &NodeId, first: u32, now: Now) -> Option<u32> {
        let of_peer = self.asked.values().filter(|(asked, _)| asked == peer).count();
        let Some(holder) = self.holders.get(peer) else { return self.open(first).next().filter(|_| of_peer == 0) };
        if holder.lies || of_peer >= limits::PIECES_ASKED_OF_PEER_MAX {
            return None;
        }
        let held = self.open(first).find(|piece| holder.held.as_ref().is_some_and(|held| held.has(*piece)));
        held.or_else(|| self.open(first).next().filter(|_| of_peer == 0 && now >= holder.quiet_until))
    }
}

/// What a node fetches, and offers to others.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    /// By the manifest's digest.
    under_way: BTreeMap<Digest, Fetching>,
    /// Who has announced what is no update, and in which step.
    pub(super) spoiled: BTreeSet<(Step, NodeId)>,
    /// Who has offered what is no state.
    liars: BTreeSet<NodeId>,
    /// A state that others fetch, its seal, and when it was last asked for.
    offer: Option<(Arc<Seal>, Arc<Blob>, Now)>,
}

impl Fetches {
    /// The announcements of a step that are not whole yet.
    pub(super) fn announced(&self, step: Step) -> impl Iterator<Item = &Arc<Message>> {
        self.under_way.values().filter_map(move |fetching| match &fetching.goal {
            Goal::Update(message, _) if message.step == step => Some(message),
            _ => None,
        })
    }

    /// Forgets what a node whose first unsealed step this is does not need.
    pub(super) fn trim(&mut self, unsealed: Step) {
        self.under_way.retain(|_, fetching| fetching.goal.step() >= unsealed);
        self.spoiled.retain(|(step, _)| *step >= unsealed);
    }

    pub(super) fn disconnected(&mut self, peer: &NodeId) {
        for fetching in self.under_way.values_mut() {
            fetching.asked.retain(|_, (asked, _)| asked != peer);
            // It is asked anew when it comes back.
            fetching.holders.remove(peer);
        }
    }

    /// The state that is offered already, while others are fetching it.
    pub(super) fn offer(
        &mut self,
        seal: &Arc<Seal>,
        now: Now,
        encode: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<(&Arc<Seal>, &Arc<Blob>)> {
        let is_current = |(offered, _, asked): &(Arc<Seal>, _, Now)| {
            offered.step == seal.step || now < asked.saturating_add(limits::OFFER_MS)
        };
        if !self.offer.as_ref().is_some_and(is_current) {
            self.offer = Some((seal.clone(), Arc::new(Blob::new(encode()?)), now));
        }
        self.offer.as_ref().map(|(seal, blob, _)| (seal, blob))
    }
}

impl State {
    /// What is being fetched.
    pub fn fetching(&self) -> impl Iterator<Item = Progress> {
        self.fetches.under_way.values().map(|fetching| {
            let author = match &fetching.goal {
                Goal::Update(message, _) => Some(message.author()),
                Goal::State(..) => None,
            };
            let held = fetching.pieces.values().map(|piece| piece.len() as u64).sum();
            Progress { author, round: fetching.goal.step().round(), held, bytes: fetching.manifest.length }
        })
    }

    /// Whether this node has said something in a step, be it only known by an announcement.
    pub(super) fn has_announced(&self, step: Step) -> bool {
        self.fetches.announced(step).any(|message| message.author() == self.me)
    }

    /// Takes an announcement, which is new: fetches what it announces.
    pub(super) fn take_announcement(
        &mut self,
        from: NodeId,
        message: Arc<Message>,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<Verdict, Reason> {
        let (step, author, id) = (message.step, message.author(), message.id());
        let Some(manifest) = message.announces().cloned() else { return Ok(Verdict::Accept) };
        if !self.sealing.wants(&id) {
            // One at a time of an author, and none of who has announced garbage: what else is sealed is asked for.
            if self.fetches.spoiled.contains(&(step, author)) {
                return Err(Reason::Spoiled { author });
            }
            if self.fetches.announced(step).any(|other| other.author() == author) {
                return Err(Reason::Duplicate);
            }
        }
        let (round, bytes) = (step.round(), manifest.length);
        if self.fetch(Goal::Update(message, from), manifest, now) {
            out.push(Output::Tell(Event::Fetching { author: Some(author), round, bytes, from }));
            return Ok(Verdict::Accept);
        }
        Err(Reason::Duplicate)
    }

    /// Fetches the state behind a seal that verified.
    pub(super) fn fetch_state(
        &mut self,
        from: NodeId,
        seal: Seal,
        manifest: Manifest,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<bool, Reason> {
        manifest.check(limits::STATE_INLINE_BYTES_MAX + 1, self.context.state_bytes_max())?;
        let is_state = |fetching: &Fetching| matches!(fetching.goal, Goal::State(..));
        // One at a time; another one only in place of one that does not get on.
        let gets_on = |fetching: &Fetching| is_state(fetching) && !fetching.is_stalled(now);
        if self.fetches.liars.contains(&from) || self.fetches.under_way.values().any(gets_on) {
            return Ok(false);
        }
        let (round, bytes) = (seal.step.round(), manifest.length);
        self.fetches.under_way.retain(|_, fetching| !is_state(fetching));
        if self.fetch(Goal::State(Box::new(seal), from), manifest, now) {
            out.push(Output::Tell(Event::Fetching { author: None, round, bytes, from }));
        }
        Ok(true)
    }

    /// Begins to fetch, with the pieces that the disk has; whether that is new.
    fn fetch(&mut self, goal: Goal, manifest: Manifest, now: Now) -> bool {
        let digest = manifest.digest();
        if self.fetches.under_way.contains_key(&digest) {
            return false;
        }
        let saved = self.saved.pieces.remove(&digest).unwrap_or_default();
        let pieces = saved.into_iter().filter(|(piece, bytes)| manifest.is_piece(*piece, bytes)).collect();
        let (asked, holders) = Default::default();
        let fetching = Fetching { goal, manifest, pieces, asked, holders, moved_at: now, tried_at: now };
        self.fetches.under_way.insert(digest, fetching);
        true
    }

    /// Takes what is whole, and asks for pieces.
    pub(super) fn fetch_on(&mut self, now: Now, out: &mut Vec<Output>) {
        let is_whole = |fetching: &Fetching| fetching.pieces.len() == fetching.manifest.pieces.len();
        let whole =
            |fetches: &Fetches| fetches.under_way.iter().find(|(_, it)| is_whole(it)).map(|(digest, _)| *digest);
        while let Some(digest) = whole(&self.fetches) {
            if let Some(fetching) = self.fetches.under_way.remove(&digest) {
                self.fetched(fetching, now, out);
            }
        }
        let mut order = Vec::from_iter(&self.fetches.under_way);
        // What gets on stays; then what has waited longest.
        order.sort_by_key(|(_, it)| (it.has_had_its_chance(now), it.asked.is_empty(), it.tried_at));
        let order: Vec<_> = order.into_iter().map(|(digest, _)| *digest).collect();
        for digest in order.into_iter().take(limits::FETCHES_MAX) {
            self.ask_for_pieces(digest, now, out);
        }
    }

    fn ask_for_pieces(&mut self, blob: Digest, now: Now, out: &mut Vec<Output>) {
        let peers: Vec<_> = self.sync.connected().chain(self.sync.strangers()).collect();
        let me = self.me.as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let Some(fetching) = self.fetches.under_way.get_mut(&blob) else { return };
        fetching.asked.retain(|_, (_, since)| now < since.saturating_add(limits::PIECE_TIMEOUT_MS));
        if fetching.has_had_its_chance(now) {
            fetching.tried_at = now;
        }
        let first = me % fetching.count().max(1);
        let (Goal::Update(_, teller) | Goal::State(_, teller)) = &fetching.goal;
        // Who has told of it first, then who is known to hold some of it.
        let mut peers: Vec<_> = peers
            .into_iter()
            .map(|peer| (peer != *teller, fetching.holders.get(&peer).is_none_or(|holder| holder.held.is_none()), peer))
            .collect();
        peers.sort_unstable();
        for (_, _, to) in peers {
            while fetching.asked.len() < limits::PIECES_ASKED_MAX
                && let Some(piece) = fetching.next_of(&to, first, now)
            {
                fetching.asked.insert(piece, (to, now));
                out.push(Output::Fetch { to, fetch: Fetch { blob, piece } });
            }
        }
    }

    /// A peer has answered an [`Output::Fetch`], or does not.
    pub(super) fn piece_came(
        &mut self,
        from: NodeId,
        fetch: Fetch,
        piece: Option<Piece>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Fetch { blob, piece: number } = fetch;
        let Some(fetching) = self.fetches.under_way.get_mut(&blob) else { return };
        if fetching.asked.get(&number).is_some_and(|(asked, _)| *asked == from) {
            fetching.asked.remove(&number);
        }
        let holder = fetching.holders.entry(from).or_default();
        holder.quiet_until = now.saturating_add(limits::PIECE_RETRY_MS);
        let Some(Piece { bytes, held }) = piece else { return };
        holder.held = Some(Pieces::from_bytes(&held));
        let Some(bytes) = bytes else { return };
        if !fetching.manifest.is_piece(number, &bytes) {
            holder.lies = true;
            self.floods.add(from, now);
            let reason = Reason::OtherBody.to_string();
            return out.push(Output::Tell(Event::Refused { reason, from, bytes: bytes.len() }));
        }
        fetching.moved_at = now;
        if fetching.pieces.contains_key(&number) {
            return;
        }
        let height = fetching.goal.step().height();
        fetching.pieces.insert(number, bytes.to_vec());
        out.push(Output::KeepPiece(KeptPiece { height, blob, piece: number, bytes: bytes.into_vec() }));
    }

    /// All pieces are there.
    fn fetched(&mut self, fetching: Fetching, now: Now, out: &mut Vec<Output>) {
        let bytes: Vec<u8> = fetching.pieces.into_values().flatten().collect();
        let length = bytes.len();
        let (from, taken) = match fetching.goal {
            Goal::Update(announcement, from) => (from, self.take_body(from, &announcement, bytes, out)),
            Goal::State(seal, from) => {
                let taken = self.take_state(from, &seal, &bytes, now, out).map(|_| ());
                if taken.is_err() && self.fetches.liars.len() < limits::HEADS_MAX {
                    self.fetches.liars.insert(from);
                }
                (from, taken)
            }
        };
        match taken {
            Ok(()) | Err(Reason::Duplicate) => {}
            Err(reason) => {
                out.push(Output::Tell(Event::Refused { reason: reason.to_string(), from, bytes: length }));
            }
        }
    }

    fn take_body(
        &mut self,
        from: NodeId,
        announcement: &Message,
        bytes: Vec<u8>,
        out: &mut Vec<Output>,
    ) -> Result<(), Reason> {
        let (step, author, id) = (announcement.step, announcement.author(), announcement.id());
        let message = self.context.complete(announcement, bytes).inspect_err(|_| {
            self.fetches.spoiled.insert((step, author));
        })?;
        // Much may have happened since it was announced.
        self.check_window(step)?;
        match self.ledger.get(step).and_then(|set| set.get(&author)) {
            Some(Entry::Conflict(..)) if !self.sealing.wants(&id) => return Err(Reason::Duplicate),
            Some(Entry::One(first)) if first.id() == id => return Err(Reason::Duplicate),
            _ if self.sealing.holds(&id) => return Err(Reason::Duplicate),
            _ => {}
        }
        self.take_entry(from, Arc::new(message), out);
        Ok(())
    }

    /// What this node has of a blob that a peer fetches.
    pub(super) fn give_piece(&mut self, fetch: Fetch, now: Now) -> Piece {
        let Fetch { blob, piece } = fetch;
        let none = Piece { bytes: None, held: ByteBuf::new() };
        if let Some(fetching) = self.fetches.under_way.get(&blob) {
            let held: Pieces = fetching.pieces.keys().copied().collect();
            let bytes = fetching.pieces.get(&piece).map(|bytes| ByteBuf::from(bytes.clone()));
            return Piece { bytes, held: ByteBuf::from(held.as_bytes()) };
        }
        let whole = match &mut self.fetches.offer {
            Some((_, offered, asked)) if offered.digest() == blob => {
                *asked = now;
                Some(&*offered)
            }
            _ => self.ledger.body(&blob).or_else(|| {
                let aside = self.sealing.laid_aside().filter_map(|message| message.body.as_ref());
                aside.into_iter().find(|body| body.digest() == blob)
            }),
        };
        let Some(whole) = whole else { return none };
        let bytes = whole.piece(piece).map(ByteBuf::from);
        Piece { bytes, held: ByteBuf::from(Pieces::all(whole.manifest().pieces.len()).as_bytes()) }
    }
}
