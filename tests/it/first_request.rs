//! The shortest way through: a request, its answer, its log line.

use crate::support::client::{self, Client};
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

fn to(upstream: &FakeUpstream) -> String {
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    )
}

#[tokio::test]
async fn a_request_reaches_the_app_and_its_answer_the_client() {
    let upstream = FakeUpstream::http1().route("/hello", "hello from the app").start().await;
    let proxy = TestProxy::toml(to(&upstream)).start().await;
    let response = client::get(proxy.address(), "/hello").await.unwrap();
    assert_eq!((response.status, response.text()), (200, "hello from the app".into()));
    let seen = upstream.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].head.line, "GET /hello HTTP/1.1");
    assert_eq!(seen[0].head.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_kept_connection_serves_many_requests() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let proxy = TestProxy::toml(to(&upstream)).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for number in 0..20 {
        assert_eq!(client.get(&format!("/{number}")).await.unwrap().status, 200);
    }
    assert_eq!(upstream.requests().len(), 20);
    assert_eq!(upstream.connections(), 1);
}
