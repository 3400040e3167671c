//! Lies of sealers: about what they hold, what is to be sealed, and what they vote for.

use super::{Audience, Kind, Liar, Whisper};
use heterotune_crypto::Digest;
use heterotune_protocol::{
    message::{Content, Message},
    seal::{List, Proposal, Value, Vote, quorum},
};
use rand::Rng;
use std::sync::Arc;

/// A digest of nothing that there is.
fn invented(from: &Digest) -> Digest {
    Digest::of("heterotune 2026 world lie", &[from.as_bytes()])
}

impl Liar {
    /// What it says instead of a list, proposal or vote; none where it does not lie about such a thing.
    pub(super) fn say_of_seals(&mut self, message: &Arc<Message>) -> Option<Vec<Whisper>> {
        let lie = match (self.kind, message.signed.value()) {
            (Kind::MuteSealer, Content::List(_) | Content::Proposal(_) | Content::Vote(_)) => Vec::new(),
            (Kind::DoubleVote, Content::Vote(vote)) => self.double(message, vote),
            (Kind::DoubleVote, Content::Proposal(proposal)) => {
                self.seen = Some(proposal.value);
                return None;
            }
            (Kind::BadProposal, Content::Proposal(proposal)) => self.misfuse(message, proposal.clone()),
            (Kind::FalseList, Content::List(list)) => self.say_other(message, Content::List(self.miscount(list))),
            _ => return None,
        };
        Some(lie)
    }

    fn say_other(&self, message: &Message, content: Content) -> Vec<Whisper> {
        self.sign(message, content).iter().map(|lie| Whisper::of(lie, Audience::All)).collect()
    }

    /// The vote for half of its peers, and for the other half one for going on, or for what it last voted for.
    fn double(&mut self, message: &Message, vote: &Vote) -> Vec<Whisper> {
        let other = match vote.value {
            Some(value) => {
                self.seen = Some(value);
                None
            }
            None => self.seen.or_else(|| {
                let digest = invented(&message.id());
                Some(Value { set: digest, state: digest })
            }),
        };
        let other = self.sign(message, Content::Vote(Vote { value: other, ..vote.clone() }));
        let mut said = vec![Whisper::of(message, Audience::Even)];
        said.extend(other.iter().map(|other| Whisper::of(other, Audience::Odd)));
        said
    }

    /// Another set than the lists compute, another state than the set makes, too few lists, or two proposals.
    fn misfuse(&mut self, message: &Message, mut proposal: Proposal) -> Vec<Whisper> {
        let Value { set, state } = proposal.value;
        proposal.polka = None;
        let which = self.draws.random_range(0..4u32);
        match which {
            0 => proposal.value.set = invented(&set),
            1 => proposal.lists.truncate(quorum(self.context.charter.sealers.len()) - 1),
            _ => proposal.value.state = invented(&state),
        }
        let mut said = self.say_other(message, Content::Proposal(proposal));
        if which == 3 {
            said.iter_mut().for_each(|lie| lie.to = Audience::Even);
            said.push(Whisper::of(message, Audience::Odd));
        }
        said
    }

    /// Without half of what it holds, and with as much that there is not.
    fn miscount(&self, list: &List) -> List {
        let mut ids: Vec<_> =
            list.ids.iter().enumerate().map(|(at, id)| if at % 2 == 0 { *id } else { invented(id) }).collect();
        ids.sort();
        List { ids }
    }
}
