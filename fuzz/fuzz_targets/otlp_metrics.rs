//! The libFuzzer entry of [`fuzz::otlp_metrics`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::otlp_metrics(data));
