//! Random traffic, each answer looked at: to an app that is at times no good, while flags come and go and the file is
//! loaded anew; and to two that are killed and come back, while requests are held for them. Whatever a client is told is the
//! answer to its own request, and whole, or it is told that it is not.
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

use self::app::{Counts, app};
use self::script::{Answer, Ask, Script, checksum};
use crate::support::admin;
use crate::support::client::{Client, RawResponse};
use crate::support::h2::{self, Http2};
use crate::support::poll::eventually_async;
use crate::support::proxy::{TestProxy, in_turn};
use crate::support::upstream::FakeUpstream;

const SCRIPTS: std::ops::Range<u64> = 0..300;
/// For a client at a time.
const AT_ONCE: usize = 12;
const DEADLINE: Duration = Duration::from_secs(30);
/// The breaker would keep most of it away. Nothing may be tried again, so that what the app did is what is told.
const TABLES: &str = "[maintenance]\nflag = \"on.flag\"\nexempt_paths = [\"/open\"]\n[upstream.app.breaker]\n\
                      enabled = false\n[upstream.app.retry]\nattempts = 0\n";

/// Whatever may be sent again waits for an app that is gone, however often it goes.
const HELD: &str = "hold = \"20s\"\nmax_in_flight = 4\n[upstream.app.breaker]\nenabled = false\n\
                    [upstream.app.retry]\nattempts = 10\n";

/// How often what came, by what the app did.
type Seen = BTreeMap<(Answer, Verdict), u64>;

/// Where a script is played, and what it meets with.
struct Scene {
    address: SocketAddr,
    seen: Mutex<Seen>,
    /// The app is killed now and then: any answer may break off, and what cannot be sent again gets none.
    is_killed: bool,
}

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
    let upstream = FakeUpstream::http1().route("*", app(&Counts::default())).start().await;
    let proxy = TestProxy::before(&upstream, TABLES, "").start().await;
    let (address, admin) = (proxy.address(), proxy.admin());
    let seen = play_all(address, admin, &Answer::ALL, false, |stopped| disturb(proxy, stopped)).await;
    for answer in Answer::ALL {
        let verdict = if answer.is_broken() { Verdict::Broken } else { Verdict::Whole };
        assert!(seen.get(&(answer, verdict)).is_some_and(|count| *count > 0), "{answer:?}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_sent_again_is_answered_though_the_app_is_killed_and_nothing_else_is_sent_twice() {
    let counts = Counts::default();
    let start = || FakeUpstream::http1().route("*", app(&counts)).start();
    let apps = [start().await, start().await];
    let proxy = TestProxy::toml(in_turn(&[&apps[0], &apps[1]], HELD)).start().await;
    let (address, admin) = (proxy.address(), proxy.admin());
    let seen = play_all(address, admin, &Answer::GOOD, true, |stopped| kill(proxy, apps, stopped)).await;
    for answer in Answer::GOOD {
        assert!(seen.get(&(answer, Verdict::Whole)).is_some_and(|count| *count > 0), "{answer:?}: {seen:?}");
    }
    let counts = counts.lock().unwrap();
    let again: Vec<_> = counts.iter().filter(|((method, _), times)| method == "POST" && **times > 1).collect();
    assert_eq!(again, [], "a POST that may have been looked at is not sent again");
    assert!(counts.values().any(|times| *times > 1), "nothing else was either: no app was killed in time");
}

/// Plays all scripts, some of them at a time, with these answers, while `trouble` is made until it is told to stop.
async fn play_all<T: Future<Output = TestProxy> + Send + 'static>(
    address: SocketAddr,
    admin: SocketAddr,
    answers: &'static [Answer],
    is_killed: bool,
    trouble: impl FnOnce(oneshot::Receiver<()>) -> T,
) -> Seen {
    let scene = Arc::new(Scene { address, seen: Mutex::default(), is_killed });
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let (stop, stopped) = oneshot::channel();
    let trouble = tokio::spawn(trouble(stopped));
    let mut clients = JoinSet::new();
    for seed in scripts() {
        let (scene, place) = (Arc::clone(&scene), Arc::clone(&room).acquire_owned().await.unwrap());
        clients.spawn(async move {
            let script = Script::new(seed, answers);
            scene.play(&script).await.unwrap_or_else(|error| panic!("script {seed}: {error}\n{script:?}"));
            drop(place);
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    stop.send(()).unwrap();
    let _proxy = trouble.await.unwrap();
    let is_idle = async || admin::json(admin, "/api/metrics").await["activeRequests"] == 0;
    assert!(eventually_async(DEADLINE, is_idle).await, "nothing is left of what was asked");
    std::mem::take(&mut *scene.seen.lock().unwrap())
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
    while stopped.try_recv().is_err() {
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

/// Kills one app, the other, or both, and starts them again, until it is told to stop.
async fn kill(proxy: TestProxy, apps: [FakeUpstream; 2], mut stopped: oneshot::Receiver<()>) -> TestProxy {
    let mut round = 0;
    while stopped.try_recv().is_err() {
        round += 1;
        let killed = [&apps[..1], &apps[1..], &apps[..]][round % 3];
        for app in killed {
            app.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        for app in killed {
            app.restart().await;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    proxy
}

impl Scene {
    async fn play(&self, script: &Script) -> io::Result<()> {
        match script.is_http2 {
            true => self.play_http2(script).await,
            false => self.play_http1(script).await,
        }
    }

    /// One connection after the other, where one ends early.
    async fn play_http1(&self, script: &Script) -> io::Result<()> {
        let mut left = script.asks.as_slice();
        while !left.is_empty() {
            let socket = TcpSocket::new_v4()?;
            if script.takes_little {
                socket.set_recv_buffer_size(4 * 1024)?;
            }
            let mut client = Client::on(socket.connect(self.address).await?)?.deadline(DEADLINE);
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
                        self.note(ask, Verdict::Unread);
                        continue;
                    }
                    let read = if ask.method == "HEAD" {
                        client.read_head_response().await
                    } else {
                        client.read_response().await
                    };
                    let (verdict, is_last) = self.judge_http1(ask, read)?;
                    self.note(ask, verdict);
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

    /// What an answer is, and whether none comes behind it.
    fn judge_http1(&self, ask: &Ask, read: io::Result<RawResponse>) -> io::Result<(Verdict, bool)> {
        match read {
            Ok(answer) => {
                let field = |name: &str| answer.header(name).map(str::to_owned);
                let verdict = self.judge(ask, answer.status, field, &answer.body)?;
                Ok((verdict, answer.header("connection").is_some_and(|words| words.contains("close"))))
            }
            // It announced more than there was.
            Err(error) if self.may_break(ask) && error.kind() != io::ErrorKind::TimedOut => Ok((Verdict::Broken, true)),
            Err(error) => Err(io::Error::new(error.kind(), format!("{ask:?}: {error}"))),
        }
    }

    async fn play_http2(&self, script: &Script) -> io::Result<()> {
        let connection = Http2::connect(self.address).await;
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
                    self.judge(&ask, answer.status(), field, &answer.body)?
                }
                Err(_) if self.may_break(&ask) => Verdict::Broken,
                Err(error) => return Err(io::Error::other(format!("{ask:?}: {error:?}"))),
            };
            self.note(&ask, verdict);
        }
        Ok(())
    }

    fn judge(
        &self,
        ask: &Ask,
        status: u16,
        field: impl Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> io::Result<Verdict> {
        let wrong = |what: &str| Err(io::Error::other(format!("{what}: {status} to {ask:?}, {} bytes", body.len())));
        let reason = field("flagstone-reason");
        match (status, reason.as_deref()) {
            (503, Some("maintenance")) => return Ok(Verdict::Blocked),
            (502, Some("upstream_error")) if self.may_fail(ask) => return Ok(Verdict::Broken),
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

    fn note(&self, ask: &Ask, verdict: Verdict) {
        *self.seen.lock().unwrap().entry((ask.answer, verdict)).or_default() += 1;
    }

    /// Whether its answer may break off.
    fn may_break(&self, ask: &Ask) -> bool {
        self.is_killed || ask.answer.is_broken()
    }

    /// Whether it may be that there is no answer.
    fn may_fail(&self, ask: &Ask) -> bool {
        ask.answer.is_broken() || (self.is_killed && !ask.is_repeatable())
    }
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
