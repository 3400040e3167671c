//! Virtual time: what is to happen, by the millisecond, in the order in which it was planned.

use heterotune_protocol::round::Now;
use std::collections::BTreeMap;

/// What is planned.
pub(super) struct Calendar<T> {
    moments: BTreeMap<Now, Vec<T>>,
}

impl<T> Calendar<T> {
    pub(super) fn new() -> Self {
        Self { moments: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, at: Now, what: T) {
        self.moments.entry(at).or_default().push(what);
    }

    /// When the next thing happens.
    pub(super) fn next(&self) -> Option<Now> {
        self.moments.first_key_value().map(|(at, _)| *at)
    }

    /// How much happens before `until`.
    pub(super) fn due(&self, until: Now) -> usize {
        self.moments.range(..until).map(|(_, moment)| moment.len()).sum()
    }

    /// All that was planned for the next moment, if that is before `until`. What is planned for the same moment
    /// afterwards comes with the next call.
    pub(super) fn take(&mut self, until: Now) -> Option<(Now, Vec<T>)> {
        let first = self.moments.first_entry().filter(|first| *first.key() < until)?;
        Some(first.remove_entry())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_by_time_and_then_by_turn() {
        let mut calendar = Calendar::new();
        for (at, what) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b'), (9, 'e')] {
            calendar.add(at, what);
        }
        assert_eq!((calendar.next(), calendar.due(9)), (Some(3), 4));
        assert_eq!(calendar.take(9), Some((3, vec!['a', 'b'])));
        calendar.add(3, 'x');
        assert_eq!(calendar.take(9), Some((3, vec!['x'])));
        assert_eq!(calendar.take(9), Some((5, vec!['c', 'd'])));
        assert_eq!(calendar.take(9), None);
    }
}
