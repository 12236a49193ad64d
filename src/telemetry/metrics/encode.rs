//! The scrape: Prometheus text format 0.0.4, through prometheus-client's encoder.
//!
//! prometheus-client speaks OpenMetrics, whose counters are described without their `_total`; tools that read the
//! older text format then miss their help and type. So the families are described here under the very
//! names of their samples, and integers are written by the encoder's gauge, which adds no suffix. What comes
//! out is valid 0.0.4, and is sent as that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::histogram::{BOUNDS_MICROS, Reading};
use super::{BreakerState, Inner, Metrics, Process, RouteMetrics};

/// The `Content-Type` of a scrape.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One scrape.
pub(super) fn scrape(metrics: &Metrics) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics.clone()));
    let mut text = String::with_capacity(16 << 10);
    encode_registry(&mut text, &registry).expect("a String takes every write");
    text
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let inner = &*self.0;
        routes(inner, &mut page)?;
        upstreams(inner, &mut page)?;
        maintenance(inner, &mut page)?;
        single(inner, &mut page)?;
        process(&Process::read(), &mut page)
    }
}

/// One label and its value.
type Label<'a> = (&'static str, &'a str);

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// One family of single-valued samples; a family without samples is left out.
    fn family<'a, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([Label<'a>; N], V)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            if N == 0 {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn counter<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([Label<'a>; N], u64)>,
    ) -> fmt::Result {
        self.family(MetricType::Counter, name, help, samples)
    }

    fn gauge<'a, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([Label<'a>; N], V)>,
    ) -> fmt::Result {
        self.family(MetricType::Gauge, name, help, samples)
    }

    fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Label<'a>, Reading)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let bounds = BOUNDS_MICROS.iter().map(|&micros| f64::from(micros) / 1e6);
        let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
        let kind = MetricType::Histogram;
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (label, reading) in samples {
            let buckets = bounds.iter().copied().zip(reading.buckets);
            let buckets: Vec<(f64, u64)> = buckets.collect();
            let sum = reading.sum_nanos as f64 / 1e9;
            family.encode_family(&[label])?.encode_histogram::<NoLabelSet>(sum, reading.count(), &buckets, None)?;
        }
        Ok(())
    }
}

fn routes(inner: &Inner, page: &mut Page<'_>) -> fmt::Result {
    let routes = inner.routes.all();
    let mut codes = status_counts(&routes);
    codes.sort_unstable();
    page.counter(
        "flagstone_requests_total",
        "Requests finished, by the status the client got",
        codes.iter().map(|(route, code, count)| ([("route", *route), ("code", code.as_str())], *count)),
    )?;
    page.histogram(
        "flagstone_request_duration_seconds",
        "From the complete head of the request to the last byte of the answer",
        routes.iter().map(|(name, r)| (("route", name.as_str()), r.duration())),
    )?;
    page.gauge(
        "flagstone_in_flight",
        "Requests being served",
        routes.iter().map(|(name, r)| ([("route", name.as_str())], r.in_flight())),
    )?;
    let listeners = inner.listeners.all();
    page.gauge(
        "flagstone_connections",
        "Downstream connections open",
        listeners.iter().map(|(name, l)| ([("listener", name.as_str())], l.connections())),
    )?;
    let limits = inner.limits.all();
    page.counter(
        "flagstone_rate_limited_total",
        "Requests over a limit, refused (enforced) or only counted",
        limits.iter().flat_map(|(name, limit)| {
            [("true", true), ("false", false)].map(|(text, enforced)| {
                let labels = [("limit", name.as_str()), ("enforced", text)];
                (labels, limit.limited_count(enforced))
            })
        }),
    )?;
    page.gauge(
        "flagstone_limit_store_up",
        "1 when the shared store of the limit can be asked, 0 while on_error holds",
        limits.iter().filter_map(|(name, limit)| Some(([("limit", name.as_str())], u64::from(limit.store_is_up()?)))),
    )
}

fn status_counts<'a>(routes: &'a [(String, Arc<RouteMetrics>)]) -> Vec<(&'a str, String, u64)> {
    let rows = |(name, route): &'a (String, Arc<RouteMetrics>)| {
        let statuses = route.statuses().into_iter();
        statuses.map(|(code, count)| (name.as_str(), code.to_string(), count))
    };
    routes.iter().flat_map(rows).collect()
}

fn upstreams(inner: &Inner, page: &mut Page<'_>) -> fmt::Result {
    let upstreams = inner.upstreams.all();
    page.histogram(
        "flagstone_upstream_duration_seconds",
        "From sending the request upstream to its response head",
        upstreams.iter().map(|(name, u)| (("upstream", name.as_str()), u.duration())),
    )?;
    page.counter(
        "flagstone_retries_total",
        "Further tries after a failed one",
        upstreams.iter().map(|(name, u)| ([("upstream", name.as_str())], u.retry_count())),
    )?;
    page.gauge(
        "flagstone_breaker_state",
        "0 closed, 1 half-open, 2 open",
        upstreams.iter().map(|(name, u)| ([("upstream", name.as_str())], u.breaker_number())),
    )?;
    page.counter(
        "flagstone_breaker_transitions_total",
        "Changes of the circuit breaker, by the state reached",
        upstreams.iter().flat_map(|(name, u)| {
            BreakerState::ALL.map(|to| ([("upstream", name.as_str()), ("to", to.as_str())], u.transitions(to)))
        }),
    )?;
    page.counter(
        "flagstone_breaker_rejected_total",
        "Requests the circuit breaker turned away, or let through in shadow",
        upstreams.iter().map(|(name, u)| ([("upstream", name.as_str())], u.rejected_count())),
    )?;
    page.gauge(
        "flagstone_breaker_shadow",
        "1 when the circuit breaker turns nothing away",
        upstreams.iter().map(|(name, u)| ([("upstream", name.as_str())], u64::from(u.breaker_is_shadow()))),
    )?;
    let endpoints: Vec<_> = upstreams.iter().map(|(name, u)| (name, u.endpoints())).collect();
    page.gauge(
        "flagstone_endpoint_healthy",
        "1 when the endpoint may get requests",
        endpoints.iter().flat_map(|(upstream, endpoints)| {
            endpoints.iter().map(|(name, endpoint)| {
                let labels = [("upstream", upstream.as_str()), ("endpoint", name.as_str())];
                (labels, u64::from(endpoint.is_healthy()))
            })
        }),
    )
}

fn maintenance(inner: &Inner, page: &mut Page<'_>) -> fmt::Result {
    let scopes = inner.scopes.lock().clone();
    page.gauge(
        "flagstone_maintenance_active",
        "1 while maintenance is on",
        scopes.iter().map(|(name, s)| ([("scope", name.as_str())], u64::from(s.is_active))),
    )?;
    page.gauge(
        "flagstone_maintenance_overdue_seconds",
        "How long ago maintenance that is still on should have ended",
        scopes.iter().map(|(name, s)| ([("scope", name.as_str())], s.overdue_seconds)),
    )?;
    page.counter(
        "flagstone_maintenance_blocked_total",
        "Requests answered by maintenance",
        scopes.iter().map(|(name, s)| ([("scope", name.as_str())], s.blocked)),
    )?;
    let windows = inner.windows.all();
    let runs: Vec<_> = windows.iter().map(|(name, window)| (name.as_str(), window.runs())).collect();
    page.gauge(
        "flagstone_maintenance_last_run_timestamp_seconds",
        "When the window last began",
        runs.iter().filter_map(|&(name, runs)| Some(([("window", name)], runs.began?))),
    )?;
    page.gauge(
        "flagstone_maintenance_duration_seconds",
        "How long the last run of the window that has ended took",
        runs.iter().filter_map(|&(name, runs)| Some(([("window", name)], runs.took?.as_secs_f64()))),
    )
}

fn single(inner: &Inner, page: &mut Page<'_>) -> fmt::Result {
    page.gauge(
        "flagstone_health_status",
        "0 healthy, 1 degraded, 2 unhealthy",
        [([], u64::from(inner.health.load(Relaxed)))],
    )?;
    page.gauge(
        "flagstone_config_last_reload_success",
        "1 when the last load of the configuration was accepted",
        [([], u64::from(inner.reload_success.load(Relaxed)))],
    )?;
    page.gauge(
        "flagstone_config_last_reload_timestamp_seconds",
        "When a configuration was last accepted",
        [([], inner.reload_unix_seconds.load(Relaxed))],
    )?;
    page.gauge(
        "flagstone_config_generation",
        "The generation of the configuration that serves",
        [([], inner.generation.load(Relaxed))],
    )?;
    page.counter(
        "flagstone_access_log_dropped_total",
        "Lines that the access log could not take",
        [([], inner.log_lines_lost.load(Relaxed))],
    )?;
    page.counter(
        "flagstone_trace_spans_exported_total",
        "Spans that the collector has taken",
        [([], inner.spans_exported.load(Relaxed))],
    )?;
    page.counter(
        "flagstone_trace_spans_dropped_total",
        "Spans lost: the queue was full, or the collector did not take them",
        [([], inner.spans_dropped.load(Relaxed))],
    )?;
    let certificates = inner.certificates.lock().clone();
    page.gauge(
        "flagstone_certificate_expiry_timestamp_seconds",
        "When the certificate expires",
        certificates.iter().map(|(domain, &expiry)| ([("domain", domain.as_str())], expiry)),
    )?;
    page.gauge("flagstone_build_info", "Always 1", [([("version", env!("CARGO_PKG_VERSION"))], 1u64)])
}

/// The names and units every Prometheus client library uses.
fn process(process: &Process, page: &mut Page<'_>) -> fmt::Result {
    page.family(
        MetricType::Counter,
        "process_cpu_seconds_total",
        "User and system processor time",
        [([], process.cpu_seconds)],
    )?;
    let gauges = [
        ("process_resident_memory_bytes", "Memory in use", process.resident_bytes),
        ("process_virtual_memory_bytes", "Address space in use", process.virtual_bytes),
        ("process_open_fds", "File descriptors open", process.open_fds),
        ("process_max_fds", "File descriptors allowed", process.max_fds),
        ("process_threads", "Threads", process.threads),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, value.map(|value| ([], value)))?;
    }
    page.gauge("process_start_time_seconds", "When the process began", process.start_time.map(|value| ([], value)))
}

#[cfg(test)]
mod tests;
