//! Upstreams that speak HTTP/2: streams shared, refused, cut; connections that go away.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::certs::Ca;
use crate::support::client::{self, Client};
use crate::support::files::Folder;
use crate::support::poll::{eventually, eventually_async};
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

const PATIENCE: Duration = Duration::from_secs(10);

/// What an app does with its `n`th request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// `METHOD AUTHORITY PATH: BODY`, after a while, with a trailer.
    Answer(Duration),
    Refuse,
    Reset,
    /// An answer of a known length; its end comes a while later, in a frame of its own, unless it is reset before.
    EndLate,
    /// Half of an answer, then a reset.
    BreakOff,
    /// Nothing at all.
    Hang,
    /// Answers, and takes no more requests on this connection.
    AnswerAndLeave,
    /// Reads and says nothing on this connection from here on, and keeps it open: as if the way to it were cut.
    FallSilent,
}

const ANSWER: Act = Act::Answer(Duration::ZERO);

#[derive(Clone)]
struct App {
    address: SocketAddr,
    /// Before the first word on a connection.
    pause: Duration,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    /// NO_ERROR of one that ended late and was not reset.
    resets: Arc<Mutex<Vec<Reason>>>,
    trailers: Arc<Mutex<Vec<String>>>,
}

impl App {
    async fn start(streams_max: u32, act: impl Fn(usize) -> Act + Send + Sync + Copy + 'static) -> Self {
        Self::start_slow(Duration::ZERO, streams_max, act).await
    }

    async fn start_slow(
        pause: Duration,
        streams_max: u32,
        act: impl Fn(usize) -> Act + Send + Sync + Copy + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = Self {
            address: listener.local_addr().unwrap(),
            pause,
            connections: Arc::default(),
            requests: Arc::default(),
            most_at_once: Arc::default(),
            resets: Arc::default(),
            trailers: Arc::default(),
        };
        let serving = app.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                serving.connections.fetch_add(1, SeqCst);
                tokio::spawn(serving.clone().serve(socket, streams_max, act));
            }
        });
        app
    }

    async fn serve(self, socket: tokio::net::TcpStream, streams_max: u32, act: impl Fn(usize) -> Act) {
        tokio::time::sleep(self.pause).await;
        let Ok(mut connection) = h2::server::Builder::new().max_concurrent_streams(streams_max).handshake(socket).await
        else {
            return;
        };
        let open = Arc::new(AtomicUsize::new(0));
        while let Some(accepted) = connection.accept().await {
            let Ok((request, mut respond)) = accepted else { return };
            let act = act(self.requests.fetch_add(1, SeqCst));
            match act {
                Act::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
                Act::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
                Act::FallSilent => std::future::pending().await,
                _ => {
                    if act == Act::AnswerAndLeave {
                        connection.graceful_shutdown();
                    }
                    self.most_at_once.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                    tokio::spawn(self.clone().answer(request, respond, act, Arc::clone(&open)));
                }
            }
        }
    }

    async fn answer(
        self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        act: Act,
        open: Arc<AtomicUsize>,
    ) {
        let (head, mut body) = request.into_parts();
        if act == Act::Hang {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            self.resets.lock().unwrap().extend(reason);
            return;
        }
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            let Ok(data) = data else { return };
            let _ = body.flow_control().release_capacity(data.len());
            bytes.extend_from_slice(&data);
        }
        if let Ok(Some(trailers)) = body.trailers().await {
            let lines = trailers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
            self.trailers.lock().unwrap().extend(lines);
        }
        if let Act::Answer(pause) = act {
            tokio::time::sleep(pause).await;
        }
        if act == Act::EndLate {
            let response = Response::builder().header("content-length", "4").body(()).unwrap();
            let mut sending = respond.send_response(response, false).unwrap();
            sending.send_data("body".into(), false).unwrap();
            let reset = std::future::poll_fn(|cx| sending.poll_reset(cx));
            let reset = tokio::time::timeout(Duration::from_millis(300), reset).await;
            self.resets.lock().unwrap().push(reset.map_or(Reason::NO_ERROR, |reset| reset.unwrap()));
            let _ = sending.send_data(Bytes::new(), true);
            return;
        }
        let authority = head.uri.authority().map_or("", |authority| authority.as_str());
        let text = format!("{} {authority} {}: {}", head.method, head.uri.path(), String::from_utf8_lossy(&bytes));
        let te = head.headers.get("te").map_or("", |te| te.to_str().unwrap());
        let response = Response::builder().header("x-te", te).header("trailer", "x-sum").body(()).unwrap();
        let Ok(mut sending) = respond.send_response(response, false) else { return };
        let _ = sending.send_data(text.into(), false);
        if act == Act::BreakOff {
            // A reset at once would overtake what was sent.
            tokio::time::sleep(Duration::from_millis(100)).await;
            return sending.send_reset(Reason::INTERNAL_ERROR);
        }
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
        let _ = sending.send_trailers(trailers);
        open.fetch_sub(1, SeqCst);
    }

    /// A proxy with one worker in front of it. Only `/slow` may take longer than a test likes to wait.
    async fn proxy(&self, upstream: &str) -> TestProxy {
        self.impatient_proxy("5s", upstream).await
    }

    async fn impatient_proxy(&self, response_head: &str, upstream: &str) -> TestProxy {
        let toml = format!(
            "[server]\nstate_dir = \"state\"\nworkers = 1\n[timeouts]\nresponse_head = \"{response_head}\"\n\
             [[route]]\nname = \"slow\"\npath = [\"/slow\"]\nupstream = \"app\"\n\
             [route.timeouts]\nresponse_head = \"60s\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
             [upstream.app]\nendpoints = [\"{}\"]\nhttp2 = true\n{upstream}\n",
            self.address
        );
        TestProxy::toml(toml).start().await
    }
}

/// So many requests at once; their statuses.
async fn at_once(proxy: &TestProxy, count: usize) -> Vec<u16> {
    let address = proxy.address();
    let asking = (0..count)
        .map(|number| tokio::spawn(async move { client::get(address, &format!("/{number}")).await.unwrap().status }));
    let mut statuses = Vec::new();
    for asked in asking.collect::<Vec<_>>() {
        statuses.push(asked.await.unwrap());
    }
    statuses
}

#[tokio::test]
async fn a_client_of_http1_reaches_it() {
    let app = App::start(100, |_| ANSWER).await;
    let proxy = app.proxy("").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let head = "Transfer-Encoding: chunked\r\nTrailer: x-check\r\nTE: trailers\r\nConnection: te\r\n";
    client.request("POST", "/a?b", head).await.unwrap();
    client.send("5\r\nhello\r\n0\r\nx-check: 3\r\n\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("x-te")), (200, Some("trailers")));
    assert!(answer.text().starts_with("POST ") && answer.text().ends_with(" /a: hello"), "{}", answer.text());
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())], "trailers come back");
    assert_eq!(*app.trailers.lock().unwrap(), ["x-check: 3"], "and go there");
    assert_eq!(client.get("/again").await.unwrap().status, 200, "the client's connection lives on");
    assert_eq!(app.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn requests_share_one_connection() {
    let app = App::start(100, |_| Act::Answer(Duration::from_millis(100))).await;
    let proxy = app.proxy("").await;
    assert_eq!(at_once(&proxy, 50).await, [200; 50]);
    assert_eq!(app.connections.load(SeqCst), 1);
    assert!(app.most_at_once.load(SeqCst) > 10, "{}", app.most_at_once.load(SeqCst));
}

#[tokio::test]
async fn no_more_streams_are_opened_than_the_app_allows() {
    let app = App::start(4, |_| Act::Answer(Duration::from_millis(20))).await;
    let proxy = app.proxy("").await;
    assert_eq!(at_once(&proxy, 40).await, [200; 40]);
    assert!(app.most_at_once.load(SeqCst) <= 4);
    let connections = app.connections.load(SeqCst);
    assert!((2..=10).contains(&connections), "{connections}");
}

/// One after the other they would take ten seconds, and `timeouts.connect` are three.
#[tokio::test]
async fn connections_are_made_at_once_where_each_takes_few_streams() {
    let app = App::start_slow(Duration::from_millis(500), 1, |_| Act::Answer(Duration::from_secs(1))).await;
    let proxy = app.proxy("").await;
    assert_eq!(at_once(&proxy, 20).await, [200; 20]);
    assert!(app.connections.load(SeqCst) > 1);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_whatever_its_method() {
    let app = App::start(100, |number| if number % 3 == 0 { Act::Refuse } else { ANSWER }).await;
    let proxy = app.proxy("").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for number in 0..10 {
        let answer = client.post("/order", format!("number {number}")).await.unwrap();
        assert_eq!(answer.status, 200, "{number}");
        assert!(answer.text().ends_with(&format!(": number {number}")), "{}", answer.text());
    }
    assert!(app.requests.load(SeqCst) > 10);
}

#[tokio::test]
async fn connections_that_go_away_cost_no_request() {
    let app = App::start(100, |number| if number % 5 == 4 { Act::AnswerAndLeave } else { ANSWER }).await;
    let proxy = app.proxy("").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for number in 0..100 {
        assert_eq!(client.post("/", "x").await.unwrap().status, 200, "{number}");
    }
    for _ in 0..10 {
        assert_eq!(at_once(&proxy, 10).await, [200; 10]);
    }
    assert!(app.connections.load(SeqCst) > 5);
}

#[tokio::test]
async fn a_reset_is_that_requests_failure_alone() {
    let app = App::start(100, |number| match number {
        1 => Act::Reset,
        3 => Act::BreakOff,
        _ => ANSWER,
    })
    .await;
    let proxy = app.proxy("[upstream.app.retry]\nattempts = 0\n").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let reset = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((reset.status, reset.header("flagstone-reason")), (502, Some("upstream_error")));
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    client::get(proxy.address(), "/").await.expect_err("an answer without its end");
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    assert_eq!(app.connections.load(SeqCst), 1, "the connection is not to blame");
}

/// A client of HTTP/1 has its answer with the last byte. To the app a reset would say that nobody wanted it.
#[tokio::test]
async fn an_answer_whose_end_comes_late_is_not_reset() {
    let app = App::start(100, |_| Act::EndLate).await;
    let proxy = app.proxy("max_in_flight = 1\n").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/").await.unwrap().text(), "body", "nobody waits for that end");
    }
    assert!(eventually(PATIENCE, || app.resets.lock().unwrap().len() == 3).await);
    assert_eq!(*app.resets.lock().unwrap(), [Reason::NO_ERROR; 3]);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_stream_along() {
    let app = App::start(100, |_| Act::Hang).await;
    let proxy = app.proxy("").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    assert!(eventually(PATIENCE, || app.requests.load(SeqCst) == 1).await);
    drop(client);
    assert!(eventually(PATIENCE, || *app.resets.lock().unwrap() == [Reason::CANCEL]).await);
}

/// Over HTTP/1 each time-out closes its connection.
#[tokio::test]
async fn a_connection_that_fell_silent_gets_no_more_requests() {
    let app = App::start(100, |number| if number == 1 { Act::FallSilent } else { ANSWER }).await;
    let proxy = app.impatient_proxy("2s", "").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let late = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((late.status, late.header("flagstone-reason")), (504, Some("upstream_timeout")));
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    assert_eq!(app.connections.load(SeqCst), 2);
}

/// Clients of gRPC have time limits of their own.
#[tokio::test]
async fn nor_does_one_that_was_silent_until_its_client_left() {
    let app = App::start(100, |number| if number == 1 { Act::FallSilent } else { ANSWER }).await;
    let proxy = app.proxy("").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/slow", "").await.unwrap();
    assert!(eventually(PATIENCE, || app.requests.load(SeqCst) == 2).await);
    drop(client);
    let heard = eventually_async(PATIENCE, async || {
        let asked = tokio::time::timeout(Duration::from_secs(1), client::get(proxy.address(), "/slow"));
        asked.await.is_ok_and(|answer| answer.unwrap().status == 200)
    });
    assert!(heard.await);
    assert!(app.connections.load(SeqCst) > 1);
}

#[tokio::test]
async fn a_request_that_takes_too_long_costs_its_neighbours_nothing() {
    let app = App::start(100, |number| match number {
        0 => Act::Answer(Duration::from_secs(4)),
        1 => Act::Hang,
        _ => ANSWER,
    })
    .await;
    let proxy = app.impatient_proxy("2s", "").await;
    let address = proxy.address();
    let slow = tokio::spawn(async move { client::get(address, "/slow").await.unwrap().status });
    assert!(eventually(PATIENCE, || app.requests.load(SeqCst) == 1).await);
    assert_eq!(client::get(address, "/").await.unwrap().status, 504);
    assert_eq!(client::get(address, "/").await.unwrap().status, 200);
    assert_eq!(slow.await.unwrap(), 200);
}

#[tokio::test]
async fn a_connection_on_which_others_are_answered_is_not_to_blame() {
    let app = App::start(100, |number| if number == 0 { Act::Hang } else { ANSWER }).await;
    let proxy = app.impatient_proxy("2s", "").await;
    let address = proxy.address();
    let late = tokio::spawn(async move { client::get(address, "/").await.unwrap().status });
    assert!(eventually(PATIENCE, || app.requests.load(SeqCst) == 1).await);
    assert_eq!(client::get(address, "/").await.unwrap().status, 200);
    assert_eq!(late.await.unwrap(), 504);
    assert_eq!(client::get(address, "/").await.unwrap().status, 200);
    assert_eq!(app.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn health_checks_speak_it_too() {
    let app = App::start(100, |_| ANSWER).await;
    let proxy = app.proxy("[upstream.app.health]\npath = \"/health\"\ninterval = \"50ms\"\n").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    assert!(eventually(PATIENCE, || app.requests.load(SeqCst) > 3).await);
}

#[tokio::test]
async fn connections_left_alone_are_closed() {
    let app = App::start(100, |_| ANSWER).await;
    let proxy = app.proxy("idle_timeout = \"200ms\"\n").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let mut again = 1;
    let closed = eventually_async(PATIENCE, async || {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
        again += 1;
        app.connections.load(SeqCst) > 1
    });
    assert!(closed.await, "{again} requests on one connection");
}

#[tokio::test]
async fn an_app_that_speaks_http1_only_is_no_such_app() {
    let upstream = FakeUpstream::http1().route("*", "hello").start().await;
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\nhttp2 = true\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).start().await;
    let answer = client::get(proxy.address(), "/").await.unwrap();
    assert!([502, 504].contains(&answer.status), "{answer:?}");
    assert_eq!(answer.header("flagstone-reason"), Some("connect_failed"));
}

#[tokio::test]
async fn over_tls_the_app_must_agree() {
    let (ca, folder) = (Ca::new(), Folder::new());
    let leaf = ca.leaf(&["localhost"]);
    folder.write("ca.pem", ca.pem());
    let upstream = FakeUpstream::http1().route("*", "hello").tls(leaf.server_config(&[b"http/1.1"])).start().await;
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\nhttp2 = true\n\
         tls = {{ enabled = true, server_name = \"localhost\", ca = \"ca.pem\" }}\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let answer = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (502, Some("connect_failed")));
}

#[tokio::test]
async fn tcp_tls_and_http_have_one_time_to_connect() {
    let (ca, folder) = (Ca::new(), Folder::new());
    let tls = TlsAcceptor::from(ca.leaf(&["localhost"]).server_config(&[b"h2"]));
    folder.write("ca.pem", ca.pem());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Shakes hands late, and then says nothing.
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1800)).await;
        let mut socket = tls.accept(socket).await.unwrap();
        while socket.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
    });
    let toml = format!(
        "[timeouts]\nconnect = \"2s\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\n\
         endpoints = [\"{address}\"]\nhttp2 = true\nretry = {{ attempts = 0 }}\n\
         tls = {{ enabled = true, server_name = \"localhost\", ca = \"ca.pem\" }}\n"
    );
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let began = Instant::now();
    let answer = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (504, Some("connect_failed")));
    let took = began.elapsed();
    // From the handshake on it would be 3.8 s.
    assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(3_700), "{took:?}");
}
