//! `tracing`, set up once per process: lines to stderr, level and format changeable while it runs.
//!
//! Lines go through a bounded queue to a thread of their own, so that whoever has something to tell never waits for a
//! pipe that nobody reads or a disk that is stuck. What does not fit is lost, and counted; [`LogGuard`] writes what is
//! left at the end.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use thiserror::Error;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use super::format::Layout;
use crate::config::model::LogFormat;

/// Lines that wait for stderr.
const LINES_MAX: usize = 8192;

/// Those that log.
const PACKAGES: [&str; 2] = ["flagstone_engine", "flagstone_shell"];

/// How the process logs, once it does.
static LOG: OnceLock<Log> = OnceLock::new();

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

struct Log {
    level: reload::Handle<Targets, Registry>,
    layout: Layout,
    lost: ErrorCounter,
}

/// Writes what is left when it is dropped, which is for the end of the process.
#[derive(Debug)]
#[must_use = "dropped, it ends the log"]
pub struct LogGuard(#[expect(dead_code, reason = "held for its end")] WorkerGuard);

/// Sets the process's log up: `level` as `[log] level` has it, lines to stderr. Colour only for text on a terminal,
/// and not with `NO_COLOR` set (<https://no-color.org>).
///
/// # Errors
/// The level does not parse, or a log is already set up.
pub fn init(level: &str, format: LogFormat) -> Result<LogGuard, InitError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = format == LogFormat::Text && !no_color && io::stderr().is_terminal();
    let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("log");
    let (writer, guard) = queue.finish(io::stderr());
    let (layout, lost) = (Layout::new(format), writer.error_counter());
    let lines = fmt::layer().event_format(layout.clone()).with_ansi(colour).with_writer(writer);
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(InitError::Twice)?;
    let _ = LOG.set(Log { level: handle, layout, lost });
    Ok(LogGuard(guard))
}

/// Level and format of the running log, as after a reload. Does nothing where no log was set up.
///
/// # Errors
/// The level does not parse; the old one stays.
pub fn follow(level: &str, format: LogFormat) -> Result<(), InitError> {
    let Some(log) = LOG.get() else { return Ok(()) };
    log.level.reload(parse(level)?).map_err(InitError::Gone)?;
    log.layout.set(format);
    Ok(())
}

/// Tells, once stderr is read again, of lines that were lost.
#[derive(Debug, Default)]
pub struct LossWatch {
    /// At the last look.
    seen: usize,
    told: usize,
}

impl LossWatch {
    /// To be called once a second.
    pub fn look(&mut self) {
        let lost = LOG.get().map_or(0, |log| log.lost.dropped_lines());
        if let Some(lost) = self.news(lost) {
            tracing::warn!(lost, "the log has lost lines: nobody read stderr");
        }
    }

    /// As long as more are being lost, so is what would be told of it.
    fn news(&mut self, lost: usize) -> Option<usize> {
        let is_over = std::mem::replace(&mut self.seen, lost) == lost;
        (is_over && std::mem::replace(&mut self.told, lost) != lost).then_some(lost)
    }
}

/// Rooms are told by the name they have for whoever reads the code, whichever package they are in.
fn parse(level: &str) -> Result<Targets, InitError> {
    let told: Targets = level.parse().map_err(|source| InitError::Level { level: level.to_owned(), source })?;
    let told = QUIET.into_iter().fold(told, with_errors_alone);
    let in_packages = told.iter().filter_map(|(target, level)| Some((target.strip_prefix("flagstone::")?, level)));
    let in_packages =
        in_packages.flat_map(|(room, level)| PACKAGES.map(|package| (format!("{package}::{room}"), level)));
    Ok(in_packages.fold(told.clone(), |targets, (target, level)| targets.with_target(target, level)))
}

/// Libraries whose warnings are no news for an operator. h2 warns of what any client can do, such as opening streams
/// only to reset them: as many lines as the client likes. notify warns of every watched folder that has gone, as one
/// does with each new version of a Kubernetes volume.
const QUIET: [&str; 2] = ["h2", "notify"];

/// Its errors are told, and more for whoever asks for it by name.
fn with_errors_alone(told: Targets, library: &'static str) -> Targets {
    if told.iter().any(|(target, _)| target == library) {
        return told;
    }
    let level = told.default_level().unwrap_or(LevelFilter::OFF).min(LevelFilter::ERROR);
    told.with_target(library, level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn lost_lines_are_told_once_when_no_more_are_lost() {
        let mut watch = LossWatch::default();
        let told = [0, 0, 5, 9, 9, 9, 10, 10, 10].map(|lost| watch.news(lost));
        assert_eq!(told, [None, None, None, None, Some(9), None, None, Some(10), None]);
    }

    #[test]
    fn a_room_has_its_level_in_whichever_package_it_is() {
        let targets = parse("warn,flagstone::upstream=debug,flagstone::admin=info,h2=error").unwrap();
        assert!(targets.would_enable("flagstone_engine::upstream::names", &Level::DEBUG));
        assert!(targets.would_enable("flagstone_shell::admin::server", &Level::INFO));
        assert!(targets.would_enable("flagstone::upstream", &Level::DEBUG));
        assert!(targets.would_enable("flagstone_engine::proxy", &Level::WARN));
        assert!(!targets.would_enable("flagstone_engine::proxy", &Level::INFO));
        assert!(!targets.would_enable("h2::codec", &Level::WARN));
    }

    #[test]
    fn all_rooms_have_one_level_by_one_name() {
        let targets = parse("off,flagstone=debug").unwrap();
        for target in ["flagstone_engine::proxy", "flagstone_shell::app", "flagstone::event"] {
            assert!(targets.would_enable(target, &Level::DEBUG), "{target}");
        }
        assert!(!targets.would_enable("hyper", &Level::ERROR));
    }

    #[test]
    fn a_quiet_library_tells_of_errors_alone_unless_it_is_named() {
        let streams = "h2::proto::streams::counts";
        for (level, errors, warnings) in [
            ("info", true, false),
            ("debug", true, false),
            ("error", true, false),
            ("off", false, false),
            ("flagstone=debug", false, false),
            ("info,h2=warn", true, true),
            ("info,h2::proto=debug", true, true),
            ("off,h2=info", true, true),
            ("info,h2=off", false, false),
        ] {
            let targets = parse(level).unwrap();
            let shown = [Level::ERROR, Level::WARN].map(|level| targets.would_enable(streams, &level));
            assert_eq!(shown, [errors, warnings], "{level}");
        }
        let targets = parse("info").unwrap();
        assert!(targets.would_enable("flagstone_engine::listener", &Level::INFO));
        assert!(targets.would_enable("hyper", &Level::WARN));
    }
}
