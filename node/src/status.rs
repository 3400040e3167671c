//! What a running node tells of itself every few seconds, in `status.json` in its state folder: the peers it has and
//! what they have said. What happened before, in order, is in the event log.

use crate::{
    events::unix_ms,
    net::{self, Traffic},
};
use anyhow::{Context as _, Result};
use heterotune_crypto::NodeId;
use heterotune_protocol::{
    message::Kind,
    round::{Event, Progress, State},
};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// How often it is written, in ms.
pub const INTERVAL_MS: u64 = 2_000;

/// A node that has written none for so long does not run, in ms.
const STALE_MS: u64 = 15_000;

/// The largest file: a thousand peers of 300 bytes.
const BYTES_MAX: u64 = 1 << 20;

/// A node, now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// When it was written, in ms since 1970 (UTC).
    pub time_ms: u64,
    /// The process.
    pub pid: u32,
    /// The round that is open; 0 in genesis.
    pub round: u64,
    /// The first round that is not sealed.
    pub unsealed: u64,
    /// Bytes since the start.
    pub traffic: Traffic,
    /// Messages that could not be sent, as a queue was full or nobody was there.
    pub dropped: u64,
    /// Where it listens.
    pub listening: Vec<Multiaddr>,
    /// Where others reach it.
    pub external: Vec<Multiaddr>,
    /// Who is connected.
    pub peers: Vec<Peer>,
    /// Updates and states on their way here that are too large for a message.
    pub fetching: Vec<Progress>,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub address: Multiaddr,
    /// Whether the connection goes through another node.
    pub relayed: bool,
    /// Since when, in ms since 1970 (UTC).
    pub since_ms: u64,
    /// The round in its last head.
    pub round: Option<u64>,
    /// Bytes of messages that came from it.
    pub bytes_in: u64,
    /// By how many seconds its clock is ahead of this node's.
    pub ahead_s: Option<i64>,
}

impl Status {
    /// The file in a state folder.
    pub fn path(state: &Path) -> PathBuf {
        state.join("status.json")
    }

    /// What a node said last, and whether it runs.
    ///
    /// # Errors
    /// A file that cannot be read, or is none.
    pub fn read(state: &Path) -> Result<Option<(Self, bool)>> {
        let path = Self::path(state);
        if fs::metadata(&path).map_or(true, |file| file.len() > BYTES_MAX) {
            return Ok(None);
        }
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let status: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not what a node writes; remove it", path.display()))?;
        let is_fresh = unix_ms().abs_diff(status.time_ms) < STALE_MS;
        Ok(Some((status, is_fresh)))
    }

    /// Writes it. Not synced: what is lost with the power is of no use afterwards.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, state: &Path) -> std::io::Result<()> {
        let (path, new) = (Self::path(state), state.join(".new-status.json"));
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }
}

/// What a running node keeps in mind for its [`Status`].
#[derive(Debug, Default)]
pub struct Watch {
    listening: BTreeSet<Multiaddr>,
    external: BTreeSet<Multiaddr>,
    peers: BTreeMap<NodeId, Peer>,
    dropped: u64,
    written_ms: u64,
    /// Peers of whose clocks has been warned.
    off: BTreeSet<NodeId>,
}

/// Peers of whose clocks is warned, at most: whoever owns this node knows by then.
const OFF_MAX: usize = 32;

impl Watch {
    /// The node listens here.
    pub fn listening(&mut self, address: &Multiaddr) {
        self.listening.insert(address.clone());
    }

    /// Others have reached the node here.
    pub fn reachable(&mut self, address: &Multiaddr) {
        self.external.insert(address.clone());
    }

    /// A peer is connected, or by another address than before.
    pub fn connected(&mut self, node: NodeId, address: &Multiaddr, path: net::Path) {
        let relayed = path == net::Path::Relayed;
        let new = Peer {
            node,
            address: address.clone(),
            relayed,
            since_ms: unix_ms(),
            round: None,
            bytes_in: 0,
            ahead_s: None,
        };
        let peer = self.peers.entry(node).or_insert(new);
        (peer.address, peer.relayed) = (address.clone(), relayed);
    }

    /// It is gone.
    pub fn disconnected(&mut self, node: &NodeId) {
        self.peers.remove(node);
    }

    /// A peer's clock is so many seconds ahead of this node's. Whether that is worth a word, as it is once a peer.
    pub fn clock(&mut self, node: &NodeId, ahead: i64) -> bool {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.ahead_s = Some(ahead);
        }
        net::is_off(ahead) && self.off.len() < OFF_MAX && self.off.insert(*node)
    }

    /// A message could not be sent.
    pub fn dropped(&mut self) {
        self.dropped += 1;
    }

    /// Something happened.
    pub fn note(&mut self, event: &Event) {
        if let Event::Received { kind: Kind::Head, round, author, .. } = event
            && let Some(peer) = self.peers.get_mut(author)
        {
            peer.round = Some(*round);
        }
        if let Event::Received { from, bytes, .. } | Event::Refused { from, bytes, .. } = event
            && let Some(peer) = self.peers.get_mut(from)
        {
            peer.bytes_in += *bytes as u64;
        }
    }

    /// What is to be written, if it is time to.
    pub fn due(&mut self, state: &State, traffic: impl FnOnce() -> Traffic) -> Option<Status> {
        let time_ms = unix_ms();
        if time_ms.abs_diff(self.written_ms) < INTERVAL_MS {
            return None;
        }
        self.written_ms = time_ms;
        Some(Status {
            time_ms,
            pid: std::process::id(),
            round: state.step().round(),
            unsealed: state.unsealed().round(),
            traffic: traffic(),
            dropped: self.dropped,
            listening: self.listening.iter().cloned().collect(),
            external: self.external.iter().cloned().collect(),
            peers: self.peers.values().cloned().collect(),
            fetching: state.fetching().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::{Digest, Identity};

    #[test]
    fn what_a_node_knows_of_its_peers_is_written_and_read() {
        let [near, far] = ["near", "far"].map(|name| Identity::from_seed(1, name).id());
        let mut watch = Watch::default();
        watch.connected(near, &"/ip4/10.0.0.1/tcp/1".parse().unwrap(), net::Path::Direct);
        watch.connected(far, &"/ip4/10.0.0.9/tcp/1/p2p-circuit".parse().unwrap(), net::Path::Relayed);
        let heard =
            |kind| Event::Received { kind, round: 3, author: far, from: near, bytes: 100, payload: Digest::ZERO };
        watch.note(&heard(Kind::Update));
        watch.note(&heard(Kind::Head));
        let peer = |watch: &Watch, node| watch.peers[&node].clone();
        assert_eq!(
            (peer(&watch, near).round, peer(&watch, near).bytes_in, peer(&watch, near).relayed),
            (None, 200, false)
        );
        assert_eq!(
            (peer(&watch, far).round, peer(&watch, far).bytes_in, peer(&watch, far).relayed),
            (Some(3), 0, true)
        );
        // Who is reached by a better address stays the same peer.
        watch.connected(far, &"/ip4/10.0.0.2/tcp/1".parse().unwrap(), net::Path::Direct);
        assert_eq!((peer(&watch, far).round, peer(&watch, far).relayed), (Some(3), false));
        assert!(!watch.clock(&far, -60) && watch.clock(&far, 61) && !watch.clock(&far, 62), "once a peer");
        assert_eq!(peer(&watch, far).ahead_s, Some(62));
        watch.disconnected(&near);

        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Status::read(folder.path()).unwrap(), None);
        let peers = watch.peers.values().cloned().collect();
        let (traffic, pid, listening, external) = (Traffic::default(), std::process::id(), Vec::new(), Vec::new());
        let status = Status {
            time_ms: unix_ms(),
            pid,
            round: 3,
            unsealed: 2,
            traffic,
            dropped: 0,
            listening,
            external,
            peers,
            fetching: vec![],
        };
        status.write(folder.path()).unwrap();
        assert_eq!(Status::read(folder.path()).unwrap(), Some((status.clone(), true)));
        let old = Status { time_ms: status.time_ms - STALE_MS, ..status };
        old.write(folder.path()).unwrap();
        assert_eq!(Status::read(folder.path()).unwrap(), Some((old, false)));
        fs::write(Status::path(folder.path()), "{").unwrap();
        assert!(Status::read(folder.path()).unwrap_err().to_string().contains("remove it"));
    }
}
