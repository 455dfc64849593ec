#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::of_tune::cpu_set(bytes));
