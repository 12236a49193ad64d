//! Limits that several instances share, counted in Redis: one script, one key and one round trip a request.
//!
//! Redis's clock counts, not ours. Requests talk over a few pipelined connections a node, which a thread of its own
//! keeps open (`node`); where the server says that it is part of a cluster, keys go to the node that has their slot
//! (`cluster`).
//!
//! **When it is away.** A node that fails a request, or does not answer within `timeout`, is down from that moment:
//! nobody waits for it until it has answered the same script over fresh connections. So a hung Redis costs each request
//! that was under way at most `timeout`, and those after it nothing.

mod cluster;
mod connect;
mod key;
mod node;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use self::cluster::Cluster;
use self::connect::Connector;
pub(crate) use self::key::RemoteKey;
use crate::config::model::{self, RedisOnError};
use crate::policy::limit::Shape;
use crate::upstream::Resolver;

/// A start or a reload waits this long for a Redis that says neither yes nor no.
const FIRST_TRY: Duration = Duration::from_secs(1);
/// Refunds that may wait to be sent; one more is not given back.
const REFUNDS_MAX: usize = 4_096;

/// The shared store, over all generations with the same `[redis]`.
pub struct Store {
    pub(crate) settings: model::Redis,
    cluster: Arc<Cluster>,
    refunds: mpsc::Sender<Refund>,
    /// What the thread needs, until it is started.
    idle: Mutex<Option<mpsc::Receiver<Refund>>>,
    /// Dropped with the store, which stops the thread.
    stop: watch::Sender<()>,
}

/// What Redis said about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) is_charged: bool,
    /// In ticks of the shape asked with.
    pub(crate) owed: u64,
}

/// Redis cannot be asked now, or did not answer in time; `on_error` says what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Down;

/// One request to give back.
struct Refund {
    key: RemoteKey,
    shape: Shape,
}

/// The arguments of one run of the script.
#[derive(Clone, Copy, Debug)]
struct Charge {
    shape: Shape,
    ceiling_ticks: u64,
    cost: i8,
}

impl Store {
    /// A store that is down until [`Self::start`] is called.
    ///
    /// # Errors
    /// The URL is none, or its TLS cannot be set up.
    pub(crate) fn new(settings: &model::Redis, resolver: Resolver, workers: usize) -> Result<Self, String> {
        let url = settings.url.as_ref().ok_or("there is no url")?;
        let connector = Connector::new(&url.0, settings.ca.as_deref(), resolver)?;
        let (refunds, waiting) = mpsc::channel(REFUNDS_MAX);
        Ok(Self {
            cluster: Arc::new(Cluster::new(connector, settings.timeout, workers.clamp(1, 4))),
            settings: settings.clone(),
            refunds,
            idle: Mutex::new(Some(waiting)),
            stop: watch::Sender::new(()),
        })
    }

    /// Starts connecting, on a thread that ends with the store, and waits until the first try has come to something, so
    /// that requests find a Redis that is there. Does nothing the second time.
    ///
    /// # Errors
    /// The system gives no thread or no event loop.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        let mut idle = self.idle.lock();
        if idle.is_none() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (cluster, mut stop) = (Arc::clone(&self.cluster), self.stop.subscribe());
        // Handed over when there is a thread: without one, it is here for the next try.
        let (hand, handed) = std::sync::mpsc::channel();
        let (trying, tried) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("shared-limits".into()).spawn(move || {
            let Ok(Some(waiting)) = handed.recv() else { return };
            runtime.block_on(async {
                tokio::select! {
                    // An error: the store was dropped.
                    _ = stop.changed() => {}
                    () = Arc::clone(&cluster).keep(trying) => {}
                    () = give_back(waiting, &cluster) => {}
                }
            });
        })?;
        // It waits for this.
        let _ = hand.send(idle.take());
        // Nothing is ever sent: the other end goes.
        let _ = tried.recv_timeout(FIRST_TRY);
        Ok(())
    }

    pub(crate) fn on_error(&self) -> RedisOnError {
        self.settings.on_error
    }

    /// It is away, and requests pass whatever they have used.
    pub(crate) fn lets_all_in(&self) -> bool {
        self.settings.on_error == RedisOnError::Allow && !self.is_up()
    }

    /// Whether every node that is known can be asked now.
    pub fn is_up(&self) -> bool {
        self.cluster.is_up()
    }

    /// Charges one request to `key`, or is told why not. `worker` chooses among the connections.
    ///
    /// # Errors
    /// [`Down`], at once while that is known, else after `timeout` at the latest.
    ///
    /// # Cancel safety
    /// Dropped, the request may or may not have been charged.
    pub(crate) async fn charge(
        &self,
        worker: usize,
        key: &RemoteKey,
        shape: Shape,
        queue_max: u32,
    ) -> Result<Answer, Down> {
        self.cluster.run(worker, key, Charge { shape, ceiling_ticks: shape.ceiling_ticks(queue_max), cost: 1 }).await
    }

    /// Gives one request back, some time soon.
    pub(crate) fn refund(&self, key: RemoteKey, shape: Shape) {
        // Full or closed: the key stays charged with one request more, which wears off by itself.
        let _ = self.refunds.try_send(Refund { key, shape });
    }
}

async fn give_back(mut waiting: mpsc::Receiver<Refund>, cluster: &Cluster) {
    while let Some(Refund { key, shape }) = waiting.recv().await {
        let refund = Charge { shape, ceiling_ticks: u64::MAX >> 2, cost: -1 };
        // While it is down there is nothing to give back to.
        let _ = cluster.run(0, &key, refund).await;
    }
}

/// How long fresh connections get before they count as failed.
fn opening_limit(timeout: Duration) -> Duration {
    (timeout * 4).max(Duration::from_secs(1))
}
