#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flagstone_fuzz::answer::check(bytes));
