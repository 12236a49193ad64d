//! What a request costs in system calls, as strace counts them.

use std::collections::BTreeMap;
use std::process::Command;

use crate::support::client::Client;
use crate::support::left_out::program;
use crate::support::process::{DEADLINE, Flagstone, Process, Signal};
use crate::support::upstream::FakeUpstream;

/// Requests under strace.
const REQUESTS: u64 = 500;

/// What a worker does beside requests: waking the access log's writer, the sweep of every second.
const BESIDE: u64 = 60;

#[tokio::test]
async fn a_request_on_kept_connections_costs_two_reads_and_two_writes() {
    let strace = or_left_out!(program("strace"));
    let app = FakeUpstream::http1().route("/", "x".repeat(1024)).start().await;
    let mut proxy = Flagstone::serve(&format!(
        "[server]\nworkers = 1\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"access.log\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         limits = [\"per_ip\"]\n[upstream.app]\nendpoints = [\"{}\"]\n[limit.per_ip]\nrate = \"1000000/1s\"\nburst = 100000\n",
        app.endpoint()
    ))
    .await;
    let mut client = Client::connect(proxy.address("web").await).await.unwrap();
    // Both connections are there, and nothing is done for the first time any more.
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    let summary = proxy.folder.join("calls");
    let mut command = Command::new(strace);
    command.args(["-c", "-U", "name,calls", "-p", &worker(proxy.process.id()), "-o"]).arg(&summary);
    let mut tracer = Process::start(&mut command);
    tracer.stderr_line("attached").await;
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    tracer.signal(Signal::INT);
    tracer.wait(DEADLINE).await;
    let calls = counts(&std::fs::read_to_string(summary).unwrap());
    let polls: u64 = calls.iter().filter(|(name, _)| name.starts_with("epoll_")).map(|(_, calls)| calls).sum();
    let others: u64 = calls.values().sum::<u64>() - polls;
    assert!(others >= 4 * REQUESTS, "strace has seen the requests: {calls:?}");
    assert!(others <= 4 * REQUESTS + BESIDE, "two reads and two writes each, but: {calls:?}");
    // One connection at a time is the worst case: each side's readiness is a poll of its own.
    assert!(polls <= 3 * REQUESTS, "{calls:?}");
    assert_eq!(app.connections(), 1);
}

/// The thread that serves, which strace then follows alone.
fn worker(process: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|thread| thread.unwrap().path());
    let is_worker = |thread: &std::path::PathBuf| {
        std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "worker-0")
    };
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
