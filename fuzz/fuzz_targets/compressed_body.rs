//! The libFuzzer entry of [`fuzz::compressed_body`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::compressed_body(data));
