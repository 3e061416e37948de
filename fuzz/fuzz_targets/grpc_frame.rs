//! The libFuzzer entry of [`fuzz::grpc_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::grpc_frame(data));
