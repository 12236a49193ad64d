//! Numbered requests over HTTP/2, for tests that change something under load; and how often each came to the app.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::Request;
use tokio::task::JoinHandle;

use super::h2::{self, Http2};
use super::upstream::FakeUpstream;

/// Numbered requests over connections of HTTP/2, each with many streams: a client as browsers are, that opens another
/// connection when it is told to go, and sends again what never left.
#[derive(Debug)]
pub struct Streams {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    connections: Vec<Arc<Connection>>,
    tasks: Vec<JoinHandle<Result<(), String>>>,
}

/// One after the other, shared by its streams.
#[derive(Debug, Default)]
struct Connection {
    open: tokio::sync::Mutex<Option<Http2>>,
    opened: AtomicU64,
}

impl Streams {
    /// Begins to send `GET path` on so many streams of each of so many connections.
    pub fn start(address: SocketAddr, path: &'static str, connections: usize, streams: usize) -> Self {
        let (stop, sent): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let connections: Vec<Arc<Connection>> = (0..connections).map(|_| Arc::default()).collect();
        let mut tasks = Vec::new();
        for connection in connections.iter().flat_map(|connection| std::iter::repeat_n(connection, streams)) {
            let (stop, sent, connection) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(connection));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let number = sent.fetch_add(1, Relaxed);
                    connection.exchange(address, path, number).await?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(())
            }));
        }
        Self { stop, sent, connections, tasks }
    }

    /// Lets every stream finish its request, and tells how many there were, and on how many connections.
    ///
    /// # Panics
    /// When a request failed.
    pub async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Relaxed);
        for task in self.tasks {
            task.await.unwrap().unwrap_or_else(|failure| panic!("{failure}"));
        }
        let opened = self.connections.iter().map(|connection| connection.opened.load(Relaxed)).sum();
        (self.sent.load(Relaxed), opened)
    }
}

impl Connection {
    async fn exchange(&self, address: SocketAddr, path: &str, number: u64) -> Result<(), String> {
        loop {
            let mut open = self.open(address).await;
            let request = Request::get(format!("http://app{path}")).header("x-number", number);
            match open.try_send(request.body(h2::empty()).unwrap()).await {
                Ok(answer) if answer.status() == 200 && answer.text() == "ok" => return Ok(()),
                Ok(answer) => return Err(format!("{path} {number}: {answer:?}")),
                Err((_, true)) => {}
                Err((error, false)) => return Err(format!("{path} {number}: {error:?}")),
            }
        }
    }

    async fn open(&self, address: SocketAddr) -> Http2 {
        let mut open = self.open.lock().await;
        match open.as_ref() {
            Some(open) if !open.is_closed() => open.clone(),
            _ => {
                self.opened.fetch_add(1, Relaxed);
                open.insert(Http2::connect(address).await).clone()
            }
        }
    }
}

/// How often each number came to the upstream, by path.
pub fn numbers(upstream: &FakeUpstream) -> BTreeMap<String, BTreeMap<u64, u32>> {
    let mut counts: BTreeMap<String, BTreeMap<u64, u32>> = BTreeMap::new();
    for request in upstream.requests() {
        let Some(number) = request.head.header("x-number").and_then(|number| number.parse().ok()) else { continue };
        let path = request.head.line.split(' ').nth(1).unwrap().to_owned();
        *counts.entry(path).or_default().entry(number).or_default() += 1;
    }
    counts
}

/// # Panics
/// When a request did not come, or came twice.
#[track_caller]
pub fn assert_each_came_once(counts: &BTreeMap<u64, u32>, sent: u64, what: &str) {
    assert_eq!(counts.len() as u64, sent, "{what}");
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "{what}: {doubled:?}");
}
