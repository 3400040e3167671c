//! What has been told of whom lately, so that who calls again and again in vain does not fill the log.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// After so long the same is worth telling again.
const AGAIN_AFTER: Duration = Duration::from_secs(3_600);

/// Sentences at most in that time. A crowd of strangers is told of by those that came first.
const SENTENCES_MAX: usize = 256;

/// What has been told, by whom it is about and what it says, and when.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(String, String), Instant>);

impl Told {
    /// Notes that `sentence` is said of `whom`. Whether it is to be told: it has not been for an hour.
    pub(super) fn is_news(&mut self, whom: &impl ToString, sentence: &str, now: Instant) -> bool {
        self.0.retain(|_, told| now.saturating_duration_since(*told) < AGAIN_AFTER);
        let said = (whom.to_string(), sentence.to_owned());
        if self.0.len() >= SENTENCES_MAX || self.0.contains_key(&said) {
            return false;
        }
        self.0.insert(said, now).is_none()
    }

    /// Forgets what was told of `whom`: it is no longer so.
    pub(super) fn forget(&mut self, whom: &impl ToString) {
        let whom = whom.to_string();
        self.0.retain(|(about, _), _| *about != whom);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_an_hour_and_a_crowd_is_not_told_of_at_all() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(told.is_news(&"a", "no", now) && !told.is_news(&"a", "no", now));
        assert!(told.is_news(&"a", "never", now) && told.is_news(&"b", "no", now));
        assert!(!told.is_news(&"a", "no", now + AGAIN_AFTER / 2));
        assert!(told.is_news(&"a", "no", now + AGAIN_AFTER));
        told.forget(&"a");
        assert!(told.is_news(&"a", "no", now + AGAIN_AFTER));
        for stranger in 0..2 * SENTENCES_MAX {
            told.is_news(&stranger, "no", now + AGAIN_AFTER);
        }
        assert_eq!(told.0.len(), SENTENCES_MAX);
        assert!(told.is_news(&"c", "no", now + 2 * AGAIN_AFTER), "it is bounded for an hour, not for ever");
    }
}
