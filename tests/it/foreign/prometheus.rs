//! A real Prometheus: it scrapes us, draws what the Grafana dashboard asks for, and fires the alerts.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::site::Site;
use super::{LONG, curl_text};
use crate::support::admin::metrics;
use crate::support::client;
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::eventually_async;
use crate::support::process::{Ended, Process};

const ALERTS: &str = include_str!("../../../docker/prometheus/alerts.yml");
const GRAFANA: &str = include_str!("../../../docker/grafana/flagstone.json");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/prometheus")
}

/// A site after a few requests, with an alert or two to come.
async fn start() -> Site {
    // Of ten days: that is an alert.
    let site = Site::start(3, 10).await;
    traffic(&site).await;
    site
}

/// More errors than are allowed, as long as it takes to open the breaker, and after.
async fn traffic(site: &Site) {
    for path in ["/", "/orders", "/", "/orders", "/orders", "/orders"] {
        client::get(site.web, path).await.unwrap();
    }
}

async fn promtool<const N: usize>(arguments: [&str; N]) -> Result<Ended, String> {
    let mut command = Command::new(program("promtool")?);
    Ok(Process::run(command.args(arguments).current_dir(folder())).await)
}

fn assert_success(ended: &Ended) {
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
}

#[tokio::test]
async fn the_alerts_fire_when_they_should_and_only_then() {
    assert_success(&or_left_out!(promtool(["test", "rules", "alerts_test.yml"]).await));
    assert_success(&or_left_out!(promtool(["check", "config", "prometheus.yml"]).await));
    let tests = fs::read_to_string(folder().join("alerts_test.yml")).unwrap();
    for alert in alerts() {
        assert!(
            tests.contains(&format!("alertname: {}\n        exp_alerts", alert.name)),
            "{} is untested",
            alert.name
        );
    }
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let promtool = or_left_out!(program("promtool"));
    let site = start().await;
    let folder = Folder::new();
    let scrape = folder.write("scrape.txt", metrics(site.admin).await);
    let mut check = Command::new("sh");
    check.arg("-c").arg("\"$0\" check metrics < \"$1\"").arg(promtool).arg(scrape);
    let ended = Process::run(&mut check).await;
    assert!(
        ended.status.success() && ended.stderr.is_empty() && ended.stdout.is_empty(),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
}

/// An alert of `alerts.yml`, as far as tests want to know it.
struct Alert {
    name: String,
    runbook: String,
}

fn alerts() -> Vec<Alert> {
    let found = ALERTS.split("- alert: ").skip(1).map(|text| {
        let value = |key: &str| text.split(key).nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default().trim();
        Alert { name: text.lines().next().unwrap_or_default().to_owned(), runbook: value("runbook: ").to_owned() }
    });
    found.collect()
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let alerts = alerts();
    assert_eq!(alerts.len(), ALERTS.matches("expr:").count());
    for alert in &alerts {
        let page =
            fs::read_to_string(root.join(&alert.runbook)).unwrap_or_else(|error| panic!("{}: {error}", alert.name));
        assert!(page.contains(&alert.name), "{} does not name {}", alert.runbook, alert.name);
        for heading in ["## What you see", "## What to look at", "## What to do"] {
            assert!(page.contains(heading), "{} has no {heading}", alert.runbook);
        }
    }
    for page in fs::read_dir(root.join("docs/runbooks")).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        let is_linked = alerts.iter().any(|alert| alert.runbook.ends_with(&format!("/{name}")));
        assert!(is_linked || name == "README.md", "no alert leads to {name}");
    }
}

/// Every name of ours that an expression mentions.
fn names_in(expressions: &str) -> BTreeSet<String> {
    let words = expressions.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("flagstone_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// The queries of the Grafana dashboard, by panel, with values for its variables.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(GRAFANA).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let queries = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| {
            let expr = target["expr"].as_str().expect("an expression");
            let expr = expr.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*");
            assert!(!expr.contains('$'), "{expr}");
            (panel["title"].as_str().expect("a title").to_owned(), expr)
        })
    });
    queries.collect()
}

#[tokio::test]
async fn alerts_and_dashboard_name_only_metrics_that_exist() {
    let site = start().await;
    let scrape = metrics(site.admin).await;
    let words: BTreeSet<_> = scrape.split([' ', '{', '\n']).collect();
    let names = names_in(ALERTS).into_iter().chain(names_in(GRAFANA));
    let mut count = 0;
    for name in names {
        assert!(words.contains(name.as_str()), "there is no metric {name}");
        count += 1;
    }
    assert!(count > 20, "only {count} found");
}

#[test]
fn the_panels_of_the_dashboard_neither_overlap_nor_stick_out() {
    let dashboard: Value = serde_json::from_str(GRAFANA).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        for place in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(place.0 < 24 && taken.insert(place), "{} at {place:?}", panel["title"]);
        }
    }
    assert!(panels.len() > 20);
}

/// Debian's prometheus on a free port, with the alerts firing after two seconds instead of minutes.
struct Prometheus {
    url: String,
    _process: Process,
    _folder: Folder,
}

impl Prometheus {
    /// # Errors
    /// That it is not installed.
    async fn watch(target: SocketAddr) -> Result<Self, String> {
        let program = program("prometheus")?;
        let folder = Folder::new();
        let is_for = |line: &&str| line.trim_start().starts_with("for: ");
        let quick: String = ALERTS
            .lines()
            .map(|line| if is_for(&line) { "        for: 2s\n".into() } else { format!("{line}\n") })
            .collect();
        folder.write("alerts.yml", quick);
        let config = fs::read_to_string(self::folder().join("prometheus.yml")).expect("the configuration");
        let config = config.replace("15s", "1s").replace("flagstone:9900", &target.to_string());
        let config = folder.write("prometheus.yml", config);
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg("--web.listen-address=127.0.0.1:0");
        let mut process = Process::start(&mut command);
        let line = process.stderr_line("msg=\"Listening on\"").await;
        let address =
            line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
        let url = format!("http://{address}");
        process.stderr_line("Server is ready").await;
        Ok(Self { url, _process: process, _folder: folder })
    }

    /// The answer's `data` to a question of its API.
    async fn ask(&self, path: &str, query: &str) -> Value {
        let url = format!("{}/api/v1/{path}", self.url);
        let text = curl_text(["--get", "--data-urlencode", &format!("query={query}"), &url]).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(answer["status"], "success", "{query}: {text}");
        answer["data"].clone()
    }

    async fn query(&self, query: &str) -> Vec<Value> {
        self.ask("query", query).await["result"].as_array().cloned().expect("a result")
    }

    async fn firing(&self) -> BTreeSet<String> {
        let alerts = self.ask("alerts", "").await;
        let alerts = alerts["alerts"].as_array().expect("alerts").iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned()).collect()
    }
}

#[tokio::test]
async fn a_real_prometheus_scrapes_us_and_fires_what_is_wrong() {
    or_left_out!(program("curl"));
    let site = start().await;
    let prometheus = or_left_out!(Prometheus::watch(site.admin).await);
    // A file that is refused, and maintenance that should be over.
    let file = site.flagstone.folder.read("flagstone.toml");
    site.flagstone.folder.write("flagstone.toml", format!("{file}\nnonsense = 1\n"));
    let ended = "until = \"2020-01-01T00:00:00Z\"\nroutes = [\"nobody\"]\n";
    site.flagstone.folder.write("state/maintenance.d/site.flag", ended);
    let wanted = [
        "FlagstoneUnhealthy",
        "FlagstoneBreakerOpen",
        "FlagstoneCertificateExpiring",
        "FlagstoneReloadFailed",
        "FlagstoneMaintenanceOverdue",
        "FlagstoneErrors",
    ];
    let mut firing = BTreeSet::new();
    let fired = eventually_async(LONG, async || {
        traffic(&site).await;
        firing = prometheus.firing().await;
        wanted.iter().all(|&alert| firing.contains(alert))
    });
    assert!(fired.await, "only {firing:?}");
    assert!(!firing.contains("FlagstoneDown") && !firing.contains("FlagstoneSlow"), "{firing:?}");

    // Every panel of the Grafana dashboard has something to draw.
    for (panel, query) in queries() {
        let mut result = Vec::new();
        let has_data = eventually_async(LONG, async || {
            traffic(&site).await;
            result = prometheus.query(&query).await;
            !result.is_empty()
        });
        assert!(has_data.await, "{panel}: nothing for {query}");
    }
    drop(site);
    let down = eventually_async(LONG, async || prometheus.firing().await.contains("FlagstoneDown"));
    assert!(down.await);
}
