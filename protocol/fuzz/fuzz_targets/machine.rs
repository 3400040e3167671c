//! Small networks of honest nodes and liars, in any order of events.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heterotune_fuzz::machine(bytes));
