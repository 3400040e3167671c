//! Who is connected to whom: a random mesh, and another one while a partition lasts.

use super::options::Partition;
use heterotune_protocol::round::Now;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Rings through all nodes, each in another random order. Their union is connected and has no narrow place; it gives
/// a node eight peers, gossipsub's usual mesh.
const RINGS: usize = 4;

/// All links of a run.
pub(super) struct Mesh {
    whole: Vec<Vec<u32>>,
    torn: Option<Torn>,
}

/// A partition: which part each node is in, and the mesh that the nodes of a part make among themselves.
struct Torn {
    from: Now,
    to: Now,
    part: Vec<usize>,
    peers: Vec<Vec<u32>>,
}

impl Mesh {
    /// A mesh of `nodes`, of which the first `sealers` know each other; times are in ms from `start`.
    pub(super) fn new(
        nodes: usize,
        sealers: usize,
        partition: Option<&Partition>,
        start: Now,
        deadline_ms: u64,
        draws: &mut ChaCha8Rng,
    ) -> Self {
        let mut all: Vec<u32> = (0..nodes as u32).collect();
        let mut whole = vec![Vec::new(); nodes];
        link(&all, sealers, &mut whole, draws);
        let torn = partition.map(|partition| {
            all.shuffle(draws);
            let (mut part, mut peers) = (vec![0; nodes], vec![Vec::new(); nodes]);
            let (mut first, mut share) = (0, 0.0);
            for (number, size) in partition.parts.iter().enumerate() {
                share += size;
                let end = if number + 1 == partition.parts.len() { nodes } else { (share * nodes as f64) as usize };
                let members = all.get(first..end.min(nodes)).unwrap_or_default();
                members.iter().for_each(|member| part[*member as usize] = number);
                link(members, sealers, &mut peers, draws);
                first = end;
            }
            let at = |deadlines: f64| start + (deadlines * deadline_ms as f64) as Now;
            Torn { from: at(partition.from), to: at(partition.to), part, peers }
        });
        Self { whole, torn }
    }

    fn torn(&self, now: Now) -> Option<&Torn> {
        self.torn.as_ref().filter(|torn| (torn.from..torn.to).contains(&now))
    }

    /// Whom a node is linked to.
    pub(super) fn peers(&self, now: Now, node: u32) -> &[u32] {
        let peers = self.torn(now).map_or(&self.whole, |torn| &torn.peers);
        &peers[node as usize]
    }

    /// Whether a parcel can get from one node to another.
    pub(super) fn is_joined(&self, now: Now, a: u32, b: u32) -> bool {
        self.torn(now).is_none_or(|torn| torn.part[a as usize] == torn.part[b as usize])
    }

    /// When the links change.
    pub(super) fn changes(&self) -> impl Iterator<Item = Now> {
        self.torn.iter().flat_map(|torn| [torn.from, torn.to])
    }
}

/// Links `members` with each other, and those who seal with all of their kind.
fn link(members: &[u32], sealers: usize, peers: &mut [Vec<u32>], draws: &mut ChaCha8Rng) {
    if members.len() <= 2 * RINGS + 1 {
        for a in members {
            peers[*a as usize] = members.iter().copied().filter(|b| b != a).collect();
        }
    } else {
        let mut ring = members.to_vec();
        for _ in 0..RINGS {
            ring.shuffle(draws);
            for (a, b) in ring.iter().zip(ring.iter().cycle().skip(1)) {
                peers[*a as usize].push(*b);
                peers[*b as usize].push(*a);
            }
        }
    }
    let seals = |member: &&u32| (**member as usize) < sealers;
    for a in members.iter().filter(seals) {
        let others = members.iter().filter(|b| seals(b) && *b != a);
        peers[*a as usize].extend(others);
    }
    for member in members {
        peers[*member as usize].sort_unstable();
        peers[*member as usize].dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn reached(mesh: &Mesh, now: Now, nodes: usize) -> usize {
        let (mut seen, mut queue) = (vec![false; nodes], vec![0]);
        seen[0] = true;
        while let Some(node) = queue.pop() {
            for peer in mesh.peers(now, node) {
                assert!(mesh.peers(now, *peer).contains(&node) && *peer != node);
                assert!(mesh.is_joined(now, node, *peer));
                if !std::mem::replace(&mut seen[*peer as usize], true) {
                    queue.push(*peer);
                }
            }
        }
        seen.iter().filter(|seen| **seen).count()
    }

    #[test]
    fn it_is_connected_but_for_a_partition() {
        for nodes in [1, 2, 3, 9, 10, 64, 1000] {
            let partition = "1..2:0.25|0.75".parse().unwrap();
            let mesh = Mesh::new(nodes, 0, Some(&partition), 0, 1000, &mut ChaCha8Rng::seed_from_u64(nodes as u64));
            assert_eq!(reached(&mesh, 0, nodes), nodes);
            assert_eq!(reached(&mesh, 2000, nodes), nodes);
            let parts = [nodes / 4, nodes - nodes / 4];
            assert!(parts.contains(&reached(&mesh, 1000, nodes)));
            assert_eq!(mesh.changes().collect::<Vec<_>>(), [1000, 2000]);
        }
    }
}
