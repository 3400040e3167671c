//! Fusion's bits: the same for every order and number of threads, and as they were written down in `golden/fusion.txt`
//! by another machine, or an earlier version.
//!
//! `GOLDEN=write cargo test -p heterotune-protocol --test fusion` writes them down anew. Whoever changes them changes
//! the protocol's version.

use heterotune_crypto::{Digest, Identity, NodeId};
use heterotune_protocol::{
    charter::{Align, Anchors, Charter, CodecKind, Fusion, Norms, Rule, Task},
    codec::Group,
    fuse::{self, Memory, Sender},
    mixture::{Layout, Mixture},
};
use std::{collections::BTreeMap, path::Path};

const SENDERS: usize = 64;
const RULES: [Rule; 5] = [Rule::Cmga, Rule::Mean, Rule::Trimmed, Rule::Geomedian, Rule::Ties];
const ALIGNS: [Align; 3] = [Align::Pcgrad, Align::Nash, Align::None];

/// splitmix64 (Steele, Lea and Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// From -most to most, most of them small: the mean of two.
    fn around_zero(&mut self, most: i64) -> i64 {
        let mut one = || (self.bits() % (2 * most as u64 + 1)) as i64 - most;
        (one() + one()) / 2
    }
}

fn authors() -> Vec<NodeId> {
    (0..SENDERS).map(|at| Identity::from_seed(1, &format!("sender{at}")).id()).collect()
}

/// Groups of 1,024, 5,000 and 50 values: more than a block, and no whole number of them.
fn charter(kind: CodecKind, rule: Rule, align: Align, norms: Norms) -> Charter {
    let labels = (0..50).map(|label| label.to_string()).collect();
    let mut charter = Charter::new(
        "golden",
        authors(),
        Task::ImageClassification { labels },
        Anchors { digest: Digest::ZERO, count: 128 },
    );
    (charter.adapter.slots, charter.adapter.branches) = (1, 1);
    (charter.adapter.rank, charter.adapter.readout_rank) = (32, 100);
    charter.fusion = Fusion { rule, align, norms, ..charter.fusion };
    charter.codec.kind = kind;
    charter
}

/// A round of integers, from a seed: most agree a little, each in its own exponent; every seventh flips signs, every
/// ninth is loud; one is a copy, one has only zeros in a group and one lacks groups.
fn round(kind: CodecKind) -> Vec<Vec<Group>> {
    let layout = Layout::new(&charter(kind, Rule::Mean, Align::None, Norms::Kept));
    let most = if kind == CodecKind::Q8 { 127 } else { (1 << 23) - 1 };
    let mut round: Vec<Vec<Group>> = (0..SENDERS)
        .map(|at| {
            let (mut all, mut own) = (Numbers(1), Numbers(2 + at as u64));
            let sign = if at % 7 == 3 { -1 } else { 1 };
            let loud = if at % 9 == 5 { 6 } else { 0 };
            let mut value = |_| ((all.around_zero(most) + 2 * own.around_zero(most)) / 3 * sign) as i32;
            let mut group = |values| Group {
                exponent: -25 + (at % 4) as i16 + loud,
                mantissas: (0..values).map(&mut value).collect(),
            };
            layout.groups().iter().map(|shape| group(shape.values())).collect()
        })
        .collect();
    round[40] = round[11].clone();
    round[20][1].mantissas = vec![0; layout.groups()[1].values()].into();
    round[30].truncate(1);
    round
}

fn memory() -> Memory {
    let evidence = authors().into_iter().enumerate().map(|(at, author)| (author, ((at as i64) - 20) << 20));
    Memory(evidence.take(50).collect::<BTreeMap<_, _>>())
}

fn senders(round: &[Vec<Group>]) -> Vec<Sender<'_>> {
    let named = authors().into_iter().zip(round);
    named.map(|(author, groups)| Sender { author, payload: Digest::ZERO, groups }).collect()
}

/// The digest of all that nodes agree on after a fusion.
fn digest(charter: &Charter, senders: &[Sender<'_>], threads: usize) -> String {
    let fused = fuse::fuse(charter, &Layout::new(charter), senders, &memory(), threads);
    let evidence: Vec<u8> = fused.memory.0.values().flat_map(|evidence| evidence.to_le_bytes()).collect();
    let step = Mixture { groups: fused.step }.digest().to_string();
    Digest::of("heterotune fusion golden", &[step.as_bytes(), &evidence]).to_string()
}

#[test]
fn every_machine_and_version_gets_these_bits() {
    let mut lines = String::from("# codec, rule, align, norms: the digest of the step and of the evidence\n");
    for kind in [CodecKind::Q8, CodecKind::F32] {
        let round = round(kind);
        let senders = senders(&round);
        for rule in RULES {
            for align in ALIGNS {
                for norms in [Norms::Kept, Norms::Equal] {
                    let digest = digest(&charter(kind, rule, align, norms), &senders, 2);
                    let name = format!("{kind:?} {rule:?} {align:?} {norms:?}").to_lowercase();
                    lines += &format!("{name}: {digest}\n");
                }
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fusion.txt");
    if std::env::var_os("GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(&path, &lines).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (now, then) in lines.lines().zip(golden.lines()) {
        assert_eq!(now, then);
    }
    assert_eq!(lines.len(), golden.len());
}

#[test]
fn a_hundred_orders_and_any_threads_give_one_hash() {
    let round = round(CodecKind::Q8);
    let mut numbers = Numbers(7);
    for rule in RULES {
        for align in ALIGNS {
            if align != Align::None && rule != Rule::Cmga {
                continue; // Which would only be the same once more.
            }
            let charter = charter(CodecKind::Q8, rule, align, Norms::Kept);
            let mut senders = senders(&round);
            let first = digest(&charter, &senders, 1);
            for order in 0..100 {
                (1..SENDERS).rev().for_each(|at| senders.swap(at, numbers.below(at + 1)));
                let threads = [1, 2, 8][order % 3];
                assert_eq!(digest(&charter, &senders, threads), first, "{rule:?} {align:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn the_mean_alone_is_the_mean() {
    for kind in [CodecKind::Q8, CodecKind::F32] {
        let round = round(kind);
        let charter = charter(kind, Rule::Mean, Align::None, Norms::Kept);
        let layout = Layout::new(&charter);
        let fused = fuse::fuse(&charter, &layout, &senders(&round), &memory(), 1);
        assert_eq!(fuse::mean(&charter, &layout, &senders(&round), 2), fused.step);
    }
}
