//! Composition: builds the first generation, binds, starts the workers, reloads, drains.

mod handover;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::admin;
use crate::config::model::{AccessLogTarget, Address, Config, Listener, Notify, Secret};
use crate::config::{self, Loaded, Problem, Problems, Sources};
use crate::error::io_reason;
pub use crate::explain::route_tests::TestResult;
use crate::explain::{Explanation, Hypothetical, Moment, explain, route_tests};
use crate::listener::accept::{Acceptor, Stop};
use crate::listener::bind::{Bound, bind};
use crate::live::Live;
use crate::proxy::decide::Switches;
use crate::reload::certificates::{self, CertificateWatcher};
use crate::reload::changes::changes;
use crate::reload::config_file::ConfigWatcher;
use crate::reload::flag_file::{self, FlagWatcher};
use crate::reload::windows;
use crate::runtime::Runtime;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::systemd;
use crate::telemetry::events::{self, Event};
use crate::telemetry::notify::Notifier;
use crate::telemetry::traces::Exporter;
use crate::upgrade::Inheritance;
use crate::upstream::Resolver;
use crate::worker::{Crew, Drain, Phases, Workers};

pub(crate) use handover::Leave;

/// Housekeeping: rates, sampled events.
const TICK: Duration = Duration::from_secs(1);
/// Watching over upstreams.
const BEAT: Duration = Duration::from_millis(200);
/// How long webhooks and traces may still take at the end of a drain.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long a kept connection without a request stays open in a drain, for one that is on its way.
const IDLE_LAST: Duration = Duration::from_secs(1);

/// Where a configuration comes from, and so how it is read again.
#[derive(Clone, Debug)]
pub enum Source {
    File(PathBuf),
    /// The command line or the environment: nothing to read again.
    Fixed,
}

/// A running Flagstone.
pub struct App {
    control: Arc<Control>,
    crew: Option<Crew>,
    config_watcher: Option<ConfigWatcher>,
    _certificate_watcher: CertificateWatcher,
    housekeeping: Option<JoinHandle<()>>,
    draining: watch::Sender<Drain>,
    cutting: watch::Sender<bool>,
}

/// Ends a drain that somebody no longer wants to wait for.
#[derive(Clone, Debug)]
pub struct Hurry(watch::Sender<bool>);

impl Hurry {
    /// Cuts what is still open.
    pub fn stop_now(&self) {
        self.0.send_replace(true);
    }
}

/// What reloading needs, shared with the admin side and the watchers.
pub struct Control {
    pub(crate) live: Arc<Live>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) source: Source,
    is_ready: AtomicBool,
    /// What the last load, good or bad, was made of.
    tried: Mutex<Sources>,
    /// `None` at the end.
    flag_watcher: Mutex<Option<FlagWatcher>>,
    /// True once somebody has asked it to drain and end.
    leaving: watch::Sender<bool>,
    /// The end is orderly: webhooks are told what they have not been told.
    says_farewell: AtomicBool,
    /// True once another process has taken over.
    handed_over: watch::Sender<bool>,
    is_upgrading: AtomicBool,
    /// Held by a reload and by an upgrade: the new process is passed the sockets that are open, and binds the others itself.
    turn: Mutex<()>,
    listening: Mutex<Listening>,
    /// Changed by a reload, which holds `listening`.
    admin: watch::Sender<Arc<admin::Place>>,
    last_reload: Mutex<Option<LastReload>>,
    /// The listeners by name, with their real addresses. Beside `listening`, which a reload holds for long.
    addresses: Mutex<Vec<(String, Address)>>,
}

/// The last attempt to load another configuration.
#[derive(Clone, Debug)]
pub(crate) struct LastReload {
    pub(crate) at: jiff::Timestamp,
    pub(crate) result: Result<Reloaded, Problems>,
}

/// The sockets, changed by one reload at a time.
struct Listening {
    /// `None` once draining: what the workers wait for is that nobody can hand them anything.
    workers: Option<Workers>,
    connections: Arc<Semaphore>,
    /// Permits of it that are free or in use.
    connections_max: usize,
    open: BTreeMap<String, Open>,
}

struct Open {
    configured: Address,
    socket: Arc<Bound>,
    stop: watch::Sender<Stop>,
}

/// What a configuration is, beyond being fit to serve.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What is worth knowing.
    pub warnings: Problems,
    /// Of each `[[test]]`.
    pub tests: Vec<TestResult>,
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    pub generation: u64,
    /// One line per part: `routes: +api ~web -old`. Empty: nothing changed.
    pub changes: Vec<String>,
}

impl App {
    /// Builds everything, binds everything, then serves.
    ///
    /// # Errors
    /// Everything that is wrong, before anything is served: the state folder, certificates, folders, busy addresses.
    pub fn start(loaded: Loaded, source: Source) -> Result<Self, Problems> {
        Self::start_with(loaded, source, Resolver::from_system())
    }

    /// [`App::start`] with name servers of the caller's choice.
    ///
    /// # Errors
    /// As [`App::start`].
    pub fn start_with(loaded: Loaded, source: Source, resolver: Resolver) -> Result<Self, Problems> {
        Self::start_inheriting(loaded, source, resolver, &mut Inheritance::default())
    }

    /// [`App::start_with`] with what the process was given at its start.
    ///
    /// # Errors
    /// As [`App::start`].
    pub(crate) fn start_inheriting(
        loaded: Loaded,
        source: Source,
        resolver: Resolver,
        inheritance: &mut Inheritance,
    ) -> Result<Self, Problems> {
        let config = loaded.config.clone();
        let workers = config.server.workers.map_or_else(available_cpus, std::num::NonZeroUsize::get);
        let runtime = Runtime::open(&config.server.state_dir);
        let shared = Shared::new(workers, resolver, runtime);
        // What it finds as it starts, the process before has told.
        shared.set_in_charge(inheritance.predecessor.is_none());
        let (mut snapshot, sockets, admin_place) =
            prepare(&config, &shared, inheritance).map_err(|problems| loaded.locate_all(problems))?;
        snapshot.masked = Arc::new(loaded.masked.clone());
        let flag_watcher = watch_flags(&config, &shared)?;

        snapshot.start();
        warn_of_pages(&snapshot, &loaded);
        // No reason not to start at three in the morning; the same file would be refused by a reload.
        for problem in loaded.locate_all(Problems(route_tests::failures(&snapshot))).0 {
            tracing::warn!("{problem}");
        }
        let live = Arc::new(Live::new(snapshot));
        let (draining, cutting) = (watch::Sender::new(Drain::No), watch::Sender::new(false));
        let phases = Phases { draining: draining.subscribe(), cutting: cutting.subscribe() };
        let (crew, desks) = Crew::start(workers, &live, &phases).map_err(|error| thread_problem(&error))?;
        let control = Arc::new(Control {
            live,
            shared,
            source: source.clone(),
            is_ready: AtomicBool::new(true),
            tried: Mutex::new(loaded.sources),
            flag_watcher: Mutex::new(Some(flag_watcher)),
            leaving: watch::Sender::new(false),
            says_farewell: AtomicBool::new(false),
            handed_over: watch::Sender::new(false),
            is_upgrading: AtomicBool::new(false),
            turn: Mutex::default(),
            listening: Mutex::new(Listening {
                workers: Some(desks),
                connections: Arc::new(Semaphore::new(config.server.max_connections.get())),
                connections_max: config.server.max_connections.get(),
                open: BTreeMap::new(),
            }),
            admin: watch::Sender::new(Arc::new(admin_place)),
            last_reload: Mutex::new(None),
            addresses: Mutex::default(),
        });
        control.go_on_from(inheritance);
        let mut listening = control.listening();
        listening.take_over(sockets);
        control.note_addresses(&listening);
        drop(listening);
        let housekeeping = keep_house(&control, phases).map_err(|error| thread_problem(&error))?;
        let config_watcher = match &source {
            Source::File(file) => Some(watch_config(file, &control).map_err(|error| thread_problem(&error))?),
            Source::Fixed => None,
        };
        let certificate_watcher = CertificateWatcher::start(Arc::clone(&control.live), Arc::clone(&control.shared))
            .map_err(|error| thread_problem(&error))?;
        control.shared.metrics.reloaded(true, 1, unix_seconds());
        Ok(Self {
            control,
            crew: Some(crew),
            config_watcher,
            _certificate_watcher: certificate_watcher,
            housekeeping: Some(housekeeping),
            draining,
            cutting,
        })
    }

    /// Builds everything that can be built without binding or writing, runs the configuration's own tests, and throws
    /// it away.
    ///
    /// # Errors
    /// Everything that would keep [`App::start`] from serving. A test that fails is none of that.
    pub fn check(loaded: &Loaded) -> Result<Checked, Problems> {
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let built = Snapshot::build(without_log(&loaded.config), None, &shared);
        let snapshot = built.map_err(|problems| loaded.locate_all(problems))?;
        Ok(Checked { warnings: page_warnings(&snapshot, loaded), tests: route_tests::run(&snapshot) })
    }

    /// What a request would meet: by this configuration, and by what operators have left in its state folder.
    /// `breakers` are the states that a running process tells.
    ///
    /// # Errors
    /// As [`App::check`].
    pub(crate) fn explain(
        loaded: &Loaded,
        wanted: &Hypothetical,
        breakers: Option<&BTreeMap<String, String>>,
    ) -> Result<Explanation, Problems> {
        let config = &loaded.config;
        let shared = Shared::new(1, Resolver::unused(), Runtime::look_at(&config.server.state_dir));
        shared.look_at_state(&config.server.state_dir);
        let built = Snapshot::build(without_log(config), None, &shared);
        let snapshot = built.map_err(|problems| loaded.locate_all(problems))?;
        let flags = flag_file::snapshot(&flag_settings(config))
            .map_err(|problem| Problems::from(Problem::new("maintenance.flag", problem)))?;
        let maintenance = Some(&flags).filter(|flags| !flags.is_empty());
        let blocked = Some(&shared.runtime.blocked);
        let switches = Switches { maintenance, blocked, features_are_set: true };
        Ok(explain(wanted, &snapshot, Moment { switches, breakers }))
    }

    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// The listeners by name, with their real addresses.
    pub fn listeners(&self) -> Vec<(String, Address)> {
        self.control.open_listeners()
    }

    /// Open downstream connections, by worker.
    pub fn connections(&self) -> Vec<usize> {
        self.control.listening().workers.as_ref().map(Workers::connections).unwrap_or_default()
    }

    /// Where the admin side listens.
    pub fn admin_address(&self) -> Option<Address> {
        self.control.admin().socket.as_ref().and_then(|socket| socket.address().ok())
    }

    /// Drains and stops: not ready for `delay` while still accepting, then nothing new, then up to `grace` for what
    /// is open. Returns whether everything finished in time.
    pub fn drain(mut self, delay: Duration, grace: Duration) -> bool {
        self.control.is_ready.store(false, Relaxed);
        systemd::stopping();
        // Nobody leaves while the listeners are open, unless told to by a hurry.
        self.has_left(delay);
        self.control.listening().close();
        self.finish(IDLE_LAST.min(grace), grace)
    }

    /// Lets what is open come to its end, for up to `grace`, and stops; whether everything did.
    fn finish(&mut self, idle: Duration, grace: Duration) -> bool {
        self.draining.send_replace(Drain::Begun { idle });
        let finished = self.has_left(grace) && !*self.cutting.borrow();
        self.control.says_farewell.store(!*self.cutting.borrow(), Relaxed);
        self.control.finish_admin();
        self.stop();
        finished
    }

    fn has_left(&self, patience: Duration) -> bool {
        self.crew.as_ref().is_some_and(|crew| crew.has_left(patience))
    }

    /// Cuts a drain short from another thread.
    pub fn hurry(&self) -> Hurry {
        Hurry(self.cutting.clone())
    }

    fn stop(&mut self) {
        self.control.is_ready.store(false, Relaxed);
        self.control.flag_watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.control.listening().close();
        self.draining.send_replace(Drain::Begun { idle: Duration::ZERO });
        self.cutting.send_replace(true);
        if let Some(crew) = self.crew.take() {
            crew.join();
        }
        if let Some(housekeeping) = self.housekeeping.take() {
            // Its panic has been printed by the panic hook.
            let _ = housekeeping.join();
        }
        let live = self.control.live.load_full();
        if let Err(error) = live.access_log.flush() {
            tracing::warn!(%error, "the last access log lines could not be written");
        }
    }
}

impl Drop for App {
    /// Stops at once.
    fn drop(&mut self) {
        if self.crew.is_some() {
            self.stop();
        }
    }
}

impl Control {
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
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_handed_over() {
            let problem = Problem::new("", "another process has taken over from this one");
            return Err(problem.with_help("it reads the file itself; ask it").into());
        }
        systemd::reloading();
        let mut listening = self.listening();
        let result = self.try_reload(&mut listening);
        let at = jiff::Timestamp::now();
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(LastReload { at, result: result.clone() });
        let metrics = &self.shared.metrics;
        match &result {
            Ok(reloaded) => {
                metrics.reloaded(true, reloaded.generation, unix_seconds());
                self.shared.events.emit(Event::ConfigurationReloaded {
                    generation: reloaded.generation,
                    changes: reloaded.changes.join(", "),
                });
            }
            Err(problems) => {
                let generation = self.live.load_full().generation;
                metrics.reloaded(false, generation, unix_seconds());
                let error = match problems.0.as_slice() {
                    [one] => one.to_string(),
                    all => format!("{} errors", all.len()),
                };
                self.shared.events.emit(Event::ConfigurationRejected { generation, error });
                for problem in &problems.0 {
                    tracing::error!("{problem}");
                }
            }
        }
        systemd::ready();
        result
    }

    /// Reads the files, and remembers that these have been tried: whatever comes of it, the watcher need not come back
    /// before they are others.
    fn read_again(&self, file: &Path) -> Result<Loaded, Problems> {
        let env = |name: &str| std::env::var(name).ok();
        let sources = Sources::read(file, &env);
        let loaded = config::load_from(&sources, file, &env);
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = sources;
        loaded
    }

    fn try_reload(&self, listening: &mut Listening) -> Result<Reloaded, Problems> {
        let Source::File(file) = &self.source else {
            return Err(Problem::new(
                "",
                "there is no configuration file to reload: the settings came from the command line",
            )
            .with_help("start it with -c FILE")
            .into());
        };
        let loaded = self.read_again(file)?;
        let previous = self.live.load_full();
        let located = |problems: Problems| loaded.locate_all(problems);
        let sockets = bind_all(&loaded.config, &listening.open, &mut Inheritance::default());
        let admin = self.elsewhere(&loaded.config, listening).transpose();
        let found = [sockets.as_ref().err().cloned(), admin.as_ref().err().cloned()];
        let found = found.into_iter().flatten().flat_map(|problems| problems.0).collect();
        let (config, before) = (loaded.config.clone(), Some(&*previous));
        let built = Snapshot::build_proven(config, before, &self.shared, found, route_tests::failures);
        let mut snapshot = built.map_err(located)?;
        let (sockets, admin) = (sockets?, admin?);
        snapshot.masked = Arc::new(loaded.masked.clone());
        let reloaded = Reloaded { generation: snapshot.generation, changes: changes(&previous.config, &loaded.config) };
        self.shared.watch_log(&previous.access_log);
        self.shared.keep_metrics_of(&loaded.config);
        snapshot.start();
        warn_of_pages(&snapshot, &loaded);
        if admin.is_some() {
            self.admin().leave();
        }
        self.live.store(snapshot);
        if let Some(place) = admin {
            self.move_admin(place);
        }
        certificates::tell_reloaded(&previous, &self.live.load_full());
        // One may have been set or cleared while the new generation was built.
        self.follow_overrides();
        self.follow_settings(&previous.config, &loaded.config);
        listening.bound_connections(loaded.config.server.max_connections.get());
        listening.take_over(sockets);
        self.note_addresses(listening);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(reloaded)
    }

    /// Brings what outlives generations to what the new one says: where the flags are, how loud the log is.
    fn follow_settings(&self, old: &Config, new: &Config) {
        if flag_settings(old) != flag_settings(new) {
            let mut watcher = self.flag_watcher.lock().unwrap_or_else(PoisonError::into_inner);
            // One at a time writes to the switch.
            *watcher = None;
            match watch_flags(new, &self.shared) {
                Ok(started) => *watcher = Some(started),
                Err(problems) => tracing::error!("flag files are not followed any more: {problems}"),
            }
        }
        if let Err(error) = events::follow(&new.log.level, new.log.format) {
            tracing::error!(%error, "the log goes on as it was");
        }
    }

    /// Once a second: what could not be done at once.
    fn settle(&self) {
        self.shared.watch_log(&self.live.load_full().access_log);
        // While a reload holds it there is time.
        if let Ok(mut listening) = self.listening.try_lock() {
            let wanted = self.live.load_full().config.server.max_connections.get();
            listening.bound_connections(wanted);
        }
    }

    /// Puts the rates in force that operators have set or cleared.
    pub(crate) fn follow_overrides(&self) {
        self.live.load_full().limits.values().for_each(|limit| limit.follow_override(&self.shared));
    }

    /// What became of the last reload; `None` = there was none yet.
    pub(crate) fn last_reload(&self) -> Option<LastReload> {
        self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The listeners by name, with their real addresses.
    pub(crate) fn open_listeners(&self) -> Vec<(String, Address)> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_addresses(&self, listening: &Listening) {
        let open = listening.open.iter();
        let addresses = open.filter_map(|(name, open)| Some((name.clone(), open.socket.address().ok()?)));
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.collect();
    }

    /// Opens log files anew, for rotation by rename.
    pub fn reopen_logs(&self) {
        if let Err(error) = self.live.load_full().access_log.reopen() {
            tracing::error!(%error, "the access log cannot be opened again: the old file is written on");
        }
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that can refuse at the start, all of it asked. The log comes last: what is not going to serve leaves
/// no file behind.
fn prepare(
    config: &Config,
    shared: &Arc<Shared>,
    inheritance: &mut Inheritance,
) -> Result<(Snapshot, Sockets, admin::Place), Problems> {
    let state_dir = prepare_state_dir(config);
    let sockets = bind_all(config, &BTreeMap::new(), inheritance);
    let admin = admin::bind(&config.admin, inheritance);
    let state_dir = match state_dir {
        Ok(()) => shared.open_state(&config.server.state_dir).map_err(|error| state_problem(config, &error)),
        wrong => wrong,
    };
    let found = [state_dir.err(), sockets.as_ref().err().cloned(), admin.as_ref().err().cloned()];
    let found = found.into_iter().flatten().flat_map(|problems| problems.0).collect();
    let snapshot = Snapshot::build_proven(config.clone(), None, shared, found, |_| Vec::new())?;
    Ok((snapshot, sockets?, admin?))
}

fn without_log(config: &Config) -> Config {
    let mut config = config.clone();
    config.log.access = AccessLogTarget::Off;
    config
}

/// A listener's place after a reload.
enum Socket {
    /// As it was.
    Kept,
    /// An open one under another name.
    Renamed(Arc<Bound>),
    New(Arc<Bound>),
}

type Sockets = BTreeMap<String, (Address, Socket)>;

/// Binds what is not open yet.
fn bind_all(
    config: &Config,
    open: &BTreeMap<String, Open>,
    inheritance: &mut Inheritance,
) -> Result<Sockets, Problems> {
    let mut sockets = Sockets::new();
    let mut problems = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let is_open = open.get(&listener.name).is_some_and(|open| open.configured == listener.address);
        let socket = match renamed(listener, config, open) {
            _ if is_open => Socket::Kept,
            Some(socket) => Socket::Renamed(socket),
            None => match inheritance
                .listener(&listener.name, &listener.address)
                .map_or_else(|| bind(&listener.address), Ok)
            {
                Ok(bound) => Socket::New(Arc::new(bound)),
                Err(error) => {
                    let text = format!("cannot listen on {}: {}", listener.address, io_reason(&error));
                    let problem = Problem::new(format!("listener[{index}].address"), text);
                    problems.push(problem.with_help("name a free address of this machine"));
                    continue;
                }
            },
        };
        sockets.insert(listener.name.clone(), (listener.address.clone(), socket));
    }
    if problems.is_empty() { Ok(sockets) } else { Err(Problems(problems)) }
}

/// The open socket with this listener's address, when another name had it and gives it up. Port 0 is no address: any
/// free port will do.
fn renamed(listener: &Listener, config: &Config, open: &BTreeMap<String, Open>) -> Option<Arc<Bound>> {
    if matches!(&listener.address, Address::Socket(address) if address.port() == 0) {
        return None;
    }
    let keeps = |name: &str, open: &Open| {
        config.listeners.iter().any(|other| other.name == name && other.address == open.configured)
    };
    let found = open.iter().find(|(name, open)| open.configured == listener.address && !keeps(name, open));
    found.map(|(_, open)| Arc::clone(&open.socket))
}

impl Listening {
    /// Starts acceptors for new sockets and stops those that are no longer wanted.
    fn take_over(&mut self, sockets: Sockets) {
        let Some(workers) = self.workers.clone() else { return };
        let moved: Vec<_> = sockets
            .values()
            .filter_map(|(_, socket)| match socket {
                Socket::Renamed(socket) => Some(Arc::as_ptr(socket)),
                Socket::Kept | Socket::New(_) => None,
            })
            .collect();
        self.open.retain(|name, open| match sockets.get(name) {
            Some((_, Socket::Kept)) => true,
            _ => {
                let is_moved = moved.contains(&Arc::as_ptr(&open.socket));
                open.stop.send_replace(if is_moved { Stop::Leave } else { Stop::HandOver });
                false
            }
        });
        for (index, (name, (configured, socket))) in sockets.into_iter().enumerate() {
            let (Socket::New(socket) | Socket::Renamed(socket)) = socket else { continue };
            let stop = watch::Sender::new(Stop::No);
            let acceptor = Acceptor {
                listener: name.as_str().into(),
                socket: Arc::clone(&socket),
                workers: workers.clone(),
                connections: Arc::clone(&self.connections),
                stop: stop.subscribe(),
            };
            workers.accept(index, acceptor);
            self.open.insert(name, Open { configured, socket, stop });
        }
    }

    /// Lets in more connections or fewer from now on. Those beyond the new bound are not cut: their places go as they
    /// close, with further calls.
    fn bound_connections(&mut self, wanted: usize) {
        if wanted > self.connections_max {
            self.connections.add_permits(wanted - self.connections_max);
            self.connections_max = wanted;
        } else {
            self.connections_max -= self.connections.forget_permits(self.connections_max - wanted);
        }
    }

    /// Stops accepting for good, where another process goes on with the sockets.
    fn leave(&mut self) {
        self.workers = None;
        for (_, open) in std::mem::take(&mut self.open) {
            open.socket.leave_file();
            open.stop.send_replace(Stop::Leave);
        }
    }

    /// Stops accepting for good.
    fn close(&mut self) {
        self.workers = None;
        for (_, open) in std::mem::take(&mut self.open) {
            open.stop.send_replace(Stop::HandOver);
        }
    }
}

/// A broken template is no reason not to serve: the built-in page takes its place.
fn page_warnings(snapshot: &Snapshot, loaded: &Loaded) -> Problems {
    let warnings = snapshot.maintenance.pages.warnings().iter();
    let problem = |warning: &String| {
        Problem::new("maintenance.page", warning.as_str()).with_help("the built-in page is shown in its place")
    };
    loaded.locate_all(Problems(warnings.map(problem).collect()))
}

fn warn_of_pages(snapshot: &Snapshot, loaded: &Loaded) {
    for warning in page_warnings(snapshot, loaded).0 {
        snapshot.shared.events.emit(Event::MaintenancePageBroken { error: warning.to_string() });
    }
}

fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Makes the state folder and makes sure that flag files can be written there.
fn prepare_state_dir(config: &Config) -> Result<(), Problems> {
    let folder = &config.server.state_dir;
    let probe = folder.join(format!(".write-test-{}", std::process::id()));
    let tried = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe));
    tried.map_err(|error| state_problem(config, &error))
}

fn state_problem(config: &Config, error: &io::Error) -> Problems {
    let folder = config.server.state_dir.display();
    let text = format!("the state folder {folder} cannot be written: {}", io_reason(error));
    Problem::new("server.state_dir", text).with_help("name a folder that this user may write").into()
}

fn watch_flags(config: &Config, shared: &Arc<Shared>) -> Result<FlagWatcher, Problems> {
    let observer = Arc::clone(shared);
    FlagWatcher::start(flag_settings(config), Arc::clone(&shared.switch), move |change| observer.flag_changed(&change))
        .map_err(|error| thread_problem(&error))
}

pub(crate) fn flag_settings(config: &Config) -> flag_file::Settings {
    flag_file::Settings {
        flag: config.maintenance.flag.clone(),
        routes_dir: config.server.state_dir.join("maintenance.d"),
    }
}

fn watch_config(file: &Path, control: &Arc<Control>) -> io::Result<ConfigWatcher> {
    let (known, control) = (Arc::downgrade(control), Arc::downgrade(control));
    let is_known = move |sources: &Sources| {
        known.upgrade().is_none_or(|control| *control.tried.lock().unwrap_or_else(PoisonError::into_inner) == *sources)
    };
    ConfigWatcher::start(file.to_path_buf(), is_known, move || {
        if let Some(control) = control.upgrade() {
            // The outcome, good or bad, has been logged and counted.
            let _ = control.reload();
        }
    })
}

/// The thread beside the workers: the admin side and what happens every second.
fn keep_house(control: &Arc<Control>, phases: Phases) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let control = Arc::clone(control);
    std::thread::Builder::new().name("housekeeping".into()).spawn(move || {
        runtime.block_on(async move {
            let mut cutting = phases.cutting;
            let (mut webhooks, mut exporter) = (webhooks(&control), exporter(&control));
            tokio::select! {
                _ = cutting.wait_for(|cutting| *cutting) => {}
                () = tick(&control) => {}
                () = control.shared.cuts.run() => {}
                () = webhooks.run() => {}
                () = exporter.run() => {}
                () = beat(&control) => {}
                () = admin::serve(Arc::clone(&control)) => {}
                () = control.tell_that_alive() => {}
            }
            if control.says_farewell.load(Relaxed) {
                tokio::join!(webhooks.farewell(FAREWELL), exporter.farewell(FAREWELL));
            }
        });
    })
}

fn webhooks(control: &Arc<Control>) -> Notifier<impl Fn() -> (u64, Vec<Notify>) + use<>> {
    let of = Arc::clone(control);
    let current = move || {
        let live = of.live.load_full();
        (live.generation, live.config.notify.clone())
    };
    Notifier::new(&control.shared.events, control.shared.resolver.clone(), current)
}

fn exporter(control: &Arc<Control>) -> Exporter<impl Fn() -> Option<Secret> + use<>> {
    let (of, shared) = (Arc::clone(control), &control.shared);
    let current = move || of.live.load_full().config.trace.otlp.clone();
    Exporter::new(
        Arc::clone(&shared.traces),
        Arc::clone(&shared.events),
        shared.resolver.clone(),
        &shared.instance,
        current,
    )
}

/// Watches over upstreams, and begins what a new generation wants begun.
async fn beat(control: &Control) {
    let mut interval = tokio::time::interval(BEAT);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let live = control.live.load_full();
        live.watch(&tokio::runtime::Handle::current());
        control.shared.beat(&live);
    }
}

async fn tick(control: &Control) {
    let mut interval = tokio::time::interval(TICK);
    let mut windows = windows::Keeper::new(Arc::clone(&control.live), Arc::clone(&control.shared));
    loop {
        interval.tick().await;
        control.shared.tick();
        let config = Arc::clone(&control.live.load_full().config);
        control.shared.host.tick(&config.host, &config.server.state_dir);
        // After the tick: an override that is over gives way. Also what a reload could not know when it was built.
        control.follow_overrides();
        control.settle();
        // Of two processes, one begins planned maintenance.
        if control.shared.is_in_charge() {
            windows.tick(jiff::Timestamp::now());
        }
    }
}

fn unix_seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

fn thread_problem(error: &io::Error) -> Problems {
    let problem = Problem::new("", format!("the system gives no thread: {}", io_reason(error)));
    problem.with_help("allow this user or container more of them (ulimit -u, TasksMax=, pids.max)").into()
}
