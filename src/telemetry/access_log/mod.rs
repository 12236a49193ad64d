//! The access log: one line a finished request, formatted into the worker's own buffer, written in batches by a
//! thread of its own.
//!
//! What it promises:
//! - [`AccessLog::write`] never blocks on a file and never allocates beyond its bounded buffer. When the
//!   file is full or stalled, a worker's buffer fills to [`BUFFER_MAX`]; further lines are dropped and counted.
//! - Lines reach the file whole and in their worker's order, whatever the kernel accepts at a time.
//! - [`AccessLog::reopen`] loses and doubles nothing.
//! - An idle proxy does not wake up: the thread sleeps until there is a line.
//!
//! It is not the event log (see [`super::events`]), and it rotates nothing by itself.

mod combined;
pub(super) mod json;
mod line;
mod sink;
pub(crate) mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::line::Line;
pub(super) use self::line::masked;
use self::sink::Sink;
use self::writer::Shared;
pub use crate::config::model::{AccessFormat, AccessLogTarget};
use crate::telemetry::clock::Stamp;

/// Bytes a worker's buffer may hold before lines are dropped.
pub const BUFFER_MAX: usize = 1 << 20;

/// Bytes in a worker's buffer that wake the writer at once.
const BATCH: usize = 32 << 10;

/// How long the first line of a batch waits for company.
const TICK: Duration = Duration::from_millis(100);

/// How long [`AccessLog::flush`] and dropping the log wait for a file that does not take its lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where finished requests are written. Shared by all workers; dropped last, it writes what is left.
#[derive(Debug)]
pub struct AccessLog {
    target: AccessLogTarget,
    format: AccessFormat,
    /// `None` when the log is off.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the target and starts the writer. `workers` is the number of buffers; at least one is made.
    ///
    /// A file is opened for appending and created with mode 0640.
    ///
    /// # Errors
    /// The file cannot be opened (its folder must exist), or the thread cannot be started.
    pub fn start(target: AccessLogTarget, format: AccessFormat, workers: usize) -> io::Result<Self> {
        let running = match Sink::open(&target)? {
            None => None,
            Some(sink) => {
                let shared = Arc::new(Shared::new(workers.max(1)));
                let thread = writer::spawn(Arc::clone(&shared), sink)?;
                Some(Running { shared, thread: Some(thread) })
            }
        };
        Ok(Self { target, format, running })
    }

    /// What would keep it from being started, as far as that can be seen without making a file.
    ///
    /// # Errors
    /// As [`AccessLog::start`].
    pub(crate) fn could_start(target: &AccessLogTarget) -> io::Result<()> {
        Sink::could_open(target)
    }

    /// Whether it can be started only while somebody reads its target.
    pub fn needs_a_reader(target: &AccessLogTarget) -> bool {
        Sink::is_pipe(target)
    }

    /// One that takes nothing, as with the target `off`.
    pub fn off() -> Self {
        Self { target: AccessLogTarget::Off, format: AccessFormat::Combined, running: None }
    }

    /// False when the target is `off`: nobody needs to build a [`Line`].
    pub fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// Takes one line into `worker`'s buffer, or counts it as dropped.
    ///
    /// Any number is a worker; workers beyond those announced share buffers.
    pub fn write(&self, worker: usize, line: &Line<'_>) {
        let Some(running) = &self.running else {
            return;
        };
        let format: fn(&mut Vec<u8>, &Line<'_>, &mut Stamp) = match self.format {
            AccessFormat::Combined => combined::write,
            AccessFormat::Json => json::write,
        };
        running.shared.append(worker, |buffer, stamp| format(buffer, line, stamp));
    }

    /// Opens the file anew by its name, for rotation by renaming (`USR1`). What was written before may go to
    /// either file, each line to exactly one. Standard streams have nothing to reopen.
    ///
    /// Blocks for the `open` only; the writer changes over at once, without being waited for.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let (Some(running), AccessLogTarget::File(path)) = (&self.running, &self.target) else {
            return Ok(());
        };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(sink) = Sink::open(&self.target).map_err(named)? {
            running.shared.replace_sink(sink);
        }
        Ok(())
    }

    /// Waits until everything taken before the call is in the file. Blocks the calling thread for at most two seconds.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`]: the file does not take its lines. They stay buffered.
    pub fn flush(&self) -> io::Result<()> {
        match &self.running {
            Some(running) => running.shared.flush(FLUSH_TIMEOUT),
            None => Ok(()),
        }
    }

    /// Lines lost since the start because the file was full, stalled or closed.
    pub fn dropped(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.shared.dropped())
    }

    /// What the file said last when it took nothing; empty when it has taken everything so far.
    pub fn error(&self) -> String {
        self.running.as_ref().map(|running| running.shared.error()).unwrap_or_default()
    }

    /// Lines are being dropped now: from the first one lost until lines are taken again, and a second has passed without
    /// another lost.
    pub fn is_dropping(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.shared.is_dropping())
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        let stopped = running.shared.stop(FLUSH_TIMEOUT);
        // A thread that is stuck in the kernel is left behind: the process is about to end, or the
        // reload that replaced this log must not wait for a dead disk.
        if let (true, Some(thread)) = (stopped, running.thread.take()) {
            let _ = thread.join();
        }
    }
}
