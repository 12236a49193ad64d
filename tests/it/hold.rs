//! An app that is away for a while: requests wait for it, in order and bounded, and go on when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::admin;
use crate::support::certs::Ca;
use crate::support::client::{self, Client};
use crate::support::files::Folder;
use crate::support::h2::{Http2, frame, kind};
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::port::Port;
use crate::support::process::{Flagstone, Process, Signal};
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::{FakeUpstream, OnAccept};

const DEADLINE: Duration = Duration::from_secs(20);

fn to(endpoint: &str, extra: &str) -> String {
    format!("[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{endpoint}\"]\n{extra}")
}

#[tokio::test]
async fn an_app_that_starts_late_costs_no_error() {
    let app = FakeUpstream::http1().route("*", "up").delay_listen(Duration::from_millis(800)).start().await;
    let proxy = TestProxy::toml(to(&app.endpoint(), "hold = \"15s\"\n")).start().await;
    let mut clients = tokio::task::JoinSet::new();
    let address = proxy.address();
    for number in 0..50 {
        clients.spawn(async move {
            let mut client = Client::connect(address).await.unwrap().deadline(DEADLINE);
            // POST as well: nothing was sent while it waited.
            match number % 2 {
                0 => client.get("/").await.unwrap().text(),
                _ => client.post("/", "order").await.unwrap().text(),
            }
        });
    }
    let answers = clients.join_all().await;
    assert!(answers.iter().all(|answer| answer == "up"), "{answers:?}");
    assert_eq!(app.requests().len(), 50);
    let breakers = admin::json(proxy.admin(), "/api/status/circuit-breakers").await;
    assert_eq!(breakers["circuitBreakers"]["app"]["statistics"]["failedCalls"], 0);
    assert_eq!(breakers["circuitBreakers"]["app"]["state"], "CLOSED");
}

#[tokio::test]
async fn an_app_that_stays_away_is_given_up() {
    let app = FakeUpstream::http1().start().await;
    app.stop().await;
    let proxy = TestProxy::toml(to(&app.endpoint(), "hold = \"300ms\"\n")).start().await;
    let asked = Instant::now();
    let response = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((response.status, response.header("flagstone-reason")), (502, Some("connect_failed")));
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn held_requests_that_cannot_connect_leave_the_breaker_alone() {
    let authority = Ca::new();
    let app = FakeUpstream::http1().route("/", "well").tls(authority.leaf(&["app"]).server_config(&[]));
    let app = app.on_accept(OnAccept::Blackhole).start().await;
    let held = to(&app.endpoint(), "hold = \"1s\"\ntls = { enabled = true, insecure = true }\n");
    let proxy = TestProxy::toml(format!("[timeouts]\nconnect = \"300ms\"\n{held}")).start().await;
    let (mut clients, address) = (tokio::task::JoinSet::new(), proxy.address());
    for _ in 0..6 {
        clients.spawn(async move { client::get(address, "/").await.unwrap().status });
    }
    assert_eq!(clients.join_all().await, [504; 6]);
    app.set_on_accept(OnAccept::Serve);
    // What was tried meanwhile may still be waiting for its handshake.
    let is_well = async || client::get(address, "/").await.unwrap().text() == "well";
    assert!(eventually_async(DEADLINE, is_well).await);
    let breakers = admin::json(proxy.admin(), "/api/status/circuit-breakers").await;
    let breaker = &breakers["circuitBreakers"]["app"];
    assert_eq!((&breaker["state"], &breaker["statistics"]["failedCalls"]), (&"CLOSED".into(), &0.into()), "{breaker}");
}

#[tokio::test]
async fn without_hold_a_refusal_is_answered_at_once() {
    let app = FakeUpstream::http1().start().await;
    app.stop().await;
    let proxy = TestProxy::toml(to(&app.endpoint(), "")).start().await;
    let response = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((response.status, response.header("flagstone-reason")), (502, Some("connect_failed")));
}

#[tokio::test]
async fn a_held_client_that_leaves_is_forgotten() {
    let app = FakeUpstream::http1().route("*", "up").start().await;
    app.stop().await;
    let proxy = TestProxy::toml(to(&app.endpoint(), "hold = \"30s\"\n")).start().await;
    let mut leaving = Client::connect(proxy.address()).await.unwrap();
    leaving.request("GET", "/left", "").await.unwrap();
    let mut staying = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
    staying.request("GET", "/stayed", "").await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    while !admin::metrics(proxy.admin()).await.contains("flagstone_in_flight{route=\"all\"} 2") {
        assert!(Instant::now() < deadline, "the requests never arrived");
    }
    leaving.reset();
    let is_logged = || proxy.access_log().contains("\"GET /left HTTP/1.1\" 499");
    assert!(eventually(DEADLINE, is_logged).await, "{}", proxy.access_log());
    app.restart().await;
    assert_eq!(staying.read_response().await.unwrap().text(), "up");
    let lines: Vec<_> = app.requests().iter().map(|request| request.head.line.clone()).collect();
    assert_eq!(lines, ["GET /stayed HTTP/1.1"]);
}

#[tokio::test]
async fn a_held_client_that_leaves_with_its_body_unread_is_forgotten() {
    let app = FakeUpstream::http1().route("*", "up").start().await;
    app.stop().await;
    let proxy = TestProxy::toml(to(&app.endpoint(), "hold = \"30s\"\n")).start().await;
    let mut leaving = Vec::new();
    // Some of it came with the head, or none; then the half of it, or all.
    for (with_head, behind) in
        [("12345", ""), ("", ""), ("", "12345"), ("12", "345"), ("", "1234567890"), ("1", "234567890")]
    {
        for reset in [true, false] {
            let mut client = Client::connect(proxy.address()).await.unwrap();
            let head = "POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
            client.send(format!("{head}{with_head}")).await.unwrap();
            leaving.push((client, behind, reset));
        }
    }
    let (count, deadline) = (leaving.len(), Instant::now() + DEADLINE);
    while !admin::metrics(proxy.admin()).await.contains(&format!("flagstone_in_flight{{route=\"all\"}} {count}\n")) {
        assert!(Instant::now() < deadline, "the requests never arrived");
    }
    for (mut client, behind, reset) in leaving {
        client.send(behind).await.unwrap();
        if reset {
            client.reset();
        }
    }
    let are_logged = || proxy.access_log().matches("\"POST /left HTTP/1.1\" 499").count() == count;
    assert!(eventually(DEADLINE, are_logged).await, "{}", proxy.access_log());
    app.restart().await;
    assert_eq!(client::get(proxy.address(), "/stayed").await.unwrap().text(), "up");
    let lines: Vec<_> = app.requests().iter().map(|request| request.head.line.clone()).collect();
    assert_eq!(lines, ["GET /stayed HTTP/1.1"]);
}

#[tokio::test]
async fn a_full_endpoint_takes_the_next_when_one_is_done() {
    let app = FakeUpstream::http1().route("*", Reply::ok("done").after(Duration::from_millis(20))).start().await;
    let proxy = TestProxy::toml(to(&app.endpoint(), "hold = \"20s\"\nmax_in_flight = 2\n")).start().await;
    let mut clients = tokio::task::JoinSet::new();
    let address = proxy.address();
    for _ in 0..40 {
        clients.spawn(async move {
            let mut client = Client::connect(address).await.unwrap().deadline(DEADLINE);
            client.get("/").await.unwrap().text()
        });
    }
    assert!(clients.join_all().await.iter().all(|answer| answer == "done"));
    assert!(app.connections() <= 4, "{} connections for 2 in flight", app.connections());
}

#[tokio::test]
async fn an_app_that_takes_long_keeps_nobody_waiting_behind_it() {
    let app = FakeUpstream::http1().route("/poll", Reply::hang()).route("/", "up").start().await;
    app.stop().await;
    let proxy = TestProxy::toml(to(&app.endpoint(), "hold = \"60s\"\n")).start().await;
    let mut polling = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/poll", "").await.unwrap();
        polling.push(client);
    }
    let are_held = async || admin::metrics(proxy.admin()).await.contains("flagstone_in_flight{route=\"all\"} 40\n");
    assert!(eventually_async(DEADLINE, are_held).await);
    app.restart().await;
    for _ in 0..3 {
        let mut client = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
        assert_eq!(client.get("/").await.unwrap().text(), "up");
    }
    let polls = || app.requests().iter().filter(|request| request.head.line.starts_with("GET /poll ")).count();
    assert!(eventually(DEADLINE, || polls() == 40).await, "{} of 40 were let go", polls());
}

#[tokio::test]
async fn what_goes_down_with_an_app_counts_once_for_the_breaker() {
    let app = FakeUpstream::http1().route("/order", Reply::hang()).route("/", "up").start().await;
    let rules = "hold = \"60s\"\n[upstream.app.breaker]\nfailures = 2\n";
    let proxy = TestProxy::toml(to(&app.endpoint(), rules)).start().await;
    let mut ordering = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
        client.send("POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none").await.unwrap();
        ordering.push(client);
    }
    assert!(eventually(DEADLINE, || app.requests().len() == 8).await);
    app.stop().await;
    for client in &mut ordering {
        assert_eq!(client.read_response().await.unwrap().status, 502, "it may have been carried out");
    }
    app.restart().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "up");
    let breakers = admin::json(proxy.admin(), "/api/status/circuit-breakers").await;
    assert_eq!(breakers["circuitBreakers"]["app"]["statistics"]["failedCalls"], 1, "{breakers}");
}

#[tokio::test]
async fn who_waits_when_maintenance_begins_is_told_of_it() {
    let app = FakeUpstream::http1().route("*", "up").start().await;
    app.stop().await;
    let held = to(&app.endpoint(), "hold = \"60s\"\n[maintenance]\nflag = \"on.flag\"\n");
    let proxy = TestProxy::toml(held).start().await;
    let mut waiting = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
    waiting.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\norder").await.unwrap();
    let is_held = async || admin::metrics(proxy.admin()).await.contains("flagstone_in_flight{route=\"all\"} 1\n");
    assert!(eventually_async(DEADLINE, is_held).await);
    proxy.folder.touch("state/on.flag");
    let is_on = async || admin::json(proxy.admin(), "/api/maintenance/status").await["is_active"] == true;
    assert!(eventually_async(DEADLINE, is_on).await);
    app.restart().await;
    let answer = waiting.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (503, Some("maintenance")));
    assert!(app.requests().is_empty(), "the app was sent something new");
}

#[tokio::test]
async fn who_waits_in_vain_while_maintenance_begins_is_told_of_it() {
    let app = FakeUpstream::http1().start().await;
    app.stop().await;
    let held = to(&app.endpoint(), "hold = \"4s\"\n[maintenance]\nflag = \"on.flag\"\n");
    let proxy = TestProxy::toml(held).start().await;
    let mut waiting = Vec::new();
    for method in ["GET", "POST", "GET"] {
        let mut client = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
        client.request(method, "/", "").await.unwrap();
        waiting.push(client);
    }
    let are_held = async || admin::metrics(proxy.admin()).await.contains("flagstone_in_flight{route=\"all\"} 3\n");
    assert!(eventually_async(DEADLINE, are_held).await);
    proxy.folder.touch("state/on.flag");
    for client in &mut waiting {
        let answer = client.read_response().await.unwrap();
        assert_eq!((answer.status, answer.header("flagstone-reason")), (503, Some("maintenance")));
    }
}

/// The app stays away, and their wait would end in a minute.
#[tokio::test]
async fn who_waits_is_told_at_once_of_maintenance_and_of_a_block() {
    let app = FakeUpstream::http1().route("*", "up").start().await;
    app.stop().await;
    let tables = "[maintenance]\nflag = \"on.flag\"\n[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let proxy = TestProxy::toml(to(&app.endpoint(), &format!("hold = \"60s\"\n{tables}"))).start().await;
    let hold = async |client: &str, method: &str, count: usize| {
        let mut waiting = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
        waiting.request(method, "/", &format!("X-Forwarded-For: {client}\r\n")).await.unwrap();
        let line = format!("flagstone_in_flight{{route=\"all\"}} {count}\n");
        assert!(eventually_async(DEADLINE, async || admin::metrics(proxy.admin()).await.contains(&line)).await);
        waiting
    };
    let mut blocked = hold("192.0.2.9", "GET", 1).await;
    let mut others = [hold("198.51.100.1", "GET", 2).await, hold("198.51.100.2", "POST", 3).await];
    let net = serde_json::json!({ "cidr": "192.0.2.0/24" });
    assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/blocklist", Some(net)).await.0, 200);
    let answer = blocked.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (403, Some("blocked")));
    proxy.folder.touch("state/on.flag");
    for client in &mut others {
        let answer = client.read_response().await.unwrap();
        assert_eq!((answer.status, answer.header("flagstone-reason")), (503, Some("maintenance")));
    }
    assert_eq!(admin::json(proxy.admin(), "/api/maintenance/status").await["blocked_requests"], 2);
}

#[tokio::test]
async fn a_full_endpoint_without_hold_refuses() {
    let app = FakeUpstream::http1().route("/slow", Reply::hang()).route("/", "free").start().await;
    let proxy = TestProxy::toml(to(&app.endpoint(), "max_in_flight = 1\n")).start().await;
    let mut slow = Client::connect(proxy.address()).await.unwrap();
    slow.request("GET", "/slow", "").await.unwrap();
    assert!(eventually(DEADLINE, || app.requests().len() == 1).await);
    let response = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((response.status, response.header("flagstone-reason")), (503, Some("no_endpoint")));
    slow.reset();
    let mut freed = false;
    let deadline = Instant::now() + DEADLINE;
    while !freed && Instant::now() < deadline {
        freed = client::get(proxy.address(), "/").await.unwrap().text() == "free";
    }
    assert!(freed);
}

#[tokio::test]
async fn a_reload_does_not_forget_what_is_in_flight() {
    let app = FakeUpstream::http1().route("/slow", Reply::hang()).route("/", "free").start().await;
    let bounded = |extra: &str| to(&app.endpoint(), &format!("max_in_flight = 1\n{extra}"));
    let proxy = TestProxy::toml(bounded("idle_timeout = \"4s\"\n")).start().await;
    let mut slow = Client::connect(proxy.address()).await.unwrap();
    slow.request("GET", "/slow", "").await.unwrap();
    assert!(eventually(DEADLINE, || app.requests().len() == 1).await);
    for extra in ["idle_timeout = \"5s\"\n", "balance = \"round_robin\"\n"] {
        proxy.reload_with(&bounded(extra)).await;
        let response = client::get(proxy.address(), "/").await.unwrap();
        assert_eq!((response.status, response.header("flagstone-reason")), (503, Some("no_endpoint")), "{extra}");
    }
    assert_eq!(app.requests().len(), 1);
    slow.reset();
    let frees = async || client::get(proxy.address(), "/").await.unwrap().text() == "free";
    assert!(eventually_async(DEADLINE, frees).await);
}

#[tokio::test]
async fn an_endpoint_that_a_reload_brings_back_has_no_more_places_than_are_free() {
    let app = FakeUpstream::http1().route("/slow", Reply::hang()).route("/", "free").start().await;
    let other = FakeUpstream::http1().route("/", "other").start().await;
    let before = |endpoint: &str| to(endpoint, "max_in_flight = 1\n");
    let proxy = TestProxy::toml(before(&app.endpoint())).start().await;
    let mut slow = Client::connect(proxy.address()).await.unwrap();
    slow.request("GET", "/slow", "").await.unwrap();
    assert!(eventually(DEADLINE, || app.requests().len() == 1).await);
    // A second reload in between, which knows of the endpoint only from the first.
    for extra in ["", "idle_timeout = \"5s\"\n"] {
        proxy.reload_with(&(before(&other.endpoint()) + extra)).await;
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "other");
    }
    proxy.reload_with(&before(&app.endpoint())).await;
    let response = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((response.status, response.header("flagstone-reason")), (503, Some("no_endpoint")));
    slow.reset();
    let frees = async || client::get(proxy.address(), "/").await.unwrap().text() == "free";
    assert!(eventually_async(DEADLINE, frees).await);
}

#[tokio::test]
async fn requests_from_before_and_after_a_reload_wait_for_the_same_place() {
    let app = FakeUpstream::http1().route("/slow", Reply::hang()).route("/", "done").start().await;
    let bounded =
        |idle: &str| to(&app.endpoint(), &format!("hold = \"60s\"\nmax_in_flight = 1\nidle_timeout = \"{idle}\"\n"));
    let proxy = TestProxy::toml(bounded("4s")).start().await;
    let in_flight = async |count: usize| {
        let line = format!("flagstone_in_flight{{route=\"all\"}} {count}\n");
        assert!(eventually_async(DEADLINE, async || admin::metrics(proxy.admin()).await.contains(&line)).await);
    };
    let mut slow = Client::connect(proxy.address()).await.unwrap();
    slow.request("GET", "/slow", "").await.unwrap();
    assert!(eventually(DEADLINE, || app.requests().len() == 1).await);
    let mut waiting = Vec::new();
    for generation in 1..=3 {
        for _ in 0..3 {
            let mut client = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
            client.request("GET", "/", "").await.unwrap();
            waiting.push(client);
        }
        in_flight(1 + waiting.len()).await;
        proxy.reload_with(&bounded(&format!("{}s", 4 + generation))).await;
    }
    assert_eq!(app.requests().len(), 1, "one at a time");
    slow.reset();
    for client in &mut waiting {
        assert_eq!(client.read_response().await.unwrap().text(), "done");
    }
}

/// Answers each request in one piece, until it is killed.
const APP: &str = r#"
import asyncio, sys, time
async def serve(reader, writer):
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    time.sleep(float(sys.argv[2]))
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    print("listening", flush=True)
    await server.serve_forever()
asyncio.run(main())
"#;

/// The app as a process of its own, which listens after so many seconds.
fn launch(folder: &Folder, port: &Port, seconds: u32) -> Process {
    let script = folder.write("app.py", APP);
    let mut command = std::process::Command::new("python3");
    Process::start(command.arg(script).arg(port.number().to_string()).arg(seconds.to_string()))
}

async fn start_app(folder: &Folder, port: &Port) -> Process {
    let mut process = launch(folder, port, 0);
    process.stdout_line("listening").await;
    process
}

#[tokio::test]
async fn a_real_app_restarted_ten_times_under_load_fails_no_request() {
    let _python = or_left_out!(crate::support::left_out::program("python3"));
    let folder = Folder::new();
    let port = Port::reserve();
    let mut app = start_app(&folder, &port).await;
    let proxy = TestProxy::toml(to(&port.address().to_string(), "hold = \"15s\"\n")).start().await;
    let load = Load::get(proxy.address(), "/").tasks(16).pause(Duration::from_millis(2)).start();
    for _ in 0..10 {
        assert!(load.reaches(50, DEADLINE).await);
        app.signal(Signal::KILL);
        app.wait(DEADLINE).await;
        app = start_app(&folder, &port).await;
    }
    assert!(load.reaches(50, DEADLINE).await);
    load.stop().await.assert_clean();
}

#[tokio::test]
async fn an_app_that_takes_five_seconds_to_restart_under_200_requests_a_second_costs_no_error() {
    const RESTART: Duration = Duration::from_secs(5);
    let _python = or_left_out!(crate::support::left_out::program("python3"));
    let folder = Folder::new();
    let port = Port::reserve();
    let mut app = start_app(&folder, &port).await;
    let proxy = TestProxy::toml(to(&port.address().to_string(), "hold = \"30s\"\n")).start().await;
    // Streams, so that a thousand held requests are no thousand sockets of this process.
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(Http2::connect(proxy.address()).await);
    }
    let mut asked = tokio::task::JoinSet::new();
    // Whoever comes does not wait until others have been answered.
    let mut every = tokio::time::interval(Duration::from_millis(5));
    for number in 0..1500_usize {
        every.tick().await;
        if number == 200 {
            app.signal(Signal::KILL);
            app.wait(DEADLINE).await;
            app = launch(&folder, &port, RESTART.as_secs() as u32);
        }
        let mut client = clients[number % clients.len()].clone();
        asked.spawn(async move {
            let began = Instant::now();
            let answer = client.get(&format!("/{number}")).await.expect("an answer");
            (answer.status(), answer.text(), began.elapsed())
        });
    }
    let answers = asked.join_all().await;
    assert!(answers.iter().all(|(status, text, _)| (*status, text.as_str()) == (200, "ok")), "{answers:?}");
    let held = answers.iter().filter(|(_, _, took)| *took > Duration::from_secs(1)).count();
    assert!(held > 300, "{held} of {} were held", answers.len());
}

/// An endpoint of HTTP/2 that accepts every connection and starts HTTP on those that `starts` picks by their number; it
/// answers nothing. Counts connections.
async fn starting(starts: fn(usize) -> bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            if starts(counted.fetch_add(1, SeqCst)) {
                tokio::spawn(async move {
                    // Whoever connects may have left.
                    let _ = socket.write_all(&frame(kind::SETTINGS, 0, 0, [])).await;
                    while socket.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
                });
            }
        }
    });
    (endpoint, connections)
}

#[tokio::test]
async fn what_accepts_and_does_not_speak_http2_is_not_back() {
    let (app, connections) = starting(|_| false).await;
    let proxy = TestProxy::toml(to(&app, "http2 = true\nhold = \"300ms\"\n")).start().await;
    let answer = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (502, Some("connect_failed")));
    let so_far = connections.load(SeqCst);
    assert!(eventually(DEADLINE, || connections.load(SeqCst) >= so_far + 3).await, "nobody looks for it any more");
    let health = admin::json(proxy.admin(), "/api/health").await;
    assert_eq!(health["status"], "unhealthy", "{health}");
}

#[tokio::test]
async fn what_comes_and_goes_is_one_incident_and_tried_ever_more_rarely() {
    // Each one that was looked for is good, each one that is for a request is not.
    let (app, connections) = starting(|number| number % 2 == 1).await;
    let config = to(&app, "http2 = true\nhold = \"1s\"\n");
    let mut flagstone = Flagstone::serve(&format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n{config}"
    ))
    .await;
    let answer = client::get(flagstone.address("web").await, "/").await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (502, Some("connect_failed")));
    // 25, 50, 100, 200 and 400 ms apart, each with a request behind it.
    let tries = connections.load(SeqCst);
    assert!(tries <= 14, "{tries} connections in a second");
    flagstone.process.stderr_line("Endpoint restored").await;
    let log = flagstone.process.stderr();
    assert_eq!((log.matches("Endpoint ejected").count(), log.matches("Endpoint restored").count()), (1, 1), "{log}");
}

#[tokio::test]
async fn a_reload_does_not_take_for_well_what_takes_no_connection() {
    static IS_BACK: AtomicBool = AtomicBool::new(false);
    let (app, _) = starting(|_| IS_BACK.load(SeqCst)).await;
    let config = |hold: &str| to(&app, &format!("http2 = true\nhold = \"{hold}\"\n"));
    let proxy = TestProxy::toml(config("100ms")).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 502);
    let status = async || admin::json(proxy.admin(), "/api/health").await["status"].clone();
    assert_eq!(status().await, "unhealthy");
    for hold in ["200ms", "0s"] {
        proxy.reload_with(&config(hold)).await;
        assert_eq!(status().await, "unhealthy", "{hold}");
    }
    IS_BACK.store(true, SeqCst);
    assert!(eventually_async(DEADLINE, async || status().await == "healthy").await);
}

#[tokio::test]
async fn an_incident_is_told_once_over_a_reload() {
    static IS_BACK: AtomicBool = AtomicBool::new(false);
    let (app, _) = starting(|_| IS_BACK.load(SeqCst)).await;
    let config = |changed: &str| {
        format!(
            "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n[[listener]]\n\
             name = \"web\"\naddress = \"127.0.0.1:0\"\n{}",
            to(&app, &format!("http2 = true\n{changed}\n"))
        )
    };
    // The second one keeps none of its connections.
    for changed in ["hold = \"200ms\"", "hold = \"100ms\"\nidle_timeout = \"1s\""] {
        IS_BACK.store(false, SeqCst);
        let mut flagstone = Flagstone::serve(&config("hold = \"100ms\"")).await;
        let address = flagstone.address("web").await;
        assert_eq!(client::get(address, "/").await.unwrap().status, 502);
        flagstone.folder.write("flagstone.toml", config(changed));
        flagstone.process.stderr_line("Configuration reloaded").await;
        assert_eq!(client::get(address, "/").await.unwrap().status, 503);
        IS_BACK.store(true, SeqCst);
        flagstone.process.stderr_line("Endpoint restored").await;
        let log = flagstone.process.stderr();
        let told = ["ejected", "restored"].map(|what| log.matches(&format!("Endpoint {what}")).count());
        assert_eq!(told, [1, 1], "{log}");
    }
}

#[tokio::test]
async fn all_who_wait_for_the_first_check_are_told_when_it_fails() {
    let unwell = Reply::default().then(Step::Wait(Duration::from_millis(500))).then(Step::Close);
    let app = FakeUpstream::http1().route("/health", unwell).route("*", "up").start().await;
    let health = "[upstream.app.health]\npath = \"/health\"\ntimeout = \"10s\"\ninterval = \"1h\"\n";
    let proxy = TestProxy::toml(to(&app.endpoint(), health)).start().await;
    let (address, began) = (proxy.address(), Instant::now());
    let asked: tokio::task::JoinSet<_> = (0..100)
        .map(|_| async move {
            let answer = client::get(address, "/").await.unwrap();
            (answer.status, answer.header("flagstone-reason").map(str::to_owned))
        })
        .collect();
    let answers = asked.join_all().await;
    assert!(answers.iter().all(|answer| *answer == (503, Some("no_endpoint".to_owned()))), "{answers:?}");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
