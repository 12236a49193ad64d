//! Smuggling: bytes that two parsers could read differently, and what became of them at the upstream.
//!
//! Each table has a name, the bytes, and the verdict. What is judged is what the *upstream* received, byte for byte;
//! the client's status comes second. Behind every case stands a request to `/smuggled`, which no case may turn into
//! one that is forwarded.

mod framing;
mod heads;
mod mutations;
mod split;
mod targets;

use crate::support::client::Client;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;
use crate::support::wire::Message;

/// What has to become of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// This status, `Flagstone-Reason`, the end of the connection; not a byte reaches the upstream.
    Refused(u16),
    /// The same with 400, but the head was good: the upstream may have seen the beginning of a request, never its end.
    Cut,
    /// Exactly one request reaches the upstream, with this request line and this body, and its answer the client.
    Forwarded(&'static str, &'static str),
}

pub(crate) use Verdict::{Cut, Forwarded, Refused};

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) verdict: Verdict,
}

pub(crate) fn case(name: impl Into<String>, bytes: impl AsRef<[u8]>, verdict: Verdict) -> Case {
    Case { name: name.into(), bytes: bytes.as_ref().to_vec(), verdict }
}

/// What stands behind every case that is to be refused.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A proxy and its upstream, for many cases one after another.
pub(crate) struct Bench {
    upstream: FakeUpstream,
    proxy: TestProxy,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let upstream = FakeUpstream::http1().route("*", Reply::ok("from the app")).start().await;
        let proxy = TestProxy::before(&upstream, "", "").start().await;
        Self { upstream, proxy }
    }

    /// Plays all cases; the panic at the end names every one that failed.
    pub(crate) async fn play(&self, cases: Vec<Case>) {
        self.play_in_pieces(cases, usize::MAX).await;
    }

    /// The same, every `piece` bytes in a packet of their own.
    pub(crate) async fn play_in_pieces(&self, cases: Vec<Case>, piece: usize) {
        let mut failures = Vec::new();
        for case in &cases {
            if let Err(why) = self.play_one(case, piece).await {
                failures.push(format!("{}: {why}\n    {}", case.name, case.bytes.escape_ascii()));
            }
        }
        assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    }

    async fn play_one(&self, case: &Case, piece: usize) -> Result<(), String> {
        let before = (self.upstream.received_bytes(), self.upstream.requests().len());
        let mut client = Client::connect(self.proxy.address()).await.map_err(|error| error.to_string())?;
        for piece in case.bytes.chunks(piece) {
            // The verdict may have been given before the last piece.
            let _ = client.send(piece).await;
            tokio::task::yield_now().await;
        }
        let seen = match case.verdict {
            Forwarded(..) => {
                let answer = client.read_response().await.map_err(|error| error.to_string())?;
                if (answer.status, answer.text().as_str()) != (200, "from the app") {
                    return Err(format!("answered {} {:?}", answer.line, answer.text()));
                }
                self.upstream.requests().split_off(before.1)
            }
            Refused(status) => {
                // Sent apart, so that it is not refused together with the rest. The connection may be gone by then.
                let _ = client.send(SMUGGLED).await;
                expect_refusal(&mut client, status).await?;
                let came = self.upstream.received_bytes() - before.0;
                return if came == 0 { Ok(()) } else { Err(format!("{came} bytes reached the upstream")) };
            }
            Cut => {
                let _ = client.send(SMUGGLED).await;
                expect_refusal(&mut client, 400).await?;
                self.upstream.requests().split_off(before.1)
            }
        };
        judge(case.verdict, &seen)
    }
}

async fn expect_refusal(client: &mut Client, status: u16) -> Result<(), String> {
    let answer = client.read_response().await.map_err(|error| format!("no refusal: {error}"))?;
    let reason = if matches!(status, 413 | 414 | 431) { "too_large" } else { "bad_request" };
    if (answer.status, answer.header("flagstone-reason")) != (status, Some(reason)) {
        return Err(format!("answered {} with {:?}", answer.line, answer.headers));
    }
    if answer.header("connection") != Some("close") {
        return Err("the refusal does not say that the connection closes".to_owned());
    }
    client.expect_closed().await.map(drop).map_err(|error| format!("not closed after the refusal: {error}"))
}

fn judge(verdict: Verdict, seen: &[Message]) -> Result<(), String> {
    let lines: Vec<&str> = seen.iter().map(|request| request.head.line.as_str()).collect();
    match verdict {
        Forwarded(line, body) => {
            let [request] = seen else { return Err(format!("the upstream saw {lines:?}")) };
            let found = (request.head.line.as_str(), request.body.as_slice(), request.complete);
            if found == (line, body.as_bytes(), true) {
                Ok(())
            } else {
                Err(format!(
                    "the upstream saw {:?} with {:?}",
                    request.head.line,
                    request.body.escape_ascii().to_string()
                ))
            }
        }
        _ if seen.len() > 1 || seen.iter().any(|request| request.complete) => {
            Err(format!("the upstream saw a whole request: {lines:?}"))
        }
        _ => Ok(()),
    }
}
