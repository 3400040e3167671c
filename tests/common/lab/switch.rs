//! What is between hosts: it hands each packet to the card that has its address, later, or not at all.

use super::tun::Tun;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::Ipv4Addr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// The longest packet: a card's MTU is 1,500 bytes.
const PACKET_BYTES: usize = 2_048;

/// How much a wire holds back of what comes faster than it can send: as in routers, some hundred milliseconds.
const BACKLOG: Duration = Duration::from_millis(300);

/// What a host's wire is like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wire {
    /// How long a packet takes.
    pub(crate) delay: Duration,
    /// By how much that differs from packet to packet, both ways. Packets stay in order.
    pub(crate) jitter: Duration,
    /// The share of packets that is lost.
    pub(crate) loss: f64,
    /// Bits a second that a host can send; no bound where it is 0.
    pub(crate) rate: u64,
}

/// A packet on its way, by when it arrives, and in what order it was sent.
type Parcel = (Instant, u64, usize, Vec<u8>);

struct Ways {
    wire: Wire,
    cut: BTreeSet<usize>,
    /// Pairs of cards between which nothing goes, the lower first.
    apart: BTreeSet<(usize, usize)>,
    sides: BTreeMap<usize, usize>,
    /// When each card has sent what it was given.
    idle: BTreeMap<usize, Instant>,
    /// When the last packet from one card to another arrives.
    last: BTreeMap<(usize, usize), Instant>,
    chance: ChaCha8Rng,
    sent: u64,
    parcels: BinaryHeap<Reverse<Parcel>>,
}

impl Ways {
    /// When a packet sent now arrives, if it does.
    fn arrival(&mut self, from: usize, to: usize, bytes: usize, now: Instant) -> Option<Instant> {
        let side = |card| self.sides.get(&card);
        let apart = self.apart.contains(&(from.min(to), from.max(to)));
        if apart || self.cut.contains(&from) || self.cut.contains(&to) || side(from) != side(to) {
            return None;
        }
        if self.wire.loss > 0.0 && self.chance.random_bool(self.wire.loss) {
            return None;
        }
        let mut left = now;
        if self.wire.rate > 0 {
            let idle = self.idle.get(&from).copied().unwrap_or(now).max(now);
            if idle - now > BACKLOG {
                return None;
            }
            left = idle + Duration::from_secs_f64(8.0 * bytes as f64 / self.wire.rate as f64);
            self.idle.insert(from, left);
        }
        let jitter = self.wire.jitter.mul_f64(2.0 * self.chance.random::<f64>());
        let arrival = (left + self.wire.delay + jitter).checked_sub(self.wire.jitter).unwrap_or(left);
        let last = self.last.entry((from, to)).or_insert(arrival);
        *last = arrival.max(*last);
        Some(*last)
    }
}

struct Shared {
    cards: Vec<(Ipv4Addr, Tun)>,
    ways: Mutex<Ways>,
    news: Condvar,
}

impl Shared {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a card sends, until it is gone.
    fn take(&self, from: usize) {
        let mut packet = [0; PACKET_BYTES];
        while let Ok(bytes) = self.cards[from].1.read(&mut packet) {
            // IPv4 alone: its version, and at bytes 16 to 19 where it goes to.
            let Some(&[a, b, c, d]) = packet.get(16..20).filter(|_| bytes >= 20 && packet[0] >> 4 == 4) else {
                continue;
            };
            let to = Ipv4Addr::new(a, b, c, d);
            let (mut ways, now) = (self.ways(), Instant::now());
            for (card, (address, _)) in self.cards.iter().enumerate() {
                if card == from || !(*address == to || to.is_multicast()) {
                    continue;
                }
                if let Some(arrival) = ways.arrival(from, card, bytes, now) {
                    ways.sent += 1;
                    let parcel = (arrival, ways.sent, card, packet[..bytes].to_vec());
                    ways.parcels.push(Reverse(parcel));
                }
            }
            self.news.notify_one();
        }
    }

    /// Delivers what is due, for ever.
    fn deliver(&self) {
        let mut ways = self.ways();
        loop {
            let now = Instant::now();
            let due = ways.parcels.peek().map(|Reverse((arrival, ..))| arrival.saturating_duration_since(now));
            ways = match due {
                Some(Duration::ZERO) => {
                    if let Some(Reverse((_, _, card, packet))) = ways.parcels.pop() {
                        self.cards[card].1.write(&packet);
                    }
                    ways
                }
                Some(wait) => self.news.wait_timeout(ways, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.news.wait(ways).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// A switch. Its threads live as long as the process: a test's.
pub(super) struct Switch(Arc<Shared>);

impl Switch {
    pub(super) fn new(cards: Vec<(Ipv4Addr, Tun)>, seed: u64) -> Self {
        let ways = Ways {
            wire: Wire::default(),
            cut: BTreeSet::new(),
            apart: BTreeSet::new(),
            sides: BTreeMap::new(),
            idle: BTreeMap::new(),
            last: BTreeMap::new(),
            chance: ChaCha8Rng::seed_from_u64(seed),
            sent: 0,
            parcels: BinaryHeap::new(),
        };
        let shared = Arc::new(Shared { cards, ways: Mutex::new(ways), news: Condvar::new() });
        for card in 0..shared.cards.len() {
            let shared = shared.clone();
            thread::spawn(move || shared.take(card));
        }
        let delivering = shared.clone();
        thread::spawn(move || delivering.deliver());
        Self(shared)
    }

    pub(super) fn wire(&self, wire: Wire) {
        self.0.ways().wire = wire;
    }

    pub(super) fn cut(&self, host: usize, cut: bool) {
        let mut ways = self.0.ways();
        match cut {
            true => ways.cut.insert(host),
            false => ways.cut.remove(&host),
        };
    }

    pub(super) fn part(&self, one: usize, other: usize) {
        self.0.ways().apart.insert((one.min(other), one.max(other)));
    }

    pub(super) fn split(&self, sides: &[&[usize]]) {
        let sided = sides.iter().enumerate().flat_map(|(side, hosts)| hosts.iter().map(move |host| (*host, side)));
        self.0.ways().sides = sided.collect();
    }
}
