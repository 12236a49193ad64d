//! Random traffic to an app that is at times no good, while flags come and go and the file is loaded anew: whatever a
//! client is told is the answer to its own request, and whole, or it is told that it is not.
//!
//! `FLAGSTONE_TESTS_TRAFFIC=FIRST..LAST` has other scripts run than those that every run has; they are numbered.

mod app;
mod script;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use self::app::app;
use self::script::{Answer, Ask, Script, checksum};
use crate::support::admin;
use crate::support::client::{Client, RawResponse};
use crate::support::h2::{self, Http2};
use crate::support::poll::eventually_async;
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

const SCRIPTS: std::ops::Range<u64> = 0..300;
/// For a client at a time.
const AT_ONCE: usize = 12;
const DEADLINE: Duration = Duration::from_secs(30);
/// The breaker would keep most of it away. Nothing may be tried again, so that what the app did is what is told.
const TABLES: &str = "[maintenance]\nflag = \"on.flag\"\nexempt_paths = [\"/open\"]\n[upstream.app.breaker]\n\
                      enabled = false\n[upstream.app.retry]\nattempts = 0\n";

/// How often what came, by what the app did.
type Seen = Arc<Mutex<BTreeMap<(Answer, Verdict), u64>>>;

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Whole,
    /// 502, or an answer that broke off.
    Broken,
    /// 503, by the flag.
    Blocked,
    /// It came behind an answer that said it was the last one.
    Unread,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_request_s_own_and_whole_or_says_that_it_is_not() {
    let upstream = FakeUpstream::http1().route("*", app()).start().await;
    let proxy = TestProxy::before(&upstream, TABLES, "").start().await;
    let (address, seen, room) = (proxy.address(), Seen::default(), Arc::new(Semaphore::new(AT_ONCE)));
    let (stop, stopped) = oneshot::channel();
    let disturbing = tokio::spawn(disturb(proxy, stopped));
    let mut clients = JoinSet::new();
    for seed in scripts() {
        let (seen, place) = (Arc::clone(&seen), Arc::clone(&room).acquire_owned().await.unwrap());
        clients.spawn(async move {
            let script = Script::new(seed);
            play(&script, address, &seen).await.unwrap_or_else(|error| panic!("script {seed}: {error}\n{script:?}"));
            drop(place);
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    stop.send(()).unwrap();
    let proxy = disturbing.await.unwrap();

    let is_idle = async || admin::json(proxy.admin(), "/api/metrics").await["activeRequests"] == 0;
    assert!(eventually_async(DEADLINE, is_idle).await, "nothing is left of what was asked");
    let seen = seen.lock().unwrap();
    for answer in Answer::ALL {
        let verdict = if answer.is_broken() { Verdict::Broken } else { Verdict::Whole };
        assert!(seen.get(&(answer, verdict)).is_some_and(|count| *count > 0), "{answer:?}: {seen:?}");
    }
}

fn scripts() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("FLAGSTONE_TESTS_TRAFFIC") else { return SCRIPTS };
    let (first, last) = asked.split_once("..").expect("FIRST..LAST");
    first.parse().unwrap()..last.parse().unwrap()
}

/// Switches maintenance on and off, and has the file loaded anew, until it is told to stop.
async fn disturb(proxy: TestProxy, mut stopped: oneshot::Receiver<()>) -> TestProxy {
    let config = proxy.folder.read("flagstone.toml");
    let mut round = 0;
    while let Err(oneshot::error::TryRecvError::Empty) = stopped.try_recv() {
        round += 1;
        match round % 4 {
            1 => drop(proxy.folder.touch("state/on.flag")),
            2 => proxy.folder.remove("state/on.flag"),
            _ => drop(proxy.folder.write("flagstone.toml", format!("{config}# {round}\n"))),
        }
        // As long as a state lasts, so that there is some of each.
        tokio::time::sleep(Duration::from_millis(if round % 4 == 1 { 40 } else { 80 })).await;
    }
    proxy
}

async fn play(script: &Script, address: SocketAddr, seen: &Seen) -> io::Result<()> {
    match script.is_http2 {
        true => play_http2(script, address, seen).await,
        false => play_http1(script, address, seen).await,
    }
}

/// One connection after the other, where one ends early.
async fn play_http1(script: &Script, address: SocketAddr, seen: &Seen) -> io::Result<()> {
    let mut left = script.asks.as_slice();
    while !left.is_empty() {
        let socket = TcpSocket::new_v4()?;
        if script.takes_little {
            socket.set_recv_buffer_size(4 * 1024)?;
        }
        let mut client = Client::on(socket.connect(address).await?)?.deadline(DEADLINE);
        let mut is_over = false;
        while !left.is_empty() && !is_over {
            let (burst, rest) = left.split_at(script.burst.min(left.len()));
            let bytes: Vec<u8> = burst.iter().flat_map(bytes_of).collect();
            let sent = match script.piece {
                usize::MAX => client.send(bytes).await,
                // Byte by byte only what is short.
                piece => client.send_slowly(&bytes, piece.max(bytes.len() / 200), Script::PAUSE).await,
            };
            if script.leaves {
                return Ok(());
            }
            for ask in burst {
                if is_over {
                    note(seen, ask, Verdict::Unread);
                    continue;
                }
                let read =
                    if ask.method == "HEAD" { client.read_head_response().await } else { client.read_response().await };
                let (verdict, is_last) = judge_http1(ask, read)?;
                note(seen, ask, verdict);
                is_over = is_last;
            }
            if !is_over {
                sent?;
            }
            left = rest;
        }
    }
    Ok(())
}

fn bytes_of(ask: &Ask) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\nHost: a\r\n", ask.method, ask.path()).into_bytes();
    let upload = ask.upload();
    match ask.upload {
        None => bytes.extend_from_slice(b"\r\n"),
        Some(how) if how.is_chunked => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in upload.chunks(3_000) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        Some(_) => {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", upload.len()).as_bytes());
            bytes.extend_from_slice(&upload);
        }
    }
    bytes
}

/// What an answer is, and whether none comes behind it.
fn judge_http1(ask: &Ask, read: io::Result<RawResponse>) -> io::Result<(Verdict, bool)> {
    match read {
        Ok(answer) => {
            let field = |name: &str| answer.header(name).map(str::to_owned);
            let verdict = judge(ask, answer.status, field, &answer.body)?;
            Ok((verdict, answer.header("connection").is_some_and(|words| words.contains("close"))))
        }
        // It announced more than there was.
        Err(error) if ask.answer.is_broken() && error.kind() != io::ErrorKind::TimedOut => Ok((Verdict::Broken, true)),
        Err(error) => Err(io::Error::new(error.kind(), format!("{ask:?}: {error}"))),
    }
}

async fn play_http2(script: &Script, address: SocketAddr, seen: &Seen) -> io::Result<()> {
    let connection = Http2::connect(address).await;
    let mut streams = JoinSet::new();
    for ask in script.asks.clone() {
        let mut connection = connection.clone();
        streams.spawn(async move {
            let request = Request::builder().method(ask.method).uri(format!("http://a{}", ask.path()));
            let body = if ask.upload.is_some() { h2::full(ask.upload()) } else { h2::empty() };
            let answer = tokio::time::timeout(DEADLINE, connection.send(request.body(body).unwrap())).await;
            (ask, answer)
        });
    }
    if script.leaves {
        tokio::time::sleep(Script::PAUSE).await;
        return Ok(());
    }
    while let Some(stream) = streams.join_next().await {
        let (ask, answer) = stream.unwrap();
        let verdict = match answer.map_err(|_| io::Error::other(format!("{ask:?}: no answer")))? {
            Ok(answer) => {
                let field = |name: &str| answer.header(name).map(str::to_owned);
                judge(&ask, answer.status(), field, &answer.body)?
            }
            Err(_) if ask.answer.is_broken() => Verdict::Broken,
            Err(error) => return Err(io::Error::other(format!("{ask:?}: {error:?}"))),
        };
        note(seen, &ask, verdict);
    }
    Ok(())
}

fn judge(ask: &Ask, status: u16, field: impl Fn(&str) -> Option<String>, body: &[u8]) -> io::Result<Verdict> {
    let wrong = |what: &str| Err(io::Error::other(format!("{what}: {status} to {ask:?}, {} bytes", body.len())));
    let reason = field("flagstone-reason");
    match (status, reason.as_deref()) {
        (503, Some("maintenance")) => return Ok(Verdict::Blocked),
        (502, Some("upstream_error")) if ask.answer.is_broken() => return Ok(Verdict::Broken),
        (200 | 204, None) => {}
        _ => return wrong("not what the app said"),
    }
    if field("x-id") != Some(ask.id.to_string()) {
        return wrong("an answer to another request");
    }
    // Whoever answers early has read nothing.
    let took = if ask.answer == Answer::Early { String::new() } else { checksum(&ask.upload()) };
    if field("x-took").unwrap_or_default() != took {
        return wrong("the app had another body");
    }
    if body != ask.expected() {
        return wrong("another body");
    }
    if ask.answer.is_broken() {
        return wrong("whole, and the app broke off");
    }
    Ok(Verdict::Whole)
}

fn note(seen: &Seen, ask: &Ask, verdict: Verdict) {
    *seen.lock().unwrap().entry((ask.answer, verdict)).or_default() += 1;
}
