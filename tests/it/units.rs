//! The units as they ship, under a real systemd: process 1 of namespaces that end with the test.

use std::path::Path;
use std::process::Command;

use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::eventually_async;
use crate::support::process::{DEADLINE, Ended, Process, children};

const TARGET: &str = "[Unit]\nDescription=Nothing but what the test starts\nAllowIsolate=yes\n";

struct Systemd {
    boot: Process,
    id: u32,
    _folder: Folder,
}

impl Systemd {
    /// With the units installed and `config` as the configuration, nothing started.
    async fn boot(config: &str) -> Self {
        let folder = Folder::new();
        for unit in ["flagstone.service", "flagstone.socket"] {
            let text = std::fs::read(repository().join("config").join(unit)).unwrap();
            folder.write(&format!("etc/systemd/system/{unit}"), text);
        }
        folder.write("etc/systemd/system/test.target", TARGET);
        folder.write("etc/flagstone/flagstone.toml", config);
        let stage = folder.create_folder("stage");
        let mut command = Command::new("unshare");
        command.arg("--mount").arg(repository().join("tests/it/units/boot.sh")).arg(env!("CARGO_BIN_EXE_flagstone"));
        let boot = Process::start(command.arg(folder.join("etc")).arg(&stage));
        let mut id = None;
        let up = eventually_async(DEADLINE, async || {
            id = children(boot.id()).first().and_then(|unshare| children(*unshare).first().copied());
            let Some(id) = id else { return false };
            inside(id, "systemctl is-active test.target").await.status.success()
        });
        assert!(up.await, "{}", boot.stderr());
        Self { id: id.unwrap(), boot, _folder: folder }
    }

    async fn run(&self, script: &str) -> Ended {
        inside(self.id, script).await
    }

    /// # Panics
    /// The script fails.
    async fn succeed(&self, script: &str) -> String {
        let ended = self.run(script).await;
        if !ended.status.success() {
            let status = self.run("systemctl status flagstone.service flagstone.socket --no-pager").await;
            panic!("{script}: {ended:?}\n{}", status.stdout);
        }
        ended.stdout.trim().to_owned()
    }

    /// A property of the service.
    async fn property(&self, name: &str) -> String {
        self.succeed(&format!("systemctl show --property {name} --value flagstone.service")).await
    }

    /// Whether a property takes on this value.
    async fn comes_to(&self, name: &str, value: &str) -> bool {
        eventually_async(DEADLINE, async || self.property(name).await == value).await
    }

    /// The status and body that a client gets on port 80, waiting as long as it takes.
    async fn get(&self) -> String {
        self.succeed("curl -s --max-time 60 -w ' %{http_code}' http://127.0.0.1/").await
    }

    /// Takes the groups away that systemd made.
    async fn end(mut self) {
        let systemd = rustix::process::Pid::from_raw(i32::try_from(self.id).unwrap()).unwrap();
        rustix::process::kill_process(systemd, rustix::process::Signal::KILL).unwrap();
        assert!(self.boot.wait(DEADLINE).await.success(), "{}", self.boot.stderr());
    }
}

/// A shell's script beside the systemd with this process id.
async fn inside(systemd: u32, script: &str) -> Ended {
    let mut command = Command::new("nsenter");
    command.args(["-t", &systemd.to_string(), "-m", "-p", "-i", "-u", "-C", "-n"]);
    command.args(["env", "-i", "PATH=/usr/local/bin:/usr/bin:/usr/sbin", "sh", "-c", script]);
    Process::run(&mut command).await
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn says(text: &str) -> String {
    // The unit of the socket says where.
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\n[[route]]\nname = \"all\"\nrespond = {{ body = \"{text}\" }}\n"
    )
}

/// A script that replaces the configuration.
fn install(text: &str) -> String {
    format!("cat >/etc/flagstone/new <<'E'\n{text}E\nmv /etc/flagstone/new /etc/flagstone/flagstone.toml")
}

/// # Errors
/// What is missing for a systemd of its own.
fn possible() -> Result<(), String> {
    for needed in ["unshare", "nsenter", "systemctl", "curl", "ip"] {
        program(needed)?;
    }
    match rustix::process::geteuid().is_root() && Path::new("/usr/lib/systemd/systemd").exists() {
        true => Ok(()),
        false => Err("a systemd of its own needs root, and Debian's package systemd".to_owned()),
    }
}

/// It is not given up, as units are by default after five failed starts in ten seconds.
#[tokio::test]
async fn a_port_that_is_in_use_for_long_is_taken_when_it_is_free() {
    or_left_out!(possible());
    let systemd = Systemd::boot(&says("here").replace("127.0.0.1:1\"", "127.0.0.1:80\"")).await;
    let other = "systemd-run --unit other /usr/local/bin/flagstone run --listen 127.0.0.1:80 --upstream 127.0.0.1:1";
    systemd.succeed(other).await;
    // Until it listens there is nobody to ask.
    let listens = async || systemd.run("curl -s -o /dev/null http://127.0.0.1/").await.status.success();
    assert!(eventually_async(DEADLINE, listens).await);
    assert!(!systemd.run("systemctl start flagstone.service").await.status.success());
    let restarts = async || systemd.property("NRestarts").await.parse::<u32>().unwrap();
    assert!(eventually_async(DEADLINE, async || restarts().await > 6).await, "{}", restarts().await);
    systemd.succeed("systemctl stop other").await;
    assert!(systemd.comes_to("ActiveState", "active").await);
    assert_eq!(systemd.get().await, "here 200");
    systemd.succeed("systemctl stop flagstone.service").await;
    systemd.end().await;
}

#[tokio::test]
async fn systemd_starts_reloads_upgrades_watches_and_stops_it() {
    or_left_out!(possible());
    let systemd = Systemd::boot(&says("one")).await;

    // The first client starts it.
    systemd.succeed("systemctl start flagstone.socket").await;
    assert_eq!(systemd.property("ActiveState").await, "inactive");
    assert_eq!(systemd.get().await, "one 200");
    // Which it may do before systemd has read that it serves.
    assert!(systemd.comes_to("ActiveState", "active").await && systemd.comes_to("StatusText", "serving").await);
    let status = systemd.succeed("cat /proc/$(systemctl show -P MainPID flagstone.service)/status").await;
    let fact = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert!(fact("Uid:").split_whitespace().all(|uid| uid != "0"), "{status}");
    // Low ports and nothing else.
    assert_eq!(fact("CapBnd:"), "0000000000000400");

    // Its operators are root.
    systemd.succeed("touch /run/flagstone/maintenance.flag").await;
    assert!(eventually_async(DEADLINE, async || systemd.get().await.ends_with("503")).await);
    systemd.succeed("rm /run/flagstone/maintenance.flag").await;
    assert!(eventually_async(DEADLINE, async || systemd.get().await == "one 200").await);

    systemd.succeed(&format!("{}; systemctl reload flagstone.service", install(&says("two")))).await;
    assert_eq!(systemd.get().await, "two 200");
    let refused = systemd.run(&format!("{}; systemctl reload flagstone.service", install("[[rute]]\n"))).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(systemd.property("ActiveState").await, "active");
    assert_eq!(systemd.get().await, "two 200");
    systemd.succeed(&install(&says("two"))).await;

    let old = systemd.property("MainPID").await;
    systemd.succeed("systemctl kill --signal USR2 --kill-who main flagstone.service").await;
    assert!(eventually_async(DEADLINE, async || systemd.property("MainPID").await != old).await);
    let gone = format!("! kill -0 {old}");
    assert!(eventually_async(DEADLINE, async || systemd.run(&gone).await.status.success()).await);
    assert!(systemd.comes_to("ActiveState", "active").await);
    assert_eq!(systemd.property("NRestarts").await, "0");
    assert_eq!(systemd.get().await, "two 200");

    // Who comes while it hangs waits for the one that is started in its place.
    let watchdog = "mkdir -p /run/systemd/system/flagstone.service.d; \
                    printf '[Service]\\nWatchdogSec=4\\n' >/run/systemd/system/flagstone.service.d/soon.conf; \
                    systemctl daemon-reload; systemctl restart flagstone.service";
    systemd.succeed(watchdog).await;
    let stuck = systemd.property("MainPID").await;
    // Each thread stops when it comes to it, and until then may take a client that dies with it.
    let stopped = format!("! grep -h ^State /proc/{stuck}/task/*/status | grep -qv '(stopped)'");
    systemd.succeed(&format!("kill -STOP {stuck}; until {stopped}; do sleep 0.01; done")).await;
    assert_eq!(systemd.get().await, "two 200");
    assert_ne!(systemd.property("MainPID").await, stuck);
    assert_ne!(systemd.property("NRestarts").await, "0");

    systemd.succeed("systemctl stop flagstone.service").await;
    assert_eq!(systemd.property("Result").await, "success");
    assert_eq!(systemd.property("ExecMainStatus").await, "0");
    assert_eq!(systemd.get().await, "two 200", "the port is systemd's");

    // A test of the file that fails refuses a reload, but keeps no machine from starting. And variables have their
    // place.
    let failing = "[[test]]\nname = \"t\"\nrequest = { url = \"http://a/\" }\nexpect = { status = 404 }\n";
    systemd.succeed("systemctl stop flagstone.service").await;
    systemd
        .succeed(&format!("{}; echo ANSWER=three >/etc/flagstone/environment", install(&(says("${ANSWER}") + failing))))
        .await;
    assert_eq!(systemd.get().await, "three 200");
    systemd.end().await;
}
