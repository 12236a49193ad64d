//! Every command of the runbooks, run in the situation that its page is about: it exits as the page says, and what the
//! page promises at its end holds.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::docs::{Block, blocks, files_in};
use crate::support::certs::{Algorithm, Ca};
use crate::support::client;
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::eventually_async;
use crate::support::process::{DEADLINE, Ended, Flagstone, Process, Signal};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

/// The addresses that the pages speak of.
const ADMIN: &str = "127.0.0.1:9900";
const APP: &str = "127.0.0.1:3000";
const WEB: &str = "127.0.0.1:8080";

const CONFIG: &str = r#"
[server]
state_dir = "state"
[admin]
listen = "unix:admin.sock"
[log]
access = "access.log"
[host]
memory_percent = 0
disk_percent = 0
cpu_percent = 0
[[listener]]
name = "web"
address = "127.0.0.1:0"
[[listener]]
name = "secure"
address = "127.0.0.1:0"
[listener.tls]
certificates = [{ cert = "tls/site.pem", key = "tls/site.key" }]
[[route]]
name = "site"
upstream = "app"
limits = ["per_ip"]
[[route]]
name = "api"
path = ["/api"]
respond = { status = 200, body = "ok" }
[upstream.app]
endpoints = ["127.0.0.1:3000"]
[upstream.app.health]
path = "/health"
interval = "200ms"
unhealthy_after = 1
[limit.per_ip]
key = "client_ip"
rate = "1000/1m"
"#;

/// A site with one app, and what has become of it.
struct Scene {
    flagstone: Flagstone,
    app: FakeUpstream,
    web: String,
}

impl Scene {
    async fn begin() -> Self {
        let app = FakeUpstream::http1().route("/", "hello").route("/health", "ok").start().await;
        let folder = Folder::new();
        let ca = Ca::new();
        // Within the 30 days of `certificates.warn_days`, and its successor.
        ca.leaf_with(&["shop.example"], Algorithm::Ecdsa, 10).write(&folder, "tls/site");
        ca.leaf(&["shop.example"]).write(&folder, "renewed/site");
        let mut flagstone = Flagstone::serve_in(folder, &CONFIG.replace(APP, &app.endpoint())).await;
        let web = flagstone.address("web").await.to_string();
        let scene = Self { flagstone, app, web };
        scene.until("/api/health", |health| health["status"] == "healthy").await;
        scene
    }

    /// Runs a script where the configuration is, with the real addresses in place of the pages' own.
    async fn run(&self, script: &str) -> Ended {
        let script = script.replace(APP, &self.app.endpoint()).replace(WEB, &self.web);
        let lines = script.lines().map(|line| match line.contains(ADMIN) {
            true => line.replacen("curl ", "curl --unix-socket admin.sock ", 1),
            false => line.to_owned(),
        });
        let script = lines.collect::<Vec<_>>().join("\n");
        let binary = Path::new(env!("CARGO_BIN_EXE_flagstone")).parent().expect("a binary is in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script]).current_dir(self.flagstone.folder.path());
        command.env("PATH", format!("{}:{path}", binary.display())).env("NO_PROXY", "*").env_remove("FLAGSTONE_CONFIG");
        Process::run(&mut command).await
    }

    async fn ask(&self, path: &str) -> Value {
        let ended = self.run(&format!("curl -s 'http://{ADMIN}{path}'")).await;
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{path}: {error}: {}", ended.stdout))
    }

    async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) {
        let mut answer = Value::Null;
        let held = eventually_async(DEADLINE, async || {
            answer = self.ask(path).await;
            holds(&answer)
        });
        assert!(held.await, "{path}: {answer:#}");
    }

    async fn requests(&self, count: usize) {
        for _ in 0..count {
            client::get(self.web.parse().expect("an address"), "/").await.expect("an answer");
        }
    }
}

fn page(name: &str) -> Vec<Block> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks").join(name);
    let blocks: Vec<_> = blocks(&page).into_iter().filter(|block| block.language == "sh").collect();
    assert!(!blocks.is_empty(), "{name} has no commands");
    blocks
}

/// Runs every block of a page; `<!-- exits 1 -->` before it says that it does.
async fn follow(scene: &Scene, name: &str) -> String {
    let mut said = String::new();
    for block in page(name) {
        let ended = scene.run(&block.text).await;
        let wanted = if block.before == "<!-- exits 1 -->" { 1 } else { 0 };
        let all = format!("{}:\n{}\n{}{}", block.place, block.text, ended.stdout, ended.stderr);
        assert_eq!(ended.status.code(), Some(wanted), "{all}");
        assert!(!ended.stdout.is_empty() || !ended.stderr.is_empty() || block.text.contains("cp "), "no word: {all}");
        said.push_str(&all);
    }
    said
}

#[tokio::test]
async fn down() {
    or_left_out!(program("curl"));
    let mut scene = Scene::begin().await;
    scene.flagstone.process.signal(Signal::TERM);
    scene.flagstone.process.wait(DEADLINE).await;
    let said = follow(&scene, "down.md").await;
    assert!(said.contains("no process answers"), "{said}");
}

#[tokio::test]
async fn unhealthy() {
    or_left_out!(program("curl"));
    let scene = Scene::begin().await;
    scene.app.set_route("/health", Reply::status(500, "oh"));
    scene.until("/api/health", |health| health["status"] == "unhealthy").await;
    scene.requests(1).await;
    let said = follow(&scene, "unhealthy.md").await;
    assert!(said.contains("500 in "), "{said}");
    scene.app.set_route("/health", "ok");
    scene.until("/api/health", |health| health["status"] == "healthy" && health["maintenance"] == false).await;
}

#[tokio::test]
async fn errors() {
    or_left_out!(program("curl"));
    let scene = Scene::begin().await;
    scene.app.set_route("/", Reply::status(500, "oh"));
    scene.requests(3).await;
    let log = scene.flagstone.folder.join("access.log");
    let logged =
        eventually_async(DEADLINE, async || std::fs::read_to_string(&log).is_ok_and(|log| log.lines().count() == 3));
    assert!(logged.await);
    let said = follow(&scene, "errors.md").await;
    assert!(said.contains("\" 500 "), "the access log shows them: {said}");
    scene.until("/api/status", |status| status["limits"]["per_ip"]["override"].is_null()).await;
}

#[tokio::test]
async fn slow() {
    or_left_out!(program("curl"));
    let scene = Scene::begin().await;
    scene.app.set_route("/", Reply::ok("at last").after(Duration::from_millis(200)));
    scene.requests(1).await;
    let said = follow(&scene, "slow.md").await;
    assert!(said.contains("app       0.") && said.contains("flagstone 0."), "{said}");
    assert!(said.contains("flagstone_upstream_duration_seconds_count{upstream=\"app\"}"), "{said}");
}

#[tokio::test]
async fn breaker_open() {
    or_left_out!(program("curl"));
    let scene = Scene::begin().await;
    scene.app.set_route("/", Reply::status(500, "oh"));
    scene.requests(6).await;
    scene.until("/api/status", |status| status["circuitBreakers"]["app"]["state"] == "OPEN").await;
    scene.app.set_route("/", "hello");
    let said = follow(&scene, "breaker-open.md").await;
    assert!(said.contains("circuit_open"), "{said}");
    scene.until("/api/status", |status| status["circuitBreakers"]["app"]["state"] == "CLOSED").await;
}

#[tokio::test]
async fn maintenance_overdue() {
    or_left_out!(program("curl"));
    let scene = Scene::begin().await;
    let folder = &scene.flagstone.folder;
    folder.write("state/maintenance.flag", "until = \"2020-01-01T00:00:00Z\"\nby = \"night shift\"\n");
    folder.write("state/maintenance.d/api.flag", "until = \"2020-01-01T00:00:00Z\"\n");
    scene.until("/api/maintenance/status", |status| status["overdue"] == true && status["routes"][0] == "api").await;
    let said = follow(&scene, "maintenance-overdue.md").await;
    assert!(said.contains("night shift") && said.contains("maintenance.d/api.flag"), "{said}");
    // The last command puts it on again, with an end to come.
    scene.until("/api/maintenance/status", |status| status["is_active"] == true && status["overdue"] == false).await;
}

#[tokio::test]
async fn reload_failed() {
    or_left_out!(program("curl"));
    let scene = Scene::begin().await;
    let good = scene.flagstone.folder.read("flagstone.toml");
    scene.flagstone.folder.write("flagstone.toml.good", &good);
    scene.flagstone.folder.write("flagstone.toml", good.replace("unhealthy_after", "unhealthy_afther"));
    scene.until("/api/config", |config| config["lastReload"]["success"] == false).await;
    let said = follow(&scene, "reload-failed.md").await;
    assert!(said.contains("unhealthy_afther") && said.contains("unhealthy_after\""), "{said}");
    scene.until("/api/config", |config| config["lastReload"]["success"] == true).await;
}

#[tokio::test]
async fn certificate_expiring() {
    or_left_out!(program("curl"));
    let scene = Scene::begin().await;
    follow(&scene, "certificate-expiring.md").await;
    scene.until("/api/certificates", |all| all[0]["daysLeft"].as_i64().is_some_and(|days| days > 80)).await;
}

#[test]
fn every_runbook_is_followed() {
    let here = include_str!("runbooks.rs");
    let followed: BTreeSet<_> =
        here.split("follow(&scene, \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    for page in files_in("docs/runbooks", "md") {
        let name = page.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
        let has_commands = blocks(&page).iter().any(|block| block.language == "sh");
        assert_eq!(has_commands, followed.contains(name.as_str()), "{name}");
    }
}
