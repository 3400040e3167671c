//! Seals: how the sealers agree, once and for all, on the updates of a step and the state they make.
//!
//! Each sealer says which updates it holds ([`List`]). A proposer takes the lists of a quorum, *computes* the set from
//! them ([`supported`]) and the state from the set, and proposes both ([`Proposal`]). A sealer votes for what it has
//! recomputed, bit for bit. The votes of a quorum make a [`Certificate`], and that makes a [`Seal`].
//!
//! Who votes what, when, is Tendermint's algorithm ([Buchman, Kwon and Milosevic 2018](https://arxiv.org/abs/1807.04938)),
//! one height a step, run by the state machine of the Malachite engine ([`Engine`]).

mod engine;
mod heights;

pub use engine::{Act, Engine};

use crate::{limits, message::Step, verdict::Reason};
use heterotune_crypto::{Digest, Hasher, NodeId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::{collections::BTreeMap, fmt};

/// How many of `sealers` seal: more than two thirds.
pub fn quorum(sealers: usize) -> usize {
    sealers * 2 / 3 + 1
}

/// How many of `sealers` may lie or be away.
pub fn faults(sealers: usize) -> usize {
    sealers.saturating_sub(1) / 3
}

/// Who proposes in a step's `view`: the sealers take turns, in an order drawn for the step.
pub fn proposer(genesis: &Digest, step: Step, view: u32, sealers: &[NodeId]) -> Option<NodeId> {
    let rank = |sealer: &NodeId| {
        let parts: [&[u8]; 3] = [genesis.as_bytes(), &step.height().to_le_bytes(), sealer.as_bytes()];
        Digest::of("heterotune 2026 proposer", &parts)
    };
    let mut ranked: Vec<NodeId> = sealers.to_vec();
    ranked.sort_by_key(rank);
    let turn = usize::try_from(view).ok()?.checked_rem(ranked.len())?;
    ranked.get(turn).copied()
}

/// The digest of a set of messages, by their sorted ids.
pub fn set_digest(ids: &[Digest]) -> Digest {
    let mut hasher = Hasher::new("heterotune 2026 sealed set");
    ids.iter().for_each(|id| hasher.part(id.as_bytes()));
    hasher.finish()
}

/// The set that lists compute: the ids that at least `faults + 1` of them name, so that every one of them has an
/// honest holder, and nothing that all honest sealers hold is left out of a quorum's lists.
pub fn supported<'a>(lists: impl Iterator<Item = &'a List>, faults: usize) -> Vec<Digest> {
    let mut support: BTreeMap<Digest, usize> = BTreeMap::new();
    for list in lists {
        list.ids.iter().for_each(|id| *support.entry(*id).or_default() += 1);
    }
    support.into_iter().filter(|(_, count)| *count > faults).map(|(id, _)| id).collect()
}

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// The digest of the step's set ([`set_digest`]).
    pub set: Digest,
    /// The digest of what the set makes: the reference, the first mixture, or a round's state.
    pub state: Digest,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.set, self.state)
    }
}

/// Which of the two votes of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// "I have recomputed this proposal."
    Prevote,
    /// "A quorum has."
    Precommit,
}

/// A sealer's vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The view, from 0.
    pub view: u32,
    /// Which vote.
    pub stage: Stage,
    /// For what; `None` votes for going on to the next view.
    pub value: Option<Value>,
}

impl Vote {
    pub(crate) fn check(&self) -> Result<(), Reason> {
        check_view(self.view)
    }
}

fn check_view(view: u32) -> Result<(), Reason> {
    if view > limits::VIEW_MAX { Err(Reason::Seal { what: "a view beyond all views" }) } else { Ok(()) }
}

/// A sealer's vote within a certificate: what its envelope added to the vote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// Who voted.
    pub sealer: NodeId,
    /// The vote's sequence number.
    pub sequence: u64,
    /// The vote's signature.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

/// The same vote by a quorum of sealers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The votes' view.
    pub view: u32,
    /// The votes' stage.
    pub stage: Stage,
    /// What they are for.
    pub value: Value,
    /// One a sealer.
    pub ballots: Vec<Ballot>,
}

impl Certificate {
    fn check(&self) -> Result<(), Reason> {
        check_view(self.view)?;
        if self.ballots.len() > limits::SEALERS_MAX {
            return Err(Reason::Seal { what: "more ballots than sealers" });
        }
        Ok(())
    }
}

/// What a sealer holds of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The ids, sorted. Of an author who has said two things, both.
    pub ids: Vec<Digest>,
}

impl List {
    pub(crate) fn check(&self) -> Result<(), Reason> {
        check_ids(&self.ids, limits::IDS_MAX)
    }
}

fn check_ids(ids: &[Digest], most: usize) -> Result<(), Reason> {
    if ids.len() > most {
        return Err(Reason::Seal { what: "more ids than contributors can have" });
    }
    if !ids.is_sorted_by(|a, b| a < b) {
        return Err(Reason::Seal { what: "ids that are not in order" });
    }
    Ok(())
}

/// What a proposer wants to seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The view that it is proposed in.
    pub view: u32,
    /// What it proposes.
    pub value: Value,
    /// Where it proposes again what an earlier view has prevoted for: those votes.
    pub polka: Option<Certificate>,
    /// The lists, as their sealers have signed them, from which the set is computed.
    pub lists: Vec<ByteBuf>,
}

impl Proposal {
    pub(crate) fn check(&self) -> Result<(), Reason> {
        check_view(self.view)?;
        if self.lists.len() > limits::SEALERS_MAX {
            return Err(Reason::Seal { what: "more lists than sealers" });
        }
        match &self.polka {
            Some(polka) if polka.stage != Stage::Prevote || polka.view >= self.view || polka.value != self.value => {
                Err(Reason::Seal { what: "a proof of other votes" })
            }
            Some(polka) => polka.check(),
            None => Ok(()),
        }
    }
}

/// The sealers' certificate that a step is exactly this set, and makes this state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The step.
    pub step: Step,
    /// The set: the messages' ids, sorted.
    pub ids: Vec<Digest>,
    /// The precommits of a quorum.
    pub certificate: Certificate,
}

impl Seal {
    /// What is sealed.
    pub fn value(&self) -> Value {
        self.certificate.value
    }

    /// Checks everything but the signatures.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), Reason> {
        check_ids(&self.ids, limits::SEALED_IDS_MAX)?;
        self.certificate.check()?;
        if self.certificate.stage != Stage::Precommit || set_digest(&self.ids) != self.certificate.value.set {
            return Err(Reason::Seal { what: "a seal of another set" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::identity;

    fn id(name: &str) -> Digest {
        Digest::of("test", &[name.as_bytes()])
    }

    #[test]
    fn quorums_are_more_than_two_thirds() {
        let table: Vec<_> = [1, 2, 3, 4, 6, 7, 8, 31].map(|n| (n, quorum(n), faults(n))).into();
        assert_eq!(table, [(1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 3, 1), (6, 5, 1), (7, 5, 2), (8, 6, 2), (31, 21, 10)]);
    }

    #[test]
    fn what_one_more_than_the_liars_name_is_in() {
        let list = |names: &[&str]| List { ids: names.iter().map(|name| id(name)).collect() };
        let lists = [list(&["a", "b"]), list(&["a", "c"]), list(&["a", "b"])];
        let mut expected = vec![id("a"), id("b")];
        expected.sort();
        assert_eq!(supported(lists.iter(), 1), expected);
        assert_eq!(supported(lists.iter(), 2), [id("a")]);
    }

    #[test]
    fn all_sealers_take_their_turn() {
        let sealers: Vec<_> = (0..5).map(|index| identity(index).id()).collect();
        let turn = |step, view| proposer(&id("genesis"), step, view, &sealers).unwrap();
        let mut turns: Vec<_> = (0..5).map(|view| turn(Step::Round(3), view)).collect();
        assert_eq!(turn(Step::Round(3), 5), turns[0]);
        turns.sort();
        let mut all = sealers.clone();
        all.sort();
        assert_eq!(turns, all);
        assert!((1..20).any(|round| turn(Step::Round(round), 0) != turn(Step::Round(0), 0)));
        assert_eq!(proposer(&id("genesis"), Step::Kernels, 0, &[]), None);
    }
}
