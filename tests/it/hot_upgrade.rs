//! Another process of the program takes over: sockets, state and requests, whatever goes wrong with either.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use serde_json::Value;

use crate::support::client::{self, Client};
use crate::support::files::Folder;
use crate::support::load::Load;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Ended, Flagstone, Process, Signal};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

/// The program in a folder of its own, where it can be exchanged, and every process that came of it.
struct Line {
    first: Process,
    folder: Folder,
    address: std::net::SocketAddr,
}

impl Line {
    async fn start(rest: &str) -> Self {
        Self::start_with(rest, "shutdown_grace = \"5s\"\n").await
    }

    async fn start_with(rest: &str, server: &str) -> Self {
        let folder = Folder::new();
        std::fs::hard_link(env!("CARGO_BIN_EXE_flagstone"), folder.join("flagstone"))
            .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_flagstone"), folder.join("flagstone")).map(drop))
            .unwrap();
        let admin = folder.join("admin.sock").display().to_string();
        let config = format!(
            "[server]\nstate_dir = \"state\"\n{server}[admin]\nlisten = \"unix:{admin}\"\n[log]\naccess = \"off\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{rest}"
        );
        let file = folder.write("flagstone.toml", config);
        let mut command = std::process::Command::new(folder.join("flagstone"));
        let mut first = Process::start(command.arg("run").arg("-c").arg(file));
        let line = first.stderr_line("listening name=web ").await;
        let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
        first.stderr_line("admin listening").await;
        Self { first, folder, address }
    }

    async fn command(&self, command: &str) -> Ended {
        let file = self.folder.join("flagstone.toml");
        let mut process = Process::start(&mut Flagstone::command([command.as_ref(), "-c".as_ref(), file.as_os_str()]));
        let status = process.wait(Duration::from_secs(90)).await;
        Ended { status, stdout: process.stdout(), stderr: process.stderr() }
    }

    async fn upgrade(&self) -> Ended {
        self.command("upgrade").await
    }

    /// The process that serves now.
    async fn pid(&self) -> u32 {
        let mut client = Client::connect_unix(self.folder.join("admin.sock")).await.unwrap();
        client.send("GET /api/admin/system/status HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let status: Value = serde_json::from_slice(&client.read_response().await.unwrap().body).unwrap();
        u32::try_from(status["pid"].as_u64().unwrap()).unwrap()
    }

    async fn get(&self, path: &str) -> client::RawResponse {
        client::get(self.address, path).await.unwrap()
    }

    /// Puts another program where this one was.
    fn replace_program(&self, script: &str) {
        let new = self.folder.write("new", script);
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, self.folder.join("flagstone")).unwrap();
    }

    fn processes(&self) -> Vec<u32> {
        processes_of(self.folder.path())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid);
        }
    }
}

/// Those whose command line names something in `folder`: each was started by this test, or by what it started.
fn processes_of(folder: &Path) -> Vec<u32> {
    let folder = folder.display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &u32| {
        let text = std::fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.contains(&folder) && text.contains("run")
    };
    all.filter(is_ours).collect()
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // Gone already is fine.
    let _ = kill_process(pid, Signal::KILL);
}

fn app(upstream: &FakeUpstream) -> String {
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\nidle_timeout = \"30s\"\n",
        upstream.endpoint()
    )
}

/// How often each number came to the upstream on a path.
fn numbers(upstream: &FakeUpstream, path: &str) -> BTreeMap<u64, u32> {
    let mut counts = BTreeMap::new();
    for request in upstream.requests().iter().filter(|request| request.head.line.contains(path)) {
        let number = request.head.header("x-number").unwrap().parse().unwrap();
        *counts.entry(number).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_upgrades_under_load_lose_nothing_and_double_nothing() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let line = Line::start(&app(&upstream)).await;
    let kept = Load::get(line.address, "/kept").tasks(12).pause(Duration::from_millis(8)).start();
    let fresh =
        Load::get(line.address, "/fresh").tasks(4).on_fresh_connections().pause(Duration::from_millis(8)).start();
    assert!(kept.reaches(50, DEADLINE).await && fresh.reaches(50, DEADLINE).await);
    let mut pids = vec![line.pid().await];
    for round in 0..20 {
        let upgraded = line.upgrade().await;
        assert_eq!(upgraded.status.code(), Some(0), "round {round}: {upgraded:?}\n{}", line.first.stderr());
        pids.push(line.pid().await);
        assert!(kept.reaches(20, DEADLINE).await && fresh.reaches(20, DEADLINE).await, "round {round}");
    }
    pids.dedup();
    assert_eq!(pids.len(), 21, "{pids:?}");
    for (load, path) in [(kept, "/kept"), (fresh, "/fresh")] {
        let report = load.stop().await;
        report.assert_clean();
        let counts = numbers(&upstream, path);
        assert_eq!(counts.len() as u64, report.sent, "{path}");
        let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
        assert!(doubled.is_empty(), "{path}: {doubled:?}");
    }
    // Those before have ended, by themselves.
    let alone = eventually(Duration::from_secs(20), || line.processes().len() == 1).await;
    assert!(alone, "{:?}", line.processes());
}

#[tokio::test]
async fn what_is_in_flight_finishes_where_it_began() {
    let slow = Reply::ok("at last").after(Duration::from_secs(3));
    let upstream = FakeUpstream::http1().route("/slow", slow).route("*", "ok").start().await;
    let mut line = Line::start(&app(&upstream)).await;
    let mut busy = Client::connect(line.address).await.unwrap();
    busy.request("GET", "/slow", "").await.unwrap();
    let mut idle = Client::connect(line.address).await.unwrap();
    idle.get("/").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 2).await);
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    // A kept connection is told with its next answer.
    let last = idle.get("/").await.unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    idle.expect_closed().await.unwrap();
    let answer = busy.read_response().await.unwrap();
    assert_eq!((answer.text(), answer.header("connection")), ("at last".into(), Some("close")));
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(line.get("/").await.text(), "ok");
}

#[tokio::test]
async fn usr2_upgrades_and_a_socket_file_stays() {
    let folder = Folder::new();
    let socket = folder.join("web.sock");
    let rest = format!(
        "[[listener]]\nname = \"local\"\naddress = \"unix:{}\"\n[[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\n",
        socket.display()
    );
    let mut line = Line::start(&rest).await;
    let before = line.pid().await;
    line.first.signal(Signal::USR2);
    let event = line.first.stderr_line("Upgrade finished").await;
    let after = line.pid().await;
    assert!(after != before && event.contains(&format!("pid={after}")), "{event}");
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
    let mut client = Client::connect_unix(&socket).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "ok");
    assert_eq!(line.get("/").await.text(), "ok");
    // The last one takes the files along.
    assert_eq!(line.command("drain").await.status.code(), Some(0));
    assert!(eventually(DEADLINE, || !socket.exists() && !line.folder.join("admin.sock").exists()).await);
}

#[tokio::test]
async fn limits_breakers_and_ejections_go_on_where_they_stood() {
    let bad = FakeUpstream::http1().route("*", Reply::status(500, "no")).start().await;
    let good = FakeUpstream::http1().route("*", "good").start().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rest = format!(
        "[[route]]\nname = \"limited\"\npath = [\"/limited\"]\nrespond = {{ body = \"ok\" }}\nlimits = [\"l\"]\n\
         [[route]]\nname = \"bad\"\npath = [\"/bad\"]\nupstream = \"bad\"\n\
         [[route]]\nname = \"two\"\npath = [\"/two\"]\nupstream = \"two\"\n[limit.l]\nrate = \"4/1h\"\n\
         [upstream.bad]\nendpoints = [\"{}\"]\n[upstream.bad.breaker]\nfailures = 2\nopen = \"1h\"\nmax_open = \"1h\"\n\
         [upstream.two]\nendpoints = [\"{gone}\", \"{}\"]\nbalance = \"round_robin\"\n[upstream.two.ejection]\nfailures = 1\n\
         base = \"10m\"\nmax = \"1h\"\n",
        bad.endpoint(),
        good.endpoint()
    );
    let line = Line::start(&rest).await;
    for _ in 0..3 {
        assert_eq!(line.get("/limited").await.status, 200);
    }
    for status in [500, 500, 503] {
        assert_eq!(line.get("/bad").await.status, status);
    }
    for _ in 0..3 {
        assert_eq!(line.get("/two").await.status, 200);
    }
    assert_eq!(line.first.stderr().matches("Endpoint ejected").count(), 1, "{}", line.first.stderr());
    for _ in 0..2 {
        let upgraded = line.upgrade().await;
        assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
    }
    assert_eq!(line.get("/limited").await.status, 200);
    assert_eq!(line.get("/limited").await.status, 429);
    let refused = line.get("/bad").await;
    assert_eq!((refused.status, refused.header("flagstone-reason")), (503, Some("circuit_open")));
    for _ in 0..4 {
        assert_eq!(line.get("/two").await.status, 200);
    }
    let log = line.first.stderr();
    assert_eq!((log.matches("Endpoint ejected").count(), log.matches("breaker opened").count()), (1, 1), "{log}");
}

#[tokio::test]
async fn a_new_process_that_fails_leaves_the_old_one_serving() {
    let mut line = Line::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let pid = line.pid().await;
    let original = std::fs::read(line.folder.join("flagstone")).unwrap();
    let config = line.folder.read("flagstone.toml");
    let failures = [
        ("#!/bin/sh\nexit 3\n", "it ended with exit code 3"),
        ("#!/bin/sh\nkill -9 $$\n", "it ended by signal 9"),
        ("no program", "its program cannot be run"),
    ];
    for (script, why) in failures {
        line.replace_program(script);
        let failed = line.upgrade().await;
        assert_eq!((failed.status.code(), failed.stdout.as_str()), (Some(1), ""), "{failed:?}");
        assert!(
            failed.stderr.contains(why) && failed.stderr.contains("the old process serves on"),
            "{}",
            failed.stderr
        );
        line.first.stderr_line(why).await;
        assert_eq!((line.pid().await, line.get("/").await.status), (pid, 200));
    }
    std::fs::remove_file(line.folder.join("flagstone")).unwrap();
    assert_eq!(line.upgrade().await.status.code(), Some(1));
    // The program is well, its configuration is not.
    line.folder.write("flagstone", original);
    let program = line.folder.join("flagstone");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    line.folder.replace("flagstone.toml", config.replace("[[route]]", "[[rout]]"));
    let failed = line.upgrade().await;
    assert!(failed.stderr.contains("rout: unknown key: did you mean \"route\"?"), "{}", failed.stderr);
    assert_eq!((line.pid().await, line.get("/").await.status), (pid, 200));
    line.folder.replace("flagstone.toml", config);
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    assert_eq!((line.pid().await == pid, line.get("/").await.status), (false, 200));
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn a_new_process_that_hangs_is_given_up() {
    let line = Line::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let pid = line.pid().await;
    line.replace_program("#!/bin/sh\nexec sleep 300\n");
    let failed = line.upgrade().await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("it took longer than 20 s"), "{}", failed.stderr);
    assert_eq!((line.pid().await, line.get("/").await.status), (pid, 200));
    assert_eq!(line.processes(), [pid]);
}

/// The child of a process, as soon as there is one.
async fn child_of(pid: u32) -> u32 {
    let mut child = None;
    let children = || -> Option<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        lists.collect::<String>().split_whitespace().next()?.parse().ok()
    };
    let found = async {
        loop {
            child = children();
            if child.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found).await.expect("a child");
    child.unwrap()
}

#[tokio::test]
async fn a_new_process_killed_at_any_moment_before_it_has_taken_over_costs_nothing() {
    let line = Line::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let pid = line.pid().await;
    let load = Load::get(line.address, "/").tasks(2).pause(Duration::from_millis(5)).start();
    for (round, after) in [0, 20, 60, 120, 250].into_iter().enumerate() {
        line.first.signal(Signal::USR2);
        let child = child_of(pid).await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        kill(child);
        let told = eventually(DEADLINE, || line.first.stderr().matches("Upgrade failed").count() == round + 1).await;
        assert!(told, "{}", line.first.stderr());
        assert!(load.reaches(20, DEADLINE).await);
    }
    load.stop().await.assert_clean();
    assert_eq!((line.pid().await, line.processes()), (pid, vec![pid]));
}

/// What it was doing is lost with it, but nobody is refused afterwards.
#[tokio::test]
async fn when_the_old_process_is_killed_in_a_hand_over_the_new_one_serves_on() {
    for after in [0, 30, 100, 300] {
        let line = Line::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
        let pid = line.first.id();
        line.first.signal(Signal::USR2);
        child_of(pid).await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        kill(pid);
        // The sockets are open in the new one already: a client waits, and is answered.
        assert_eq!(line.get("/").await.text(), "ok", "{after} ms: {}", line.first.stderr());
        assert_ne!(line.pid().await, pid);
        assert_eq!(line.upgrade().await.status.code(), Some(0));
        assert_eq!(line.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn a_drain_calls_an_upgrade_off() {
    let mut line = Line::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    line.replace_program("#!/bin/sh\nexec sleep 300\n");
    line.first.signal(Signal::USR2);
    child_of(line.first.id()).await;
    line.first.signal(Signal::TERM);
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
    assert!(eventually(DEADLINE, || line.processes().is_empty()).await, "{:?}", line.processes());
}
