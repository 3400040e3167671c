//! Writing, reading and fusing updates.

use anyhow::{Context, Result};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    charter::{Anchors, Charter, CodecKind, Task},
    codec::{self, Group},
    fuse::{self, Memory, Sender},
    mixture::Layout,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::time::Instant;

/// The side of a readout of a million values. A charter that travels may not have so many labels, but neither codecs nor
/// fusion care.
const SIDE: u16 = 1_000;

/// Updates that are fused.
const UPDATES: usize = 64;

/// Times that everything is done; the median counts.
const TIMES: usize = 5;

/// What an update of a million values costs in one codec.
#[derive(Clone, Debug, Serialize)]
pub struct Coded {
    /// The codec.
    pub codec: CodecKind,
    /// Bytes of the values.
    pub bytes: usize,
    /// Seconds from values to bytes.
    pub write_seconds: f64,
    /// Seconds from bytes to integers.
    pub read_seconds: f64,
}

/// What it takes to fuse 64 updates of a million values.
#[derive(Clone, Debug, Serialize)]
pub struct Fused {
    /// Threads that compute.
    pub threads: usize,
    /// Seconds of the exact mean.
    pub mean_seconds: f64,
    /// Seconds of CMGA, whole.
    pub cmga_seconds: f64,
}

/// Writes and reads an update in every codec.
///
/// # Errors
/// None that are known.
pub fn codecs() -> Result<Vec<Coded>> {
    let mut charter = charter();
    let layout = Layout::new(&charter);
    let values = values(&layout, 1);
    let kinds = [CodecKind::F32, CodecKind::Q8, CodecKind::Q4, CodecKind::Sign, CodecKind::TopK];
    let coded = |kind| {
        charter.codec.kind = kind;
        let codec = &charter.codec;
        let write = || {
            let groups = values.iter().map(|values| codec::encode(codec, &codec::quantise(codec, values)));
            groups.collect::<Option<Vec<_>>>()
        };
        let (write_seconds, written) = median(write);
        let written = written.context("a codec that does not write what it has rounded")?;
        let (read_seconds, read) = median(|| codec::decode(codec, &layout, &written));
        read.context("a codec that does not read what it has written")?;
        let bytes = written.iter().map(|group| group.values.len()).sum();
        Ok(Coded { codec: kind, bytes, write_seconds, read_seconds })
    };
    kinds.into_iter().map(coded).collect()
}

/// Fuses, by so many threads.
pub fn fusion(threads: usize) -> Fused {
    let charter = charter();
    let layout = Layout::new(&charter);
    let update = |seed| -> Vec<Group> {
        values(&layout, seed).iter().map(|values| codec::quantise(&charter.codec, values)).collect()
    };
    let updates: Vec<_> = (0..UPDATES as u64).map(update).collect();
    let senders: Vec<_> = updates
        .iter()
        .enumerate()
        .map(|(index, groups)| {
            let author = Identity::from_seed(index as u64, "bench").id();
            Sender { author, payload: Digest::of("bench", &[&index.to_le_bytes()]), groups }
        })
        .collect();
    let (mean_seconds, _) = median(|| fuse::mean(&charter, &layout, &senders, threads));
    let (cmga_seconds, _) = median(|| fuse::fuse(&charter, &layout, &senders, &Memory::default(), threads));
    Fused { threads, mean_seconds, cmga_seconds }
}

fn charter() -> Charter {
    let task = Task::ImageClassification { labels: (0..SIDE).map(|label| label.to_string()).collect() };
    let founders = vec![Identity::from_seed(0, "bench").id()];
    let mut charter = Charter::new("bench", founders, task, Anchors { digest: Digest::ZERO, count: 128 });
    (charter.adapter.branches, charter.adapter.readout_rank) = (0, SIDE);
    charter
}

fn values(layout: &Layout, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut group = |values| (0..values).map(|_| rng.random_range(-0.01f32..0.01)).collect();
    layout.groups().iter().map(|shape| group(shape.values())).collect()
}

/// The median time of some work, and what came of it last.
fn median<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut time = || {
        let start = Instant::now();
        let done = work();
        (start.elapsed().as_secs_f64(), done)
    };
    let (first, mut last) = time();
    let mut seconds = vec![first];
    for _ in 1..TIMES {
        let (took, done) = time();
        seconds.push(took);
        last = done;
    }
    seconds.sort_by(f64::total_cmp);
    (seconds.get(seconds.len() / 2).copied().unwrap_or(first), last)
}
