//! One height of Tendermint's algorithm, by the Malachite engine's state machine and vote keeper. They are pure: no
//! clock, socket or thread; here they get our types, our timeouts, and inputs they can't choke on.

use super::{
    Ballot, Certificate, Stage, Value, Vote,
    heights::{Address, Ballotted, Height, Heights, Mark, Proposal, Sealer, Sealers},
    proposer,
};
use crate::{limits, message::Step, round::Now};
use heterotune_crypto::{Digest, NodeId};
use malachitebft_core_driver::{Driver, Input, Output, ThresholdParams};
use malachitebft_core_types as bft;
use malachitebft_core_types::{NilOrVal, Proposal as _, Round, Timeout, TimeoutKind, Validity, VoteType};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What the engine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sign and send this vote.
    Vote(Vote),
    /// This node is the view's proposer: find a value, and call [`Engine::propose`].
    Find {
        /// The view.
        view: u32,
    },
    /// Propose this in the view.
    Propose {
        /// The view.
        view: u32,
        /// What.
        value: Value,
        /// The prevotes of an earlier view for it.
        polka: Option<Certificate>,
    },
    /// A new view has begun.
    Entered {
        /// Which.
        view: u32,
    },
}

/// A height in progress, as one sealer sees it.
pub struct Engine {
    driver: Driver<Heights>,
    genesis: Digest,
    step: Step,
    sealers: Vec<NodeId>,
    /// How long the first view waits for its proposal, in ms.
    patience_ms: u64,
    timers: BTreeMap<(u8, u32), Now>,
    /// Views beyond the current one that a sealer's votes were taken for.
    ahead: BTreeMap<NodeId, BTreeSet<u32>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("step", &self.step).field("view", &self.view()).finish_non_exhaustive()
    }
}

impl Engine {
    /// The engine of `me`, a sealer, for one step. Call [`Engine::start`] next.
    pub fn new(genesis: Digest, step: Step, sealers: &[NodeId], me: NodeId, patience_ms: u64) -> Self {
        let set = Sealers(sealers.iter().map(|sealer| Sealer(Address(*sealer))).collect());
        let height = Height(step.height());
        let driver = Driver::new(Heights, height, set, Address(me), ThresholdParams::default());
        let (sealers, timers, ahead) = (sealers.to_vec(), BTreeMap::new(), BTreeMap::new());
        Self { driver, genesis, step, sealers, patience_ms, timers, ahead }
    }

    /// The step that it seals.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The current view.
    pub fn view(&self) -> u32 {
        self.driver.round().as_u32().unwrap_or(0)
    }

    /// What it would propose again: the last value that it has seen a quorum prevote for.
    pub fn valid(&self) -> Option<Value> {
        self.driver.valid_value().map(|valid| valid.value)
    }

    /// Enters view 0.
    pub fn start(&mut self, now: Now) -> Vec<Act> {
        self.enter(0, now)
    }

    fn enter(&mut self, view: u32, now: Now) -> Vec<Act> {
        let Some(leader) = proposer(&self.genesis, self.step, view, &self.sealers) else { return Vec::new() };
        self.timers.clear();
        self.ahead.values_mut().for_each(|views| views.retain(|ahead| *ahead > view));
        let mut acts = vec![Act::Entered { view }];
        let height = Height(self.step.height());
        acts.extend(self.process(Input::NewRound(height, Round::new(view), Address(leader)), now));
        acts
    }

    /// Proposes what [`Act::Find`] asked for, unless its view is over.
    pub fn propose(&mut self, view: u32, value: Value, now: Now) -> Vec<Act> {
        let mine = self.driver.proposer_address() == Some(self.driver.address());
        if view != self.view() || !mine || !self.driver.step_is_propose() {
            return Vec::new();
        }
        self.process(Input::ProposeValue(Round::new(view), value), now)
    }

    /// Takes a proposal of the view's proposer, recomputed (`valid`) or found wrong. The caller has checked its author,
    /// and the signatures of its proof.
    pub fn proposed(
        &mut self,
        view: u32,
        value: Value,
        polka: Option<&Certificate>,
        valid: bool,
        now: Now,
    ) -> Vec<Act> {
        let Some(leader) = proposer(&self.genesis, self.step, view, &self.sealers) else { return Vec::new() };
        let mut acts = Vec::new();
        let mut earlier = Round::Nil;
        if let Some(polka) = polka {
            earlier = Round::new(polka.view);
            acts = self.process(Input::PolkaCertificate(certificate(self.step, polka)), now);
        }
        let proposal = Proposal {
            height: Height(self.step.height()),
            view: Round::new(view),
            value,
            earlier,
            leader: Address(leader),
        };
        let signed = bft::SignedMessage::new(proposal, Mark::default());
        acts.extend(self.process(Input::Proposal(signed, Validity::from_bool(valid)), now));
        acts
    }

    /// Takes a sealer's verified vote; one's own, too.
    pub fn voted(&mut self, vote: &Vote, ballot: &Ballot, now: Now) -> Vec<Act> {
        if vote.view > self.view() {
            let views = self.ahead.entry(ballot.sealer).or_default();
            // A liar may vote in as many views as it likes; each costs memory.
            if !views.contains(&vote.view) && views.len() >= limits::VIEWS_AHEAD_MAX {
                return Vec::new();
            }
            views.insert(vote.view);
        }
        let vote = Ballotted {
            height: Height(self.step.height()),
            view: Round::new(vote.view),
            value: vote.value.map_or(NilOrVal::Nil, NilOrVal::Val),
            stage: match vote.stage {
                Stage::Prevote => VoteType::Prevote,
                Stage::Precommit => VoteType::Precommit,
            },
            sealer: Address(ballot.sealer),
        };
        let mark = Mark { sequence: ballot.sequence, signature: ballot.signature.to_vec() };
        self.process(Input::Vote(bft::SignedMessage::new(vote, mark)), now)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Now) -> Vec<Act> {
        let due: Vec<_> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer).collect();
        let mut acts = Vec::new();
        for timer in due {
            self.timers.remove(&timer);
            let kind = match timer.0 {
                0 => TimeoutKind::Propose,
                1 => TimeoutKind::Prevote,
                _ => TimeoutKind::Precommit,
            };
            acts.extend(self.process(Input::TimeoutElapsed(Timeout::new(Round::new(timer.1), kind)), now));
        }
        acts
    }

    fn process(&mut self, input: Input<Heights>, now: Now) -> Vec<Act> {
        // The driver refuses only what is of another height or sealer, which is never given to it.
        let outputs = self.driver.process(input).unwrap_or_default();
        let mut acts = Vec::new();
        for output in outputs {
            match output {
                Output::NewRound(_, round) => acts.extend(self.enter(round.as_u32().unwrap_or(0), now)),
                Output::Vote(vote) => acts.push(Act::Vote(Vote {
                    view: vote.view.as_u32().unwrap_or(0),
                    stage: match vote.stage {
                        VoteType::Prevote => Stage::Prevote,
                        VoteType::Precommit => Stage::Precommit,
                    },
                    value: match vote.value {
                        NilOrVal::Nil => None,
                        NilOrVal::Val(value) => Some(value),
                    },
                })),
                Output::Propose(proposal) => acts.push(self.propose_again(&proposal)),
                Output::GetValue(_, round, _) => acts.push(Act::Find { view: round.as_u32().unwrap_or(0) }),
                Output::ScheduleTimeout(timeout) => self.schedule(timeout, now),
                // Whoever sees a quorum of precommits knows the decision, sealer or not: it is counted from the votes.
                Output::Decide(..) => {}
            }
        }
        acts
    }

    fn propose_again(&self, proposal: &Proposal) -> Act {
        let polka = self.driver.polka_certificate(proposal.pol_round(), &proposal.value);
        let ballots = |polka: &bft::PolkaCertificate<Heights>| {
            let ballot = |vote: &bft::PolkaSignature<Heights>| {
                let signature = vote.signature.signature.as_slice().try_into().ok()?;
                Some(Ballot { sealer: vote.address.0, sequence: vote.signature.sequence, signature })
            };
            polka.polka_signatures.iter().filter_map(ballot).collect()
        };
        let polka = polka.map(|polka| Certificate {
            view: polka.round.as_u32().unwrap_or(0),
            stage: Stage::Prevote,
            value: polka.value_id,
            ballots: ballots(polka),
        });
        Act::Propose { view: proposal.view.as_u32().unwrap_or(0), value: proposal.value, polka }
    }

    /// Each view waits longer than the one before, so that in the end all are in one view for long enough.
    fn schedule(&mut self, timeout: Timeout, now: Now) {
        let view = timeout.round.as_u32().unwrap_or(0);
        let (kind, base) = match timeout.kind {
            TimeoutKind::Propose => (0, self.patience_ms),
            TimeoutKind::Prevote => (1, self.patience_ms / 3),
            TimeoutKind::Precommit => (2, self.patience_ms / 3),
            TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return,
        };
        let longer = (self.patience_ms / 3).saturating_mul(view.into());
        let wait = base.saturating_add(longer).min(limits::VIEW_MS_MAX.max(base));
        self.timers.insert((kind, view), now.saturating_add(wait));
    }
}

fn certificate(step: Step, polka: &Certificate) -> bft::PolkaCertificate<Heights> {
    let signature = |ballot: &Ballot| {
        let mark = Mark { sequence: ballot.sequence, signature: ballot.signature.to_vec() };
        bft::PolkaSignature::new(Address(ballot.sealer), mark)
    };
    bft::PolkaCertificate {
        height: Height(step.height()),
        round: Round::new(polka.view),
        value_id: polka.value,
        polka_signatures: polka.ballots.iter().map(signature).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::identity;

    /// Votes in as many views as one likes are taken for so many; those of the current view always.
    #[test]
    fn votes_far_ahead_take_little_room() {
        let sealers: Vec<_> = (0..4).map(|index| identity(index).id()).collect();
        let mut engine = Engine::new(Digest::ZERO, Step::Round(1), &sealers, sealers[0], 1_000);
        engine.start(0);
        let mut votes = |sealer: usize, view| {
            for stage in [Stage::Prevote, Stage::Precommit] {
                let ballot = Ballot { sealer: sealers[sealer], sequence: 1, signature: [0; 64] };
                engine.voted(&Vote { view, stage, value: None }, &ballot, 0);
            }
            (engine.driver.votes().rounds(), engine.view())
        };
        let kept = (1..=1_000).map(|view| votes(3, view)).last();
        assert_eq!(kept, Some((limits::VIEWS_AHEAD_MAX, 0)));
        // It shuts nobody out: one other with it is not enough to go on, and three without it are.
        assert_eq!(votes(1, 1_000).1, 0);
        assert_eq!((votes(1, 0).1, votes(2, 0).1), (0, 0));
        assert_eq!(votes(3, 0).0, limits::VIEWS_AHEAD_MAX + 2);
    }
}
