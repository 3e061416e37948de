//! The libFuzzer entry of [`fuzz::xds_response`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::xds_response(data));
