//! An upstream that can misbehave, on raw tokio sockets, and that remembers every byte it received.
//!
//! ```ignore
//! let app = FakeUpstream::http1().route("/", "hello").route("/bad", Reply::truncated(9, "half")).start().await;
//! // … a proxy in front of app.address() …
//! assert_eq!(app.requests()[0].head.line, "GET / HTTP/1.1");
//! ```
//!
//! Dropping it ends everything.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::reply::Reply;
use super::socket::Socket;
use super::upstream_connection::Connection;
use super::wire::{self, Message};

/// What happens to a connection as it is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAccept {
    #[default]
    Serve,
    /// RST at once.
    Reset,
    /// FIN at once.
    Close,
    /// Keep it open and never read from it.
    Blackhole,
}

/// A running upstream.
#[derive(Debug)]
pub struct FakeUpstream {
    place: Place,
    shared: Arc<Shared>,
    tls: Option<Arc<ServerConfig>>,
    running: Mutex<Running>,
}

/// How to start one.
#[derive(Debug, Default)]
pub struct Builder {
    behaviour: Behaviour,
    address: Option<SocketAddr>,
    unix: Option<PathBuf>,
    delay_listen: Duration,
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Debug)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Bound and not listening: connections are refused, and nobody else gets the port.
#[derive(Debug)]
enum Bound {
    Tcp(TcpSocket),
    Unix(PathBuf),
}

#[derive(Debug)]
enum Running {
    Stopped(Option<Bound>),
    Accepting(JoinHandle<()>),
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What the test asked for; it may change while the upstream runs.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    pub(super) replies: HashMap<String, Reply>,
    pub(super) delays: HashMap<String, Duration>,
    pub(super) on_accept: OnAccept,
    pub(super) reset_after: Option<u64>,
    pub(super) requests_max: Option<usize>,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) records: Mutex<Vec<Record>>,
    /// Counts how often idle connections were told to go.
    pub(super) reset_idle: watch::Sender<u64>,
    pub(super) open: AtomicU64,
}

pub(super) type Record = Arc<Mutex<Received>>;

/// What one connection received.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// The first 8 MiB.
    pub(super) bytes: Vec<u8>,
    /// How many there were before each read, and when that was.
    pub(super) reads: Vec<(usize, Instant)>,
    pub(super) total: u64,
    /// Over TLS: how its handshake went.
    pub(super) handshake: Option<Handshake>,
}

impl Received {
    /// The requests in it, each with when its first byte was read.
    fn requests(&self) -> Vec<(Instant, Message)> {
        let mut offset = 0;
        let mut timed = |request: Message| {
            let read = self.reads.partition_point(|(before, _)| *before <= offset) - 1;
            offset += request.len;
            (self.reads[read].1, request)
        };
        wire::requests(&self.bytes).into_iter().map(&mut timed).collect()
    }
}

/// One TLS handshake, as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    pub server_name: Option<String>,
    pub is_resumed: bool,
    /// Certificates that the client showed.
    pub certificates: usize,
}

impl Builder {
    /// Answers a path (without its query) with a reply; `"*"` is every other path, which is 404 otherwise.
    #[must_use]
    pub fn route(mut self, path: &str, reply: impl Into<Reply>) -> Self {
        self.behaviour.replies.insert(path.to_owned(), reply.into());
        self
    }

    /// Waits before answering a path.
    #[must_use]
    pub fn delay(mut self, path: &str, wait: Duration) -> Self {
        self.behaviour.delays.insert(path.to_owned(), wait);
        self
    }

    /// Resets every connection once it has received so many bytes.
    #[must_use]
    pub fn reset_after(mut self, bytes: u64) -> Self {
        self.behaviour.reset_after = Some(bytes);
        self
    }

    /// Answers so many requests on each connection and resets it when the next one arrives: the race that
    /// every pool of kept connections has to win.
    #[must_use]
    pub fn reset_after_requests(mut self, requests: usize) -> Self {
        self.behaviour.requests_max = Some(requests);
        self
    }

    #[must_use]
    pub fn on_accept(mut self, on_accept: OnAccept) -> Self {
        self.behaviour.on_accept = on_accept;
        self
    }

    /// Refuses connections for so long after the start, the address known already.
    #[must_use]
    pub fn delay_listen(mut self, wait: Duration) -> Self {
        self.delay_listen = wait;
        self
    }

    /// Listens there instead of on a free port of 127.0.0.1.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Listens on a unix socket.
    #[must_use]
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix = Some(path.into());
        self
    }

    /// Speaks TLS.
    #[must_use]
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When the address cannot be had.
    pub async fn start(self) -> FakeUpstream {
        let place = match self.unix {
            Some(path) => Place::Unix(path),
            None => Place::Tcp(self.address.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))),
        };
        let bound = bind(&place);
        let place = match &bound {
            Bound::Tcp(socket) => Place::Tcp(socket.local_addr().expect("a bound socket has an address")),
            Bound::Unix(path) => Place::Unix(path.clone()),
        };
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(self.behaviour),
            records: Mutex::default(),
            reset_idle: watch::Sender::new(0),
            open: AtomicU64::new(0),
        });
        let accepting = begin(self.delay_listen, bound, Arc::clone(&shared), self.tls.clone());
        FakeUpstream { place, shared, tls: self.tls, running: Mutex::new(Running::Accepting(accepting)) }
    }
}

impl FakeUpstream {
    /// An HTTP/1.1 upstream on a free port that answers 404 to everything until told otherwise.
    pub fn http1() -> Builder {
        Builder::default()
    }

    /// Where it listens.
    ///
    /// # Panics
    /// When that is a unix socket.
    pub fn address(&self) -> SocketAddr {
        match &self.place {
            Place::Tcp(address) => *address,
            Place::Unix(path) => panic!("{} is a unix socket", path.display()),
        }
    }

    /// Where it listens, as an endpoint in the configuration is written.
    pub fn endpoint(&self) -> String {
        match &self.place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Changes the answer to a path, for requests from now on.
    pub fn set_route(&self, path: &str, reply: impl Into<Reply>) {
        locked(&self.shared.behaviour).replies.insert(path.to_owned(), reply.into());
    }

    /// Changes what happens to connections from now on.
    pub fn set_on_accept(&self, on_accept: OnAccept) {
        locked(&self.shared.behaviour).on_accept = on_accept;
    }

    /// Resets every connection that waits for its next request.
    pub fn reset_idle(&self) {
        self.shared.reset_idle.send_modify(|count| *count += 1);
    }

    /// Everything each connection received, in the order they were accepted (8 MiB of each are kept).
    pub fn raw(&self) -> Vec<Vec<u8>> {
        locked(&self.shared.records).iter().map(|record| locked(record).bytes.clone()).collect()
    }

    /// All requests, read loosely from [`raw`](Self::raw), in the order in which they began to arrive.
    pub fn requests(&self) -> Vec<Message> {
        let records = locked(&self.shared.records);
        let mut requests: Vec<_> = records.iter().flat_map(|record| locked(record).requests()).collect();
        requests.sort_by_key(|(began, _)| *began);
        requests.into_iter().map(|(_, request)| request).collect()
    }

    /// The TLS handshakes that succeeded, in the order their connections were accepted.
    pub fn handshakes(&self) -> Vec<Handshake> {
        locked(&self.shared.records).iter().filter_map(|record| locked(record).handshake.clone()).collect()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        locked(&self.shared.records).len()
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many bytes were received so far, over all connections.
    pub fn received_bytes(&self) -> u64 {
        locked(&self.shared.records).iter().map(|record| locked(record).total).sum()
    }

    /// Closes all connections and refuses new ones, keeping the port for [`restart`](Self::restart).
    pub async fn stop(&self) {
        let before = std::mem::replace(&mut *locked(&self.running), Running::Stopped(None));
        let bound = match before {
            Running::Stopped(bound) => bound,
            Running::Accepting(task) => {
                task.abort();
                // An error is the abort itself; what counts is that the listener is closed by now.
                let _ = task.await;
                Some(bind(&self.place))
            }
        };
        *locked(&self.running) = Running::Stopped(bound);
    }

    /// Closes all connections and listens again where it did before.
    pub async fn restart(&self) {
        self.stop().await;
        let mut running = locked(&self.running);
        let Running::Stopped(Some(bound)) = &mut *running else { unreachable!("it was just stopped") };
        let bound = std::mem::replace(bound, Bound::Unix(PathBuf::new()));
        *running = Running::Accepting(begin(Duration::ZERO, bound, Arc::clone(&self.shared), self.tls.clone()));
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        if let Running::Accepting(task) = &*locked(&self.running) {
            task.abort();
        }
        if let Place::Unix(path) = &self.place {
            // Gone already when it was stopped.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind(place: &Place) -> Bound {
    match place {
        Place::Tcp(address) => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let socket = socket.expect("a socket");
            socket.set_reuseaddr(true).expect("a socket to take the option");
            socket.bind(*address).unwrap_or_else(|error| panic!("{address}: {error}"));
            Bound::Tcp(socket)
        }
        Place::Unix(path) => {
            // Left over from before a stop, or never there.
            let _ = std::fs::remove_file(path);
            Bound::Unix(path.clone())
        }
    }
}

fn listen(bound: Bound) -> Listener {
    match bound {
        Bound::Tcp(socket) => Listener::Tcp(socket.listen(1024).expect("to listen where it is bound")),
        Bound::Unix(path) => Listener::Unix(UnixListener::bind(path).expect("a free path for the socket")),
    }
}

/// Without a wait it listens before this returns, so that nobody has to wait for it.
fn begin(wait: Duration, bound: Bound, shared: Arc<Shared>, tls: Option<Arc<ServerConfig>>) -> JoinHandle<()> {
    let now = if wait.is_zero() { Ok(listen(bound)) } else { Err(bound) };
    tokio::spawn(async move {
        let listener = match now {
            Ok(listener) => listener,
            Err(bound) => {
                tokio::time::sleep(wait).await;
                listen(bound)
            }
        };
        accept(listener, shared, tls).await;
    })
}

async fn accept(listener: Listener, shared: Arc<Shared>, tls: Option<Arc<ServerConfig>>) {
    // Owned here, so that connections end with the listener.
    let mut connections = JoinSet::new();
    loop {
        let socket = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Socket::Unix(stream)),
        };
        let Ok(socket) = socket else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(Connection::serve(socket, tls.clone(), Arc::clone(&shared)));
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
