//! The closed set of events: messages that people grep for, and their fields.

use std::net::IpAddr;

use crate::config::model::EventKind;
use crate::telemetry::metrics::{BreakerState, HealthStatus};

/// Something an operator wants to know. Times are RFC 3339; an empty text is left out of the line.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `scope` is `global` or a route; `mode` is `full` or `read_only`.
    MaintenanceActivated {
        scope: String,
        mode: String,
        by: String,
        reason: String,
        until: String,
    },
    MaintenanceDeactivated {
        scope: String,
        by: String,
    },
    EmergencyActivated {
        scope: String,
        by: String,
        reason: String,
    },
    /// On past its `until`. Told once.
    MaintenanceOverdue {
        scope: String,
        by: String,
        until: String,
    },
    /// The flag file `file` is for a route that there is not, and covers nothing by it. Told once.
    MaintenanceRouteUnknown {
        route: String,
        file: String,
        error: String,
    },
    /// A template of the page folder cannot be used; the built-in page takes its place.
    MaintenancePageBroken {
        error: String,
    },
    /// `count` requests were answered by maintenance. Sampled.
    OperationBlocked {
        route: String,
        count: u64,
    },
    MaintenanceScheduled {
        window: String,
        start: String,
        end: String,
        reason: String,
    },
    /// A window that ends at `end` is due, and begins when the flag goes that is there: it is `by`'s, until `until`.
    MaintenanceWaits {
        window: String,
        end: String,
        by: String,
        until: String,
    },
    BreakerChanged {
        upstream: String,
        to: BreakerState,
        reason: String,
        /// What the last failure was.
        failure: String,
    },
    EndpointEjected {
        upstream: String,
        endpoint: String,
        reason: String,
        /// What a check found.
        error: String,
    },
    EndpointRestored {
        upstream: String,
        endpoint: String,
    },
    /// `count` requests could not be sent there, one of them because of `error`. Sampled.
    EndpointUnreachable {
        upstream: String,
        endpoint: String,
        error: String,
        count: u64,
    },
    /// `count` requests got no answer from there, one of them because of `error`. Sampled.
    EndpointUnanswered {
        upstream: String,
        endpoint: String,
        error: String,
        count: u64,
    },
    /// `count` answers from there did not come to their end, one of them because of `error`. Sampled.
    EndpointBrokeOff {
        upstream: String,
        endpoint: String,
        error: String,
        count: u64,
    },
    /// `check` is the upstream or probe whose change it was.
    HealthChanged {
        from: HealthStatus,
        to: HealthStatus,
        check: String,
    },
    ConfigurationReloaded {
        generation: u64,
        changes: String,
    },
    ConfigurationRejected {
        generation: u64,
        error: String,
    },
    CertificateReloaded {
        domain: String,
        until: String,
    },
    CertificateRejected {
        domain: String,
        error: String,
    },
    CertificateExpiring {
        domain: String,
        until: String,
        /// Negative when it has expired.
        days_left: i64,
    },
    /// Another process has taken over and this one drains.
    UpgradeFinished {
        pid: i64,
        version: String,
    },
    /// This process serves on.
    UpgradeFailed {
        error: String,
    },
    /// The access log takes no lines, and the buffers are full.
    AccessLogDropping {
        error: String,
    },
    /// It takes lines again; `dropped` were lost since the start of the process.
    AccessLogRecovered {
        dropped: u64,
    },
    /// The collector does not take traces. Told once, until it does again.
    TraceExportFailing {
        error: String,
    },
    /// It takes traces again; `dropped` spans were lost since the start of the process.
    TraceExportRecovered {
        dropped: u64,
    },
    /// `count` requests were over a limit; `enforced` is false where the limit only watches. Sampled.
    RateLimited {
        route: String,
        limit: String,
        enforced: bool,
        count: u64,
    },
    /// `count` requests were turned away by a deny or block list, one of them `client`'s. Sampled.
    Blocked {
        client: Option<IpAddr>,
        route: String,
        reason: String,
        count: u64,
    },
    /// A call of the admin side without a valid token.
    Unauthorized {
        client: Option<IpAddr>,
        path: String,
    },
}

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl Event {
    /// The words that scripts look for; never changed.
    pub fn message(&self) -> &'static str {
        match self {
            Self::MaintenanceActivated { .. } => "Maintenance mode activated",
            Self::MaintenanceDeactivated { .. } => "Maintenance mode deactivated",
            Self::EmergencyActivated { .. } => "Emergency maintenance activated",
            Self::MaintenanceOverdue { .. } => "Maintenance overdue",
            Self::MaintenanceRouteUnknown { .. } => "Maintenance of an unknown route",
            Self::MaintenancePageBroken { .. } => "Maintenance page broken",
            Self::OperationBlocked { .. } => "Operation blocked",
            Self::MaintenanceScheduled { .. } => "Maintenance scheduled",
            Self::MaintenanceWaits { .. } => "Maintenance window waits",
            Self::BreakerChanged { to, .. } => match to {
                BreakerState::Open => "Circuit breaker opened",
                BreakerState::HalfOpen => "Circuit breaker half-open",
                BreakerState::Closed => "Circuit breaker closed",
            },
            Self::EndpointEjected { .. } => "Endpoint ejected",
            Self::EndpointRestored { .. } => "Endpoint restored",
            Self::EndpointUnreachable { .. } => "Endpoint unreachable",
            Self::EndpointUnanswered { .. } => "Endpoint gave no answer",
            Self::EndpointBrokeOff { .. } => "Endpoint broke off an answer",
            Self::HealthChanged { .. } => "Health changed",
            Self::ConfigurationReloaded { .. } => "Configuration reloaded",
            Self::ConfigurationRejected { .. } => "Configuration rejected",
            Self::CertificateReloaded { .. } => "Certificate reloaded",
            Self::CertificateRejected { .. } => "Certificate rejected",
            Self::CertificateExpiring { .. } => "Certificate expiring",
            Self::UpgradeFinished { .. } => "Upgrade finished",
            Self::UpgradeFailed { .. } => "Upgrade failed",
            Self::AccessLogDropping { .. } => "Access log is dropping lines",
            Self::AccessLogRecovered { .. } => "Access log has recovered",
            Self::TraceExportFailing { .. } => "Trace export is failing",
            Self::TraceExportRecovered { .. } => "Trace export has recovered",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::Blocked { .. } => "BLOCKED",
            Self::Unauthorized { .. } => "UNAUTHORIZED",
        }
    }

    pub fn level(&self) -> Level {
        match self {
            Self::ConfigurationRejected { .. } | Self::CertificateRejected { .. } | Self::UpgradeFailed { .. } => {
                Level::Error
            }
            Self::HealthChanged { to, .. } => match to {
                HealthStatus::Healthy => Level::Info,
                HealthStatus::Degraded => Level::Warn,
                HealthStatus::Unhealthy => Level::Error,
            },
            Self::BreakerChanged { to, .. } if *to != BreakerState::Open => Level::Info,
            Self::EmergencyActivated { .. }
            | Self::MaintenanceOverdue { .. }
            | Self::MaintenanceRouteUnknown { .. }
            | Self::MaintenancePageBroken { .. }
            | Self::MaintenanceWaits { .. }
            | Self::BreakerChanged { .. }
            | Self::EndpointEjected { .. }
            | Self::EndpointUnreachable { .. }
            | Self::EndpointUnanswered { .. }
            | Self::EndpointBrokeOff { .. }
            | Self::CertificateExpiring { .. }
            | Self::AccessLogDropping { .. }
            | Self::TraceExportFailing { .. }
            | Self::RateLimited { .. }
            | Self::Blocked { .. }
            | Self::Unauthorized { .. } => Level::Warn,
            _ => Level::Info,
        }
    }

    /// Which `[[notify]]` subscribers hear of it; `None` = it is only logged.
    pub fn kind(&self) -> Option<EventKind> {
        match self {
            Self::MaintenanceActivated { .. }
            | Self::MaintenanceDeactivated { .. }
            | Self::EmergencyActivated { .. }
            | Self::MaintenanceOverdue { .. }
            | Self::MaintenanceRouteUnknown { .. }
            | Self::MaintenancePageBroken { .. }
            | Self::MaintenanceScheduled { .. }
            | Self::MaintenanceWaits { .. } => Some(EventKind::Maintenance),
            Self::BreakerChanged { .. } => Some(EventKind::Breaker),
            Self::HealthChanged { .. } | Self::EndpointEjected { .. } | Self::EndpointRestored { .. } => {
                Some(EventKind::Health)
            }
            Self::CertificateReloaded { .. } | Self::CertificateRejected { .. } | Self::CertificateExpiring { .. } => {
                Some(EventKind::Certificate)
            }
            Self::ConfigurationReloaded { .. }
            | Self::ConfigurationRejected { .. }
            | Self::UpgradeFinished { .. }
            | Self::UpgradeFailed { .. } => Some(EventKind::Reload),
            Self::OperationBlocked { .. }
            | Self::EndpointUnreachable { .. }
            | Self::EndpointUnanswered { .. }
            | Self::EndpointBrokeOff { .. }
            | Self::AccessLogDropping { .. }
            | Self::AccessLogRecovered { .. }
            | Self::TraceExportFailing { .. }
            | Self::TraceExportRecovered { .. }
            | Self::RateLimited { .. }
            | Self::Blocked { .. }
            | Self::Unauthorized { .. } => None,
        }
    }

    /// The fields in the order they are shown, without those that are empty.
    pub fn fields(&self) -> Vec<(&'static str, Value)> {
        let mut fields = Fields::default();
        match self {
            Self::MaintenanceActivated { scope, mode, by, reason, until } => fields
                .text("scope", scope)
                .text("mode", mode)
                .text("by", by)
                .text("until", until)
                .text("reason", reason),
            Self::MaintenanceDeactivated { scope, by } => fields.text("scope", scope).text("by", by),
            Self::EmergencyActivated { scope, by, reason } => {
                fields.text("scope", scope).text("by", by).text("reason", reason)
            }
            Self::MaintenanceOverdue { scope, by, until } => {
                fields.text("scope", scope).text("by", by).text("until", until)
            }
            Self::MaintenanceRouteUnknown { route, file, error } => {
                fields.text("route", route).text("file", file).text("error", error)
            }
            Self::MaintenancePageBroken { error } => fields.text("error", error),
            Self::OperationBlocked { route, count } => fields.text("route", route).number("count", *count as i64),
            Self::MaintenanceScheduled { window, start, end, reason } => {
                fields.text("window", window).text("start", start).text("end", end).text("reason", reason)
            }
            Self::MaintenanceWaits { window, end, by, until } => {
                fields.text("window", window).text("end", end).text("by", by).text("until", until)
            }
            Self::BreakerChanged { upstream, reason, failure, .. } => {
                fields.text("upstream", upstream).text("reason", reason).text("failure", failure)
            }
            Self::EndpointEjected { upstream, endpoint, reason, error } => {
                fields.text("upstream", upstream).text("endpoint", endpoint).text("reason", reason).text("error", error)
            }
            Self::EndpointRestored { upstream, endpoint } => {
                fields.text("upstream", upstream).text("endpoint", endpoint)
            }
            Self::EndpointUnreachable { upstream, endpoint, error, count }
            | Self::EndpointUnanswered { upstream, endpoint, error, count }
            | Self::EndpointBrokeOff { upstream, endpoint, error, count } => fields
                .text("upstream", upstream)
                .text("endpoint", endpoint)
                .text("error", error)
                .number("count", *count as i64),
            Self::HealthChanged { from, to, check } => {
                fields.text("from", from.as_str()).text("to", to.as_str()).text("check", check)
            }
            Self::ConfigurationReloaded { generation, changes } => {
                fields.number("generation", *generation as i64).text("changes", changes)
            }
            Self::ConfigurationRejected { generation, error } => {
                fields.number("generation", *generation as i64).text("error", error)
            }
            Self::CertificateReloaded { domain, until } => fields.text("domain", domain).text("until", until),
            Self::CertificateRejected { domain, error } => fields.text("domain", domain).text("error", error),
            Self::CertificateExpiring { domain, until, days_left } => {
                fields.text("domain", domain).text("until", until).number("days_left", *days_left)
            }
            Self::UpgradeFinished { pid, version } => fields.number("pid", *pid).text("version", version),
            Self::UpgradeFailed { error } => fields.text("error", error),
            Self::AccessLogDropping { error } | Self::TraceExportFailing { error } => fields.text("error", error),
            Self::AccessLogRecovered { dropped } | Self::TraceExportRecovered { dropped } => {
                fields.number("dropped", *dropped as i64)
            }
            Self::RateLimited { route, limit, enforced, count } => {
                fields.text("route", route).text("limit", limit);
                if !enforced {
                    fields.flag("enforced", false);
                }
                fields.number("count", *count as i64)
            }
            Self::Blocked { client, route, reason, count } => {
                let client = client.map(|client| client.to_string()).unwrap_or_default();
                fields
                    .text("client", &client)
                    .text("route", route)
                    .text("reason", reason)
                    .number("count", *count as i64)
            }
            Self::Unauthorized { client, path } => {
                let client = client.map_or_else(|| "unix:".to_owned(), |ip| ip.to_string());
                fields.text("client", &client).text("path", path)
            }
        };
        fields.0
    }
}

#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn text(&mut self, name: &'static str, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.0.push((name, Value::Text(value.to_owned())));
        }
        self
    }

    fn number(&mut self, name: &'static str, value: i64) -> &mut Self {
        self.0.push((name, Value::Number(value)));
        self
    }

    fn flag(&mut self, name: &'static str, value: bool) -> &mut Self {
        self.0.push((name, Value::Flag(value)));
        self
    }
}
