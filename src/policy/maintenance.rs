//! The maintenance switch: which maintenance is on, and whether it blocks a request.
//!
//! A [`Flag`] is what one flag file says, an [`Active`] one that is there, a [`State`] all that are there,
//! and the [`Switch`] the one place that holds the state while configurations come and go. Files, clocks
//! and answers are other rooms' business: reload::flag_file stores states, the proxy asks [`State::check`].
//!
//! What a flag covers: with none of `routes`, `hosts` and `paths` everything, also what no route matches.
//! Each of the three that is given must match, as it would for a route; within one, any entry may. A scope
//! whose every entry was unusable is as good as not given: in doubt a flag covers more.
//!
//! The global flag is asked first, then the route's own: a client allowed by one may be blocked by the other.

mod flag;
mod strays;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use parking_lot::Mutex;

pub use flag::{Flag, LINE_BYTES_MAX, LIST_ENTRIES_MAX, MESSAGE_BYTES_MAX, Mode, Warning, network, parse_duration};
pub use strays::{Stray, Strays};

use crate::seldom::{Loaded, Seldom};

/// Whose flag it is. As text, and as a metric's label, `global` or the route's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Global,
    Route(String),
}

/// One flag that is there.
#[derive(Debug)]
pub struct Active {
    /// Never the same for two contents, also not after the maintenance was off: a key for what is rendered once.
    pub id: u64,
    pub scope: Scope,
    pub flag: Flag,
    /// The flag's `started_at`, else when its file was written.
    pub since: Timestamp,
    /// Blocked requests of this scope since the process started; goes on when maintenance ends and begins.
    total: Arc<AtomicU64>,
    total_at_start: u64,
    /// The grace is over, and what is in flight is cut.
    is_cutting: AtomicBool,
}

/// What became of a flag, told after the switch shows it.
#[derive(Clone, Debug)]
pub enum Change {
    Activated(Arc<Active>),
    /// Still on, with another flag.
    Changed(Arc<Active>),
    /// The maintenance that is over.
    Deactivated(Arc<Active>),
    /// Told once, until it is another text or the cause is gone.
    Warning {
        scope: Scope,
        text: String,
    },
}

/// All flags that are there. Never changed, only replaced.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub global: Option<Arc<Active>>,
    /// By the route's name. There may be names that no route has.
    pub routes: BTreeMap<String, Arc<Active>>,
}

/// What is known about a request, and what the configuration says about it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `None` = no route matches.
    pub route: Option<&'a str>,
    /// In lower case, without the port; empty when the request names none.
    pub host: &'a str,
    /// Normalised, without the query.
    pub path: &'a str,
    /// GET, HEAD or OPTIONS.
    pub method_is_safe: bool,
    pub client_ip: IpAddr,
    /// The configuration's `allow`, in canonical form.
    pub allow: &'a [IpNet],
    /// An exempt route or path, or a valid bypass: passes whatever is on.
    pub exempt: bool,
}

/// The shared pointer to the state, carried across configurations.
#[derive(Debug, Default)]
pub struct Switch {
    state: Seldom<State>,
    /// Per scope that was ever on, at most [`TOTALS_MAX`] beyond those that are on.
    totals: Mutex<BTreeMap<Scope, Arc<AtomicU64>>>,
}

const TOTALS_MAX: usize = 4096;
/// How long the removal of a flag that ends by itself may take: folders may be slow.
const ENDING: Duration = Duration::from_secs(10);

impl State {
    pub fn is_empty(&self) -> bool {
        self.global.is_none() && self.routes.is_empty()
    }

    /// The global one first, then the routes' by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Active>> {
        self.global.iter().chain(self.routes.values())
    }

    /// The maintenance that blocks a request, if there is one. Decides only; [`Active::count_blocked`] counts.
    pub fn check(&self, facts: &Facts<'_>) -> Option<&Arc<Active>> {
        self.blocking(facts).next()
    }

    /// The maintenance that cuts a request in flight, if there is one.
    pub fn cutting(&self, facts: &Facts<'_>) -> Option<&Arc<Active>> {
        self.blocking(facts).find(|active| active.is_cutting())
    }

    fn blocking(&self, facts: &Facts<'_>) -> impl Iterator<Item = &Arc<Active>> {
        let passes = facts.exempt || self.is_empty() || contains(facts.allow, facts.client_ip);
        self.covering(facts).filter(move |active| !passes && active.flag.blocks(facts))
    }

    /// Those in whose scope a request is, whoever sent it and whatever it does.
    pub fn covering(&self, facts: &Facts<'_>) -> impl Iterator<Item = &Arc<Active>> {
        let route = facts.route.and_then(|name| self.routes.get(name));
        self.global.iter().chain(route).filter(|active| active.flag.covers(facts))
    }
}

impl Flag {
    fn blocks(&self, facts: &Facts<'_>) -> bool {
        self.covers(facts)
            && !(self.mode == Mode::ReadOnly && facts.method_is_safe)
            && !contains(&self.allow, facts.client_ip)
    }

    /// Also what no route matches.
    pub fn covers_everything(&self) -> bool {
        self.routes.is_empty() && self.hosts.is_empty() && self.paths.is_empty()
    }

    /// Whether a request is in the flag's scope, whoever sent it and whatever it does.
    pub fn covers(&self, facts: &Facts<'_>) -> bool {
        let route = || facts.route.is_some_and(|name| self.routes.iter().any(|route| route == name));
        (self.routes.is_empty() || route())
            && (self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches(facts.host)))
            && (self.paths.is_empty() || self.paths.iter().any(|path| path.matches(facts.path)))
    }
}

impl Active {
    fn begin(scope: Scope, flag: Flag, since: Timestamp, total: Arc<AtomicU64>, total_at_start: u64) -> Arc<Self> {
        let is_cutting = AtomicBool::new(false);
        Arc::new(Self { id: next_id(), scope, flag, since, total, total_at_start, is_cutting })
    }

    /// The names of the routes that it is for; empty = it is not bound to any. There may be names that no route has.
    pub fn routes(&self) -> &[String] {
        match &self.scope {
            Scope::Global => &self.flag.routes,
            Scope::Route(name) => std::slice::from_ref(name),
        }
    }

    /// What answers as maintenance does without being any: no flag file, no scope in the metrics, no count.
    pub fn stand_in(flag: Flag, since: Timestamp) -> Arc<Self> {
        Self::begin(Scope::Global, flag, since, Arc::default(), 0)
    }

    /// For `Retry-After`: whole seconds to `until`, rounded up, else `default`; at least 1, also when overdue.
    pub fn retry_after(&self, now: Timestamp, default: Duration) -> u64 {
        let seconds = match self.flag.until {
            Some(until) => (until.as_millisecond() - now.as_millisecond() + 999).div_euclid(1000),
            None => i64::try_from(default.as_millis().div_ceil(1000)).unwrap_or(i64::MAX),
        };
        u64::try_from(seconds).unwrap_or(0).max(1)
    }

    /// How long after its beginning what is still in flight is cut; `None` = it may finish.
    pub fn cut_after(&self) -> Option<Duration> {
        self.flag.terminate.then(|| self.flag.grace.unwrap_or_default())
    }

    /// From here on what it covers is cut, until it is over or says something else.
    pub fn begin_cutting(&self) {
        self.is_cutting.store(true, Ordering::Release);
    }

    pub fn is_cutting(&self) -> bool {
        self.is_cutting.load(Ordering::Acquire)
    }

    /// How long ago it should have ended; `None` when it is in time, no end is known, or it is just being ended.
    pub fn overdue(&self, now: Timestamp) -> Option<Duration> {
        let late = now.duration_since(self.flag.until?);
        let grace = if self.flag.auto_end { ENDING } else { Duration::ZERO };
        Duration::try_from(late).ok().filter(|late| *late > grace)
    }

    /// Counts a request that it blocks; once per request.
    pub fn count_blocked(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests blocked by this maintenance.
    pub fn blocked_requests(&self) -> u64 {
        self.total.load(Ordering::Relaxed).saturating_sub(self.total_at_start)
    }
}

impl Switch {
    /// `None` = no maintenance anywhere, for the price of one read of shared memory.
    pub fn load(&self) -> Option<Loaded<State>> {
        self.state.load()
    }

    /// Replaces the state. For one writer: of two at once, `load` may miss the later one.
    pub fn store(&self, state: State) {
        self.state.store((!state.is_empty()).then(|| Arc::new(state)));
    }

    /// A maintenance that begins, with nothing counted yet.
    pub fn activate(&self, scope: Scope, flag: Flag, since: Timestamp) -> Arc<Active> {
        let total = self.total(&scope);
        let total_at_start = total.load(Ordering::Relaxed);
        Active::begin(scope, flag, since, total, total_at_start)
    }

    /// The same maintenance under a changed flag: the count goes on.
    pub fn amend(&self, active: &Active, flag: Flag, since: Timestamp) -> Arc<Active> {
        Active::begin(active.scope.clone(), flag, since, Arc::clone(&active.total), active.total_at_start)
    }

    /// Blocked requests since the process started, per scope that was ever on.
    pub fn blocked_totals(&self) -> Vec<(Scope, u64)> {
        let totals = self.totals.lock();
        totals.iter().map(|(scope, total)| (scope.clone(), total.load(Ordering::Relaxed))).collect()
    }

    fn total(&self, scope: &Scope) -> Arc<AtomicU64> {
        let mut totals = self.totals.lock();
        if totals.len() >= TOTALS_MAX {
            // Anyone who may write flags may make up names; those of maintenance that is on are held elsewhere too.
            totals.retain(|_, total| Arc::strong_count(total) > 1);
        }
        Arc::clone(totals.entry(scope.clone()).or_default())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Route(name) => f.write_str(name),
        }
    }
}

/// Unique in the process and not only in a switch, so that what is kept by it is never taken for another's.
fn next_id() -> u64 {
    static IDS: AtomicU64 = AtomicU64::new(0);
    IDS.fetch_add(1, Ordering::Relaxed)
}

/// Whether one of the networks, in their [`canonical`](super::access::canonical) form, holds a client.
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    // A client on a dual-stack socket is ::ffff:192.0.2.1; lists are written as 192.0.2.0/24.
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests;
