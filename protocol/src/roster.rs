//! Who contributes to a round: a function of the charter and of the state sealed before the horizon.

use crate::{memo::Memo, message::Context, round::Checkpoint};
use heterotune_crypto::{Digest, Hasher, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The state that decides who is on a round's roster: the one before this round.
fn known_at(context: &Context, round: u64) -> u64 {
    round.saturating_sub(u64::from(context.charter.rounds.horizon))
}

/// Whether `node` is a member early enough to be on the roster of `round`, banned or not. `newest` is a sealed state that
/// is new enough for [`contributors`].
pub fn is_on(context: &Context, newest: &Checkpoint, round: u64, node: &NodeId) -> bool {
    let in_time = |since: &u64| *since < known_at(context, round);
    context.members.contains(node) || newest.enrolled.get(node).is_some_and(in_time)
}

/// The contributors to `round`, as far as `newest`, a sealed state, and its `digest` tell: none where it is too old.
///
/// The roster is the charter's members and those enrolled before the horizon, but for those whose contradictions were
/// sealed before it. Where it is larger than the charter's `contributors`, each round's are drawn by the digest of the
/// state before the horizon (the genesis id in the first rounds), which nobody could choose: first of the charter's
/// members, then of the others.
pub fn contributors(
    context: &Context,
    newest: &Checkpoint,
    digest: Digest,
    round: u64,
) -> Option<Arc<BTreeSet<NodeId>>> {
    let known_at = known_at(context, round);
    let seed = if known_at <= 1 {
        newest.genesis
    } else if known_at == newest.round {
        digest
    } else {
        let back = usize::try_from(newest.round.checked_sub(known_at)?).ok()?;
        *newest.past.get(back.checked_sub(1)?)?
    };
    let known = |members: &BTreeMap<NodeId, u64>| -> BTreeSet<NodeId> {
        members.iter().filter(|(_, since)| **since < known_at).map(|(member, _)| *member).collect()
    };
    let (enrolled, banned) = (known(&newest.enrolled), known(&newest.banned));
    let mut key = Hasher::new("heterotune 2026 contributors");
    key.part(seed.as_bytes());
    key.part(&round.to_le_bytes());
    enrolled.iter().for_each(|member| key.part(member.as_bytes()));
    key.part(b"banned");
    banned.iter().for_each(|member| key.part(member.as_bytes()));
    let draw = || {
        let all = context.members.iter().chain(&enrolled);
        let roster: Vec<NodeId> = all.filter(|member| !banned.contains(member)).copied().collect();
        let rank = |member: &NodeId| {
            let parts: [&[u8]; 3] = [seed.as_bytes(), &round.to_le_bytes(), member.as_bytes()];
            Digest::of("heterotune 2026 contributor", &parts)
        };
        let most = usize::from(context.charter.rounds.contributors);
        if roster.len() <= most {
            return roster.into_iter().collect();
        }
        // Newcomers that fall silent must not keep the charter's members from making a quorum.
        let came_later = |member: &NodeId| !context.members.contains(member);
        let mut ranked: Vec<_> =
            roster.into_iter().map(|member| (came_later(&member), rank(&member), member)).collect();
        ranked.sort();
        ranked.into_iter().take(most).map(|(_, _, member)| member).collect()
    };
    Some(Memo::drawn(context.memo.as_ref(), key.finish(), draw))
}
