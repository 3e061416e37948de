//! The libFuzzer entry of [`fuzz::remote_write`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::remote_write(data));
