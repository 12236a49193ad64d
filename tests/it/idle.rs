//! Idle connections, which let go of what HTTP holds after a second: nobody may notice. And an idle process.

use std::time::Duration;

use crate::support::certs::Ca;
use crate::support::client::{Client, Ending};
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::process::Flagstone;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(10);
/// Longer than it takes a connection to come to rest.
const REST: Duration = Duration::from_millis(1_500);

/// Fifty of them may stand beside fifty apps on one machine.
#[tokio::test]
async fn a_process_at_rest_is_small() {
    const BYTES_MAX: u64 = 16 * 1024 * 1024;
    let config = "[server]\nworkers = 2\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
                  [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
                  [[route]]\nname = \"all\"\nrespond = { body = \"hi\" }\n";
    let mut flagstone = Flagstone::serve(config).await;
    let address = flagstone.address("web").await;
    assert_eq!(Client::connect(address).await.unwrap().get("/").await.unwrap().text(), "hi");
    let bytes = flagstone.anonymous_bytes();
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
}

async fn serve_twice(client: &mut Client) {
    assert_eq!(client.get("/").await.unwrap().text(), "hi");
    client.expect_silence(REST).await.unwrap();
    // In one packet with the next head's beginning, and a body.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HT").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "hi");
    client.send("TP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "hi");
    client.expect_silence(REST).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hi");
}

#[tokio::test]
async fn a_connection_goes_on_after_a_rest() {
    let app = FakeUpstream::http1().route("*", "hi").start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    serve_twice(&mut client).await;
    drop(client);
    assert!(eventually(DEADLINE, || proxy.connections().iter().sum::<usize>() == 0).await);
}

#[tokio::test]
async fn a_connection_with_tls_goes_on_after_a_rest() {
    let app = FakeUpstream::http1().route("*", "hi").start().await;
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let listener = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
                    certificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n";
    let proxy = TestProxy::before(&app, listener, "").in_folder(folder).start().await;
    let config = ca.client_config(&[b"http/1.1"]);
    serve_twice(&mut Client::connect_tls(proxy.address(), "site.example", config).await.unwrap()).await;
}

#[tokio::test]
async fn an_upload_that_outlasts_its_answer_is_not_cut() {
    let app = FakeUpstream::http1().route("/early", Reply::early(200, "early")).route("*", "hi").start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("POST", "/early", "Content-Length: 10\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "early");
    client.expect_silence(REST).await.unwrap();
    client.send("0123456789GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "hi");
    let has_body = || app.raw().iter().any(|raw| raw.ends_with(b"0123456789"));
    assert!(eventually(DEADLINE, has_body).await, "{:?}", app.raw());
}

#[tokio::test]
async fn a_rest_is_no_longer_than_the_idle_timeout() {
    let app = FakeUpstream::http1().route("*", "hi").start().await;
    let proxy = TestProxy::before(&app, "[timeouts]\nidle = \"3s\"\n", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hi");
    client.expect_silence(REST).await.unwrap();
    // An empty line is no request: it wakes the connection, and buys no time.
    client.send("\r\n").await.unwrap();
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
}

#[tokio::test]
async fn what_is_no_request_is_refused_after_a_rest_too() {
    let app = FakeUpstream::http1().route("*", "hi").start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hi");
    client.expect_silence(REST).await.unwrap();
    client.send("GET / HTTP/1.1\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 400);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_connections_at_rest() {
    let app = FakeUpstream::http1().route("*", "hi").start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hi");
    client.expect_silence(REST).await.unwrap();
    assert!(proxy.drain(Duration::from_secs(10)).await);
    assert_eq!(client.expect_closed().await.unwrap(), Ending::Fin);
}
