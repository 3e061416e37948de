//! The libFuzzer entry of [`fuzz::datadog`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::datadog(data));
