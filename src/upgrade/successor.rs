//! The side of the process that serves: it starts the new one and sees it through.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use super::channel::{Channel, ChannelError, Passed, Rest, Word};
use super::inherited::SOCKETS_MAX;
use super::spawn::{Child, FIRST, NOT_EXECUTABLE, spawn};
use super::{CHANNEL, PROGRAM};

/// How long the new process may take to build, and then to take over.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it has to stay up while both accept. What dies of its first requests dies within it.
const PROBATION: Duration = Duration::from_millis(500);
/// Of a variable Linux takes 128 KiB (`MAX_ARG_STRLEN`).
const NAMES_BYTES_MAX: usize = 100_000;
/// Set anew for the child, or not for it at all.
const OWN_VARIABLES: [&str; 5] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", CHANNEL, "WATCHDOG_PID"];

/// What is passed.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    pub(crate) sockets: Vec<(Passed, OwnedFd)>,
}

/// A new process that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upgraded {
    pub(crate) pid: i32,
    pub(crate) version: String,
}

/// Why there is none. The process that was to be replaced serves on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    #[error("an upgrade is under way already")]
    Busy,
    #[error("this process is on its way out")]
    Leaving,
    #[error("this process does not know its program: it was not started by flagstone run")]
    NoProgram,
    #[error(
        "process 1 of a container cannot be replaced, for the container ends with it: start a new container instead"
    )]
    Init,
    #[error("{0} sockets are more than an upgrade passes, which is {SOCKETS_MAX}: restart instead")]
    TooMany(usize),
    #[error("the new process cannot be started: {0}")]
    Spawn(std::io::Error),
    /// It said so itself, in several lines perhaps.
    #[error("the new process refused: {0}")]
    Refused(String),
    #[error("the new process was given up: {why} ({end})")]
    Lost { why: String, end: String },
}

/// Starts the program anew and hands over. Returns once the new process has proven itself and accepts. `state` is asked
/// late, for what is known then; `is_called_off` now and then; `step_back` in the end, with the listeners whose sockets
/// the new process does not want, to accept no more: it says which scopes were told to be in maintenance, or nothing, and
/// then the new process has to go after all.
///
/// # Errors
/// Anything at all went wrong; the new process, if there was one, is gone.
pub(crate) fn run(
    offer: Offer,
    state: impl FnOnce() -> Value,
    is_called_off: impl Fn() -> bool,
    step_back: impl FnOnce(&[String]) -> Option<Vec<String>>,
) -> Result<Upgraded, UpgradeError> {
    if std::process::id() == 1 {
        return Err(UpgradeError::Init);
    }
    let (mut channel, child, rest) = start(offer)?;
    let told = channel.go_on(&rest, PATIENCE).map_err(Setback::from);
    let seen = told.and_then(|()| see_through(&mut channel, state, is_called_off));
    let handed_over = seen.and_then(|(version, unwanted)| {
        let scopes = step_back(&unwanted).ok_or(ChannelError::CalledOff)?;
        Ok((version, scopes))
    });
    match handed_over {
        Ok((version, scopes)) => {
            let pid = child.id();
            crate::systemd::main_process(pid);
            // Should it be gone by now, it died as any process may, and is started again by whoever does that.
            let _ = channel.say(&Word::Committed { maintenance: Some(scopes) }, PATIENCE);
            child.let_go();
            Ok(Upgraded { pid, version })
        }
        Err(Setback::Refused(reason)) => {
            child.end();
            Err(UpgradeError::Refused(reason))
        }
        Err(Setback::Channel(error)) => {
            let end = child.end().map_or_else(|| "nobody knows how it ended".to_owned(), |status| end_of(&status));
            Err(UpgradeError::Lost { why: error.to_string(), end })
        }
    }
}

enum Setback {
    Refused(String),
    Channel(ChannelError),
}

impl From<ChannelError> for Setback {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

fn see_through(
    channel: &mut Channel,
    state: impl FnOnce() -> Value,
    is_called_off: impl Fn() -> bool,
) -> Result<(String, Vec<String>), Setback> {
    let unexpected = || Setback::Channel(ChannelError::Unintelligible("a word out of turn".into()));
    let built = match channel.hear(PATIENCE, &is_called_off)? {
        Word::Built { version, unwanted } => (version, unwanted),
        Word::Failed { reason } => return Err(Setback::Refused(reason)),
        _ => return Err(unexpected()),
    };
    channel.say(&Word::State(state()), PATIENCE)?;
    match channel.hear(PATIENCE, &is_called_off)? {
        Word::Serving => {}
        Word::Failed { reason } => return Err(Setback::Refused(reason)),
        _ => return Err(unexpected()),
    }
    match channel.hear(PROBATION, &is_called_off) {
        // It is up and has nothing to say: as it should be.
        Err(ChannelError::Slow(_)) => Ok(built),
        Ok(Word::Failed { reason }) => Err(Setback::Refused(reason)),
        Ok(_) => Err(unexpected()),
        Err(error) => Err(error.into()),
    }
}

fn start(offer: Offer) -> Result<(Channel, Child, Rest), UpgradeError> {
    let program = PROGRAM.get().ok_or(UpgradeError::NoProgram)?;
    if offer.sockets.len() > SOCKETS_MAX as usize {
        return Err(UpgradeError::TooMany(offer.sockets.len()));
    }
    let (ours, theirs) = UnixStream::pair().map_err(UpgradeError::Spawn)?;
    let mut channel = Channel::new(ours);
    let (passed, mut descriptors): (Vec<_>, Vec<_>) = offer.sockets.into_iter().unzip();
    let name = |passed: &Passed| passed.listener.as_deref().map_or_else(|| "admin".to_owned(), fd_name);
    let names: Vec<_> = passed.iter().map(name).collect();

    let is_own = |name: &OsString| OWN_VARIABLES.iter().any(|own| name == own);
    let mut environment: Vec<_> = std::env::vars_os().filter(|(name, _)| !is_own(name)).collect();
    environment.push(("LISTEN_FDS".into(), descriptors.len().to_string().into()));
    let names = names.join(":");
    // For people: the names that count are in the first word.
    if names.len() <= NAMES_BYTES_MAX {
        environment.push(("LISTEN_FDNAMES".into(), names.into()));
    }
    environment.push((CHANNEL.into(), (FIRST as usize + descriptors.len()).to_string().into()));
    let mut pid_variables = vec!["LISTEN_PID"];
    if std::env::var_os("WATCHDOG_USEC").is_some() {
        pid_variables.push("WATCHDOG_PID");
    }
    descriptors.push(theirs.into());

    // Into the socket's buffer: should this process be killed right after, the new one can still begin. What does not fit,
    // of thousands of sockets, is said when there is somebody who listens.
    let hello = channel.begin(&Word::Hello { sockets: passed });
    let rest = hello.map_err(|error| UpgradeError::Spawn(std::io::Error::other(error)))?;
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let child = spawn(program, &arguments, environment, &pid_variables, descriptors).map_err(UpgradeError::Spawn)?;
    Ok((channel, child, rest))
}

/// A listener's name as a descriptor's, which knows no colon (sd_pid_notify_with_fds(3)).
pub(super) fn fd_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_graphic() && c != ':';
    name.chars().map(|c| if fits(c) { c } else { '_' }).take(255).collect()
}

fn end_of(status: &rustix::process::WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(NOT_EXECUTABLE), _) => "its program cannot be run".to_owned(),
        (Some(code), _) => format!("it ended with exit code {code}"),
        (_, Some(signal)) => format!("it ended by signal {signal}"),
        _ => "it ended".to_owned(),
    }
}
