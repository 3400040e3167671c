//! Members that lie. A liar runs an honest machine and changes what goes into it and what comes out, signing with its
//! own key: whatever a member can do, short of breaking signatures.

mod seals;

use super::{tally::Traffic, trainer::generator};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    admission::Membership,
    codec::{Group, quantise},
    enrolment::Enrolment,
    limits,
    message::{Batch, Content, Context, Envelope, Head, Header, Kind as Said, Message, Step},
    round::{Contribution, Event, Now},
    seal::Value,
    wire,
};
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// How a member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // KINDS tells.
pub enum Kind {
    Equivocate,
    SignFlip,
    Scale,
    Noise,
    Tiny,
    Copy,
    Dribble,
    Half,
    Garbage,
    Replay,
    FlipHeads,
    Withhold,
    Silent,
    Clock,
    DoubleVote,
    BadProposal,
    FalseList,
    MuteSealer,
    Backup,
    Strangers,
}

impl Kind {
    /// Whether only a sealer can lie so.
    pub(super) fn is_of_sealers(self) -> bool {
        matches!(self, Kind::DoubleVote | Kind::BadProposal | Kind::FalseList | Kind::MuteSealer)
    }

    /// Whether such a member means well: what holds for honest nodes must hold for it.
    pub(super) fn is_honest(self) -> bool {
        self == Kind::Backup
    }
}

/// All kinds: their names, and what they do.
pub const KINDS: [(&str, Kind, &str); 20] = [
    ("equivocate", Kind::Equivocate, "signs two updates a round and shows each to half of its peers"),
    ("sign-flip", Kind::SignFlip, "sends its update times -10"),
    ("scale", Kind::Scale, "sends its update times 100"),
    ("noise", Kind::Noise, "sends noise, ten times an update's size"),
    ("tiny", Kind::Tiny, "sends its update times 1e-9"),
    ("copy", Kind::Copy, "sends another's update as its own"),
    ("dribble", Kind::Dribble, "sends its update in the last round in which it still counts"),
    ("half", Kind::Half, "sends its update to half of its peers, just before the deadline"),
    ("garbage", Kind::Garbage, "floods its peers with messages whose signatures are wrong"),
    ("replay", Kind::Replay, "says old messages again, with other rounds and authors"),
    ("flip-heads", Kind::FlipHeads, "signs heads with wrong digests"),
    ("withhold", Kind::Withhold, "answers pulls with half of what it has, or nothing"),
    ("silent", Kind::Silent, "says nothing, answers nothing, passes nothing on"),
    ("clock", Kind::Clock, "has a clock that is hours off, and so are its sequence numbers"),
    ("double-vote", Kind::DoubleVote, "a sealer: votes for two things at once and shows each to half of its peers"),
    ("bad-proposal", Kind::BadProposal, "a sealer: proposes wrong sets, wrong states, or two things at once"),
    ("false-list", Kind::FalseList, "a sealer: lists half of what it holds, and what nobody holds"),
    ("mute-sealer", Kind::MuteSealer, "a sealer: contributes, but has no part in seals"),
    ("backup", Kind::Backup, "is honest, but now and then starts again from an old copy of its disk"),
    ("strangers", Kind::Strangers, "floods its peers with enrolments of strangers that it makes up"),
];

/// Messages that a liar remembers to say again.
const HEARD_MAX: usize = 32;

/// Forged messages a tick.
const FLOOD: usize = 4;

/// Strangers a tick.
const STRANGERS: usize = 16;

/// How far a liar's clock is off at most, in hours.
pub(super) const CLOCK_HOURS: f64 = 12.0;

/// Something a node says, and to whom.
pub(super) struct Whisper {
    pub(super) bytes: Vec<u8>,
    pub(super) traffic: Traffic,
    pub(super) to: Audience,
}

impl Whisper {
    /// A message, as honest nodes say it.
    pub(super) fn of(message: &Message, to: Audience) -> Self {
        let traffic = match message.kind {
            Said::Head => Traffic::Heads,
            Said::List | Said::Proposal | Said::Vote => Traffic::Seals,
            Said::Kernels | Said::Statistics | Said::Update | Said::Enrolment => Traffic::Contributions,
        };
        Self { bytes: message.bytes.clone(), traffic, to }
    }

    fn raw(bytes: Vec<u8>) -> Self {
        Self { bytes, traffic: Traffic::Lies, to: Audience::All }
    }
}

/// A node's peers, all or half of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    All,
    Even,
    Odd,
}

impl Audience {
    pub(super) fn includes(self, peer: u32) -> bool {
        match self {
            Audience::All => true,
            Audience::Even => peer.is_multiple_of(2),
            Audience::Odd => !peer.is_multiple_of(2),
        }
    }
}

/// A lying member.
pub(super) struct Liar {
    kind: Kind,
    identity: Identity,
    context: Arc<Context>,
    draws: ChaCha8Rng,
    /// Since when its round is open.
    opened_at: Now,
    /// Updates that it has not sent yet.
    held: Vec<Arc<Message>>,
    /// Where its round is, and how many strangers it has made up.
    open: Option<(Digest, Step)>,
    strangers: u64,
    /// What it last saw to be sealed.
    seen: Option<Value>,
    heard: Vec<Vec<u8>>,
}

impl Liar {
    pub(super) fn new(kind: Kind, identity: Identity, context: Arc<Context>, seed: u64, node: u32) -> Self {
        let draws = generator(seed, &[node.into(), 4]);
        let (held, open, seen, heard) = (Vec::new(), None, None, Vec::new());
        Self { kind, identity, context, draws, opened_at: 0, held, open, strangers: 0, seen, heard }
    }

    /// How it lies.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it passes others' messages on.
    pub(super) fn passes_on(&self) -> bool {
        self.kind != Kind::Silent
    }

    /// Hears a message.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        if !matches!(self.kind, Kind::Copy | Kind::Garbage | Kind::Replay) {
            return;
        }
        if self.heard.len() < HEARD_MAX {
            self.heard.push(bytes.to_vec());
        } else {
            let at = self.draws.random_range(0..HEARD_MAX as u32) as usize;
            self.heard[at] = bytes.to_vec();
        }
    }

    /// Changes what its trainer has made.
    pub(super) fn bend(&mut self, contribution: &mut Contribution) {
        let Contribution::Update { round, groups } = contribution else { return };
        let factor = match self.kind {
            Kind::SignFlip => -10.0,
            Kind::Scale => 100.0,
            Kind::Tiny => 1e-9,
            Kind::Noise => 0.0,
            Kind::Copy => {
                if let Some(others) = self.another(*round) {
                    *groups = others;
                }
                return;
            }
            _ => return,
        };
        for group in groups {
            let noise =
                |draws: &mut ChaCha8Rng| if self.kind == Kind::Noise { draws.random_range(-2.0..2.0) } else { 0.0 };
            let values: Vec<f32> =
                group.view().into_iter().map(|value| value * factor + noise(&mut self.draws)).collect();
            *group = quantise(&self.context.charter.codec, &values);
        }
    }

    /// Another's update of a round.
    fn another(&self, round: u64) -> Option<Vec<Group>> {
        self.heard.iter().find_map(|bytes| {
            let opened = self.context.open_or_recall(bytes).ok()?;
            let Header { kind, step, .. } = opened.header();
            let message = self.context.verify_opened(opened, bytes).ok()?;
            match message.signed.value() {
                Content::Update(groups) if kind == Said::Update && step == Step::Round(round) => Some(groups.clone()),
                _ => None,
            }
        })
    }

    /// Sees what its own machine tells. A round that opens makes a dribbler send what is about to be void.
    pub(super) fn see(&mut self, event: &Event, now: Now) -> Vec<Whisper> {
        let Event::RoundOpened { round: open } = event else { return Vec::new() };
        self.opened_at = now;
        let horizon = u64::from(self.context.charter.rounds.horizon);
        let due = |message: &Arc<Message>| message.step.round() + horizon <= *open;
        if self.kind == Kind::Dribble { self.release(due, Audience::All) } else { Vec::new() }
    }

    /// Time has passed; the next tick comes at `next`.
    pub(super) fn tick(&mut self, next: Now) -> Vec<Whisper> {
        match self.kind {
            Kind::Half if next >= self.opened_at + self.context.charter.rounds.deadline_ms => {
                self.release(|_| true, Audience::Even)
            }
            Kind::Garbage => (0..FLOOD).filter_map(|_| self.forge()).collect(),
            Kind::Replay => self.replay().into_iter().collect(),
            Kind::Strangers => (0..STRANGERS).filter_map(|_| self.make_up()).collect(),
            _ => Vec::new(),
        }
    }

    fn release(&mut self, due: impl Fn(&Arc<Message>) -> bool, to: Audience) -> Vec<Whisper> {
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(due);
        self.held = held;
        due.into_iter().map(|message| Whisper::of(&message, to)).collect()
    }

    /// What it says instead of `message`.
    pub(super) fn say(&mut self, message: Arc<Message>) -> Vec<Whisper> {
        if message.kind == Said::Head {
            self.open = Some((message.genesis, message.step));
        }
        if let Some(lie) = self.say_of_seals(&message) {
            return lie;
        }
        match (self.kind, message.signed.value()) {
            (Kind::Silent, _) => Vec::new(),
            (Kind::Equivocate, Content::Update(groups)) => {
                let mut groups = groups.clone();
                for group in &mut groups {
                    let other = |mantissa: i32| if mantissa == 0 { 1 } else { -mantissa };
                    group.mantissas = group.mantissas.iter().map(other).collect();
                }
                let other = self.sign(&message, Content::Update(groups));
                let pair =
                    other.map(|other| [Whisper::of(&message, Audience::Even), Whisper::of(&other, Audience::Odd)]);
                pair.into_iter().flatten().collect()
            }
            (Kind::Dribble | Kind::Half, Content::Update(_)) => {
                self.held.push(message);
                Vec::new()
            }
            (Kind::FlipHeads, Content::Head(head)) => {
                let wrong = Digest::of("heterotune 2026 world lie", &[head.sets.as_bytes()]);
                let head = Head { unsealed: head.unsealed, sets: wrong, state: wrong };
                self.sign(&message, Content::Head(head)).iter().map(|lie| Whisper::of(lie, Audience::All)).collect()
            }
            _ => vec![Whisper::of(&message, Audience::All)],
        }
    }

    /// Signs other content in the place of `message`.
    fn sign(&self, message: &Message, content: Content) -> Option<Message> {
        self.context.say(&self.identity, message.genesis, message.step, message.sequence + 1, content).ok()
    }

    /// What it answers instead of `batch`, if anything.
    pub(super) fn answer(&mut self, mut batch: Batch) -> Option<Batch> {
        match self.kind {
            Kind::Silent => return None,
            Kind::Withhold => {
                let kept = if self.draws.random_bool(0.5) { batch.messages.len() / 2 } else { 0 };
                batch.messages.truncate(kept);
                batch.more = false;
            }
            // What it does not say it does not answer either.
            _ => batch.messages.retain(|bytes| !self.hides(bytes)),
        }
        Some(batch)
    }

    /// Whether this is something of its own that it keeps to itself.
    fn hides(&self, bytes: &[u8]) -> bool {
        let holds_back = matches!(self.kind, Kind::Dribble | Kind::Half);
        if !holds_back && !self.kind.is_of_sealers() {
            return false;
        }
        let Ok(opened) = self.context.open_or_recall(bytes) else { return false };
        let Header { kind, author, id, .. } = opened.header();
        author == self.identity.id()
            && if holds_back { self.held.iter().any(|held| held.id() == id) } else { !kind.is_entry() }
    }

    /// A stranger's enrolment in the open round: with no invitation, or one that the liar has written.
    fn make_up(&mut self) -> Option<Whisper> {
        let (genesis, step) = self.open?;
        self.strangers += 1;
        let name = format!("stranger {} of {}", self.strangers, self.identity.id());
        let stranger = Identity::from_seed(0, &name);
        let invitation = Membership::sign(&self.identity, &self.context.network, stranger.id(), u64::MAX).ok();
        let membership = invitation.filter(|_| self.strangers.is_multiple_of(2));
        let content = Content::Enrolment(Enrolment { membership });
        Some(Whisper::raw(self.context.say(&stranger, genesis, step, 1, content).ok()?.bytes))
    }

    fn remembered(&mut self) -> Option<Vec<u8>> {
        let at = self.draws.random_range(0..HEARD_MAX as u32) as usize;
        self.heard.get(at % self.heard.len().max(1)).cloned()
    }

    /// A message that looks valid up to its signature.
    fn forge(&mut self) -> Option<Whisper> {
        let bytes = self.remembered()?;
        let mut envelope: Envelope = wire::decode(&bytes, limits::MESSAGE_BYTES_MAX).ok()?;
        envelope.sequence = envelope.sequence.wrapping_add(1);
        self.draws.fill_bytes(&mut envelope.signature);
        self.draws.fill_bytes(&mut envelope.payload);
        Some(Whisper::raw(wire::encode(&envelope, limits::MESSAGE_BYTES_MAX).ok()?))
    }

    /// An old message, as it was or with another round or author.
    fn replay(&mut self) -> Option<Whisper> {
        let bytes = self.remembered()?;
        let mut envelope: Envelope = wire::decode(&bytes, limits::MESSAGE_BYTES_MAX).ok()?;
        match self.draws.random_range(0..3u32) {
            0 => {}
            1 => envelope.step = envelope.step.next(),
            _ => envelope.author = self.identity.id(),
        }
        Some(Whisper::raw(wire::encode(&envelope, limits::MESSAGE_BYTES_MAX).ok()?))
    }
}
