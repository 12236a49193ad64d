//! Feature switches: by the API and the command line, over restarts and reloads.

use serde_json::json;

use crate::support::admin::{call, json};
use crate::support::client;
use crate::support::files::Folder;
use crate::support::process::Flagstone;
use crate::support::proxy::TestProxy;

const TOML: &str = "[[route]]\nname = \"shop\"\npath = [\"/shop\"]\nfeature = \"shop\"\nrespond = { body = \"shop\" }\n\
                    [[route]]\nname = \"rest\"\nrespond = { body = \"rest\" }\n[features]\nshop = true\nlab = false\n";

async fn switch(proxy: &TestProxy, key: &str, value: serde_json::Value) -> (u16, serde_json::Value) {
    call(proxy.admin(), "POST", "/api/admin/feature-flags", Some(json!({ "key": key, "value": value }))).await
}

#[tokio::test]
async fn a_switch_takes_effect_at_once_and_answers_as_in_maintenance() {
    let proxy = TestProxy::toml(TOML).start().await;
    let flags = json(proxy.admin(), "/api/status/feature-flags").await;
    let expected = json!({ "shop": { "value": true, "default": true }, "lab": { "value": false, "default": false } });
    assert_eq!(flags, json!({ "featureFlags": expected }));
    assert_eq!(client::get(proxy.address(), "/shop").await.unwrap().status, 200);

    let generation = json(proxy.admin(), "/api/status").await["config"]["generation"].clone();
    let (status, view) = switch(&proxy, "shop", json!(false)).await;
    assert_eq!((status, view), (200, json!({ "key": "shop", "value": false, "default": true })));
    let off = client::get(proxy.address(), "/shop").await.unwrap();
    assert_eq!((off.status, off.header("flagstone-reason")), (503, Some("feature_off")));
    assert_eq!(off.header("cache-control"), Some("no-store"));
    assert!(off.header("retry-after").is_some());
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "rest");
    let status = json(proxy.admin(), "/api/status").await;
    assert_eq!(status["featureFlags"]["shop"], json!({ "value": false, "default": true }));
    assert_eq!(status["config"]["generation"], generation, "nothing is rebuilt for it");

    switch(&proxy, "shop", json!(null)).await;
    assert_eq!(client::get(proxy.address(), "/shop").await.unwrap().text(), "shop");
}

#[tokio::test]
async fn people_see_the_maintenance_page() {
    let proxy = TestProxy::toml(TOML.replace("shop = true", "shop = false")).start().await;
    let mut client = client::Client::connect(proxy.address()).await.unwrap();
    client.send("GET /shop HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n").await.unwrap();
    let page = client.read_response().await.unwrap();
    assert_eq!((page.status, page.header("flagstone-reason")), (503, Some("feature_off")));
    assert!(page.header("content-security-policy").is_some() && page.text().contains("<html"), "{}", page.text());
    client.send("GET /shop HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n").await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&client.read_response().await.unwrap().body).unwrap();
    assert_eq!(problem["reason"], "feature_off");
}

#[tokio::test]
async fn a_reload_keeps_what_was_set_and_brings_new_defaults_for_the_rest() {
    let proxy = TestProxy::toml(TOML).start().await;
    switch(&proxy, "shop", json!(false)).await;
    proxy.rewrite(&TOML.replace("lab = false", "lab = true"));
    let control = std::sync::Arc::clone(proxy.control());
    tokio::task::spawn_blocking(move || control.reload()).await.unwrap().unwrap();
    let flags = json(proxy.admin(), "/api/status/feature-flags").await;
    assert_eq!(flags["featureFlags"]["shop"], json!({ "value": false, "default": true }));
    assert_eq!(flags["featureFlags"]["lab"], json!({ "value": true, "default": true }));
    assert_eq!(client::get(proxy.address(), "/shop").await.unwrap().status, 503);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_wrong_is_told() {
    let proxy = TestProxy::toml(TOML).start().await;
    let (status, problem) = switch(&proxy, "shpo", json!(true)).await;
    assert_eq!(status, 404);
    assert_eq!(problem["detail"], "there is no feature \"shpo\": did you mean \"shop\"?");
    assert_eq!(switch(&proxy, "shop", json!("yes")).await.0, 422);
}

#[tokio::test]
async fn the_command_line_switches_what_outlives_a_restart() {
    let folder = Folder::new();
    let config = format!(
        "[server]\nstate_dir = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{TOML}",
        folder.path().display()
    );
    let mut first = Flagstone::serve(&config).await;
    let admin = first.admin().await.to_string();
    let feature = async |arguments: &[&str]| {
        let mut all = vec!["feature"];
        all.extend(arguments);
        all.extend(["--admin", &admin]);
        Flagstone::run(all).await
    };
    let listed = feature(&["list"]).await;
    assert_eq!(listed.stdout, "FEATURE  VALUE  DEFAULT\nlab      false  false\nshop     true   true\n", "{listed:?}");
    let set = feature(&["set", "shop", "false"]).await;
    assert_eq!((set.status.code(), set.stdout.as_str()), (Some(0), "shop: false (default true)\n"), "{set:?}");
    let unknown = feature(&["set", "shpo", "false"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(unknown.stderr, "flagstone: there is no feature \"shpo\": did you mean \"shop\"?\n");
    assert_eq!(feature(&["set", "shop", "perhaps"]).await.status.code(), Some(2));
    let shown: serde_json::Value = serde_json::from_str(&feature(&["list", "--json"]).await.stdout).unwrap();
    assert_eq!(shown["featureFlags"]["shop"]["value"], false);
    drop(first);

    let mut second = Flagstone::serve(&config).await;
    let flags = json(second.admin().await, "/api/status/feature-flags").await;
    assert_eq!(flags["featureFlags"]["shop"], json!({ "value": false, "default": true }));
    assert_eq!(client::get(second.address("web").await, "/shop").await.unwrap().status, 503);
}
