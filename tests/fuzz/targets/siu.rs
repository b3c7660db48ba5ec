#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wayfarer::sim::fuzz::run("siu", data));
