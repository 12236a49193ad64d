//! What there is to say of upstreams, probes and the machine.

use std::time::Instant;

use crate::snapshot::Snapshot;
use crate::telemetry::host::Check;
use crate::upstream::verdict::Verdict;

/// What there is to say of every upstream and probe, in the order of their names, and of the machine.
pub fn verdicts(live: &Snapshot) -> Vec<Verdict> {
    let mut verdicts = verdicts_of_services(live);
    // What has the name of an upstream or a probe is that one.
    let machine = live.shared.host.checks(&live.config.host).into_iter();
    let machine = machine.filter(|check| !verdicts.iter().any(|verdict| verdict.name == check.name));
    let machine: Vec<_> = machine.map(verdict_of_machine).collect();
    verdicts.extend(machine);
    verdicts
}

/// The same without the machine.
pub fn verdicts_of_services(live: &Snapshot) -> Vec<Verdict> {
    let now = Instant::now();
    let groups = live.groups.values().map(|group| {
        let fallback = group.settings.breaker.fallback.as_ref().and_then(|name| live.groups.get(name));
        Verdict::of_group(group, fallback.map(|fallback| &**fallback), now)
    });
    let probes = live.probes.iter().map(|(name, probe)| match live.groups.contains_key(name) {
        // Both are told of.
        true => Verdict::of_probe(&format!("probe.{name}"), probe),
        false => Verdict::of_probe(name, probe),
    });
    groups.chain(probes).collect()
}

fn verdict_of_machine(check: Check) -> Verdict {
    let Check { name, percent, bound, is_over } = check;
    Verdict {
        name: name.to_owned(),
        critical: false,
        is_covered: false,
        is_healthy: Some(!is_over),
        is_on_trial: false,
        latency: None,
        error: is_over.then(|| format!("{percent:.1} % in use, more than {bound} %")),
        endpoints: Vec::new(),
        percent: Some(percent),
    }
}
