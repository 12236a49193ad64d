//! Why an app cannot be reached, gives no answer or breaks off is told, and no flood of requests makes a flood of lines.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::certs::{Ca, Leaf};
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Flagstone};
use crate::support::reply::{Reply, Step};
use crate::support::upstream::{FakeUpstream, OnAccept};

/// In front of this endpoint, with every request one try.
fn config(endpoint: &str, settings: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [timeouts]\nconnect = \"300ms\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{endpoint}\"]\n\
         retry = {{ attempts = 0 }}\nbreaker = {{ enabled = false }}\n{settings}\n"
    )
}

async fn start(endpoint: &str, settings: &str, ca: &Ca) -> (Flagstone, Client) {
    let folder = Folder::new();
    folder.write("ca.pem", ca.pem());
    let mut flagstone = Flagstone::serve_in(folder, &config(endpoint, settings)).await;
    let client = Client::connect(flagstone.address("web").await).await.unwrap();
    (flagstone, client)
}

/// The lines about it.
fn told(flagstone: &Flagstone) -> Vec<String> {
    lines_with(flagstone, "Endpoint unreachable")
}

fn lines_with(flagstone: &Flagstone, message: &str) -> Vec<String> {
    let log = flagstone.process.stderr();
    // The last line may not be there to its end.
    let lines = log.rsplit_once('\n').map_or("", |(whole, _)| whole).lines();
    lines.filter(|line| line.contains(message)).map(str::to_owned).collect()
}

/// The line of one request that could not be sent, but for where it was to go.
async fn cause(endpoint: &str, settings: &str, ca: &Ca) -> String {
    let (mut flagstone, mut client) = start(endpoint, settings, ca).await;
    let answer = client.get("/").await.unwrap();
    assert_eq!(answer.header("flagstone-reason"), Some("connect_failed"));
    let line = flagstone.process.stderr_line("Endpoint unreachable").await;
    let head = format!("WARN Endpoint unreachable upstream=app endpoint={endpoint} error=");
    let cause = line.split_once(&head).unwrap_or_else(|| panic!("{line}")).1;
    cause.strip_suffix(" count=1").unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[tokio::test]
async fn every_cause_is_told_as_it_is() {
    let ca = Ca::new();
    let tls = |leaf: &Leaf| FakeUpstream::http1().route("*", "ok").tls(leaf.server_config(&[b"http/1.1"])).start();
    let app = tls(&ca.leaf(&["app.internal"])).await;
    let error =
        cause(&app.endpoint(), "tls = { enabled = true, server_name = \"app.internal\", ca = \"ca.pem\" }", &Ca::new())
            .await;
    assert!(error.starts_with("\"no connection: invalid peer certificate: "), "{error}");
    assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
    let error = cause(&app.endpoint(), "tls = { enabled = true, server_name = \"other\", ca = \"ca.pem\" }", &ca).await;
    assert!(error.contains("certificate not valid for name"), "{error}");
    let silent = FakeUpstream::http1().on_accept(OnAccept::Blackhole).start().await;
    let error = cause(&silent.endpoint(), "tls = { enabled = true, insecure = true }", &ca).await;
    assert_eq!(error, "\"no connection within 300ms\"");
    silent.stop().await;
    let error = cause(&silent.endpoint(), "", &ca).await;
    assert_eq!(error, "\"no connection: Connection refused\"");
}

/// Says this to whoever has sent a preface, and nothing more: the end follows, or a reset.
async fn saying(bytes: &'static str, is_reset: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            socket.read_exact(&mut [0; b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).await.unwrap();
            socket.write_all(bytes.as_bytes()).await.unwrap();
            if is_reset {
                socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            } else {
                socket.shutdown().await.unwrap();
                while socket.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
            }
        }
    });
    endpoint
}

#[tokio::test]
async fn what_dies_before_its_settings_is_not_said_to_speak_something_else() {
    let cause = async |endpoint: String| cause(&endpoint, "http2 = true", &Ca::new()).await;
    let error = cause(saying("", false).await).await;
    assert_eq!(error, "\"no connection: the endpoint closed the connection before its SETTINGS\"");
    let error = cause(saying("", true).await).await;
    assert!(error.contains(" before its SETTINGS"), "{error}");
    let error = cause(saying("HTTP/1.1 400 Bad Request\r\n\r\n", false).await).await;
    assert_eq!(error, "\"no connection: the endpoint does not speak HTTP/2\"");
}

#[tokio::test]
async fn a_flood_makes_about_a_line_a_second_and_every_failure_counts() {
    let gone = FakeUpstream::http1().start().await;
    gone.stop().await;
    let (flagstone, mut client) = start(&gone.endpoint(), "", &Ca::new()).await;
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(client.get("/").await.unwrap().status, 502);
    }
    let count = |line: &String| line.split("count=").nth(1).unwrap().parse::<u64>().unwrap();
    let counted = || told(&flagstone).iter().map(count).sum::<u64>();
    assert!(eventually(DEADLINE, || counted() == 200).await, "{:?}", told(&flagstone));
    let (lines, seconds) = (told(&flagstone).len() as u64, began.elapsed().as_secs());
    assert!(lines <= seconds + 2, "{lines} lines in {seconds} s");
}

#[tokio::test]
async fn a_request_that_succeeds_tells_nothing() {
    let app = FakeUpstream::http1().route("*", "ok").start().await;
    let (mut flagstone, mut client) = start(&app.endpoint(), "", &Ca::new()).await;
    assert_eq!(client.get("/").await.unwrap().status, 200);
    app.stop().await;
    // The app went with its kept connections: that failure is the only one.
    assert_eq!(client.get("/").await.unwrap().status, 502);
    flagstone.process.stderr_line("Endpoint unreachable").await;
    assert_eq!(told(&flagstone).len(), 1);
}

/// What the event of one request without an answer says, but for where it was to go.
async fn no_answer(upstream: &FakeUpstream, settings: &str, ca: &Ca, reason: &str) -> String {
    let (mut flagstone, mut client) = start(&upstream.endpoint(), settings, ca).await;
    let answer = client.get("/").await.unwrap();
    assert_eq!(answer.header("flagstone-reason"), Some(reason));
    let line = flagstone.process.stderr_line(NO_ANSWER).await;
    let head = format!("WARN {NO_ANSWER} upstream=app endpoint={} error=", upstream.endpoint());
    let cause = line.split_once(&head).unwrap_or_else(|| panic!("{line}")).1;
    cause.strip_suffix(" count=1").unwrap_or_else(|| panic!("{line}")).to_owned()
}

const NO_ANSWER: &str = "Endpoint gave no answer";

#[tokio::test]
async fn why_there_is_no_answer_is_told_as_it_is() {
    let ca = Ca::new();
    let app = FakeUpstream::http1().on_accept(OnAccept::Close).start().await;
    let error = no_answer(&app, "", &ca, "upstream_error").await;
    assert!(error.contains("closed before"), "{error}");
    let app = FakeUpstream::http1().on_accept(OnAccept::Blackhole).start().await;
    let route =
        "[[route]]\nname = \"late\"\npath = [\"=/\"]\nupstream = \"app\"\ntimeouts = { response_head = \"300ms\" }";
    let error = no_answer(&app, route, &ca, "upstream_timeout").await;
    assert_eq!(error, "\"no answer within 300ms\"");
}

const BROKE_OFF: &str = "Endpoint broke off an answer";

#[tokio::test]
async fn why_an_answer_is_not_there_to_its_end_is_told_as_it_is() {
    let app = FakeUpstream::http1().route("/dies", Reply::truncated(100, "half"));
    let app = app.route("/stops", Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then(Step::Hang));
    let app = app.start().await;
    let settings = "[timeouts]\nresponse_body = \"300ms\"\nconnect = \"300ms\"\n[[route]]";
    let config = config(&app.endpoint(), "").replace("[timeouts]\nconnect = \"300ms\"\n[[route]]", settings);
    for (path, cause) in [("/dies", "the body ended early"), ("/stops", "in time")] {
        let mut flagstone = Flagstone::serve(&config).await;
        let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
        client.request("GET", path, "").await.unwrap();
        assert!(client.read_response().await.is_err());
        let line = flagstone.process.stderr_line(BROKE_OFF).await;
        let head = format!("WARN {BROKE_OFF} upstream=app endpoint={} error=", app.endpoint());
        assert!(line.contains(&head) && line.contains(cause) && line.ends_with(" count=1"), "{line}");
    }
}

#[tokio::test]
async fn neither_a_kept_connection_that_closes_nor_a_client_is_told_of() {
    let half = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then(Step::Hang);
    let app = FakeUpstream::http1().route("*", "ok").route("/half", half).reset_after_requests(1).start().await;
    let (mut flagstone, mut client) = start(&app.endpoint(), "", &Ca::new()).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    // A body that is no body.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 400);
    // An answer that it does not wait for.
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    client.request("GET", "/half", "").await.unwrap();
    client.read_until("half").await.unwrap();
    client.reset();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    for message in [NO_ANSWER, BROKE_OFF] {
        assert_eq!(lines_with(&flagstone, message), Vec::<String>::new());
    }
}
