//! One Redis server: its connections, and whether it can be asked.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, Script, ServerErrorKind};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::connect::{ConnectError, Connector};
use super::{Answer, Charge, RemoteKey, opening_limit};
use crate::policy::limit::Shape;

const SCRIPT_TEXT: &str = include_str!("script.lua");
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPT_TEXT));

/// From a failure, or a failed try, to the next try.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// While nobody asks, it is asked this often: that it is away is to be known before a request has to wait for it, and
/// there are firewalls that forget a connection on which nothing is said.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// Up for this long, it has recovered: the next failure is tried again soon.
const RECOVERED: Duration = Duration::from_secs(10);

/// Reasons of one outage that are told.
const REASONS_MAX: usize = 8;

/// One server. A task on the store's thread keeps its connections; requests only look.
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
    timeout: Duration,
    connections: usize,
    /// `None` while it is down.
    open: ArcSwapOption<Open>,
    is_up: AtomicBool,
    is_key_told: AtomicBool,
    trouble: Notify,
    /// Told each time it comes up.
    pub(super) came_up: Notify,
}

/// Held until it is known whether there is somebody.
pub(super) type Trying = std::sync::mpsc::Sender<std::convert::Infallible>;

/// The connections of one time of being up.
struct Open {
    each: Vec<MultiplexedConnection>,
}

/// How a node of a cluster is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// By the map, or after `MOVED`: the slot is there for good.
    Slot,
    /// After `ASK`: the slot is on its way there, and only this one question may follow it, behind `ASKING`
    /// (Redis Cluster specification, "ASK redirection").
    Ask,
}

/// Why a node did not do what it was asked.
pub(super) enum Failure {
    Down,
    /// The slot lives elsewhere, at this address.
    Elsewhere {
        address: String,
        route: Route,
    },
}

impl Node {
    pub(super) fn new(host: String, port: u16, timeout: Duration, connections: usize) -> Self {
        Self {
            host,
            port,
            timeout,
            connections,
            open: ArcSwapOption::empty(),
            is_up: AtomicBool::new(false),
            is_key_told: AtomicBool::new(false),
            trouble: Notify::new(),
            came_up: Notify::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    /// Runs the script once, within `timeout`.
    pub(super) async fn run(
        &self,
        worker: usize,
        key: &RemoteKey,
        charge: Charge,
        route: Route,
    ) -> Result<Answer, Failure> {
        if !self.is_up() {
            return Err(Failure::Down);
        }
        let Some(open) = self.open.load_full() else { return Err(Failure::Down) };
        let mut connection = open.each[worker % open.each.len()].clone();
        let error = match tokio::time::timeout(self.timeout, ask(&mut connection, key, charge, route)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                self.fail(&open, &"no answer in time");
                return Err(Failure::Down);
            }
        };
        if let Some((address, _slot)) = error.redirect_node() {
            let is_ask = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
            let route = if is_ask { Route::Ask } else { Route::Slot };
            return Err(Failure::Elsewhere { address: self.whole(address), route });
        }
        if is_of_key(&error) {
            self.tell_of_key(&error);
        } else {
            self.fail(&open, &error);
        }
        Err(Failure::Down)
    }

    /// The address that this node sends to: one without a host is another port of its own (Redis Cluster specification,
    /// "MOVED Redirection").
    fn whole(&self, address: &str) -> String {
        match address.strip_prefix(':') {
            // The host may be an address of IPv6.
            Some(port) if !port.contains(':') => format!("{}:{port}", self.host),
            _ => address.to_owned(),
        }
    }

    /// Once: what is wrong with a key stays wrong.
    fn tell_of_key(&self, error: &RedisError) {
        if !self.is_key_told.swap(true, Relaxed) {
            let (host, port) = (&*self.host, self.port);
            tracing::warn!(host, port, %error, "a key of the shared store holds something else: its limit is counted as if the store were down");
        }
    }

    /// A connection for other questions; `None` while the node is down.
    pub(super) fn connection(&self, worker: usize) -> Option<MultiplexedConnection> {
        let open = self.open.load();
        open.as_ref().map(|open| open.each[worker % open.each.len()].clone())
    }

    /// From now on nobody asks until it has answered again. What failed on earlier connections says nothing of these.
    fn fail(&self, on: &Arc<Open>, why: &dyn std::fmt::Display) {
        let is_current = self.open.load().as_ref().is_some_and(|open| Arc::ptr_eq(open, on));
        if is_current && self.is_up.swap(false, Relaxed) {
            tracing::warn!(host = %self.host, port = self.port, "the shared store of limits is down: {why}");
            self.trouble.notify_one();
        }
    }

    /// Connects, and connects again whenever something failed, until dropped. `trying` goes once the first try is over.
    pub(super) async fn keep(self: Arc<Self>, connector: Arc<Connector>, mut trying: Option<Trying>) {
        let mut wait = RETRY_FIRST;
        // Of the outage that lasts, each reason is told once.
        let mut told: Vec<String> = Vec::new();
        loop {
            match self.open(&connector).await {
                Ok(connections) => {
                    let open = Arc::new(Open { each: connections });
                    self.open.store(Some(Arc::clone(&open)));
                    self.is_up.store(true, Relaxed);
                    self.came_up.notify_one();
                    drop(trying.take());
                    tracing::info!(host = %self.host, port = self.port, "the shared store of limits is up");
                    let since = Instant::now();
                    self.watch(&open).await;
                    // What still waits on them is cut loose by its own timeout.
                    self.open.store(None);
                    told.clear();
                    if since.elapsed() >= RECOVERED {
                        wait = RETRY_FIRST;
                    }
                }
                Err(error) => {
                    drop(trying.take());
                    let reason = error.to_string();
                    if told.len() < REASONS_MAX && !told.contains(&reason) {
                        told.push(reason);
                        tracing::warn!(host = %self.host, port = self.port, %error, "the shared store of limits is down");
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Until something has failed.
    async fn watch(&self, open: &Arc<Open>) {
        while tokio::time::timeout(WATCH_INTERVAL, self.trouble.notified()).await.is_err() {
            for connection in &open.each {
                // It may be slower than a request would wait for it: that is for requests to find out.
                match tokio::time::timeout(opening_limit(self.timeout), probe(&mut connection.clone())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.fail(open, &error),
                    Err(_) => self.fail(open, &"no answer in time"),
                }
            }
        }
    }

    /// Fresh connections, each of which has run the script.
    async fn open(&self, connector: &Connector) -> Result<Vec<MultiplexedConnection>, ConnectError> {
        let limit = opening_limit(self.timeout);
        let opening = async {
            let mut connections = Vec::with_capacity(self.connections);
            // A silent address of the name costs part of the time, and once.
            let mut socket = connector.reach(&self.host, self.port, limit / 2).await?;
            let address = socket.peer_addr()?;
            loop {
                let mut connection = connector.open(socket, &self.host).await?;
                probe(&mut connection).await?;
                connections.push(connection);
                if connections.len() >= self.connections {
                    return Ok(connections);
                }
                socket = TcpStream::connect(address).await?;
            }
        };
        tokio::time::timeout(limit, opening).await.unwrap_or(Err(ConnectError::Timeout))
    }
}

impl Charge {
    /// Takes nothing from anybody.
    fn probe() -> Self {
        let shape = Shape::new(NonZeroU32::MIN, Duration::from_millis(1), NonZeroU32::MIN);
        Self { shape, ceiling_ticks: shape.tolerance_ticks(), cost: 1 }
    }
}

/// Somebody else has put something under this name: no reason to ask the node for no other. Redis 6 has the word in the
/// text only.
fn is_of_key(error: &RedisError) -> bool {
    error.to_string().contains("WRONGTYPE")
}

/// By the script itself, for a user that may run it may not be allowed anything else.
async fn probe(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match ask(connection, &RemoteKey::probe(), Charge::probe(), Route::Slot).await {
        // In a cluster the probe's slot may be another node's: this one has answered all the same.
        Err(error) if error.redirect_node().is_none() => Err(error),
        _ => Ok(()),
    }
}

async fn ask(
    connection: &mut MultiplexedConnection,
    key: &RemoteKey,
    charge: Charge,
    route: Route,
) -> Result<Answer, RedisError> {
    let Charge { shape, ceiling_ticks, cost } = charge;
    let (interval, tolerance) = (shape.interval_ticks(), shape.tolerance_ticks());
    let rest = (ceiling_ticks, shape.ticks_per_nano(), cost);
    let (charged, owed): (i64, i64) = match route {
        Route::Slot => SCRIPT.key(key.name()).arg(interval).arg(tolerance).arg(rest).invoke_async(connection).await?,
        // The whole script and not its hash: were it unknown there, loading it would use the permission up.
        Route::Ask => {
            let mut both = redis::pipe();
            both.cmd("ASKING").ignore().cmd("EVAL").arg(SCRIPT_TEXT).arg(1).arg(key.name());
            let answers: ((i64, i64),) = both.arg(interval).arg(tolerance).arg(rest).query_async(connection).await?;
            answers.0
        }
    };
    Ok(Answer { is_charged: charged == 1, owed: u64::try_from(owed).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_host_is_at_the_nodes_own() {
        let node = Node::new("192.0.2.1".to_owned(), 7_000, Duration::ZERO, 1);
        for (address, whole) in
            [(":7001", "192.0.2.1:7001"), ("192.0.2.2:7001", "192.0.2.2:7001"), ("::1:7001", "::1:7001"), ("", "")]
        {
            assert_eq!(node.whole(address), whole);
        }
    }
}
