//! `flagstone status`, as somebody on call types it; and what `/api/health` says of the machine.

use std::time::Duration;

use serde_json::Value;

use crate::support::admin;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Flagstone, Process};
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

const CONFIG: &str = "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\n\
                      address = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"per_ip\"]\n\
                      [upstream.app]\nendpoints = [\"127.0.0.1:1\"]\n[limit.per_ip]\nrate = \"10/1m\"\n[features]\nlab = false\n";

#[tokio::test]
async fn one_screen_shows_all_of_it() {
    let mut flagstone = Flagstone::serve(CONFIG).await;
    let admin = flagstone.admin().await.to_string();
    let status = async |more: &[&str]| {
        let mut arguments = vec!["status", "--admin", &admin];
        arguments.extend(more);
        Flagstone::run(arguments).await
    };
    let shown = status(&[]).await;
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    for part in ["flagstone 0.", "configuration 1", "maintenance off", "app ", "CLOSED", "per_ip", "10/1m", "lab "] {
        assert!(shown.stdout.contains(part), "{part}\n{}", shown.stdout);
    }
    assert!(!shown.stdout.contains('\x1b'), "no colours where there is no terminal: {}", shown.stdout);
    assert!(shown.stdout.lines().count() <= 24, "one screen: {}", shown.stdout);
    let text = status(&["--json"]).await.stdout;
    assert!(text.starts_with("{\n  \""), "for people to read, too: {text}");
    let as_json: Value = serde_json::from_str(&text).unwrap();
    for part in
        ["maintenance", "services", "circuitBreakers", "limits", "featureFlags", "certificates", "config", "process"]
    {
        assert!(!as_json[part].is_null(), "{part}: {as_json}");
    }
}

/// Each asks the running process, which makes a change or tells something.
const ASKING: [&str; 22] = [
    "status",
    "status --json",
    "maintenance status",
    "maintenance status --json",
    "maintenance on",
    "maintenance off",
    "breaker list",
    "breaker open app",
    "limit list",
    "limit set per_ip 1/1m",
    "limit clear per_ip",
    "feature list",
    "feature set lab true",
    "feature clear lab",
    "block 192.0.2.1",
    "unblock 192.0.2.1",
    "blocked --json",
    "reload",
    "drain",
    "drain --json",
    "upgrade",
    "explain --request-id 1",
];

#[tokio::test]
async fn who_answers_in_json_is_not_yet_a_flagstone() {
    let other = FakeUpstream::http1().route("*", Reply::then_close("{\"status\": \"ok\"}")).start().await;
    let address = other.endpoint().to_string();
    for command in ASKING {
        let refused = Flagstone::run(command.split(' ').chain(["--admin", &address])).await;
        assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(1), ""), "{command}: {refused:?}");
        assert!(refused.stderr.contains("is no flagstone: the answer has no \""), "{command}: {refused:?}");
    }
}

#[tokio::test]
async fn whoever_answers_writes_nothing_else_on_the_terminal() {
    let text = r#"{"version": "\u001b[2Jone", "previousPid": 1, "detail": "two\u001b[2J"}"#;
    let refusal = Reply::status(404, text).then(Step::Close);
    let other = FakeUpstream::http1()
        .route("/api/admin/upgrade", Reply::then_close(text))
        .route("/api/admin/drain", refusal)
        .start()
        .await;
    let address = other.endpoint().to_string();
    let upgraded = Flagstone::run(["upgrade", "--admin", &address]).await;
    assert!(upgraded.stdout.contains("version ?[2Jone, has"), "{upgraded:?}");
    let refused = Flagstone::run(["drain", "--admin", &address]).await;
    assert_eq!((refused.status.code(), refused.stderr.as_str()), (Some(1), "flagstone: two?[2J\n"));
}

#[tokio::test]
async fn it_is_shown_again_and_again() {
    let mut flagstone = Flagstone::serve(CONFIG).await;
    let admin = flagstone.admin().await.to_string();
    let mut watching = Process::start(&mut Flagstone::command(["status", "--admin", &admin, "--watch=100ms"]));
    assert!(eventually(DEADLINE, || watching.stdout().matches("maintenance off").count() >= 3).await);
    drop(flagstone);
    assert!(
        eventually(DEADLINE, || watching.stdout().contains("no process answers on")).await,
        "{}",
        watching.stdout()
    );
    assert!(watching.ended().is_none(), "it may be back in a moment");
}

#[tokio::test]
async fn as_json_it_is_a_line_each_time() {
    let mut flagstone = Flagstone::serve(CONFIG).await;
    let admin = flagstone.admin().await.to_string();
    let watching = Process::start(&mut Flagstone::command(["status", "--admin", &admin, "--watch=100ms", "--json"]));
    assert!(eventually(DEADLINE, || watching.stdout().lines().count() >= 3).await, "{}", watching.stdout());
    let text = watching.stdout();
    for line in text.lines().take(2) {
        let status: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(status["process"]["version"].is_string(), "{status}");
    }
}

#[tokio::test]
async fn who_is_not_there_is_told_how_to_start() {
    let ended = Flagstone::run(["status", "--admin", "127.0.0.1:1"]).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""));
    let expected =
        "flagstone: no process answers on 127.0.0.1:1 (connection refused): is it running? try flagstone run -c FILE\n";
    assert_eq!(ended.stderr, expected);
    assert_eq!(Flagstone::run(["status", "--watch=1ms"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn a_full_machine_is_degraded_but_not_down() {
    let hello = "[[route]]\nname = \"hello\"\nrespond = {}\n";
    let full = TestProxy::toml(format!("{hello}[host]\nmemory_percent = 1\ndisk_percent = 0\ncpu_percent = 0\n"));
    let proxy = full.start().await;
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let health = loop {
        let health = admin::json(proxy.admin(), "/api/health").await;
        if health["checks"]["memory"].is_object() {
            break health;
        }
        assert!(tokio::time::Instant::now() < deadline, "{health}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let memory = &health["checks"]["memory"];
    assert_eq!((&memory["status"], &memory["critical"]), (&"unhealthy".into(), &false.into()), "{health}");
    assert!(memory["percentage"].as_f64().unwrap() > 1.0 && memory["error"].is_string(), "{health}");
    assert_eq!((&health["status"], health["checks"].get("disk")), (&"degraded".into(), None), "0 is off: {health}");
    let summary = admin::ask(proxy.admin(), "GET", "/api/health/summary").await;
    assert_eq!(summary.status, 200, "degraded is no reason to be taken out");
    assert!(admin::metrics(proxy.admin()).await.contains("\nflagstone_health_status 1\n"));
    let services = admin::json(proxy.admin(), "/api/status/services").await;
    assert!(services["services"].as_object().unwrap().is_empty(), "the machine is no service: {services}");
}
