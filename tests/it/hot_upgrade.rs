//! Another process of the program takes over: sockets, state and requests, whatever goes wrong with either.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;

use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::lineage::{Lineage, kill, signal};
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::port::Port;
use crate::support::process::{DEADLINE, Flagstone, Process, Signal, catches, children, stop};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

fn app(upstream: &FakeUpstream) -> String {
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\nidle_timeout = \"30s\"\n",
        upstream.endpoint()
    )
}

#[tokio::test]
async fn what_is_in_flight_finishes_where_it_began() {
    let now = Arc::new(Notify::new());
    let slow = Reply::ok("at last").at(&now);
    let upstream = FakeUpstream::http1().route("/slow", slow).route("*", "ok").start().await;
    let mut line = Lineage::start(&app(&upstream)).await;
    let mut busy = Client::connect(line.address).await.unwrap();
    busy.request("GET", "/slow", "").await.unwrap();
    let mut idle = Client::connect(line.address).await.unwrap();
    idle.get("/").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 2).await);
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    // A kept connection is told with an answer, from the drain on, which begins a moment after the upgrade is answered.
    let (mut last, deadline) = (idle.get("/").await.unwrap(), Instant::now() + DEADLINE);
    while last.header("connection").is_none() && Instant::now() < deadline {
        last = idle.get("/").await.unwrap();
    }
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    idle.expect_closed().await.unwrap();
    now.notify_one();
    let answer = busy.read_response().await.unwrap();
    assert_eq!((answer.text(), answer.header("connection")), ("at last".into(), Some("close")));
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(line.get("/").await.text(), "ok");
}

#[tokio::test]
async fn scripts_get_json_of_an_upgrade_and_of_a_drain() {
    let mut line = Lineage::start("[[route]]\nname = \"a\"\nrespond = { body = \"a\" }\n").await;
    let upgraded = line.json("upgrade").await;
    assert_eq!((&upgraded["previousPid"], &upgraded["pid"]), (&line.first.id().into(), &line.pid().await.into()));
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
    let draining = line.json("drain").await;
    assert_eq!((&draining["pid"], &draining["graceSeconds"]), (&upgraded["pid"], &5.0.into()));
    assert!(eventually(DEADLINE, || line.processes().is_empty()).await);
}

#[tokio::test]
async fn usr2_upgrades_and_a_socket_file_stays() {
    let folder = Folder::new();
    let socket = folder.join("web.sock");
    let rest = format!(
        "[[listener]]\nname = \"local\"\naddress = \"unix:{}\"\n[[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\n",
        socket.display()
    );
    let mut line = Lineage::start(&rest).await;
    let before = line.pid().await;
    line.first.signal(Signal::USR2);
    let event = line.first.stderr_line("Upgrade finished").await;
    // Both have the admin socket for a moment.
    assert!(eventually_async(DEADLINE, async || line.pid().await != before).await, "{event}");
    let after = line.pid().await;
    assert!(event.contains(&format!("pid={after}")), "{event}");
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
    let gone = Port::reserve();
    let rest = format!(
        "[[route]]\nname = \"limited\"\npath = [\"/limited\"]\nrespond = {{ body = \"ok\" }}\nlimits = [\"l\"]\n\
         [[route]]\nname = \"bad\"\npath = [\"/bad\"]\nupstream = \"bad\"\n\
         [[route]]\nname = \"two\"\npath = [\"/two\"]\nupstream = \"two\"\n[limit.l]\nrate = \"4/1h\"\n\
         [upstream.bad]\nendpoints = [\"{}\"]\n[upstream.bad.breaker]\nfailures = 2\nopen = \"1h\"\nmax_open = \"1h\"\n\
         [upstream.two]\nendpoints = [\"{}\", \"{}\"]\nbalance = \"round_robin\"\n[upstream.two.ejection]\nfailures = 1\n\
         base = \"10m\"\nmax = \"1h\"\n",
        bad.endpoint(),
        gone.address(),
        good.endpoint()
    );
    let mut line = Lineage::start(&rest).await;
    for _ in 0..3 {
        assert_eq!(line.get("/limited").await.status, 200);
    }
    for status in [500, 500, 503] {
        assert_eq!(line.get("/bad").await.status, status);
    }
    for _ in 0..3 {
        assert_eq!(line.get("/two").await.status, 200);
    }
    line.first.stderr_line("Endpoint ejected").await;
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

/// What is said of them is more than the new process can be told before it listens.
#[tokio::test]
async fn sockets_are_passed_by_the_hundreds() {
    const LISTENERS: u64 = 800;
    if getrlimit(Resource::Nofile).current.is_some_and(|limit| limit < 4 * LISTENERS) {
        left_out!("there are not enough descriptors");
    }
    let name = "界".repeat(95);
    let listener = |number| format!("[[listener]]\nname = \"{number}-{name}\"\naddress = \"127.0.0.1:0\"\n");
    let listeners: String = (0..LISTENERS).map(listener).collect();
    let line = Lineage::start(&format!("{listeners}[[route]]\nname = \"a\"\nrespond = {{ body = \"a\" }}\n")).await;
    let before = line.pid().await;
    let upgraded = line.upgrade().await;
    assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
    assert_eq!((line.get("/").await.text(), line.pid().await == before), ("a".to_owned(), false));
}

#[tokio::test]
async fn who_is_blocked_after_an_upgrade_is_blocked_in_the_old_process_too() {
    let rest = "[[route]]\nname = \"a\"\nrespond = { body = \"a\" }\n";
    let mut line = Lineage::start_in(Folder::new(), rest, "shutdown_grace = \"40s\"\n").await;
    // Each has one more answer.
    let mut kept = Vec::new();
    for _ in 0..500 {
        let mut client = Client::connect(line.address).await.unwrap();
        client.get("/").await.unwrap();
        kept.push(client);
    }
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    let mut admin = Client::connect_unix(line.folder.join("admin.sock")).await.unwrap();
    let (call, body) = ("POST /api/admin/blocklist HTTP/1.1\r\nHost: localhost\r\n", "{\"cidr\": \"127.0.0.1\"}");
    admin.send(format!("{call}Content-Length: {}\r\n\r\n{body}", body.len())).await.unwrap();
    let blocked = admin.read_response().await.unwrap();
    assert_eq!(blocked.status, 200, "{}", blocked.text());
    let is_refused = async || kept.pop().expect("it is still not blocked").get("/").await.unwrap().status == 403;
    assert!(eventually_async(DEADLINE, is_refused).await);
    assert!(line.first.ended().is_none(), "it was the old process that answered");
}

/// Three of four failures came before the upgrade.
#[tokio::test]
async fn the_window_of_a_breaker_goes_on_where_it_stood() {
    let bad = FakeUpstream::http1().route("*", Reply::status(500, "no")).start().await;
    let breaker = "[upstream.app.breaker]\nfailures = 1000\nfailure_ratio = 0.9\nmin_requests = 4\nwindow = \"10m\"\n";
    let line = Lineage::start(&format!("{}{breaker}", app(&bad))).await;
    for _ in 0..3 {
        assert_eq!(line.get("/").await.status, 500);
    }
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    assert_eq!(line.get("/").await.status, 500);
    let refused = line.get("/").await;
    assert_eq!((refused.status, refused.header("flagstone-reason")), (503, Some("circuit_open")));
}

#[tokio::test]
async fn a_new_process_that_fails_leaves_the_old_one_serving() {
    let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
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

/// As `kill -USR1 $(pidof flagstone)` finds one that has not come to its first line.
#[tokio::test]
async fn a_new_process_that_is_signalled_at_once_takes_over() {
    let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let pid = line.pid().await;
    let signals = "for signal in HUP USR1 USR2; do kill -$signal $$; done";
    line.replace_program(&format!("#!/bin/sh\n{signals}\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_flagstone")));
    let upgraded = line.upgrade().await;
    assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
    assert_eq!((line.pid().await == pid, line.get("/").await.status), (false, 200));
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn a_new_process_that_hangs_is_given_up() {
    let line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let pid = line.pid().await;
    line.replace_program("#!/bin/sh\nexec sleep 300\n");
    let failed = line.upgrade().await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("it took longer than 20 s"), "{}", failed.stderr);
    assert_eq!((line.pid().await, line.get("/").await.status), (pid, 200));
    assert_eq!(line.processes(), [pid]);
}

/// It does not serve on, as after other failures.
#[tokio::test]
async fn a_process_that_drains_says_no_more_than_that_when_it_is_to_be_upgraded() {
    let now = Arc::new(Notify::new());
    let upstream = FakeUpstream::http1().route("*", Reply::ok("at last").at(&now)).start().await;
    let mut line = Lineage::start(&app(&upstream)).await;
    let mut busy = Client::connect(line.address).await.unwrap();
    busy.request("GET", "/", "").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    line.first.signal(Signal::TERM);
    line.first.stderr_line("draining").await;
    let refused = line.upgrade().await;
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(refused.stderr, "flagstone: this process is on its way out\n");
    now.notify_one();
    assert_eq!(busy.read_response().await.unwrap().text(), "at last");
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
}

/// Both write to one stderr, and who reads it as JSON, say, is to find the lines of a log and nothing else.
#[tokio::test]
async fn what_a_new_process_refuses_is_told_by_the_log_of_the_old_one() {
    let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let text = line.folder.read("flagstone.toml");
    // Not watched, so that no reload tells of it before.
    stop(&line.first).await;
    line.folder.replace("flagstone.toml", format!("{text}[maintenance]\nstatus = 99\nretry_after = \"soon\"\n"));
    line.first.signal(Signal::USR2);
    line.first.signal(Signal::CONT);
    let event = line.first.stderr_line("Upgrade failed").await;
    assert!(event.contains("maintenance.status = 99") && event.contains("; and 1 more\""), "{event}");
    for path in ["maintenance.status", "maintenance.retry_after"] {
        assert!(eventually(DEADLINE, || line.first.stderr().contains(&format!(" {path} = "))).await, "{path}");
    }
    let stderr = line.first.stderr();
    assert!(stderr.lines().all(|line| line.starts_with("20")), "{stderr}");
}

/// The child of a process, as soon as there is one.
async fn child_of(pid: u32) -> u32 {
    let found = async {
        loop {
            if let Some(child) = children(pid).first() {
                return *child;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found).await.expect("a child")
}

#[tokio::test]
async fn a_new_process_killed_at_any_moment_before_it_has_taken_over_costs_nothing() {
    let line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let pid = line.pid().await;
    let load = Load::get(line.address, "/").tasks(2).pause(Duration::from_millis(5)).start();
    for (round, after) in [0, 20, 60, 120, 250].into_iter().enumerate() {
        line.first.signal(Signal::USR2);
        let child = child_of(pid).await;
        // What hands over stands still meanwhile, so that the new one cannot have taken over, however late we wake up.
        stop(&line.first).await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        kill(child);
        line.first.signal(Signal::CONT);
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
        let line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
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
async fn of_two_upgrades_at_once_the_second_is_refused() {
    let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    line.replace_program("#!/bin/sh\nexec sleep 300\n");
    line.first.signal(Signal::USR2);
    child_of(line.first.id()).await;
    let second = line.upgrade().await;
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.contains("an upgrade is under way already"), "{}", second.stderr);
    line.first.signal(Signal::TERM);
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_calls_an_upgrade_off() {
    let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    line.replace_program("#!/bin/sh\nexec sleep 300\n");
    line.first.signal(Signal::USR2);
    child_of(line.first.id()).await;
    line.first.signal(Signal::TERM);
    assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
    assert!(eventually(DEADLINE, || line.processes().is_empty()).await, "{:?}", line.processes());
}

/// Else it would take the old one for dead and serve on, on sockets that no longer let anybody in.
#[tokio::test]
async fn nobody_is_left_of_an_upgrade_that_is_called_off_while_both_accept() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut was_called_off = false;
        for _ in 0..5 {
            let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
            line.first.signal(Signal::USR2);
            let both_listen = || line.first.stderr().matches("admin listening").count() == 2;
            assert!(eventually(DEADLINE, both_listen).await, "{}", line.first.stderr());
            line.first.signal(signal);
            assert_eq!(line.first.wait(DEADLINE).await.code(), Some(0));
            // Both accept for half a second, which a busy machine may let pass before the signal.
            if !line.first.stderr().contains("Upgrade finished") {
                assert!(line.processes().is_empty(), "{:?} {}", line.processes(), line.first.stderr());
                was_called_off = true;
                break;
            }
        }
        assert!(was_called_off, "{signal:?} came too late each time");
    }
}

/// Both see the flag while the old one drains. The one that serves says so; so it is with what was told before the
/// upgrade.
#[tokio::test]
async fn of_two_processes_one_tells_of_maintenance() {
    let upstream = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let line = Lineage::start_in(Folder::new(), &app(&upstream), "shutdown_grace = \"20s\"\n").await;
    let told = |what: &str| line.first.stderr().matches(what).count();
    let comes_to = async |what: &'static str, count: usize| eventually(DEADLINE, || told(what) == count).await;
    // Holds the old process in its drain.
    let mut busy = Client::connect(line.address).await.unwrap();
    busy.request("GET", "/", "").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    line.folder.write("state/maintenance.flag", "");
    assert!(comes_to("Maintenance mode activated", 1).await);
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    assert_eq!(line.processes().len(), 2);
    line.folder.remove("state/maintenance.flag");
    assert!(comes_to("Maintenance mode deactivated", 1).await, "{}", line.first.stderr());
    line.folder.write("state/maintenance.flag", "");
    assert!(comes_to("Maintenance mode activated", 2).await, "{}", line.first.stderr());
    // Whatever the other one has to say, it has said by the time it has ended.
    line.folder.remove("state/maintenance.flag");
    drop(busy);
    assert!(eventually(DEADLINE, || line.processes().len() == 1).await);
    assert!(comes_to("Maintenance mode deactivated", 2).await, "{}", line.first.stderr());
    assert_eq!(told("Maintenance mode activated"), 2, "{}", line.first.stderr());
}

/// What deploys: a new file, and an upgrade at once. Whoever of the two processes binds the new listener, the other one
/// does not get into its way.
#[tokio::test]
async fn an_upgrade_right_after_a_change_of_the_file_has_what_the_file_says() {
    let line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let original = line.folder.read("flagstone.toml");
    let mut before = line.pid().await;
    for round in 0..6_u64 {
        let socket = line.folder.join(format!("round-{round}.sock"));
        let more = format!("[[listener]]\nname = \"more-{round}\"\naddress = \"unix:{}\"\n", socket.display());
        line.folder.replace("flagstone.toml", format!("{original}{more}"));
        // From before the watcher looks until after it has reloaded.
        tokio::time::sleep(Duration::from_millis(round * 30)).await;
        let upgraded = line.upgrade().await;
        assert_eq!(upgraded.status.code(), Some(0), "round {round}: {upgraded:?}\n{}", line.first.stderr());
        let mut client = Client::connect_unix(&socket).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().text(), "ok");
        assert_eq!(line.get("/").await.text(), "ok");
        let pid = line.pid().await;
        assert_ne!(pid, std::mem::replace(&mut before, pid));
    }
    assert!(!line.first.stderr().contains("Configuration rejected"), "{}", line.first.stderr());
}

/// The place that a reload has given to the admin side is handed over as any other.
#[tokio::test]
async fn an_admin_side_that_has_moved_is_handed_over_where_it_is() {
    let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let text = line.folder.read("flagstone.toml");
    line.folder.replace("flagstone.toml", text.replace("admin.sock", "moved.sock"));
    let moved = line.folder.join("moved.sock");
    line.first.stderr_line(&format!("admin listening address=unix:{}", moved.display())).await;
    assert!(eventually(DEADLINE, || !line.folder.join("admin.sock").exists()).await);
    for _ in 0..2 {
        let upgraded = line.upgrade().await;
        assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
        assert!(eventually(DEADLINE, || line.processes().len() == 1).await);
        assert!(moved.exists());
    }
    assert_eq!(line.command("drain").await.status.code(), Some(0));
    assert!(eventually(DEADLINE, || line.processes().is_empty() && !moved.exists()).await);
}

/// Whatever is answered with 200 holds: in the process that takes over, and in its file. The old one, which still has a
/// request, leaves the file alone when something of its own is over.
#[tokio::test]
async fn what_is_changed_during_an_upgrade_is_kept() {
    let upstream = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let line = Lineage::start_in(Folder::new(), &app(&upstream), "shutdown_grace = \"30s\"\n").await;
    let mut busy = Client::connect(line.address).await.unwrap();
    busy.request("GET", "/", "").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    assert_eq!(block(&line, "203.0.113.1/32", Some(3)).await, Some(200));
    let mut blocked = Vec::new();
    let mut upgraded = std::pin::pin!(line.upgrade());
    for number in 0_u32.. {
        let net = format!("198.51.{}.{}/32", number / 256, number % 256);
        match block(&line, &net, None).await {
            Some(200) => blocked.push(net),
            // The old one has just been left.
            refused => assert!(refused.is_none_or(|status| status == 503), "{refused:?}"),
        }
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(10), upgraded.as_mut()).await {
            assert_eq!(ended.status.code(), Some(0), "{ended:?}");
            break;
        }
    }
    assert_eq!(block(&line, "192.0.2.1/32", None).await, Some(200));
    blocked.push("192.0.2.1/32".to_owned());
    let on_disk = || line.folder.read("state/blocklist.json");
    assert!(eventually(DEADLINE, || !on_disk().contains("203.0.113.1")).await, "{}", on_disk());
    assert_eq!(line.processes().len(), 2);
    let shown = line.json("blocked").await.to_string();
    for net in &blocked {
        assert!(shown.contains(net) && on_disk().contains(net), "{net} is lost of {}", blocked.len());
    }
}

/// As with what is kept in files: whatever is answered with 200 holds in the process that takes over.
#[tokio::test]
async fn a_breaker_that_is_opened_during_an_upgrade_stays_open() {
    let upstream = |number| format!("[upstream.u{number}]\nendpoints = [\"127.0.0.1:1\"]\n");
    let route = "[[route]]\nname = \"a\"\nrespond = { body = \"a\" }\n".to_owned();
    let line = Lineage::start(&(0..1_000).map(upstream).fold(route, |all, one| all + &one)).await;
    let mut opened = Vec::new();
    let mut upgraded = std::pin::pin!(line.upgrade());
    for number in 0..1_000 {
        let name = format!("u{number}");
        match post(&line, &format!("/api/admin/circuit-breakers/{name}/open"), "").await {
            Some(200) => opened.push(name),
            // The old one has just been left.
            refused => assert!(refused.is_none_or(|status| status == 503), "{refused:?}"),
        }
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(10), upgraded.as_mut()).await {
            assert_eq!(ended.status.code(), Some(0), "{ended:?}");
            break;
        }
    }
    let shown = &line.json("status").await["circuitBreakers"];
    let lost: Vec<_> = opened.iter().filter(|name| shown[name.as_str()]["state"] != "OPEN").collect();
    assert!(lost.is_empty(), "{lost:?} of {}", opened.len());
    assert_eq!(post(&line, "/api/admin/circuit-breakers/u0/reset", "").await, Some(200));
}

/// It waits for the upgrade, and then the file is another process's business: nothing is wrong with it.
#[tokio::test]
async fn a_reload_asked_for_in_an_upgrade_is_to_be_tried_again() {
    let mut line = Lineage::start("[[route]]\nname = \"a\"\nrespond = { body = \"a\" }\n").await;
    let call = "POST /api/admin/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let mut admin = Client::connect_unix(line.folder.join("admin.sock")).await.unwrap();
    admin.send(call).await.unwrap();
    assert_eq!(admin.read_response().await.unwrap().status, 200);
    line.first.signal(Signal::USR2);
    line.first.stderr_line("upgrading").await;
    admin.send(call).await.unwrap();
    let answer = admin.read_response().await.unwrap();
    assert_eq!((answer.status, answer.text().contains("try again")), (503, true), "{}", answer.text());
    let tried_again = async || {
        let mut admin = Client::connect_unix(line.folder.join("admin.sock")).await.ok()?;
        admin.send(call).await.ok()?;
        Some(admin.read_response().await.ok()?.status)
    };
    assert!(eventually_async(DEADLINE, async || tried_again().await == Some(200)).await);
}

/// The status of the answer, if one came.
async fn block(line: &Lineage, cidr: &str, seconds: Option<u64>) -> Option<u16> {
    post(line, "/api/admin/blocklist", &serde_json::json!({ "cidr": cidr, "ttlSeconds": seconds }).to_string()).await
}

/// The same of any call.
async fn post(line: &Lineage, path: &str, body: &str) -> Option<u16> {
    let mut client = Client::connect_unix(line.folder.join("admin.sock")).await.ok()?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head + body).await.ok()?;
    Some(client.read_response().await.ok()?.status)
}

/// As a reload refuses it.
#[tokio::test]
async fn a_new_process_whose_tests_fail_does_not_take_over() {
    let line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let pid = line.pid().await;
    let text = line.folder.read("flagstone.toml");
    let test = "[[test]]\nname = \"t\"\nrequest = { url = \"http://a/\" }\nexpect = { status = 404 }\n";
    line.folder.replace("flagstone.toml", format!("{text}{test}"));
    let failed = line.upgrade().await;
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(failed.stderr.contains("test[0]"), "{}", failed.stderr);
    assert_eq!(line.pid().await, pid);
}

/// The flag lies where only the new process looks.
#[tokio::test]
async fn maintenance_that_an_upgrade_brings_is_told() {
    let mut line =
        Lineage::start("[maintenance]\nflag = \"old.flag\"\n[[route]]\nname = \"all\"\nrespond = {}\n").await;
    let stays = line.folder.write("state/maintenance.d/all.flag", "");
    line.first.stderr_line("Maintenance mode activated scope=all").await;
    line.folder.write("state/new.flag", "reason = \"moved\"\n");
    let text = line.folder.read("flagstone.toml");
    // Not watched, so that no reload comes before the upgrade.
    stop(&line.first).await;
    line.folder.replace("flagstone.toml", text.replace("old.flag", "new.flag"));
    line.first.signal(Signal::USR2);
    line.first.signal(Signal::CONT);
    line.first.stderr_line("Upgrade finished").await;
    let told = line.first.stderr_line("Maintenance mode activated scope=global").await;
    assert!(told.contains("reason=moved"), "{told}");
    std::fs::remove_file(stays).unwrap();
    line.first.stderr_line("Maintenance mode deactivated scope=all").await;
    assert_eq!(line.first.stderr().matches("Maintenance mode activated scope=all").count(), 1);
}

#[tokio::test]
async fn a_new_process_that_is_told_to_go_leaves_the_sockets_to_the_old_one() {
    let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let pid = line.first.id();
    line.first.signal(Signal::USR2);
    let child = child_of(pid).await;
    // Then it cannot have taken over when the signal comes.
    stop(&line.first).await;
    // Before it runs the program, it has the environment and the handlers of its parent.
    let environment = || std::fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
    let is_new = || String::from_utf8_lossy(&environment()).contains("FLAGSTONE_HANDOVER=");
    assert!(eventually(DEADLINE, || is_new() && catches(child, Signal::TERM)).await);
    signal(child, Signal::TERM);
    line.first.signal(Signal::CONT);
    line.first.stderr_line("Upgrade failed").await;
    assert_eq!(line.get("/").await.text(), "ok");
    assert_eq!((line.pid().await, line.processes()), (pid, vec![pid]));
}

/// The old process still has something to do when the new one dies. A third finds every address free.
#[tokio::test]
async fn what_has_handed_over_keeps_no_address() {
    let upstream = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let line = Lineage::start_in(Folder::new(), &app(&upstream), "shutdown_grace = \"1m\"\n").await;
    let mut busy = Client::connect(line.address).await.unwrap();
    busy.request("GET", "/", "").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    let first = line.first.id();
    kill(line.processes().into_iter().find(|pid| *pid != first).unwrap());
    let socket = line.folder.join("admin.sock");
    assert!(eventually_async(DEADLINE, async || Client::connect_unix(&socket).await.is_err()).await);
    let file = line.folder.join("flagstone.toml");
    let mut third = Process::start(&mut Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]));
    third.stderr_line("admin listening").await;
    assert!(line.processes().contains(&first));
}

/// The addresses of the file overlap those that the old process has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_widen_and_narrow_on_their_ports_in_an_upgrade() {
    let mut line = Lineage::start("[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n").await;
    let text = line.folder.read("flagstone.toml");
    let (before, after) = text.split_once("[admin]\n").unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    let at = |host: &str, web: u16, admin: u16| {
        let after = after.replace("127.0.0.1:0", &format!("{host}:{web}"));
        format!("{before}[admin]\nlisten = \"{host}:{admin}\"\ntoken = \"secret\"\n{after}")
    };
    line.folder.replace("flagstone.toml", at("127.0.0.1", 0, 0));
    let told = line.first.stderr_line("admin listening address=127.0.0.1:").await;
    let (web, admin) = (line.address.port(), told.rsplit(':').next().unwrap().trim().parse().unwrap());
    let load = Load::get(line.address, "/").tasks(2).on_fresh_connections().start();
    let mut serving = line.first.id();
    for (round, host) in ["0.0.0.0", "127.0.0.1"].into_iter().enumerate() {
        line.folder.replace("flagstone.toml", at(host, web, admin));
        signal(serving, Signal::USR2);
        let count = || line.first.stderr().matches("Upgrade finished").count();
        assert!(eventually(DEADLINE, || count() == round + 1).await, "{}", line.first.stderr());
        assert!(eventually(DEADLINE, || line.processes().len() == 1).await);
        serving = line.processes()[0];
        for port in [web, admin] {
            let elsewhere = std::net::SocketAddr::from(([127, 0, 0, 2], port));
            assert_eq!(Client::connect(elsewhere).await.is_ok(), host == "0.0.0.0", "{elsewhere}");
        }
        assert!(load.reaches(20, DEADLINE).await);
    }
    load.stop().await.assert_clean();
}
