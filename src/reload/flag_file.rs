//! Follows the flag files and keeps the [`Switch`] as they say. It decides nothing about requests.
//!
//! File events tell of a change within milliseconds, and a poll every [`POLL`] finds what they do not tell
//! of: network file systems, mounts, a folder that appears. Both lead to the same look at all the files,
//! so nothing depends on which events came, or in which order.
//!
//! | at the flag's path | maintenance |
//! |---|---|
//! | nothing | off |
//! | a regular file | on, as it says |
//! | a folder, FIFO, socket, device; a file that cannot be read | on, all defaults, one warning |
//! | a link to nothing | on, as it was read last and as long as that says, else all defaults and one warning |
//! | unknown: the folder above cannot be searched | as it was, one warning |
//!
//! Writing a file in place (`echo "Back at noon" > maintenance.flag`) first empties it, and an empty flag covers
//! everything. So one that is found empty just after it was written is looked at again, for [`SETTLE`] at most.
//!
//! A flag with `auto_end` is removed at its `until`. Where it cannot be removed (a read-only volume) it counts
//! as absent from then on, with one warning: its own words say that it is over.

mod read;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::regular_file;
use crate::error::io_reason;
use crate::policy::maintenance::{Active, Flag, Scope, State, Switch};

use super::watch::{Bell, Folders, Watcher, is_change};
use read::{Folder, Found, Look};

pub use crate::policy::maintenance::Change;
pub use read::{FLAG_BYTES_MAX, ROUTE_FLAGS_MAX};
pub(super) use write::make_flag;
pub use write::{begin_or_change, remove_flag, write_flag};

/// Between two looks without an event. Half of the second that a change may take.
pub const POLL: Duration = Duration::from_millis(500);
/// Between two looks at events, so that a folder in turmoil costs little.
const REST: Duration = Duration::from_millis(5);
/// Between two looks at a file that may be about to be written, and how many of them one round of looking may take.
const SETTLE: Duration = Duration::from_millis(1);
const SETTLE_LOOKS: u32 = 3;
/// A flag written longer ago is empty because it is meant to be. Also bounds what differing clocks do.
const JUST_WRITTEN: Duration = Duration::from_secs(1);
/// How long dropping waits for the thread; a network file system may hold it for longer.
const STOP: Duration = Duration::from_secs(2);

/// Where the flag files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The global flag.
    pub flag: PathBuf,
    /// The folder of the routes' `ROUTE.flag`.
    pub routes_dir: PathBuf,
}

impl Settings {
    /// The flag file of a scope. A route's name is one that a configuration has, and so can be a file's.
    pub fn path_of(&self, scope: &Scope) -> PathBuf {
        match scope {
            Scope::Global => self.flag.clone(),
            Scope::Route(name) => self.routes_dir.join(format!("{name}.flag")),
        }
    }
}

/// Looks once, so that the switch is right when this returns, and follows from then on; what ends that leaves the switch
/// as it is. Files and folders may be missing. The observer runs on the caller's thread now and on the watcher's later.
///
/// # Errors
/// When no thread can be started.
pub fn follow(
    settings: Settings,
    switch: Arc<Switch>,
    observer: impl Fn(Change) + Send + 'static,
) -> io::Result<Watcher> {
    let bell = Arc::new(Bell::default());
    let (folders, problem) = Folders::new(&bell, is_change);
    if let Some(error) = problem {
        observer(Change::Warning { scope: Scope::Global, text: format!("no file events, polling only: {error}") });
    }
    Follower::new(settings, switch, folders, observer).start(bell)
}

/// What the flag files say at this moment, for who does not follow them. Removes nothing, also not what is over.
///
/// # Errors
/// A sentence, when it cannot be told whether a flag exists.
pub fn snapshot(settings: &Settings) -> Result<State, String> {
    let mut state = State { global: look_at(&settings.flag)?, ..State::default() };
    match read::look_in(&settings.routes_dir) {
        Folder::Unknown(problem) => return Err(problem),
        Folder::Looks { looks, .. } => {
            for (name, look) in looks {
                let active = activate(Scope::Route(name.clone()), look)?;
                state.routes.extend(active.map(|active| (name, active)));
            }
        }
    }
    Ok(state)
}

/// What one flag file says at this moment, as if it were the global one.
///
/// # Errors
/// As [`snapshot`].
pub fn look_at(flag: &Path) -> Result<Option<Arc<Active>>, String> {
    activate(Scope::Global, read::look(flag))
}

fn activate(scope: Scope, look: Look) -> Result<Option<Arc<Active>>, String> {
    match look {
        Look::Unknown(problem) => Err(problem),
        Look::Absent => Ok(None),
        Look::Present(found) | Look::Dangling(found) if is_over(&found.flag, Timestamp::now()) => Ok(None),
        Look::Present(found) | Look::Dangling(found) => {
            let flag = effective(&scope, found.flag);
            let since = flag.started_at.unwrap_or(found.modified);
            Ok(Some(Switch::default().activate(scope, flag, since)))
        }
    }
}

/// The thread's own: what it saw last, and what follows from what it sees now.
struct Follower<O> {
    settings: Settings,
    switch: Arc<Switch>,
    folders: Folders,
    observer: O,
    state: State,
    /// The last warning per scope, so that it is told once.
    warnings: BTreeMap<Scope, String>,
    /// Links to nothing, and what nobody can look at, whose last words were that it is over.
    ended: BTreeSet<Scope>,
    /// Before the last look.
    looked_at: Timestamp,
}

/// What one look at all the files came to.
#[derive(Default)]
struct Round {
    changes: Vec<Change>,
    warnings: BTreeMap<Scope, String>,
    ended: BTreeSet<Scope>,
}

impl<O: Fn(Change) + Send + 'static> Follower<O> {
    fn new(settings: Settings, switch: Arc<Switch>, folders: Folders, observer: O) -> Self {
        // A watcher that is started again goes on where the last one stopped.
        let state = switch.load().map(|state| State::clone(&state)).unwrap_or_default();
        let (warnings, ended) = (BTreeMap::new(), BTreeSet::new());
        Self { settings, switch, folders, observer, state, warnings, ended, looked_at: Timestamp::MIN }
    }

    fn start(mut self, bell: Arc<Bell>) -> io::Result<Watcher> {
        self.look();
        bell.heard_by("flag-files", STOP, move |bell| self.run(bell))
    }

    fn run(mut self, bell: &Bell) {
        while bell.wait(self.patience()) {
            self.look();
            if !bell.rest(REST) {
                return;
            }
        }
    }

    /// Until the next poll, or the next `auto_end` when that is sooner. One that had come when the files were looked at
    /// last does not come again.
    fn patience(&self) -> Duration {
        let now = Timestamp::now();
        let ends = self.state.all().filter(|active| active.flag.auto_end).filter_map(|active| active.flag.until);
        let to_come = ends.filter(|until| *until > self.looked_at);
        to_come.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or(REST)).fold(POLL, Duration::min)
    }

    fn look(&mut self) {
        // Watch first, look then: a change in between is seen twice and never missed.
        let wanted = self.wanted();
        self.folders.follow(&wanted);
        self.looked_at = Timestamp::now();
        let mut round = Round::default();
        let state = self.next_state(&mut round);
        let Round { mut changes, warnings, ended } = round;
        self.ended = ended;
        if !changes.is_empty() {
            self.state = state.clone();
            self.switch.store(state);
        }
        for change in &changes {
            // Another text is another mistake, also where the same words tell of it.
            if let Change::Changed(active) = change {
                self.warnings.remove(&active.scope);
            }
        }
        for (scope, text) in &warnings {
            if self.warnings.get(scope) != Some(text) {
                changes.push(Change::Warning { scope: scope.clone(), text: text.clone() });
            }
        }
        self.warnings = warnings;
        changes.into_iter().for_each(&self.observer);
    }

    /// The folders whose events matter: the flag's, where it leads to when it is a link, and the routes'.
    fn wanted(&self) -> Vec<PathBuf> {
        let Settings { flag, routes_dir } = &self.settings;
        let mut wanted = vec![regular_file::folder(flag).to_owned(), routes_dir.clone()];
        let is_link = fs::symlink_metadata(flag).is_ok_and(|metadata| metadata.is_symlink());
        let target = is_link.then(|| fs::canonicalize(flag).ok()).flatten();
        wanted.extend(target.as_deref().map(|target| regular_file::folder(target).to_owned()));
        wanted.sort();
        wanted.dedup();
        wanted
    }

    fn next_state(&self, round: &mut Round) -> State {
        let mut settling = Settling { looks_left: SETTLE_LOOKS, pause: || thread::sleep(SETTLE) };
        let mut next = |scope: Scope, look: Look, path: PathBuf, before: Option<&Arc<Active>>| {
            let look = settling.look(look, &path, before);
            let found = self.settle(&scope, look, path, before, round);
            self.compare(scope, found, before, &mut round.changes)
        };
        let Settings { flag, routes_dir } = &self.settings;
        let global = next(Scope::Global, read::look(flag), flag.clone(), self.state.global.as_ref());
        let (mut looks, problem) = match read::look_in(routes_dir) {
            Folder::Looks { looks, warning } => (looks, warning),
            Folder::Unknown(text) => {
                let same = |name: &String| (name.clone(), Look::Unknown(text.clone()));
                (self.state.routes.keys().map(same).collect(), Some(text.clone()))
            }
        };
        for name in self.state.routes.keys() {
            looks.entry(name.clone()).or_insert(Look::Absent);
        }
        let mut routes = BTreeMap::new();
        for (name, look) in looks {
            let path = routes_dir.join(format!("{name}.flag"));
            let active = next(Scope::Route(name.clone()), look, path, self.state.routes.get(&name));
            routes.extend(active.map(|active| (name, active)));
        }
        if let Some(text) = problem {
            // The folder is nobody's own; the global flag's warning, if there is one, is not to be lost.
            let told = round.warnings.entry(Scope::Global);
            told.and_modify(|told| *told = format!("{told}; {text}")).or_insert(text);
        }
        State { global, routes }
    }

    /// From what was seen to the flag that holds, if any; `Err` = what was there before holds.
    fn settle(
        &self,
        scope: &Scope,
        look: Look,
        path: PathBuf,
        before: Option<&Arc<Active>>,
        round: &mut Round,
    ) -> Result<Option<Found>, Unchanged> {
        let now = Timestamp::now();
        let has_ended = self.ended.contains(scope) || before.is_some_and(|before| is_over(&before.flag, now));
        let may_go = |look: &Look| match look {
            Look::Absent => false,
            Look::Unknown(_) | Look::Dangling(_) => has_ended,
            Look::Present(found) => is_over(&found.flag, now),
        };
        let mut warn = |text: String| {
            round.warnings.insert(scope.clone(), text);
        };
        let look = match may_go(&look).then(|| write::remove_over(&path, may_go)) {
            None => look,
            // Nothing, or one that somebody has put there since.
            Some(Ok(now_there)) if !may_go(&now_there) => now_there,
            Some(Ok(_)) => return Ok(None),
            Some(Err(error)) => {
                warn(format!("{} is over and cannot be removed: {}", path.display(), io_reason(&error)));
                if !matches!(look, Look::Present(_)) {
                    round.ended.insert(scope.clone());
                }
                return Ok(None);
            }
        };
        let found = match look {
            Look::Absent => return Ok(None),
            Look::Unknown(text) => {
                warn(text);
                return Err(Unchanged);
            }
            // Kubernetes swaps a folder of files before it removes the links into it.
            Look::Dangling(_) if before.is_some() => return Err(Unchanged),
            Look::Dangling(found) | Look::Present(found) => found,
        };
        if let Some(text) = &found.warning {
            warn(text.clone());
        } else if matches!(scope, Scope::Route(_)) && !found.flag.routes.is_empty() {
            warn(format!("{}: routes: has no meaning in the flag of one route", path.display()));
        }
        Ok(Some(found))
    }

    fn compare(
        &self,
        scope: Scope,
        found: Result<Option<Found>, Unchanged>,
        before: Option<&Arc<Active>>,
        changes: &mut Vec<Change>,
    ) -> Option<Arc<Active>> {
        match (before, found) {
            (before, Err(Unchanged)) => before.cloned(),
            (None, Ok(None)) => None,
            (Some(before), Ok(None)) => {
                changes.push(Change::Deactivated(Arc::clone(before)));
                None
            }
            (Some(before), Ok(Some(found))) => {
                let flag = effective(&scope, found.flag);
                if before.flag == flag {
                    return Some(Arc::clone(before));
                }
                // Writing a flag again does not begin a new maintenance, but what it said before is no longer said.
                let begun = if before.flag.started_at.is_some() { found.modified } else { before.since };
                let since = flag.started_at.unwrap_or(begun);
                let active = self.switch.amend(before, flag, since);
                changes.push(Change::Changed(Arc::clone(&active)));
                Some(active)
            }
            (None, Ok(Some(found))) => {
                let flag = effective(&scope, found.flag);
                let since = flag.started_at.unwrap_or(found.modified);
                let active = self.switch.activate(scope, flag, since);
                changes.push(Change::Activated(Arc::clone(&active)));
                Some(active)
            }
        }
    }
}

/// What was seen says nothing new.
struct Unchanged;

/// The patience of one round of looking with files that are empty, perhaps only for a moment.
struct Settling<P> {
    looks_left: u32,
    pause: P,
}

impl<P: FnMut()> Settling<P> {
    /// The same look, or a later one when the file was empty and that would be news.
    fn look(&mut self, mut look: Look, path: &Path, before: Option<&Arc<Active>>) -> Look {
        let is_news = before.is_none_or(|before| before.flag != Flag::default());
        while is_news && self.looks_left > 0 && may_be_about_to_be_written(&look) {
            self.looks_left -= 1;
            (self.pause)();
            look = read::look(path);
        }
        look
    }
}

fn may_be_about_to_be_written(look: &Look) -> bool {
    let Look::Present(found) = look else { return false };
    let age = Timestamp::now().duration_since(found.modified).unsigned_abs();
    found.is_empty && age < JUST_WRITTEN
}

fn is_over(flag: &Flag, now: Timestamp) -> bool {
    flag.auto_end && flag.until.is_some_and(|until| until <= now)
}

/// A route's own flag covers that route, whatever it lists.
fn effective(scope: &Scope, mut flag: Flag) -> Flag {
    if matches!(scope, Scope::Route(_)) {
        flag.routes.clear();
    }
    flag
}

#[cfg(test)]
mod tests;
