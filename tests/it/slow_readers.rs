//! Clients over TLS that take an answer slowly: what TLS holds back of it, up to 64 KiB, goes out all the same.

use std::time::Duration;

use tokio::net::TcpSocket;

use crate::support::certs::Ca;
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;
use crate::support::wire::Message;

const DEADLINE: Duration = Duration::from_secs(10);
const KIB: usize = 1024;
/// Four of them lie in the 64 KiB that TLS can hold back, whatever the sockets hold.
const STEP: usize = 16 * KIB;

struct Site {
    ca: Ca,
    app: FakeUpstream,
    proxy: TestProxy,
}

impl Site {
    /// One whose app answers `/N` with as many bytes, and `/events/N` with a stream that begins with as many.
    async fn start(tables: &str) -> Self {
        let reply = Reply::answer(|request| {
            let body = "x".repeat(asked(request));
            if !request.head.line.contains("/events/") {
                return Reply::ok(body);
            }
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            Reply::raw(format!("{head}{:x}\r\n{body}\r\n", body.len())).then(Step::Hang)
        });
        let app = FakeUpstream::http1().route("*", reply).start().await;
        let (ca, folder) = (Ca::new(), Folder::new());
        ca.leaf(&["site.example"]).write(&folder, "site");
        let listener = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
                        certificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n";
        let proxy = TestProxy::before(&app, &format!("{tables}{listener}"), "").in_folder(folder).start().await;
        Self { ca, app, proxy }
    }

    /// Asks for a path, on a connection whose sockets hold little.
    async fn ask(&self, path: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        // What the other side may have under way goes by the size of a segment.
        socket2::SockRef::from(&socket).set_tcp_mss(536).unwrap();
        let stream = socket.connect(self.proxy.address()).await.unwrap();
        let config = self.ca.client_config(&[b"http/1.1"]);
        let mut client = Client::tls_on(stream, "site.example", config).await.unwrap();
        client.request("GET", path, "").await.unwrap();
        client
    }

    /// Asks for a path of each size, each on a connection of its own.
    async fn ask_each(&self, folder: &str) -> Vec<(usize, Client)> {
        let mut clients = Vec::new();
        for size in (1..=24).map(|step| step * STEP) {
            clients.push((size, self.ask(&format!("{folder}/{size}")).await));
        }
        clients
    }

    async fn is_left(&self) -> bool {
        eventually(DEADLINE, || self.proxy.connections().iter().sum::<usize>() == 0).await
    }
}

/// The number at the end of the path that is asked for.
fn asked(request: &Message) -> usize {
    let path = request.head.line.split(' ').nth(1).unwrap();
    path.rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_answer_comes_to_its_end() {
    let site = Site::start("").await;
    let clients = site.ask_each("").await;
    // The sockets are full by then, or a little later: whose answer is not gathered yet is not there as a whole.
    let _ = eventually(Duration::from_secs(1), || site.proxy.access_log().lines().count() == clients.len()).await;
    for (size, mut client) in clients {
        assert_eq!(client.read_response().await.unwrap().body.len(), size);
    }
}

#[tokio::test]
async fn what_a_stream_begins_with_comes_while_it_goes_on() {
    let site = Site::start("").await;
    let clients = site.ask_each("/events").await;
    assert!(eventually(DEADLINE, || site.app.requests().len() == clients.len()).await);
    for (size, mut client) in clients {
        client.read_until("\r\n\r\n").await.unwrap();
        client.read_until("\r\n").await.unwrap();
        client.read_exactly(size).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_end_of_its_answer_is_not_idle() {
    let site = Site::start("[timeouts]\nidle = \"1h\"\nresponse_body = \"1s\"\n").await;
    let mut client = site.ask(&format!("/{}", 4 * KIB * KIB)).await;
    assert!(site.is_left().await);
    let held = client.read_to_end().await.unwrap().len();
    let _more = [site.ask(&format!("/{}", held + STEP)).await, site.ask(&format!("/{}", held + 2 * STEP)).await];
    assert!(site.is_left().await);
}
