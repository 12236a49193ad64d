//! What goes wrong around a configuration file, and a thousand reloads.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::support::admin;
use crate::support::certs::Ca;
use crate::support::client::{self, Client};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Process, Signal, resident_bytes};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const PROCESS: &str = "[server]\nstate_dir = \"state\"\nworkers = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
                       [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";

fn says(text: &str) -> String {
    format!("{PROCESS}[[route]]\nname = \"all\"\nrespond = {{ body = \"{text}\" }}\n")
}

async fn comes_to_say(address: SocketAddr, text: &str) -> bool {
    eventually_async(DEADLINE, async || client::get(address, "/").await.unwrap().text() == text).await
}

async fn address(process: &mut Process) -> SocketAddr {
    let line = process.stderr_line("listening name=web").await;
    line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap()
}

#[tokio::test]
async fn a_file_that_stays_away_is_told_of_once() {
    let mut flagstone = Flagstone::serve(&says("one")).await;
    let address = flagstone.address("web").await;
    flagstone.folder.remove("flagstone.toml");
    let line = flagstone.process.stderr_line("the configuration cannot be read: the one before it serves on").await;
    assert!(line.contains("flagstone.toml") && line.contains("no such file or folder"), "{line}");
    assert_eq!(client::get(address, "/").await.unwrap().text(), "one");
    flagstone.folder.write("flagstone.toml", says("two"));
    assert!(comes_to_say(address, "two").await);
    assert_eq!(flagstone.process.stderr().matches("cannot be read").count(), 1);
}

/// As a shell passes one with `-c <(…)`: what came out of it will not come again.
#[tokio::test]
async fn a_pipe_is_read_once() {
    let folder = Folder::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let text = says("one").replace("\"state\"", &format!("{:?}", folder.join("state")));
    std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
    drop(writer);
    let mut process = Process::start_with_stdin(&mut Flagstone::command(["run", "-c", "/dev/stdin"]), reader.into());
    let web = address(&mut process).await;
    assert!(comes_to_say(web, "one").await);
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().flatten();
    let names: Vec<_> = threads.map(|it| std::fs::read_to_string(it.path().join("comm")).unwrap_or_default()).collect();
    assert!(!names.iter().any(|name| name.starts_with("config-watcher")), "{names:?}");
    process.signal(Signal::HUP);
    process.stderr_line("cannot read the configuration: it is not a regular file").await;
    assert!(comes_to_say(web, "one").await);
}

/// A container gets a single file mounted; outside it is written in place.
#[tokio::test]
async fn a_file_that_is_mounted_alone_is_followed_with_a_warning() {
    or_left_out!(program("unshare"));
    if !rustix::process::geteuid().is_root() {
        left_out!("mounting needs root");
    }
    let folder = Folder::new();
    let (outside, inside) = (folder.write("outside.toml", says("one")), folder.write("in side/flagstone.toml", ""));
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$1\" \"$2\" && exec \"$0\" run -c \"$2\"";
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_flagstone")]).args([&outside, &inside]);
    let mut process = Process::start(&mut command);
    process.stderr_line("the configuration is mounted as a file by itself").await;
    let web = address(&mut process).await;
    assert!(comes_to_say(web, "one").await);
    folder.write("outside.toml", says("two"));
    assert!(comes_to_say(web, "two").await, "{}", process.stderr());
}

#[tokio::test]
async fn a_system_without_watches_left_is_looked_at_once_a_second() {
    or_left_out!(program("strace"));
    // strace lets go of what it traces when it is killed, as at the end of this test.
    let setpriv = or_left_out!(program("setpriv"));
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", says("one"));
    let mut command = Command::new("strace");
    command.args([
        "-f",
        "-qq",
        "-e",
        "trace=inotify_add_watch",
        "-e",
        "inject=inotify_add_watch:error=ENOSPC",
        "-o",
        "/dev/null",
    ]);
    command.arg(setpriv).args(["--pdeathsig", "KILL"]);
    command.args([OsStr::new(env!("CARGO_BIN_EXE_flagstone")), "run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let mut process = Process::start(&mut command);
    let web = address(&mut process).await;
    assert!(comes_to_say(web, "one").await);
    for text in ["two", "three"] {
        folder.replace("flagstone.toml", says(text));
        assert!(comes_to_say(web, text).await, "{}", process.stderr());
    }
    let told = process.stderr();
    let told: Vec<_> =
        told.lines().filter(|line| line.contains("the configuration is looked at once a second")).collect();
    assert_eq!(told.len(), 1, "once, and once only: {told:?}");
}

/// A hundred times a second, for a while, with time for the watcher to catch some of it.
#[tokio::test]
async fn of_valid_and_invalid_in_turn_the_last_valid_one_wins() {
    let mut flagstone = Flagstone::serve(&says("one")).await;
    let web = flagstone.address("web").await;
    for round in 0..300 {
        let text = if round % 2 == 0 { "[[[ no TOML".to_owned() } else { says(&format!("round {}", round % 5)) };
        flagstone.folder.replace("flagstone.toml", text);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(client::get(web, "/").await.unwrap().status, 200);
    }
    assert!(comes_to_say(web, "round 4").await, "{}", flagstone.process.stderr());
    // What is wrong now changes nothing of it.
    flagstone.folder.replace("flagstone.toml", "[[[");
    flagstone.process.stderr_line("flagstone.toml:1:").await;
    assert_eq!(client::get(web, "/").await.unwrap().text(), "round 4");
}

/// Taken from /proc, where threads and descriptors are.
fn counted(id: u32, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{id}/{what}")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_leave_nothing_behind() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let toml = |round: usize| {
        // Each round changes an upstream, a limit and the log; every third a listener comes or goes.
        let other =
            if round.is_multiple_of(3) { "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\n" } else { "" };
        let log = if round.is_multiple_of(2) { "access.log" } else { "other.log" };
        format!(
            "{}{other}[[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"per_ip\"]\n[limit.per_ip]\nrate = \"{}/1s\"\n\
             [upstream.app]\nendpoints = [\"{}\"]\nmax_idle = {}\n[upstream.app.health]\ntcp = true\n[maintenance]\nflag = \"{}.flag\"\n",
            PROCESS.replace("\"off\"", &format!("\"{log}\"")),
            100_000 + round,
            upstream.endpoint(),
            8 + round % 5,
            round % 2,
        )
    };
    let mut flagstone = Flagstone::serve(&toml(0)).await;
    let (web, admin, id) = (flagstone.address("web").await, flagstone.admin().await, flagstone.process.id());
    let kept = Load::get(web, "/").tasks(3).pause(Duration::from_millis(2)).start();
    let fresh = Load::get(web, "/").on_fresh_connections().tasks(1).pause(Duration::from_millis(5)).start();
    let (mut early, mut late, mut threads, mut descriptors) = (0, u64::MAX, 0, 0);
    for round in 1..=1000 {
        flagstone.folder.write("flagstone.toml", toml(round));
        let answer = admin::ask(admin, "POST", "/api/admin/reload").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        if (100..=300).contains(&round) && round.is_multiple_of(20) {
            // Warm by now: pools, buffers, the allocator.
            early = early.max(resident_bytes(id));
            threads = threads.max(counted(id, "task"));
            descriptors = descriptors.max(counted(id, "fd"));
        }
        if round >= 800 && round.is_multiple_of(20) {
            // Threads that block come and go, each with some MiB of the allocator's: what is there at one moment says
            // little, the least of many moments is what stays. 7 KiB left behind by each reload would be seen.
            late = late.min(resident_bytes(id));
        }
    }
    kept.stop().await.assert_clean();
    fresh.stop().await.assert_clean();
    // Old generations end with their last connection; what is kept open by then is a few connections to the app.
    let at_rest = || counted(id, "task") <= threads && counted(id, "fd") <= descriptors;
    let ended = eventually(DEADLINE, at_rest).await;
    assert!(ended, "threads {threads} -> {}, descriptors {descriptors} -> {}", counted(id, "task"), counted(id, "fd"));
    assert!(late <= early + early / 10, "resident memory grew from {early} to {late}");
    let alive = admin::json(admin, "/api/admin/system/status").await["generationsAlive"].clone();
    assert!(alive.is_null() || alive.as_u64().unwrap() <= 2, "{alive}");
}

/// What used to need a restart.
#[tokio::test]
async fn the_flag_the_log_and_the_bound_on_connections_follow() {
    let mut flagstone = Flagstone::serve(&says("one")).await;
    let web = flagstone.address("web").await;
    flagstone.folder.write("state/other.flag", "");
    let more = "[maintenance]\nflag = \"other.flag\"\n";
    let changed = says("two").replace("access = \"off\"", "access = \"off\"\nformat = \"json\"\nlevel = \"debug\"");
    let bounded = changed.replace("workers = 2", "workers = 3\nmax_connections = 1");
    flagstone.folder.replace("flagstone.toml", format!("{bounded}{more}"));
    let line = flagstone.process.stderr_line("server.workers: changed (needs an upgrade)").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("the format follows");
    assert!(line["changes"].as_str().unwrap().contains("log: ~level ~format"), "{line}");
    let is_on = async || client::get(web, "/").await.unwrap().status == 503;
    assert!(eventually_async(DEADLINE, is_on).await);
    flagstone.folder.remove("state/other.flag");
    assert!(comes_to_say(web, "two").await);
    // One connection at a time: the second waits for the first, which says nothing.
    let _first = Client::connect(web).await.unwrap();
    let mut second = Client::connect(web).await.unwrap();
    second.request("GET", "/", "").await.unwrap();
    second.expect_silence(Duration::from_millis(300)).await.unwrap();
    flagstone.folder.replace("flagstone.toml", format!("{changed}{more}"));
    assert_eq!(second.read_response().await.unwrap().status, 200);
    flagstone.process.signal(Signal::TERM);
}

#[tokio::test]
async fn a_breaker_outlives_changes_of_other_settings() {
    let failing = FakeUpstream::http1().route("*", Reply::status(500, "no")).start().await;
    let toml = |attempts: usize, failures: usize| {
        format!(
            "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n[upstream.app.retry]\nattempts = {attempts}\n\
             [upstream.app.breaker]\nfailures = {failures}\nopen = \"1h\"\nmax_open = \"1h\"\n",
            failing.endpoint()
        )
    };
    let proxy = TestProxy::toml(toml(0, 2)).start().await;
    for status in [500, 500, 503] {
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, status);
    }
    let reload = async |text: String| {
        let before = proxy.folder.read("flagstone.toml");
        let start = before.find("[[route]]").unwrap();
        proxy.folder.replace("flagstone.toml", format!("{}{text}", &before[..start]));
        admin::ask(proxy.admin(), "POST", "/api/admin/reload").await.text()
    };
    let told = reload(toml(1, 2)).await;
    assert!(told.contains("upstream app: kept breaker, "), "{told}");
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 503);
    let told = reload(toml(1, 3)).await;
    assert!(told.contains("begun anew breaker"), "{told}");
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 500);
}

/// As on a Kubernetes volume that brings the configuration before the certificate.
#[tokio::test]
async fn what_was_refused_for_want_of_something_else_is_taken_when_that_is_there() {
    let mut flagstone = Flagstone::serve(&says("one")).await;
    let address = flagstone.address("web").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!(
        "[[listener]]\nname = \"more\"\naddress = \"{}\"\n[listener.tls]\n\
         certificates = [{{ cert = \"late.pem\", key = \"late.key\" }}]\n",
        taken.local_addr().unwrap()
    );
    flagstone.folder.replace("flagstone.toml", says("two") + &more);
    let rejected = |flagstone: &Flagstone| flagstone.process.stderr().matches("Configuration rejected").count();
    assert!(eventually(DEADLINE, || rejected(&flagstone) == 1).await);
    Ca::new().leaf(&["a.example"]).write(&flagstone.folder, "late");
    assert!(eventually(DEADLINE, || rejected(&flagstone) == 2).await, "another reason is told");
    // Long enough for a second look that finds the same.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(rejected(&flagstone), 2, "{}", flagstone.process.stderr());
    drop(taken);
    flagstone.process.stderr_line("Configuration reloaded").await;
    assert!(comes_to_say(address, "two").await);
    assert_eq!(rejected(&flagstone), 2);
}

#[tokio::test]
async fn what_was_refused_is_tried_again_and_told_when_somebody_asks() {
    let mut flagstone = Flagstone::serve(&says("one")).await;
    let admin = flagstone.admin().await;
    flagstone.folder.replace("flagstone.toml", says("two") + "[maintenance]\npage = \"page\"\n");
    flagstone.process.stderr_line("Configuration rejected").await;
    let rejected = |count: usize| {
        let stderr = || flagstone.process.stderr().matches("Configuration rejected").count();
        eventually(DEADLINE, move || stderr() == count)
    };
    flagstone.process.signal(Signal::HUP);
    assert!(rejected(2).await);
    assert_eq!(admin::ask(admin, "POST", "/api/admin/reload").await.status, 422);
    assert!(rejected(3).await);
    flagstone.folder.create_folder("page");
    // Unless it has been taken already.
    assert_eq!(admin::ask(admin, "POST", "/api/admin/reload").await.status, 200);
}
