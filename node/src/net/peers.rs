//! The address book: where peers may be reached, how often that went well, and when to try again. It outlives the
//! process in `peers.json`, so that a node finds its network when all those it was told of are gone.

use super::address::{is_relayed, named_peer, without_peer};
use anyhow::{Context as _, Result, bail};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Addresses remembered of one peer: TCP and QUIC, on a local and a public interface, and through two relays.
pub(super) const ADDRESSES_MAX: usize = 8;

/// Peers remembered.
pub(super) const PEERS_MAX: usize = 1_024;

/// Bytes of one address: two names of 63 characters and two peer ids fit.
const ADDRESS_BYTES_MAX: usize = 256;

/// The largest file: all addresses there may be, as text.
const FILE_BYTES_MAX: u64 = (PEERS_MAX * ADDRESSES_MAX * (2 * ADDRESS_BYTES_MAX + 128)) as u64;

/// Failures in a row after which an address is forgotten, if its peer has a better one.
const FAILURES_MAX: u32 = 5;

/// Peers dialled at a time.
const DIALS_MAX: usize = 16;

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The longest pause of a node that has no peer at all.
const RETRY_ALONE_MAX: Duration = Duration::from_secs(10);

/// An address and how it has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Ends in `/p2p/..`.
    address: Multiaddr,
    /// When a connection to it was last made, in seconds since 1970 (UTC); 0 for never.
    last_success: u64,
    /// Since then.
    failures: u32,
}

impl Entry {
    /// Better ones come first.
    fn rank(&self) -> (u32, Reverse<u64>) {
        (self.failures, Reverse(self.last_success))
    }
}

/// An address that the user gave; never forgotten.
#[derive(Debug)]
struct Given {
    address: Multiaddr,
    /// Who has answered there.
    peer: Option<PeerId>,
    /// Whether whoever answered there was refused, or refused this node.
    refused: bool,
}

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Who; whoever answers, if this is not known.
    pub peer: Option<PeerId>,
    /// Where, the best first.
    pub addresses: Vec<Multiaddr>,
}

/// The address book of a node.
#[derive(Debug)]
pub struct Peers {
    entries: BTreeMap<PeerId, Vec<Entry>>,
    given: Vec<Given>,
    /// Whether any peer has been connected since the start.
    met: bool,
    /// Whether there is something new to keep.
    changed: bool,
    retry_at: Instant,
    retry_after: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    peers: BTreeMap<PeerId, Vec<Entry>>,
}

impl Peers {
    /// An empty book, and the addresses that the user gave.
    pub fn new(given: Vec<Multiaddr>) -> Self {
        let given = given.into_iter().map(|address| Given { peer: named_peer(&address), address, refused: false });
        Self {
            entries: BTreeMap::new(),
            given: given.collect(),
            met: false,
            changed: false,
            retry_at: Instant::now(),
            retry_after: RETRY_MIN,
        }
    }

    /// Sets the addresses that the user gives. Of those that stay it is still known who answers there.
    pub fn set_given(&mut self, addresses: Vec<Multiaddr>) {
        let mut before = std::mem::take(&mut self.given);
        for address in addresses {
            let known = before.iter().position(|given| given.address == address).map(|at| before.swap_remove(at));
            self.given.push(known.unwrap_or_else(|| Given { peer: named_peer(&address), address, refused: false }));
        }
        self.retry_at = Instant::now();
    }

    /// Remembers an address. Whether it is new.
    pub fn learn(&mut self, peer: &PeerId, address: &Multiaddr) -> bool {
        let Ok(address) = address.clone().with_p2p(*peer) else { return false };
        if address.len() > ADDRESS_BYTES_MAX || self.entry(peer, &address).is_some() || !self.make_room(peer) {
            return false;
        }
        let entries = self.entries.entry(*peer).or_default();
        if entries.len() >= ADDRESSES_MAX {
            // The worst makes room, unless it works or has not been tried.
            let worst = entries.iter().enumerate().max_by_key(|(_, entry)| entry.rank()).map(|(at, _)| at);
            let Some(at) = worst.filter(|at| entries[*at].failures > 0) else { return false };
            entries.remove(at);
        }
        entries.push(Entry { address, last_success: 0, failures: 0 });
        self.changed = true;
        true
    }

    /// Makes room for one peer more, if need be in place of one at whose addresses nobody was ever met.
    fn make_room(&mut self, peer: &PeerId) -> bool {
        if self.entries.contains_key(peer) || self.entries.len() < PEERS_MAX {
            return true;
        }
        let never_met = |entries: &[Entry]| entries.iter().all(|entry| entry.last_success == 0);
        let failures = |entries: &[Entry]| entries.iter().map(|entry| entry.failures).max();
        let useless = self.entries.iter().filter(|(_, entries)| never_met(entries));
        let Some(worst) = useless.max_by_key(|(_, entries)| failures(entries)).map(|(peer, _)| *peer) else {
            return false;
        };
        self.entries.remove(&worst).is_some()
    }

    fn entry(&mut self, peer: &PeerId, address: &Multiaddr) -> Option<&mut Entry> {
        self.entries.get_mut(peer)?.iter_mut().find(|entry| entry.address == *address)
    }

    /// Notes that `peer` was reached at an address, at `now` in seconds since 1970 (UTC).
    pub fn succeeded(&mut self, peer: &PeerId, address: &Multiaddr, now: u64) {
        self.answered(address, peer);
        self.learn(peer, address);
        let Ok(address) = address.clone().with_p2p(*peer) else { return };
        if let Some(entry) = self.entry(peer, &address) {
            (entry.last_success, entry.failures) = (now, 0);
            self.changed = true;
        }
    }

    /// Notes who has answered at an address, be it this node itself.
    pub fn answered(&mut self, address: &Multiaddr, peer: &PeerId) {
        for given in self.given.iter_mut().filter(|given| same_place(&given.address, address)) {
            (given.peer, given.refused) = (Some(*peer), false);
        }
    }

    /// Notes that nobody, or somebody else, was reached at an address.
    pub fn failed(&mut self, address: &Multiaddr) {
        let Some(entries) = named_peer(address).and_then(|peer| self.entries.get_mut(&peer)) else { return };
        let Some(at) = entries.iter().position(|entry| entry.address == *address) else { return };
        entries[at].failures = entries[at].failures.saturating_add(1);
        let better = entries.iter().any(|entry| entry.failures < FAILURES_MAX);
        if entries[at].failures >= FAILURES_MAX && better {
            entries.remove(at);
        }
        self.changed = true;
    }

    /// Notes that whoever is at an address does not fit. Whether no way is left to a peer that might.
    pub fn refused(&mut self, address: &Multiaddr) -> bool {
        self.failed(address);
        let mut given = false;
        for at in self.given.iter_mut().filter(|given| same_place(&given.address, address)) {
            (at.refused, given) = (true, true);
        }
        given && !self.met && self.entries.is_empty() && self.given.iter().all(|given| given.refused)
    }

    /// Notes that a connection was made.
    pub fn connected(&mut self) {
        (self.met, self.retry_after) = (true, RETRY_MIN);
    }

    /// Notes that something has changed that others should hear of, or that makes it worth to try again soon: a peer has
    /// gone, or is reached in another way.
    pub fn stirred(&mut self) {
        self.retry_after = RETRY_MIN;
        self.retry_at = self.retry_at.min(Instant::now() + RETRY_MIN);
    }

    /// The best address of a peer.
    pub fn best(&self, peer: &PeerId) -> Option<&Multiaddr> {
        self.entries.get(peer)?.iter().min_by_key(|entry| entry.rank()).map(|entry| &entry.address)
    }

    /// What others are told of a peer: its best address, and the best of those that lead through a relay. The first may
    /// be one that only its own neighbours reach.
    pub fn told(&self, peer: &PeerId) -> impl Iterator<Item = &Multiaddr> {
        let best = self.best(peer);
        let entries = self.entries.get(peer).into_iter().flatten();
        let relayed = entries.filter(|entry| is_relayed(&entry.address)).min_by_key(|entry| entry.rank());
        best.into_iter().chain(relayed.map(|entry| &entry.address).filter(move |address| Some(*address) != best))
    }

    /// Whether the user gave this address.
    pub fn is_given(&self, address: &Multiaddr) -> bool {
        self.given.iter().any(|given| same_place(&given.address, address))
    }

    /// If it is time to try again: whom to dial of those that are absent, `room` peers at most beside who is at the
    /// user's addresses. The pauses double while nothing changes.
    pub fn retry(
        &mut self,
        now: Instant,
        room: usize,
        alone: bool,
        absent: impl Fn(&PeerId) -> bool,
    ) -> Option<Vec<Dial>> {
        if now < self.retry_at || room == 0 {
            return None;
        }
        self.retry_at = now + self.retry_after.min(if alone { RETRY_ALONE_MAX } else { RETRY_MAX });
        self.retry_after = (2 * self.retry_after).min(RETRY_MAX);
        let unmet = self.given.iter().filter(|given| given.peer.is_none_or(|peer| absent(&peer)));
        let given = unmet.map(|given| Dial { peer: None, addresses: vec![given.address.clone()] });
        let known = self.entries.iter().filter(|(peer, entries)| !entries.is_empty() && absent(peer));
        let mut known: Vec<_> = known.map(|(peer, entries)| (*peer, sorted(entries))).collect();
        known.sort_by_key(|(_, entries)| entries.first().map(|entry| entry.rank()));
        let known = known.into_iter().take(room.min(DIALS_MAX)).map(|(peer, entries)| {
            let addresses = entries.into_iter().map(|entry| entry.address.clone()).collect();
            Dial { peer: Some(peer), addresses }
        });
        Some(given.chain(known).collect())
    }

    /// Reads what an earlier life has left.
    ///
    /// # Errors
    /// A file that cannot be read, is too large, or is not an address book.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let size = match fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            metadata => metadata.with_context(|| format!("cannot read {}", path.display()))?.len(),
        };
        if size > FILE_BYTES_MAX {
            bail!("{} has {size} bytes, more than an address book may have; delete it", path.display());
        }
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not an address book; delete it", path.display()))?;
        for (peer, mut entries) in file.peers.into_iter().take(PEERS_MAX) {
            entries.retain(|entry| named_peer(&entry.address) == Some(peer));
            entries.truncate(ADDRESSES_MAX);
            self.entries.insert(peer, entries);
        }
        Ok(())
    }

    /// The file's bytes, if they have changed since they were asked for last.
    pub fn changes(&mut self) -> Option<Vec<u8>> {
        let changed = std::mem::take(&mut self.changed);
        changed.then(|| serde_json::to_vec_pretty(&File { peers: self.entries.clone() }).ok())?
    }
}

fn sorted(entries: &[Entry]) -> Vec<&Entry> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|entry| entry.rank());
    sorted
}

/// Whether two addresses are one place, whoever is there.
fn same_place(one: &Multiaddr, other: &Multiaddr) -> bool {
    without_peer(one) == without_peer(other)
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
