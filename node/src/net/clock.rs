//! Peers' clocks against this node's own. They decide nothing; but memberships expire by the clock of whoever looks at
//! them, so owners are told where clocks differ.

use heterotune_crypto::NodeId;

/// What time it is, in seconds since 1970 (UTC).
pub type Clock = fn() -> u64;

/// Clocks that differ by more are worth a word, in seconds. A greeting may be under way for some.
const TOLERANCE_S: u64 = 60;

/// How many seconds one clock is ahead of another.
pub(super) fn ahead(theirs: u64, ours: u64) -> i64 {
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    seconds(theirs) - seconds(ours)
}

/// Whether clocks differ enough to be worth a word.
pub fn is_off(ahead: i64) -> bool {
    ahead.unsigned_abs() > TOLERANCE_S
}

/// A sentence on a peer whose clock is so many seconds ahead of this host's.
pub fn difference(peer: &NodeId, ahead: i64) -> String {
    let (seconds, peer) = (ahead.unsigned_abs(), peer.short());
    match ahead {
        0 => format!("this host's clock and that of {peer} agree"),
        1.. => format!("this host's clock is {seconds} s behind that of {peer}"),
        _ => format!("this host's clock is {seconds} s ahead of that of {peer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::Identity;

    #[test]
    fn differences_have_a_direction_and_no_lie_overflows() {
        assert_eq!((ahead(100, 40), ahead(40, 100)), (60, -60));
        assert_eq!((ahead(u64::MAX, 0), ahead(0, u64::MAX)), (i64::MAX, -i64::MAX));
        assert!(!is_off(60) && !is_off(-60) && is_off(61) && is_off(-61) && is_off(-i64::MAX));
        let peer = Identity::from_seed(1, "peer").id();
        assert!(difference(&peer, 300).contains("clock is 300 s behind that of"));
        assert!(difference(&peer, -300).contains("clock is 300 s ahead of that of"));
    }
}
