//! How fast fusion is, against reading the same bytes once: 64 updates of a million q8 values.
#![allow(clippy::disallowed_types, reason = "a benchmark measures time")]

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    charter::{Anchors, Charter, Task},
    codec::{Group, Mantissas},
    fuse::{self, Memory, Sender},
    mixture::Layout,
};
use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

const UPDATES: usize = 64;

/// Labels, and the readout's width: a million values. A charter that travels may not have so many, but fusion does not
/// care.
const SIDE: u16 = 1_000;

fn charter(author: &Identity) -> Charter {
    let labels = (0..SIDE).map(|label| label.to_string()).collect();
    let mut charter = Charter::new(
        "bench",
        vec![author.id()],
        Task::ImageClassification { labels },
        Anchors { digest: Digest::ZERO, count: 128 },
    );
    charter.adapter.branches = 0;
    charter.adapter.readout_rank = SIDE;
    charter
}

/// Something random in every byte but -128: splitmix64.
fn update(layout: &Layout, seed: u64) -> Vec<Group> {
    let mut state = seed << 40;
    let mut byte = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z >> 56) as i8).max(-127)
    };
    let mut group =
        |values| Group { exponent: -18, mantissas: Mantissas::Narrow((0..values).map(|_| byte()).collect()) };
    layout.groups().iter().map(|shape| group(shape.values())).collect()
}

/// The sum of all bytes, eight at a time: as fast as memory lets them be read.
fn read(updates: &[Vec<Group>], threads: usize) -> u64 {
    let sum = |updates: &[Vec<Group>]| {
        let bytes = |group: &Group| match &group.mantissas {
            Mantissas::Narrow(bytes) => {
                let (words, _) = bytes.as_chunks::<8>();
                words.iter().map(|word| u64::from_le_bytes(word.map(i8::cast_unsigned))).fold(0, u64::wrapping_add)
            }
            Mantissas::Wide(_) => 0,
        };
        updates.iter().flatten().map(bytes).fold(0, u64::wrapping_add)
    };
    thread::scope(|scope| {
        let parts: Vec<_> =
            updates.chunks(UPDATES.div_ceil(threads)).map(|part| scope.spawn(move || sum(part))).collect();
        parts.into_iter().filter_map(|part| part.join().ok()).fold(0, u64::wrapping_add)
    })
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut work: impl FnMut(usize)) {
    for threads in [1, 2] {
        group.bench_function(format!("{name}/{threads}"), |bencher| bencher.iter(|| work(threads)));
    }
}

fn fusion(criterion: &mut Criterion) {
    let author = Identity::from_seed(0, "bench");
    let charter = charter(&author);
    let layout = Layout::new(&charter);
    let updates: Vec<_> = (0..UPDATES).map(|seed| update(&layout, seed as u64)).collect();
    let sender = |groups| Sender { author: author.id(), payload: Digest::ZERO, groups };
    let senders: Vec<_> = updates.iter().map(|groups| sender(groups)).collect();

    let mut group = criterion.benchmark_group("64 x 1,000,000 q8");
    group.throughput(Throughput::Bytes((UPDATES * layout.values()) as u64));
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    measure(&mut group, "read", |threads| {
        black_box(read(black_box(&updates), threads));
    });
    measure(&mut group, "mean", |threads| {
        black_box(fuse::mean(&charter, &layout, &senders, threads));
    });
    measure(&mut group, "cmga", |threads| {
        black_box(fuse::fuse(&charter, &layout, &senders, &Memory::default(), threads));
    });
    group.finish();

    for threads in [1, 2] {
        let read = || {
            black_box(read(black_box(&updates), threads));
        };
        let mean = || {
            black_box(fuse::mean(&charter, &layout, &senders, threads));
        };
        let share = 100.0 * median_ratio(read, mean);
        println!("the mean takes in {share:.0} % of what {threads} thread(s) can read: the median of {PAIRS} pairs");
    }
}

/// Pairs of runs, one after the other, so that what slows the machine slows both.
const PAIRS: usize = 101;

/// How long `left` takes, as a share of what `right` takes.
fn median_ratio(left: impl Fn(), right: impl Fn()) -> f64 {
    let seconds = |work: &dyn Fn()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..PAIRS).map(|_| seconds(&left) / seconds(&right)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[PAIRS / 2]
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    fusion(&mut criterion);
    criterion.final_summary();
}
