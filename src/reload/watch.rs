//! The threads that follow files, and what wakes them: events of the folders they watch, a request to stop, or time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

/// The thread that follows some files; dropping it ends the following.
#[derive(Debug)]
pub struct Watcher {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
    patience: Duration,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.bell.stop();
        // A thread stuck in a dead network file system is left behind rather than waited for.
        if self.bell.wait_done(self.patience)
            && let Some(thread) = self.thread.take()
        {
            // Its panic has been printed by the panic hook.
            let _ = thread.join();
        }
    }
}

/// A bell with room for one ring: however many events come, one look answers all of them.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<BellState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    rung: bool,
    stopped: bool,
    /// The thread that listened is gone.
    done: bool,
}

impl Bell {
    /// Starts the thread that listens to it. Dropping the watcher waits for `patience` at most.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn heard_by(
        self: Arc<Self>,
        name: &str,
        patience: Duration,
        listen: impl FnOnce(&Self) + Send + 'static,
    ) -> io::Result<Watcher> {
        let bell = Arc::clone(&self);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _done = RingDone(&bell);
            listen(&bell);
        })?;
        Ok(Watcher { bell: self, thread: Some(thread), patience })
    }

    pub(super) fn ring(&self) {
        self.state.lock().rung = true;
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until it rings, or as long as `patience`. `false` = stop.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.rung && !state.stopped, patience);
        state.rung = false;
        !state.stopped
    }

    /// Lets events gather for a while. `false` = stop.
    pub(super) fn rest(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.stopped, pause);
        !state.stopped
    }

    /// Whether the thread that listened is gone, after at most `patience`.
    fn wait_done(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.done, patience);
        state.done
    }
}

/// However the thread ends, by a panic too, whoever waits for it learns that it has.
struct RingDone<'a>(&'a Bell);

impl Drop for RingDone<'_> {
    fn drop(&mut self) {
        self.0.state.lock().done = true;
        self.0.changed.notify_all();
    }
}

/// Folders under inotify, by what they are and not only by name: one that was deleted and made again, or
/// mounted over, is watched anew.
pub(super) struct Folders {
    /// `None` where the system has no events to give; the poll is then all there is.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Identity>,
    retry_at: Instant,
}

/// Device and inode.
type Identity = (u64, u64);

/// After a watch was refused (the system's bound on them, usually) it is not asked for at every poll.
const RETRY: Duration = Duration::from_secs(30);

impl Folders {
    /// Watches nothing yet; later the bell rings for events that matter, by what [`is_change`] or somebody else says. The
    /// second part says why there will be none, if so.
    pub(super) fn new(bell: &Arc<Bell>, matters: impl Fn(&Event) -> bool + Send + 'static) -> (Self, Option<NoEvents>) {
        let bell = Arc::clone(bell);
        let made = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, &matters) {
                bell.ring();
            }
        });
        let (watcher, problem) = match made {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(NoEvents(error))),
        };
        (Self { watcher, watched: BTreeMap::new(), retry_at: Instant::now() }, problem)
    }

    /// As on a system without events.
    #[cfg(test)]
    pub(super) fn deaf() -> Self {
        Self { watcher: None, watched: BTreeMap::new(), retry_at: Instant::now() }
    }

    /// Watches exactly these, as far as they exist. What the system has just refused, and why.
    pub(super) fn follow(&mut self, wanted: &[PathBuf]) -> Vec<(PathBuf, NoEvents)> {
        let mut refused = Vec::new();
        let Some(watcher) = &mut self.watcher else { return refused };
        self.watched.retain(|path, identity| {
            let keep = wanted.contains(path) && identity_of(path) == Some(*identity);
            if !keep {
                // A folder that is gone took its watch along.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        if Instant::now() < self.retry_at {
            return refused;
        }
        for path in wanted {
            let Some(identity) = identity_of(path).filter(|_| !self.watched.contains_key(path)) else {
                continue;
            };
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), identity);
                }
                Err(error) => {
                    self.retry_at = Instant::now() + RETRY;
                    refused.push((path.clone(), NoEvents(error)));
                }
            }
        }
        refused
    }
}

/// Why the system does not tell of changes, and how to make it do so: what is used up is counted for all processes of a
/// user, those in other containers included (inotify(7)).
#[derive(Debug)]
pub(super) struct NoEvents(notify::Error);

impl fmt::Display for NoEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used_up = match &self.0.kind {
            ErrorKind::MaxFilesWatch => "fs.inotify.max_user_watches",
            ErrorKind::Io(error) if Errno::from_io_error(error) == Some(Errno::MFILE) => {
                "fs.inotify.max_user_instances"
            }
            _ => return self.0.fmt(f),
        };
        write!(f, "all that {used_up} allows are in use: raise it with sysctl")
    }
}

/// Opening and reading are events too, our own among them: answering those would never end.
pub(super) fn is_change(event: &Event) -> bool {
    !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

fn identity_of(folder: &Path) -> Option<Identity> {
    let metadata = fs::metadata(folder).ok().filter(|metadata| metadata.is_dir())?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_is_named() {
        let told = |kind| NoEvents(notify::Error::new(kind)).to_string();
        assert!(told(ErrorKind::MaxFilesWatch).contains("fs.inotify.max_user_watches"));
        let too_many = ErrorKind::Io(Errno::MFILE.into());
        assert!(told(too_many).contains("fs.inotify.max_user_instances"));
        assert_eq!(told(ErrorKind::Io(Errno::ACCESS.into())), "Permission denied (os error 13)");
    }

    #[test]
    fn whoever_waits_for_a_thread_that_panicked_learns_that_it_is_gone() {
        let bell = Arc::new(Bell::default());
        let panics = |bell: &Bell| assert!(!bell.wait(Duration::ZERO), "as meant");
        let _watcher = Arc::clone(&bell).heard_by("panics", Duration::ZERO, panics).unwrap();
        assert!(bell.wait_done(Duration::from_secs(10)));
    }
}
