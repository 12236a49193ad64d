//! Signals to the real binary.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, kill_process, prlimit};
use tokio::sync::Notify;

use crate::admin;
use crate::support::client::{self, Client};
use crate::support::files::Folder;
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Process, Signal, has_open, virtual_bytes};
use crate::support::reply::Reply;
use crate::support::stalled::{Stalled, stall};
use crate::support::upstream::FakeUpstream;

const SLOW: Duration = Duration::from_secs(3);

fn config(upstream: &FakeUpstream, server: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n{server}[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"access.log\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    )
}

async fn slow_upstream() -> FakeUpstream {
    FakeUpstream::http1()
        .route("/slow", Reply::ok("at last").after(SLOW))
        .route("/hang", Reply::hang())
        .route("*", "ok")
        .start()
        .await
}

#[tokio::test]
async fn term_and_quit_let_requests_finish_and_take_no_new_ones() {
    for signal in [Signal::TERM, Signal::QUIT] {
        let upstream = slow_upstream().await;
        let mut flagstone = Flagstone::serve(&config(&upstream, "")).await;
        let address = flagstone.address("web").await;
        let mut idle = Client::connect(address).await.unwrap();
        idle.get("/").await.unwrap();
        let mut busy = Client::connect(address).await.unwrap();
        busy.request("GET", "/slow", "").await.unwrap();
        assert!(eventually(DEADLINE, || upstream.requests().len() == 2).await);
        flagstone.process.signal(signal);
        idle.expect_closed().await.unwrap();
        let refused = async || Client::connect(address).await.is_err();
        assert!(eventually_async(DEADLINE, refused).await);
        assert!(flagstone.process.ended().is_none());
        let answer = busy.read_response().await.unwrap();
        assert_eq!((answer.text(), answer.header("connection")), ("at last".into(), Some("close")));
        busy.expect_closed().await.unwrap();
        assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
        assert!(flagstone.folder.read("access.log").contains("\"GET /slow HTTP/1.1\" 200 7 "));
    }
}

#[tokio::test]
async fn what_does_not_finish_within_the_grace_is_cut() {
    let upstream = slow_upstream().await;
    let mut flagstone = Flagstone::serve(&config(&upstream, "shutdown_grace = \"200ms\"\n")).await;
    let mut stuck = Client::connect(flagstone.address("web").await).await.unwrap();
    stuck.request("GET", "/hang", "").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    flagstone.process.signal(Signal::TERM);
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
    assert!(
        flagstone.process.stderr().contains("did not finish within shutdown_grace"),
        "{}",
        flagstone.process.stderr()
    );
    stuck.expect_closed().await.unwrap();
}

#[tokio::test]
async fn during_the_delay_it_accepts_and_is_not_ready() {
    let upstream = slow_upstream().await;
    let mut flagstone = Flagstone::serve(&config(&upstream, "shutdown_delay = \"4s\"\n")).await;
    let (address, admin) = (flagstone.address("web").await, flagstone.admin().await);
    flagstone.process.signal(Signal::TERM);
    let unready = async || admin::get(admin, "/readyz").await.status == 503;
    assert!(eventually_async(DEADLINE, unready).await);
    assert_eq!(admin::get(admin, "/healthz").await.status, 200);
    assert_eq!(client::get(address, "/").await.unwrap().text(), "ok");
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn int_stops_at_once_also_in_the_middle_of_a_drain() {
    for drain_first in [false, true] {
        let upstream = slow_upstream().await;
        let server = "shutdown_delay = \"5m\"\nshutdown_grace = \"5m\"\n";
        let mut flagstone = Flagstone::serve(&config(&upstream, server)).await;
        let mut stuck = Client::connect(flagstone.address("web").await).await.unwrap();
        stuck.request("GET", "/hang", "").await.unwrap();
        assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
        if drain_first {
            flagstone.process.signal(Signal::TERM);
            flagstone.process.stderr_line("draining").await;
        }
        flagstone.process.signal(Signal::INT);
        assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
        stuck.expect_closed().await.unwrap();
    }
}

/// As where a container may have no more of them. Nothing listens to INT then, and all else is as ever.
#[tokio::test]
async fn a_drain_for_which_there_is_no_thread_lets_requests_finish() {
    /// Less than the stack of a thread.
    const ROOM: u64 = 1 << 20;
    let upstream = slow_upstream().await;
    let mut flagstone = Flagstone::serve(&config(&upstream, "")).await;
    let mut slow = Client::connect(flagstone.address("web").await).await.unwrap();
    slow.request("GET", "/slow", "").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    let id = flagstone.process.id();
    let limit = Some(virtual_bytes(id) + ROOM);
    let pid = Pid::from_raw(i32::try_from(id).unwrap());
    prlimit(pid, Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    flagstone.process.signal(Signal::TERM);
    assert_eq!(slow.read_response().await.unwrap().text(), "at last");
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
    let log = flagstone.process.stderr();
    assert!(log.contains("cannot be cut short") && !log.contains("panicked"), "{log}");
}

/// Connections that the system has accepted when the signal comes are served, those after it are refused: no request
/// is lost in between.
#[tokio::test]
async fn no_accepted_request_is_lost_when_term_comes_under_load() {
    let upstream = slow_upstream().await;
    for _ in 0..3 {
        let mut flagstone = Flagstone::serve(&config(&upstream, "")).await;
        let address = flagstone.address("web").await;
        let load = Load::get(address, "/").tasks(8).on_fresh_connections().start();
        assert!(load.reaches(100, DEADLINE).await);
        flagstone.process.signal(Signal::TERM);
        assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
        let report = load.stop().await;
        let lost: Vec<_> = report.failures.iter().filter(|failure| !failure.what.contains("refused")).collect();
        assert!(lost.is_empty(), "{lost:#?}");
    }
}

#[tokio::test]
async fn usr1_opens_the_access_log_anew_and_loses_no_line() {
    let upstream = slow_upstream().await;
    let mut flagstone = Flagstone::serve(&config(&upstream, "")).await;
    let address = flagstone.address("web").await;
    let load = Load::get(address, "/").tasks(4).start();
    for round in 0..5 {
        assert!(load.reaches(50, DEADLINE).await);
        let (from, to) = (flagstone.folder.join("access.log"), flagstone.folder.join(format!("access.{round}")));
        std::fs::rename(&from, to).unwrap();
        flagstone.process.signal(Signal::USR1);
        assert!(eventually(DEADLINE, || from.exists()).await);
    }
    let report = load.stop().await;
    report.assert_clean();
    flagstone.process.signal(Signal::TERM);
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
    let names = flagstone.folder.names();
    let logs = names.iter().filter(|name| name.starts_with("access."));
    let lines: u64 = logs.map(|name| flagstone.folder.read(name).lines().count() as u64).sum();
    assert_eq!(lines, report.sent);
}

#[tokio::test]
async fn two_hundred_hups_under_load_cost_no_request() {
    let upstream = slow_upstream().await;
    let mut flagstone = Flagstone::serve(&config(&upstream, "")).await;
    let load = Load::get(flagstone.address("web").await, "/").tasks(4).start();
    for _ in 0..200 {
        flagstone.process.signal(Signal::HUP);
        assert!(load.reaches(1, DEADLINE).await);
    }
    load.stop().await.assert_clean();
    flagstone.process.stderr_line("Configuration reloaded").await;
    flagstone.process.signal(Signal::TERM);
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
}

/// The file is written on until the last request has ended, and rotated meanwhile.
#[tokio::test]
async fn usr1_opens_the_access_log_anew_in_a_drain_too() {
    let now = Arc::new(Notify::new());
    let upstream = FakeUpstream::http1().route("*", Reply::ok("at last").at(&now)).start().await;
    let mut flagstone = Flagstone::serve(&config(&upstream, "shutdown_grace = \"1m\"\n")).await;
    let mut busy = Client::connect(flagstone.address("web").await).await.unwrap();
    busy.request("GET", "/", "").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    flagstone.process.signal(Signal::TERM);
    flagstone.process.stderr_line("draining").await;
    let (from, to) = (flagstone.folder.join("access.log"), flagstone.folder.join("access.1"));
    std::fs::rename(&from, to).unwrap();
    flagstone.process.signal(Signal::USR1);
    assert!(eventually(DEADLINE, || from.exists()).await);
    now.notify_one();
    busy.read_response().await.unwrap();
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
    // The new one is there before it is written to.
    let lines = ["access.1", "access.log"].map(|name| flagstone.folder.read(name).lines().count());
    assert_eq!(lines.iter().sum::<usize>(), 1, "{lines:?}");
}

/// The file is a pipe, so that it stands still where it reads it.
#[tokio::test]
async fn no_signal_kills_that_comes_while_the_configuration_is_read() {
    let upstream = slow_upstream().await;
    let folder = Folder::new();
    folder.fifo("flagstone.toml");
    let file = folder.join("flagstone.toml");
    let mut pipe = std::fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let mut command = Flagstone::command([OsStr::new("run"), OsStr::new("-c"), file.as_os_str()]);
    let mut process = Process::start(command.current_dir(folder.path()));
    // Who opens a pipe that nobody writes to any more finds it empty.
    assert!(eventually(DEADLINE, || has_open(process.id(), &file)).await);
    for signal in [Signal::USR1, Signal::HUP] {
        process.signal(signal);
    }
    std::io::Write::write_all(&mut pipe, config(&upstream, "").as_bytes()).unwrap();
    drop(pipe);
    process.stderr_line("listening name=web").await;
}

/// A process in the middle of a reload, and what that waits for.
async fn reloading(
    upstream: &FakeUpstream,
    ask: impl AsyncFn(&mut Flagstone),
) -> std::io::Result<(Flagstone, Stalled)> {
    let folder = Folder::new();
    let page = folder.write("page/index.html", "away");
    let text = format!("{}[maintenance]\npage = \"page\"\n", config(upstream, ""));
    let mut flagstone = Flagstone::serve_in(folder, &text).await;
    flagstone.admin().await;
    let stalled = stall(&page)?;
    ask(&mut flagstone).await;
    assert!(eventually(DEADLINE, || stalled.is_awaited()).await);
    Ok((flagstone, stalled))
}

async fn by_hup(flagstone: &mut Flagstone) {
    flagstone.process.signal(Signal::HUP);
}

/// Sends the call; the answer is not waited for.
async fn by_call(flagstone: &mut Flagstone) {
    let mut client = Client::connect(flagstone.admin().await).await.unwrap();
    client.send("POST /api/admin/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    // Stays until the process ends: a call whose client has gone may be dropped.
    tokio::spawn(async move { client.read_response().await });
}

#[tokio::test]
async fn a_reload_whose_disk_does_not_answer_keeps_no_end_waiting() {
    let upstream = slow_upstream().await;
    for signal in [Signal::TERM, Signal::INT] {
        for is_called in [false, true] {
            let ask = async |it: &mut Flagstone| if is_called { by_call(it).await } else { by_hup(it).await };
            let Ok((mut flagstone, stalled)) = reloading(&upstream, ask).await else { left_out!("no leases here") };
            let address = flagstone.address("web").await;
            assert_eq!(client::get(address, "/").await.unwrap().text(), "ok");
            flagstone.process.signal(signal);
            assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0), "{signal:?}, called: {is_called}");
            assert!(!flagstone.process.stderr().contains("Configuration re"), "{}", flagstone.process.stderr());
            drop(stalled);
        }
    }
}

#[tokio::test]
async fn signals_are_served_while_a_reload_waits_and_the_reloads_come_one_by_one() {
    let upstream = slow_upstream().await;
    let Ok((mut flagstone, stalled)) = reloading(&upstream, by_hup).await else { left_out!("no leases here") };
    let (from, to) = (flagstone.folder.join("access.log"), flagstone.folder.join("access.1"));
    std::fs::rename(&from, to).unwrap();
    // Not one thread each.
    for _ in 0..20 {
        flagstone.process.signal(Signal::HUP);
    }
    flagstone.process.signal(Signal::USR1);
    assert!(eventually(DEADLINE, || from.exists()).await);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", flagstone.process.id())).unwrap().flatten();
    let names = tasks.map(|it| std::fs::read_to_string(it.path().join("comm")).unwrap_or_default());
    assert_eq!(names.filter(|name| name == "reload\n").count(), 1);
    assert!(!flagstone.process.stderr().contains("Configuration reloaded"));
    drop(stalled);
    // The one under way, and one for all that came meanwhile.
    let reloads = || flagstone.process.stderr().matches("Configuration reloaded").count();
    assert!(eventually(DEADLINE, || reloads() == 2).await);
    let address = flagstone.address("web").await;
    assert_eq!(client::get(address, "/").await.unwrap().text(), "ok");
    flagstone.process.signal(Signal::TERM);
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(flagstone.process.stderr().matches("Configuration reloaded").count(), 2);
}

/// The next process gets what the reload has come to.
#[tokio::test]
async fn an_upgrade_waits_for_a_reload_and_a_drain_does_not_wait_for_the_upgrade() {
    let upstream = slow_upstream().await;
    for is_drained in [false, true] {
        let Ok((mut flagstone, stalled)) = reloading(&upstream, by_hup).await else { left_out!("no leases here") };
        flagstone.process.signal(Signal::USR2);
        let upgrades = |name: &str| name == "upgrade\n";
        let task = format!("/proc/{}/task", flagstone.process.id());
        let has_begun = || {
            let tasks = std::fs::read_dir(&task).unwrap().flatten();
            tasks.map(|it| std::fs::read_to_string(it.path().join("comm")).unwrap_or_default()).any(|it| upgrades(&it))
        };
        assert!(eventually(DEADLINE, has_begun).await);
        if is_drained {
            flagstone.process.signal(Signal::TERM);
            assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
            assert!(!flagstone.process.stderr().contains("Upgrade"), "{}", flagstone.process.stderr());
            continue;
        }
        drop(stalled);
        let line = flagstone.process.stderr_line("Upgrade finished").await;
        let log = flagstone.process.stderr();
        assert!(log.find("Configuration reloaded").unwrap() < log.find("Upgrade finished").unwrap(), "{log}");
        assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
        let next = line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        kill_process(Pid::from_raw(next).unwrap(), Signal::TERM).unwrap();
    }
}
