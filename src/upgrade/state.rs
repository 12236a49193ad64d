//! What a process knows that is in no file, written down for the one that takes over: what limits have counted, where
//! breakers stand, which endpoints are away.
//!
//! JSON with a version. Whatever cannot be read is left out, with a warning, and begins anew.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::balance::EjectionMemory;
use crate::breaker::{self, State, Statistics};
use crate::policy::limit;
use crate::shared::Shared;
use crate::snapshot::{Limit, Snapshot};
use crate::upstream::group::EndpointMemory;
use crate::upstream::standing;

const VERSION: u64 = 1;
/// Keys handed over of all limits together; the stalest of each stay behind.
const KEYS_MAX: usize = 4_000_000;

/// Everything worth handing over.
pub(crate) fn of(live: &Snapshot, shared: &Shared) -> Value {
    let now = Instant::now();
    let mut room = KEYS_MAX;
    let mut limits = Map::new();
    for (name, limit) in &live.limits {
        let mut memory = limit.limiter.memory(shared.nanos());
        let keys = memory.keys.split_off(memory.keys.len().saturating_sub(room));
        room -= keys.len();
        let mut json = limit_to_json(&limit::Memory { keys, ..memory });
        json["countsBy"] = counted_by(limit);
        limits.insert(name.clone(), json);
    }
    let mut upstreams = Map::new();
    for (name, group) in &live.groups {
        let breaker = group.breaker.as_ref().map(|breaker| breaker_to_json(&breaker.memory(now)));
        let endpoints: Vec<_> = group.memory(now).iter().map(endpoint_to_json).collect();
        upstreams.insert(name.clone(), json!({ "breaker": breaker, "endpoints": endpoints }));
    }
    // Tells whether the keys of the limits mean the same to whoever reads this.
    let seed = seed_mark(shared);
    json!({ "version": VERSION, "seed": seed, "limits": limits, "upstreams": upstreams })
}

/// Lets a generation that does not serve yet go on where another process stood.
pub(crate) fn recall(state: &Value, live: &Snapshot, shared: &Shared) {
    if state["version"] != VERSION {
        tracing::warn!(version = %state["version"], "the state of the process before is not understood; it begins anew");
        return;
    }
    let mut unread = 0;
    let has_same_keys = state["seed"] == seed_mark(shared);
    for (name, limit) in live.limits.iter().filter(|_| has_same_keys) {
        // By another key the same hash is somebody else. Older processes do not tell.
        let counts_alike = |said: &&Value| said["countsBy"].is_null() || said["countsBy"] == counted_by(limit);
        match state["limits"].get(name).filter(counts_alike).map(limit_of_json) {
            Some(Some(memory)) => limit.limiter.recall(&memory, shared.nanos()),
            Some(None) => unread += 1,
            None => {}
        }
    }
    let now = Instant::now();
    for (name, group) in &live.groups {
        let Some(upstream) = state["upstreams"].get(name) else { continue };
        if let Some(breaker) = group.breaker.as_ref().filter(|_| !upstream["breaker"].is_null()) {
            match breaker_of_json(&upstream["breaker"]) {
                Some(memory) => breaker.recall(&memory, now),
                None => unread += 1,
            }
        }
        let endpoints = upstream["endpoints"].as_array().into_iter().flatten().map(endpoint_of_json);
        let endpoints: Vec<_> = endpoints.collect();
        unread += endpoints.iter().filter(|endpoint| endpoint.is_none()).count();
        group.recall(&endpoints.into_iter().flatten().collect::<Vec<_>>());
    }
    if unread > 0 {
        tracing::warn!(unread, "parts of the state of the process before are not understood; they begin anew");
    }
}

fn counted_by(limit: &Limit) -> Value {
    limit.settings.key.iter().map(ToString::to_string).collect()
}

fn seed_mark(shared: &Shared) -> String {
    let mark = limit::KeyHasher::with_seed(shared.limit_seed(), 0).builder().bytes(b"mark").finish();
    format!("{mark:?}")
}

fn limit_to_json(memory: &limit::Memory) -> Value {
    let bytes: Vec<u8> =
        memory.keys.iter().flat_map(|(key, used)| [key.to_le_bytes(), used.to_le_bytes()]).flatten().collect();
    let settings = &memory.settings;
    json!({
        "count": settings.rate_count,
        "periodNanos": nanos(settings.period),
        "burst": settings.burst,
        "ipv6Prefix": settings.ipv6_prefix,
        "keys": STANDARD.encode(bytes),
    })
}

fn limit_of_json(value: &Value) -> Option<limit::Memory> {
    let bytes = STANDARD.decode(value["keys"].as_str()?).ok()?;
    let (pairs, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() {
        return None;
    }
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    Some(limit::Memory {
        settings: limit::Settings {
            rate_count: count(&value["count"])?,
            period: duration(&value["periodNanos"])?,
            burst: count(&value["burst"])?,
            keys_max: NonZeroUsize::MIN,
            ipv6_prefix: u8::try_from(value["ipv6Prefix"].as_u64()?).ok()?,
        },
        keys: pairs.iter().map(|pair| (word(&pair[..8]), word(&pair[8..]))).collect(),
    })
}

fn breaker_to_json(memory: &breaker::Memory) -> Value {
    json!({
        "state": match memory.state {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half-open",
            State::Ramp => "ramp",
        },
        "failures": memory.failures,
        "opens": memory.opens,
        "forced": memory.forced,
        "openForNanos": memory.open_for.map(nanos),
        "rampingForNanos": nanos(memory.ramping_for),
        "successful": memory.statistics.successful,
        "failed": memory.statistics.failed,
        "rejected": memory.statistics.rejected,
        "window": memory.window.iter().map(|it| json!([nanos(it.ago), it.total, it.failures])).collect::<Vec<_>>(),
    })
}

fn breaker_of_json(value: &Value) -> Option<breaker::Memory> {
    Some(breaker::Memory {
        state: match value["state"].as_str()? {
            "closed" => State::Closed,
            "open" => State::Open,
            "half-open" => State::HalfOpen,
            "ramp" => State::Ramp,
            _ => return None,
        },
        failures: number(&value["failures"])?,
        opens: number(&value["opens"])?,
        forced: value["forced"].as_bool()?,
        open_for: optional(&value["openForNanos"])?,
        ramping_for: duration(&value["rampingForNanos"])?,
        statistics: Statistics {
            successful: value["successful"].as_u64()?,
            failed: value["failed"].as_u64()?,
            rejected: value["rejected"].as_u64()?,
        },
        window: value["window"].as_array().into_iter().flatten().map(tenth_of_json).collect::<Option<_>>()?,
    })
}

fn tenth_of_json(value: &Value) -> Option<breaker::Tenth> {
    Some(breaker::Tenth { ago: duration(&value[0])?, total: number(&value[1])?, failures: number(&value[2])? })
}

fn endpoint_to_json(memory: &EndpointMemory) -> Value {
    let (standing, ejection) = (&memory.standing, &memory.standing.ejection);
    json!({
        "configured": memory.configured,
        "address": memory.label,
        "health": standing.health,
        "passedInARow": standing.passed_in_a_row,
        "failedInARow": standing.failed_in_a_row,
        "error": standing.error,
        "joinedForNanos": standing.joined_for.map(nanos),
        "failures": ejection.failures,
        "ejections": ejection.ejections,
        "lengthNanos": nanos(ejection.length),
        "succeededSince": ejection.succeeded_since,
        "awayForNanos": ejection.away_for.map(nanos),
        "backForNanos": ejection.back_for.map(nanos),
    })
}

fn endpoint_of_json(value: &Value) -> Option<EndpointMemory> {
    Some(EndpointMemory {
        configured: value["configured"].as_str()?.to_owned(),
        label: value["address"].as_str()?.to_owned(),
        standing: standing::Memory {
            health: u8::try_from(value["health"].as_u64()?).ok()?,
            passed_in_a_row: number(&value["passedInARow"])?,
            failed_in_a_row: number(&value["failedInARow"])?,
            error: value["error"].as_str().map(str::to_owned),
            // Older versions say nothing of this, nor of the end of an ejection.
            joined_for: optional(&value["joinedForNanos"])?,
            ejection: EjectionMemory {
                failures: number(&value["failures"])?,
                ejections: number(&value["ejections"])?,
                length: duration(&value["lengthNanos"])?,
                succeeded_since: value["succeededSince"].as_bool()?,
                away_for: optional(&value["awayForNanos"])?,
                back_for: optional(&value["backForNanos"])?,
            },
        },
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn duration(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_nanos)
}

/// The outer `None` is for what is not understood.
#[expect(clippy::option_option, reason = "absent and unintelligible are different things")]
fn optional(value: &Value) -> Option<Option<Duration>> {
    if value.is_null() { Some(None) } else { duration(value).map(Some) }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn count(value: &Value) -> Option<NonZeroU32> {
    NonZeroU32::new(number(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_as_it_was() {
        let one = NonZeroU32::new(7).unwrap();
        let period = Duration::from_secs(60);
        let settings =
            limit::Settings { rate_count: one, period, burst: one, keys_max: NonZeroUsize::MIN, ipv6_prefix: 64 };
        let limit = limit::Memory { settings, keys: vec![(1, u64::MAX), (u64::MAX, 2)] };
        assert_eq!(limit_of_json(&limit_to_json(&limit)), Some(limit));
        for (state, open_for) in [
            (State::Closed, None),
            (State::Open, Some(Duration::from_nanos(5))),
            (State::Open, None),
            (State::HalfOpen, None),
            (State::Ramp, None),
        ] {
            let statistics = Statistics { successful: 1, failed: 2, rejected: 3 };
            let ramping_for = Duration::from_millis(1);
            let window = vec![breaker::Tenth { ago: Duration::from_secs(1), total: 6, failures: 5 }];
            let (failures, opens, forced) = (4, 5, true);
            let memory = breaker::Memory { state, failures, opens, forced, open_for, ramping_for, statistics, window };
            assert_eq!(breaker_of_json(&breaker_to_json(&memory)), Some(memory));
        }
        for (some, error) in [(None, None), (Some(Duration::from_secs(9)), Some("refused".to_owned()))] {
            let (away_for, back_for, joined_for) = (some, some.map(|some| some / 2), some.map(|some| some * 2));
            let (failures, ejections, length, succeeded_since) = (1, 2, period, true);
            let ejection = EjectionMemory { failures, ejections, length, succeeded_since, away_for, back_for };
            let (health, passed_in_a_row, failed_in_a_row) = (2, 3, 4);
            let standing = standing::Memory { health, passed_in_a_row, failed_in_a_row, error, joined_for, ejection };
            let memory = EndpointMemory { configured: "app:80".into(), label: "10.0.0.1:80".into(), standing };
            assert_eq!(endpoint_of_json(&endpoint_to_json(&memory)), Some(memory));
        }
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for value in [json!(null), json!({}), json!([1]), json!({ "state": "ajar", "keys": "!", "address": 7 })] {
            assert_eq!(limit_of_json(&value), None);
            assert_eq!(breaker_of_json(&value), None);
            assert_eq!(endpoint_of_json(&value), None);
        }
        let breaker = |window: Value| {
            let mut json =
                json!({ "state": "closed", "failures": 0, "opens": 0, "forced": false, "rampingForNanos": 0 });
            for key in ["successful", "failed", "rejected"] {
                json[key] = 0.into();
            }
            json["window"] = window;
            breaker_of_json(&json)
        };
        // Older versions say nothing of the window.
        assert_eq!(breaker(Value::Null).map(|memory| memory.window), Some(vec![]));
        assert_eq!(breaker(json!([[1, "much"]])), None);
        let odd = json!({ "count": 1, "periodNanos": 1, "burst": 1, "ipv6Prefix": 64, "keys": STANDARD.encode("x") });
        assert_eq!(limit_of_json(&odd), None);
    }
}
