//! Socket activation and sd_notify, with the tests in systemd's place.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::{self, Client};
use crate::support::files::Folder;
use crate::support::frozen::freeze;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Flagstone, Process, Signal, children};
use crate::support::reply::Reply;
use crate::support::stalled::stall;
use crate::support::upstream::FakeUpstream;

/// Starts the program as systemd does: with a socket as descriptor 3, and told so under its own id.
fn activated(socket: OwnedFd, name: &str, config: &std::path::Path) -> Process {
    let flagstone = env!("CARGO_BIN_EXE_flagstone");
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec {flagstone} run -c {}",
        config.display()
    );
    Process::start_with_stdin(Command::new("sh").args(["-c", &script]), Stdio::from(socket))
}

fn config(listener: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n{listener}\
         [[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\n"
    )
}

#[tokio::test]
async fn a_socket_of_a_unit_is_found_by_its_name() {
    let folder = Folder::new();
    // The unit says where, the configuration's address is not asked.
    let file = folder.write("f.toml", config("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\n"));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut process = activated(socket.into(), "web", &file);
    process.stderr_line(&format!("listening name=web address={address}")).await;
    assert_eq!(client::get(address, "/").await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_socket_of_a_unit_is_found_by_its_address_and_its_file_stays() {
    let folder = Folder::new();
    let path = folder.join("web.sock");
    let listener = format!("[[listener]]\nname = \"web\"\naddress = \"unix:{}\"\n", path.display());
    let file = folder.write("f.toml", config(&listener));
    let socket = UnixListener::bind(&path).unwrap();
    let mut process = activated(socket.into(), "unknown", &file);
    process.stderr_line("listening name=web").await;
    let mut client = Client::connect_unix(&path).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "ok");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
    assert!(path.exists(), "the file is systemd's");
}

/// systemd holds it on, and starts the service anew with it. So it is with one that an upgrade has passed on.
#[tokio::test]
async fn a_socket_of_a_unit_goes_on_to_the_next_process() {
    let folder = Folder::new();
    let file = folder.write("f.toml", config("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\n"));
    let unit = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unit.local_addr().unwrap();
    let start = || activated(unit.try_clone().unwrap().into(), "web", &file);
    let mut first = start();
    first.stderr_line("listening name=web").await;
    first.signal(Signal::USR2);
    let line = first.stderr_line("Upgrade finished").await;
    assert_eq!(first.wait(DEADLINE).await.code(), Some(0));
    let second: i32 = line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let second = rustix::process::Pid::from_raw(second).unwrap();
    rustix::process::kill_process(second, Signal::TERM).unwrap();
    assert!(eventually(DEADLINE, || rustix::process::test_kill_process(second).is_err()).await);
    // Comes while there is no process.
    let mut early = Client::connect(address).await.unwrap();
    let mut third = start();
    third.stderr_line("listening name=web").await;
    assert_eq!(early.get("/").await.unwrap().text(), "ok");
    assert_eq!(client::get(address, "/").await.unwrap().text(), "ok");
}

/// systemd keeps it open, so that nobody else could have bound it meanwhile; nor does an upgrade lose it.
#[tokio::test]
async fn a_listener_that_has_left_a_units_socket_gets_it_back() {
    let folder = Folder::new();
    let unit = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unit.local_addr().unwrap();
    let at = |address: &str| config(&format!("[[listener]]\nname = \"web\"\naddress = \"{address}\"\n"));
    let (here, elsewhere) = (at(&address.to_string()), at("127.0.0.1:0"));
    let file = folder.write("f.toml", &here);
    let mut process = activated(unit.try_clone().unwrap().into(), "any", &file);
    process.stderr_line(&format!("listening name=web address={address}")).await;
    let reloaded = |count: usize| move |log: &str| log.matches("Configuration reloaded").count() == count;
    let reload = async |text: &str, count: usize| {
        folder.replace("f.toml", text);
        assert!(eventually(DEADLINE, || reloaded(count)(&process.stderr())).await, "{}", process.stderr());
    };
    reload(&elsewhere, 1).await;
    let mut early = Client::connect(address).await.unwrap();
    reload(&here, 2).await;
    assert_eq!(early.get("/").await.unwrap().text(), "ok");
    drop(early);
    reload(&elsewhere, 3).await;
    process.signal(Signal::USR2);
    let line = process.stderr_line("Upgrade finished").await;
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
    folder.replace("f.toml", &here);
    let mut client = Client::connect(address).await.unwrap().deadline(DEADLINE);
    assert_eq!(client.get("/").await.unwrap().text(), "ok", "{}", process.stderr());
    let second: i32 = line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(second).unwrap(), Signal::TERM).unwrap();
}

#[tokio::test]
async fn sockets_that_nobody_wants_and_sockets_that_are_none_are_told_of() {
    let folder = Folder::new();
    let file = folder.write("f.toml", config("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n"));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = activated(socket.into(), "other", &file);
    process.stderr_line("no listener has the name or the address of this inherited socket name=other").await;
    process.stderr_line("listening name=web").await;
    let no_listener = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut refused = activated(no_listener.into(), "web", &file);
    assert_eq!(refused.wait(DEADLINE).await.code(), Some(1));
    assert!(refused.stderr().contains("it is no listening stream socket"), "{}", refused.stderr());
    // Another process's environment, passed on by accident.
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let mut process = Process::start(command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1"));
    process.stderr_line("listening name=web").await;
}

/// What systemd has been told so far.
fn told(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let mut messages = Vec::new();
    while let Ok(length) = socket.recv(&mut buffer) {
        messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    messages
}

#[tokio::test]
async fn systemd_is_told_of_every_step_and_that_the_process_is_well() {
    let folder = Folder::new();
    let path = folder.join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let text = config("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n");
    let text = text.replace("state_dir = \"state\"", "state_dir = \"state\"\nshutdown_grace = \"2s\"");
    let file = folder.write("f.toml", text);
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let mut process = Process::start(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000"));
    let first = process.id();
    let mut all = Vec::new();
    let mut hears = async |part: &str| {
        let heard = eventually(DEADLINE, || {
            all.extend(told(&socket));
            all.iter().any(|message| message.contains(part))
        });
        let heard = heard.await;
        assert!(heard, "{part}: {all:?}");
        let at = all.iter().position(|message| message.contains(part)).unwrap();
        all.drain(..=at);
    };
    hears(&format!("READY=1\nMAINPID={first}")).await;
    for _ in 0..3 {
        hears("WATCHDOG=1").await;
    }
    process.signal(Signal::HUP);
    hears("RELOADING=1\nMONOTONIC_USEC=").await;
    hears("READY=1").await;
    process.signal(Signal::USR2);
    hears("MAINPID=").await;
    hears("READY=1\nMAINPID=").await;
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
    hears("WATCHDOG=1").await;
    let line = process.stderr_line("Upgrade finished").await;
    let second: i32 = line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let second = rustix::process::Pid::from_raw(second).unwrap();
    rustix::process::kill_process(second, Signal::TERM).unwrap();
    hears("STOPPING=1").await;
    let gone = || rustix::process::test_kill_process(second).is_err();
    assert!(eventually(Duration::from_secs(15), gone).await);
}

/// systemd starts it anew then (`WatchdogSec=`).
#[tokio::test]
async fn with_a_stuck_worker_the_watchdog_is_told_nothing() {
    let folder = Folder::new();
    let path = folder.join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let text = config("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n");
    let file = folder.write("f.toml", text.replace("state_dir", "workers = 2\nstate_dir"));
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let mut process = Process::start(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000"));
    let is_told = async || eventually(DEADLINE, || told(&socket).iter().any(|it| it == "WATCHDOG=1")).await;
    assert!(is_told().await);
    let Ok(frozen) = freeze(process.id(), "worker-1") else { left_out!("nobody may stop threads here") };
    process.stderr_line("a worker is stuck; the watchdog is told nothing").await;
    told(&socket);
    // Three times what systemd waits for.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(told(&socket), [""; 0]);
    drop(frozen);
    assert!(is_told().await);
    let log = process.stderr();
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0), "{log}");
}

/// It asks more often than a worker looks up from its work.
#[tokio::test]
async fn a_hasty_watchdog_is_told_as_often_as_it_asks() {
    let folder = Folder::new();
    let path = folder.join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let file = folder.write("f.toml", config("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n"));
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let process = Process::start(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000"));
    let mut count = 0;
    let heard = eventually(DEADLINE, || {
        count += told(&socket).iter().filter(|it| *it == "WATCHDOG=1").count();
        count >= 20
    });
    assert!(heard.await, "{count}: {}", process.stderr());
}

/// A process whose watchdog asks ten times a second, and where it is told.
async fn watched(folder: &Folder, text: &str) -> (Process, UnixDatagram) {
    let path = folder.join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let file = folder.write("f.toml", text);
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let mut process = Process::start(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000"));
    process.stderr_line("listening name=web").await;
    (process, socket)
}

/// Whether it is told for longer than a worker may stand still.
async fn goes_on_being_told(socket: &UnixDatagram) -> bool {
    let mut count = 0;
    eventually(DEADLINE, || {
        count += told(socket).iter().filter(|it| *it == "WATCHDOG=1").count();
        count >= 40
    })
    .await
}

#[tokio::test]
async fn a_reload_that_takes_long_is_no_stuck_worker() {
    let folder = Folder::new();
    let page = folder.write("page/index.html", "away");
    let text = config("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[maintenance]\npage = \"page\"\n");
    let (mut process, socket) = watched(&folder, &text).await;
    let Ok(stalled) = stall(&page) else { left_out!("no leases here") };
    process.signal(Signal::HUP);
    let has_begun = eventually(DEADLINE, || told(&socket).iter().any(|it| it.starts_with("RELOADING=1"))).await;
    assert!(has_begun);
    assert!(goes_on_being_told(&socket).await, "{}", process.stderr());
    assert!(!process.stderr().contains("Configuration reloaded"));
    drop(stalled);
    process.stderr_line("Configuration reloaded").await;
    assert!(!process.stderr().contains("is stuck"), "{}", process.stderr());
}

/// As long as its last request takes; and the process that has handed over leaves the telling to the next one.
#[tokio::test]
async fn a_process_on_its_way_out_has_no_stuck_worker() {
    for signal in [Signal::TERM, Signal::USR2] {
        let folder = Folder::new();
        let app = FakeUpstream::http1().route("*", Reply::hang()).start().await;
        let text = config("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n");
        let text = text.replace("respond = { body = \"ok\" }", "upstream = \"app\"");
        let text = format!("{text}[upstream.app]\nendpoints = [\"{}\"]\n", app.endpoint());
        let (mut process, socket) = watched(&folder, &text).await;
        let line = process.stderr_line("listening name=web").await;
        let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
        let mut busy = Client::connect(address).await.unwrap();
        busy.request("GET", "/", "").await.unwrap();
        assert!(eventually(DEADLINE, || app.requests().len() == 1).await);
        process.signal(signal);
        let drains = || {
            // Who does not listen keeps the process waiting.
            told(&socket);
            process.stderr().contains("draining")
        };
        assert!(eventually(DEADLINE, drains).await, "{}", process.stderr());
        assert!(goes_on_being_told(&socket).await, "{}", process.stderr());
        assert!(!process.stderr().contains("is stuck"), "{}", process.stderr());
        assert!(process.ended().is_none());
        for process in children(process.id()) {
            let next = rustix::process::Pid::from_raw(process.try_into().unwrap()).unwrap();
            rustix::process::kill_process(next, Signal::TERM).unwrap();
        }
    }
}
