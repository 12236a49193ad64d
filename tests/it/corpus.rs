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
fn traces_have_one_reading() {
    replay("trace_context", checks::trace_context::check);
}

#[test]
fn any_text_is_a_configuration_or_a_complaint() {
    replay("configuration", checks::configuration::check);
}

#[test]
fn an_answer_has_one_reading() {
    replay("answer", checks::answer::check);
}

/// The same for answers as for connections below.
#[test]
fn mutations_have_one_reading_as_answers_too() {
    mutated("answer", 20_000, checks::answer::check);
}

/// The same for the headers of proxies.
#[test]
fn mutated_forwarding_headers_are_ours_too() {
    mutated("forwarded", 20_000, checks::forwarded::check);
}

#[test]
fn a_connection_has_one_reading() {
    let bench = checks::connection::Bench::start();
    replay("connection", |bytes| bench.check(bytes));
}

/// What libFuzzer would try first: files of the corpus, cut, spliced and sprinkled with what parsers stumble over. The
/// same on every run; `FLAGSTONE_TESTS_MUTATIONS=100000` and another `FLAGSTONE_TESTS_SEED` look further.
#[test]
fn mutations_have_one_reading_too() {
    let bench = checks::connection::Bench::start();
    mutated("connection", 200, |bytes| bench.check(bytes));
}

fn mutated(target: &str, usually: u64, check: impl Fn(&[u8])) {
    let number = |name, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let mut random = fastrand::Rng::with_seed(number("FLAGSTONE_TESTS_SEED", 1));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    let seeds: Vec<_> = seeds.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for _ in 0..number("FLAGSTONE_TESTS_MUTATIONS", usually) {
        let mut bytes = random.choice(&seeds).unwrap().clone();
        for _ in 0..random.u8(1..6) {
            let other = random.choice(&seeds).unwrap();
            mutate(&mut bytes, other, &mut random);
        }
        check(&bytes);
    }
}

const STUMBLES: [&[u8]; 36] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b",",
    b";",
    b":",
    b"+",
    b"-",
    b"_",
    b"0",
    b"0x",
    b"ffffffffffffffff",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: +5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"transfer_encoding: chunked\r\n",
    b"chunked",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"Expect: 100-continue\r\n",
    b" HTTP/1.0",
    b" HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: c\r\n\r\n",
    b"POST /p HTTP/1.1\r\n",
    b"%2f..",
    b"\xff",
];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
    let at = random.usize(0..=bytes.len());
    let until = random.usize(at..=bytes.len().min(at + 40));
    match random.u8(0..6) {
        0 => drop(bytes.splice(at..at, random.choice(STUMBLES).unwrap().iter().copied())),
        1 => drop(bytes.splice(at..until, random.choice(STUMBLES).unwrap().iter().copied())),
        2 => drop(bytes.drain(at..until)),
        3 => bytes[at..until].iter_mut().take(1).for_each(|byte| *byte = random.u8(..)),
        4 => {
            let piece = bytes[at..until].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        _ => {
            let from = random.usize(0..=other.len());
            let piece = other[from..random.usize(from..=other.len())].to_vec();
            drop(bytes.splice(at..at, piece));
        }
    }
}
