//! Follows the configuration file.
//!
//! Its folder is watched, and the folder its symlink leads to; behind that a slow poll compares the content, for
//! file systems without events. Only a changed content that has come to rest is reported: a file that is being
//! written is waited for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Without events, a change is seen this late at most.
const POLL: Duration = Duration::from_secs(1);
/// The content must have rested for this long.
const REST: Duration = Duration::from_millis(60);
/// A file that is written without a pause is looked at all the same after this long.
const REST_MAX: Duration = Duration::from_secs(2);

enum Signal {
    Look,
    Stop,
}

/// Watches until dropped.
#[derive(Debug)]
pub struct ConfigWatcher {
    signal: Sender<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl ConfigWatcher {
    /// Calls `changed` from its own thread after each change of `file`'s content. The content at the time of this
    /// call is the first that is known.
    ///
    /// # Errors
    /// The system gives no thread. Without inotify the poll alone remains, with a warning.
    pub fn start(file: PathBuf, changed: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (signal, signals) = channel();
        let known = std::fs::read(&file).ok();
        let notifier = Notifier::new(&file, signal.clone());
        let thread = std::thread::Builder::new()
            .name("config-watcher".into())
            .spawn(move || Follower { file, known, notifier, signals, changed }.run())?;
        Ok(Self { signal, thread: Some(thread) })
    }
}

impl Drop for ConfigWatcher {
    fn drop(&mut self) {
        // The thread may have ended already; then there is nobody to tell.
        let _ = self.signal.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Follower<F> {
    file: PathBuf,
    /// `None` = it could not be read.
    known: Option<Vec<u8>>,
    notifier: Notifier,
    signals: Receiver<Signal>,
    changed: F,
}

impl<F: Fn()> Follower<F> {
    fn run(mut self) {
        loop {
            match self.signals.recv_timeout(POLL) {
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Signal::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            self.notifier.follow(&self.file);
            let content = std::fs::read(&self.file).ok();
            // A file that is gone may be on its way back: the old configuration serves on until there is a new one.
            if content.is_none() || content == self.known {
                continue;
            }
            match self.at_rest(content) {
                Some(content) => self.known = content,
                None => return,
            }
            (self.changed)();
        }
    }

    /// Waits until the content has not changed for a while, though not for ever; `None` = told to stop.
    fn at_rest(&self, mut content: Option<Vec<u8>>) -> Option<Option<Vec<u8>>> {
        let end = Instant::now() + REST_MAX;
        loop {
            match self.signals.recv_timeout(REST) {
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                // Somebody is still at it.
                Ok(Signal::Look) if Instant::now() < end => continue,
                Ok(Signal::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            let again = std::fs::read(&self.file).ok();
            if again == content || Instant::now() >= end {
                return Some(again);
            }
            content = again;
        }
    }
}

/// inotify on the folders that matter, as they are now.
struct Notifier {
    watcher: Option<RecommendedWatcher>,
    folders: Vec<PathBuf>,
}

impl Notifier {
    fn new(file: &Path, signal: Sender<Signal>) -> Self {
        let name = file.file_name().map(ToOwned::to_owned);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !matters(&event, name.as_deref())) {
                return;
            }
            // The receiver may be gone at the end.
            let _ = signal.send(Signal::Look);
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no file events: the configuration is looked at once a second");
        }
        let mut notifier = Self { watcher: watcher.ok(), folders: Vec::new() };
        notifier.follow(file);
        notifier
    }

    /// Watches the file's folder and the folder its symlink leads to, when they have changed.
    fn follow(&mut self, file: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut folders: Vec<PathBuf> = [Some(file.to_path_buf()), file.canonicalize().ok()]
            .into_iter()
            .flatten()
            .filter_map(|file| {
                file.parent().map(|folder| match folder.as_os_str().is_empty() {
                    true => PathBuf::from("."),
                    false => folder.to_path_buf(),
                })
            })
            .collect();
        folders.dedup();
        if folders == self.folders {
            return;
        }
        for folder in self.folders.drain(..) {
            // Unwatching what no longer exists fails, and is not needed.
            let _ = watcher.unwatch(&folder);
        }
        folders.retain(|folder| watcher.watch(folder, RecursiveMode::NonRecursive).is_ok());
        self.folders = folders;
    }
}

/// Whether the file may be another one now. Our own reading is an event too, and a log in the same folder is one with
/// every line. Beyond that, what happened is of no interest: the content is looked at.
fn matters(event: &notify::Event, name: Option<&OsStr>) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        // Where a link leads, the file bears another name in the end; the poll sees what is written there in place.
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
            event.paths.iter().any(|path| path.file_name() == name)
        }
        _ => true,
    }
}
