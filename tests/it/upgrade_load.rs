//! Upgrades while all sorts of connections are in use: every request numbered, and compared at both ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::support::certs::Ca;
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::h2::{self, Framed, flag, kind};
use crate::support::lineage::Lineage;
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::DEADLINE;
use crate::support::reply::Reply;
use crate::support::streams::{Streams, assert_each_came_once, numbers};
use crate::support::upstream::FakeUpstream;
use crate::support::websocket::WebSocket;

fn app(upstream: &FakeUpstream) -> String {
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\nidle_timeout = \"30s\"\n",
        upstream.endpoint()
    )
}

/// 2,000 a second are asked for. How many there were is printed, not judged: that is the machine's affair. What a
/// release build did is in docs/testing.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_upgrades_under_load_lose_nothing_and_double_nothing() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let line = Lineage::start(&app(&upstream)).await;
    let kept = Load::get(line.address, "/kept").tasks(48).per_second(1500).start();
    let fresh = Load::get(line.address, "/fresh").tasks(16).on_fresh_connections().per_second(500).start();
    assert!(kept.reaches(50, DEADLINE).await && fresh.reaches(50, DEADLINE).await);
    let mut pids = vec![line.pid().await];
    for round in 0..20 {
        let upgraded = line.upgrade().await;
        assert_eq!(upgraded.status.code(), Some(0), "round {round}: {upgraded:?}\n{}", line.first.stderr());
        pids.push(line.pid().await);
        assert!(kept.reaches(20, DEADLINE).await && fresh.reaches(20, DEADLINE).await, "round {round}");
    }
    pids.dedup();
    assert_eq!(pids.len(), 21, "{pids:?}");
    let (kept, fresh) = (kept.stop().await, fresh.stop().await);
    println!(
        "{:.0} requests a second on kept connections (slowest {:?}), {:.0} on fresh ones (slowest {:?}), for {:.1} s",
        kept.per_second(),
        kept.slowest,
        fresh.per_second(),
        fresh.slowest,
        kept.took.as_secs_f64()
    );
    let counts = numbers(&upstream);
    for (report, path) in [(kept, "/kept"), (fresh, "/fresh")] {
        report.assert_clean();
        assert_each_came_once(&counts[path], report.sent, path);
    }
    // Those before have ended, by themselves.
    let alone = eventually(Duration::from_secs(20), || line.processes().len() == 1).await;
    assert!(alone, "{:?}", line.processes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_under_http2_and_tls_lose_nothing_and_double_nothing() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let secure = "[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
                  certificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n";
    let rest = format!("{secure}{}", app(&upstream));
    let mut line = Lineage::start_in(folder, &rest, "shutdown_grace = \"5s\"\n").await;
    let told = line.first.stderr_line("listening name=secure ").await;
    let secure = told.split("address=").nth(1).unwrap().trim().parse().unwrap();
    let client = ca.client_config(&[b"http/1.1"]);
    let over_tls = |path| Load::get(secure, path).tasks(4).pause(Duration::from_millis(10));
    let kept = over_tls("/kept").over_tls("site.example", Arc::clone(&client)).start();
    let fresh = over_tls("/fresh").over_tls("site.example", client).on_fresh_connections().start();
    let streams = Streams::start(line.address, "/streams", 4, 8);
    for round in 0..5 {
        let upgraded = line.upgrade().await;
        assert_eq!(upgraded.status.code(), Some(0), "round {round}: {upgraded:?}\n{}", line.first.stderr());
        assert!(kept.reaches(20, DEADLINE).await && fresh.reaches(20, DEADLINE).await, "round {round}");
    }
    let (kept, fresh, (sent, opened)) = (kept.stop().await, fresh.stop().await, streams.stop().await);
    // Each upgrade ends those of before.
    assert!(opened > 4, "{opened}");
    let counts = numbers(&upstream);
    assert_each_came_once(&counts["/streams"], sent, "/streams");
    for (report, path) in [(kept, "/kept"), (fresh, "/fresh")] {
        report.assert_clean();
        assert_each_came_once(&counts[path], report.sent, path);
    }
}

/// The old process lets a WebSocket speak until its grace is over, the new one takes new ones at once.
#[tokio::test]
async fn a_websocket_goes_on_through_an_upgrade_until_the_grace_of_the_old_process_is_over() {
    let upstream = FakeUpstream::http1().route("/chat", Reply::upgrade()).start().await;
    let mut line = Lineage::start_in(Folder::new(), &app(&upstream), "shutdown_grace = \"6s\"\n").await;
    let before = WebSocket::connect(line.address, "/chat").await.unwrap();
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    let after = WebSocket::connect(line.address, "/chat").await.unwrap();
    let mut echoes = 0;
    let mut old = before.into_client();
    let cut = loop {
        // Once the bytes are on their way the end may come at any moment.
        let sent = old.send("are you there").await;
        match sent.and(old.read_exactly(13).await.map(|echo| assert_eq!(echo, b"are you there"))) {
            Ok(()) => echoes += 1,
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(echoes > 5, "{echoes}, then {cut}");
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
    let log = line.first.stderr();
    assert!(log.contains("did not finish within shutdown_grace"), "cut by nothing but the grace: {log}");
    let mut new = after.into_client();
    new.send("and you").await.unwrap();
    assert_eq!(new.read_exactly(7).await.unwrap(), b"and you");
}

#[tokio::test]
async fn http2_is_told_to_go_and_its_streams_finish_where_they_began() {
    let events = Reply::event_stream("tick", Duration::from_millis(100));
    let slow = Reply::ok("at last").after(Duration::from_secs(3));
    let upstream = FakeUpstream::http1().route("/slow", slow).route("/events", events).route("*", "ok").start().await;
    let mut line = Lineage::start(&app(&upstream)).await;
    let mut old = Framed::connect(line.address).await;
    let get = |stream: u32, path: &str| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "app"), (":path", path)];
        h2::frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, h2::block(&fields))
    };
    assert!(old.send(&get(1, "/slow")).await && old.send(&get(3, "/events")).await);
    assert!(eventually(DEADLINE, || upstream.requests().len() == 2).await);
    // GOAWAY in two steps: no more, please; and, once the client must have heard it, which one was the last.
    let (mut last_streams, mut bodies, mut ticks_after) = (Vec::new(), BTreeMap::<u32, Vec<u8>>::new(), 0);
    let listening = async {
        while let Some(frame) = old.read().await {
            match frame.kind {
                kind::PING if !frame.is(kind::PING, flag::ACK) => {
                    // A stream that was on its way when GOAWAY came.
                    assert!(old.send(&get(5, "/last")).await);
                    assert!(old.send(&h2::frame(kind::PING, flag::ACK, 0, &frame.payload)).await);
                }
                kind::GOAWAY => {
                    assert_eq!(frame.code(), Some(0));
                    last_streams.push(u32::from_be_bytes(frame.payload[..4].try_into().unwrap()));
                }
                kind::DATA => {
                    ticks_after += u32::from(frame.stream == 3 && !last_streams.is_empty());
                    bodies.entry(frame.stream).or_default().extend_from_slice(&frame.payload);
                    // The stream that never ends is left alone until all others have ended.
                    if bodies.contains_key(&1) && bodies.contains_key(&5) && ticks_after > 5 {
                        assert!(old.send(&h2::frame(kind::RST_STREAM, 0, 3, 8_u32.to_be_bytes())).await);
                    }
                }
                kind::RST_STREAM => panic!("{frame:?}"),
                _ => {}
            }
        }
    };
    let (upgraded, ()) = tokio::join!(line.upgrade(), listening);
    assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
    assert_eq!(last_streams, [u32::MAX >> 1, 5]);
    assert_eq!((&bodies[&1][..], &bodies[&5][..]), (&b"at last"[..], &b"ok"[..]));
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
    assert!(!line.first.stderr().contains("did not finish"), "{}", line.first.stderr());
    assert_eq!(line.get("/").await.text(), "ok");
}

/// A kept connection over TLS is told with its next answer, and not cut before.
#[tokio::test]
async fn a_kept_connection_over_tls_has_its_next_answer_from_the_old_process() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let rest = "[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
                certificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n";
    let mut line = Lineage::start_in(folder, rest, "shutdown_grace = \"5s\"\n").await;
    let told = line.first.stderr_line("listening name=secure ").await;
    let secure = told.split("address=").nth(1).unwrap().trim().parse().unwrap();
    let open = async || Client::connect_tls(secure, "site.example", ca.client_config(&[b"http/1.1"])).await.unwrap();
    let mut kept = open().await;
    assert_eq!(kept.get("/").await.unwrap().text(), "ok");
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    // The drain begins a moment after the command has its answer.
    let is_last = async || {
        let answer = kept.get("/").await.unwrap();
        assert_eq!(answer.text(), "ok");
        answer.header("connection") == Some("close")
    };
    assert!(eventually_async(DEADLINE, is_last).await);
    kept.expect_closed().await.unwrap();
    assert_eq!(open().await.get("/").await.unwrap().header("connection"), None);
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
}
