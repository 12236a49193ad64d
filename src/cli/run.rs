//! `flagstone run`: serve until told to stop.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{FileArgument, environment, refuse, variable, wrong_use};
use crate::app::{App, Control, Leave, Source};
use crate::config::{self, Loaded, Problem, Problems};
use crate::error::{io_reason, is_full};
use crate::systemd;
use crate::telemetry::events;
use crate::upgrade::{self, Inheritance};
use crate::upstream::Resolver;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArgument,
    /// Serve without a file: listen here … [env: FLAGSTONE_LISTEN]
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    listen: Option<String>,
    /// … and forward to this address [env: FLAGSTONE_UPSTREAM]
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    upstream: Option<String>,
    /// The maintenance flag file, for serving without a file [env: FLAGSTONE_FLAG]
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    flag: Option<String>,
}

impl Arguments {
    /// What to serve without a file; `None` = a file says it. What was typed goes before the environment, so `-c`
    /// stands against FLAGSTONE_LISTEN.
    ///
    /// # Errors
    /// Half of it is there.
    fn quick(&self) -> Result<Option<Quick>, String> {
        if self.file.config.is_some() {
            return Ok(None);
        }
        let or_set = |typed: &Option<String>, name: &str| typed.clone().or_else(|| variable(name));
        let flag = or_set(&self.flag, "FLAGSTONE_FLAG");
        match (or_set(&self.listen, "FLAGSTONE_LISTEN"), or_set(&self.upstream, "FLAGSTONE_UPSTREAM")) {
            (Some(listen), Some(upstream)) => Ok(Some(Quick { listen, upstream, flag })),
            (Some(_), None) => Err("--listen needs --upstream ADDR (or FLAGSTONE_UPSTREAM) beside it".into()),
            (None, Some(_)) => Err("--upstream needs --listen ADDR (or FLAGSTONE_LISTEN) beside it".into()),
            (None, None) if self.flag.is_some() => Err("--flag is for --listen ADDR and --upstream ADDR".into()),
            (None, None) => Ok(None),
        }
    }
}

/// Everything that serving without a file needs.
pub(super) struct Quick {
    pub(super) listen: String,
    pub(super) upstream: String,
    pub(super) flag: Option<String>,
}

impl Quick {
    /// What `run` would serve without arguments; `None` = a file says it.
    pub(super) fn of_environment() -> Option<Self> {
        let (listen, upstream) = (variable("FLAGSTONE_LISTEN")?, variable("FLAGSTONE_UPSTREAM")?);
        Some(Self { listen, upstream, flag: variable("FLAGSTONE_FLAG") })
    }
}

/// Serves; the exit code is 0 after a drain and 1 when it could not start.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let quick = match arguments.quick() {
        Ok(quick) => quick,
        Err(message) => return wrong_use("run", &message),
    };
    upgrade::note_program();
    raise_descriptor_limit();
    let mut inheritance = match Inheritance::take() {
        Ok(inheritance) => inheritance,
        Err(error) => return refuse(&Problem::new("", error).into()),
    };
    match start(arguments, quick, &mut inheritance) {
        // What the log still holds is written when it is dropped, after all else.
        Ok((app, signals, _log)) => serve(app, signals, inheritance),
        Err(problems) => {
            let predecessor = inheritance.predecessor.as_mut();
            // Its log tells of it.
            let is_told = predecessor.is_some_and(|predecessor| predecessor.failed(problems.to_string()));
            if is_told { ExitCode::FAILURE } else { refuse(&problems) }
        }
    }
}

fn start(
    arguments: &Arguments,
    quick: Option<Quick>,
    inheritance: &mut Inheritance,
) -> Result<(App, Signals, events::LogGuard), Problems> {
    // First of all: a signal that comes early must not kill.
    let signals = Signals::register()
        .map_err(|error| Problem::new("", format!("signals cannot be received: {}", io_reason(&error))))?;
    let (loaded, source) = load(arguments, quick)?;
    let log = events::init(&loaded.config.log.level, loaded.config.log.format)
        .map_err(|error| Problem::new("log.level", error.to_string()))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // The process before may have seen the maintenance of its own start end.
    if inheritance.predecessor.is_none() {
        flag_from_environment(&loaded)?;
    }
    let app = App::start_inheriting(loaded, source, Resolver::from_system(), inheritance)?;
    Ok((app, signals, log))
}

fn serve(app: App, mut signals: Signals, inheritance: Inheritance) -> ExitCode {
    announce(&app);
    let mut twin = None;
    match inheritance.predecessor {
        None => systemd::ready(),
        Some(mut predecessor) => {
            twin = predecessor.twin();
            predecessor.serving();
            // Ends with the other process at the latest.
            let control = Arc::clone(app.control());
            std::thread::spawn(move || {
                let told = predecessor.wait_for_commit();
                control.take_charge(told.as_deref());
                systemd::ready();
            });
        }
    }
    match signals.wait(&app) {
        Stop::Leave(how) => {
            // The other process need not wait and see: it serves on.
            if let Some(predecessor) = twin.as_mut().filter(|_| !app.control().is_in_charge()) {
                let _ = predecessor.failed("it was told to go".to_owned());
            }
            drain(app, signals, how);
        }
        Stop::Now => drop(app),
    }
    ExitCode::SUCCESS
}

fn drain(app: App, signals: Signals, how: Leave) {
    let (delay, grace) = match (how, app.control().shutdown_patience()) {
        (Leave::Drain, patience) if app.control().is_in_charge() => patience,
        // Another process accepts: nobody has to turn away first.
        (Leave::Drain | Leave::HandedOver, (_, grace)) => (Duration::ZERO, grace),
    };
    tracing::info!(pid = std::process::id(), "draining");
    let (hurry, control) = (app.hurry(), Arc::clone(app.control()));
    let began = Instant::now();
    // Owned by the process, which ends right after the drain.
    let listening = std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        signals.wait_for_interrupt(&control);
        hurry.stop_now();
    });
    if let Err(error) = listening {
        tracing::warn!(%error, "the drain cannot be cut short by INT");
    }
    let finished = match how {
        Leave::Drain => app.drain(delay, grace),
        Leave::HandedOver => app.finish_handed_over(grace),
    };
    if !finished {
        match began.elapsed() < delay + grace {
            true => tracing::warn!("some requests were cut: interrupted"),
            false => tracing::warn!("some requests were cut: they did not finish within shutdown_grace"),
        }
    }
    tracing::info!(pid = std::process::id(), "stopped");
}

fn load(arguments: &Arguments, quick: Option<Quick>) -> Result<(Loaded, Source), Problems> {
    if let Some(quick) = quick {
        return Ok((load_quick(&quick)?, Source::Fixed));
    }
    let (loaded, file) = arguments.file.load_to_build()?;
    Ok((loaded, Source::File(file)))
}

/// What serving without a file goes by.
pub(super) fn load_quick(quick: &Quick) -> Result<Loaded, Problems> {
    let mut loaded = config::quick(&quick.listen, &quick.upstream, quick.flag.as_deref(), &environment)?;
    if !can_make(&loaded.config.server.state_dir) {
        move_state_dir(&mut loaded, own_state_dir()?, quick);
    }
    Ok(loaded)
}

/// The flag file moves along, unless it was named.
fn move_state_dir(loaded: &mut Loaded, folder: PathBuf, quick: &Quick) {
    loaded.masked["server"]["state_dir"] = folder.display().to_string().into();
    let config = &mut loaded.config;
    let is_named = quick.flag.as_ref().is_some_and(|flag| !flag.is_empty());
    if let Ok(name) = config.maintenance.flag.strip_prefix(&config.server.state_dir)
        && !is_named
    {
        config.maintenance.flag = folder.join(name);
    }
    config.server.state_dir = folder;
}

/// Whether this user may write there, or make it.
fn can_make(folder: &std::path::Path) -> bool {
    let standing = folder.ancestors().find(|folder| folder.exists());
    standing.is_some_and(|folder| folder.is_dir() && rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok())
}

/// For serving without a file by a user who may not write to /run: their own runtime folder, else one where everybody may
/// make folders. Flags and keys in it are believed, so it must not be somebody else's.
fn own_state_dir() -> Result<PathBuf, Problems> {
    if let Some(folder) = variable("XDG_RUNTIME_DIR") {
        return Ok(PathBuf::from(folder).join("flagstone"));
    }
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("flagstone-{user}"));
    match std::fs::symlink_metadata(&folder) {
        Ok(there) if !there.is_dir() || there.uid() != user => {
            let problem =
                Problem::new("server.state_dir", "belongs to somebody else").with_text(&folder.to_string_lossy());
            Err(problem.with_help("set XDG_RUNTIME_DIR to a folder of your own").into())
        }
        _ => Ok(folder),
    }
}

/// `MAINTENANCE_MODE=true` creates the flag file, as if somebody had touched it.
fn flag_from_environment(loaded: &Loaded) -> Result<(), Problems> {
    match environment("MAINTENANCE_MODE").unwrap_or_default().to_ascii_lowercase().as_str() {
        "true" => {}
        "" | "false" => return Ok(()),
        // Whoever set it may believe that the site is closed.
        other => {
            tracing::warn!("MAINTENANCE_MODE is {other:?} and begins no maintenance: only \"true\" does");
            return Ok(());
        }
    }
    let flag = &loaded.config.maintenance.flag;
    if flag.exists() {
        return Ok(());
    }
    let content = crate::policy::maintenance::Flag { by: Some("environment".into()), ..Default::default() };
    let written = flag
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| crate::reload::flag_file::write_flag(flag, &content))
        // There is mostly room for a file without content, and that is a flag with all defaults.
        .or_else(|error| if is_full(&error) { std::fs::File::create(flag).map(drop) } else { Err(error) });
    written.map_err(|error| {
        let text = format!("{} cannot be written: {}", flag.display(), io_reason(&error));
        Problem::new("maintenance.flag", text).with_help("name a file in a folder that this user may write").into()
    })
}

/// Says where it listens, one line each, for people and for scripts.
pub(super) fn announce(app: &App) {
    for (name, address) in app.listeners() {
        tracing::info!(name, %address, "listening");
    }
    if let Some(address) = app.admin_address() {
        tracing::info!(%address, "admin listening");
    }
}

/// How to end.
pub(super) enum Stop {
    Leave(Leave),
    Now,
}

/// Signals, received from here on instead of acted upon by default.
pub(super) struct Signals {
    runtime: tokio::runtime::Runtime,
    hangup: tokio::signal::unix::Signal,
    reopen: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    upgrade: tokio::signal::unix::Signal,
    child: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn register() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let (hangup, reopen) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
        let (terminate, quit) = (signal(SignalKind::terminate())?, signal(SignalKind::quit())?);
        let (interrupt, upgrade) = (signal(SignalKind::interrupt())?, signal(SignalKind::user_defined2())?);
        let child = signal(SignalKind::child())?;
        drop(entered);
        Ok(Self { runtime, hangup, reopen, terminate, quit, interrupt, upgrade, child })
    }

    /// Serves HUP, USR1 and USR2 until one of TERM, QUIT and INT comes, the admin side is asked to drain, or another
    /// process has taken over.
    pub(super) fn wait(&mut self, app: &App) -> Stop {
        let Self { runtime, hangup, reopen, terminate, quit, interrupt, upgrade, child } = self;
        let reloads = Arc::new(Mutex::new(()));
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return Stop::Leave(Leave::Drain),
                    _ = quit.recv() => return Stop::Leave(Leave::Drain),
                    how = app.control().asked_to_leave() => return Stop::Leave(how),
                    _ = interrupt.recv() => return Stop::Now,
                    _ = reopen.recv() => app.control().reopen_logs(),
                    turn = next(hangup, &reloads) => reload(app, turn),
                    _ = upgrade.recv() => begin_upgrade(app),
                    _ = child.recv() => reap_orphans(),
                }
            }
        })
    }

    /// Waits for INT. Logs are written on, and rotated, to the end.
    fn wait_for_interrupt(self, control: &Control) {
        let Self { runtime, mut interrupt, mut reopen, .. } = self;
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => return,
                    _ = reopen.recv() => control.reopen_logs(),
                }
            }
        });
    }
}

/// The next signal that asks for a reload, once the last one has been answered. Of those that come meanwhile one is left.
async fn next(hangup: &mut tokio::signal::unix::Signal, reloads: &Arc<Mutex<()>>) -> OwnedMutexGuard<()> {
    let turn = Arc::clone(reloads).lock_owned().await;
    hangup.recv().await;
    turn
}

/// Beside everything else, for it may wait: for an upgrade, for a disk. The outcome, good or bad, is logged and counted.
fn reload(app: &App, turn: OwnedMutexGuard<()>) {
    let control = Arc::clone(app.control());
    let reloading = std::thread::Builder::new().name("reload".into()).spawn(move || {
        let _ = control.reload();
        drop(turn);
    });
    if let Err(error) = reloading {
        tracing::error!(%error, "the reload cannot begin");
    }
}

/// Beside everything else, for it takes a while.
fn begin_upgrade(app: &App) {
    let control = Arc::clone(app.control());
    let upgrading = std::thread::Builder::new().name("upgrade".into()).spawn(move || {
        // The outcome, good or bad, has been logged.
        let _ = control.upgrade();
    });
    if let Err(error) = upgrading {
        tracing::error!(%error, "the upgrade cannot begin");
    }
}

/// To what the system allows: the lower one is for programs that use select(2).
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, the lower one does.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Process 1 of a container gets everybody's orphans. It has no children of its own: an upgrade is not for it.
fn reap_orphans() {
    if std::process::id() == 1 {
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_is_named_stays_where_it_is() {
        let moved = |flag: Option<&str>| {
            let flag = flag.map(str::to_owned);
            let quick = Quick { listen: "127.0.0.1:0".to_owned(), upstream: "127.0.0.1:1".to_owned(), flag };
            let loaded = config::quick(&quick.listen, &quick.upstream, quick.flag.as_deref(), &|_| None);
            let mut loaded = loaded.expect("all of it is well");
            move_state_dir(&mut loaded, "/home/me".into(), &quick);
            assert_eq!(loaded.config.server.state_dir, std::path::Path::new("/home/me"));
            loaded.config.maintenance.flag
        };
        // As it is where a volume with the flag is mounted there.
        let named = "/run/flagstone/named.flag";
        assert_eq!(moved(Some(named)), std::path::Path::new(named));
        for none in [None, Some("")] {
            assert_eq!(moved(none), std::path::Path::new("/home/me/maintenance.flag"));
        }
    }
}
