use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::{BreakerState, GLOBAL_SCOPE, HealthStatus, Metrics, RouteMetrics, ScopeFigures};

/// Every family of docs/logs-and-metrics.md with its type; of `process_*` the counter alone.
const FAMILIES: [(&str, &str); 28] = [
    ("flagstone_requests_total", "counter"),
    ("flagstone_request_duration_seconds", "histogram"),
    ("flagstone_upstream_duration_seconds", "histogram"),
    ("flagstone_in_flight", "gauge"),
    ("flagstone_connections", "gauge"),
    ("flagstone_maintenance_active", "gauge"),
    ("flagstone_maintenance_overdue_seconds", "gauge"),
    ("flagstone_maintenance_blocked_total", "counter"),
    ("flagstone_maintenance_last_run_timestamp_seconds", "gauge"),
    ("flagstone_maintenance_duration_seconds", "gauge"),
    ("flagstone_rate_limited_total", "counter"),
    ("flagstone_limit_store_up", "gauge"),
    ("flagstone_breaker_state", "gauge"),
    ("flagstone_breaker_transitions_total", "counter"),
    ("flagstone_breaker_rejected_total", "counter"),
    ("flagstone_breaker_shadow", "gauge"),
    ("flagstone_endpoint_healthy", "gauge"),
    ("flagstone_retries_total", "counter"),
    ("flagstone_health_status", "gauge"),
    ("flagstone_config_last_reload_success", "gauge"),
    ("flagstone_config_last_reload_timestamp_seconds", "gauge"),
    ("flagstone_config_generation", "gauge"),
    ("flagstone_access_log_dropped_total", "counter"),
    ("flagstone_trace_spans_exported_total", "counter"),
    ("flagstone_trace_spans_dropped_total", "counter"),
    ("flagstone_certificate_expiry_timestamp_seconds", "gauge"),
    ("flagstone_build_info", "gauge"),
    ("process_cpu_seconds_total", "counter"),
];

fn request(route: &RouteMetrics, worker: usize, status: u16, duration: Duration) {
    route.begin(worker);
    route.end(worker, status, duration);
}

fn full() -> Metrics {
    let metrics = Metrics::new(2);
    let route = metrics.route("api");
    request(&route, 0, 200, Duration::from_millis(3));
    request(&route, 1, 200, Duration::from_secs(61));
    request(&route, 1, 503, Duration::from_micros(100));
    request(&metrics.route("we\"ird\\na\nme"), 0, 299, Duration::ZERO);
    let upstream = metrics.upstream("app");
    upstream.answered(0, Duration::from_millis(2));
    upstream.retried();
    upstream.count_transition(BreakerState::Open);
    upstream.set_breaker_state(BreakerState::Open);
    upstream.rejected();
    upstream.endpoint("app1:3000").set_healthy(false);
    let _connection = metrics.listener("web").open();
    metrics.limit("per_ip").limited(true);
    metrics.limit("per_ip").limited(false);
    metrics.limit("shared").set_store(Some(false));
    let figures = ScopeFigures { is_active: true, overdue_seconds: 5, blocked: 1 };
    metrics.set_scopes([(GLOBAL_SCOPE.to_owned(), figures)]);
    metrics.window("weekly").began(1_795_000_000);
    metrics.window("weekly").took(Duration::from_millis(1500));
    metrics.set_certificates([("example.com", 1_900_000_000), ("example.com", 1_800_000_000)]);
    metrics.set_health(HealthStatus::Degraded);
    metrics.reloaded(true, 7, 1_795_000_001);
    metrics.reloaded(false, 7, 1_795_000_002);
    metrics
}

/// A strict reader of text format 0.0.4: samples by name with labels, and types by family.
fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let mut samples = BTreeMap::new();
    let mut types = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut family = String::new();
    assert!(text.ends_with('\n') && !text.contains("# EOF"));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help text");
            assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(helped.contains(name), "help comes first: {line}");
            family = name.to_owned();
            let before = types.insert(family.clone(), kind.to_owned());
            assert!(before.is_none(), "{name} is described once");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("split yields one");
            let allowed = if types[&family] == "histogram" {
                ["_bucket", "_sum", "_count"].iter().any(|s| name == format!("{family}{s}"))
            } else {
                name == family
            };
            assert!(allowed, "{line} is not of {family}");
            let value = value.parse().expect("a number");
            let before = samples.insert(series.to_owned(), value);
            assert!(before.is_none(), "twice: {series}");
        }
    }
    (samples, types)
}

#[test]
fn every_family_has_its_name_and_type() {
    let (_, types) = parse(&full().encode());
    for (name, kind) in FAMILIES {
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    for name in types.keys().filter(|name| name.starts_with("flagstone_")) {
        assert!(FAMILIES.iter().any(|(known, _)| known == name), "unknown {name}");
    }
    assert!(types.contains_key("process_resident_memory_bytes"));
    assert!(types.contains_key("process_open_fds"));
}

#[test]
fn samples_say_what_was_counted() {
    let (samples, _) = parse(&full().encode());
    let value = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("{series}"));
    assert_eq!(value(r#"flagstone_requests_total{route="api",code="200"}"#), 2.0);
    assert_eq!(value(r#"flagstone_requests_total{route="api",code="503"}"#), 1.0);
    assert_eq!(value(r#"flagstone_requests_total{route="we\"ird\\na\nme",code="299"}"#), 1.0);
    assert_eq!(value(r#"flagstone_rate_limited_total{limit="per_ip",enforced="true"}"#), 1.0);
    assert_eq!(value(r#"flagstone_limit_store_up{limit="shared"}"#), 0.0);
    assert_eq!(value(r#"flagstone_breaker_state{upstream="app"}"#), 2.0);
    assert_eq!(value(r#"flagstone_breaker_transitions_total{upstream="app",to="open"}"#), 1.0);
    assert_eq!(value(r#"flagstone_endpoint_healthy{upstream="app",endpoint="app1:3000"}"#), 0.0);
    assert_eq!(value(r#"flagstone_maintenance_duration_seconds{window="weekly"}"#), 1.5);
    assert_eq!(value(r#"flagstone_certificate_expiry_timestamp_seconds{domain="example.com"}"#), 1.8e9);
    assert_eq!(value("flagstone_health_status"), 1.0);
    assert_eq!(value("flagstone_config_last_reload_success"), 0.0);
    assert_eq!(value("flagstone_config_last_reload_timestamp_seconds"), 1_795_000_001.0);
    assert_eq!(value("flagstone_config_generation"), 7.0);
    assert!(value("process_cpu_seconds_total") > 0.0);
}

#[test]
fn buckets_are_cumulative_and_end_at_the_count() {
    let (samples, _) = parse(&full().encode());
    let name = "flagstone_request_duration_seconds";
    let bucket = |le: &str| samples[&format!("{name}_bucket{{le=\"{le}\",route=\"api\"}}")];
    assert_eq!(bucket("0.0005"), 1.0);
    assert_eq!(bucket("0.0025"), 1.0);
    assert_eq!(bucket("0.005"), 2.0);
    assert_eq!(bucket("60.0"), 2.0);
    assert_eq!(bucket("+Inf"), 3.0);
    assert_eq!(samples[&format!("{name}_count{{route=\"api\"}}")], 3.0);
    assert!((samples[&format!("{name}_sum{{route=\"api\"}}")] - 61.0031).abs() < 1e-9);
}

#[test]
fn a_fresh_process_scrapes_clean() {
    let (samples, _) = parse(&Metrics::new(1).encode());
    assert!(samples.contains_key("flagstone_config_generation"));
}

#[test]
fn handles_are_shared_by_name_and_keep_counting() {
    let metrics = Metrics::new(1);
    let old = metrics.route("api");
    request(&old, 0, 200, Duration::ZERO);
    let new = metrics.route("api");
    request(&new, 0, 200, Duration::ZERO);
    assert_eq!(old.finished(), 2);
}

#[test]
fn a_thousand_routes_scrape_quickly() {
    let metrics = Metrics::new(2);
    for number in 0..1000 {
        let route = metrics.route(&format!("route-{number}"));
        request(&route, number, 200, Duration::from_millis(1));
    }
    let begun = Instant::now();
    let text = metrics.encode();
    assert!(text.lines().count() > 20_000);
    // Unoptimised and on a busy machine; the promise of 50 ms is for the shipped binary.
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_forgotten_name_leaves_the_scrape_and_its_handles_stay_usable() {
    let metrics = full();
    let route = metrics.route("api");
    route.begin(0);
    metrics.0.routes.retain(|name| name != "api");
    metrics.upstream("app").retain_endpoints(|_| false);
    route.end(0, 200, Duration::ZERO);
    let text = metrics.encode();
    assert!(!text.contains("route=\"api\""));
    assert!(!text.contains("flagstone_endpoint_healthy"));
    assert_eq!(metrics.active_requests(), 0);
}

#[test]
fn a_connection_is_open_also_where_its_listener_is_gone() {
    let metrics = Metrics::new(1);
    let open = metrics.listener("web").open();
    metrics.0.listeners.retain(|_| false);
    assert_eq!((metrics.listener("web").connections(), metrics.active_connections()), (0, 1));
    drop(open);
    assert_eq!(metrics.active_connections(), 0);
}

#[test]
fn ticks_feed_the_last_minute_and_the_history() {
    let metrics = full();
    metrics.tick(1_795_000_000);
    let minute = metrics.last_minute();
    assert!((3.0..=4.0).contains(&minute.requests_per_second), "{minute:?}");
    assert_eq!(minute.error_rate, 0.25);
    assert!(minute.p99_ms > 50_000.0);
    assert_eq!(metrics.history()[0].requests, 4);
}
