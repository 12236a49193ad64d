//! What a webhook gets. The shapes are documented, with an example for each event, in docs/webhooks.md.

use std::sync::LazyLock;

use serde_json::json;

use crate::config::model::{EventKind, NotifyFormat};
use crate::telemetry::events::{Level, Record, Value};

/// The body of one POST.
pub(super) fn of(record: &Record, format: NotifyFormat) -> String {
    match format {
        NotifyFormat::Json => plain(record, &HOST),
        NotifyFormat::Slack => slack(record, &HOST),
    }
}

/// What this machine, container or Pod is called: of several that tell the same channel, which one it is.
static HOST: LazyLock<String> = LazyLock::new(|| rustix::system::uname().nodename().to_string_lossy().into_owned());

/// The object of the event log, and which kind of event it is.
fn plain(record: &Record, host: &str) -> String {
    let mut json = record.to_json();
    if let Some(kind) = record.event.kind() {
        json.truncate(json.len() - 1);
        json.push_str(&format!(",\"host\":{},\"kind\":\"{}\"}}", json!(host), name(kind)));
    }
    json
}

/// As `[[notify]] events` names it.
fn name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Maintenance => "maintenance",
        EventKind::Breaker => "breaker",
        EventKind::Health => "health",
        EventKind::Certificate => "certificate",
        EventKind::Reload => "reload",
    }
}

/// An incoming webhook's message: the event in bold, a line for each field.
fn slack(record: &Record, host: &str) -> String {
    let event = &record.event;
    let sign = match event.level() {
        Level::Info => ":information_source:",
        Level::Warn => ":warning:",
        Level::Error => ":rotating_light:",
    };
    let mut text = format!("{sign} *{}*", event.message());
    for (name, value) in event.fields() {
        let value = match value {
            Value::Text(text) => escaped(&text),
            Value::Number(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
        };
        text.push_str(&format!("\n{name}: {value}"));
    }
    text.push_str(&format!("\nhost: {}", escaped(host)));
    json!({ "text": text }).to_string()
}

/// Slack's three special characters: what an operator wrote mentions nobody and links nowhere.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::events::Event;
    use crate::telemetry::events::tests::one_of_each;
    use crate::telemetry::metrics::{BreakerState, HealthStatus};

    /// 2030-01-31T21:00:00.000Z
    const AT: u64 = 1_896_123_600_000;

    fn record(event: Event) -> Record {
        Record { id: 7, unix_ms: AT, event }
    }

    /// One of each event that webhooks are told.
    fn every_event() -> Vec<Event> {
        let text = str::to_owned;
        let (global, web) = (text("global"), text("app1:3000"));
        let breaker = |to, reason: &str, failure: &str| Event::BreakerChanged {
            upstream: text("app"),
            to,
            reason: text(reason),
            failure: text(failure),
        };
        vec![
            Event::MaintenanceActivated {
                scope: global.clone(),
                mode: text("full"),
                by: text("cli (ops)"),
                reason: text("Database upgrade"),
                until: text("2030-01-31T22:00:00Z"),
            },
            Event::MaintenanceDeactivated { scope: global.clone(), by: text("cli (ops)") },
            Event::EmergencyActivated { scope: global.clone(), by: text("api"), reason: text("Data breach") },
            Event::MaintenanceScheduled {
                window: text("weekly"),
                start: text("2030-02-03T03:00:00Z"),
                end: text("2030-02-03T04:00:00Z"),
                reason: text("Weekly maintenance"),
            },
            Event::MaintenanceWaits {
                window: text("weekly"),
                end: text("2030-02-03T04:00:00Z"),
                by: text("cli (ops)"),
                until: text("2030-02-03T03:30:00Z"),
            },
            Event::MaintenanceOverdue { scope: global, by: text("cli (ops)"), until: text("2030-01-31T20:30:00Z") },
            Event::MaintenanceRouteUnknown {
                route: text("ap"),
                file: text("/run/flagstone/maintenance.d/ap.flag"),
                error: text("there is no route \"ap\": did you mean \"api\"?"),
            },
            Event::MaintenancePageBroken {
                error: text("index.html line 3: unexpected end of input, expected end of block"),
            },
            breaker(BreakerState::Open, "consecutive_failures", "503"),
            breaker(BreakerState::HalfOpen, "elapsed", ""),
            breaker(BreakerState::Closed, "probes_succeeded", ""),
            Event::EndpointEjected {
                upstream: text("app"),
                endpoint: web.clone(),
                reason: text("consecutive_failures"),
                error: text(""),
            },
            Event::EndpointRestored { upstream: text("app"), endpoint: web },
            Event::HealthChanged { from: HealthStatus::Healthy, to: HealthStatus::Unhealthy, check: text("app") },
            Event::CertificateReloaded { domain: text("example.com"), until: text("2030-04-30T12:00:00Z") },
            Event::CertificateRejected {
                domain: text("example.com"),
                error: text("tls/site.pem: does not match the key in tls/site.key"),
            },
            Event::CertificateExpiring {
                domain: text("example.com"),
                until: text("2030-02-14T12:00:00Z"),
                days_left: 13,
            },
            Event::ConfigurationReloaded { generation: 4, changes: text("routes: +api") },
            Event::ConfigurationRejected {
                generation: 4,
                error: text(
                    "flagstone.toml:14:1: route[1].upstream = \"ap\": no upstream has this name: did you mean \"app\"?",
                ),
            },
            Event::UpgradeFinished { pid: 4242, version: text("0.2.0") },
            Event::UpgradeFailed { error: text("the new process cannot be started: Permission denied") },
        ]
    }

    #[test]
    fn no_event_is_left_out() {
        let shown: Vec<_> = every_event().iter().map(Event::message).collect();
        let told = one_of_each().into_iter().filter(|(event, _)| event.kind().is_some());
        told.for_each(|(_, message)| assert!(shown.contains(&message), "{message}"));
    }

    #[test]
    fn the_documentation_shows_every_event_as_it_is_sent() {
        let page = include_str!("../../../docs/webhooks.md");
        for event in every_event() {
            let sent = plain(&record(event), "web1");
            assert!(page.contains(&sent), "docs/webhooks.md lacks\n{sent}");
        }
    }

    #[test]
    fn the_documentation_shows_a_message_for_slack_as_it_is_sent() {
        let page = include_str!("../../../docs/webhooks.md");
        let sent = slack(&record(every_event().swap_remove(0)), "web1");
        assert!(page.contains(&sent), "docs/webhooks.md lacks\n{sent}");
    }

    #[test]
    fn a_reason_mentions_nobody_in_slack() {
        let event = Event::EmergencyActivated {
            scope: "global".to_owned(),
            by: String::new(),
            reason: "<!channel> & \"more\"".to_owned(),
        };
        let sent: serde_json::Value = serde_json::from_str(&slack(&record(event), "web1")).unwrap();
        let text = ":warning: *Emergency maintenance activated*\nscope: global\nreason: &lt;!channel&gt; &amp; \"more\"\nhost: web1";
        assert_eq!(sent["text"], text);
    }

    #[test]
    fn plain_bodies_are_json() {
        for event in every_event() {
            let kind = event.kind().unwrap();
            let sent: serde_json::Value = serde_json::from_str(&plain(&record(event), "web1")).unwrap();
            assert_eq!(sent["kind"], name(kind));
            assert_eq!(sent["id"], 7);
        }
    }
}
