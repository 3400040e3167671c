//! Who plays: four members with known keys, in small charters, and two strangers who may join some of them.

use heterotune_crypto::{Digest, Identity, NodeId};
use heterotune_protocol::{
    admission::Admission,
    charter::{Alignment, Anchors, Charter, Closing, Codec, CodecKind, Readout, Task},
    codec::quantise,
    genesis::{Kernels, Statistics},
    memo::Memo,
    message::{Context, Step},
    round::{Contribution, Work},
    seal,
};
use std::sync::{Arc, OnceLock};

/// Members of every network.
pub const MEMBERS: usize = 4;

/// Those who are no members at first. They lie.
pub const STRANGERS: usize = 2;

const ALL: usize = MEMBERS + STRANGERS;

/// The identity of a member, or a stranger.
pub fn identity(member: usize) -> &'static Identity {
    static IDENTITIES: OnceLock<Vec<Identity>> = OnceLock::new();
    let identity = |index| Identity::from_seed(2026, &format!("fuzz{index}"));
    &IDENTITIES.get_or_init(|| (0..ALL).map(identity).collect())[member % ALL]
}

/// Its key.
pub fn key(member: usize) -> NodeId {
    static KEYS: OnceLock<Vec<NodeId>> = OnceLock::new();
    KEYS.get_or_init(|| (0..ALL).map(|index| identity(index).id()).collect())[member % ALL]
}

/// Who of the members is honest, and who seals: the first ones.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    byte: u8,
    /// Honest members; the others lie.
    pub honest: usize,
    /// Sealers.
    pub sealers: usize,
}

impl Cast {
    /// A cast and a charter from one byte.
    pub fn of(byte: u8) -> Self {
        let (honest, sealers) = match byte & 3 {
            0 => (3, 4),
            1 => (1, 1),
            2 => (1, 4),
            _ => (3, 3),
        };
        Self { byte, honest, sealers }
    }

    /// The same, where nobody lies.
    pub fn honest(self) -> Self {
        Self { honest: MEMBERS, ..self }
    }

    /// The same, where all but the first lie.
    pub fn alone(self) -> Self {
        Self { honest: 1, ..self }
    }

    /// Whether so few sealers lie that the honest ones agree.
    pub fn is_safe(&self) -> bool {
        self.sealers.saturating_sub(self.honest) <= seal::faults(self.sealers)
    }

    /// The charter's context. It remembers what verified from one input to the next: signatures take most of the time,
    /// and the same bytes verify again.
    pub fn context(&self) -> Arc<Context> {
        static ALL: [OnceLock<Arc<Context>>; 256] = [const { OnceLock::new() }; 256];
        let context = || Context::new(self.charter()).expect("the charter is sound").with_memo(Memo::new(4_096));
        ALL[usize::from(self.byte)].get_or_init(|| Arc::new(context())).clone()
    }

    fn charter(&self) -> Charter {
        // Two bits are the cast, six the charter's.
        let is = |bit: u8| self.byte >> (bit + 2) & 1 == 1;
        let keys: Vec<_> = (0..MEMBERS).map(key).collect();
        let labels = ["a", "b"].map(String::from).to_vec();
        let mut charter = Charter::new(
            "fuzz",
            keys,
            Task::ImageClassification { labels },
            Anchors { digest: Digest::ZERO, count: 8 },
        );
        charter.sealers.truncate(self.sealers);
        (charter.adapter.slots, charter.adapter.branches) = (1, 1);
        (charter.adapter.rank, charter.adapter.readout_rank) = (2, 2);
        if !is(0) {
            (charter.adapter.alignment, charter.adapter.readout) = (Alignment::Random, Readout::Trained);
        }
        if is(1) {
            charter.rounds.closing = Closing::Leader;
        }
        charter.rounds.contributors = if is(2) { 3 } else { 4 };
        charter.rounds.quorum = if is(3) { 1 } else { 3 };
        charter.rounds.total = if is(3) { 0 } else { 4 };
        charter.rounds.horizon = if is(4) { 1 } else { 3 };
        let few_bits = match (is(0), is(4)) {
            (true, true) => CodecKind::Q8,
            (true, false) => CodecKind::Q4,
            (false, true) => CodecKind::Sign,
            (false, false) => CodecKind::TopK,
        };
        let (kind, exponent_max) = if is(5) { (CodecKind::F32, 20) } else { (few_bits, 8) };
        charter.codec = Codec { kind, exponent_min: -40, exponent_max };
        charter.rounds.deadline_ms = 10_000;
        charter.admission = match (is(2), is(4)) {
            (true, _) => Admission::Invited { admins: vec![key(MEMBERS - 1)] },
            (false, true) => Admission::Open,
            (false, false) => Admission::Allowlist,
        };
        charter
    }
}

/// What `member`'s trainer delivers. Another `seed` gives something else, as real training does after a restart.
pub fn made_up(charter: &Charter, member: usize, seed: u8, work: &Work) -> Option<Contribution> {
    match work {
        Work::Kernels => Some(Contribution::Kernels(kernels(charter, member, seed)?)),
        Work::Statistics => Some(Contribution::Statistics(statistics(charter, member, seed)?)),
        Work::Round { round, mixture } => {
            let mut draws = Draws::new(member, seed, Step::Round(*round));
            let group = |values: &Vec<f32>| {
                let delta: Vec<f32> = values.iter().map(|_| draws.value() as f32 * 0.1).collect();
                quantise(&charter.codec, &delta)
            };
            Some(Contribution::Update { round: *round, groups: mixture.iter().map(group).collect() })
        }
        Work::Align(_) | Work::Finish { .. } => None,
    }
}

/// The kernel of random features.
pub fn kernels(charter: &Charter, member: usize, seed: u8) -> Option<Kernels> {
    let (anchors, width) = (usize::from(charter.anchors.count), 4);
    let mut draws = Draws::new(member, seed, Step::Kernels);
    let mut features: Vec<f64> = (0..anchors * width).map(|_| draws.value()).collect();
    for column in 0..width {
        let mean = features.iter().skip(column).step_by(width).sum::<f64>() / anchors as f64;
        features.iter_mut().skip(column).step_by(width).for_each(|value| *value -= mean);
    }
    let norm: f64 = features.iter().map(|value| value * value).sum();
    let row = |at: usize| &features[at * width..][..width];
    let dot = |a: usize, b: usize| row(a).iter().zip(row(b)).map(|(a, b)| a * b).sum::<f64>();
    let kernel = (0..anchors * anchors).map(|at| dot(at / anchors, at % anchors) / norm).collect();
    Kernels::from_features(charter, &[kernel]).ok()
}

/// The statistics of random codes.
pub fn statistics(charter: &Charter, member: usize, seed: u8) -> Option<Statistics> {
    let (labels, width) = (charter.task.labels().len(), usize::from(charter.adapter.readout_rank));
    let (mut sums, mut gram) = (vec![0.0; labels * width], vec![0.0; width * width]);
    let mut draws = Draws::new(member, seed, Step::Statistics);
    for sample in 0..5 * labels {
        let code: Vec<f64> = (0..width).map(|_| draws.value()).collect();
        for a in 0..width {
            sums[sample % labels * width + a] += code[a];
            (0..width).for_each(|b| gram[a * width + b] += code[a] * code[b]);
        }
    }
    Statistics::from_values(charter, &vec![5; labels], &sums, &gram).ok()
}

/// Repeatable numbers (Steele, Lea and Flood 2014: SplitMix64).
struct Draws(u64);

impl Draws {
    fn new(member: usize, seed: u8, step: Step) -> Self {
        Self((member as u64) << 48 | u64::from(seed) << 40 | step.height() & 0xff_ffff)
    }

    /// From -1 to 1.
    fn value(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}
