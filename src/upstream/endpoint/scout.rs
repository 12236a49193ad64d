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
use std::sync::{Arc, OnceLock, Weak};
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
    /// Where scouts go out, once there was one.
    runtime: OnceLock<Handle>,
}

impl Incident {
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
    let runtime = endpoint.incident.runtime.get_or_init(Handle::current);
    if !endpoint.incident.is_on.swap(true, AcqRel) {
        tell(endpoint, Change::Ejected { reason: "connect_failed", error: String::new() });
        // Ends with the incident, or when the endpoint is over.
        runtime.spawn(look(Arc::downgrade(endpoint)));
    }
}

/// Leaves the incident, if it is on, to what a reload has put in the endpoint's place.
pub(super) fn hand_on(endpoint: &Endpoint, successor: &Arc<Endpoint>) {
    let Some(runtime) = endpoint.incident.runtime.get().filter(|_| endpoint.incident.is_on()) else { return };
    let runtime = successor.incident.runtime.get_or_init(|| runtime.clone());
    if !successor.incident.is_on.swap(true, AcqRel) {
        if successor.is_waited_for && endpoint.standing.is_refusing() {
            successor.standing.set_refusing(true);
        }
        // Ends as any other.
        runtime.spawn(look(Arc::downgrade(successor)));
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
