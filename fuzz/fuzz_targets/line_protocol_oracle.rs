//! The libFuzzer entry of [`fuzz::line_protocol_oracle`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::line_protocol_oracle(data));
