#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| vo_fuzz::classad(data));
