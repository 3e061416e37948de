//! The libFuzzer entry of [`fuzz::rate_limit_request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::rate_limit_request(data));
