//! The same bytes, cut anywhere: nothing may depend on how they arrive.

use super::SMUGGLED;
use crate::support::client::Client;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

/// Three requests in one stream: a fixed body, a chunked one, none.
const PIPELINE: &str = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n\
                        PUT /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                        3;x\r\nabc\r\n0\r\nT: u\r\n\r\n\
                        GET /3 HTTP/1.1\r\nHost: a\r\n\r\n";

async fn echoing() -> (FakeUpstream, TestProxy) {
    let answer = Reply::answer(|request| Reply::ok([request.head.line.as_bytes(), &request.body].concat()));
    let upstream = FakeUpstream::http1().route("*", answer).start().await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    (upstream, proxy)
}

async fn expect_all_three(client: &mut Client, cut: usize) {
    for expected in ["POST /1 HTTP/1.1\r\n\r\n", "PUT /2 HTTP/1.1abc", "GET /3 HTTP/1.1"] {
        let answer = client.read_response().await.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_pipeline_may_be_cut_at_any_byte() {
    let (upstream, proxy) = echoing().await;
    let (mut first, mut second) = (Client::connect(proxy.address()).await.unwrap(), None);
    for cut in 1..PIPELINE.len() {
        let client = second.as_mut().unwrap_or(&mut first);
        client.send(&PIPELINE[..cut]).await.unwrap();
        // Gives the proxy its chance to read the first part alone; the result may not depend on whether it does.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        client.send(&PIPELINE[cut..]).await.unwrap();
        expect_all_three(client, cut).await;
        if cut % 64 == 0 {
            second = Some(Client::connect(proxy.address()).await.unwrap());
        }
    }
    assert_eq!(upstream.requests().len(), 3 * (PIPELINE.len() - 1));
}

#[tokio::test]
async fn a_pipeline_may_come_byte_by_byte() {
    let (_upstream, proxy) = echoing().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send_slowly(PIPELINE, 1, std::time::Duration::from_micros(200)).await.unwrap();
    expect_all_three(&mut client, 0).await;
}

#[tokio::test]
async fn answers_before_a_malformed_request_are_complete_wherever_it_is_cut() {
    let (upstream, proxy) = echoing().await;
    let bytes = format!("{PIPELINE}GET / HTTP/1.1\r\nHost : a\r\n\r\n{SMUGGLED}");
    for cut in [0, 1, 20, PIPELINE.len() - 1, PIPELINE.len(), PIPELINE.len() + 1, PIPELINE.len() + 20, bytes.len() - 1]
    {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(&bytes[..cut]).await.unwrap();
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        // The connection may be gone before the last of it.
        let _ = client.send(&bytes[cut..]).await;
        expect_all_three(&mut client, cut).await;
        let refusal = client.read_response().await.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!((refusal.status, refusal.header("flagstone-reason")), (400, Some("bad_request")), "cut at {cut}");
        client.expect_closed().await.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
    }
    assert!(upstream.raw().iter().all(|bytes| !String::from_utf8_lossy(bytes).contains("smuggled")));
}
