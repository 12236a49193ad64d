//! `flagstone demo`: the proxy in front of an embedded sample app, with everything to try.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::iter;
use std::net::{AddrParseError, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

use super::run::{Signals, announce};
use super::{complain, environment, refuse};
use crate::app::{App, Source};
use crate::config::model::{Address, LogFormat};
use crate::config::{self, Problem, Problems};
use crate::demo::{Addresses, SampleApp, things_to_try, write_config};
use crate::error::io_reason;
use crate::telemetry::events;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the proxy listens; port 0 = a free one [default: 127.0.0.1:8080, or a free port when that is taken]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where the admin side listens; port 0 = a free one [default: 127.0.0.1:9900, or a free port when that is taken]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    admin: Option<SocketAddr>,
}

const WEB_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9900;
/// Names that are tried.
const FOLDERS_MAX: u32 = 100;

/// Nothing else keeps those out who are not to drive it.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error: AddrParseError| error.to_string())?;
    match address.ip().to_canonical().is_loopback() {
        true => Ok(address),
        false => Err("it has no token: give a loopback address, such as 127.0.0.1:0".to_owned()),
    }
}

/// The address given, else the usual port of the loopback address when it is free, else any.
fn address(given: Option<SocketAddr>, usual: u16) -> SocketAddr {
    given.unwrap_or_else(|| {
        let usual = SocketAddr::from(([127, 0, 0, 1], usual));
        let is_free = TcpListener::bind(usual).is_ok();
        if is_free { usual } else { SocketAddr::from(([127, 0, 0, 1], 0)) }
    })
}

/// Runs until Ctrl-C (or TERM), then removes everything it made.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    // Until the end: what it still holds is written then.
    let _log = match events::init("info", LogFormat::Text) {
        Ok(log) => log,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    let folder = match make_folder() {
        Ok(folder) => folder,
        Err((folder, error)) => {
            complain(format_args!("{} cannot be made: {}", folder.display(), io_reason(&error)));
            return ExitCode::FAILURE;
        }
    };
    let code = match start(arguments, &folder) {
        Ok((mut signals, app, _sample)) => {
            signals.wait(&app);
            drop(app);
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(&problems),
    };
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        complain(format_args!("{} could not be removed: {}", folder.display(), io_reason(&error)));
    }
    code
}

/// Of its own, and nobody else's: whoever could write there could have this process read anything. The name may be taken
/// by what one has left that was killed: in a container all have the same process id. Whole, for whoever pastes it elsewhere.
fn make_folder() -> Result<PathBuf, (PathBuf, io::Error)> {
    let name = format!("flagstone-demo-{}", std::process::id());
    let first = std::env::temp_dir().join(&name);
    let first = std::path::absolute(&first).unwrap_or(first);
    let further = (1..FOLDERS_MAX).map(|number| first.with_file_name(format!("{name}-{number}")));
    for folder in iter::once(first.clone()).chain(further) {
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err((folder, error)),
        }
    }
    Err((first, io::ErrorKind::AlreadyExists.into()))
}

type Running = (Signals, App, Sample);

fn start(arguments: &Arguments, folder: &std::path::Path) -> Result<Running, Problems> {
    let failed = |what: &str, error: io::Error| -> Problems {
        Problem::new("", format!("{what}: {}", io_reason(&error))).into()
    };
    let signals = Signals::register().map_err(|error| failed("signals cannot be received", error))?;
    let sample = Sample::start().map_err(|error| failed("the sample app cannot listen", error))?;
    let (web, admin) = (address(arguments.listen, WEB_PORT), address(arguments.admin, ADMIN_PORT));
    let file = write_config(folder, web, admin, sample.addr)
        .map_err(|error| failed(&format!("{} cannot be written", folder.display()), error))?;
    let loaded = config::load(&file, &environment)?;
    let app = App::start(loaded, Source::File(file))
        .map_err(|problems| Problems(problems.0.into_iter().map(|problem| problem.with_help(FREE_PORTS)).collect()))?;
    announce(&app);
    let web = app.listeners().into_iter().find_map(|(_, address)| socket(address));
    if let (Some(web), Some(admin)) = (web, app.admin_address().and_then(socket)) {
        let folder = folder.to_path_buf();
        let guide = things_to_try(&Addresses { web, admin, app: sample.addr, folder });
        // Whoever reads no further may still try it.
        let _ = writeln!(io::stdout(), "{guide}\nCtrl-C ends the demo and removes its folder.");
    }
    Ok((signals, app, sample))
}

const FREE_PORTS: &str = "flagstone demo --listen 127.0.0.1:0 --admin 127.0.0.1:0 takes free ports";

fn socket(address: Address) -> Option<SocketAddr> {
    match address {
        Address::Socket(address) => Some(address),
        Address::Name { .. } | Address::Unix(_) => None,
    }
}

/// The sample app on a thread of its own, as an app would be in a process of its own.
struct Sample {
    addr: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sample {
    fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let app = runtime.block_on(SampleApp::start(([127, 0, 0, 1], 0).into()))?;
        let addr = app.addr;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("sample-app".into()).spawn(move || {
            // Told to stop, or the other end is gone: the same to us.
            let _ = runtime.block_on(stopped);
            drop(app);
        })?;
        Ok(Self { addr, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed by the panic hook.
            let _ = thread.join();
        }
    }
}
