//! What is sent again, what is not, and to whom.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::support::admin;
use crate::support::client;
use crate::support::client::Client;
use crate::support::poll::eventually_async;
use crate::support::proxy::{TestProxy, in_turn as to};
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

const QUIET: &str = "[upstream.app.ejection]\nfailures = 0\n[upstream.app.breaker]\nenabled = false\n";

fn with_retry(retry: &str) -> String {
    format!("{QUIET}[upstream.app.retry]\n{retry}")
}

/// Dies before an answer on the first `count` requests, then answers.
fn dies_first(count: usize, death: Step, body: &'static str) -> Reply {
    let left = std::sync::atomic::AtomicUsize::new(count);
    Reply::answer(move |_| {
        use std::sync::atomic::Ordering::SeqCst;
        let dies = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if dies { Reply::default().then(death.clone()) } else { Reply::ok(body) }
    })
}

#[tokio::test]
async fn a_lone_endpoint_gets_the_second_try_itself() {
    let app = FakeUpstream::http1().route("/", dies_first(1, Step::Reset, "at last")).start().await;
    let proxy = TestProxy::toml(to(&[&app], QUIET)).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "at last");
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn no_more_attempts_than_configured() {
    for attempts in [0, 1, 3] {
        let app = FakeUpstream::http1().route("/", Reply::reset()).start().await;
        let proxy = TestProxy::toml(to(&[&app], &with_retry(&format!("attempts = {attempts}\n")))).start().await;
        let response = client::get(proxy.address(), "/").await.unwrap();
        assert_eq!((response.status, response.header("flagstone-reason")), (502, Some("upstream_error")));
        assert_eq!(app.requests().len(), attempts + 1);
    }
}

#[tokio::test]
async fn a_post_that_may_have_been_read_is_not_sent_again() {
    let bad = FakeUpstream::http1().route("/", Reply::reset()).start().await;
    let good = FakeUpstream::http1().route("/", "good").start().await;
    let proxy = TestProxy::toml(to(&[&bad, &good], &with_retry("attempts = 3\n"))).start().await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        statuses.push(client.post("/", "order").await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
    assert_eq!((bad.requests().len(), good.requests().len()), (2, 2));
}

#[tokio::test]
async fn listed_statuses_are_tried_elsewhere_and_the_last_answer_stands() {
    let bad = FakeUpstream::http1().route("*", Reply::status(503, "bad")).start().await;
    let good = FakeUpstream::http1().route("/", "good").route("/b", Reply::status(504, "b")).start().await;
    let proxy = TestProxy::toml(to(&[&bad, &good], &with_retry("on = [\"502-504\"]\n"))).start().await;
    for _ in 0..4 {
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "good");
    }
    assert!((1..=4).contains(&bad.requests().len()));
    let last = client::get(proxy.address(), "/b").await.unwrap();
    assert!([503, 504].contains(&last.status));
    assert_eq!(last.header("flagstone-reason"), None);
    // POST may have been carried out.
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let (first, second) = (client.post("/", "x").await.unwrap(), client.post("/", "x").await.unwrap());
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

#[tokio::test]
async fn the_last_answer_stands_though_others_wait_for_its_place() {
    let app = FakeUpstream::http1().route("/bad", Reply::status(502, "its page")).route("/", "well").start().await;
    let rules =
        "max_in_flight = 1\n[upstream.app.retry]\non = [\"502-504\"]\n[upstream.app.breaker]\nenabled = false\n";
    let proxy = TestProxy::toml(to(&[&app], rules)).start().await;
    let address = proxy.address();
    let others = tokio::spawn(async move {
        let mut client = Client::connect(address).await.unwrap();
        loop {
            client.get("/").await.unwrap();
        }
    });
    let (mut client, mut answered) = (Client::connect(address).await.unwrap(), 0);
    for _ in 0..60 {
        let answer = client.get("/bad").await.unwrap();
        match answer.status {
            502 => {
                assert_eq!(answer.text(), "its page");
                answered += 1;
            }
            // There was no place to begin with.
            _ => assert_eq!(answer.header("flagstone-reason"), Some("no_endpoint")),
        }
    }
    others.abort();
    let asked = app.requests().iter().filter(|request| request.head.line.starts_with("GET /bad ")).count();
    assert!(answered > 0, "there was never a place");
    assert_eq!(asked, 2 * answered, "an answer was lost between two tries");
}

/// An app that answers with `reply` as told, and a proxy for which no answer of 503 is good enough.
struct Ailing {
    app: FakeUpstream,
    proxy: TestProxy,
    word: Arc<Notify>,
}

impl Ailing {
    async fn start(reply: Reply, extra: &str) -> Self {
        let word = Arc::new(Notify::new());
        let app = FakeUpstream::http1().route("/", reply.at(&word)).route("/health", "well").start().await;
        let health = "[upstream.app.health]\npath = \"/health\"\ninterval = \"50ms\"\nunhealthy_after = 1\n";
        let rules = format!("{extra}{}{health}", with_retry("on = [\"503\"]\n"));
        let proxy = TestProxy::toml(to(&[&app], &rules)).start().await;
        let ailing = Self { app, proxy, word };
        ailing.becomes(1).await;
        ailing
    }

    /// Its request is there: its checks fail, and then it answers.
    async fn answers(&self) {
        self.falls_ill(1).await;
        self.word.notify_one();
    }

    /// So many requests are there, and its checks fail.
    async fn falls_ill(&self, requests: usize) {
        assert!(eventually_async(Duration::from_secs(10), async || self.requests() == requests).await);
        self.app.set_route("/health", Reply::status(500, "ill"));
        self.becomes(0).await;
    }

    async fn becomes(&self, health: u8) {
        let (admin, endpoint) = (self.proxy.admin(), self.app.endpoint());
        let line = format!("flagstone_endpoint_healthy{{upstream=\"app\",endpoint=\"{endpoint}\"}} {health}");
        let told = async || admin::metrics(admin).await.contains(&line);
        assert!(eventually_async(Duration::from_secs(10), told).await);
    }

    fn requests(&self) -> usize {
        self.app.requests().iter().filter(|request| request.head.line.contains(" / ")).count()
    }
}

#[tokio::test]
async fn the_last_answer_stands_when_a_wait_for_another_was_in_vain() {
    let ailing = Ailing::start(Reply::status(503, "its page"), "hold = \"300ms\"\n").await;
    let mut client = Client::connect(ailing.proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    ailing.answers().await;
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.text().as_str(), answer.header("flagstone-reason")), ("its page", None));
}

/// Others may have the place of one that waits in vain.
#[tokio::test]
async fn an_answer_that_is_kept_holds_no_place() {
    let ailing = Ailing::start(Reply::status(503, "its page"), "hold = \"20s\"\nmax_in_flight = 1\n").await;
    let mut client = Client::connect(ailing.proxy.address()).await.unwrap();
    client.request("GET", "/", "").await.unwrap();
    ailing.answers().await;
    ailing.app.set_route("/", "well");
    ailing.app.set_route("/health", "well");
    assert_eq!(client.read_response().await.unwrap().text(), "well");
}

/// There is place for three further tries at a time.
#[tokio::test]
async fn what_waits_for_an_endpoint_leaves_the_budget_to_others() {
    let ailing = Ailing::start(Reply::status(503, "its page"), "hold = \"20s\"\n").await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(ailing.proxy.address()).await.unwrap();
        client.request("GET", "/", "").await.unwrap();
        clients.push(client);
    }
    ailing.falls_ill(clients.len()).await;
    ailing.app.set_route("/", "well");
    for _ in &clients {
        ailing.word.notify_one();
        // Longer than the pause before a further try, which has its place then.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ailing.app.set_route("/health", "well");
    let mut answers = Vec::new();
    for client in &mut clients {
        answers.push(client.read_response().await.unwrap().text());
    }
    assert!(answers.iter().filter(|answer| *answer == "well").count() > 3, "{answers:?}");
}

#[tokio::test]
async fn the_last_answer_stands_with_the_upload_behind_it() {
    let begun = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10\r\n\r\nfirst".to_vec();
    let early = Reply::default().then(Step::Send(begun)).then(Step::ReadBody).then(Step::Send(b"later".to_vec()));
    let ailing = Ailing::start(early, "").await;
    let mut client = Client::connect(ailing.proxy.address()).await.unwrap();
    client.request("PUT", "/", "Content-Length: 10\r\n").await.unwrap();
    client.send("01234").await.unwrap();
    ailing.answers().await;
    assert_eq!(client.read_head_response().await.unwrap().status, 503);
    client.send("56789").await.unwrap();
    assert_eq!(client.read_exactly(10).await.unwrap(), b"firstlater");
    let requests = ailing.app.requests();
    let request = requests.iter().find(|request| request.head.line.contains(" / ")).unwrap();
    assert_eq!(request.body, b"0123456789");
}

#[tokio::test]
async fn a_body_within_max_replay_is_sent_again_whole() {
    let body = "0123456789".repeat(2000);
    let bad = FakeUpstream::http1().route("/", Reply::answer(|_| Reply::reset())).start().await;
    let good = FakeUpstream::http1().route("/", Reply::echo_body()).start().await;
    let proxy = TestProxy::toml(to(&[&bad, &good], &with_retry("max_replay = \"20000\"\n"))).start().await;
    for _ in 0..2 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("PUT", "/", &format!("Content-Length: {}\r\n", body.len())).await.unwrap();
        client.send(&body).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().text(), body);
    }
    assert_eq!(bad.requests()[0].body, body.as_bytes());
    assert!(good.requests().iter().all(|request| request.body == body.as_bytes()));
    assert_eq!(good.requests()[0].head.header("content-length"), Some("20000"));
}

#[tokio::test]
async fn a_body_that_still_comes_goes_on_at_the_other_endpoint() {
    // Dies as soon as it has the head and the first piece.
    let bad = FakeUpstream::http1().route("/", Reply::reset()).start().await;
    let good = FakeUpstream::http1().route("/", Reply::echo_body()).start().await;
    let proxy = TestProxy::toml(to(&[&bad, &good], QUIET)).start().await;
    for _ in 0..2 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("PUT", "/", "Transfer-Encoding: chunked\r\n").await.unwrap();
        client.send("5\r\nfirst\r\n").await.unwrap();
        let seen = good.connections() + bad.connections();
        let moved = || good.connections() + bad.connections() > seen || good.connections() > 0;
        let _: bool = crate::support::poll::eventually(Duration::from_secs(5), moved).await;
        client.send("6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(client.read_response().await.unwrap().text(), "firstsecond");
    }
    assert_eq!(good.requests().len(), 2);
}

#[tokio::test]
async fn a_body_beyond_max_replay_is_sent_once() {
    let bad = FakeUpstream::http1().route("/", Reply::answer(|_| Reply::reset())).start().await;
    let good = FakeUpstream::http1().route("/", Reply::echo_body()).start().await;
    let proxy = TestProxy::toml(to(&[&bad, &good], &with_retry("max_replay = \"10\"\n"))).start().await;
    for (length, chunked) in [(11, false), (11, true)] {
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let mut client = Client::connect(proxy.address()).await.unwrap();
            let body = "x".repeat(length);
            if chunked {
                client.request("PUT", "/", "Transfer-Encoding: chunked\r\n").await.unwrap();
                client.send(format!("{length:x}\r\n{body}\r\n0\r\n\r\n")).await.unwrap();
            } else {
                client.request("PUT", "/", &format!("Content-Length: {length}\r\n")).await.unwrap();
                client.send(&body).await.unwrap();
            }
            statuses.push(client.read_response().await.unwrap().status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502], "chunked: {chunked}");
    }
}

#[tokio::test]
async fn nothing_is_tried_again_once_the_head_went_downstream() {
    let bad = FakeUpstream::http1().route("/", Reply::truncated(100, "half")).start().await;
    let good = FakeUpstream::http1().route("/", "good").start().await;
    let proxy = TestProxy::toml(to(&[&bad, &good], &with_retry("attempts = 3\n"))).start().await;
    let (mut broken, mut whole) = (0, 0);
    for _ in 0..4 {
        match client::get(proxy.address(), "/").await {
            Ok(response) if response.text() == "good" => whole += 1,
            _ => broken += 1,
        }
    }
    assert_eq!((broken, whole), (2, 2));
    assert_eq!((bad.requests().len(), good.requests().len()), (2, 2));
}

#[tokio::test]
async fn a_kept_connection_that_is_reset_costs_no_attempt() {
    let app = FakeUpstream::http1().route("/", "hello").reset_after_requests(1).start().await;
    let proxy = TestProxy::toml(to(&[&app], &with_retry("attempts = 0\n"))).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..5 {
        assert_eq!(client.get("/").await.unwrap().text(), "hello");
    }
    assert_eq!(app.connections(), 5);
}

/// It may be the request that the app dies of: then it is not to take along every connection there is.
#[tokio::test]
async fn a_request_at_which_the_app_closes_meets_few_kept_connections() {
    let garbage = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx";
    let app = FakeUpstream::http1().route("/closes", Reply::close()).route("/garbage", Reply::raw(garbage));
    let app = app.route("/", Reply::ok("fine").after(Duration::from_millis(300))).start().await;
    let proxy = TestProxy::toml(to(&[&app], &with_retry("attempts = 1\n"))).start().await;
    let address = proxy.address();
    // Each try may cost a kept connection and a new one; what was answered is a failure, whatever the connection.
    for (path, sent_max) in [("/closes", 4), ("/garbage", 2)] {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..20 {
            clients.spawn(async move { client::get(address, "/").await.unwrap().status });
        }
        assert_eq!(clients.join_all().await, [200; 20]);
        let before = app.requests().len();
        assert_eq!(client::get(address, path).await.unwrap().status, 502);
        let sent = app.requests().len() - before;
        assert!((2..=sent_max).contains(&sent), "{path}: {sent}");
    }
}

#[tokio::test]
async fn refusals_cost_no_attempt_while_an_endpoint_is_left() {
    let gone = [FakeUpstream::http1().start().await, FakeUpstream::http1().start().await];
    for app in &gone {
        app.stop().await;
    }
    let good = FakeUpstream::http1().route("*", "good").start().await;
    let all = [&gone[0], &gone[1], &good];
    let once = TestProxy::toml(to(&all, QUIET)).start().await;
    for _ in 0..9 {
        let mut client = Client::connect(once.address()).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().text(), "good");
        assert_eq!(client.post("/", "order").await.unwrap().text(), "good");
    }
    assert_eq!(good.requests().len(), 18);
    // Who wants no further try gets none.
    let never = TestProxy::toml(to(&all, &with_retry("attempts = 0\n"))).start().await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client::get(never.address(), "/").await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502, 502]);
    // All are gone: each is tried, and the answer is the refusal.
    good.stop().await;
    let refused = client::get(once.address(), "/").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (502, Some("connect_failed")));
}

#[tokio::test]
async fn of_many_endpoints_that_refuse_not_all_are_tried() {
    let gone: Vec<_> = (1..=30).map(|number| format!("\"127.0.1.{number}:1\"")).collect();
    let proxy = TestProxy::toml(format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [{}]\n{QUIET}",
        gone.join(", ")
    ));
    let proxy = proxy.start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 502);
    let scrape = admin::metrics(proxy.admin()).await;
    assert!(scrape.contains("\nflagstone_retries_total{upstream=\"app\"} 17\n"), "sixteen, and the attempt: {scrape}");
}

#[tokio::test]
async fn the_budget_bounds_retries_under_load() {
    let app = FakeUpstream::http1().route("/", Reply::reset().after(Duration::from_millis(100))).start().await;
    let proxy = TestProxy::toml(to(&[&app], &with_retry("attempts = 10\nbudget = 0.0\n"))).start().await;
    let mut clients = tokio::task::JoinSet::new();
    let address = proxy.address();
    for _ in 0..40 {
        clients.spawn(async move { client::get(address, "/").await.unwrap().status });
    }
    let statuses = clients.join_all().await;
    assert!(statuses.iter().all(|status| *status == 502), "{statuses:?}");
    // 3 at a time, and all but 3 give up at their first failure.
    let retries = app.requests().len() - 40;
    assert!((1..=60).contains(&retries), "{retries} retries");
}

/// Takes a request's head and all of its body that comes, and answers before the rest.
fn answering_behind(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        socket.read_exact(&mut vec![0; bytes]).unwrap();
        socket.write_all(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n").unwrap();
        let _ = socket.read(&mut byte);
    });
    address
}

/// Accepts, and takes no more than a socket does by itself.
fn taking_nothing() -> (SocketAddr, socket2::Socket) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.set_recv_buffer_size(4096).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(8).unwrap();
    (listener.local_addr().unwrap().as_socket().unwrap(), listener)
}

#[tokio::test]
async fn whoever_takes_nothing_of_a_further_try_is_late() {
    const SENT: usize = 8 * 1024 * 1024;
    let (first, (second, _listener)) = (answering_behind(SENT), taking_nothing());
    let toml = format!(
        "[timeouts]\nresponse_head = \"500ms\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\n\
         endpoints = [\"{first}\", {{ address = \"{second}\", backup = true }}]\n{QUIET}\
         [upstream.app.retry]\non = [\"503\"]\nmax_replay = \"16MiB\"\n"
    );
    let proxy = TestProxy::toml(toml).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("PUT", "/", &format!("Content-Length: {}\r\n", SENT + 1)).await.unwrap();
    client.send(vec![0; SENT]).await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (504, Some("upstream_timeout")));
}
