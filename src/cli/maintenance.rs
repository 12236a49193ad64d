//! `flagstone maintenance on | off | status`: writes, removes and reads the flag files. It talks to no
//! process, so it works with none running; a running one sees the files change. But where nobody knows any more where
//! the files are, or `--admin` says so, it has the running process do it.

mod command;
mod process;
mod settings;
mod status;
mod time;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(in crate::cli) use command::{Arguments, obey};

use clap::{ArgGroup, Subcommand};
use ipnet::IpNet;
use jiff::{Timestamp, Zoned};

use super::arguments::{client_network, while_seconds};
use super::client::CallError;
use crate::app::flag_settings;
use crate::config::model::{Config, Window};
use crate::config::{second, zone};
use crate::error::{io_reason, is_full};
use crate::policy::maintenance::{Flag, Mode, parse_duration};
use crate::reload::flag_file::{begin_or_change, remove_flag};

/// What follows `flagstone maintenance`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Begin maintenance, or change what the flag says
    On(On),
    /// End maintenance
    Off(Off),
    /// Show what is in maintenance
    Status(Status),
}

impl Action {
    fn wants_json(&self) -> bool {
        match self {
            Self::On(on) => on.json,
            Self::Off(off) => off.json,
            Self::Status(status) => status.json,
        }
    }
}

#[derive(Clone, Debug, Default, clap::Args)]
#[command(group = ArgGroup::new("end"))]
pub struct On {
    /// Why, in a few words; visitors read it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// When the end is expected: 2030-01-31T22:00:00Z, or 22:00 (the next one, local time)
    #[arg(long, value_name = "TIME", group = "end")]
    pub until: Option<String>,
    /// How long it is expected to take: 30m, 1h30m, 7d
    #[arg(long = "for", value_name = "DURATION", group = "end", value_parser = while_seconds)]
    pub seconds: Option<u64>,
    /// Only this route; may be given several times
    #[arg(long = "route", value_name = "NAME", value_parser = route_name)]
    pub routes: Vec<String>,
    /// Let GET, HEAD and OPTIONS pass
    #[arg(long)]
    pub read_only: bool,
    /// How long what is in flight may still take
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub grace: Option<Duration>,
    /// Cut what is still in flight when the grace is over; at once without one
    #[arg(long)]
    pub terminate: bool,
    /// Clients that see the app: an address or CIDR; may be given several times
    #[arg(long, value_name = "CIDR", value_parser = client_network)]
    pub allow: Vec<IpNet>,
    /// Print what is in maintenance then, as status --json does
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Default, clap::Args)]
pub struct Off {
    /// Only this route's own maintenance; may be given several times
    #[arg(long = "route", value_name = "NAME", value_parser = route_name)]
    pub routes: Vec<String>,
    /// Print what is in maintenance then, as status --json does
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Default, clap::Args)]
pub struct Status {
    /// As the admin side's /api/maintenance/status, as far as files tell
    #[arg(long)]
    pub json: bool,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("--until: {0:?} is neither a time such as 2030-01-31T22:00:00Z nor an hour such as 22:00")]
    NotATime(String),
    #[error("the end, {0}, has passed")]
    Past(String),
    #[error("cannot write {}: {}{}", path.display(), io_reason(source), without_room(path, source))]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove {}: {}", path.display(), io_reason(source))]
    Remove { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Process(String),
    /// Of several, that was the first that could not be done.
    #[error("{source}; nothing was done for {left}")]
    Partly { done: String, left: String, source: Box<Self> },
}

/// On a full disk there is mostly room for a file without content, and that is a flag with all defaults.
fn without_room(path: &Path, error: &io::Error) -> String {
    match is_full(error) {
        true => format!("; an empty flag says the same without a reason: touch {}", path.display()),
        false => String::new(),
    }
}

impl CliError {
    /// 2 for wrong use, 1 for what went wrong.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotATime(_) | Self::Past(_) => 2,
            Self::Write { .. } | Self::Remove { .. } | Self::Unknown(_) | Self::Process(_) => 1,
            Self::Partly { source, .. } => source.exit_code(),
        }
    }

    /// What was done all the same, as it is told.
    pub fn done(&self) -> &str {
        if let Self::Partly { done, .. } = self { done } else { "" }
    }
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        Self::Process(error.to_string())
    }
}

/// Does it, and returns what to print. `is_whole` = nothing was left out of the configuration.
///
/// # Errors
/// A time that is none or has passed, or a file that cannot be written, removed or looked at.
fn run(args: &Args, config: &Config, is_whole: bool) -> Result<String, CliError> {
    let files = flag_settings(config);
    let place = Place {
        flag: &files.flag,
        routes_dir: &files.routes_dir,
        retry_after: config.maintenance.retry_after,
        windows: &config.maintenance.windows,
        routes_of: is_whole.then_some(config),
        now: Timestamp::now().to_zoned(zone::of_system()),
        by: by(),
    };
    place.run(args)
}

/// Everything around a command, so that tests choose it.
struct Place<'a> {
    flag: &'a Path,
    /// The folder of the routes' own flags.
    routes_dir: &'a Path,
    /// What clients are told while a flag names no end.
    retry_after: Duration,
    windows: &'a [Window],
    /// Which routes there are, where that is known.
    routes_of: Option<&'a Config>,
    now: Zoned,
    by: String,
}

impl Place<'_> {
    fn run(&self, args: &Args) -> Result<String, CliError> {
        let as_json = args.action.wants_json();
        let said = match &args.action {
            Action::On(on) => self.on(on)?,
            Action::Off(off) => self.off(off)?,
            Action::Status(_) => return self.status(as_json),
        };
        if as_json { self.status(true) } else { Ok(said) }
    }

    fn on(&self, on: &On) -> Result<String, CliError> {
        let flag = flag_from(on, &self.now, &self.by)?;
        let said = for_each(&self.files(&on.routes), |path, what| {
            begin_or_change(path, flag.clone(), self.now.timestamp())
                .map_err(|source| CliError::Write { path: path.clone(), source })?;
            Ok(format!("maintenance is on for {what} ({})\n", path.display()))
        })?;
        Ok(said + &afterword(&flag, &self.now))
    }

    fn off(&self, off: &Off) -> Result<String, CliError> {
        let mut said = for_each(&self.files(&off.routes), |path, what| {
            let removed = remove_flag(path).map_err(|source| CliError::Remove { path: path.clone(), source })?;
            Ok(match removed {
                true => format!("maintenance is off for {what}\n"),
                false => format!("maintenance was not on for {what}\n"),
            })
        })?;
        if off.routes.is_empty() {
            // It is done, whatever can be seen of the rest.
            said += &match self.seen().map(|state| state.routes.into_keys().collect::<Vec<_>>()) {
                Ok(left) if left.is_empty() => String::new(),
                Ok(left) => format!("still on for {} (end it with --route)\n", left.join(", ")),
                Err(error) => format!("whether it is on for routes of their own cannot be told: {error}\n"),
            };
        }
        Ok(said)
    }

    /// The flag files meant, each with the words for what it covers.
    fn files(&self, routes: &[String]) -> Vec<(PathBuf, String)> {
        if routes.is_empty() {
            return vec![(self.flag.to_owned(), "everything".to_owned())];
        }
        routes.iter().map(|name| (self.routes_dir.join(format!("{name}.flag")), format!("route {name}"))).collect()
    }
}

/// Does it for one scope after the other, each with the words for it, and returns what is to be told. The first that
/// fails ends it, and the error tells of the others as well.
fn for_each<S>(
    scopes: &[(S, String)],
    mut act: impl FnMut(&S, &str) -> Result<String, CliError>,
) -> Result<String, CliError> {
    let mut done = String::new();
    for (index, (scope, what)) in scopes.iter().enumerate() {
        match act(scope, what) {
            Ok(said) => done += &said,
            Err(error) if scopes.len() == 1 => return Err(error),
            Err(error) => {
                let left: Vec<_> = scopes[index..].iter().map(|(_, what)| what.as_str()).collect();
                return Err(CliError::Partly { done, left: left.join(", "), source: Box::new(error) });
            }
        }
    }
    Ok(done)
}

/// What visitors may still do, and until when.
fn afterword(flag: &Flag, now: &Zoned) -> String {
    let mut said = String::new();
    if flag.mode == Mode::ReadOnly {
        said += "read-only: GET, HEAD and OPTIONS pass\n";
    }
    if let Some(until) = flag.until {
        said += &format!("expected back {}\n", time::show(until, now));
    }
    said
}

fn flag_from(on: &On, at: &Zoned, by: &str) -> Result<Flag, CliError> {
    let now = at.timestamp();
    let until = match (&on.until, on.seconds) {
        (Some(text), _) => Some(time::parse(text, at).ok_or_else(|| CliError::NotATime(text.clone()))?),
        (None, Some(seconds)) => {
            let end = second::ceil(now).checked_add(Duration::from_secs(seconds));
            Some(end.map_err(|_| CliError::NotATime(format!("{seconds}s")))?)
        }
        (None, None) => None,
    };
    if let Some(past) = until.filter(|until| *until <= now) {
        return Err(CliError::Past(past.to_string()));
    }
    Ok(Flag {
        reason: on.reason.clone(),
        until,
        mode: if on.read_only { Mode::ReadOnly } else { Mode::Full },
        allow: on.allow.clone(),
        grace: on.grace,
        terminate: on.terminate,
        by: Some(by.to_owned()),
        ..Flag::default()
    })
}

fn by() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| {
        let user = std::env::var(name).ok()?;
        (!user.is_empty()).then_some(user)
    });
    user.map_or_else(|| "cli".to_owned(), |user| format!("cli ({user})"))
}

/// A route's name becomes a file's.
fn route_name(text: &str) -> Result<String, String> {
    let usable = !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\0']);
    usable.then(|| text.to_owned()).ok_or_else(|| "cannot be the name of a flag file".to_owned())
}

#[cfg(test)]
mod tests;
