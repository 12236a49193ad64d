//! Begins planned maintenance: writes the flag file when a window is due, and tells of it before.
//!
//! A window makes its flag once, at its start, or as soon as Flagstone runs in its middle, and never again: who
//! removes the flag has ended the window. The flag says itself when it ends (`until` and `auto_end`), so it goes
//! on time after a restart and after a reload too, and one that an operator has written meanwhile stays. Where a reload
//! gives a window that runs another end, its flag follows, as long as nobody has given it one of its own.
//!
//! | the flag that is there when a window is due | the window |
//! |---|---|
//! | another window's that ends later, or its own | has begun with that |
//! | another window's that ends earlier | takes it over |
//! | anybody else's | waits; the event tells of it once |
//! | … which covers a part of the site only, and is gone | begins, for what is left of it |
//! | … which has come to its `until`, and is gone | begins, for what is left of it |
//! | … for everything, which is gone before its end | has been ended with it |
//!
//! Where a reload shortens the window whose flag is there, the flag becomes that of the one which ends last of those that
//! have begun with it or joined it.
//!
//! What was begun and announced is kept in `windows.toml` of the state folder, so that a restart repeats nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use toml::{Table, Value};

use super::flag_file::{look_at, make_flag, write_flag};
use super::remembered::Remembered;
use crate::config::model::{Maintenance, Window};
use crate::config::{second, zone};
use crate::error::io_reason;
use crate::live::Live;
use crate::policy::maintenance::{Active, Flag, Mode};
use crate::policy::window::{Occurrence, Schedule};
use crate::shared::Shared;
use crate::telemetry::events::Event;

/// In the state folder.
const FILE: &str = "windows.toml";
/// What `by` says in a window's flag, before its name.
const BY: &str = "window:";

/// An occurrence to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upcoming {
    pub name: String,
    pub at: Occurrence,
    pub reason: String,
}

/// The next occurrence of each window, the soonest first.
pub fn upcoming(windows: &[Window], now: Timestamp) -> Vec<Upcoming> {
    let next = |window: &Window| {
        let at = schedule(window)?.next(now)?;
        Some(Upcoming { name: window.name.clone(), at, reason: window.reason.clone() })
    };
    let mut upcoming: Vec<_> = windows.iter().filter_map(next).collect();
    upcoming.sort_by_key(|upcoming| upcoming.at.start);
    upcoming
}

fn schedule(window: &Window) -> Option<Schedule> {
    Schedule::parse(&window.schedule, zone::find(&window.timezone)?, window.duration)
}

/// What looks after the windows, once a second.
pub(crate) struct Keeper {
    live: Arc<Live>,
    shared: Arc<Shared>,
    generation: u64,
    windows: Vec<Planned>,
    memory: Memory,
    /// The window whose flag is on, to tell how long it took.
    running: Option<Run>,
    /// By window, the flag that it waits for, as it was seen last.
    waiting: BTreeMap<String, Waiting>,
    /// By window, the start of the occurrence whose failure was told, and is not told again every second.
    failed: BTreeMap<String, Timestamp>,
}

/// A configured window, with what was worked out for it.
struct Planned {
    window: Window,
    schedule: Schedule,
    /// Holds until its start has passed.
    next: Option<Occurrence>,
}

/// A window's flag that is on.
struct Run {
    window: String,
    since: Timestamp,
    /// When it goes by itself.
    until: Option<Timestamp>,
}

/// What a window waits for.
struct Waiting {
    /// The occurrence's.
    start: Timestamp,
    flag: Flag,
}

/// By window: the last occurrence that was begun, and the start of the last one that was announced.
#[derive(Debug)]
struct Memory {
    file: Remembered,
    begun: BTreeMap<String, Occurrence>,
    announced: BTreeMap<String, Timestamp>,
}

impl Keeper {
    pub(crate) fn new(live: Arc<Live>, shared: Arc<Shared>) -> Self {
        let memory = Memory::read(&live.load_full().config.server.state_dir);
        Self {
            live,
            shared,
            generation: 0,
            windows: Vec::new(),
            memory,
            running: None,
            waiting: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        let snapshot = self.live.load_full();
        let settings = &snapshot.config.maintenance;
        if self.generation != snapshot.generation {
            self.generation = snapshot.generation;
            self.plan(settings, now);
        }
        self.note_run(now);
        for index in 0..self.windows.len() {
            self.begin(index, settings, now);
            self.announce(index, settings, now);
        }
    }

    fn plan(&mut self, settings: &Maintenance, now: Timestamp) {
        let plan = |window: &Window| {
            let schedule = schedule(window)?;
            Some(Planned { next: schedule.next(now), schedule, window: window.clone() })
        };
        self.windows = settings.windows.iter().filter_map(plan).collect();
        self.memory.forget_but(&settings.windows, now);
        for window in &self.windows {
            let name = &window.window.name;
            if let Some(begun) = self.memory.begun.get(name) {
                self.show_begun(name, begun.start);
            }
        }
    }

    /// Writes the flag of a window that is due and was not begun, or has another end than when it was begun.
    fn begin(&mut self, index: usize, settings: &Maintenance, now: Timestamp) {
        let Planned { window, schedule, .. } = &self.windows[index];
        let Some(due) = schedule.last(now) else { return };
        let begun = self.memory.begun.get(&window.name).copied().filter(|begun| begun.start == due.start);
        if begun.map_or(due.end <= now, |begun| begun == due) {
            return;
        }
        let name = window.name.clone();
        let is_there = || fs::symlink_metadata(&settings.flag).is_ok();
        let is_free = !is_there();
        let done = look_at(&settings.flag).and_then(|present| {
            let waited = self.waiting.get(&name).filter(|waiting| waiting.start == due.start);
            let step = match begun {
                Some(begun) => step_of_begun((window, begun), due, present.as_ref(), self.begun(now), now),
                None => step(window, due, present.as_ref(), waited, now),
            };
            let Step::Begin(flag) = &step else { return Ok(Some(step)) };
            // Somebody may make one at this moment, and is not to lose it.
            let write = if is_free { make_flag } else { write_flag };
            match write(&settings.flag, flag) {
                Ok(()) => Ok(Some(step)),
                Err(_) if is_free && is_there() => Ok(None),
                Err(error) => Err(format!("{} cannot be written: {}", settings.flag.display(), io_reason(&error))),
            }
        });
        match done {
            Ok(Some(Step::Begin(_) | Step::Join)) => self.show_begun(&name, due.start),
            Ok(Some(Step::Wait(flag))) => return self.wait(name, due, flag),
            // The next tick sees whose it is.
            Ok(None) => return,
            Ok(Some(Step::Leave)) => {
                tracing::info!(window = name, "the window is over with the flag that was removed before its end");
            }
            Err(problem) => {
                if self.failed.insert(name.clone(), due.start) != Some(due.start) {
                    tracing::error!("window {name} cannot begin: {problem}");
                }
                return;
            }
        }
        self.waiting.remove(&name);
        self.memory.begun.insert(name, due);
        self.memory.save();
    }

    /// The windows whose last occurrence was begun, with that.
    fn begun(&self, now: Timestamp) -> impl Iterator<Item = (&Window, Occurrence)> {
        self.windows.iter().filter_map(move |Planned { window, schedule, .. }| {
            let last = schedule.last(now)?;
            (self.memory.begun.get(&window.name)?.start == last.start).then_some((window, last))
        })
    }

    /// The event tells of it once, however often the flag changes.
    fn wait(&mut self, window: String, due: Occurrence, flag: Flag) {
        let (by, until) = (flag.by.clone().unwrap_or_default(), flag.until.map(|until| until.to_string()));
        let before = self.waiting.insert(window.clone(), Waiting { start: due.start, flag });
        if before.is_none_or(|before| before.start != due.start) {
            let (end, until) = (due.end.to_string(), until.unwrap_or_default());
            self.shared.events.emit(Event::MaintenanceWaits { window, end, by, until });
        }
    }

    /// The planned beginning, which every process knows alike.
    fn show_begun(&self, name: &str, begun: Timestamp) {
        self.shared.metrics.window(name).began(u64::try_from(begun.as_second()).unwrap_or(0));
    }

    fn announce(&mut self, index: usize, settings: &Maintenance, now: Timestamp) {
        let planned = &mut self.windows[index];
        if planned.next.is_some_and(|next| next.start <= now) {
            planned.next = planned.schedule.next(now);
        }
        let Some(next) = planned.next else { return };
        let is_near = now.checked_add(settings.announce).is_ok_and(|horizon| next.start <= horizon);
        let window = &planned.window;
        if !is_near || self.memory.announced.get(&window.name) == Some(&next.start) {
            return;
        }
        self.shared.events.emit(Event::MaintenanceScheduled {
            window: window.name.clone(),
            start: next.start.to_string(),
            end: next.end.to_string(),
            reason: window.reason.clone(),
        });
        self.memory.announced.insert(window.name.clone(), next.start);
        self.memory.save();
    }

    /// Shows how long a run took that has ended.
    fn note_run(&mut self, now: Timestamp) {
        let is_known = |name: &str| self.windows.iter().any(|one| one.window.name == name);
        let state = self.shared.switch.load();
        let active = state.as_ref().and_then(|state| state.global.as_ref());
        let running = active.and_then(|active| Run::of(active)).filter(|run| is_known(&run.window));
        drop(state);
        let goes_on =
            |run: &Run| running.as_ref().is_some_and(|now| now.window == run.window && now.since == run.since);
        // One that was taken out goes on, and has no figures any more.
        let ended = self.running.take().filter(|run| !goes_on(run) && is_known(&run.window));
        if let Some(run) = ended {
            let took = run.end(now).duration_since(run.since).try_into().unwrap_or_default();
            self.shared.metrics.window(&run.window).took(took);
        }
        self.running = running;
    }
}

/// What a window that is due does; see the module docs.
enum Step {
    /// Writes this.
    Begin(Flag),
    /// A window's flag is there for as long.
    Join,
    /// This flag is there.
    Wait(Flag),
    /// Whoever removed the flag wanted the site back.
    Leave,
}

fn step(
    window: &Window,
    due: Occurrence,
    present: Option<&Arc<Active>>,
    waited: Option<&Waiting>,
    now: Timestamp,
) -> Step {
    let since = match present {
        None if waited.is_some_and(|waited| waited.was_ended(now)) => return Step::Leave,
        None => now,
        Some(active) if window_of(active).is_none() => return Step::Wait(active.flag.clone()),
        // It would end too early.
        Some(active) if active.flag.until.is_some_and(|until| until < due.end) => active.since,
        Some(_) => return Step::Join,
    };
    Step::Begin(flag_of(window, due, since))
}

fn flag_of(window: &Window, due: Occurrence, since: Timestamp) -> Flag {
    Flag {
        reason: Some(window.reason.clone()).filter(|reason| !reason.is_empty()),
        started_at: Some(second::floor(since)),
        until: Some(due.end),
        auto_end: true,
        by: Some(format!("{BY}{}", window.name)),
        ..Flag::default()
    }
}

/// What a window does that was begun for as long as `begun` says, and now ends with `due`. `all` have begun, with it or
/// before or since.
fn step_of_begun<'a>(
    (window, begun): (&Window, Occurrence),
    due: Occurrence,
    present: Option<&Arc<Active>>,
    all: impl Iterator<Item = (&'a Window, Occurrence)>,
    now: Timestamp,
) -> Step {
    let Some((active, of)) = present.and_then(|active| Some((active, window_of(active)?))) else { return Step::Join };
    if of != window.name {
        return step(window, due, present, None, now);
    }
    if active.flag.until != Some(begun.end) {
        // Somebody has given it its end.
        return Step::Join;
    }
    // Those that this flag has stood for, too. One that began before it was ended by hand.
    let joined = all.filter(|(_, at)| active.since <= at.start);
    Step::Begin(match joined.max_by_key(|(_, at)| at.end).filter(|(_, at)| due.end < at.end) {
        Some((longest, at)) => flag_of(longest, at, active.since),
        None => Flag { until: Some(due.end), ..active.flag.clone() },
    })
}

impl Waiting {
    /// Whether the flag, which is gone now, was for everything and had not come to its end: who removes such a one
    /// wants the site back.
    fn was_ended(&self, now: Timestamp) -> bool {
        let is_whole = self.flag.covers_everything() && self.flag.mode != Mode::ReadOnly;
        is_whole && self.flag.until.is_none_or(|until| now < until)
    }
}

impl Run {
    /// `None` = the flag is no window's.
    fn of(active: &Active) -> Option<Self> {
        let window = window_of(active)?.to_owned();
        let flag = &active.flag;
        Some(Self { window, since: active.since, until: flag.until.filter(|_| flag.auto_end) })
    }

    /// When it has ended that is known to be over `now`: whoever looks once a second comes late.
    fn end(&self, now: Timestamp) -> Timestamp {
        self.until.map_or(now, |until| until.min(now))
    }
}

/// The name of the window that wrote a flag.
fn window_of(active: &Active) -> Option<&str> {
    active.flag.by.as_deref()?.strip_prefix(BY)
}

impl Memory {
    /// Without what was saved a window that was ended by hand may begin again.
    fn read(state_dir: &Path) -> Self {
        let file = Remembered::at(state_dir, FILE, "what windows have begun");
        let table = file.read();
        let times = |key: &str| -> BTreeMap<String, Timestamp> {
            let of = |(name, entry): (&String, &Value)| Some((name.clone(), entry.get(key)?.as_str()?.parse().ok()?));
            table.iter().filter_map(of).collect()
        };
        let ends = times("ends");
        // Older versions say nothing of the end.
        let end = |name: &String, start| ends.get(name).copied().unwrap_or(start);
        let begun = times("begun").into_iter();
        let begun = begun.map(|(name, start)| (name.clone(), Occurrence { start, end: end(&name, start) })).collect();
        Self { begun, announced: times("announced"), file }
    }

    fn save(&self) {
        let mut table = Table::new();
        let mut note = |name: &String, key: &str, time: Timestamp| {
            let entry = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(entry) = entry {
                entry.insert(key.to_owned(), Value::String(time.to_string()));
            }
        };
        for (name, begun) in &self.begun {
            note(name, "begun", begun.start);
            note(name, "ends", begun.end);
        }
        for (name, start) in &self.announced {
            note(name, "announced", *start);
        }
        self.file.save(&table);
    }

    /// A window that is taken out and put back goes on as the occurrence that it was.
    fn forget_but(&mut self, windows: &[Window], now: Timestamp) {
        let is_known = |name: &String| windows.iter().any(|window| window.name == *name);
        self.begun.retain(|name, begun| is_known(name) || now < begun.end);
        self.announced.retain(|name, start| is_known(name) || now < *start);
    }
}

#[cfg(test)]
mod tests;
