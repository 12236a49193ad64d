//! Calls of the admin side, as a script makes them.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Client, RawResponse};

/// One call on a connection of its own: status and JSON (`Null` when the answer is none).
///
/// # Panics
/// When no answer comes.
pub async fn call(admin: SocketAddr, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let mut client = Client::connect(admin).await.expect("the admin side accepts");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head + &body).await.expect("the admin side reads");
    let response = client.read_response().await.expect("the admin side answers");
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

/// One request without a body, and its whole response.
///
/// # Panics
/// When no answer comes.
pub async fn ask(admin: SocketAddr, method: &str, path: &str) -> RawResponse {
    let mut client = Client::connect(admin).await.expect("the admin side accepts");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n");
    client.send(request).await.expect("the admin side reads");
    client.read_response().await.expect("the admin side answers")
}

/// The metrics as text.
///
/// # Panics
/// When no answer comes.
pub async fn metrics(admin: SocketAddr) -> String {
    ask(admin, "GET", "/metrics").await.text()
}

/// What the admin side tells of the breaker of an upstream.
///
/// # Panics
/// As [`json`].
pub async fn breaker(admin: SocketAddr, upstream: &str) -> Value {
    json(admin, "/api/status/circuit-breakers").await["circuitBreakers"][upstream].clone()
}

/// A JSON answer to a GET.
///
/// # Panics
/// When no answer comes.
pub async fn json(admin: SocketAddr, path: &str) -> Value {
    call(admin, "GET", path, None).await.1
}
