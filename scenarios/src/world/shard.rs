//! A share of the nodes, with a calendar of its own, for a thread to run.

use super::{
    World,
    calendar::Calendar,
    errand::{Errand, Happening},
    node::{Here, Node},
};
use heterotune_protocol::round::Now;

/// Shards of every world, whatever the number of threads: the order of what happens depends on it.
pub(super) const SHARDS: usize = 8;

/// Every eighth node.
pub(super) struct Shard {
    number: usize,
    pub(super) nodes: Vec<Node>,
    calendar: Calendar<(u32, Happening)>,
    /// What is planned for other shards, and what they have planned for this one.
    pub(super) outbox: Vec<Vec<Errand>>,
    pub(super) inbox: Vec<Vec<Errand>>,
}

impl Shard {
    /// The shard with this number; its nodes come in order.
    pub(super) fn new(number: usize, nodes: Vec<Node>, now: Now, world: &World) -> Self {
        let boxes = || (0..SHARDS).map(|_| Vec::new()).collect();
        let calendar = Calendar::new();
        let mut shard = Self { number, nodes, calendar, outbox: boxes(), inbox: boxes() };
        let mut errands = Vec::new();
        for node in &mut shard.nodes {
            node.be_born(&mut Here { now, world, errands: &mut errands });
        }
        shard.sort(&mut errands);
        shard
    }

    /// Takes in what the others have sent.
    pub(super) fn open_inbox(&mut self) {
        for inbox in &mut self.inbox {
            for Errand { at, to, what } in inbox.drain(..) {
                self.calendar.add(at, (to, what));
            }
        }
    }

    /// When something happens here next.
    pub(super) fn next(&self) -> Option<Now> {
        self.calendar.next()
    }

    /// How much happens here before `until`.
    pub(super) fn due(&self, until: Now) -> usize {
        self.calendar.due(until)
    }

    /// Lets everything happen that is planned before `until`.
    pub(super) fn run(&mut self, until: Now, world: &World) {
        let mut errands = Vec::new();
        while let Some((now, moment)) = self.calendar.take(until) {
            for (to, what) in moment {
                if let Some(node) = self.nodes.get_mut(to as usize / SHARDS) {
                    node.meet(what, &mut Here { now, world, errands: &mut errands });
                }
            }
            self.sort(&mut errands);
        }
    }

    fn sort(&mut self, errands: &mut Vec<Errand>) {
        for errand in errands.drain(..) {
            let shard = errand.to as usize % SHARDS;
            if shard == self.number {
                self.calendar.add(errand.at, (errand.to, errand.what));
            } else {
                self.outbox[shard].push(errand);
            }
        }
    }
}
