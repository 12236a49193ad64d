#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        // As Rust's own main does, which is not here: a peer that is gone is an error, not the end of the process.
        // SAFETY: no other thread runs yet.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    },
    |bytes: &[u8]| flagstone_fuzz::connection::check(bytes)
);
