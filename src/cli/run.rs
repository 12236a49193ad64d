//! `flagstone run`: serve until told to stop.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{FileArgument, environment, refuse};
use crate::app::{App, Source};
use crate::config::model::Config;
use crate::config::{self, Loaded, Problem, Problems};
use crate::telemetry::events;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArgument,
    /// Serve without a file: listen here …
    #[arg(long, value_name = "ADDR", env = "FLAGSTONE_LISTEN", requires = "upstream", conflicts_with = "config")]
    listen: Option<String>,
    /// … and forward to this address
    #[arg(long, value_name = "ADDR", env = "FLAGSTONE_UPSTREAM", requires = "listen", conflicts_with = "config")]
    upstream: Option<String>,
    /// The maintenance flag file, for serving without a file
    #[arg(long, value_name = "FILE", env = "FLAGSTONE_FLAG", requires = "listen")]
    flag: Option<String>,
}

/// Serves; the exit code is 0 after a drain and 1 when it could not start.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (loaded, source) = match load(arguments) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    if let Err(error) = events::init(&loaded.config.log.level, loaded.config.log.format) {
        eprintln!("flagstone: log.level: {error}");
        return ExitCode::FAILURE;
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = flag_from_environment(&loaded) {
        return refuse(&error);
    }
    let (delay, grace) = (loaded.config.server.shutdown_delay, loaded.config.server.shutdown_grace);
    // Before anything listens: a signal that comes early must not kill.
    let signals = match Signals::register() {
        Ok(signals) => signals,
        Err(error) => return refuse(&Problem::new("", format!("signals cannot be received: {error}")).into()),
    };
    let app = match App::start(loaded, source) {
        Ok(app) => app,
        Err(problems) => return refuse(&problems),
    };
    announce(&app);
    match signals.wait(&app) {
        Stop::Drain => {
            tracing::info!("draining");
            if !app.drain(delay, grace) {
                tracing::warn!("some requests were cut: they did not finish within shutdown_grace");
            }
            tracing::info!("stopped");
        }
        Stop::Now => drop(app),
    }
    ExitCode::SUCCESS
}

fn load(arguments: &Arguments) -> Result<(Loaded, Source), Problems> {
    if let (Some(listen), Some(upstream)) = (&arguments.listen, &arguments.upstream) {
        let mut loaded = config::quick(listen, upstream, arguments.flag.as_deref(), &environment)?;
        if !can_make(&loaded.config.server.state_dir) {
            move_state_dir(&mut loaded.config, own_state_dir());
        }
        return Ok((loaded, Source::Fixed));
    }
    let (loaded, file) = arguments.file.load()?;
    Ok((loaded, Source::File(file)))
}

/// The flag file moves along, unless it was named with its whole path.
fn move_state_dir(config: &mut Config, folder: PathBuf) {
    if let Ok(name) = config.maintenance.flag.strip_prefix(&config.server.state_dir) {
        config.maintenance.flag = folder.join(name);
    }
    config.server.state_dir = folder;
}

fn can_make(folder: &std::path::Path) -> bool {
    std::fs::create_dir_all(folder).is_ok() && rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

/// For serving without a file by a user who may not write to /run: their own runtime folder.
fn own_state_dir() -> PathBuf {
    match environment("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder).join("flagstone"),
        _ => std::env::temp_dir().join(format!("flagstone-{}", rustix::process::getuid().as_raw())),
    }
}

/// `MAINTENANCE_MODE=true` creates the flag file, as if somebody had touched it.
fn flag_from_environment(loaded: &Loaded) -> Result<(), Problems> {
    if environment("MAINTENANCE_MODE").is_none_or(|value| !value.eq_ignore_ascii_case("true")) {
        return Ok(());
    }
    let flag = &loaded.config.maintenance.flag;
    if flag.exists() {
        return Ok(());
    }
    let content = crate::policy::maintenance::Flag { by: Some("environment".into()), ..Default::default() };
    let written = flag
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| crate::reload::flag_file::write_flag(flag, &content));
    written.map_err(|error| {
        let text = format!("{} cannot be written: {}", flag.display(), crate::error::io_reason(&error));
        Problem::new("maintenance.flag", text).into()
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
    Drain,
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
}

impl Signals {
    pub(super) fn register() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let (hangup, reopen) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
        let (terminate, quit) = (signal(SignalKind::terminate())?, signal(SignalKind::quit())?);
        let interrupt = signal(SignalKind::interrupt())?;
        drop(entered);
        Ok(Self { runtime, hangup, reopen, terminate, quit, interrupt })
    }

    /// Serves HUP and USR1 until one of TERM, QUIT and INT comes.
    pub(super) fn wait(self, app: &App) -> Stop {
        let Self { runtime, mut hangup, mut reopen, mut terminate, mut quit, mut interrupt } = self;
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return Stop::Drain,
                    _ = quit.recv() => return Stop::Drain,
                    _ = interrupt.recv() => return Stop::Now,
                    _ = reopen.recv() => app.control().reopen_logs(),
                    // The outcome, good or bad, has been logged and counted.
                    _ = hangup.recv() => drop(app.control().reload()),
                }
            }
        })
    }
}
