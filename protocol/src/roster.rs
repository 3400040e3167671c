//! Who contributes to a round: a function of the charter and of the state sealed before the horizon.

use crate::{memo::Memo, message::Context, round::Checkpoint};
use heterotune_crypto::{Digest, Hasher, NodeId};
use std::{collections::BTreeSet, sync::Arc};

/// The contributors to `round`, as far as `newest`, a sealed state, and its `digest` tell: none where it is too old.
///
/// The roster is all members but those whose contradictions were sealed before the horizon. Where it is larger than
/// the charter's `contributors`, each round's are drawn by the digest of the state before the horizon (the genesis id
/// in the first rounds), which nobody could choose.
pub fn contributors(
    context: &Context,
    newest: &Checkpoint,
    digest: Digest,
    round: u64,
) -> Option<Arc<BTreeSet<NodeId>>> {
    let horizon = u64::from(context.charter.rounds.horizon);
    let known_at = round.saturating_sub(horizon);
    let seed = if known_at <= 1 {
        newest.genesis
    } else if known_at == newest.round {
        digest
    } else {
        let back = usize::try_from(newest.round.checked_sub(known_at)?).ok()?;
        *newest.past.get(back.checked_sub(1)?)?
    };
    let banned: Vec<_> =
        newest.banned.iter().filter(|(_, since)| **since < known_at).map(|(member, _)| *member).collect();
    let mut key = Hasher::new("heterotune 2026 contributors");
    key.part(seed.as_bytes());
    key.part(&round.to_le_bytes());
    banned.iter().for_each(|member| key.part(member.as_bytes()));
    let draw = || {
        let roster = context.members.iter().filter(|member| !banned.contains(member));
        let rank = |member: &NodeId| {
            let parts: [&[u8]; 3] = [seed.as_bytes(), &round.to_le_bytes(), member.as_bytes()];
            Digest::of("heterotune 2026 contributor", &parts)
        };
        let most = usize::from(context.charter.rounds.contributors);
        if context.members.len().saturating_sub(banned.len()) <= most {
            return roster.copied().collect();
        }
        let mut ranked: Vec<_> = roster.map(|member| (rank(member), *member)).collect();
        ranked.sort();
        ranked.into_iter().take(most).map(|(_, member)| member).collect()
    };
    Some(Memo::drawn(context.memo.as_ref(), key.finish(), draw))
}
