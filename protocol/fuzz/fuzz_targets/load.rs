//! A disk that holds anything: a node starts from it and goes on.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heterotune_fuzz::load(bytes));
