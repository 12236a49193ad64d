//! Looks for an endpoint that takes no connection while its upstream holds requests for it.
//!
//! One incident has one scout and is told of by one pair of events, however often the endpoint only seems to be back. A
//! reload that changes its upstream takes it along: another scout goes out for what is in the endpoint's place.
//!
//! | from | what happens | to |
//! |---|---|---|
//! | well | a request finds no connection: `Endpoint ejected`, and a scout goes out | away |
//! | away | the scout finds one | on trial |
//! | on trial | a request finds none: the scout goes on, with longer pauses | away |
//! | on trial | a request is answered, or a second goes by: `Endpoint restored` | well |

use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::{Change, Endpoint};

/// Between two tries to connect. It grows until the incident is over.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long such a try may take.
const LIMIT: Duration = Duration::from_secs(2);
/// An endpoint that nobody asks is back after this time.
const TRIAL: Duration = Duration::from_secs(1);
/// Between two looks at how the trial goes.
const NAP: Duration = Duration::from_millis(25);

/// What an endpoint knows of its own.
#[derive(Debug, Default)]
pub(super) struct Incident {
    is_on: AtomicBool,
    /// Wants to know of the next answer.
    is_on_trial: AtomicBool,
}

impl Incident {
    /// That of the same endpoint before a reload, of which the scout is to [`go_on`].
    pub(super) fn after(before: Option<&Self>) -> Self {
        Self { is_on: AtomicBool::new(before.is_some_and(Self::is_on)), ..Self::default() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// For every answer.
    pub(super) fn answered(&self) {
        if self.is_on_trial.load(Relaxed) {
            self.is_on_trial.store(false, Relaxed);
        }
    }
}

/// Sends a scout out, unless one is. Must be called on a runtime.
pub(super) fn send(endpoint: &Arc<Endpoint>) {
    if !endpoint.incident.is_on.swap(true, AcqRel) {
        tell(endpoint, Change::Ejected { reason: "connect_failed" });
        // Ends with the incident, or when the endpoint is over.
        tokio::spawn(look(Arc::downgrade(endpoint)));
    }
}

/// Sends a scout out for an incident of before a reload.
pub(super) fn go_on(endpoint: &Arc<Endpoint>, runtime: &Handle) {
    if endpoint.incident.is_on() {
        // Ends as any other.
        runtime.spawn(look(Arc::downgrade(endpoint)));
    }
}

/// Tries to connect, as a request would, more and more rarely.
async fn look(endpoint: Weak<Endpoint>) {
    let mut pause = PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        if endpoint.is_over() {
            // Whoever still comes here finds out.
            endpoint.standing.set_refusing(false);
            return end(&endpoint);
        }
        if endpoint.connector.connect(LIMIT).await.is_ok() && passes_trial(&endpoint).await {
            return end(&endpoint);
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Lets requests go there; whether none of them found that it takes no connection after all.
async fn passes_trial(endpoint: &Endpoint) -> bool {
    let incident = &endpoint.incident;
    incident.is_on_trial.store(true, Relaxed);
    endpoint.standing.set_refusing(false);
    endpoint.hold.queues().release();
    let began = Instant::now();
    while incident.is_on_trial.load(Relaxed) && began.elapsed() < TRIAL {
        if endpoint.standing.is_refusing() {
            return false;
        }
        tokio::time::sleep(NAP).await;
    }
    incident.is_on_trial.store(false, Relaxed);
    true
}

fn end(endpoint: &Arc<Endpoint>) {
    tell(endpoint, Change::Restored);
    endpoint.incident.is_on.swap(false, AcqRel);
    // A request that found so before this very moment has sent nobody.
    if endpoint.standing.is_refusing() {
        send(endpoint);
    }
}

/// Unless its upstream has it no more, or another in its place, of which that is told.
fn tell(endpoint: &Endpoint, change: Change) {
    if !endpoint.replaced.load(Relaxed) {
        (endpoint.observer)(&endpoint.label, change);
    }
}
