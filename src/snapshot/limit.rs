//! A `[limit.NAME]` with its keys, and what an operator put in its place for a while.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use smallvec::SmallVec;

use crate::config::model;
use crate::message::forwarded;
use crate::policy::access::NetSet;
use crate::policy::limit::headers::{self, Policy, TOLD_MAX};
use crate::policy::limit::{self, Ask, Facts, Key, Limiter, Part, Slots, Source};
use crate::runtime::overrides::{Override, Overrides};
use crate::shared::Shared;
use crate::shared_limit::Store;
use crate::telemetry::metrics::{LimitMetrics, PassedAll};

/// One limit, as requests meet it.
pub struct Limit {
    pub name: String,
    pub settings: model::Limit,
    pub source: Source,
    pub limiter: Arc<Limiter>,
    /// Requests in flight, while `settings.concurrency` bounds them.
    pub slots: Arc<Slots>,
    /// Who counts in place of `limiter`, which then remembers what it was told.
    pub store: Option<Arc<Store>>,
    pub(crate) exempt: NetSet,
    pub metrics: Arc<LimitMetrics>,
    pub(crate) policy: Policy,
    concurrency_policy: Option<Policy>,
    is_overridden: AtomicBool,
    /// Shown instead of `policy` while the rate is overridden.
    override_policy: ArcSwapOption<Policy>,
}

impl Limit {
    /// Keys of `kept`, the limit of that name before, keep what they have used and have in flight, if it counts by the
    /// same.
    pub(super) fn build(
        name: &str,
        settings: &model::Limit,
        store: Option<Arc<Store>>,
        kept: Option<&Self>,
        shared: &Shared,
    ) -> Self {
        // By another key the same hash is somebody else.
        let kept = kept.filter(|kept| kept.settings.key == settings.key);
        let configured = limiter_settings(settings, None);
        let in_force = limiter_settings(settings, overridden(name, shared));
        let limiter = match kept {
            Some(kept) if kept.limiter.settings() == in_force => Arc::clone(&kept.limiter),
            Some(kept) => Arc::new(kept.limiter.rebuild(in_force, shared.nanos())),
            None => Arc::new(Limiter::with_seed(in_force, shared.limit_seed())),
        };
        let concurrency_policy = |slots| Policy::concurrency(&format!("{name}.concurrency"), slots);
        let limit = Self {
            name: name.to_owned(),
            source: Source::new(settings.key.iter().map(part).collect()),
            slots: kept.map(|kept| Arc::clone(&kept.slots)).unwrap_or_default(),
            store,
            exempt: settings.exempt.iter().copied().collect(),
            metrics: shared.metrics.limit(name),
            policy: Policy::new(name, &configured),
            concurrency_policy: settings.concurrency.map(concurrency_policy),
            is_overridden: AtomicBool::new(false),
            override_policy: ArcSwapOption::empty(),
            settings: settings.clone(),
            limiter,
        };
        limit.follow_override(shared);
        limit
    }

    /// Puts the rate in force that should be: the override's while there is one. Does nothing when it is already.
    pub fn follow_override(&self, shared: &Shared) {
        let overridden = self.overridden(shared);
        let settings = limiter_settings(&self.settings, overridden);
        if self.limiter.settings() != settings {
            let _changed = self.limiter.update(settings, shared.nanos());
        }
        if overridden.is_some() || self.is_overridden.load(Relaxed) {
            self.is_overridden.store(overridden.is_some(), Relaxed);
            self.override_policy.store(overridden.map(|_| Arc::new(Policy::new(&self.name, &settings))));
        }
    }

    pub fn overridden(&self, shared: &Shared) -> Option<Override> {
        overridden(&self.name, shared)
    }

    /// Whether this is what the configuration says, asked of that store.
    pub(super) fn is_current(&self, settings: &model::Limit, store: Option<&Arc<Store>>) -> bool {
        self.settings == *settings && self.store.as_ref().map(Arc::as_ptr) == store.map(Arc::as_ptr)
    }

    /// Whether this client is asked for it.
    pub(crate) fn is_met_by(&self, client_ip: IpAddr) -> bool {
        !self.exempt.contains(client_ip)
    }

    fn has_exempt(&self) -> bool {
        !self.exempt.is_empty()
    }

    /// Whether every request has the same key in both.
    fn counts_like(&self, other: &Self) -> bool {
        self.source == other.source && self.limiter.has_keys_of(&other.limiter)
    }

    /// Clients are not told of what only watches.
    fn is_announced(&self) -> bool {
        !self.settings.shadow
    }

    /// Whether a request needs no more than [`limit::check_all`]: no waiting, no slot, no other store, no shadow.
    pub(super) fn is_plain(&self) -> bool {
        let settings = &self.settings;
        settings.queue == 0 && settings.concurrency.is_none() && self.store.is_none() && !settings.shadow
    }
}

/// The limits of a route.
pub struct Limits {
    pub each: Vec<Arc<Limit>>,
    /// Of each in turn, what most requests need to know of it.
    asks: Box<[Asks]>,
    /// A limit for each way of counting there is among them.
    ways: Box<[usize]>,
    pub(crate) are_plain: bool,
    /// One of them counts by the client's certificate.
    pub(crate) read_certificate: bool,
    /// Those that have nobody exempt, who are all counted at once, and those that have.
    passed: PassedAll,
    with_exempt: Box<[usize]>,
    /// Those that `RateLimit-Policy` names.
    named: Box<[usize]>,
    /// The prepared `RateLimit-Policy`, as configured.
    policy: Option<HeaderValue>,
}

/// Side by side, so that a hundred limits are a few lines of cache and not as many as there are limits.
struct Asks {
    limiter: Arc<Limiter>,
    /// Which of [`Limits::ways`] it counts by.
    way: usize,
    has_exempt: bool,
}

/// A request's keys, one for each of [`Limits::ways`].
type Keys = SmallVec<[Key; 4]>;

impl Limits {
    pub(super) fn new(mut each: Vec<Arc<Limit>>) -> Self {
        // What is cheap to ask, and to give back, is asked first.
        each.sort_by_key(|limit| limit.store.is_some());
        let named = named(&each);
        let policies = named.iter().map(|&index| &each[index]);
        let policies = policies.flat_map(|limit| [Some(&limit.policy), limit.concurrency_policy.as_ref()]);
        let mut ways: Vec<usize> = Vec::new();
        let asks = each.iter().enumerate().map(|(index, limit)| {
            let alike = ways.iter().position(|&way| each[way].counts_like(limit));
            let way = alike.unwrap_or_else(|| {
                ways.push(index);
                ways.len() - 1
            });
            Asks { limiter: Arc::clone(&limit.limiter), way, has_exempt: limit.has_exempt() }
        });
        Self {
            asks: asks.collect(),
            ways: ways.into(),
            policy: headers::policies(policies.flatten()),
            are_plain: each.iter().all(|limit| limit.is_plain()),
            read_certificate: each.iter().any(|limit| limit.source.reads(forwarded::is_of_certificate)),
            passed: PassedAll::new(
                each.iter().filter(|limit| !limit.has_exempt()).map(|limit| Arc::clone(&limit.metrics)),
            ),
            with_exempt: (0..each.len()).filter(|&index| each[index].has_exempt()).collect(),
            named,
            each,
        }
    }

    /// The keys of a request, hashed once for all limits that count by the same.
    #[inline]
    pub(crate) fn keys(&self, facts: &Facts<'_>) -> Keys {
        self.ways.iter().map(|&way| self.each[way].source.key(&self.asks[way].limiter, facts)).collect()
    }

    /// Every limit that a client is asked for, in order.
    #[inline]
    pub(crate) fn met<'a>(&'a self, client_ip: IpAddr, keys: &'a [Key]) -> impl Iterator<Item = Ask<'a>> + Clone {
        let is_met = move |index: usize, ask: &Asks| !ask.has_exempt || self.each[index].is_met_by(client_ip);
        let asks = self.asks.iter().enumerate().filter(move |&(index, ask)| is_met(index, ask));
        asks.map(|(index, ask)| Ask { index, limiter: &ask.limiter, key: keys[ask.way] })
    }

    /// Counts a request that has passed all limits which the client is asked for.
    #[inline]
    pub(crate) fn count_passed(&self, client_ip: IpAddr) {
        self.passed.count();
        let with_exempt = self.with_exempt.iter().map(|&index| &self.each[index]);
        with_exempt.filter(|limit| limit.is_met_by(client_ip)).for_each(|limit| limit.metrics.allowed());
    }

    /// `RateLimit-Policy`: what is in force now.
    pub(crate) fn policy(&self, overrides: &Overrides) -> Option<HeaderValue> {
        if !overrides.are_any() || !self.each.iter().any(|limit| limit.is_overridden.load(Relaxed)) {
            return self.policy.clone();
        }
        let named = || self.named.iter().map(|&index| &self.each[index]);
        let overrides: SmallVec<[_; 4]> = named().map(|limit| limit.override_policy.load()).collect();
        let policies = named().zip(&overrides).flat_map(|(limit, overridden)| {
            let rate = overridden.as_deref().unwrap_or(&limit.policy);
            [Some(rate), limit.concurrency_policy.as_ref()]
        });
        headers::policies(policies.flatten())
    }
}

/// Where clients are told of more limits than fit, the policy is that of those with the lowest rates: whoever keeps to
/// them keeps to most of the others. It goes by the configuration alone, for the field is to be the same in every
/// answer.
fn named(each: &[Arc<Limit>]) -> Box<[usize]> {
    let mut named: Vec<usize> = (0..each.len()).filter(|&index| each[index].is_announced()).collect();
    if named.len() > TOLD_MAX {
        let interval = |rate: model::Rate| rate.period.as_nanos() / u128::from(rate.count.get());
        named.sort_by_key(|&index| Reverse(interval(each[index].settings.rate)));
        named.truncate(TOLD_MAX);
        named.sort_unstable();
    }
    named.into()
}

fn overridden(name: &str, shared: &Shared) -> Option<Override> {
    shared.runtime.overrides.of(name, jiff::Timestamp::now())
}

fn limiter_settings(settings: &model::Limit, overridden: Option<Override>) -> limit::Settings {
    let (rate, burst): (model::Rate, NonZeroU32) =
        overridden.map_or((settings.rate, settings.burst), |overridden| (overridden.rate, overridden.burst));
    limit::Settings {
        rate_count: rate.count,
        period: rate.period,
        burst,
        keys_max: settings.keys_max,
        ipv6_prefix: settings.ipv6_prefix,
    }
}

fn part(key: &model::LimitKey) -> Part {
    match key {
        model::LimitKey::ClientIp => Part::ClientIp,
        model::LimitKey::Global => Part::Global,
        model::LimitKey::Route => Part::Route,
        model::LimitKey::Header(name) => Part::Header(name.clone()),
        model::LimitKey::Cookie(name) => Part::Cookie(name.clone()),
        model::LimitKey::Path => Part::Path,
    }
}
