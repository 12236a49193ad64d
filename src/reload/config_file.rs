//! Follows the configuration file and those it includes.
//!
//! Their folders are watched, and the folders their symlinks lead to; behind that a slow poll compares the content, for
//! file systems without events, files that are mounted alone, and a system that is out of watches. Only a changed
//! content that has come to rest is reported: a file that is being written is waited for.
//!
//! One that is no regular file, as the pipe of `-c <(…)`, cannot be followed: it gives what it holds but once.
//!
//! As long as they stay as they are, a load that was refused may be tried again: its reason may lie elsewhere.
//!
//! What counts as known is not what was seen here but what was last tried, by whomever: a file that changes while it is
//! being tried, and then back, is tried once more.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::ModifyKind;
use notify::{Event, EventKind};
use parking_lot::Mutex;

use super::watch::{Bell, Folders, Watcher};
use crate::config::{Problem, Sources};

/// Without events, a change is seen this late at most.
const POLL: Duration = Duration::from_secs(1);
/// After a look. In a folder where much happens, every look reads all files.
const LOOKS_REST: Duration = Duration::from_millis(100);
/// The content must have rested for this long.
const REST: Duration = Duration::from_millis(60);
/// A file that is written without a pause is looked at all the same after this long.
const REST_MAX: Duration = Duration::from_secs(2);

/// An included file that was emptied is about to be written, for so long: a shell's `>`, `cp` and `scp` empty it before they
/// have anything to put in. Taken for what it says, it would take its routes away meanwhile; the file itself says nothing
/// that could be served then.
const EMPTIED: Duration = Duration::from_secs(5);

/// A file that is away for longer is told of: an editor or a tool has put it back by then.
const GONE: Duration = Duration::from_secs(5);
/// How long the end waits for the thread, which may be waiting for a disk itself.
const END_MAX: Duration = Duration::from_secs(1);

/// Calls `changed` from a thread of its own whenever the files hold something else than what `is_known`, and can be read;
/// and `unchanged` at each look that finds what is known.
///
/// # Errors
/// The system gives no thread. Without inotify the poll alone remains, with a warning.
pub fn follow(
    file: PathBuf,
    is_known: impl Fn(&Sources) -> bool + Send + 'static,
    changed: impl Fn() + Send + 'static,
    unchanged: impl Fn() + Send + 'static,
) -> std::io::Result<Watcher> {
    let bell = Arc::new(Bell::default());
    warn_of_lone_mount(&file);
    let notifier = Notifier::new(&file, &read(&file), &bell);
    let follower = Follower { file, is_known, notifier, changed, unchanged };
    bell.heard_by("config-watcher", END_MAX, move |bell| follower.run(bell))
}

struct Follower<K, F, U> {
    file: PathBuf,
    is_known: K,
    notifier: Notifier,
    changed: F,
    unchanged: U,
}

impl<K: Fn(&Sources) -> bool, F: Fn(), U: Fn()> Follower<K, F, U> {
    fn run(mut self, bell: &Bell) {
        let mut gone = Gone::default();
        while bell.wait(POLL) {
            self.look(bell, &mut gone);
            if !bell.rest(LOOKS_REST) {
                return;
            }
        }
    }

    fn look(&mut self, bell: &Bell, gone: &mut Gone) {
        let content = read(&self.file);
        self.notifier.follow(&self.file, &content);
        // A file that is gone may be on its way back: the old configuration serves on until there is a new one.
        gone.look(content.main_problem(), Instant::now());
        if content.are_gone() {
            return;
        }
        if (self.is_known)(&content) {
            return (self.unchanged)();
        }
        if at_rest(&self.file, content, bell).is_some_and(|content| !content.are_gone() && !(self.is_known)(&content)) {
            (self.changed)();
        }
    }
}

/// Waits until the content has not changed for a while, though not for ever; `None` = told to stop.
fn at_rest(file: &Path, mut content: Sources, bell: &Bell) -> Option<Sources> {
    let end = Instant::now() + REST_MAX;
    while bell.rest(REST) {
        let again = read(file);
        let is_at_rest = again == content || Instant::now() >= end;
        if is_at_rest && !again.empty_ones().any(was_emptied_lately) {
            return Some(again);
        }
        content = again;
    }
    None
}

fn was_emptied_lately(path: &Path) -> bool {
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < EMPTIED))
}

/// Tells, once, of a file that stays away: what serves on could not be started again.
#[derive(Default)]
struct Gone {
    since: Option<Instant>,
    is_told: bool,
}

impl Gone {
    /// `problem` is why it cannot be read, if so.
    fn look(&mut self, problem: Option<&Problem>, now: Instant) {
        let Some(problem) = problem else {
            *self = Self::default();
            return;
        };
        let since = *self.since.get_or_insert(now);
        if self.is_told || now.duration_since(since) < GONE {
            return;
        }
        self.is_told = true;
        let (file, error) = (problem.file.display(), &problem.message);
        tracing::warn!(
            %file, %error,
            "the configuration cannot be read: the one before it serves on, and a restart would fail"
        );
    }
}

fn read(file: &Path) -> Sources {
    Sources::read_again(file, &|name| std::env::var(name).ok())
}

/// Events of the folders that matter, as they are now.
struct Notifier {
    folders: Folders,
    /// Folders that the system would not watch, each told once.
    unwatched: BTreeSet<PathBuf>,
    /// Of the files, and of what their links lead to.
    names: Arc<Mutex<BTreeSet<OsString>>>,
}

impl Notifier {
    fn new(file: &Path, content: &Sources, bell: &Arc<Bell>) -> Self {
        let names = Arc::<Mutex<BTreeSet<OsString>>>::default();
        let known = Arc::clone(&names);
        let (folders, problem) = Folders::new(bell, move |event| matters(event, &known));
        if let Some(error) = problem {
            tracing::warn!(%error, "no file events: the configuration is looked at once a second");
        }
        let mut notifier = Self { folders, unwatched: BTreeSet::new(), names };
        notifier.follow(file, content);
        notifier
    }

    /// Watches the folders of the files, those their symlinks lead to, and those where further ones may come to be.
    fn follow(&mut self, file: &Path, content: &Sources) {
        let files: Vec<PathBuf> = std::iter::once(file)
            .chain(content.paths())
            .flat_map(|file| [Some(file.to_path_buf()), file.canonicalize().ok()])
            .flatten()
            .collect();
        let names = files.iter().filter_map(|file| file.file_name().map(ToOwned::to_owned)).collect();
        *self.names.lock() = names;
        let folders = files.iter().filter_map(|file| file.parent()).chain(content.folders.iter().map(PathBuf::as_path));
        let folders: BTreeSet<_> = folders
            .map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
            .map(Path::to_path_buf)
            .collect();
        for (folder, error) in self.folders.follow(&folders.into_iter().collect::<Vec<_>>()) {
            if self.unwatched.insert(folder.clone()) {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "no file events: the configuration is looked at once a second");
            }
        }
    }
}

/// Whether the files may be others now. Our own reading is an event too, and a log in the same folder is one with
/// every line. Beyond that, what happened is of no interest: the content is looked at.
fn matters(event: &Event, names: &Mutex<BTreeSet<OsString>>) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
            let names = names.lock();
            event.paths.iter().filter_map(|path| path.file_name()).any(|name| names.contains(name))
        }
        _ => true,
    }
}

/// A file that is mounted by itself (`docker run -v ./flagstone.toml:/etc/flagstone.toml`) stays the one that was
/// mounted, whatever is put in its place outside.
fn warn_of_lone_mount(file: &Path) {
    let Ok(real) = file.canonicalize() else { return };
    if is_mount_point(&real) {
        tracing::warn!(
            file = %file.display(),
            "the configuration is mounted as a file by itself: it is looked at once a second, and one that is put in \
             its place outside is not seen; mount its folder"
        );
    }
}

fn is_mount_point(real: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // proc_pid_mountinfo(5): the fifth word, with blanks and backslashes as octal escapes.
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| Path::new(&unescaped(point)) == real)
}

fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[test]
    fn a_folder_where_much_happens_is_looked_at_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flagstone.toml");
        std::fs::write(&file, "").unwrap();
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let is_known = move |_: &Sources| counted.fetch_add(1, Relaxed) < u32::MAX;
        let started = Instant::now();
        let watcher = follow(file, is_known, || (), || ()).unwrap();
        for number in 0..2000 {
            let other = folder.path().join(format!("{number}.tmp"));
            std::fs::write(&other, "").unwrap();
            std::fs::remove_file(&other).unwrap();
        }
        drop(watcher);
        let rests = started.elapsed().as_millis() / LOOKS_REST.as_millis();
        assert!(u128::from(looks.load(Relaxed)) <= rests + 2, "{looks:?} looks and {rests} rests");
    }
}
