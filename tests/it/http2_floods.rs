//! Attacks on HTTP/2: each ends, costs the app little, and the proxy little memory.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::client;
use crate::support::h2::{self, Framed, flag, frame, kind};
use crate::support::process::Flagstone;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const ENHANCE_YOUR_CALM: u32 = 0xb;
/// Connections at once, each attacking.
const MANY: usize = 10;
const FEW: usize = 3;
const MIB: u64 = 1 << 20;

/// A site with the usual bounds, and its app.
async fn site(reply: Reply) -> (Flagstone, SocketAddr, FakeUpstream) {
    let upstream = FakeUpstream::http1().route("/quick", "quick").route("*", reply).start().await;
    let mut flagstone = Flagstone::serve(&format!(
        "[server]\nstate_dir = \"state\"\n[log]\naccess = \"off\"\n[admin]\nlisten = \"\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    ))
    .await;
    let address = flagstone.address("web").await;
    // What the first request brings with it is not the attack's.
    assert_eq!(client::get(address, "/quick").await.unwrap().text(), "quick");
    (flagstone, address, upstream)
}

/// What came of an attack.
struct Outcome {
    name: &'static str,
    clients: Vec<Framed>,
    growth_bytes: u64,
    /// What the app got.
    requests: usize,
    /// Ends when it is dropped.
    _flagstone: Flagstone,
}

/// Lets so many clients send `first`, then `rest` so many `times`, and looks at the memory all the while.
async fn attack(
    name: &'static str,
    attackers: usize,
    reply: Reply,
    first: Vec<u8>,
    rest: impl Fn(u32) -> Vec<u8>,
    times: u32,
) -> Outcome {
    let (flagstone, address, upstream) = site(reply).await;
    let before = flagstone.resident_bytes();
    let mut most = before;
    let mut clients = Vec::new();
    for _ in 0..attackers {
        let mut client = Framed::connect(address).await;
        client.send(&first).await;
        clients.push(client);
    }
    for round in 0..times {
        let bytes = rest(round);
        for client in &mut clients {
            // A write that fails, or that nobody takes, is the other side's answer.
            let _ = tokio::time::timeout(Duration::from_secs(1), client.send(&bytes)).await;
        }
        most = most.max(flagstone.resident_bytes());
    }
    assert_eq!(client::get(address, "/quick").await.unwrap().text(), "quick", "others are served meanwhile");
    most = most.max(flagstone.resident_bytes());
    let requests = upstream.requests().len() - 2;
    Outcome { name, clients, growth_bytes: most - before, requests, _flagstone: flagstone }
}

impl Outcome {
    /// How each connection came to its end; `None` where it goes on.
    async fn ends(&mut self) -> Vec<Option<u32>> {
        let mut codes = Vec::new();
        for client in &mut self.clients {
            codes.push(tokio::time::timeout(h2::PATIENCE, client.ends_with()).await.ok());
        }
        codes
    }

    async fn assert_sent_away(&mut self) {
        let codes = self.ends().await;
        // A client whose writes fail may not get to read why.
        assert!(codes.iter().all(|code| matches!(code, Some(0 | ENHANCE_YOUR_CALM))), "{}: {codes:?}", self.name);
        assert!(codes.contains(&Some(ENHANCE_YOUR_CALM)), "{}: {codes:?}", self.name);
    }

    #[track_caller]
    fn assert_grew_less(&self, bytes_each: u64) {
        let each = self.growth_bytes / self.clients.len() as u64;
        println!("{}: {} KiB a connection, {} requests", self.name, each / 1024, self.requests);
        let bound = bytes_each * self.clients.len() as u64 + 8 * MIB;
        assert!(self.growth_bytes < bound, "{}: {} KiB", self.name, self.growth_bytes / 1024);
    }
}

fn stream_of(round: u32, at: u32, each: u32) -> u32 {
    2 * (round * each + at) + 1
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_soon() {
    let burst = |round| -> Vec<u8> {
        (0..50)
            .flat_map(|at| {
                let stream = stream_of(round, at, 50);
                [h2::request(stream, flag::END_STREAM), frame(kind::RST_STREAM, 0, stream, 8_u32.to_be_bytes())]
                    .concat()
            })
            .collect()
    };
    let mut outcome = attack("rapid reset", MANY, Reply::hang(), Vec::new(), burst, 20).await;
    outcome.assert_sent_away().await;
    outcome.assert_grew_less(MIB);
    // Two hundred each, what may have been in the same packet, and twenty for each second.
    assert!(outcome.requests <= 500 * MANY, "{} requests", outcome.requests);
}

#[tokio::test]
async fn streams_that_we_are_made_to_reset_end_soon() {
    let burst = |round| -> Vec<u8> {
        (0..50)
            .flat_map(|at| {
                let stream = stream_of(round, at, 50);
                // A window beyond 2^31-1 is an error of the stream (MadeYouReset, CVE-2025-8671).
                [h2::request(stream, flag::END_STREAM), frame(kind::WINDOW_UPDATE, 0, stream, i32::MAX.to_be_bytes())]
                    .concat()
            })
            .collect()
    };
    let mut outcome = attack("made to reset", MANY, Reply::hang(), Vec::new(), burst, 20).await;
    outcome.assert_sent_away().await;
    outcome.assert_grew_less(MIB);
    assert!(outcome.requests <= 500 * MANY, "{} requests", outcome.requests);
}

#[tokio::test]
async fn frames_that_bring_nothing_end_soon() {
    let open = h2::request(1, 0);
    let floods: [(&str, Vec<u8>, Vec<u8>); 6] = [
        ("empty DATA", open.clone(), frame(kind::DATA, 0, 1, [])),
        ("PING", Vec::new(), frame(kind::PING, 0, 0, [0; 8])),
        ("SETTINGS", Vec::new(), frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0xff, 0xff])),
        ("PRIORITY", Vec::new(), frame(kind::PRIORITY, 0, 1, [0; 5])),
        ("WINDOW_UPDATE", open, frame(kind::WINDOW_UPDATE, 0, 1, 1_u32.to_be_bytes())),
        ("an unknown type", Vec::new(), frame(0xee, 0, 0, [0; 100])),
    ];
    for (name, first, flood) in floods {
        let mut outcome = attack(name, MANY, Reply::hang(), first, |_| flood.repeat(500), 10).await;
        outcome.assert_sent_away().await;
        outcome.assert_grew_less(MIB);
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_not_kept() {
    let open = frame(kind::HEADERS, flag::END_STREAM, 1, h2::block(&h2::REQUEST));
    // With fields in them, and with none.
    let full = frame(kind::CONTINUATION, 0, 1, h2::block(&[("x", &"y".repeat(1000))])).repeat(100);
    let empty = frame(kind::CONTINUATION, 0, 1, []).repeat(500);
    for (name, more) in [("CONTINUATION with fields", full), ("empty CONTINUATION", empty)] {
        let mut outcome = attack(name, MANY, Reply::ok(""), open.clone(), |_| more.clone(), 40).await;
        let codes = outcome.ends().await;
        assert!(codes.iter().all(Option::is_some), "{name}: {codes:?}");
        outcome.assert_grew_less(MIB);
        assert_eq!(outcome.requests, 0);
    }
}

/// One byte names four kilobytes: sixteen thousand in a frame make 64 MiB of head (CVE-2026-49975). And whoever is
/// refused does not even take that answer.
#[tokio::test]
async fn a_head_that_unfolds_is_refused_where_it_passes_the_bound() {
    let closed = frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
    let long = "v".repeat(4000);
    // A literal with indexing; its index is then 62.
    let mut block = h2::block(&h2::REQUEST);
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    assert_eq!(long.len(), 127 + 0x21 + (0x1e << 7));
    block.extend(long.as_bytes());
    let first = [closed, frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block)].concat();
    let bomb = move |round: u32| {
        let block = [h2::block(&h2::REQUEST), vec![0xbe; 16_000]].concat();
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 2 * round + 3, block)
    };
    let outcome = attack("unfolding heads", MANY, Reply::ok("hello"), first, bomb, 100).await;
    outcome.assert_grew_less(2 * MIB);
    assert!(outcome.requests <= MANY, "{} requests", outcome.requests);
}

/// As many large answers as there may be streams, and a window that stays closed.
#[tokio::test]
async fn answers_that_nobody_takes_are_not_fetched() {
    let closed = frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]);
    let all: Vec<u8> = (0..128).flat_map(|number| h2::request(2 * number + 1, flag::END_STREAM)).collect();
    let outcome = attack(
        "large answers",
        FEW,
        Reply::ok("x".repeat(1 << 20)),
        [closed, all].concat(),
        |_| frame(kind::PING, 0, 0, [0; 8]),
        10,
    )
    .await;
    // 128 MiB were asked for on each connection.
    outcome.assert_grew_less(128 * 256 * 1024);
    assert!(outcome.requests <= 128 * FEW);
}

/// A body on every stream, and an app that takes nothing of it: the windows are what is kept.
#[tokio::test]
async fn bodies_that_the_app_does_not_take_stay_with_the_client() {
    let opens: Vec<u8> = (0..128)
        .flat_map(|number| {
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "app"),
                (":path", "/"),
                ("content-length", "1000000"),
            ];
            frame(kind::HEADERS, flag::END_HEADERS, 2 * number + 1, h2::block(&fields))
        })
        .collect();
    let piece = |round: u32| frame(kind::DATA, 0, 2 * (round % 128) + 1, vec![b'x'; 16_000]);
    // 32 pieces are the whole window of the connection.
    let outcome = attack("bodies", FEW, Reply::hang(), opens, piece, 32).await;
    // Most of it is what 128 requests under way cost, each with a connection to the app.
    outcome.assert_grew_less(16 * MIB);
}
