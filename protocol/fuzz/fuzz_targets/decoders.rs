//! Bytes from the wire: what is decoded is written as the same bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heterotune_fuzz::decoders(bytes));
