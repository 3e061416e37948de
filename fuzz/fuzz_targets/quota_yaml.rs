//! The libFuzzer entry of [`fuzz::quota_yaml`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::quota_yaml(data));
