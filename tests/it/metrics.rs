//! Every metric of the contract on a real scrape: its name, kind, unit and labels, and that no stranger can add to
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::support::admin::{json, metrics};
use crate::support::certs::Ca;
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

/// Name, kind and labels.
type Row = (&'static str, &'static str, &'static [&'static str]);

/// As section 5 of the specification lists them.
const PROMISED: &[Row] = &[
    ("flagstone_requests_total", "counter", &["route", "code"]),
    ("flagstone_request_duration_seconds", "histogram", &["route"]),
    ("flagstone_upstream_duration_seconds", "histogram", &["upstream"]),
    ("flagstone_in_flight", "gauge", &["route"]),
    ("flagstone_connections", "gauge", &["listener"]),
    ("flagstone_maintenance_active", "gauge", &["scope"]),
    ("flagstone_maintenance_blocked_total", "counter", &["scope"]),
    ("flagstone_maintenance_last_run_timestamp_seconds", "gauge", &["window"]),
    ("flagstone_maintenance_duration_seconds", "gauge", &["window"]),
    ("flagstone_rate_limited_total", "counter", &["limit", "enforced"]),
    ("flagstone_breaker_state", "gauge", &["upstream"]),
    ("flagstone_breaker_shadow", "gauge", &["upstream"]),
    ("flagstone_breaker_transitions_total", "counter", &["upstream", "to"]),
    ("flagstone_breaker_rejected_total", "counter", &["upstream"]),
    ("flagstone_endpoint_healthy", "gauge", &["upstream", "endpoint"]),
    ("flagstone_retries_total", "counter", &["upstream"]),
    ("flagstone_health_status", "gauge", &[]),
    ("flagstone_config_last_reload_success", "gauge", &[]),
    ("flagstone_config_last_reload_timestamp_seconds", "gauge", &[]),
    ("flagstone_config_generation", "gauge", &[]),
    ("flagstone_certificate_expiry_timestamp_seconds", "gauge", &["domain"]),
    ("flagstone_build_info", "gauge", &["version"]),
];

/// Beyond the promise; documented in docs/logs-and-metrics.md.
const FURTHER: &[Row] = &[
    ("flagstone_maintenance_overdue_seconds", "gauge", &["scope"]),
    ("flagstone_access_log_dropped_total", "counter", &[]),
    ("flagstone_trace_spans_exported_total", "counter", &[]),
    ("flagstone_trace_spans_dropped_total", "counter", &[]),
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_virtual_memory_bytes", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_max_fds", "gauge", &[]),
    ("process_threads", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
];

/// Everything that has metrics of its own. Its window is due all year round, and so begins at once.
fn config(app: &FakeUpstream) -> String {
    format!(
        r#"[server]
state_dir = "state"
[admin]
listen = "127.0.0.1:0"
[log]
access = "off"
[[listener]]
name = "web"
address = "127.0.0.1:0"
[[listener]]
name = "secure"
address = "127.0.0.1:0"
[listener.tls]
certificates = [{{ cert = "site.pem", key = "site.key" }}]
[[route]]
name = "app"
path = ["/app"]
upstream = "app"
[[route]]
name = "limited"
path = ["/limited"]
respond = {{ body = "ok" }}
limits = ["per_ip"]
[[route]]
name = "kept"
path = ["/kept"]
host = ["kept.example"]
respond = {{ body = "ok" }}
maintenance = "exempt"
[upstream.app]
endpoints = ["{}"]
[limit.per_ip]
rate = "1/1h"
[[maintenance.window]]
name = "yearly"
schedule = "0 0 1 1 *"
duration = "370d"
"#,
        app.endpoint()
    )
}

async fn start() -> (Flagstone, FakeUpstream, SocketAddr, SocketAddr) {
    let app = FakeUpstream::http1().route("*", "ok").route("/app/bad", Reply::status(500, "oh")).start().await;
    let folder = Folder::new();
    Ca::new().leaf(&["shop.example"]).write(&folder, "site");
    let mut flagstone = Flagstone::serve_in(folder, &config(&app)).await;
    let (admin, web) = (flagstone.admin().await, flagstone.address("web").await);
    // Whoever removes its flag has ended the window.
    assert!(eventually(DEADLINE, || flagstone.folder.join("state/maintenance.flag").exists()).await);
    let is_active = "flagstone_maintenance_active{scope=\"global\"} 1\n";
    assert!(eventually_async(DEADLINE, async || metrics(admin).await.contains(is_active)).await);
    let mut client = Client::connect(web).await.unwrap();
    assert_eq!(client.get("/app").await.unwrap().status, 503);
    // What watches the windows looks once a second, as the live figures do.
    let seconds = async || json(admin, "/api/metrics/history").await["time"].as_array().map_or(0, Vec::len);
    let before = seconds().await;
    assert!(eventually_async(DEADLINE, async || seconds().await >= before + 2).await);
    flagstone.folder.remove("state/maintenance.flag");
    let has_run = "flagstone_maintenance_duration_seconds{window=\"yearly\"} ";
    assert!(eventually_async(DEADLINE, async || metrics(admin).await.contains(has_run)).await);
    (flagstone, app, admin, web)
}

/// A sample without its value: `flagstone_in_flight{route="app"}`.
fn series(scrape: &str) -> BTreeSet<String> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples.map(|line| line.rsplit_once(' ').expect("a value").0.to_owned()).collect()
}

/// The names of a sample's labels.
fn labels(series: &str) -> BTreeSet<&str> {
    let Some((_, inside)) = series.split_once('{') else { return BTreeSet::new() };
    let inside = inside.strip_suffix('}').expect("closed");
    // Values of ours have neither quotes nor commas here.
    inside.split(',').map(|pair| pair.split_once('=').expect("a pair").0).collect()
}

/// Kinds by family.
fn kinds(scrape: &str) -> BTreeMap<&str, &str> {
    scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[tokio::test]
async fn each_has_the_name_the_kind_and_the_labels_that_were_promised() {
    let (_flagstone, _app, admin, web) = start().await;
    let mut client = Client::connect(web).await.unwrap();
    for path in ["/app", "/limited", "/limited", "/none"] {
        client.get(path).await.unwrap();
    }
    let scrape = metrics(admin).await;
    let (kinds, series) = (kinds(&scrape), series(&scrape));
    for &(name, kind, wanted) in PROMISED.iter().chain(FURTHER) {
        assert_eq!(kinds.get(name), Some(&kind), "{name}");
        let parts: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for part in parts {
            let own = |one: &&String| one.split('{').next() == Some(&format!("{name}{part}"));
            let found: Vec<_> = series.iter().filter(own).collect();
            assert!(!found.is_empty(), "{name}{part} has no sample");
            for one in found {
                let le = (*part == "_bucket").then_some("le");
                let wanted: BTreeSet<_> = wanted.iter().copied().chain(le).collect();
                assert_eq!(labels(one), wanted, "{one}");
            }
        }
        // Units come last, and counters end in `_total` (Prometheus' naming).
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        let has_wrong_unit =
            ["_ms", "_milliseconds", "_kb", "_percent", "_count"].iter().any(|unit| name.contains(unit));
        assert!(!has_wrong_unit, "{name}");
    }
    let known: BTreeSet<_> = PROMISED.iter().chain(FURTHER).map(|row| row.0).collect();
    assert_eq!(kinds.keys().copied().collect::<BTreeSet<_>>(), known, "nothing else is there");
    for (label, values) in
        [("scope", &["global"][..]), ("to", &["closed", "half-open", "open"]), ("enforced", &["false", "true"])]
    {
        let quoted = format!("{label}=\"");
        let found = series.iter().filter_map(|one| one.split(&quoted).nth(1)?.split('"').next());
        assert_eq!(found.collect::<BTreeSet<_>>(), values.iter().copied().collect(), "{label}");
    }
    // From half a millisecond to a minute, and all above.
    let bounds = scrape.lines().filter_map(|line| {
        line.strip_prefix("flagstone_request_duration_seconds_bucket{le=\"")?
            .split_once("\",route=\"app\"}")
            .map(|(bound, _)| bound)
    });
    let bounds: Vec<_> = bounds.collect();
    assert_eq!((bounds.first(), bounds.last(), bounds.len()), (Some(&"0.0005"), Some(&"+Inf"), 17));
    let page = include_str!("../../docs/logs-and-metrics.md");
    for name in known {
        assert!(page.contains(name), "{name} is not documented");
    }
}

#[tokio::test]
async fn strangers_add_no_series() {
    let (flagstone, _app, admin, web) = start().await;
    // One of each answer that there is to be had; the flag names a route that does not exist.
    let ask = async |request: String| {
        let mut client = Client::connect(web).await.unwrap();
        client.send(request).await.unwrap();
        client.read_response().await.map(|answer| answer.status).unwrap_or_default()
    };
    let hostile = async |number: usize| {
        let host = format!("h{number}.example");
        let fields =
            format!("Host: {host}\r\nX-Forwarded-For: 192.0.2.{}\r\nX-Request-Id: r{number}\r\n", number % 250);
        ask(format!("GET /{number} HTTP/1.1\r\n{fields}User-Agent: agent{number}\r\n\r\n")).await;
        ask(format!("M{number} /app/{number} HTTP/1.1\r\n{fields}\r\n")).await;
        ask(format!("GET /app/bad/{number} HTTP/1.1\r\n{fields}Referer: http://{host}/\r\n\r\n")).await;
        ask(format!("GET /limited?{number} HTTP/1.1\r\n{fields}Cookie: a={number}\r\n\r\n")).await;
        ask(format!("GET /kept/{number} HTTP/1.1\r\n{fields}\r\n")).await;
        ask(format!("GET /{number}%2f.. HTTP/1.1\r\n{fields}\r\n")).await;
        ask(format!("GET / HTTP/1.1\r\nHost: a\r\nHost: {host}\r\n\r\n")).await;
        ask(format!("GET /app HTTP/9.{number}\r\n{fields}\r\n")).await;
    };
    flagstone.folder.write("state/maintenance.d/stranger0.flag", "");
    let mut before = BTreeSet::new();
    for number in 0..10 {
        hostile(number).await;
        before = series(&metrics(admin).await);
    }
    for number in 1..10 {
        flagstone.folder.write(&format!("state/maintenance.d/stranger{number}.flag"), "");
    }
    for number in 1_000..1_200 {
        hostile(number).await;
    }
    let after = series(&metrics(admin).await);
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(!after.iter().any(|one| one.contains("example\"") && one.contains("h1")), "no host is a label");
}
