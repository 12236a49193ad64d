//! What fuzzing has found or grown from, on every run: each file of `fuzz/corpus` through its check.

#[path = "../../fuzz/src/lib.rs"]
#[allow(dead_code, unreachable_pub, reason = "a crate of its own for the targets")]
mod checks;

use std::path::Path;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{} files in {}", files.len(), folder.display());
    for file in files {
        check(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn paths_have_one_normal_form() {
    replay("path", checks::path::check);
}

#[test]
fn forwarding_headers_are_ours() {
    replay("forwarded", checks::forwarded::check);
}

#[test]
fn proxy_headers_mean_what_they_say() {
    replay("proxy_header", checks::proxy_header::check);
}

#[test]
fn any_bytes_are_a_flag() {
    replay("flag", checks::flag::check);
}

#[test]
fn any_text_is_a_configuration_or_a_complaint() {
    replay("configuration", checks::configuration::check);
}

#[test]
fn a_connection_has_one_reading() {
    let bench = checks::connection::Bench::start();
    replay("connection", |bytes| bench.check(bytes));
}
