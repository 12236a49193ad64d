//! Tokens and cookies of the admin side, and what it tells of the configuration and the process.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::admin;
use crate::support::client::{Client, RawResponse};
use crate::support::files::Folder;
use crate::support::proxy::TestProxy;

const TOML: &str = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"s3cret\"\n[[route]]\nname = \"hello\"\nrespond = {}\n";

async fn send(admin: SocketAddr, line: &str, headers: &str, body: &str) -> RawResponse {
    let mut client = Client::connect(admin).await.unwrap();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    client.send(head).await.unwrap();
    client.read_response().await.unwrap()
}

fn cookie(response: &RawResponse) -> String {
    let whole = response.header("set-cookie").expect("a cookie is set");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(whole.contains(part), "{whole}");
    }
    whole.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_browser_logs_in_once_and_out_again() {
    let proxy = TestProxy::toml(TOML).start().await;
    let at = proxy.admin();
    let login = send(at, "POST /api/login", "", r#"{"token":"s3cret"}"#).await;
    assert_eq!(login.status, 204, "{}", login.text());
    let cookie = cookie(&login);
    assert!(!cookie.contains("s3cret"), "{cookie}");
    let with = format!("Cookie: other=1; {cookie}\r\n");
    assert_eq!(send(at, "GET /api/status", &with, "").await.status, 200);
    let drive = async |origin: &str| {
        let headers = format!("{with}Origin: {origin}\r\n");
        send(at, "POST /api/admin/maintenance/disable", &headers, "").await.status
    };
    assert_eq!(drive(&format!("http://{at}")).await, 200);
    assert_eq!(drive("http://localhost:3000").await, 403, "another page on this machine is another origin");
    let out = send(at, "POST /api/logout", &with, "").await;
    let name = format!("flagstone_admin_{}", at.port());
    assert!(cookie.starts_with(&format!("{name}=")), "{cookie}");
    assert!(out.header("set-cookie").unwrap().contains(&format!("{name}=; Path=/; Max-Age=0")));
    let forged = format!("{cookie}x");
    assert_eq!(send(at, "GET /api/status", &format!("Cookie: {forged}\r\n"), "").await.status, 401);
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let proxy = TestProxy::toml(TOML).start().await;
    let at = proxy.admin();
    let mut stream = Client::connect(at).await.unwrap();
    let bearer = "Authorization: Bearer s3cret\r\n";
    stream.send(format!("GET /api/events?metrics=false HTTP/1.0\r\nHost: {at}\r\n{bearer}\r\n")).await.unwrap();
    stream.read_until("retry: ").await.unwrap();
    proxy.reload_with(&TOML.replace("s3cret", "another")).await;
    assert_eq!(send(at, "GET /api/status", bearer, "").await.status, 401);
    let rest = stream.read_to_end().await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(!rest.contains("event:"), "{rest}");
}

#[tokio::test]
async fn a_cookie_is_good_where_its_state_folder_is_and_nowhere_else() {
    let proxy = TestProxy::toml(TOML).start().await;
    let login = send(proxy.admin(), "POST /api/login", "", r#"{"token":"s3cret"}"#).await;
    let value = cookie(&login).split_once('=').unwrap().1.to_owned();
    let with = |at: SocketAddr| format!("Cookie: flagstone_admin_{}={value}\r\n", at.port());
    let elsewhere = TestProxy::toml(TOML).start().await;
    let foreign = send(elsewhere.admin(), "GET /api/status", &with(elsewhere.admin()), "").await;
    assert_eq!(foreign.status, 401, "who guesses the token cannot make a cookie of it");
    let folder = Folder::new();
    folder.write("state/cookies.key", std::fs::read(proxy.folder.join("state/cookies.key")).unwrap());
    let restarted = TestProxy::toml(TOML).in_folder(folder).start().await;
    assert_eq!(send(restarted.admin(), "GET /api/status", &with(restarted.admin()), "").await.status, 200);
}

#[tokio::test]
async fn wrong_tokens_are_counted_by_client() {
    let proxy = TestProxy::toml(TOML).start().await;
    let at = proxy.admin();
    let mut statuses = Vec::new();
    for number in 0..12 {
        let wrong = format!("Authorization: Bearer wrong-{number}\r\n");
        statuses.push(send(at, "GET /api/status", &wrong, "").await.status);
    }
    assert_eq!((statuses[..10].iter().all(|&status| status == 401), statuses[11]), (true, 429), "{statuses:?}");
    let late = send(at, "GET /api/status", "Authorization: Bearer s3cret\r\n", "").await;
    assert_eq!((late.status, late.header("content-type")), (429, Some("application/problem+json")));
    assert!(late.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(send(at, "POST /api/login", "", r#"{"token":"s3cret"}"#).await.status, 429);
    assert_eq!(send(at, "GET /healthz", "", "").await.status, 200, "probes go on");
    assert_eq!(send(at, "GET /api/status", "", "").await.status, 401, "to say nothing is no try");
}

#[tokio::test]
async fn a_wrong_token_that_comes_again_is_one_try() {
    let proxy = TestProxy::toml(TOML).start().await;
    let at = proxy.admin();
    for number in 0..30 {
        let old = send(at, "GET /metrics", "Authorization: Bearer old\r\n", "").await;
        assert_eq!(old.status, 401, "{number}");
    }
    assert_eq!(send(at, "GET /api/status", "Authorization: Bearer s3cret\r\n", "").await.status, 200);
    for number in 0..9 {
        assert_eq!(send(at, "POST /api/login", "", &format!(r#"{{"token":"{number}"}}"#)).await.status, 401);
    }
    assert_eq!(send(at, "GET /api/status", "Authorization: Bearer s3cret\r\n", "").await.status, 429, "ten others");
}

#[tokio::test]
async fn a_wrong_login_is_told() {
    let proxy = TestProxy::toml(TOML).start().await;
    let at = proxy.admin();
    let wrong = send(at, "POST /api/login", "", r#"{"token":"wrong"}"#).await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    assert!(wrong.header("www-authenticate").is_some());
    assert_eq!(send(at, "POST /api/login", "", "{}").await.status, 422);
    let events = admin_json(at, "/api/events?recent=5&metrics=false").await;
    assert!(events.contains("UNAUTHORIZED") && events.contains("/api/login"), "{events}");
}

/// A thousand events are kept, and each line is written: neither is to be as long as whoever has no token likes.
#[tokio::test]
async fn of_a_long_path_without_a_token_the_beginning_is_told() {
    let proxy = TestProxy::toml(TOML).start().await;
    let at = proxy.admin();
    let path = format!("/begin{}", "x".repeat(50_000));
    assert_eq!(send(at, &format!("GET {path}"), "", "").await.status, 401);
    assert_eq!(send(at, "POST /api/login", "", r#"{"token":"wrong"}"#).await.status, 401);
    let events = admin_json(at, "/api/events?recent=2&metrics=false").await;
    assert!(events.contains("\"path\":\"/beginxx") && events.len() < 2_000, "{} bytes", events.len());
}

#[tokio::test]
async fn a_dashboard_that_nobody_has_logged_in_to_is_no_news() {
    let proxy = TestProxy::toml(TOML).start().await;
    let at = proxy.admin();
    let asked = send(at, "GET /api/maintenance/status", "Flagstone-Dashboard: 1\r\n", "").await;
    assert_eq!((asked.status, asked.header("www-authenticate").is_some()), (401, true));
    let headers = format!("Flagstone-Dashboard: 1\r\nCookie: flagstone_admin_{}=forged\r\n", at.port());
    assert_eq!(send(at, "GET /api/certificates", &headers, "").await.status, 401);
    assert_eq!(send(at, "POST /api/login", "Flagstone-Dashboard: 1\r\n", r#"{"token":"wrong"}"#).await.status, 401);
    let events = admin_json(at, "/api/events?recent=5&metrics=false").await;
    assert!(!events.contains("/api/maintenance/status"), "{events}");
    assert!(events.contains("/api/certificates") && events.contains("/api/login"), "{events}");
}

/// What an event stream says first.
async fn admin_json(at: SocketAddr, path: &str) -> String {
    let mut client = Client::connect(at).await.unwrap();
    client.send(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\nAuthorization: Bearer s3cret\r\n\r\n")).await.unwrap();
    String::from_utf8(client.read_until("/api/login").await.unwrap()).unwrap()
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let toml = format!("{TOML}[redis]\nurl = \"redis://:hunter2@127.0.0.1:1\"\n[features]\nshop = true\n");
    let proxy = TestProxy::toml(toml).start().await;
    let shown = send(proxy.admin(), "GET /api/config", "Authorization: Bearer s3cret\r\n", "").await;
    let text = shown.text();
    assert!(!text.contains("s3cret") && !text.contains("hunter2"), "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["generation"], 1);
    assert!(shown["source"].as_str().unwrap().ends_with("flagstone.toml"), "{shown}");
    assert!(shown["loadedAt"].is_string());
    assert_eq!(shown["config"]["admin"]["token"], "***");
    assert_eq!(shown["config"]["timeouts"]["connect"], "3s", "defaults are filled in");
    assert_eq!(shown["config"]["features"], json!({ "shop": true }));
}

#[tokio::test]
async fn the_last_reload_is_told_with_its_errors() {
    let proxy = TestProxy::toml("[[route]]\nname = \"hello\"\nrespond = {}\n").start().await;
    let config = async || admin::json(proxy.admin(), "/api/status").await["config"].clone();
    assert_eq!(config().await["lastReload"], Value::Null);
    proxy.rewrite("[bogus]\n");
    let control = std::sync::Arc::clone(proxy.control());
    tokio::task::spawn_blocking(move || control.reload()).await.unwrap().unwrap_err();
    let after = config().await;
    assert_eq!((&after["generation"], &after["lastReload"]["success"]), (&json!(1), &json!(false)), "{after}");
    let errors = after["lastReload"]["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| error["path"] == "bogus" && error["line"].is_u64()), "{after}");
}

#[tokio::test]
async fn the_process_tells_how_it_is() {
    let proxy = TestProxy::toml("[[route]]\nname = \"hello\"\nrespond = {}\n").start().await;
    let system = admin::json(proxy.admin(), "/api/admin/system/status").await;
    assert_eq!(system["pid"], std::process::id());
    assert_eq!((&system["workers"], &system["generationsAlive"]), (&json!(2), &json!(1)));
    assert!(system["memory"]["residentBytes"].as_u64().unwrap() > 1 << 20, "{system}");
    assert!(system["openFiles"].as_u64().unwrap() > 3, "{system}");
    assert_eq!(system["listeners"][0]["name"], "web");
    assert_eq!(system["listeners"][0]["address"], proxy.address().to_string());
}
