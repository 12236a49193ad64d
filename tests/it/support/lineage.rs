//! A process of the real binary and all that took over from it, one after the other.
//!
//! The program lies in a folder of its own, where a test can exchange it. Dropping it kills whatever is left.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use serde_json::Value;

use super::client::{self, Client, RawResponse};
use super::files::Folder;
use super::process::{Ended, Flagstone, Process, Signal};

/// See the module docs.
#[derive(Debug)]
pub struct Lineage {
    /// The one that the test started.
    pub first: Process,
    pub folder: Folder,
    /// Of the listener `web`.
    pub address: SocketAddr,
}

impl Lineage {
    /// Serves `rest` (routes and what they need) on the listener `web`, with a grace of five seconds.
    ///
    /// # Panics
    /// When it does not come to serve.
    pub async fn start(rest: &str) -> Self {
        Self::start_in(Folder::new(), rest, "shutdown_grace = \"5s\"\n").await
    }

    /// [`Lineage::start`] with files that are there already, and other keys of `[server]`.
    ///
    /// # Panics
    /// When it does not come to serve.
    pub async fn start_in(folder: Folder, rest: &str, server: &str) -> Self {
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

    /// A command of the program, run to its end.
    pub async fn command(&self, command: &str) -> Ended {
        let file = self.folder.join("flagstone.toml");
        let mut process = Process::start(&mut Flagstone::command([command.as_ref(), "-c".as_ref(), file.as_os_str()]));
        let status = process.wait(Duration::from_secs(90)).await;
        Ended { status, stdout: process.stdout(), stderr: process.stderr() }
    }

    pub async fn upgrade(&self) -> Ended {
        self.command("upgrade").await
    }

    /// What a command prints with `--json`.
    pub async fn json(&self, command: &str) -> Value {
        let file = self.folder.join("flagstone.toml");
        let words = [command.as_ref(), "--json".as_ref(), "-c".as_ref(), file.as_os_str()];
        let mut process = Process::start(&mut Flagstone::command(words));
        assert_eq!(process.wait(Duration::from_secs(90)).await.code(), Some(0), "{}", process.stderr());
        serde_json::from_str(&process.stdout()).expect("JSON")
    }

    /// The process that serves now.
    pub async fn pid(&self) -> u32 {
        let mut client = Client::connect_unix(self.folder.join("admin.sock")).await.unwrap();
        client.send("GET /api/admin/system/status HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let status: Value = serde_json::from_slice(&client.read_response().await.unwrap().body).unwrap();
        u32::try_from(status["pid"].as_u64().unwrap()).unwrap()
    }

    pub async fn get(&self, path: &str) -> RawResponse {
        client::get(self.address, path).await.unwrap()
    }

    /// Puts another program where this one was.
    pub fn replace_program(&self, script: &str) {
        let new = self.folder.write("new", script);
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, self.folder.join("flagstone")).unwrap();
    }

    /// All that are alive.
    pub fn processes(&self) -> Vec<u32> {
        processes_of(self.folder.path())
    }
}

impl Drop for Lineage {
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

/// Ends a process at once.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // Gone already is fine.
    let _ = kill_process(pid, signal);
}
