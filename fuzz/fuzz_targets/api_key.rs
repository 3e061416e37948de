//! The libFuzzer entry of [`fuzz::api_key`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::api_key(data));
