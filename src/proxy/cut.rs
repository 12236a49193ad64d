//! Cutting what is in flight when the grace of a terminating maintenance is over.
//!
//! [`Cuts`] waits for the end of each grace and then starts a *round*: a number goes up, and the workers wake all their
//! connections. A request notes the number when it begins and compares it whenever it has to wait; only when the number
//! has changed does it look at the switch. So a request pays one read of shared memory where nothing is cut.
//!
//! Requests live on their connection's task, which is woken, and with it all streams of one of HTTP/2.
//!
//! A client that takes nothing of its answer any more is not found here but by `response_body`.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::context::{Context, Line};
use super::decide::facts_of;
use crate::message::host::Host;
use crate::message::path;
use crate::policy::maintenance::{Active, Scope};
use crate::route::Found;
use crate::snapshot::Snapshot;

/// The plans to cut, and the rounds so far. One per process.
#[derive(Debug, Default)]
pub struct Cuts {
    round: AtomicU64,
    rounds: watch::Sender<u64>,
    /// One per scope that is on and terminates: as many as there are flags.
    plans: Mutex<BTreeMap<Scope, Plan>>,
    replanned: Notify,
}

#[derive(Debug)]
struct Plan {
    active: Arc<Active>,
    grace: Duration,
    /// `None` = done.
    deadline: Option<Instant>,
}

impl Cuts {
    /// A flag is there, or says something else now. Its grace begins, unless it is running or over already.
    pub(crate) fn flag_is_on(&self, active: &Arc<Active>, now: Instant) {
        let mut plans = self.plans.lock();
        let Some(grace) = active.cut_after() else {
            plans.remove(&active.scope);
            return;
        };
        let before = plans.get(&active.scope).filter(|plan| plan.grace == grace);
        let deadline = before.map_or_else(|| now.checked_add(grace), |plan| plan.deadline);
        plans.insert(active.scope.clone(), Plan { active: Arc::clone(active), grace, deadline });
        drop(plans);
        if deadline.is_none() {
            // Over before the flag changed: what it covers now is cut too.
            self.start_round(&[Arc::clone(active)]);
        }
        self.replanned.notify_one();
    }

    /// A flag is gone.
    pub(crate) fn flag_is_off(&self, active: &Active) {
        self.plans.lock().remove(&active.scope);
    }

    /// Waits for the end of each grace. To be run once, for as long as the process serves.
    pub async fn run(&self) {
        loop {
            let replanned = self.replanned.notified();
            match self.next() {
                Some(deadline) => tokio::select! {
                    () = replanned => {}
                    () = tokio::time::sleep_until(deadline) => self.start_round(&self.take_due(Instant::now())),
                },
                None => replanned.await,
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let plans = self.plans.lock();
        plans.values().filter_map(|plan| plan.deadline).min()
    }

    fn take_due(&self, now: Instant) -> Vec<Arc<Active>> {
        let mut plans = self.plans.lock();
        let due = plans.values_mut().filter(|plan| plan.deadline.is_some_and(|deadline| deadline <= now));
        due.map(|plan| {
            plan.deadline = None;
            Arc::clone(&plan.active)
        })
        .collect()
    }

    fn start_round(&self, due: &[Arc<Active>]) {
        for active in due {
            tracing::warn!(scope = %active.scope, "the grace is over: what is still in flight is cut");
            active.begin_cutting();
        }
        // First the number, then the waking: who wakes sees it.
        let round = self.round.fetch_add(1, Ordering::AcqRel) + 1;
        self.rounds.send_replace(round);
    }

    pub(crate) fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire)
    }

    /// For who wakes connections: it changes at every round.
    pub(crate) fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }
}

/// What a request in flight keeps to notice a round.
pub(crate) struct Watch {
    round: u64,
}

impl Watch {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self { round: snapshot.shared.cuts.round() }
    }

    /// Whether a round began since this was last asked.
    pub(super) fn is_new_round(&mut self, snapshot: &Snapshot) -> bool {
        let round = snapshot.shared.cuts.round();
        std::mem::replace(&mut self.round, round) != round
    }
}

/// What decides whether a request is cut before it has an answer, as far as that is known at its beginning.
pub(super) struct Known<'a> {
    line: Arc<Line>,
    host: Option<HeaderValue>,
    client_ip: IpAddr,
    is_bypassed: bool,
    snapshot: &'a Snapshot,
    watch: Watch,
}

impl<'a> Known<'a> {
    /// `snapshot` is the request's own.
    pub(super) fn of(context: &Context, snapshot: &'a Snapshot) -> Self {
        Self {
            line: Arc::clone(&context.line),
            host: context.noted.host.clone(),
            client_ip: context.client_ip,
            is_bypassed: context.is_bypassed,
            watch: Watch::new(snapshot),
            snapshot,
        }
    }

    /// Runs `serving` to its end, or leaves it when the request is cut; the error is the maintenance that cut it.
    ///
    /// It stays where the caller has pinned it: moving it costs more than most answers that are made here.
    pub(super) async fn unless_cut<T>(
        &mut self,
        mut serving: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Arc<Active>> {
        poll_fn(|cx| {
            if let Poll::Ready(served) = serving.as_mut().poll(cx) {
                return Poll::Ready(Ok(served));
            }
            if self.watch.is_new_round(self.snapshot)
                && let Some(active) = self.cut_by()
            {
                return Poll::Ready(Err(active));
            }
            Poll::Pending
        })
        .await
    }

    /// Finds the request's place once more; that is cheaper than for every request to keep it.
    fn cut_by(&self) -> Option<Arc<Active>> {
        let mut headers = HeaderMap::new();
        headers.extend(self.host.clone().map(|host| (HOST, host)));
        let Line { method, uri, version } = &*self.line;
        let host = Host::of_request(uri, &headers, *version).ok()?;
        let path = path::normalise(uri.path()).ok()?;
        let route = match self.snapshot.routes.find(host.name(), &path, method) {
            Found::Route(route) => Some(&**route),
            _ => None,
        };
        let client = (self.client_ip, self.is_bypassed);
        let facts = facts_of(route, (host.name(), &path), method, client, self.snapshot);
        Some(Arc::clone(self.snapshot.shared.switch.load()?.cutting(&facts)?))
    }
}
