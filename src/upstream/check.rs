//! Active checks: of endpoints (`[upstream.NAME.health]`), and what the checks of `[probe.NAME]` share with them.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connect::{ConnectError, Connector};
use super::endpoint::Endpoint;
use super::standing::{Health, Thresholds};
use crate::breaker::Pauses;
use crate::config::model::{self, HealthKind};
use crate::error::is_shortage;

/// Checks come this much (of 1) earlier or later, so that those of many endpoints and proxies do not come at once.
const JITTER: f64 = 0.1;
/// An endpoint that has yet to pass its first check is checked at least this often: apps start as late as, or a little later
/// than, what stands before them.
const STARTING_INTERVAL: Duration = Duration::from_secs(1);
/// While requests wait for an endpoint, it is checked at least this often.
const IMPATIENT_INTERVAL: Duration = Duration::from_millis(250);
/// How often an endpoint that is checked rarely is looked at, whether somebody waits for it.
const NAP: Duration = Duration::from_millis(100);
/// A longer line is no answer to PING.
const REDIS_LINE_MAX: usize = 512;

/// Checks one endpoint until it is over.
pub(super) async fn endpoint(endpoint: Weak<Endpoint>, health: model::Health, pauses: Arc<Pauses>) {
    let rules = Thresholds { healthy_after: health.healthy_after, unhealthy_after: health.unhealthy_after };
    loop {
        let Some(checked) = endpoint.upgrade() else { return };
        let began = Instant::now();
        let limited = tokio::time::timeout(health.timeout, once(&checked.connector, &checked.host, &health)).await;
        let result = limited.unwrap_or_else(|_| Err(format!("no answer within {:?}", health.timeout).into()));
        let now = Instant::now();
        // That the process stood still, or could not even ask, is no fault of the endpoint.
        if result.is_ok() || !(pauses.spoil(began, now) || for_shortage(&result)) {
            let result = result.map(|()| now - began).map_err(|failed| failed.why);
            let reason = result.as_ref().err().cloned();
            if let Some(after) = checked.standing.checked(result, rules, now) {
                checked.health_changed(after, reason);
            }
        }
        let interval = match checked.standing.has_yet_to_pass() {
            true => health.interval.min(STARTING_INTERVAL),
            false => health.interval,
        };
        drop(checked);
        if !rest(&endpoint, jittered(interval)).await {
            return;
        }
    }
}

/// Why a check brought nothing good.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) why: String,
    /// This process could not even ask.
    pub(super) is_shortage: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, is_shortage: false }
    }
}

impl From<&str> for Failed {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl From<ConnectError> for Failed {
    fn from(error: ConnectError) -> Self {
        Self { why: error.to_string(), is_shortage: error.is_shortage() }
    }
}

/// No connection to what is checked.
impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { why: format!("no connection: {error}"), is_shortage: is_shortage(&error) }
    }
}

pub(super) fn for_shortage<T>(result: &Result<T, Failed>) -> bool {
    result.as_ref().is_err_and(|failed| failed.is_shortage)
}

/// Waits until the next check: less long when requests wait for an endpoint that is away. False when there is none.
async fn rest(endpoint: &Weak<Endpoint>, interval: Duration) -> bool {
    let began = Instant::now();
    loop {
        let Some(resting) = endpoint.upgrade().filter(|resting| !resting.is_over()) else { return false };
        let left = interval.saturating_sub(began.elapsed());
        if left.is_zero() || (resting.is_awaited() && began.elapsed() >= IMPATIENT_INTERVAL) {
            return true;
        }
        let is_healthy = resting.standing.health() == Health::Healthy;
        drop(resting);
        tokio::time::sleep(if is_healthy { left } else { left.min(NAP) }).await;
    }
}

/// `interval`, a little shorter or longer.
pub(super) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

async fn once(connector: &Connector, host: &HeaderValue, health: &model::Health) -> Result<(), Failed> {
    match &health.kind {
        HealthKind::Tcp => Ok(connector.reach(health.timeout).await.map(drop)?),
        HealthKind::Http { path, expect } => {
            let status = http(connector, host, path, health.timeout).await?;
            if expect.contains(status) { Ok(()) } else { Err(format!("answered {}", status.as_u16()).into()) }
        }
    }
}

/// The status of one GET on a connection of its own.
pub(super) async fn http(
    connector: &Connector,
    host: &HeaderValue,
    target: &str,
    limit: Duration,
) -> Result<StatusCode, Failed> {
    let mut connection = connector.connect(limit).await?;
    let request = Request::get(target)
        .header(HOST, host)
        .header(USER_AGENT, concat!("flagstone-health/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(())
        .map_err(|error| error.to_string())?;
    let (head, ()) = request.into_parts();
    Ok(connection.ask(&head).await.map_err(|error| error.to_string())?)
}

/// Says PING, after AUTH where there is a password, and expects PONG (Redis serialization protocol, version 2).
pub(super) async fn redis_ping<S>(mut stream: S, user: &str, password: &str) -> Result<(), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut line = String::new();
    if !password.is_empty() {
        let mut auth = vec!["AUTH"];
        if !user.is_empty() {
            auth.push(user);
        }
        auth.push(password);
        line = redis_call(&mut stream, &auth).await?;
        if line != "+OK" {
            return Err(format!("AUTH was answered {line:?}"));
        }
    }
    line.clear();
    line.push_str(&redis_call(&mut stream, &["PING"]).await?);
    if line == "+PONG" { Ok(()) } else { Err(format!("PING was answered {line:?}")) }
}

async fn redis_call<S>(stream: &mut S, words: &[&str]) -> Result<String, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut call = format!("*{}\r\n", words.len());
    for word in words {
        call.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(call.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() >= REDIS_LINE_MAX {
            return Err("what answers is no redis".to_owned());
        }
        line.push(stream.read_u8().await.map_err(|error| format!("no answer: {error}"))?);
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_come_a_tenth_earlier_or_later() {
        let interval = Duration::from_secs(10);
        let all: Vec<_> = (0..1000).map(|_| jittered(interval)).collect();
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(9) && *most <= Duration::from_secs(11), "{least:?} {most:?}");
        assert!(*most - *least > Duration::from_secs(1), "{least:?} {most:?}");
    }
}
