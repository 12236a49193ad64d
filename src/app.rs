//! Composition: builds the first generation, binds, starts the workers, reloads, drains.

mod control;
mod handover;
mod housekeeping;
mod listening;
pub(crate) mod loading;
mod warnings;
mod watchdog;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::admin;
use crate::config::model::{AccessLogTarget, Address, Config};
use crate::config::{Loaded, Problem, Problems, Sources, regular_file};
use crate::error::{io_reason, is_full};
pub use crate::explain::route_tests::TestResult;
use crate::explain::{Explanation, Hypothetical, Moment, explain, route_tests};
use crate::live::Live;
use crate::proxy::decide::Switches;
use crate::reload::watch::Watcher;
use crate::reload::{certificates, config_file, flag_file};
use crate::runtime::{Runtime, Unreadable};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::systemd;
use crate::upgrade::Inheritance;
use crate::upstream::Resolver;
use crate::worker::{Crew, Drain, Phases, Workers};

use housekeeping::keep_house;
use listening::{Listening, Sockets, bind_all};

pub(crate) use control::LastReload;
pub use control::{Control, Reloaded};
pub(crate) use handover::Leave;

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
    config_watcher: Option<Watcher>,
    _certificate_watcher: Watcher,
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

/// What a configuration is, beyond being fit to serve.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What is worth knowing.
    pub warnings: Problems,
    /// Of each `[[test]]`.
    pub tests: Vec<TestResult>,
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
        let (runtime, unreadable) = state_of(&config.server.state_dir, inheritance);
        let shared = Shared::new(workers, resolver, runtime);
        // What it finds as it starts, the process before has told.
        shared.set_in_charge(inheritance.predecessor.is_none());
        let (mut snapshot, sockets, admin_place) =
            prepare(&config, &shared, unreadable, inheritance).map_err(|problems| loaded.locate_all(problems))?;
        snapshot.masked = Arc::new(loaded.masked.clone());
        let flag_watcher = watch_flags(&config, &shared)?;

        snapshot.start();
        warnings::tell_of_pages(&snapshot, &loaded);
        warnings::tell_of_tests(&snapshot, &loaded);
        let live = Arc::new(Live::new(snapshot));
        let (draining, cutting) = (watch::Sender::new(Drain::No), watch::Sender::new(false));
        let phases = Phases { draining: draining.subscribe(), cutting: cutting.subscribe() };
        let (crew, desks) = Crew::start(workers, &live, &phases).map_err(|error| thread_problem(&error))?;
        let listening = Listening::new(desks, config.server.max_connections.get());
        let control = Control::new(live, shared, source.clone(), loaded.sources, flag_watcher, listening, admin_place);
        let control = Arc::new(control);
        control.go_on_from(inheritance);
        let mut listening = control.listening.lock();
        listening.take_over(sockets);
        control.note_addresses(&listening);
        drop(listening);
        let housekeeping = keep_house(&control, phases).map_err(|error| thread_problem(&error))?;
        let config_watcher = match &source {
            // What came out of a pipe will not come again.
            Source::File(file) if std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file()) => None,
            Source::File(file) => Some(watch_config(file, &control).map_err(|error| thread_problem(&error))?),
            Source::Fixed => None,
        };
        let certificate_watcher = certificates::follow(Arc::clone(&control.live), Arc::clone(&control.shared))
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
        Ok(Checked { warnings: warnings::of(&snapshot, loaded), tests: route_tests::run(&snapshot) })
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
        let shared = Shared::new(1, Resolver::unused(), Runtime::look_at(&config.server.state_dir).unwrap_or_default());
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
        self.control.listening.lock().workers.as_ref().map(Workers::connections).unwrap_or_default()
    }

    /// Where the admin side listens.
    pub fn admin_address(&self) -> Option<Address> {
        self.control.admin().socket().and_then(|socket| socket.address().ok())
    }

    /// Drains and stops: not ready for `delay` while still accepting, then nothing new, then up to `grace` for what
    /// is open. Returns whether everything finished in time.
    pub fn drain(mut self, delay: Duration, grace: Duration) -> bool {
        self.control.is_ready.store(false, Relaxed);
        // The service goes on where this process has not taken over.
        if self.control.is_in_charge() {
            systemd::stopping();
        }
        // Nobody leaves while the listeners are open, unless told to by a hurry.
        self.has_left(delay);
        self.control.listening.lock().close();
        self.finish(IDLE_LAST.min(grace), grace)
    }

    /// Lets what is open come to its end, for up to `grace`, and stops; whether everything did.
    fn finish(&mut self, idle: Duration, grace: Duration) -> bool {
        self.draining.send_replace(Drain::Begun { idle });
        let finished = self.has_left(grace) && !*self.cutting.borrow();
        self.control.says_farewell.store(!*self.cutting.borrow(), Relaxed);
        self.control.finish_admin(&self.cutting);
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
        self.control.flag_watcher.lock().take();
        self.control.listening.lock().close();
        self.draining.send_replace(Drain::Begun { idle: Duration::ZERO });
        self.cutting.send_replace(true);
        if let Some(crew) = self.crew.take() {
            crew.join();
        }
        if let Some(housekeeping) = self.housekeeping.take() {
            // Its panic has been printed by the panic hook.
            let _ = housekeeping.join();
        }
        self.control.outlive_successor();
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

/// Everything that can refuse at the start, all of it asked. The log comes last: what is not going to serve leaves
/// no file behind.
fn prepare(
    config: &Config,
    shared: &Arc<Shared>,
    unreadable: Option<Unreadable>,
    inheritance: &mut Inheritance,
) -> Result<(Snapshot, Sockets, admin::Place), Problems> {
    let state_dir = prepare_state_dir(config);
    let sockets = bind_all(config, &BTreeMap::new(), &[], inheritance);
    let admin = admin::bind(&config.admin, inheritance, None);
    let state_dir = match state_dir {
        Ok(()) => shared.open_state(&config.server.state_dir).map_err(|error| state_problem(config, &error)),
        wrong => wrong,
    };
    let state_dir = state_dir.err().or_else(|| unreadable.map(|error| unreadable_problem(&error)));
    let found = [state_dir, sockets.as_ref().err().cloned(), admin.as_ref().err().cloned()];
    let found = found.into_iter().flatten().flat_map(|problems| problems.0).collect();
    // As it refuses a reload: the process before serves on.
    let takes_over = inheritance.predecessor.is_some();
    let prove = |built: &Snapshot| if takes_over { route_tests::failures(built) } else { Vec::new() };
    let snapshot = Snapshot::build_proven(config.clone(), None, shared, found, prove)?;
    Ok((snapshot, sockets?, admin?))
}

fn without_log(config: &Config) -> Config {
    let mut config = config.clone();
    config.log.access = AccessLogTarget::Off;
    config
}

fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Makes the state folder and makes sure that flag files can be written there, or are not meant to be.
fn prepare_state_dir(config: &Config) -> Result<(), Problems> {
    let folder = &config.server.state_dir;
    let probe = regular_file::beside(&folder.join("probe"));
    let tried = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&probe, b"flag"))
        .and_then(|()| std::fs::remove_file(&probe));
    match tried {
        // A volume whose files come from elsewhere, as a ConfigMap's do.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem && folder.is_dir() => {
            tracing::warn!(
                "the state folder {} is read-only: its flags are followed, but nothing is switched or kept here",
                folder.display()
            );
            Ok(())
        }
        // Visitors are to be served on a full disk, too: that is when machines are restarted.
        Err(error) if is_full(&error) && folder.is_dir() => {
            let _ = std::fs::remove_file(&probe);
            tracing::warn!(
                "the state folder {} cannot be written ({}): its flags are followed, but nothing is switched or kept here",
                folder.display(),
                io_reason(&error)
            );
            Ok(())
        }
        tried => tried.map_err(|error| state_problem(config, &error)),
    }
}

fn state_problem(config: &Config, error: &io::Error) -> Problems {
    let folder = config.server.state_dir.display();
    let text = format!("the state folder {folder} cannot be written: {}", io_reason(error));
    Problem::new("server.state_dir", text).with_help("name a folder that this user may write").into()
}

/// What an earlier process left in the state folder; where that cannot be read, nothing, and why.
fn state_of(state_dir: &Path, inheritance: &Inheritance) -> (Runtime, Option<Unreadable>) {
    let state = match inheritance.predecessor {
        None => Runtime::open(state_dir),
        // It may still be changed by the process before; `take_charge` reads it again.
        Some(_) => Runtime::look_at(state_dir),
    };
    state.map_or_else(|error| (Runtime::default(), Some(error)), |runtime| (runtime, None))
}

fn unreadable_problem(error: &Unreadable) -> Problems {
    let help = "let this user read it, or move it away: what it holds is no longer in force then";
    Problem::new("server.state_dir", error.to_string()).with_help(help).into()
}

fn watch_flags(config: &Config, shared: &Arc<Shared>) -> Result<Watcher, Problems> {
    let observer = Arc::clone(shared);
    flag_file::follow(flag_settings(config), Arc::clone(&shared.switch), move |change| observer.flag_changed(&change))
        .map_err(|error| thread_problem(&error))
}

pub(crate) fn flag_settings(config: &Config) -> flag_file::Settings {
    flag_file::Settings {
        flag: config.maintenance.flag.clone(),
        routes_dir: config.server.state_dir.join("maintenance.d"),
    }
}

fn watch_config(file: &Path, control: &Arc<Control>) -> io::Result<Watcher> {
    let (known, control) = (Arc::downgrade(control), Arc::downgrade(control));
    let is_known =
        move |sources: &Sources| known.upgrade().is_none_or(|control| control.tried.lock().sources == *sources);
    let again = control.clone();
    let retry = move || {
        if let Some(control) = again.upgrade() {
            control.retry();
        }
    };
    let changed = move || {
        if let Some(control) = control.upgrade() {
            // The outcome, good or bad, has been logged and counted.
            let _ = control.reload();
        }
    };
    config_file::follow(file.to_path_buf(), is_known, changed, retry)
}

/// The first of several reasons, and how many more there are: a webhook has the line of the event alone.
fn in_short(first: impl Display, more: usize) -> String {
    match more {
        0 => first.to_string(),
        more => format!("{first}; and {more} more"),
    }
}

fn unix_seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

fn thread_problem(error: &io::Error) -> Problems {
    let problem = Problem::new("", format!("the system gives no thread: {}", io_reason(error)));
    problem.with_help("allow this user or container more of them (ulimit -u, TasksMax=, pids.max)").into()
}
