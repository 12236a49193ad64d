//! The buffers the workers fill and the thread that empties them.
//!
//! A worker holds its own buffer's lock while it formats a line; the thread holds it for a swap of two
//! `Vec`s. `pending` is set, under that lock, by whoever puts the first line into an empty buffer, and
//! cleared by the thread *before* it swaps: a buffer with lines and no `pending` cannot be.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::sink::{Progress, Sink};
use super::{BATCH, BUFFER_MAX, TICK};
use crate::telemetry::clock::Stamp;

/// Capacity a buffer starts with and returns to: a batch, and a long line on top.
const CAPACITY: usize = 2 * BATCH;

/// A buffer that grew beyond this during a stall gives its memory back.
const CAPACITY_KEPT: usize = 8 * BATCH;

/// Between two attempts on a file that takes nothing: soon at first, for a reader that is merely slow, then
/// doubled up to the second.
const RETRY: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How long a log that ends waits for a reader that is merely slow: less than whoever ends it waits.
const LAST: Duration = Duration::from_millis(1500);
const RETRY_AT_LAST: Duration = Duration::from_millis(16);

/// Dropping has ended when this long has passed without a dropped line, and what came last was taken.
const CALM: Duration = Duration::from_secs(1);

/// What workers and writer share.
#[derive(Debug)]
pub(super) struct Shared {
    slots: Box<[Slot]>,
    pending: AtomicBool,
    /// Some buffer has a whole batch, or there is a command: do not wait for the tick.
    urgent: AtomicBool,
    dropping: AtomicBool,
    dropped: AtomicU64,
    control: Mutex<Control>,
    changed: Condvar,
    /// Set before any worker can see this, hence before the first wake-up.
    thread: OnceLock<Thread>,
}

/// One worker's buffer, alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Slot(Mutex<Buffer>);

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    stamp: Stamp,
}

#[derive(Debug, Default)]
struct Control {
    /// What the file said last when it took nothing.
    error: Option<String>,
    /// Flushes asked for, and the last of them that is done.
    flush_wanted: u64,
    flush_done: u64,
    sink: Option<Sink>,
    stop: bool,
    stopped: bool,
}

impl Shared {
    pub(super) fn new(workers: usize) -> Self {
        let slot = || Slot(Mutex::new(Buffer { bytes: Vec::with_capacity(CAPACITY), stamp: Stamp::system() }));
        Self {
            slots: std::iter::repeat_with(slot).take(workers).collect(),
            pending: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            dropping: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            control: Mutex::default(),
            changed: Condvar::new(),
            thread: OnceLock::new(),
        }
    }

    /// Lets `format` append one line to `worker`'s buffer, unless that is full.
    pub(super) fn append(&self, worker: usize, format: impl FnOnce(&mut Vec<u8>, &mut Stamp)) {
        let mut guard = self.slots[worker % self.slots.len()].0.lock();
        let Buffer { bytes, stamp } = &mut *guard;
        let before = bytes.len();
        if before < BUFFER_MAX {
            format(bytes, stamp);
        }
        if before >= BUFFER_MAX || bytes.len() > BUFFER_MAX {
            bytes.truncate(before);
            drop(guard);
            return self.drop_lines(1);
        }
        let full = before < BATCH && bytes.len() >= BATCH;
        let wake = (before == 0 && !self.pending.swap(true, SeqCst)) | (full && !self.urgent.swap(true, SeqCst));
        drop(guard);
        if wake {
            self.wake();
        }
    }

    pub(super) fn replace_sink(&self, sink: Sink) {
        self.control.lock().sink = Some(sink);
        self.urge();
    }

    pub(super) fn flush(&self, timeout: Duration) -> io::Result<()> {
        let mut control = self.control.lock();
        control.flush_wanted += 1;
        let mine = control.flush_wanted;
        self.urge();
        let is_awaited = |control: &mut Control| control.flush_done < mine && !control.stopped;
        self.changed.wait_while_for(&mut control, is_awaited, timeout);
        if control.flush_done < mine {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the access log does not take its lines"));
        }
        Ok(())
    }

    /// Writes what is left and ends the thread; false when it did not end in time.
    pub(super) fn stop(&self, timeout: Duration) -> bool {
        let mut control = self.control.lock();
        control.stop = true;
        self.urge();
        self.changed.wait_while_for(&mut control, |control| !control.stopped, timeout);
        control.stopped
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    pub(super) fn is_dropping(&self) -> bool {
        self.dropping.load(Relaxed)
    }

    /// Why the file took nothing when it did not; empty when nobody knows.
    pub(super) fn error(&self) -> String {
        self.control.lock().error.clone().unwrap_or_default()
    }

    #[cold]
    fn failed(&self, error: &io::Error) {
        self.control.lock().error = Some(crate::error::io_reason(error));
    }

    #[cold]
    fn drop_lines(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
        if count > 0 && !self.dropping.swap(true, SeqCst) {
            // The writer watches for the end of it.
            self.urge();
        }
    }

    fn urge(&self) {
        self.urgent.store(true, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Starts the writer's thread.
pub(super) fn spawn(shared: Arc<Shared>, sink: Sink) -> io::Result<JoinHandle<()>> {
    let batch = Vec::with_capacity(CAPACITY);
    let mut writer = Writer {
        shared: Arc::clone(&shared),
        sink,
        batch,
        written: 0,
        is_sure: false,
        is_taken: true,
        calm: None,
        end: None,
    };
    let handle = thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
    shared.thread.set(handle.thread().clone()).expect("a log has one writer");
    Ok(handle)
}

struct Writer {
    shared: Arc<Shared>,
    sink: Sink,
    /// Whole lines on their way out.
    batch: Vec<u8>,
    /// How much of `batch` the sink has taken.
    written: usize,
    /// The sink has taken something, and nothing has stood in the way since: the file ends as it was left.
    is_sure: bool,
    /// The sink has taken what came last, and did not lose it.
    is_taken: bool,
    /// While lines are dropped: how many there were when last looked, and since when.
    calm: Option<(u64, Instant)>,
    /// When the log ends, once it is to.
    end: Option<Instant>,
}

impl Writer {
    fn run(&mut self) {
        loop {
            self.sleep();
            // Commands are read before the buffers are swapped: all that was taken before a flush is in this round.
            let (flush, stop) = self.commands();
            let drained = self.drain();
            self.look_for_calm();
            let mut control = self.shared.control.lock();
            if drained {
                control.flush_done = flush;
            }
            if stop {
                control.stopped = true;
            }
            drop(control);
            self.shared.changed.notify_all();
            if stop {
                return;
            }
        }
    }

    /// Until there is a batch, a command, or a line that has waited for a tick.
    fn sleep(&self) {
        let shared = &self.shared;
        while !shared.pending.load(SeqCst) && !shared.urgent.load(SeqCst) {
            if self.is_taken && (self.calm.is_some() || shared.is_dropping()) {
                thread::park_timeout(CALM);
                break;
            }
            thread::park();
        }
        let tick = Instant::now();
        while !shared.urgent.load(SeqCst) {
            let Some(left) = TICK.checked_sub(tick.elapsed()) else {
                break;
            };
            thread::park_timeout(left);
        }
        shared.pending.store(false, SeqCst);
        shared.urgent.store(false, SeqCst);
    }

    /// The newest flush asked for, and whether to stop.
    fn commands(&self) -> (u64, bool) {
        let control = self.shared.control.lock();
        (control.flush_wanted, control.stop)
    }

    /// Writes out every buffer, then changes over to a new file if there is one. False when lines are left.
    fn drain(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut complete = true;
        for slot in &shared.slots {
            self.swap(slot);
            complete &= self.write_batch();
        }
        self.change_sink();
        complete
    }

    fn swap(&mut self, slot: &Slot) {
        if self.batch.capacity() > CAPACITY_KEPT {
            self.batch = Vec::with_capacity(CAPACITY);
        }
        std::mem::swap(&mut slot.0.lock().bytes, &mut self.batch);
    }

    /// Until the sink has taken the whole batch. False when it was given up because the log stops.
    fn write_batch(&mut self) -> bool {
        let mut complete = true;
        let mut retry = RETRY;
        while self.written < self.batch.len() {
            match self.write_on() {
                Progress::Wrote(count) => {
                    self.written += count;
                    self.is_sure = true;
                    self.is_taken = true;
                    retry = RETRY;
                }
                Progress::Gone(error) => self.discard(&error),
                Progress::Later(error) if self.gives_up(&error) => {
                    self.discard(&error);
                    complete = false;
                }
                Progress::Later(error) => {
                    self.is_sure = false;
                    self.shared.failed(&error);
                    // A full disk may be the reason for the rotation that is being asked for.
                    if !self.change_sink() {
                        thread::park_timeout(retry);
                        retry = (retry * 2).min(if self.end.is_some() { RETRY_AT_LAST } else { RETRY_MAX });
                    }
                }
            }
        }
        self.batch.clear();
        self.written = 0;
        complete
    }

    /// One attempt. Behind what somebody else has written meanwhile, in an upgrade or where a reload begins another log, a
    /// line is written again, whole; behind a part of a line, such as a process leaves that ends while the disk is full, on
    /// a line of its own.
    fn write_on(&mut self) -> Progress {
        if !self.is_sure && !self.sink.ends_here() {
            self.begin_again();
            if self.sink.ends_in_part() {
                return match self.sink.write(b"\n") {
                    Progress::Wrote(_) => Progress::Wrote(0),
                    nothing => nothing,
                };
            }
        }
        self.sink.write(&self.batch[self.written..])
    }

    /// What the file has a part of is written again, whole.
    fn begin_again(&mut self) {
        let taken = &self.batch[..self.written];
        self.written = memchr::memrchr(b'\n', taken).map_or(0, |newline| newline + 1);
    }

    /// Whether the log is to end and has waited for its reader, which a disk that is full is not.
    fn gives_up(&mut self, error: &io::Error) -> bool {
        if !self.shared.control.lock().stop {
            return false;
        }
        let now = Instant::now();
        let end = *self.end.get_or_insert(now + LAST);
        error.kind() != io::ErrorKind::WouldBlock || now >= end
    }

    /// Takes the new file, if there is one. In the same one, which nobody has renamed, lines go on where they are.
    fn change_sink(&mut self) -> bool {
        let Some(sink) = self.shared.control.lock().sink.take() else {
            return false;
        };
        if sink.is_that_of(&self.sink) {
            return false;
        }
        self.sink = sink;
        self.is_sure = false;
        self.begin_again();
        true
    }

    /// Gives the rest of the batch up.
    fn discard(&mut self, error: &io::Error) {
        let lost = memchr::memchr_iter(b'\n', &self.batch[self.written..]).count();
        self.shared.failed(error);
        self.shared.drop_lines(lost as u64);
        self.written = self.batch.len();
        self.is_taken = false;
    }

    /// Says so when dropping has ended.
    fn look_for_calm(&mut self) {
        if !self.shared.is_dropping() {
            self.calm = None;
            return;
        }
        let dropped = self.shared.dropped();
        match self.calm {
            Some((before, since)) if before == dropped => {
                if self.is_taken && since.elapsed() >= CALM {
                    self.calm = None;
                    self.shared.dropping.store(false, SeqCst);
                }
            }
            _ => self.calm = Some((dropped, Instant::now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use super::super::AccessLogTarget;
    use super::*;

    const LINES: &[u8] = b"first\nsecond\nthird\n";

    fn sink(path: &Path) -> Sink {
        Sink::open(&AccessLogTarget::File(path.to_owned())).unwrap().unwrap()
    }

    /// A writer whose file took `LINES` up to the middle of the second line, and then no more for a while.
    fn stalled(folder: &tempfile::TempDir) -> (Writer, PathBuf) {
        let path = folder.path().join("access.log");
        let mut sink = sink(&path);
        assert!(matches!(sink.write(&LINES[..9]), Progress::Wrote(9)));
        let (shared, batch) = (Arc::new(Shared::new(1)), LINES.to_vec());
        let writer = Writer { shared, sink, batch, written: 9, is_sure: false, is_taken: true, calm: None, end: None };
        (writer, path)
    }

    fn append(path: &Path, text: &str) {
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn what_was_begun_is_finished_when_there_is_room_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, path) = stalled(&folder);
        assert!(writer.write_batch());
        assert_eq!(fs::read(path).unwrap(), LINES);
    }

    #[test]
    fn a_file_that_nobody_renamed_goes_on_where_it_is_when_it_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, path) = stalled(&folder);
        writer.shared.replace_sink(sink(&path));
        writer.change_sink();
        assert!(writer.write_batch());
        assert_eq!(fs::read(path).unwrap(), LINES);
    }

    #[test]
    fn behind_what_another_process_wrote_a_line_is_begun_again() {
        for (other, expected) in [
            ("\nother\n", "first\nsec\nother\nsecond\nthird\n"),
            ("other\noth", "first\nsecother\noth\nsecond\nthird\n"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (mut writer, path) = stalled(&folder);
            append(&path, other);
            assert!(writer.write_batch());
            assert_eq!(fs::read_to_string(path).unwrap(), expected);
        }
    }

    #[test]
    fn in_a_file_that_was_truncated_meanwhile_a_line_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, path) = stalled(&folder);
        fs::File::create(&path).unwrap();
        assert!(writer.write_batch());
        assert_eq!(fs::read_to_string(path).unwrap(), "second\nthird\n");
    }
}
