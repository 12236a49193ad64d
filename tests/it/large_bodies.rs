//! Answers that are large, of known length, and in the clear on both sides: they pass through the kernel alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(20);
/// More than a pipe holds.
const LARGE: usize = 3_000_000;

/// With a log that tells why an answer ended early.
const LOG: &str = "[log]\naccess = \"access.log\"\naccess_format = \"json\"\n";

/// No two places of it look alike for long.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place / 251 + place) as u8).collect()
}

/// Announces [`LARGE`] bytes and sends so many.
fn beginning(bytes: usize) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
    Reply::raw([head.as_bytes(), &pattern(bytes)].concat())
}

/// Past the head of an answer.
async fn read_head(client: &mut Client) {
    let head = client.read_until("\r\n\r\n").await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&head));
}

#[tokio::test]
async fn answers_are_whole_and_their_connections_go_on() {
    let folder = Folder::new();
    let unix = FakeUpstream::http1().unix(folder.join("app.sock"));
    for (number, app) in [FakeUpstream::http1(), unix].into_iter().enumerate() {
        let sizes = [63 * 1024, 64 * 1024, 65 * 1024, 300_000, LARGE];
        let app = sizes.iter().fold(app, |app, size| app.route(&format!("/{size}"), Reply::ok(pattern(*size))));
        let app = app.route("/small", "small").start().await;
        let proxy = TestProxy::before(&app, "", "").start().await;
        let mut client = Client::connect(proxy.address()).await.unwrap();
        for size in sizes {
            let answer = client.get(&format!("/{size}")).await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, size));
            assert!(answer.body == pattern(size), "{size}");
            // And nothing of it is left for the next.
            assert_eq!(client.get("/small").await.unwrap().text(), "small");
            let line = proxy.log_line(&format!("GET /{size} ")).await;
            assert!(line.contains(&format!("\" 200 {size} ")), "{line}");
        }
        assert_eq!(app.connections(), 1, "app {number}");
    }
}

#[tokio::test]
async fn what_a_client_asks_for_behind_a_large_answer_is_served() {
    let app = FakeUpstream::http1().route("/large", Reply::ok(pattern(LARGE))).route("/next", "next").start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(client.read_response().await.unwrap().body == pattern(LARGE));
    assert_eq!(client.read_response().await.unwrap().text(), "next");
}

#[tokio::test]
async fn an_answer_to_http_1_0_ends_with_its_connection() {
    let app = FakeUpstream::http1().route("*", Reply::ok(pattern(LARGE))).start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await.unwrap();
    let all = client.read_to_end().await.unwrap();
    assert!(all.ends_with(&pattern(LARGE)), "{} bytes", all.len());
}

/// There is a bound on the pipes of a worker; whoever comes beyond it is served as well.
#[tokio::test]
async fn many_clients_that_stop_and_go_on_get_all_of_it() {
    let app = FakeUpstream::http1().route("/", Reply::ok(pattern(4 * LARGE))).route("/small", "small").start().await;
    let proxy = TestProxy::before(&app, "[server]\nstate_dir = \"state\"\nworkers = 1\n", "").start().await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/", "").await.unwrap();
        read_head(&mut client).await;
        clients.push(client);
    }
    let expected = pattern(4 * LARGE);
    for mut client in clients {
        assert!(client.read_exactly(4 * LARGE).await.unwrap() == expected);
        assert_eq!(client.get("/small").await.unwrap().text(), "small");
    }
}

#[tokio::test]
async fn what_came_of_an_answer_that_breaks_off_arrives() {
    let app = FakeUpstream::http1().route("*", beginning(LARGE - 1).then(Step::Close)).start().await;
    let proxy = TestProxy::before(&app, LOG, "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    read_head(&mut client).await;
    assert!(client.read_to_end().await.unwrap() == pattern(LARGE - 1));
    let line = proxy.log_line("upstream_error").await;
    assert!(line.contains(&format!(":{},", LARGE - 1)), "{line}");
}

#[tokio::test]
async fn an_answer_that_stalls_is_given_up() {
    let app = FakeUpstream::http1().route("*", beginning(LARGE / 2).then(Step::Hang)).start().await;
    let tables = format!("{LOG}[timeouts]\nresponse_body = \"300ms\"\n");
    let proxy = TestProxy::before(&app, &tables, "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    read_head(&mut client).await;
    assert!(client.read_to_end().await.unwrap() == pattern(LARGE / 2));
    proxy.log_line("upstream_timeout").await;
    assert!(eventually(DEADLINE, || app.open_connections() == 0).await);
}

#[tokio::test]
async fn an_answer_is_cut_by_maintenance_while_its_app_is_silent() {
    let app = FakeUpstream::http1().route("*", beginning(LARGE / 2).then(Step::Hang)).start().await;
    let proxy = TestProxy::before(&app, LOG, "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    read_head(&mut client).await;
    assert!(client.read_exactly(LARGE / 2).await.unwrap() == pattern(LARGE / 2));
    proxy.folder.write("state/maintenance.flag", "mode = \"emergency\"\nterminate = true\ngrace = \"0s\"\n");
    assert_eq!(client.read_to_end().await.unwrap(), b"");
    proxy.log_line("\"maintenance\"").await;
    assert!(eventually(DEADLINE, || app.open_connections() == 0).await);
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_connection_to_the_app_along() {
    let app = FakeUpstream::http1().route("*", beginning(LARGE / 2).then(Step::Hang)).start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    // One has read all that there is, the other has not.
    for bytes in [LARGE / 2, 1] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/", "").await.unwrap();
        read_head(&mut client).await;
        client.read_exactly(bytes).await.unwrap();
        assert_eq!(app.open_connections(), 1);
        client.reset();
        assert!(eventually(DEADLINE, || app.open_connections() == 0).await, "{bytes}");
    }
}

#[tokio::test]
async fn a_drain_lets_a_large_answer_end() {
    let word = Arc::new(Notify::new());
    let rest = pattern(LARGE)[LARGE / 2..].to_vec();
    let reply = beginning(LARGE / 2).then(Step::Await(Arc::clone(&word))).then(Step::Send(rest));
    let app = FakeUpstream::http1().route("*", reply).start().await;
    let proxy = TestProxy::before(&app, "", "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    read_head(&mut client).await;
    let first = client.read_exactly(LARGE / 2).await.unwrap();
    let drain = tokio::spawn(proxy.drain(DEADLINE));
    word.notify_one();
    let second = client.read_to_end().await.unwrap();
    assert!([first, second].concat() == pattern(LARGE));
    assert!(drain.await.unwrap());
}
