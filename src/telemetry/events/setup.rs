//! `tracing`, set up once per process: lines to stderr, the level changeable while it runs.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::format::Layout;
use crate::config::model::LogFormat;

/// Why there is no log.
#[derive(Debug, Error)]
pub enum InitError {
    #[error("`{level}` is not a log level nor a list of directives")]
    Level { level: String, source: ParseError },
    #[error("logging was set up before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
    #[error("the log is gone")]
    Gone(#[source] reload::Error),
}

/// Changes the level of the running log.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

/// Sets the process's log up: `level` as `[log] level` has it, lines to stderr. Colour only for text on a terminal,
/// and not with `NO_COLOR` set (<https://no-color.org>).
///
/// # Errors
/// The level does not parse, or a log is already set up.
pub fn init(level: &str, format: LogFormat) -> Result<LogHandle, InitError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = format == LogFormat::Text && !no_color && io::stderr().is_terminal();
    let lines = fmt::layer().event_format(Layout(format)).with_ansi(colour).with_writer(io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(InitError::Twice)?;
    Ok(LogHandle(handle))
}

impl LogHandle {
    /// Changes the level, as after a reload.
    ///
    /// # Errors
    /// The level does not parse; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), InitError> {
        self.0.reload(parse(level)?).map_err(InitError::Gone)
    }
}

fn parse(level: &str) -> Result<EnvFilter, InitError> {
    EnvFilter::try_new(level).map_err(|source| InitError::Level { level: level.to_owned(), source })
}
