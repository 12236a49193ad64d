//! Good requests with a few bytes changed: whatever becomes of them, it is Flagstone that says so, and nothing hangs.
//!
//! The changes are the same in every run. What refuses a head gives its reason; so an error
//! without a `Flagstone-Reason` is a head that was let through and should not have been.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const GOOD: [&str; 4] = [
    "GET /a/b?c=d HTTP/1.1\r\nHost: example.com:80\r\nAccept: */*\r\n\r\n",
    "GET http://a/b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
];
/// Bytes that mean something somewhere.
const SPECIAL: &[u8] = b"\r\n\t \0:;,/\\?#%.*@[]<>\"'`{}|^_+-=0159afxAF\x01\x0b\x0c\x7f\x80\xff";
const CASES: usize = 1000;
const AT_ONCE: usize = 50;

fn mutated(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = GOOD[random.usize(..GOOD.len())].as_bytes().to_vec();
    for _ in 0..random.usize(1..=3) {
        let at = random.usize(..bytes.len());
        let special = SPECIAL[random.usize(..SPECIAL.len())];
        match random.u8(..4) {
            0 => bytes[at] = special,
            1 => bytes.insert(at, special),
            2 => drop(bytes.remove(at)),
            _ => {
                let end = bytes.len().min(at + random.usize(1..20));
                let piece = bytes[at..end].to_vec();
                let to = random.usize(..bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

/// Everything that comes back until the connection ends or stays silent.
async fn answers(client: &mut Client) -> Result<(), String> {
    loop {
        match client.read_response().await {
            Ok(answer) if answer.status >= 400 && answer.header("flagstone-reason").is_none() => {
                return Err(format!("{} without a reason", answer.line));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Err("neither answered nor closed".into());
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(error.to_string()),
            Err(_) => return Ok(()),
        }
    }
}

async fn play(proxy: &TestProxy, bytes: &[u8]) -> Result<(), String> {
    let mut client = Client::connect(proxy.address()).await.map_err(|error| error.to_string())?;
    // The rest may be refused while it is sent.
    let _ = client.send(bytes).await;
    answers(&mut client).await
}

#[tokio::test]
async fn a_changed_request_is_answered_or_refused_by_us() {
    let upstream = FakeUpstream::http1().route("*", Reply::ok("ok")).start().await;
    let timeouts = "[timeouts]\nrequest_head = \"200ms\"\nidle = \"200ms\"\nrequest_body = \"200ms\"\n";
    let proxy = TestProxy::before(&upstream, timeouts, "").start().await;
    let mut random = fastrand::Rng::with_seed(42);
    let cases: Vec<Vec<u8>> = (0..CASES).map(|_| mutated(&mut random)).collect();
    for batch in cases.chunks(AT_ONCE) {
        let played = futures_util::future::join_all(batch.iter().map(|bytes| play(&proxy, bytes)));
        let played = tokio::time::timeout(Duration::from_secs(60), played).await.expect("no case hangs");
        for (bytes, result) in batch.iter().zip(played) {
            assert_eq!(result, Ok(()), "{}", bytes.escape_ascii());
        }
    }
    // Whatever reached the app is HTTP/1.1 with one host and one framing.
    for request in upstream.requests() {
        let head = &request.head;
        assert!(head.line.ends_with(" HTTP/1.1") && head.line.split(' ').count() == 3, "{head:?}");
        assert_eq!(head.all("host").len(), 1, "{head:?}");
        assert!(head.all("content-length").len() + head.all("transfer-encoding").len() <= 1, "{head:?}");
    }
}
