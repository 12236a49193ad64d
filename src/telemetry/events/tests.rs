use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

use super::format::Layout;
use super::*;
use crate::config::model::LogFormat;
use crate::telemetry::metrics::{BreakerState, HealthStatus};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `run` logs, without the times.
pub(crate) fn captured(format: LogFormat, run: impl FnOnce()) -> Vec<String> {
    let captured = Captured::default();
    let writer = captured.clone();
    let lines = fmt::layer().event_format(Layout::new(format)).with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), run);
    let text = String::from_utf8(captured.0.lock().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn text() -> String {
    "x".to_owned()
}

pub(in crate::telemetry) fn one_of_each() -> Vec<(Event, &'static str)> {
    let breaker = |to| Event::BreakerChanged { upstream: text(), to, reason: text(), failure: text() };
    vec![
        (
            Event::MaintenanceActivated { scope: text(), mode: text(), by: text(), reason: text(), until: text() },
            "Maintenance mode activated",
        ),
        (Event::MaintenanceDeactivated { scope: text(), by: text() }, "Maintenance mode deactivated"),
        (Event::EmergencyActivated { scope: text(), by: text(), reason: text() }, "Emergency maintenance activated"),
        (Event::MaintenanceOverdue { scope: text(), by: text(), until: text() }, "Maintenance overdue"),
        (Event::MaintenancePageBroken { error: text() }, "Maintenance page broken"),
        (
            Event::MaintenanceRouteUnknown { route: text(), file: text(), error: text() },
            "Maintenance of an unknown route",
        ),
        (Event::OperationBlocked { route: text(), count: 2 }, "Operation blocked"),
        (
            Event::MaintenanceScheduled { window: text(), start: text(), end: text(), reason: text() },
            "Maintenance scheduled",
        ),
        (
            Event::MaintenanceWaits { window: text(), end: text(), by: text(), until: text() },
            "Maintenance window waits",
        ),
        (breaker(BreakerState::Open), "Circuit breaker opened"),
        (breaker(BreakerState::HalfOpen), "Circuit breaker half-open"),
        (breaker(BreakerState::Closed), "Circuit breaker closed"),
        (
            Event::EndpointEjected { upstream: text(), endpoint: text(), reason: text(), error: text() },
            "Endpoint ejected",
        ),
        (Event::EndpointRestored { upstream: text(), endpoint: text() }, "Endpoint restored"),
        (
            Event::EndpointUnreachable { upstream: text(), endpoint: text(), error: text(), count: 2 },
            "Endpoint unreachable",
        ),
        (
            Event::EndpointUnanswered { upstream: text(), endpoint: text(), error: text(), count: 2 },
            "Endpoint gave no answer",
        ),
        (
            Event::EndpointBrokeOff { upstream: text(), endpoint: text(), error: text(), count: 2 },
            "Endpoint broke off an answer",
        ),
        (
            Event::HealthChanged { from: HealthStatus::Healthy, to: HealthStatus::Unhealthy, check: text() },
            "Health changed",
        ),
        (Event::ConfigurationReloaded { generation: 2, changes: text() }, "Configuration reloaded"),
        (Event::ConfigurationRejected { generation: 2, error: text() }, "Configuration rejected"),
        (Event::CertificateReloaded { domain: text(), until: text() }, "Certificate reloaded"),
        (Event::CertificateRejected { domain: text(), error: text() }, "Certificate rejected"),
        (Event::CertificateExpiring { domain: text(), until: text(), days_left: -1 }, "Certificate expiring"),
        (Event::UpgradeFinished { pid: 7, version: text() }, "Upgrade finished"),
        (Event::UpgradeFailed { error: text() }, "Upgrade failed"),
        (Event::AccessLogDropping { error: text() }, "Access log is dropping lines"),
        (Event::AccessLogRecovered { dropped: 2 }, "Access log has recovered"),
        (Event::TraceExportFailing { error: text() }, "Trace export is failing"),
        (Event::TraceExportRecovered { dropped: 2 }, "Trace export has recovered"),
        (Event::RateLimited { route: text(), limit: text(), enforced: false, count: 2 }, "RATE_LIMITED"),
        (Event::Blocked { client: "2001:db8::1".parse().ok(), route: text(), reason: text(), count: 1 }, "BLOCKED"),
        (Event::Unauthorized { client: None, path: text() }, "UNAUTHORIZED"),
    ]
}

#[test]
fn every_event_is_one_line_with_its_exact_message_and_all_its_fields() {
    for (event, message) in one_of_each() {
        let (level, fields) = (event.level().as_str(), event.fields());
        let lines = captured(LogFormat::Text, || EventLog::new().emit(event.clone()));
        assert_eq!(lines.len(), 1, "{message}");
        let (_time, rest) = lines[0].split_once(' ').unwrap();
        let rest = rest.strip_prefix(level).unwrap().strip_prefix(' ').unwrap();
        let rest = rest.strip_prefix(message).expect(message);
        for (name, _) in &fields {
            assert!(rest.contains(&format!(" {name}=")), "{message}: {name} in {rest}");
        }
        assert_eq!(rest.matches('=').count(), fields.len(), "{rest}");
    }
}

#[test]
fn events_in_json_carry_the_message_and_numbers() {
    let lines = captured(LogFormat::Json, || {
        EventLog::new().emit(Event::CertificateExpiring {
            domain: "example.com".to_owned(),
            until: "2026-12-01T00:00:00Z".to_owned(),
            days_left: 9,
        });
    });
    let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(value["message"], "Certificate expiring");
    assert_eq!(value["days_left"], 9);
    assert_eq!(value["level"], "WARN");
    assert!(value["error"].is_null());
}

#[test]
fn a_reason_cannot_forge_a_second_line() {
    let lines = captured(LogFormat::Text, || {
        EventLog::new().emit(Event::EmergencyActivated {
            scope: "global".to_owned(),
            by: "api".to_owned(),
            reason: "x\n2026-11-22T22:02:20.123Z INFO Maintenance mode deactivated".to_owned(),
        });
    });
    assert_eq!(lines.len(), 1);
}

#[test]
fn ordinary_lines_keep_their_errors_causes_and_foreign_modules() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);
    let lines = captured(LogFormat::Text, || {
        let error = Outer(io::Error::other("inner \u{1b}[2J"));
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(target: "hyper::proto", error, "odd\nmessage");
    });
    let line = lines[0].split_once(' ').unwrap().1;
    assert_eq!(line, r#"WARN odd\nmessage error="outer: inner \u001b[2J" module=hyper::proto"#);
}

#[test]
fn a_wrong_level_is_refused_with_its_text() {
    let error = init("info,=/=", LogFormat::Text).unwrap_err();
    assert!(error.to_string().contains("`info,=/=`"), "{error}");
}
