//! The live view: figures kept for 15 minutes, and the stream of events and metrics.

use std::net::SocketAddr;

use serde_json::Value;

use crate::admin::{get, json};
use crate::support::admin::call;
use crate::support::client::{self, Client};
use crate::support::poll::eventually_async;
use crate::support::process::DEADLINE;
use crate::support::proxy::TestProxy;

const ROUTES: &str = "[[route]]\nname = \"good\"\nrespond = { body = \"hello\" }\n\
                      [[route]]\nname = \"bad\"\npath = [\"/bad\"]\nrespond = { status = 500, body = \"oh\" }\n";

/// An open stream and what came on it so far.
struct Stream {
    client: Client,
    text: String,
}

impl Stream {
    async fn open(admin: SocketAddr, query: &str, headers: &str) -> Self {
        let mut client = Client::connect(admin).await.unwrap();
        client.send(format!("GET /api/events{query} HTTP/1.1\r\nHost: {admin}\r\n{headers}\r\n")).await.unwrap();
        let head = client.read_until("\r\n\r\n").await.unwrap();
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.contains(" 200 ok") && head.contains("content-type: text/event-stream"), "{head}");
        Self { client, text: String::new() }
    }

    /// Reads on until an event holds `part`, and returns that event.
    async fn event(&mut self, part: &str) -> String {
        loop {
            // The pieces are chunks: no event is cut by one.
            let piece = self.client.read_until("\n\n").await.unwrap();
            let piece = String::from_utf8(piece).unwrap();
            self.text.push_str(&piece);
            if piece.contains(part) {
                return piece;
            }
        }
    }
}

fn data(event: &str) -> Value {
    let line = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_else(|| panic!("no data: {event}"));
    serde_json::from_str(line).unwrap()
}

fn id(event: &str) -> &str {
    event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_else(|| panic!("no id: {event}"))
}

async fn switch(admin: SocketAddr, how: &str) {
    assert_eq!(call(admin, "POST", &format!("/api/admin/maintenance/{how}"), None).await.0, 200);
}

#[tokio::test]
async fn the_last_minute_is_told_of_all_and_of_each_route() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    for path in ["/", "/", "/bad"] {
        client::get(proxy.address(), path).await.unwrap();
    }
    let mut figures = Value::Null;
    let counted = eventually_async(DEADLINE, async || {
        figures = json(proxy.admin(), "/api/metrics").await;
        let all_three = figures["errorRate"].as_f64().is_some_and(|rate| (rate - 1.0 / 3.0).abs() < 0.01);
        all_three && !figures["routes"]["good"].is_null() && !figures["routes"]["bad"].is_null()
    });
    assert!(counted.await, "{figures}");
    for key in ["requestsPerSecond", "responseTimeP50", "responseTimeP95", "responseTimeP99"] {
        assert!(figures[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {figures}");
        assert!(figures["routes"]["good"][key].as_f64().is_some_and(|value| value > 0.0), "{key}: {figures}");
    }
    assert_eq!(figures["routes"]["bad"]["errorRate"], 1.0);
    assert_eq!((&figures["activeRequests"], &figures["activeConnections"]), (&0.into(), &0.into()));
    let server = &figures["server"];
    assert!(server["uptime"].is_u64() && server["memory"].is_f64() && server["disk"].is_f64(), "{server}");
    let measured = eventually_async(DEADLINE, async || {
        json(proxy.admin(), "/api/metrics").await["server"]["cpu"].as_f64().is_some()
    });
    assert!(measured.await, "the processor is known from the second asking on");
}

#[tokio::test]
async fn history_is_kept_by_the_second_for_all_and_for_a_route() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    client::get(proxy.address(), "/bad").await.unwrap();
    client::get(proxy.address(), "/").await.unwrap();
    let sum = |history: &Value, column: &str| {
        let numbers = history[column].as_array().unwrap().iter();
        numbers.map(|number| number.as_u64().unwrap()).sum::<u64>()
    };
    let mut all = Value::Null;
    let counted = eventually_async(DEADLINE, async || {
        all = json(proxy.admin(), "/api/metrics/history").await;
        let bad = json(proxy.admin(), "/api/metrics/history?route=bad").await;
        sum(&all, "requests") == 2 && sum(&bad, "requests") == 1
    });
    assert!(counted.await, "{all}");
    assert_eq!((sum(&all, "errors"), &all["secondsMax"]), (1, &900.into()));
    let rows = all["time"].as_array().unwrap().len();
    for column in ["requests", "errors", "p50", "p95", "p99", "inFlight"] {
        assert_eq!(all[column].as_array().unwrap().len(), rows, "{column}");
    }
    let bad = json(proxy.admin(), "/api/metrics/history?route=bad").await;
    assert_eq!((sum(&bad, "requests"), sum(&bad, "errors")), (1, 1), "{bad}");
    assert_eq!(get(proxy.admin(), "/api/metrics/history?route=none").await.status, 404);
    assert_eq!(get(proxy.admin(), "/api/metrics/history?rout=bad").await.status, 400);
}

#[tokio::test]
async fn events_come_live_and_metrics_every_second() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let mut stream = Stream::open(proxy.admin(), "", "").await;
    let tick = data(&stream.event("event: metrics").await);
    assert!(tick["second"]["time"].is_u64() && tick["requestsPerSecond"].is_number(), "{tick}");
    switch(proxy.admin(), "enable").await;
    let event = stream.event("Maintenance mode activated").await;
    // `id`, `event`, `data`, in this order, each on its line.
    let names: Vec<_> =
        event.trim_end().lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    assert_eq!(names[names.len() - 3..], ["id", "event", "data"], "{event}");
    let told = data(&event);
    assert_eq!(
        (&told["scope"], &told["level"], &told["message"]),
        (&"global".into(), &"INFO".into(), &"Maintenance mode activated".into())
    );
    assert!(told["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{told}");
    let (process, number) = id(&event).split_once('-').unwrap();
    assert_eq!((process.len(), number.parse::<u64>().ok()), (8, told["id"].as_u64()));
    let next = data(&stream.event("event: metrics").await);
    assert!(next["second"]["time"].as_u64() > tick["second"]["time"].as_u64(), "{tick} {next}");
    assert!(stream.text.contains("retry: 1000\n\n"), "{}", stream.text);
}

#[tokio::test]
async fn who_comes_back_is_told_what_was_missed_and_no_more() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let mut stream = Stream::open(proxy.admin(), "?metrics=false", "").await;
    switch(proxy.admin(), "enable").await;
    let seen = stream.event("Maintenance mode activated").await;
    drop(stream);
    switch(proxy.admin(), "disable").await;
    let headers = format!("Last-Event-ID: {}\r\n", id(&seen));
    let mut stream = Stream::open(proxy.admin(), "?metrics=false&recent=100", &headers).await;
    stream.event("Maintenance mode deactivated").await;
    assert!(!stream.text.contains("Maintenance mode activated"), "{}", stream.text);
    // An id of another process says nothing about this one's events.
    let mut stream = Stream::open(proxy.admin(), "?metrics=false", "Last-Event-ID: 00000000-9999\r\n").await;
    stream.event("Maintenance mode activated").await;
    stream.event("Maintenance mode deactivated").await;
    // And whoever asks for the last one gets the last one.
    let mut stream = Stream::open(proxy.admin(), "?metrics=false&recent=1", "").await;
    stream.event("Maintenance mode deactivated").await;
    assert!(!stream.text.contains("Maintenance mode activated"), "{}", stream.text);
}

/// Proxies in between close what is silent.
#[tokio::test]
async fn a_stream_with_nothing_to_tell_shows_that_it_lives() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let mut client = Client::connect(proxy.admin()).await.unwrap().deadline(DEADLINE * 2);
    client.send("GET /api/events?metrics=false HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let head = client.read_until("retry: 1000\n\n").await.unwrap();
    assert!(String::from_utf8(head).unwrap().to_lowercase().contains("cache-control: no-store"));
    let began = std::time::Instant::now();
    let comment = String::from_utf8(client.read_until("\n\n").await.unwrap()).unwrap();
    assert!(comment.ends_with(": still here\n\n"), "{comment}");
    assert!(began.elapsed() >= std::time::Duration::from_secs(10), "no more often than it has to be");
}

#[tokio::test]
async fn streams_are_so_many_and_a_closed_one_makes_room() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(Stream::open(proxy.admin(), "", "").await);
    }
    let refused = get(proxy.admin(), "/api/events").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{}", refused.text());
    streams.pop();
    let admin = proxy.admin();
    let has_room = eventually_async(DEADLINE, async || {
        let mut client = Client::connect(admin).await.unwrap();
        client.send(format!("GET /api/events HTTP/1.1\r\nHost: {admin}\r\n\r\n")).await.unwrap();
        client.read_until("\r\n\r\n").await.unwrap().starts_with(b"HTTP/1.1 200")
    });
    assert!(has_room.await);
}
