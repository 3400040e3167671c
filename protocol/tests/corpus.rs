//! What fuzzing has found worth keeping (`fuzz/`), and drawn inputs, through the same functions.

use std::{fs, path::Path};

#[path = "../fuzz/src/lib.rs"]
pub mod harness;

/// Runs a target on every file of its corpus, and on `drawn` drawn inputs.
fn replay(target: &str, drawn: u64, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        println!("{}", file.display());
        run(&fs::read(file).unwrap());
    }
    for seed in 0..drawn {
        println!("drawn {seed}");
        run(&drawn_bytes(seed));
    }
}

/// Up to 511 bytes (Steele, Lea and Flood 2014: SplitMix64).
fn drawn_bytes(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let length = next() % 512;
    (0..length).map(|_| next() as u8).collect()
}

#[test]
fn decoders() {
    replay("decoders", 2_000, harness::decoders);
}

#[test]
fn load() {
    replay("load", 100, harness::load);
}

#[test]
fn machine() {
    replay("machine", 200, harness::machine);
}
