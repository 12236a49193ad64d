//! What a request costs in system calls, as strace counts them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::certs::Ca;
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Flagstone, Process, Signal, stop};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

/// Requests under strace.
const REQUESTS: u64 = 500;

/// Bytes of a body that is worth moving rather than copying.
const LARGE: usize = 3_000_000;

/// What a worker does beside requests: waking the access log's writer, the sweep of every second.
const BESIDE: u64 = 60;

#[tokio::test]
async fn a_request_on_kept_connections_costs_two_reads_and_two_writes() {
    let strace = or_left_out!(program("strace"));
    let app = FakeUpstream::http1().route("/", "x".repeat(1024)).start().await;
    let mut proxy = Flagstone::serve(&configuration("", &app.endpoint())).await;
    let mut client = Client::connect(proxy.address("web").await).await.unwrap();
    // Both connections are there, and nothing is done for the first time any more.
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    let tracer = Tracer::attach(&strace, &proxy).await;
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    let calls = tracer.counts().await;
    let polls = sum(&calls, |name| name.starts_with("epoll_"));
    let others = sum(&calls, |_| true) - polls;
    assert!(others >= 4 * REQUESTS, "strace has seen the requests: {calls:?}");
    assert!(others <= 4 * REQUESTS + BESIDE, "two reads and two writes each, but: {calls:?}");
    // One connection at a time is the worst case: each side's readiness is a poll of its own.
    assert!(polls <= 3 * REQUESTS, "{calls:?}");
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_message_on_an_upgraded_connection_costs_two_reads_and_two_writes() {
    let strace = or_left_out!(program("strace"));
    let app = FakeUpstream::http1().route("/", Reply::upgrade()).start().await;
    let mut proxy = Flagstone::serve(&configuration("", &app.endpoint())).await;
    let mut client = Client::connect(proxy.address("web").await).await.unwrap();
    client.request("GET", "/", "Connection: upgrade\r\nUpgrade: echo\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 101);
    let tracer = Tracer::attach(&strace, &proxy).await;
    for _ in 0..REQUESTS {
        client.send(b"word").await.unwrap();
        assert_eq!(client.read_exactly(4).await.unwrap(), b"word");
    }
    let calls = tracer.counts().await;
    let polls = sum(&calls, |name| name.starts_with("epoll_"));
    let others = sum(&calls, |_| true) - polls;
    assert!(others >= 4 * REQUESTS, "strace has seen the messages: {calls:?}");
    assert!(others <= 4 * REQUESTS + BESIDE, "two reads and two writes each, but: {calls:?}");
    assert!(polls <= 3 * REQUESTS, "{calls:?}");
}

#[tokio::test]
async fn a_connection_costs_no_more_than_six_calls_beside_its_request() {
    let strace = or_left_out!(program("strace"));
    let app = FakeUpstream::http1().route("/", "x".repeat(1024)).start().await;
    let mut proxy = Flagstone::serve(&configuration("", &app.endpoint())).await;
    let address = proxy.address("web").await;
    let once = async || {
        let mut client = Client::connect(address).await.unwrap();
        client.request("GET", "/", "Connection: close\r\n").await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 200);
        client.expect_closed().await.unwrap();
    };
    for _ in 0..20 {
        once().await;
    }
    let tracer = Tracer::attach(&strace, &proxy).await;
    for _ in 0..REQUESTS {
        once().await;
    }
    let calls = tracer.counts().await;
    // With `fcntl` a debug build of tokio makes sure that a socket does not block.
    let others = sum(&calls, |name| !["epoll_wait", "epoll_pwait", "fcntl"].contains(&name));
    assert!(others >= 7 * REQUESTS, "strace has seen the connections: {calls:?}");
    // Accepted, and asked for another; asked for more, before it is closed. One whose request comes later is noted at
    // the event loop and taken off. Of connections to the app that it is to let go of the loop is told once in a while.
    assert!(others <= (4 + 6) * REQUESTS + REQUESTS / 8 + BESIDE, "{calls:?}");
}

#[tokio::test]
async fn the_event_loop_hears_of_few_connections_whose_request_is_there() {
    let strace = or_left_out!(program("strace"));
    let app = FakeUpstream::http1().route("/", "x".repeat(1024)).start().await;
    let mut proxy = Flagstone::serve(&configuration("", &app.endpoint())).await;
    let address = proxy.address("web").await;
    let at_once = async |proxy: &Flagstone| {
        // Stopped, so that all of it is there when it looks.
        stop(&proxy.process).await;
        let mut clients = Vec::new();
        for _ in 0..50 {
            let mut client = Client::connect(address).await.unwrap();
            client.request("GET", "/", "Connection: close\r\n").await.unwrap();
            clients.push(client);
        }
        proxy.process.signal(Signal::CONT);
        for client in &mut clients {
            assert_eq!(client.read_response().await.unwrap().status, 200);
            client.expect_closed().await.unwrap();
        }
    };
    at_once(&proxy).await;
    let tracer = Tracer::attach(&strace, &proxy).await;
    for _ in 0..4 {
        at_once(&proxy).await;
    }
    let calls = tracer.counts().await;
    assert!(calls["accept4"] >= 200, "strace has seen the connections: {calls:?}");
    // Two for each that is waited for: those that the worker wakes once a second, and new ones to the app.
    assert!(calls.get("epoll_ctl").is_none_or(|calls| *calls <= 200), "{calls:?}");
}

/// The head of an answer and its body are one record of TLS at most; more often than not they share it with others.
#[tokio::test]
async fn an_answer_on_a_stream_of_http2_costs_no_more_than_one_write() {
    let strace = or_left_out!(program("strace"));
    let h2load = or_left_out!(program("h2load"));
    let app = FakeUpstream::http1().route("/", "x".repeat(1024)).start().await;
    let folder = Folder::new();
    Ca::new().leaf(&["localhost"]).write(&folder, "site");
    let tls = "[listener.tls]\ncertificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n";
    let mut proxy = Flagstone::serve_in(folder, &configuration(tls, &app.endpoint())).await;
    let url = format!("https://{}/", proxy.address("web").await);
    let load = |requests: u64| {
        let mut command = Command::new(&h2load);
        command.args(["-n", &requests.to_string(), "-c", "1", "-m", "16", &url]);
        command
    };
    assert!(Process::run(&mut load(50)).await.status.success());
    let tracer = Tracer::attach(&strace, &proxy).await;
    let ended = Process::run(&mut load(REQUESTS)).await;
    assert!(ended.stdout.contains(&format!("{REQUESTS} succeeded, 0 failed")), "{}", ended.stdout);
    let calls = tracer.counts().await;
    let writes = sum(&calls, |name| ["write", "writev", "sendto", "sendmsg"].contains(&name));
    assert!(writes >= REQUESTS, "strace has seen the requests: {calls:?}");
    assert!(writes <= 2 * REQUESTS + BESIDE, "one to the app and one to the client, but: {calls:?}");
}

/// Its bytes stay in the kernel (splice(2)), but for what comes with its head and what is too little to be worth it.
#[tokio::test]
async fn a_large_answer_is_not_copied() {
    let strace = or_left_out!(program("strace"));
    let app = FakeUpstream::http1().route("/", "x".repeat(LARGE)).start().await;
    let mut proxy = Flagstone::serve(&configuration("", &app.endpoint())).await;
    let mut client = Client::connect(proxy.address("web").await).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().body.len(), LARGE);
    let tracer = Tracer::attach(&strace, &proxy).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.unwrap().body.len(), LARGE);
    }
    let calls = tracer.counts().await;
    assert!(calls.get("splice").is_some_and(|calls| *calls > 0), "{calls:?}");
    // For each the client is read, the app written to; its head is read, and written; so is what comes at the end.
    let copies = sum(&calls, |name| ["read", "recvfrom", "readv", "write", "sendto", "writev"].contains(&name));
    assert!(copies <= 10 * 20 + BESIDE, "{calls:?}");
    assert_eq!(sum(&calls, |name| name.starts_with("pipe")), 0, "the pipe is the one of before: {calls:?}");
}

/// As a sandbox may that does not know the call.
#[tokio::test]
async fn where_the_system_refuses_to_splice_a_large_answer_is_copied() {
    let strace = or_left_out!(program("strace"));
    let app = FakeUpstream::http1().route("/", "x".repeat(LARGE)).start().await;
    let mut proxy = Flagstone::serve(&configuration("", &app.endpoint())).await;
    let mut client = Client::connect(proxy.address("web").await).await.unwrap();
    assert_eq!(client.get("/small").await.unwrap().status, 404);
    let tracer = Tracer::attach_with(&strace, &proxy, &["-e", "inject=splice:error=ENOSYS"]).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.unwrap().body.len(), LARGE);
    }
    let calls = tracer.counts().await;
    assert_eq!(calls.get("splice"), Some(&1), "it is tried once: {calls:?}");
}

/// One worker in front of an app, with what most have: an access log and a limit. `more` belongs to the listener.
fn configuration(more: &str, app: &str) -> String {
    format!(
        "[server]\nworkers = 1\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"access.log\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{more}[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         limits = [\"per_ip\"]\n[upstream.app]\nendpoints = [\"{app}\"]\n[limit.per_ip]\nrate = \"1000000/1s\"\nburst = 100000\n"
    )
}

/// strace, which counts what the worker calls.
struct Tracer {
    process: Process,
    summary: PathBuf,
    /// Of the worker, in the system's words.
    state: PathBuf,
}

impl Tracer {
    async fn attach(strace: &Path, proxy: &Flagstone) -> Self {
        Self::attach_with(strace, proxy, &[]).await
    }

    async fn attach_with(strace: &Path, proxy: &Flagstone, options: &[&str]) -> Self {
        let summary = proxy.folder.join("calls");
        let mut command = Command::new(strace);
        let worker = worker(proxy.process.id());
        command.args(options).args(["-c", "-U", "name,calls", "-p", &worker, "-o"]).arg(&summary);
        let mut process = Process::start(&mut command);
        process.stderr_line("attached").await;
        let state = PathBuf::from(format!("/proc/{}/task/{worker}/stat", proxy.process.id()));
        Self { process, summary, state }
    }

    /// How often what was called, since the beginning.
    async fn counts(mut self) -> BTreeMap<String, u64> {
        // A client may have what a call wrote before that has come to its end, and is counted.
        let sleeps = || std::fs::read_to_string(&self.state).is_ok_and(|state| state.contains(") S "));
        assert!(eventually(DEADLINE, sleeps).await, "the worker has nothing more to do");
        self.process.signal(Signal::INT);
        self.process.wait(DEADLINE).await;
        counts(&std::fs::read_to_string(self.summary).unwrap())
    }
}

fn sum(calls: &BTreeMap<String, u64>, counted: impl Fn(&str) -> bool) -> u64 {
    calls.iter().filter(|(name, _)| counted(name)).map(|(_, calls)| calls).sum()
}

/// The thread that serves, which strace then follows alone.
fn worker(process: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|thread| thread.unwrap().path());
    let is_worker =
        |thread: &PathBuf| std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "worker-0");
    let worker = threads.into_iter().find(is_worker).expect("there is a worker");
    worker.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The rows of `strace -c -U name,calls`.
fn counts(summary: &str) -> BTreeMap<String, u64> {
    let rows = summary.lines().filter_map(|line| {
        let (name, calls) = line.split_whitespace().next().zip(line.split_whitespace().nth(1))?;
        Some((name.to_owned(), calls.parse().ok()?))
    });
    rows.filter(|(name, _)| name != "total").collect()
}
