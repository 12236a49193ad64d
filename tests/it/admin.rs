//! The admin side: probes, metrics, status, and who may ask.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::client::{self, Client, RawResponse};
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Flagstone};
use crate::support::proxy::TestProxy;

const HELLO: &str = "[[route]]\nname = \"hello\"\nrespond = { body = \"hello\" }\n";

/// One `GET` with headers of its own (`"A: b\r\n"`) and the admin side's own address as Host unless they name one.
pub(crate) async fn ask(address: SocketAddr, path: &str, headers: &str) -> RawResponse {
    let host = if headers.contains("Host: ") { String::new() } else { format!("Host: {address}\r\n") };
    let mut client = Client::connect(address).await.unwrap();
    client.send(format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n")).await.unwrap();
    client.read_response().await.unwrap()
}

/// The same without headers.
pub(crate) async fn get(address: SocketAddr, path: &str) -> RawResponse {
    ask(address, path, "").await
}

pub(crate) async fn json(address: SocketAddr, path: &str) -> Value {
    let response = get(address, path).await;
    assert_eq!(response.status, 200, "{}", response.text());
    serde_json::from_slice(&response.body).unwrap()
}

#[tokio::test]
async fn probes_say_ok() {
    let proxy = TestProxy::toml(HELLO).start().await;
    for path in ["/healthz", "/readyz"] {
        let response = get(proxy.admin(), path).await;
        assert_eq!((response.status, response.text()), (200, "ok".into()));
    }
}

#[tokio::test]
async fn metrics_are_named_as_promised_and_parse() {
    let toml = format!(
        "{HELLO}limits = [\"per_ip\"]\n[[route]]\nname = \"app\"\npath = [\"/app\"]\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"127.0.0.1:1\"]\n[limit.per_ip]\nrate = \"1/1h\"\n"
    );
    let proxy = TestProxy::toml(toml).start().await;
    for path in ["/", "/", "/app"] {
        client::get(proxy.address(), path).await.unwrap();
    }
    let mut text = String::new();
    for _ in 0..2 {
        let response = get(proxy.admin(), "/metrics").await;
        assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        text = response.text();
    }
    let expected = [
        "flagstone_requests_total{route=\"hello\",code=\"200\"} 1",
        "flagstone_requests_total{route=\"hello\",code=\"429\"} 1",
        "flagstone_request_duration_seconds_count{route=\"hello\"} 2",
        "flagstone_in_flight{route=\"hello\"} 0",
        "flagstone_connections{listener=\"web\"} ",
        "flagstone_maintenance_active{scope=\"global\"} 0",
        "flagstone_rate_limited_total{limit=\"per_ip\",enforced=\"true\"} 1",
        "flagstone_breaker_state{upstream=\"app\"} 0",
        "flagstone_breaker_rejected_total{upstream=\"app\"} 0",
        "flagstone_config_last_reload_success 1",
        "flagstone_config_last_reload_timestamp_seconds 1",
        "flagstone_config_generation 1",
        "flagstone_build_info{version=\"",
        "process_resident_memory_bytes ",
    ];
    for part in expected {
        assert!(text.lines().any(|line| line.starts_with(part)), "{part}\n{text}");
    }
    // The text format: a description and a kind before the samples, each sample a name, labels and a number.
    let mut described = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            described.extend(comment.strip_prefix("TYPE ").and_then(|rest| rest.split(' ').next()).map(str::to_owned));
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = sample.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let known = |name: &str| described.iter().any(|described| described == name);
        assert!(known(name) || base.is_some_and(known), "{line} before its # TYPE");
    }
}

#[tokio::test]
async fn status_holds_everything_in_one_object() {
    let toml = format!(
        "{HELLO}limits = [\"per_ip\"]\nfeature = \"new\"\n[upstream.app]\nendpoints = [\"127.0.0.1:1\"]\n[limit.per_ip]\nrate = \"10/1m\"\n[features]\nnew = true\n"
    );
    let proxy = TestProxy::toml(toml).start().await;
    client::get(proxy.address(), "/").await.unwrap();
    let status = json(proxy.admin(), "/api/status").await;
    assert_eq!(status["maintenance"]["is_active"], false);
    assert_eq!(status["services"]["app"]["registered"], true);
    assert_eq!(status["circuitBreakers"]["app"]["state"], "CLOSED");
    assert_eq!(status["limits"]["per_ip"]["allowed"], 1);
    assert_eq!(status["featureFlags"]["new"]["value"], true);
    assert_eq!(status["certificates"], Value::Array(Vec::new()));
    assert_eq!(status["config"]["generation"], 1);
    assert_eq!(status["process"]["pid"], std::process::id());
    assert!(json(proxy.admin(), "/api/status/circuit-breakers").await["circuitBreakers"]["app"].is_object());
}

#[tokio::test]
async fn an_unknown_call_is_404_and_a_wrong_method_405() {
    let proxy = TestProxy::toml(HELLO).start().await;
    let unknown = get(proxy.admin(), "/api/nothing").await;
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
    let problem: Value = serde_json::from_slice(&unknown.body).unwrap();
    assert_eq!(problem["status"], 404);
    let wrong = get(proxy.admin(), "/api/admin/reload").await;
    assert_eq!((wrong.status, wrong.header("content-type")), (405, Some("application/problem+json")));
    assert_eq!(wrong.header("allow"), Some("POST"));
}

#[tokio::test]
async fn no_web_page_drives_it() {
    let toml = format!("[admin]\nlisten = \"127.0.0.1:0\"\nallowed_hosts = [\"ops.example\"]\n{HELLO}");
    let proxy = TestProxy::toml(toml).start().await;
    let admin = proxy.admin();
    let status = async |headers: &str| ask(admin, "/api/status", headers).await.status;
    for host in ["Host: evil.example\r\n", "Host: 127.0.0.1.evil.example\r\n"] {
        assert_eq!(status(host).await, 403, "{host}");
    }
    for host in ["Host: localhost:9900\r\n", "Host: ops.example\r\n", "Host: [::1]:9900\r\n"] {
        assert_eq!(status(host).await, 200, "{host}");
    }
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        assert_eq!(status(&format!("Origin: {origin}\r\n")).await, 403, "{origin}");
    }
    assert_eq!(status(&format!("Origin: http://{admin}\r\n")).await, 200);
}

#[tokio::test]
async fn a_token_is_asked_for_everywhere_but_at_the_probes() {
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"s3cret\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{HELLO}"
    );
    let mut flagstone = Flagstone::serve(&config).await;
    let admin = flagstone.admin().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(admin, path).await.status, 200, "{path}");
    }
    for path in ["/metrics", "/api/status", "/api/nothing"] {
        let refused = get(admin, path).await;
        assert_eq!((refused.status, refused.header("content-type")), (401, Some("application/problem+json")), "{path}");
    }
    assert_eq!(ask(admin, "/metrics", "Authorization: Bearer wrong\r\n").await.status, 401);
    assert_eq!(ask(admin, "/metrics", "Authorization: Bearer s3cret\r\n").await.status, 200);
    let line = flagstone.process.stderr_line("UNAUTHORIZED").await;
    assert!(line.contains("client=127.0.0.1") && line.contains("path=/metrics"), "{line}");
    assert!(!flagstone.process.stderr().contains("s3cret"));
}

#[tokio::test]
async fn beyond_loopback_it_wants_a_token() {
    let folder = crate::support::files::Folder::new();
    let file = folder.write(
        "flagstone.toml",
        format!("[admin]\nlisten = \"0.0.0.0:0\"\n{HELLO}[[listener]]\naddress = \"127.0.0.1:0\"\n"),
    );
    let ended = Flagstone::run(["check".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("admin.token"), "{}", ended.stderr);
}

#[tokio::test]
async fn it_listens_on_a_unix_socket_and_removes_it() {
    let folder = crate::support::files::Folder::new();
    let socket = folder.join("admin.sock");
    let toml = format!("[admin]\nlisten = \"unix:{}\"\n{HELLO}", socket.display());
    let proxy = TestProxy::toml(toml).start().await;
    let mut client = Client::connect_unix(&socket).await.unwrap();
    client.send("GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 200);
    drop(proxy);
    assert!(eventually(DEADLINE, || !socket.exists()).await);
}

#[tokio::test]
async fn no_listener_leads_to_it() {
    let proxy = TestProxy::toml(HELLO).start().await;
    assert_eq!(client::get(proxy.address(), "/api/status").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_reload_tells_what_changed_or_all_that_is_wrong() {
    let proxy = TestProxy::toml(HELLO).start().await;
    let post = async || {
        let mut client = Client::connect(proxy.admin()).await.unwrap();
        client.send("POST /api/admin/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let response = client.read_response().await.unwrap();
        (response.status, serde_json::from_slice::<Value>(&response.body).unwrap())
    };
    proxy.rewrite(&format!("{HELLO}[[route]]\nname = \"new\"\npath = [\"/new\"]\nrespond = {{}}\n"));
    // The watcher may have been there first; then nothing is left to change.
    let (status, reloaded) = post().await;
    assert_eq!(status, 200, "{reloaded}");
    assert!(reloaded["generation"].as_u64().unwrap() >= 2, "{reloaded}");
    proxy.rewrite(&format!("{HELLO}[bogus]\n[bogus2]\n"));
    let (status, problem) = post().await;
    assert_eq!((status, problem["errors"].as_array().map(Vec::len)), (422, Some(2)), "{problem}");
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn it_is_bounded_and_answers_beside_silent_connections() {
    let proxy = TestProxy::toml(HELLO).start().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Client::connect(proxy.admin()).await.unwrap());
    }
    assert_eq!(get(proxy.admin(), "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_reload_changes_the_token_and_with_the_address_what_it_asks_for() {
    let admin = |listen: &str, token: &str| format!("[admin]\nlisten = \"{listen}\"\ntoken = \"{token}\"\n{HELLO}");
    let proxy = TestProxy::toml(admin("127.0.0.1:0", "old")).start().await;
    let reload = async |toml: String| {
        proxy.rewrite(&toml);
        let control = std::sync::Arc::clone(proxy.control());
        tokio::task::spawn_blocking(move || control.reload()).await.unwrap().unwrap()
    };
    let status =
        async |token: &str| ask(proxy.admin(), "/metrics", &format!("Authorization: Bearer {token}\r\n")).await.status;
    reload(admin("127.0.0.1:0", "new")).await;
    assert_eq!((status("old").await, status("new").await), (401, 200));
    let before = proxy.admin();
    reload(admin("127.0.0.2:0", "")).await;
    assert_ne!(proxy.admin(), before);
    assert_eq!(status("").await, 200);
}

/// Parts of two would tell of a configuration that never was.
#[tokio::test]
async fn an_answer_tells_of_one_generation() {
    let toml = |name: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nupstream = \"{name}\"\n[upstream.{name}]\nendpoints = [\"127.0.0.1:1\"]\n\
             [limit.{name}]\nrate = \"1/1s\"\n[features]\n{name} = true\n"
        )
    };
    let proxy = TestProxy::toml(toml("even")).start().await;
    let (is_over, mut generations) = (Cell::new(false), BTreeMap::new());
    let reloading = async {
        for number in 0..300 {
            proxy.reload_with(&toml(["odd", "even"][number % 2])).await;
        }
        is_over.set(true);
    };
    let asking = async {
        while !is_over.get() {
            let status = json(proxy.admin(), "/api/status").await;
            let names = |part: &str| status[part].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!([names("limits"), names("featureFlags")], [names("services"), names("services")]);
            let view = json(proxy.admin(), "/api/config").await;
            let route = view["config"]["route"][0]["name"].clone();
            let told = generations.entry(view["generation"].as_u64()).or_insert_with(|| route.clone());
            assert_eq!(*told, route, "{}", view["generation"]);
        }
    };
    tokio::join!(reloading, asking);
}
