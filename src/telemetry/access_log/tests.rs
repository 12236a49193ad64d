use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

/// 2026-11-22T22:32:58.007Z
const AT: u64 = 1_795_386_778_007;

fn line<'a>() -> Line<'a> {
    Line {
        unix_ms: AT,
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        authorization: None,
        method: "GET",
        target: b"/",
        version: http::Version::HTTP_11,
        status: 200,
        body_bytes: 5,
        duration: Duration::from_micros(12_045),
        upstream: None,
        endpoint: None,
        upstream_duration: None,
        route: None,
        reason: None,
        request_id: None,
        trace_id: None,
        referer: None,
        user_agent: None,
        host: None,
    }
}

fn combined_text(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    combined::write(&mut out, line, &mut Stamp::in_zone(TimeZone::UTC));
    String::from_utf8(out).expect("combined is ASCII")
}

fn json_value(line: &Line<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    json::write(&mut out, line, &mut Stamp::in_zone(TimeZone::UTC));
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n'), "one line");
    serde_json::from_slice(&out).expect("valid JSON")
}

/// What nginx 1.22.1 wrote for the same requests, clock aside.
#[test]
fn nasty_requests_read_as_nginx_writes_them() {
    let nasty = Line {
        target: b"/a\"b\\c",
        user_agent: Some(b"q\"u\\o\te\x01\x7f\xff\xc3\xa9~ z"),
        referer: Some(b"http://x/\"\\"),
        ..line()
    };
    assert_eq!(
        combined_text(&nasty),
        r#"127.0.0.1 - - [22/Nov/2026:22:32:58 +0000] "GET /a\x22b\x5Cc HTTP/1.1" 200 5 "http://x/\x22\x5C" "q\x22u\x5Co\x09e\x01\x7F\xFF\xC3\xA9~ z""#
            .to_owned()
            + "\n"
    );
    let utf8_and_empty = Line { target: b"/\xc3\xa9?x=\xff", user_agent: Some(b""), referer: Some(b"-"), ..line() };
    assert_eq!(
        combined_text(&utf8_and_empty),
        "127.0.0.1 - - [22/Nov/2026:22:32:58 +0000] \"GET /\\xC3\\xA9?x=\\xFF HTTP/1.1\" 200 5 \"-\" \"\"\n"
    );
}

/// The users nginx 1.22.1 named for these `Authorization` values.
#[test]
fn basic_users_read_as_nginx_names_them() {
    let user = |authorization: &[u8]| {
        let text = combined_text(&Line { authorization: Some(authorization), ..line() });
        let user = text
            .strip_prefix("127.0.0.1 - ")
            .and_then(|rest| rest.split_once(" ["))
            .expect("the user stands before the time")
            .0;
        user.to_owned()
    };
    assert_eq!(user(b"Basic YWxpY2U6c2VjcmV0"), "alice");
    assert_eq!(user(b"Basic   YWxpY2U6c2VjcmV0"), "alice");
    assert_eq!(user(b"bAsic YWwiaVxjZQo6eA=="), r"al\x22i\x5Cce\x0A");
    assert_eq!(user(b"Basic w6kgYjp4"), r"\xC3\xA9 b");
    assert_eq!(user(b"Basic Ong="), "-");
    assert_eq!(user(b"Basic bm9jb2xvbg=="), "-");
    assert_eq!(user(b"Basic !!!!"), "-");
    assert_eq!(user(b"Bearer YWxpY2U6c2VjcmV0"), "-");
    assert_eq!(user(&[b'A'; 5000]), "-");
}

#[test]
fn unix_clients_and_other_versions_have_their_nginx_names() {
    let text = combined_text(&Line { client: None, version: http::Version::HTTP_2, ..line() });
    assert!(text.starts_with("unix: - - ["), "{text}");
    assert!(text.contains("\"GET / HTTP/2.0\""), "{text}");
}

#[test]
fn json_says_everything_by_name() {
    let full = Line {
        upstream: Some("app"),
        endpoint: Some("10.0.0.1:3000"),
        upstream_duration: Some(Duration::from_micros(9_900)),
        route: Some("api"),
        reason: Some("upstream_timeout"),
        request_id: Some("r-1"),
        host: Some(b"example.com"),
        target: b"/x?maintenance_bypass=hush&y=1",
        ..line()
    };
    assert_eq!(
        json_value(&full),
        serde_json::json!({
            "time": "2026-11-22T22:32:58.007Z", "client": "127.0.0.1", "method": "GET",
            "target": "/x?maintenance_bypass=***&y=1", "version": "HTTP/1.1", "status": 200, "bytes": 5,
            "duration_ms": 12.045, "upstream": "app", "endpoint": "10.0.0.1:3000", "upstream_ms": 9.9,
            "route": "api", "reason": "upstream_timeout", "request_id": "r-1", "referer": null,
            "agent": null, "host": "example.com",
        })
    );
    let traced = json_value(&Line { trace_id: Some([b'a'; 32]), ..full });
    assert_eq!(traced["trace_id"], "a".repeat(32));
}

/// The inverse of nginx's escaping; `None` when a byte stands there that should not.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match first {
            b'\\' => {
                let hex = std::str::from_utf8(tail.get(1..3)?).ok()?;
                if tail[0] != b'x' || hex.bytes().any(|b| b.is_ascii_lowercase()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(hex, 16).ok()?);
                rest = &tail[3..];
            }
            b'"' | 0..=31 | 127.. => return None,
            plain => {
                bytes.push(plain);
                rest = tail;
            }
        }
    }
    Some(bytes)
}

proptest! {
    #[test]
    fn combined_reads_back(
        target in proptest::collection::vec(any::<u8>().prop_filter("no space", |b| *b != b' '), 0..60),
        referer in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60)),
        agent in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let text = combined_text(&Line {
            target: &target,
            referer: referer.as_deref(),
            user_agent: Some(&agent),
            ..line()
        });
        let parts: Vec<&str> = text.strip_suffix("\n").unwrap().split('"').collect();
        prop_assert_eq!(parts.len(), 7);
        let request: Vec<&str> = parts[1].split(' ').collect();
        prop_assert_eq!(request.len(), 3);
        prop_assert_eq!(unescape(request[1].as_bytes()).unwrap(), target);
        prop_assert_eq!(parts[2], " 200 5 ");
        let expected = referer.unwrap_or_else(|| b"-".to_vec());
        prop_assert_eq!(unescape(parts[3].as_bytes()).unwrap(), expected);
        prop_assert_eq!(unescape(parts[5].as_bytes()).unwrap(), agent);
    }

    #[test]
    fn json_is_valid_for_any_bytes(
        target in proptest::collection::vec(any::<u8>(), 0..80),
        agent in "\\PC*|[\u{0}-\u{a0}\u{2028}\u{2029}\"\\\\]*",
    ) {
        let value = json_value(&Line { target: &target, user_agent: Some(agent.as_bytes()), ..line() });
        let lossy = String::from_utf8_lossy(&target);
        prop_assert_eq!(value["target"].as_str().unwrap(), lossy.as_ref());
        prop_assert_eq!(value["agent"].as_str().unwrap(), agent);
    }
}

fn start(path: &Path, workers: usize) -> AccessLog {
    AccessLog::start(AccessLogTarget::File(path.to_owned()), AccessFormat::Combined, workers)
        .expect("the folder exists")
}

fn write_numbered(log: &AccessLog, worker: usize, number: usize) {
    let target = format!("/{worker}/{number}");
    log.write(worker, &Line { target: target.as_bytes(), ..line() });
}

/// The targets of all lines, each line whole.
fn targets(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            assert!(line.starts_with("127.0.0.1 - - [") && line.ends_with("200 5 \"-\" \"-\""), "torn: {line:?}");
            line.split(' ').nth(6).expect("a target").to_owned()
        })
        .collect()
}

/// Polls until `done`, or fails after ten seconds.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nowhere/access.log");
    let error = AccessLog::start(AccessLogTarget::File(path), AccessFormat::Json, 1).unwrap_err();
    assert!(error.to_string().contains("nowhere does not exist"), "{error}");
}

#[test]
fn off_takes_everything_and_does_nothing() {
    let log = AccessLog::start(AccessLogTarget::Off, AccessFormat::Combined, 2).unwrap();
    assert!(!log.is_on());
    log.write(0, &line());
    log.reopen().unwrap();
    log.flush().unwrap();
    assert_eq!(log.dropped(), 0);
}

#[test]
fn flush_puts_every_line_into_a_file_others_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "kept\n").unwrap();
    let log = start(&path, 2);
    write_numbered(&log, 0, 1);
    write_numbered(&log, 7, 2);
    log.flush().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(targets(text.strip_prefix("kept\n").unwrap()), ["/0/1", "/7/2"]);
    let fresh = folder.path().join("fresh.log");
    drop(start(&fresh, 1));
    assert_eq!(fs::metadata(&fresh).unwrap().permissions().mode() & 0o137, 0);
}

/// As a process leaves it that ends while the disk is full.
#[test]
fn behind_a_part_of_a_line_the_first_one_begins_a_line_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "whole\npart").unwrap();
    let log = start(&path, 1);
    write_numbered(&log, 0, 1);
    log.flush().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(targets(text.strip_prefix("whole\npart\n").expect(&text)), ["/0/1"]);
}

#[test]
fn a_single_line_arrives_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = start(&path, 1);
    for round in 1..4 {
        write_numbered(&log, 0, round);
        eventually("the line is written by itself", || fs::read_to_string(&path).unwrap().lines().count() == round);
    }
}

#[test]
fn rotation_loses_and_doubles_nothing() {
    const LINES: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = start(&path, 2);
    let mut files = vec![path.clone()];
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..LINES {
                        write_numbered(log, worker, number);
                        if number % 1000 == 0 {
                            // Lines are made faster here than by requests: the bound is not what is tested.
                            log.flush().unwrap();
                        }
                    }
                })
            })
            .collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            let rotated = folder.path().join(format!("access.log.{}", files.len()));
            fs::rename(&path, &rotated).unwrap();
            log.reopen().unwrap();
            files.push(rotated);
            std::thread::yield_now();
        }
    });
    drop(log);
    let mut seen = HashMap::new();
    for file in &files {
        for target in targets(&fs::read_to_string(file).unwrap()) {
            *seen.entry(target).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), 2 * LINES);
    assert!(seen.values().all(|&count| count == 1));
    assert!(files.len() > 2);
}

/// Opens both ends of a new FIFO: the log's through `start`, ours for reading without waiting.
fn fifo(folder: &Path, workers: usize) -> (AccessLog, File) {
    let path = folder.join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let reader = read_end(&path);
    (start(&path, workers), reader)
}

fn read_end(fifo: &Path) -> File {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::open(fifo, flags, rustix::fs::Mode::empty()).unwrap().into()
}

#[test]
fn a_stalled_reader_costs_lines_not_time_and_recovery_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut reader) = fifo(folder.path(), 1);
    let mut written = 0;
    while log.dropped() < 10 {
        write_numbered(&log, 0, written);
        written += 1;
        assert!(written < 1_000_000, "never full");
    }
    assert!(log.is_dropping());
    assert_eq!(log.flush().unwrap_err().kind(), io::ErrorKind::TimedOut, "a flush does not wait for ever");

    let mut text = Vec::new();
    eventually("the lines arrive and the log recovers", || {
        let _ = reader.read_to_end(&mut text);
        !log.is_dropping()
    });
    let arrived = targets(std::str::from_utf8(&text).unwrap());
    assert_eq!(arrived.len() as u64 + log.dropped(), written as u64);
    assert_eq!(arrived[0], "/0/0");
    // Nothing besides where the writer comes to its turn only now; a line has less than a hundred bytes.
    assert!(text.len() > BUFFER_MAX - 100, "a whole buffer was kept");

    write_numbered(&log, 0, written);
    text.clear();
    eventually("the log goes on", || {
        let _ = reader.read_to_end(&mut text);
        !text.is_empty()
    });
}

#[test]
fn a_stalled_log_stops_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _reader) = fifo(folder.path(), 2);
    for number in 0..4000 {
        write_numbered(&log, number % 2, number);
    }
    let begun = Instant::now();
    drop(log);
    assert!(begun.elapsed() < FLUSH_TIMEOUT);
}

#[test]
fn a_reader_that_is_merely_slow_gets_the_last_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut reader) = fifo(folder.path(), 2);
    for number in 0..4000 {
        write_numbered(&log, number % 2, number);
    }
    let end = std::thread::spawn(move || drop(log));
    let mut text = Vec::new();
    eventually("the log ends", || {
        let _ = reader.read_to_end(&mut text);
        end.is_finished()
    });
    let _ = reader.read_to_end(&mut text);
    assert_eq!(targets(std::str::from_utf8(&text).unwrap()).len(), 4000);
}

#[test]
fn rotation_frees_a_log_from_a_stalled_file() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut reader) = fifo(folder.path(), 1);
    for number in 0..4000 {
        write_numbered(&log, 0, number);
    }
    eventually("the pipe is full", || log.flush().is_err());
    let path = folder.path().join("fifo");
    fs::rename(&path, folder.path().join("old")).unwrap();
    log.reopen().unwrap();
    log.flush().unwrap();
    let mut old = Vec::new();
    let _ = reader.read_to_end(&mut old);
    // The old file may end in a part of a line; the new one begins with all of it.
    let whole = old.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let mut all = targets(std::str::from_utf8(&old[..whole]).unwrap());
    all.extend(targets(&fs::read_to_string(&path).unwrap()));
    let expected: Vec<String> = (0..4000).map(|number| format!("/0/{number}")).collect();
    assert_eq!(all, expected);
}

#[test]
fn what_cannot_be_written_to_is_said_to_be_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let [socket, pipe] = ["socket", "pipe"].map(|name| folder.path().join(name));
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for path in [&socket, &pipe] {
        let error = AccessLog::start(AccessLogTarget::File(path.clone()), AccessFormat::Combined, 1).unwrap_err();
        assert_eq!(error.to_string(), "it is a socket, or a pipe that nobody reads");
    }
    assert!(AccessLog::could_start(&AccessLogTarget::File(socket.clone())).is_err(), "check says so, too");
    let needs_a_reader = |path: &Path| AccessLog::needs_a_reader(&AccessLogTarget::File(path.to_path_buf()));
    assert!(needs_a_reader(&pipe) && !needs_a_reader(&socket) && !needs_a_reader(&folder.path().join("access.log")));
}

#[test]
fn a_reader_that_goes_away_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let (log, reader) = fifo(folder.path(), 1);
    drop(reader);
    write_numbered(&log, 0, 1);
    log.flush().unwrap();
    assert_eq!(log.dropped(), 1);
}

/// Nobody reads it, however few lines there are to lose.
#[test]
fn a_log_without_a_reader_recovers_with_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let (log, reader) = fifo(folder.path(), 1);
    drop(reader);
    write_numbered(&log, 0, 1);
    log.flush().unwrap();
    let lost = Instant::now();
    while lost.elapsed() < Duration::from_millis(1300) {
        log.flush().unwrap();
        assert!(log.is_dropping(), "after {:?}", lost.elapsed());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let _reader = read_end(&folder.path().join("fifo"));
    write_numbered(&log, 0, 2);
    eventually("the log recovers", || !log.is_dropping());
    assert_eq!(log.dropped(), 1);
}

#[test]
fn a_full_disk_holds_lines_back_until_the_log_is_moved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let log = start(&path, 1);
    write_numbered(&log, 0, 1);
    assert_eq!(log.flush().unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(log.dropped(), 0, "held, not lost");
    fs::remove_file(&path).unwrap();
    log.reopen().unwrap();
    log.flush().unwrap();
    assert_eq!(targets(&fs::read_to_string(&path).unwrap()), ["/0/1"]);
}

#[test]
fn a_failed_reopen_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, moved) = (folder.path().join("logs"), folder.path().join("moved"));
    fs::create_dir(&inner).unwrap();
    let log = start(&inner.join("access.log"), 1);
    fs::rename(&inner, &moved).unwrap();
    assert!(log.reopen().is_err());
    write_numbered(&log, 0, 1);
    log.flush().unwrap();
    let text = fs::read_to_string(moved.join("access.log")).unwrap();
    assert_eq!(targets(&text), ["/0/1"]);
}
