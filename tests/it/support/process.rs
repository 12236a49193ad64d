//! Real programs: the `flagstone` binary first, and whatever else a test puts before or behind it.
//!
//! Each runs with captured output, every wait has a deadline, and dropping it kills it, by its own id. A program's own
//! children are not killed: run nginx with `daemon off; master_process off;`, and the like.

use std::ffi::OsStr;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use super::files::Folder;
use super::poll::eventually;

/// How long a program gets to start, and by default to do anything else.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// What is kept of each output; more is read and forgotten.
const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// A program that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

type Output = Arc<Mutex<Vec<u8>>>;

impl Process {
    /// Starts a program with captured output and nothing on stdin.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_stdin(command, Stdio::null())
    }

    /// [`Process::start`] with something on stdin.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_with_stdin(command: &mut Command, stdin: Stdio) -> Self {
        let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = captured(child.stdout.take());
        let stderr = captured(child.stderr.take());
        Self { child, stdout, stderr }
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    pub async fn run(command: &mut Command) -> Ended {
        let mut process = Self::start(command);
        let status = process.wait(DEADLINE).await;
        Ended { status, stdout: process.stdout(), stderr: process.stderr() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything on stdout so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// Everything on stderr so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // Until it is waited for, the id stays its own, so this cannot hit another process.
        kill_process(pid, signal).expect("a process to signal");
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits for its end and for the last of its output.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let ended = eventually(deadline, || self.ended().is_some()).await;
        assert!(ended, "process {} did not end within {deadline:?}; stderr: {}", self.id(), self.stderr());
        // The readers hold the other references and let go at the end of the output. A grandchild may keep it open.
        let outputs = [Arc::clone(&self.stdout), Arc::clone(&self.stderr)];
        let read = || outputs.iter().all(|output| Arc::strong_count(output) == 2);
        let _: bool = eventually(Duration::from_secs(2), read).await;
        self.ended().expect("it has just ended")
    }

    /// Waits until a line of stderr contains `part`, and returns the line.
    ///
    /// # Panics
    /// When none does in time or the process ends before.
    pub async fn stderr_line(&mut self, part: &str) -> String {
        self.line(part, |line| line.contains(part), Self::stderr).await
    }

    /// Waits until a line of stdout contains `part`, and returns the line.
    ///
    /// # Panics
    /// When none does in time or the process ends before.
    pub async fn stdout_line(&mut self, part: &str) -> String {
        self.line(part, |line| line.contains(part), Self::stdout).await
    }

    /// `what` names in the panic what `wanted` looks for.
    async fn line(&mut self, what: &str, wanted: impl Fn(&str) -> bool, output: fn(&Self) -> String) -> String {
        let mut found = None;
        let done = eventually(DEADLINE, || {
            // Asked before looking, so that the last words of a process that ends are still seen.
            let ended = self.ended().is_some();
            found = complete_lines(&output(self)).find(|line| wanted(line)).map(str::to_owned);
            found.is_some() || (ended && Arc::strong_count(&self.stderr) == 1 && Arc::strong_count(&self.stdout) == 1)
        });
        let _: bool = done.await;
        found.unwrap_or_else(|| panic!("no line with {what:?}; stdout: {}\nstderr: {}", self.stdout(), self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The real binary, serving.
#[derive(Debug)]
pub struct Flagstone {
    pub process: Process,
    /// Holds `flagstone.toml` and, unless the configuration says otherwise, the state folder `state`.
    pub folder: Folder,
}

impl Flagstone {
    /// The binary with a clean environment, to add arguments to.
    pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagstone"));
        for name in ["FLAGSTONE_CONFIG", "FLAGSTONE_LISTEN", "FLAGSTONE_UPSTREAM", "FLAGSTONE_FLAG", "MAINTENANCE_MODE"]
        {
            command.env_remove(name);
        }
        command.args(args);
        command
    }

    /// Runs the binary to its end: `Flagstone::run(["check", "-c", "x.toml"])`.
    pub async fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
        Process::run(&mut Self::command(args)).await
    }

    /// Serves a configuration from a folder of its own; write ports as 0 and paths relative.
    ///
    /// # Panics
    /// When it does not come to serve.
    pub async fn serve(config: &str) -> Self {
        Self::serve_in(Folder::new(), config).await
    }

    /// Serves a configuration from a folder that holds other files already.
    ///
    /// # Panics
    /// When it does not come to serve.
    pub async fn serve_in(folder: Folder, config: &str) -> Self {
        assert!(
            config.contains("[admin]"),
            "without that table the admin side has a fixed port, which others want too"
        );
        let file = folder.write("flagstone.toml", config);
        let mut command = Self::command([OsStr::new("run"), OsStr::new("-c"), file.as_os_str()]);
        let mut process = Process::start(command.current_dir(folder.path()));
        process.stderr_line("listening name=").await;
        Self { process, folder }
    }

    /// Where a listener listens.
    ///
    /// # Panics
    /// When the process does not say so in time, or it is a unix socket.
    pub async fn address(&mut self, listener: &str) -> SocketAddr {
        let line = self.process.stderr_line(&format!("listening name={listener} ")).await;
        address_in(&line)
    }

    /// Where the admin side listens.
    ///
    /// # Panics
    /// When the process does not say so in time, or it is a unix socket.
    pub async fn admin(&mut self) -> SocketAddr {
        let line = self.process.stderr_line("admin listening ").await;
        address_in(&line)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("flagstone.toml")
    }

    /// Resident memory in bytes, from `/proc`.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.process.id())
    }

    /// What of it is no file's: without the program's own text, which comes in as it is run.
    pub fn anonymous_bytes(&self) -> u64 {
        bytes_of("RssAnon:", self.process.id())
    }
}

/// Resident memory of a process in bytes, from `/proc`.
pub fn resident_bytes(id: u32) -> u64 {
    bytes_of("VmRSS:", id)
}

/// The address space of a process in bytes, from `/proc`.
pub fn virtual_bytes(id: u32) -> u64 {
    bytes_of("VmSize:", id)
}

/// A line of `/proc/ID/status` that tells of memory.
fn bytes_of(field: &str, id: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a living process");
    let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number of kB");
    kib * 1024
}

fn address_in(line: &str) -> SocketAddr {
    let value = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let value = value.unwrap_or_else(|| panic!("no address in {line:?}")).trim_matches('"');
    value.parse().unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn captured(pipe: Option<impl Read + Send + 'static>) -> Output {
    let output = Output::default();
    let kept = Arc::clone(&output);
    let mut pipe = pipe.expect("the output is piped");
    // Ends with the program, which ends with its `Process`.
    std::thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(read @ 1..) = pipe.read(&mut piece) {
            let mut kept = kept.lock().expect("no holder of this lock panics");
            let room = OUTPUT_BYTES_MAX - kept.len();
            kept.extend_from_slice(&piece[..read.min(room)]);
        }
    });
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.lock().expect("no holder of this lock panics")).into_owned()
}

/// The lines that have their end already.
fn complete_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

/// The processes that this one has started and that still are its own.
pub fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    text.collect::<String>().split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Stops a process, and returns when all of it stands still: its threads may run on for a while after the signal.
///
/// # Panics
/// When it does not come to stand still in time.
pub async fn stop(process: &Process) {
    process.signal(Signal::STOP);
    let tasks = Path::new("/proc").join(process.id().to_string()).join("task");
    let stands_still = |task: &Path| {
        // It may have ended since it was listed. The state stands behind the name, which may hold anything; a small `t`
        // is one that strace sees stop.
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    };
    let all_stand_still = || {
        let tasks = std::fs::read_dir(&tasks).expect("a process");
        tasks.flatten().all(|task| stands_still(&task.path()))
    };
    assert!(eventually(DEADLINE, all_stand_still).await, "process {} goes on", process.id());
}

/// Whether a process has a file open.
pub fn has_open(pid: u32, file: &Path) -> bool {
    let file = file.canonicalize().expect("a file");
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| target == file)
}

/// Whether a process has a handler for a signal.
pub fn catches(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    caught.is_some_and(|caught| caught >> (signal.as_raw() - 1) & 1 == 1)
}
