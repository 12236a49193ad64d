//! Where there is little of everything: few descriptors, an empty root, the first process of a container.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, prlimit};

use crate::support::admin;
use crate::support::client::{self, Client, Ending};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Process, Signal, children};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

fn config(server: &str) -> String {
    format!(
        "[server]\nworkers = 2\n{server}[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n[[listener]]\n\
         name = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\n"
    )
}

async fn address(process: &mut Process, of: &str) -> std::net::SocketAddr {
    let line = process.stderr_line(of).await;
    line.split("address=").nth(1).unwrap().trim().parse().unwrap()
}

/// Processor time so far, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Leaves so many descriptors to be had; the limit before.
async fn leave_descriptors(process: &mut Process, count: usize) -> Rlimit {
    // Each thread takes what it keeps as it begins, which may be after "listening": here all have begun.
    for of in ["listening name=web", "admin listening"] {
        client::get(address(process, of).await, "/readyz").await.unwrap();
    }
    let has_started = || threads(process).any(|name| name == "certificates");
    assert!(eventually(DEADLINE, has_started).await, "{}", process.stderr());
    // And those that were only for that are back.
    let mut taken = descriptors(process);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = std::mem::replace(&mut taken, descriptors(process));
        if before == taken {
            break;
        }
    }
    // The system gives the lowest that is free.
    let limit = (0..).filter(|number| !taken.contains(number)).nth(count);
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid(process), Resource::Nofile, Rlimit { current: limit, maximum }).unwrap()
}

fn descriptors(process: &Process) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect()
}

/// Their names.
fn threads(process: &Process) -> impl Iterator<Item = String> + use<> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned())
}

fn pid(process: &Process) -> Option<Pid> {
    Pid::from_raw(i32::try_from(process.id()).unwrap())
}

#[tokio::test]
async fn with_64_descriptors_it_neither_spins_nor_goes_deaf() {
    let prlimit = or_left_out!(program("prlimit"));
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", config("state_dir = \"state\"\n"));
    let flagstone = env!("CARGO_BIN_EXE_flagstone");
    let mut process = Process::start(Command::new(prlimit).arg("--nofile=64").args([flagstone, "run", "-c"]).arg(file));
    let web = address(&mut process, "listening name=web").await;
    let admin = address(&mut process, "admin listening").await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Client::connect(web).await.unwrap().deadline(Duration::from_secs(30)));
    }
    process.stderr_line("cannot accept connections at the moment").await;
    let before = ticks(process.id());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = ticks(process.id()) - before;
    assert!(spent < 100, "{spent} of 200 ticks");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(crate::admin::get(admin, path).await.status, 200);
    }
    // Those that were accepted are served, and as they leave the others are: nobody is turned away.
    for mut client in clients {
        assert_eq!(client.get("/").await.unwrap().text(), "ok");
    }
    assert_eq!(client::get(web, "/").await.unwrap().text(), "ok");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn the_admin_side_keeps_its_descriptors_also_of_a_limit_set_later() {
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", config("state_dir = \"state\"\n"));
    let mut process = Process::start(&mut Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]));
    let web = address(&mut process, "listening name=web").await;
    let admin = address(&mut process, "admin listening").await;
    prlimit(pid(&process), Resource::Nofile, Rlimit { current: Some(80), maximum: Some(80) }).unwrap();
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Client::connect(web).await.unwrap().deadline(Duration::from_secs(30)));
    }
    process.stderr_line("most file descriptors are taken").await;
    assert_eq!(crate::admin::get(admin, "/readyz").await.status, 200);
    for mut client in clients {
        assert_eq!(client.get("/").await.unwrap().text(), "ok");
    }
}

/// They run out long before `max_connections`.
#[tokio::test]
async fn clients_that_keep_their_connections_take_no_descriptor_from_whoever_comes() {
    let folder = Folder::new();
    let text = config("state_dir = \"state\"\n[timeouts]\nidle = \"1h\"\n");
    let file = folder.write("flagstone.toml", text);
    let mut process = Process::start(&mut Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]));
    let web = address(&mut process, "listening name=web").await;
    let limit = Rlimit { current: Some(80), maximum: Some(80) };
    prlimit(pid(&process), Resource::Nofile, limit).unwrap();
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut client = Client::connect(web).await.unwrap().deadline(DEADLINE);
        assert_eq!(client.get("/").await.unwrap().text(), "ok");
        clients.push(client);
    }
    assert_eq!(clients[0].expect_closed().await.unwrap(), Ending::Fin);
    assert!(process.stderr().contains("most file descriptors are taken"), "{}", process.stderr());
}

#[tokio::test]
async fn a_file_for_which_no_descriptor_is_left_is_not_missing() {
    let folder = Folder::new();
    folder.write("site/page.txt", "page");
    let text = config("state_dir = \"state\"\n").replace("respond = { body = \"ok\" }", "files = { root = \"site\" }");
    let file = folder.write("flagstone.toml", text);
    let mut process = Process::start(&mut Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]));
    let web = address(&mut process, "listening name=web").await;
    let mut client = Client::connect(web).await.unwrap();
    assert_eq!(client.get("/page.txt").await.unwrap().text(), "page");
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
    // Holds for what is opened from now on.
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(0), maximum: Some(1024) }).unwrap();
    let answer = client.get("/page.txt").await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (503, Some("connect_failed")));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(client.get("/gone").await.unwrap().status, 404);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(1024), maximum: Some(1024) }).unwrap();
    assert_eq!(client.get("/page.txt").await.unwrap().text(), "page");
}

/// It takes two: one for its socket, one to watch it by.
#[tokio::test]
async fn a_listener_that_finds_one_descriptor_accepts_when_there_are_two() {
    let folder = Folder::new();
    let text = config("state_dir = \"state\"\n");
    let file = folder.write("flagstone.toml", &text);
    let mut process = Process::start(&mut Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]));
    address(&mut process, "listening name=web").await;
    let before = leave_descriptors(&mut process, 1).await;
    folder.write("flagstone.toml", format!("{text}[[listener]]\nname = \"more\"\naddress = \"unix:more.sock\"\n"));
    let socket = folder.join("more.sock");
    // Whatever else takes the one that is left has the reload tried again.
    assert!(eventually(3 * DEADLINE, || socket.exists()).await, "{}", process.stderr());
    let _: bool = eventually(Duration::from_secs(2), || process.stderr().contains("cannot accept connections")).await;
    prlimit(pid(&process), Resource::Nofile, before).unwrap();
    let mut client = Client::connect_unix(&socket).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "ok");
}

/// Requests that find no descriptor left are answered at once, and the app is not blamed: neither by the breaker, nor
/// by ejection, nor by the checks of its health.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_no_descriptor_is_left_for_the_app_is_no_fault_of_the_app() {
    let slow =
        || FakeUpstream::http1().route("/slow", Reply::ok("slow").after(Duration::from_secs(3))).route("*", "ok");
    let (one, other) = (slow().start().await, slow().start().await);
    let folder = Folder::new();
    let app = format!(
        "upstream = \"app\"\n[[route]]\nname = \"here\"\npath = [\"=/here\"]\nrespond = {{ body = \"here\" }}\n\
         [upstream.app]\nendpoints = [\"{}\", \"{}\"]\n[upstream.app.breaker]\nfailures = 1\n\
         [upstream.app.ejection]\nfailures = 1\n[upstream.app.retry]\nattempts = 1\n\
         [upstream.app.health]\ntcp = true\ninterval = \"200ms\"\nunhealthy_after = 1\n",
        one.endpoint(),
        other.endpoint()
    );
    let text = config("state_dir = \"state\"\n").replace("respond = { body = \"ok\" }\n", &app);
    let file = folder.write("flagstone.toml", text);
    let mut process = Process::start(&mut Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]));
    let web = address(&mut process, "listening name=web").await;
    let admin = address(&mut process, "admin listening").await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = Client::connect(web).await.unwrap().deadline(Duration::from_secs(60));
        assert_eq!(client.get("/here").await.unwrap().text(), "here");
        clients.push(client);
    }
    // From now on there are five for the app, and for checks of its health.
    leave_descriptors(&mut process, 5).await;
    let mut asking = tokio::task::JoinSet::new();
    for mut client in clients {
        asking.spawn(async move {
            let answer = client.get("/slow").await.unwrap();
            (
                answer.status,
                answer.header("flagstone-reason").map(str::to_owned),
                answer.header("retry-after").is_some(),
            )
        });
    }
    let answers = asking.join_all().await;
    let refused = (503, Some("connect_failed".to_owned()), true);
    let expected = [(200, None, false), refused.clone()];
    assert!(answers.iter().all(|answer| expected.contains(answer)), "{answers:?}");
    assert!(expected.iter().all(|answer| answers.contains(answer)), "{answers:?}");
    process.stderr_line("cannot connect to endpoints at the moment").await;
    // Everybody has gone by now: all is as if nothing had happened.
    assert_eq!(client::get(web, "/").await.unwrap().text(), "ok");
    let status = admin::json(admin, "/api/status/circuit-breakers").await;
    let breaker = &status["circuitBreakers"]["app"];
    assert_eq!((&breaker["state"], &breaker["failures"]), (&"CLOSED".into(), &0.into()), "{breaker}");
    assert_eq!(breaker["statistics"]["failedCalls"], 0, "{breaker}");
    let log = process.stderr();
    // How full this machine's disk is may be told, and is another matter.
    let told = |event: &str| log.lines().any(|line| line.contains(event) && !line.contains("check=disk"));
    for event in ["Endpoint ejected", "Health changed", "Circuit breaker"] {
        assert!(!told(event), "{log}");
    }
}

/// What the dynamic loader wants of a binary that is not static.
fn libraries(binary: &str) -> Vec<PathBuf> {
    let told = Command::new("ldd").arg(binary).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// No /proc, /dev, /tmp, /etc, and no right to anything: what an image `FROM scratch` has.
#[tokio::test]
async fn in_an_empty_root_as_nobody_it_serves_with_its_configuration_alone() {
    let chroot = or_left_out!(program("chroot"));
    if !rustix::process::geteuid().is_root() {
        left_out!("only root may change the root");
    }
    let folder = Folder::new();
    let copy = |from: &Path| {
        let to = folder.join(from.strip_prefix("/").unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    libraries(env!("CARGO_BIN_EXE_flagstone")).iter().for_each(|library| copy(library));
    std::fs::copy(env!("CARGO_BIN_EXE_flagstone"), folder.join("flagstone")).unwrap();
    let text = config("state_dir = \"/state\"\nshutdown_grace = \"3s\"\n")
        .replace("127.0.0.1:0\"\n[log]", "unix:/state/admin\"\n[log]");
    folder.write("flagstone.toml", text);
    std::fs::create_dir(folder.join("state")).unwrap();
    std::os::unix::fs::chown(folder.join("state"), Some(65532), Some(65532)).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let confined = |arguments: &[&str]| {
        let mut command = Command::new(&chroot);
        command
            .arg("--userspec=65532:65532")
            .arg(folder.path())
            .arg("/flagstone")
            .args(arguments)
            .env_clear()
            .env("TZ", "Asia/Kathmandu");
        command
    };
    let mut process = Process::start(&mut confined(&["run", "-c", "/flagstone.toml"]));
    let web = address(&mut process, "listening name=web").await;
    assert_eq!(client::get(web, "/").await.unwrap().text(), "ok");
    let healthy = Process::run(&mut confined(&["healthcheck", "-c", "/flagstone.toml"])).await;
    assert_eq!((healthy.status.code(), healthy.stdout.as_str()), (Some(0), "ready\n"));
    let on = Process::run(&mut confined(&["maintenance", "-c", "/flagstone.toml", "on"])).await;
    assert_eq!(on.status.code(), Some(0), "{on:?}");
    let status = Process::run(&mut confined(&["maintenance", "-c", "/flagstone.toml", "status"])).await;
    assert!(status.stdout.contains("+0545"), "there are no time zones but those that it carries: {status:?}");
    let blocked = async || client::get(web, "/").await.unwrap().status == 503;
    assert!(eventually_async(DEADLINE, blocked).await);
    let upgraded = Process::run(&mut confined(&["upgrade", "-c", "/flagstone.toml"])).await;
    assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
    let drained = Process::run(&mut confined(&["drain", "-c", "/flagstone.toml"])).await;
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    let stopped = eventually(DEADLINE, || process.stderr().matches("stopped pid=").count() == 2).await;
    assert!(stopped, "{}", process.stderr());
}

#[tokio::test]
async fn as_process_1_it_reaps_obeys_signals_and_cannot_be_replaced() {
    let (unshare, nsenter) = (or_left_out!(program("unshare")), or_left_out!(program("nsenter")));
    if !rustix::process::geteuid().is_root() {
        left_out!("only root may make a process namespace");
    }
    for signal in [Signal::TERM, Signal::QUIT, Signal::INT] {
        let folder = Folder::new();
        let file = folder.write("flagstone.toml", config("state_dir = \"state\"\n"));
        let mut command = Command::new(&unshare);
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_flagstone"), "run", "-c"]);
        let mut process = Process::start(command.arg(&file));
        let web = address(&mut process, "listening name=web").await;
        let admin = address(&mut process, "admin listening").await;
        let outside = children(process.id())[0];
        let target = outside.to_string();
        // What it starts loses its parent at once, and becomes the child of process 1.
        let mut orphan = Command::new(&nsenter);
        orphan.args(["-t", &target, "-p", "sh", "-c", "sleep 0.3 & exit 0"]);
        assert!(Process::run(&mut orphan).await.status.success());
        let reaped = eventually(DEADLINE, || children(outside).is_empty()).await;
        assert!(reaped, "{:?}", children(outside));
        assert_eq!(client::get(web, "/").await.unwrap().text(), "ok");
        let admin = admin.to_string();
        let upgrade = ["upgrade".as_ref(), "--admin".as_ref(), admin.as_ref(), "-c".as_ref(), file.as_os_str()];
        let refused = Flagstone::run(upgrade).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("process 1 of a container cannot be replaced"), "{}", refused.stderr);
        let inside = Pid::from_raw(i32::try_from(outside).unwrap()).unwrap();
        kill_process(inside, signal).unwrap();
        assert_eq!(process.wait(DEADLINE).await.code(), Some(0), "{signal:?}");
    }
}

/// As where a ConfigMap is the state folder: who changes it does so from elsewhere.
#[tokio::test]
async fn a_state_folder_that_is_read_only_is_followed() {
    let unshare = or_left_out!(program("unshare"));
    if !rustix::process::geteuid().is_root() {
        left_out!("mounting needs root");
    }
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", config("state_dir = \"state\"\n"));
    let (volume, state) = (folder.create_folder("volume"), folder.create_folder("state"));
    let script = "mount --bind \"$1\" \"$2\" && mount -o remount,bind,ro \"$2\" && exec \"$0\" run -c \"$3\"";
    let mut command = Command::new(unshare);
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_flagstone")]).args([&volume, &state, &file]);
    let mut process = Process::start(&mut command);
    process.stderr_line("is read-only: its flags are followed").await;
    let web = address(&mut process, "listening name=web").await;
    let admin = address(&mut process, "admin listening").await;
    let answers =
        async |status| eventually_async(DEADLINE, async || client::get(web, "/").await.unwrap().status == status).await;
    assert!(answers(200).await);
    let flag = folder.touch("volume/maintenance.flag");
    assert!(answers(503).await, "{}", process.stderr());
    assert_eq!(admin::ask(admin, "POST", "/api/admin/maintenance/disable").await.status, 500);
    assert!(flag.exists());
    folder.remove("volume/maintenance.flag");
    assert!(answers(200).await, "{}", process.stderr());
    assert_eq!(std::fs::read_dir(volume).unwrap().count(), 0, "nothing was left there");
}
