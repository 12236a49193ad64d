//! Which node a key lives on: one for all keys, or, where the server is part of a cluster, the one that has its slot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::connect::Connector;
use super::node::{Failure, Node, Route, Trying};
use super::{Answer, Charge, Down, RemoteKey};

/// How often the map of a cluster is looked at without a reason.
const LOOK: Duration = Duration::from_secs(10);
/// Between two looks with a reason.
const LOOK_SOONEST: Duration = Duration::from_millis(200);

/// All nodes.
pub(super) struct Cluster {
    connector: Arc<Connector>,
    timeout: Duration,
    connections: usize,
    map: ArcSwap<Map>,
    /// A key was not where the map says.
    moved: Notify,
}

/// Who has what.
struct Map {
    /// By `host:port`; the one of the URL is always among them.
    nodes: BTreeMap<String, Arc<Node>>,
    home: Arc<Node>,
    /// Last slot and node, in order; empty without a cluster.
    slots: Vec<(u16, Arc<Node>)>,
}

impl Map {
    fn node(&self, key: &RemoteKey) -> &Arc<Node> {
        if self.slots.is_empty() {
            return &self.home;
        }
        let slot = key.slot();
        let at = self.slots.partition_point(|(last, _)| *last < slot);
        self.slots.get(at).map_or(&self.home, |(_, node)| node)
    }
}

impl Cluster {
    pub(super) fn new(connector: Connector, timeout: Duration, connections: usize) -> Self {
        let (host, port) = connector.seed.clone();
        let name = format!("{host}:{port}");
        let home = Arc::new(Node::new(host, port, timeout, connections));
        let map = Map { nodes: BTreeMap::from([(name, Arc::clone(&home))]), home, slots: Vec::new() };
        Self {
            connector: Arc::new(connector),
            timeout,
            connections,
            map: ArcSwap::from_pointee(map),
            moved: Notify::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        let map = self.map.load();
        match map.slots.is_empty() {
            true => map.home.is_up(),
            false => map.slots.iter().all(|(_, node)| node.is_up()),
        }
    }

    /// Runs the script on the node that has the key; follows one redirection.
    pub(super) async fn run(&self, worker: usize, key: &RemoteKey, charge: Charge) -> Result<Answer, Down> {
        let map = self.map.load_full();
        match map.node(key).run(worker, key, charge, Route::Slot).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Down) => {
                // A replica may have taken the slots over; the ones still up know of it.
                if !map.slots.is_empty() {
                    self.moved.notify_one();
                }
                Err(Down)
            }
            Err(Failure::Elsewhere { address, route }) => {
                // One slot that is on its way is no reason to look: the map is true until it has arrived.
                if route == Route::Slot {
                    self.moved.notify_one();
                }
                let node = map.nodes.get(&address).ok_or(Down)?;
                node.run(worker, key, charge, route).await.map_err(|_| Down)
            }
        }
    }

    /// Keeps every node connected and the map true, until dropped.
    pub(super) async fn keep(self: Arc<Self>, trying: Trying) {
        // At first there is one node only.
        let mut trying = Some(trying);
        let mut keepers = JoinSet::new();
        let mut kept = BTreeMap::new();
        loop {
            let map = self.map.load_full();
            kept.retain(|name, keeper: &mut tokio::task::AbortHandle| {
                let stays = map.nodes.contains_key(name);
                if !stays {
                    keeper.abort();
                }
                stays
            });
            for (name, node) in &map.nodes {
                kept.entry(name.clone()).or_insert_with(|| {
                    keepers.spawn(Arc::clone(node).keep(Arc::clone(&self.connector), trying.take()))
                });
            }
            tokio::select! {
                () = map.home.came_up.notified() => {}
                () = self.moved.notified() => tokio::time::sleep(LOOK_SOONEST).await,
                () = tokio::time::sleep(LOOK) => {}
                // A keeper never ends by itself; one that was aborted is of no interest.
                Some(_) = keepers.join_next() => {}
            }
            if let Some(found) = self.look(&map).await {
                self.map.store(Arc::new(found));
            }
        }
    }

    /// Asks one node that is up after the other for the map, until one has it; `None` when none can tell.
    async fn look(&self, map: &Map) -> Option<Map> {
        let mut told = None;
        for node in map.nodes.values().filter(|node| node.is_up()) {
            told = self.ranges_by(node, map).await;
            if told.is_some() {
                break;
            }
        }
        let ranges = told?;
        let home = format!("{}:{}", map.home.host, map.home.port);
        let mut nodes = BTreeMap::from([(home, Arc::clone(&map.home))]);
        let mut slots = Vec::with_capacity(ranges.len());
        for (last, host, port) in ranges {
            let name = format!("{host}:{port}");
            let fresh = || Arc::new(Node::new(host, port, self.timeout, self.connections));
            let node = map.nodes.get(&name).cloned();
            let node = nodes.entry(name).or_insert_with(|| node.unwrap_or_else(fresh));
            slots.push((last, Arc::clone(node)));
        }
        Some(Map { nodes, home: Arc::clone(&map.home), slots })
    }

    /// The map by one node's word. `None` when it does not answer, or is part of a cluster of which it knows nothing: it
    /// was taken out, or has lost its disk.
    async fn ranges_by(&self, node: &Arc<Node>, map: &Map) -> Option<Vec<(u16, String, u16)>> {
        let mut connection = node.connection(0)?;
        let mut question = redis::cmd("CLUSTER");
        let asked = question.arg("SLOTS").query_async::<Value>(&mut connection);
        match tokio::time::timeout(super::opening_limit(self.timeout), asked).await.ok()? {
            Ok(answer) => Some(parse(&answer, &map.home.host)).filter(|ranges| !ranges.is_empty()),
            Err(error) if error.is_io_error() => None,
            // There is no cluster, or we may not ask: then one node is all there is.
            Err(_) => Arc::ptr_eq(node, &map.home).then(Vec::new),
        }
    }
}

/// The answer to `CLUSTER SLOTS`: last slot, host and port of each range's master, in order.
fn parse(answer: &Value, home: &str) -> Vec<(u16, String, u16)> {
    let Value::Array(ranges) = answer else { return Vec::new() };
    let mut found: Vec<_> = ranges.iter().filter_map(|range| parse_range(range, home)).collect();
    found.sort_unstable();
    found
}

fn parse_range(range: &Value, home: &str) -> Option<(u16, String, u16)> {
    let Value::Array(parts) = range else { return None };
    let [_, Value::Int(last), Value::Array(master), ..] = parts.as_slice() else { return None };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
        Value::SimpleString(host) => host.clone(),
        _ => String::new(),
    };
    // A node that does not know its own address is the one that was asked.
    let host = if host.is_empty() || host == "?" { home.to_owned() } else { host };
    Some((u16::try_from(*last).ok()?, host, u16::try_from(*port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_in_order_and_the_unnamed_node_is_the_one_asked() {
        let range = |first: i64, last: i64, host: &str, port: i64| {
            let master = Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master])
        };
        let answer = Value::Array(vec![
            range(8_192, 16_383, "", 7_001),
            range(0, 8_191, "192.0.2.1", 7_000),
            Value::Array(vec![Value::Int(1)]),
        ]);
        let expected = [(8_191, "192.0.2.1".to_owned(), 7_000), (16_383, "home".to_owned(), 7_001)];
        assert_eq!(parse(&answer, "home"), expected);
        assert_eq!(parse(&Value::Nil, "home"), []);
    }
}
