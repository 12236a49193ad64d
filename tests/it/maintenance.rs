//! Maintenance as visitors, operators and the app meet it.

mod answers;
mod api;
mod bypass;
mod cli;
mod cut;
mod http2;
mod page;

use std::time::Duration;

use serde_json::Value;

use crate::support::client::{Client, RawResponse};
use crate::support::poll::eventually_async;
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

/// For whatever takes effect "within a second", on a machine that is busy with other tests.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const FLAG: &str = "state/maintenance.flag";

/// Routes `all` to the app, and `[maintenance]` with these lines.
pub(super) fn toml(upstream: &FakeUpstream, maintenance: &str) -> String {
    format!(
        "[maintenance]\n{maintenance}\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    )
}

/// Writes the flag and waits until the switch shows it.
pub(super) async fn switch_on(proxy: &TestProxy, flag: &str) {
    proxy.folder.replace(FLAG, flag);
    assert!(shows(proxy, true).await, "maintenance does not begin");
}

pub(super) async fn switch_off(proxy: &TestProxy) {
    proxy.folder.remove(FLAG);
    assert!(shows(proxy, false).await, "maintenance does not end");
}

async fn shows(proxy: &TestProxy, active: bool) -> bool {
    eventually_async(PATIENCE, async || status(proxy).await["is_active"] == active).await
}

/// `GET /api/maintenance/status`.
pub(super) async fn status(proxy: &TestProxy) -> Value {
    json(&ask(proxy, "GET", "/api/maintenance/status", "").await)
}

/// One call of the admin side.
pub(super) async fn ask(proxy: &TestProxy, method: &str, path: &str, body: &str) -> RawResponse {
    let mut client = Client::connect(proxy.admin()).await.unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n");
    client.send(head + body).await.unwrap();
    client.read_response().await.unwrap()
}

pub(super) fn json(response: &RawResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}

/// One request on a connection of its own, with further headers (`"A: b\r\n"`).
pub(super) async fn visit(proxy: &TestProxy, method: &str, target: &str, headers: &str) -> RawResponse {
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request(method, target, headers).await.unwrap();
    if method == "HEAD" { client.read_head_response().await.unwrap() } else { client.read_response().await.unwrap() }
}
