//! The libFuzzer entry of [`fuzz::otlp_json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::otlp_json(data));
