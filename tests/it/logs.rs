//! Logs under stress: rotated, on a full disk, before a reader that has gone or sleeps; and what never gets into them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::admin;
use crate::support::client::{self, Client};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Process, Signal};
use crate::support::upstream::FakeUpstream;

fn config(log: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\nworkers = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\n{log}\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\n"
    )
}

/// Sends `GET /n/NUMBER` for every number of the range and returns the slowest answer.
async fn send(address: SocketAddr, numbers: std::ops::Range<u32>, rest: &str) -> Duration {
    let mut client = Client::connect(address).await.unwrap();
    let mut slowest = Duration::ZERO;
    for number in numbers {
        let began = Instant::now();
        assert_eq!(client.get(&format!("/n/{number}{rest}")).await.unwrap().status, 200);
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

/// How often each number stands in whole lines.
fn numbers(text: &str) -> BTreeMap<u32, usize> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let number = line.split("\"GET /n/").nth(1).and_then(|rest| rest.split([' ', '?']).next()?.parse().ok());
        let number = number.unwrap_or_else(|| panic!("a torn line: {line:?}"));
        assert!(line.ends_with("\" 200 2 \"-\" \"-\""), "a torn line: {line:?}");
        *found.entry(number).or_default() += 1;
    }
    found
}

#[tokio::test]
async fn rotation_by_rename_loses_and_doubles_no_line() {
    let mut flagstone = Flagstone::serve(&config("access = \"access.log\"")).await;
    let address = flagstone.address("web").await;
    let mut senders = tokio::task::JoinSet::new();
    for part in 0..4 {
        senders.spawn(async move { send(address, part * 1000..part * 1000 + 1000, "").await });
    }
    let mut rotated = Vec::new();
    while !senders.is_empty() {
        let name = format!("access.log.{}", rotated.len());
        std::fs::rename(flagstone.folder.join("access.log"), flagstone.folder.join(&name)).unwrap();
        rotated.push(name);
        flagstone.process.signal(Signal::USR1);
        assert!(eventually(DEADLINE, || flagstone.folder.join("access.log").exists()).await);
        let pause = tokio::time::sleep(Duration::from_millis(20));
        tokio::select! { () = pause => {}, Some(done) = senders.join_next() => { done.unwrap(); } }
    }
    flagstone.process.signal(Signal::TERM);
    flagstone.process.wait(DEADLINE).await;
    assert!(rotated.len() > 2, "rotated only {} times", rotated.len());
    rotated.push("access.log".to_owned());
    let whole: String = rotated.iter().map(|name| flagstone.folder.read(name)).collect();
    let found = numbers(&whole);
    let wrong: Vec<_> = (0..4000).filter(|number| found.get(number) != Some(&1)).collect();
    assert!(wrong.is_empty() && found.len() == 4000, "lost or doubled: {wrong:?}");
}

/// A file system of 64 KiB, taken away when dropped. In a folder of its own, for none can be removed as long as
/// something is mounted in it.
struct SmallDisk(Folder);

impl SmallDisk {
    fn mount() -> Self {
        let at = Folder::new();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(at.path()).status();
        assert!(mounted.unwrap().success(), "{} cannot be mounted", at.path().display());
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

async fn lost_lines(admin: SocketAddr) -> u64 {
    let text = admin::metrics(admin).await;
    let value = text.lines().find_map(|line| line.strip_prefix("flagstone_access_log_dropped_total "));
    value.unwrap_or_else(|| panic!("no counter in {text}")).parse().unwrap()
}

/// Long lines, so that a mebibyte is soon full.
fn long() -> String {
    format!("?{}", "x".repeat(6000))
}

/// The log cannot be written; whoever is `mend` makes it writable again.
async fn survives(mut flagstone: Flagstone, mend: impl AsyncFnOnce(&Flagstone)) {
    let (address, admin) = (flagstone.address("web").await, flagstone.admin().await);
    // Each connection has a worker of its own, and so a buffer of 1 MiB.
    let long = long();
    let (one, two) = tokio::join!(send(address, 0..400, &long), send(address, 1000..1400, &long));
    assert!(one.max(two) < Duration::from_secs(2), "a request waited for the log: {one:?}, {two:?}");
    flagstone.process.stderr_line("WARN Access log is dropping lines").await;
    assert!(eventually_async(DEADLINE, async || lost_lines(admin).await > 0).await);
    let shown = Flagstone::run(["status", "--admin", &admin.to_string()]).await.stdout;
    assert!(shown.contains("\naccess log losing lines   "), "{shown}");
    mend(&flagstone).await;
    let line = flagstone.process.stderr_line("INFO Access log has recovered dropped=").await;
    let told: u64 = line.split("dropped=").nth(1).unwrap().trim().parse().unwrap();
    let counted = async || lost_lines(admin).await >= told;
    assert!(told > 0 && eventually_async(DEADLINE, counted).await, "{line}");
    send(address, 5000..5001, "").await;
    let log = admin::json(admin, "/api/status").await["process"]["accessLog"].clone();
    assert_eq!((&log["dropping"], &log["error"]), (&false.into(), &serde_json::Value::Null));
    assert!(log["dropped"].as_u64() >= Some(told), "{log}");
}

#[tokio::test]
async fn a_full_disk_slows_no_request_and_is_recovered_from() {
    or_left_out!(program("mount"));
    if !rustix::process::geteuid().is_root() {
        left_out!("mounting needs root");
    }
    let disk = SmallDisk::mount();
    let log = disk.0.join("access.log");
    let flagstone = Flagstone::serve(&config(&format!("access = {log:?}"))).await;
    survives(flagstone, async |flagstone: &Flagstone| {
        assert!(std::fs::metadata(&log).unwrap().len() > 60 << 10, "the disk is full");
        // Room again, as a cleaning job makes it: the file starts anew, elsewhere.
        std::fs::rename(&log, log.with_extension("old")).unwrap();
        std::fs::remove_file(log.with_extension("old")).unwrap();
        std::os::unix::fs::symlink(flagstone.folder.join("roomy.log"), &log).unwrap();
        flagstone.process.signal(Signal::USR1);
        let goes_on = || flagstone.folder.join("roomy.log").exists() && !flagstone.folder.read("roomy.log").is_empty();
        assert!(eventually(DEADLINE, goes_on).await);
        let text = flagstone.folder.read("roomy.log");
        let whole = &text[..text.rfind('\n').unwrap()];
        assert!(numbers(whole).values().all(|&count| count == 1));
    })
    .await;
    drop(disk);
}

/// As after a crash for want of room: what starts again then has visitors to serve.
#[tokio::test]
async fn a_full_state_folder_keeps_nobody_from_starting() {
    or_left_out!(program("mount"));
    if !rustix::process::geteuid().is_root() {
        left_out!("mounting needs root");
    }
    let disk = SmallDisk::mount();
    std::fs::write(disk.0.join("filling"), vec![0; 64 << 10]).unwrap();
    let config = config("access = \"off\"").replace("\"state\"", &format!("{:?}", disk.0.path()));
    let mut flagstone = Flagstone::serve(&config).await;
    flagstone.process.stderr_line("cannot be written (no space left on device): its flags are followed").await;
    let address = flagstone.address("web").await;
    send(address, 0..1, "").await;
    std::fs::File::create(disk.0.join("maintenance.flag")).unwrap();
    let status = async || client::get(address, "/").await.unwrap().status;
    assert!(eventually_async(DEADLINE, async || status().await == 503).await, "{}", flagstone.process.stderr());
    assert!(!disk.0.join("cookies.key").exists(), "half a key is none");
    drop(flagstone);
}

#[tokio::test]
async fn the_environment_begins_maintenance_on_a_full_disk_too() {
    or_left_out!(program("mount"));
    if !rustix::process::geteuid().is_root() {
        left_out!("mounting needs root");
    }
    let (disk, folder) = (SmallDisk::mount(), Folder::new());
    std::fs::write(disk.0.join("filling"), vec![0; 64 << 10]).unwrap();
    let config = config("access = \"off\"").replace("\"state\"", &format!("{:?}", disk.0.path()));
    let file = folder.write("flagstone.toml", config);
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let mut process = Process::start(command.env("MAINTENANCE_MODE", "true").current_dir(folder.path()));
    process.stderr_line("Maintenance mode activated").await;
    process.stderr_line("listening name=").await;
    assert_eq!(disk.0.read("maintenance.flag"), "");
    drop(process);
}

/// Each new version of a ConfigMap takes a folder away that was watched: no news, and least of all in a library's words.
#[tokio::test]
async fn a_mounted_volume_is_followed_without_a_word_on_watches() {
    let config = format!("{}[maintenance]\nflag = \"volume/maintenance.flag\"\n", config("access = \"off\""));
    let mut flagstone = Flagstone::serve(&config).await;
    let address = flagstone.address("web").await;
    let volume = "state/volume";
    for (version, mode) in [("1", "full"), ("2", "read_only"), ("3", "full")] {
        flagstone.folder.write(&format!("{volume}/..{version}/maintenance.flag"), format!("mode = \"{mode}\""));
        flagstone.folder.swap_link(&format!("{volume}/..data"), format!("..{version}"));
        if version == "1" {
            flagstone.folder.swap_link(&format!("{volume}/maintenance.flag"), "..data/maintenance.flag");
        }
        let status = if mode == "full" { 503 } else { 200 };
        let follows = eventually_async(DEADLINE, async || client::get(address, "/").await.unwrap().status == status);
        assert!(follows.await, "{version}: {}", flagstone.process.stderr());
        if let Some(last) = version.parse::<u32>().unwrap().checked_sub(1).filter(|last| *last > 0) {
            std::fs::remove_dir_all(flagstone.folder.join(format!("{volume}/..{last}"))).unwrap();
        }
    }
    std::fs::remove_dir_all(flagstone.folder.join(volume)).unwrap();
    flagstone.process.stderr_line("Maintenance mode deactivated").await;
    let told = flagstone.process.stderr();
    assert!(!told.contains("notify"), "{told}");
}

/// A disk that hangs, as far as one can be had without hardware: a pipe whose reader sleeps.
#[tokio::test]
async fn a_log_that_hangs_slows_no_request_and_tears_no_line() {
    let folder = Folder::new();
    let pipe = folder.fifo("access.pipe");
    let reader = {
        // A reader must be there when the log is opened.
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        std::fs::File::from(rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()).unwrap())
    };
    let mut flagstone = Flagstone::serve_in(folder, &config("access = \"access.pipe\"")).await;
    flagstone.address("web").await;
    survives(flagstone, async |_: &Flagstone| {
        // From now on it reads, until the process ends.
        std::thread::spawn(move || {
            let (mut reader, mut text) = (reader, Vec::new());
            let mut piece = [0; 65536];
            let end = Instant::now() + DEADLINE;
            while Instant::now() < end {
                match reader.read(&mut piece) {
                    Ok(0) => break,
                    Ok(read) => text.extend_from_slice(&piece[..read]),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
    })
    .await;
}

#[tokio::test]
async fn a_stdout_that_is_closed_is_survived() {
    or_left_out!(program("bash"));
    for closed in [">&-", "> >(exec true)"] {
        let folder = Folder::new();
        let file = folder.write("flagstone.toml", config("access = \"stdout\""));
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("exec \"$0\" run -c \"$1\" {closed}"), env!("CARGO_BIN_EXE_flagstone")])
            .arg(&file);
        let mut process = Process::start(&mut command);
        let line = process.stderr_line("listening name=web").await;
        let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
        send(address, 0..200, "").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        send(address, 0..200, "").await;
        process.signal(Signal::TERM);
        assert_eq!(process.wait(DEADLINE).await.code(), Some(0), "{closed}: {}", process.stderr());
    }
}

/// Whoever has something to tell does not wait for a stderr that nobody reads, and tells of what was lost.
#[tokio::test]
async fn a_stderr_that_nobody_reads_slows_no_request() {
    let folder = Folder::new();
    let pipe = folder.fifo("stderr.pipe");
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let mut reader = std::fs::File::from(rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()).unwrap());
    let socket = folder.join("web.sock");
    let config = config("access = \"off\"\nlevel = \"trace\"")
        .replace("127.0.0.1:0\"\n[[route]]", &format!("unix:{}\"\n[[route]]", socket.display()));
    let file = folder.write("flagstone.toml", config);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" run -c \"$1\" 2> \"$2\"", env!("CARGO_BIN_EXE_flagstone")]).arg(&file).arg(&pipe);
    let mut process = Process::start(&mut command);
    assert!(eventually_async(DEADLINE, async || Client::connect_unix(&socket).await.is_ok()).await);
    // At this level each of them is a line or two: more than pipe and queue have room for.
    let mut come = 0;
    let connect = |_: &i32| std::os::unix::net::UnixStream::connect(&socket).is_ok();
    let are_enough = eventually(DEADLINE, || {
        come += (0..500).filter(connect).count();
        come >= 8000
    });
    assert!(are_enough.await, "its backlog is full: {come}");
    // Who comes now is served behind them.
    let is_served = async || match Client::connect_unix(&socket).await {
        Ok(mut client) => client.get("/").await.is_ok(),
        Err(_) => false,
    };
    assert!(eventually_async(DEADLINE, is_served).await);
    let mut client = Client::connect_unix(&socket).await.unwrap();
    for _ in 0..200 {
        let began = Instant::now();
        assert_eq!(client.get("/").await.unwrap().status, 200);
        assert!(began.elapsed() < Duration::from_secs(2), "a request waited for stderr");
    }
    let mut text = Vec::new();
    let is_told = eventually(DEADLINE, || {
        let _ = reader.read_to_end(&mut text);
        String::from_utf8_lossy(&text).contains("WARN the log has lost lines: nobody read stderr lost=")
    });
    assert!(is_told.await, "nobody hears of it");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
}

/// Every secret that a configuration or a request can hold, each with a word of its own.
const SECRETS: [&str; 9] = [
    "hush-admin",
    "hush-bypass",
    "hush-redis",
    "hush-webhook",
    "hush-header",
    "hush-basic",
    "hush-bearer",
    "hush-cookie",
    "hush-wrong",
];

fn assert_secret(what: &str, text: &str) {
    for secret in SECRETS.iter().chain(&["aHVzaC1iYXNpYw", "OmhodXNoLWJhc2lj"]) {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} in {what}: {}", line.unwrap_or_default());
    }
}

fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("access.log")).unwrap_or_default()
}

#[tokio::test]
async fn secrets_never_appear() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    for format in ["combined", "json"] {
        let config = format!(
            "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"hush-admin\"\n\
             [log]\nlevel = \"trace\"\naccess = \"access.log\"\naccess_format = \"{format}\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
             [maintenance]\nbypass_token = \"hush-bypass\"\n\
             [redis]\nurl = \"redis://:hush-redis@127.0.0.1:1\"\ntimeout = \"20ms\"\n\
             [limit.shared]\nrate = \"5/1s\"\nstore = \"redis\"\n\
             [[notify]]\nurl = \"http://127.0.0.1:1/hush-webhook\"\nformat = \"json\"\n\
             [[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"shared\"]\nrequest_headers = {{ set = {{ Authorization = \"Bearer hush-header\" }} }}\n\
             [upstream.app]\nendpoints = [\"{}\"]\n",
            upstream.endpoint()
        );
        let mut flagstone = Flagstone::serve(&config).await;
        let (address, admin) = (flagstone.address("web").await, flagstone.admin().await);
        flagstone.folder.write("state/maintenance.flag", "");
        let requests = [
            ("/?maintenance_bypass=hush-bypass", ""),
            ("/a?x=1&maintenance_bypass=hush-bypass", "Cookie: session=hush-cookie\r\n"),
            ("/", "Referer: http://x/?maintenance_bypass=hush-bypass\r\n"),
            ("/", "X-Maintenance-Bypass: hush-bypass\r\n"),
            ("/", "Authorization: Basic aGVsbG86aHVzaC1iYXNpYw==\r\n"),
            ("/", "Authorization: Bearer hush-bearer\r\n"),
        ];
        for _ in 0..3 {
            for (path, headers) in requests {
                let mut client = Client::connect(address).await.unwrap();
                client.request("GET", path, headers).await.unwrap();
                client.read_response().await.unwrap();
            }
        }
        // Refused before they are requests.
        for bytes in [
            "GET /?maintenance_bypass=hush-bypass HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET /?maintenance_bypass=hush-bypass\r\n\r\n",
        ] {
            let mut client = Client::connect(address).await.unwrap();
            client.send(bytes).await.unwrap();
            client.read_to_end().await.unwrap();
        }
        for token in ["hush-wrong", "hush-admin"] {
            for path in ["/api/status", "/api/config", "/metrics", "/api/requests", "/api/admin/system/status"] {
                let mut client = Client::connect(admin).await.unwrap();
                client
                    .send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"))
                    .await
                    .unwrap();
                let answer = client.read_response().await.unwrap();
                if token == "hush-admin" {
                    assert_eq!(answer.status, 200, "{path}");
                }
                assert_secret(path, &answer.text());
            }
        }
        // A reload that goes wrong just there, and its commands.
        let broken = config
            .replace("\"hush-admin\"", "\"hush-admin \"")
            .replace("redis://:", "redix://:")
            .replace("http://127.0.0.1:1/", "htp://");
        flagstone.folder.replace("flagstone.toml", broken);
        flagstone.process.stderr_line("Configuration rejected").await;
        let file = flagstone.config().display().to_string();
        for arguments in [&["check", "-c", &file][..], &["check", "--format", "json", "-c", &file]] {
            let ended = Flagstone::run(arguments).await;
            assert_secret("check", &format!("{}{}", ended.stdout, ended.stderr));
        }
        flagstone.folder.replace("flagstone.toml", &config);
        flagstone.process.stderr_line("Configuration reloaded").await;
        let logged = || log_of(flagstone.folder.path()).lines().count() >= 20;
        assert!(eventually(DEADLINE, logged).await, "{}", log_of(flagstone.folder.path()));
        flagstone.process.signal(Signal::TERM);
        flagstone.process.wait(DEADLINE).await;
        assert_secret("the access log", &log_of(flagstone.folder.path()));
        assert_secret("stdout", &flagstone.process.stdout());
        assert_secret("stderr", &flagstone.process.stderr());
    }
}
