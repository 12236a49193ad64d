//! What a running Flagstone can be asked for, by the admin side, signals and watchers: above all, to reload.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::handover::Stage;
use super::listening::{Listening, Sockets, bind_all};
use super::{Source, flag_settings, in_short, loading, unix_seconds, warnings, watch_flags};
use crate::admin;
use crate::config::model::{Address, Config, Server};
use crate::config::{Loaded, Problem, Problems, Sources};
use crate::explain::route_tests;
use crate::live::Live;
use crate::reload::certificates;
use crate::reload::changes::changes;
use crate::reload::watch::Watcher;
use crate::runtime::ChangeError;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::systemd;
use crate::telemetry::events::{self, Event};
use crate::upgrade::Inheritance;
use crate::worker::Workers;

/// How long after a load that was refused it is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// What reloading needs, shared with the admin side and the watchers.
pub struct Control {
    /// The process runs with it; a reload changes neither its workers nor its state folder.
    begun_with: Server,
    pub(crate) live: Arc<Live>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) source: Source,
    pub(super) is_ready: AtomicBool,
    pub(super) tried: Mutex<Tried>,
    /// `None` at the end.
    pub(super) flag_watcher: Mutex<Option<Watcher>>,
    /// True once somebody has asked it to drain and end.
    pub(super) leaving: watch::Sender<bool>,
    /// The end is orderly: webhooks are told what they have not been told.
    pub(super) says_farewell: AtomicBool,
    /// How far it is on the way to another process in its place.
    pub(super) stage: watch::Sender<Stage>,
    /// Held while the rates of operators are put in force.
    following: Mutex<()>,
    /// Held while an operator changes a breaker. True once another process has been told how breakers stand: what is
    /// changed here from then on is lost.
    pub(super) are_breakers_told: Mutex<bool>,
    /// Held by a reload and by an upgrade: the new process is passed the sockets that are open, and binds the others
    /// itself.
    pub(super) turn: Mutex<()>,
    pub(super) listening: Mutex<Listening>,
    /// Where each worker counts its rounds.
    pub(super) rounds: Vec<Weak<AtomicUsize>>,
    /// Changed by a reload, which holds `listening`.
    pub(super) admin: watch::Sender<Arc<admin::Place>>,
    pub(super) last_reload: Mutex<Option<LastReload>>,
    /// The listeners by name, with their real addresses. Beside `listening`, which a reload may hold for two seconds.
    pub(super) addresses: Mutex<Vec<(String, Address)>>,
}

/// The last load, good or bad.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// What it was made of.
    pub(super) sources: Sources,
    /// It was refused, then, for a reason that may go while the files stay as they are: a port in use, a certificate that is
    /// not there yet.
    refused: Option<Instant>,
}

/// The last attempt to load another configuration.
#[derive(Clone, Debug)]
pub(crate) struct LastReload {
    pub(crate) at: jiff::Timestamp,
    pub(crate) result: Result<Reloaded, Problems>,
}

/// Who wants a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A signal, a call, a file that has changed.
    BySomebody,
    /// It is time to try again.
    ByNobody,
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    pub generation: u64,
    /// One line per part: `routes: +api ~web -old`. Empty: nothing changed.
    pub changes: Vec<String>,
}

impl Control {
    /// Of a process that has just begun to serve what is `live`.
    pub(super) fn new(
        live: Arc<Live>,
        shared: Arc<Shared>,
        source: Source,
        tried: Sources,
        flag_watcher: Watcher,
        listening: Listening,
        admin: admin::Place,
    ) -> Self {
        Self {
            begun_with: live.load_full().config.server.clone(),
            live,
            shared,
            source,
            is_ready: AtomicBool::new(true),
            tried: Mutex::new(Tried { sources: tried, refused: None }),
            flag_watcher: Mutex::new(Some(flag_watcher)),
            leaving: watch::Sender::new(false),
            says_farewell: AtomicBool::new(false),
            stage: watch::Sender::new(Stage::Serves),
            following: Mutex::default(),
            are_breakers_told: Mutex::default(),
            turn: Mutex::default(),
            rounds: listening.workers.as_ref().map(Workers::rounds).unwrap_or_default(),
            listening: Mutex::new(listening),
            admin: watch::Sender::new(Arc::new(admin)),
            last_reload: Mutex::new(None),
            addresses: Mutex::default(),
        }
    }

    /// Whether requests are welcome: false while draining.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// How a drain goes, by the configuration of now: the delay before it, the grace for what is open.
    pub(crate) fn shutdown_patience(&self) -> (Duration, Duration) {
        let live = self.live.load_full();
        (live.config.server.shutdown_delay, live.config.server.shutdown_grace)
    }

    /// Reads the configuration again, builds everything, binds what is new, then swaps. Waits for an upgrade under way.
    ///
    /// # Errors
    /// Anything at all is wrong: the old generation serves on. Or another process has taken over.
    pub fn reload(&self) -> Result<Reloaded, Problems> {
        if matches!(self.source, Source::Fixed) {
            // Nothing has failed: what serves is all there is.
            let problem = without_file();
            tracing::warn!("{problem}");
            return Err(problem.into());
        }
        self.reload_for(Asked::BySomebody)
    }

    /// Tries again what was refused for a reason that lies outside of the files. Only what comes of it anew is told.
    pub(super) fn retry(&self) {
        let is_due = |tried: &Tried| tried.refused.is_some_and(|at| at.elapsed() >= RETRY);
        if is_due(&self.tried.lock()) {
            // The outcome has been told, now or before.
            let _ = self.reload_for(Asked::ByNobody);
        }
    }

    fn reload_for(&self, asked: Asked) -> Result<Reloaded, Problems> {
        let _turn = self.turn.lock();
        if self.has_handed_over() {
            let problem = Problem::new("", "another process has taken over from this one");
            return Err(problem.with_help("it reads the file itself; ask it").into());
        }
        if asked == Asked::BySomebody {
            systemd::reloading();
        }
        let result = self.read_again().and_then(|loaded| {
            let result = self.bring(&loaded);
            // Its own tests come to the same whenever they are run.
            let lies_outside = |problem: &Problem| !problem.path.starts_with("test[");
            let is_refused = result.as_ref().is_err_and(|problems| problems.0.iter().any(lies_outside));
            self.tried.lock().refused = is_refused.then(Instant::now);
            result
        });
        let is_told = || self.last_reload().is_some_and(|last| last.result == result);
        if asked == Asked::ByNobody && result.is_err() && is_told() {
            return result;
        }
        self.tell(&result);
        // Where a drain was faster, it has said so.
        if asked == Asked::BySomebody && self.is_ready() {
            systemd::ready();
        }
        result
    }

    /// Notes what a reload came to, and tells of it.
    fn tell(&self, result: &Result<Reloaded, Problems>) {
        *self.last_reload.lock() = Some(LastReload { at: jiff::Timestamp::now(), result: result.clone() });
        let metrics = &self.shared.metrics;
        match result {
            Ok(Reloaded { generation, changes }) => {
                metrics.reloaded(true, *generation, unix_seconds());
                let changes = changes.join(", ");
                self.shared.events.emit(Event::ConfigurationReloaded { generation: *generation, changes });
            }
            Err(problems) => {
                let generation = self.live.load_full().generation;
                metrics.reloaded(false, generation, unix_seconds());
                let first = problems.0.split_first();
                let error = first.map_or_else(String::new, |(first, rest)| in_short(first, rest.len()));
                self.shared.events.emit(Event::ConfigurationRejected { generation, error });
                for problem in &problems.0 {
                    tracing::error!("{problem}");
                }
            }
        }
    }

    /// Reads the files, and remembers that these have been tried: whatever comes of it, the watcher need not come back
    /// before they are others.
    fn read_again(&self) -> Result<Loaded, Problems> {
        let Source::File(file) = &self.source else { return Err(without_file().into()) };
        let env = |name: &str| std::env::var(name).ok();
        let sources = Sources::read_again(file, &env);
        let loaded = loading::load(&sources, file, &env);
        *self.tried.lock() = Tried { sources, refused: None };
        loaded
    }

    /// Builds what was read, and swaps. Its files may lie on a disk that does not answer, and whoever drains or stops
    /// needs the listeners: they are held to bind and to swap, not to build. Of what else changes them, an upgrade
    /// waits for its turn, and a drain only closes them.
    fn bring(&self, loaded: &Loaded) -> Result<Reloaded, Problems> {
        let previous = self.live.load_full();
        let (sockets, admin) = self.bind(&loaded.config);
        let found = [sockets.as_ref().err().cloned(), admin.as_ref().err().cloned()];
        let found = found.into_iter().flatten().flat_map(|problems| problems.0).collect();
        let config = self.at_home(loaded.config.clone(), &previous.config);
        let of_file = Config { server: loaded.config.server.clone(), ..config.clone() };
        let built = Snapshot::build_proven(config, Some(&previous), &self.shared, found, route_tests::failures);
        let mut snapshot = built.map_err(|problems| {
            // Counters are had as soon as a generation is built; those of what is not going to serve are nobody's.
            self.shared.keep_metrics_of(&previous.config);
            loaded.locate_all(problems)
        })?;
        snapshot.masked = Arc::new(loaded.masked.clone());
        let changes = changes(&previous.config, &of_file, &self.begun_with);
        let reloaded = Reloaded { generation: snapshot.generation, changes };
        self.shared.watch_log(&previous.access_log);
        snapshot.start();
        warnings::tell_of_pages(&snapshot, loaded);
        let live = self.swap(snapshot, &previous, sockets?, admin?);
        self.shared.keep_metrics_of(&live.config);
        live.relieve(&previous);
        certificates::tell_reloaded(&previous, &live);
        // One may have been set or cleared while the new generation was built.
        self.follow_overrides();
        self.follow_settings(&previous.config, &live.config);
        self.warn_of(loaded);
        Ok(reloaded)
    }

    /// Binds what a configuration has and this process has not: of the listeners, and for the admin side.
    fn bind(&self, config: &Config) -> (Result<Sockets, Problems>, Result<Option<admin::Place>, Problems>) {
        let mut listening = self.listening.lock();
        listening.wait_for_leaving(config);
        let sockets = bind_all(config, &listening.open, listening.spares(), &mut Inheritance::default());
        (sockets, self.elsewhere(config, &listening).transpose())
    }

    /// From here on requests are served by `snapshot`, and come in at `sockets`, unless a drain was faster.
    fn swap(
        &self,
        mut snapshot: Snapshot,
        previous: &Snapshot,
        sockets: Sockets,
        admin: Option<admin::Place>,
    ) -> Arc<Snapshot> {
        let mut listening = self.listening.lock();
        let admin = admin.filter(|_| listening.workers.is_some());
        snapshot.remember_listeners(previous, |name| listening.has_connections(name));
        if admin.is_some() {
            self.admin().leave();
        }
        // What an operator does in between would be done to the breakers of before.
        let by_hand = self.are_breakers_told.lock();
        snapshot.obey(previous);
        self.live.store(snapshot);
        drop(by_hand);
        if let Some(place) = admin {
            self.move_admin(place);
        }
        let live = self.live.load_full();
        listening.bound_connections(live.config.server.max_connections.get());
        listening.take_over(sockets);
        self.note_addresses(&listening);
        live
    }

    /// Tells what is worth knowing of a configuration that serves: with each reload all of it, as nginx does, for whoever
    /// has just changed something is the one who looks.
    fn warn_of(&self, loaded: &Loaded) {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let (home, named) = (&self.begun_with.state_dir, &loaded.config.server.state_dir);
        if home != named {
            let (home, named) = (home.display(), named.display());
            tracing::warn!(
                "until an upgrade flags are looked for in {home}, not in {named}, the state folder of the file"
            );
        }
    }

    /// With the state folder that the process has begun with, and the flag file in it, unless that was named with its whole
    /// path: what a reload finds in another folder, or does not find, is to begin and end no maintenance.
    fn at_home(&self, mut config: Config, previous: &Config) -> Config {
        let home = self.begun_with.state_dir.clone();
        let named = std::mem::replace(&mut config.server.state_dir, home);
        let flag = &mut config.maintenance.flag;
        if *flag != previous.maintenance.flag
            && let Ok(name) = flag.strip_prefix(&named)
        {
            *flag = config.server.state_dir.join(name);
        }
        config
    }

    /// Brings what outlives generations to what the new one says: where the flags are, how loud the log is.
    fn follow_settings(&self, old: &Config, new: &Config) {
        if flag_settings(old) != flag_settings(new) {
            let watcher = || self.flag_watcher.lock();
            // One at a time writes to the switch. It is not held meanwhile: flags may lie on such a disk, too.
            let before = watcher().take();
            drop(before);
            match watch_flags(new, &self.shared) {
                Ok(started) => *watcher() = Some(started),
                Err(problems) => tracing::error!("flag files are not followed any more: {problems}"),
            }
        }
        if let Err(error) = events::follow(&new.log.level, new.log.format) {
            tracing::error!(%error, "the log goes on as it was");
        }
    }

    /// Once a second: what could not be done at once.
    pub(super) fn settle(&self) {
        self.shared.watch_log(&self.live.load_full().access_log);
        // While a reload holds it there is time.
        if let Some(mut listening) = self.listening.try_lock() {
            let wanted = self.live.load_full().config.server.max_connections.get();
            listening.bound_connections(wanted);
        }
    }

    /// Puts the rates in force that operators have set or cleared.
    pub(crate) fn follow_overrides(&self) {
        // Or whoever looked first and was held up would put back what the other one has replaced.
        let _one_at_a_time = self.following.lock();
        self.live.load_full().limits.values().for_each(|limit| limit.follow_override(&self.shared));
    }

    /// Changes breakers as an operator wants them: those of what serves now.
    ///
    /// # Errors
    /// Another process is taking over, and would not know of it.
    pub(crate) fn by_hand<T>(&self, change: impl FnOnce(&Snapshot) -> T) -> Result<T, ChangeError> {
        let are_breakers_told = self.are_breakers_told.lock();
        if *are_breakers_told { Err(ChangeError::HandedOver) } else { Ok(change(&self.live.load_full())) }
    }

    /// What became of the last reload; `None` = there was none yet.
    pub(crate) fn last_reload(&self) -> Option<LastReload> {
        self.last_reload.lock().clone()
    }

    /// The listeners by name, with their real addresses.
    pub(crate) fn open_listeners(&self) -> Vec<(String, Address)> {
        self.addresses.lock().clone()
    }

    pub(super) fn note_addresses(&self, listening: &Listening) {
        let open = listening.open.iter();
        let addresses = open.filter_map(|(name, open)| Some((name.clone(), open.socket.address().ok()?)));
        *self.addresses.lock() = addresses.collect();
    }

    /// Opens log files anew, for rotation by rename.
    pub fn reopen_logs(&self) {
        if let Err(error) = self.live.load_full().access_log.reopen() {
            tracing::error!(%error, "the access log cannot be opened again: the old file is written on");
        }
    }
}

fn without_file() -> Problem {
    let message = "there is no configuration file to reload: the settings came from the command line";
    Problem::new("", message).with_help("start it with -c FILE")
}
