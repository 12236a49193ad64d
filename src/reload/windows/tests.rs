use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::config::model::Config;
use crate::policy::maintenance::State;
use crate::reload::flag_file::remove_flag;
use crate::runtime::Runtime;
use crate::snapshot::Snapshot;
use crate::upstream::Resolver;

/// A Keeper whose clock the test turns; only files remember anything.
struct Fixture {
    folder: TempDir,
    extra: &'static str,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), extra: "" }
    }

    fn start(&self) -> Keeper {
        let toml = format!(
            "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\n\
             [maintenance]\nannounce = \"1h\"\n\
             [[maintenance.window]]\nname = \"nightly\"\nschedule = \"0 3 * * *\"\nduration = \"1h\"\nreason = \"Backup\"\n{}",
            self.extra
        );
        let file = self.folder.path().join("flagstone.toml");
        fs::write(&file, toml).unwrap();
        fs::create_dir_all(self.folder.path().join("state")).unwrap();
        let loaded = crate::config::load(&file, &|_| None).unwrap();
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let snapshot = Snapshot::build(loaded.config, None, &shared).unwrap();
        Keeper::new(Arc::new(Live::new(snapshot)), shared)
    }

    fn flag(&self) -> PathBuf {
        self.folder.path().join("state/maintenance.flag")
    }

    fn read(&self) -> Option<Flag> {
        Some(Flag::parse(&fs::read(self.flag()).ok()?).0)
    }

    fn by(&self) -> Option<String> {
        self.read()?.by
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn scheduled(keeper: &Keeper) -> usize {
    told(keeper, "Maintenance scheduled")
}

fn told(keeper: &Keeper, message: &str) -> usize {
    keeper.shared.events.recent().iter().filter(|record| record.event.message() == message).count()
}

#[test]
fn a_window_writes_a_flag_that_ends_by_itself() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T02:59:59Z"));
    assert_eq!(fixture.read(), None);
    keeper.tick(at("2130-01-31T03:00:00Z"));
    let flag = fixture.read().unwrap();
    assert_eq!(flag.by.as_deref(), Some("window:nightly"));
    assert_eq!(flag.reason.as_deref(), Some("Backup"));
    assert_eq!((flag.started_at, flag.until), (Some(at("2130-01-31T03:00:00Z")), Some(at("2130-01-31T04:00:00Z"))));
    assert!(flag.auto_end);
}

#[test]
fn who_removes_the_flag_has_ended_the_window_also_over_a_restart() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    assert!(remove_flag(&fixture.flag()).unwrap());
    keeper.tick(at("2130-01-31T03:10:00Z"));
    assert_eq!(fixture.read(), None);
    fixture.start().tick(at("2130-01-31T03:20:00Z"));
    assert_eq!(fixture.read(), None);
    fixture.start().tick(at("2130-02-01T03:00:00Z"));
    assert_eq!(fixture.by().as_deref(), Some("window:nightly"), "the next night is another window");
}

#[test]
fn a_start_in_the_middle_of_a_window_begins_it() {
    let fixture = Fixture::new();
    fixture.start().tick(at("2130-01-31T03:30:00Z"));
    let flag = fixture.read().unwrap();
    assert_eq!((flag.started_at, flag.until), (Some(at("2130-01-31T03:30:00Z")), Some(at("2130-01-31T04:00:00Z"))));
}

#[test]
fn an_operators_flag_is_left_alone() {
    let fixture = Fixture::new();
    let own = Flag { by: Some("cli (ops)".to_owned()), ..Flag::default() };
    write_flag(&fixture.flag(), &own).unwrap();
    let mut keeper = fixture.start();
    for time in ["2130-01-31T03:00:00Z", "2130-01-31T03:59:59Z", "2130-01-31T04:00:01Z"] {
        keeper.tick(at(time));
        assert_eq!(fixture.read().as_ref(), Some(&own), "{time}");
    }
}

#[test]
fn an_operators_flag_that_comes_as_the_window_begins_is_left_alone() {
    for _ in 0..50 {
        let fixture = Fixture::new();
        let mut keeper = fixture.start();
        let flag = fixture.flag();
        let operator = std::thread::spawn(move || fs::File::create_new(flag).is_ok());
        keeper.tick(at("2130-01-31T03:00:00Z"));
        let is_an_operators = operator.join().unwrap();
        assert_eq!(fixture.by().is_none(), is_an_operators);
    }
}

/// As where one window ends when another begins, and nobody has removed its flag yet.
#[test]
fn a_flag_that_is_over_is_replaced() {
    let fixture = Fixture::new();
    let over = Flag { until: Some(at("2020-01-31T03:00:00Z")), auto_end: true, ..Flag::default() };
    write_flag(&fixture.flag(), &over).unwrap();
    fixture.start().tick(at("2130-01-31T03:00:00Z"));
    assert_eq!(fixture.by().as_deref(), Some("window:nightly"));
}

#[test]
fn a_window_waits_for_a_flag_that_ends_in_its_middle_and_takes_the_rest() {
    let fixture = Fixture::new();
    let until = Some(at("2130-01-31T03:05:00Z"));
    write_flag(&fixture.flag(), &Flag { until, auto_end: true, ..Flag::default() }).unwrap();
    let mut keeper = fixture.start();
    for time in ["2130-01-31T03:00:00Z", "2130-01-31T03:04:59Z"] {
        keeper.tick(at(time));
        assert_eq!(fixture.by(), None, "{time}");
    }
    let waits = |keeper: &Keeper| told(keeper, "Maintenance window waits");
    assert_eq!(waits(&keeper), 1);
    // As its watcher does.
    assert!(remove_flag(&fixture.flag()).unwrap());
    keeper.tick(at("2130-01-31T03:05:00Z"));
    let flag = fixture.read().unwrap();
    assert_eq!(flag.by.as_deref(), Some("window:nightly"));
    assert_eq!((flag.started_at, flag.until), (until, Some(at("2130-01-31T04:00:00Z"))));
    assert!(remove_flag(&fixture.flag()).unwrap());
    keeper.tick(at("2130-01-31T03:10:00Z"));
    assert_eq!((fixture.read(), waits(&keeper)), (None, 1), "its own flag was removed by hand");
}

#[test]
fn a_flag_for_a_part_of_it_keeps_a_window_waiting_whoever_removes_it() {
    for part in ["routes = [\"api\"]", "mode = \"read_only\"", "paths = [\"/api\"]\nuntil = \"2130-01-31T05:00:00Z\""] {
        let fixture = Fixture::new();
        let mut keeper = fixture.start();
        fs::write(fixture.flag(), part).unwrap();
        keeper.tick(at("2130-01-31T03:00:00Z"));
        assert_eq!(fixture.by(), None, "{part}");
        assert!(remove_flag(&fixture.flag()).unwrap());
        keeper.tick(at("2130-01-31T03:10:00Z"));
        assert_eq!(fixture.by().as_deref(), Some("window:nightly"), "{part}");
    }
}

#[test]
fn who_removes_a_flag_for_everything_before_its_end_has_ended_the_window_that_waits() {
    for flag in ["", "until = \"2130-01-31T05:00:00Z\"\nauto_end = true"] {
        let fixture = Fixture::new();
        let mut keeper = fixture.start();
        fs::write(fixture.flag(), flag).unwrap();
        keeper.tick(at("2130-01-31T03:00:00Z"));
        assert!(remove_flag(&fixture.flag()).unwrap());
        for time in ["2130-01-31T03:10:00Z", "2130-01-31T03:11:00Z"] {
            keeper.tick(at(time));
            assert_eq!(fixture.read(), None, "{flag}");
        }
        fixture.start().tick(at("2130-01-31T03:20:00Z"));
        assert_eq!(fixture.read(), None, "{flag}");
        assert!(!keeper.shared.metrics.encode().contains("last_run_timestamp_seconds{"), "it has not run");
    }
}

#[test]
fn a_longer_window_takes_over_from_a_shorter_one() {
    let second = "[[maintenance.window]]\nname = \"long\"\nschedule = \"30 3 * * *\"\nduration = \"2h\"\n";
    let fixture = Fixture { extra: second, ..Fixture::new() };
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    keeper.tick(at("2130-01-31T03:30:00Z"));
    let flag = fixture.read().unwrap();
    assert_eq!(flag.by.as_deref(), Some("window:long"));
    assert_eq!(flag.until, Some(at("2130-01-31T05:30:00Z")));
    assert_eq!(flag.started_at, Some(at("2130-01-31T03:00:00Z")), "maintenance went on");
}

#[test]
fn a_window_is_announced_once_also_over_a_restart() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T01:59:59Z"));
    assert_eq!(scheduled(&keeper), 0);
    keeper.tick(at("2130-01-31T02:00:00Z"));
    keeper.tick(at("2130-01-31T02:00:01Z"));
    assert_eq!(scheduled(&keeper), 1);
    let mut again = fixture.start();
    again.tick(at("2130-01-31T02:30:00Z"));
    assert_eq!(scheduled(&again), 0);
    again.tick(at("2130-02-01T02:00:00Z"));
    assert_eq!(scheduled(&again), 1, "the next one is another");
}

/// As the watcher of flags shows what is in the file.
fn follow_flag(keeper: &Keeper) {
    let global = look_at(&keeper.live.load_full().config.maintenance.flag).unwrap();
    keeper.shared.switch.store(State { global, ..State::default() });
}

#[test]
fn a_run_shows_when_it_began_and_how_long_it_took() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    follow_flag(&keeper);
    keeper.tick(at("2130-01-31T03:00:01Z"));
    let began = at("2130-01-31T03:00:00Z").as_second();
    let line = format!("flagstone_maintenance_last_run_timestamp_seconds{{window=\"nightly\"}} {began}\n");
    let scrape = keeper.shared.metrics.encode();
    assert!(scrape.contains(&line) && !scrape.contains("flagstone_maintenance_duration_seconds{"), "{scrape}");
    keeper.shared.switch.store(State::default());
    keeper.tick(at("2130-01-31T03:40:00Z"));
    let scrape = keeper.shared.metrics.encode();
    assert!(scrape.contains("flagstone_maintenance_duration_seconds{window=\"nightly\"} 2400"), "{scrape}");
    assert!(scrape.contains(&line), "{scrape}");
    // Another process knows when, and not how long.
    let mut again = fixture.start();
    again.tick(at("2130-01-31T05:00:00Z"));
    let scrape = again.shared.metrics.encode();
    assert!(scrape.contains(&line) && !scrape.contains("flagstone_maintenance_duration_seconds{"), "{scrape}");
}

#[test]
fn a_run_that_ends_by_itself_took_until_then_however_late_that_is_seen() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    follow_flag(&keeper);
    keeper.tick(at("2130-01-31T03:00:01Z"));
    // Somebody has given it less time.
    let shorter = Flag { until: Some(at("2130-01-31T03:30:00Z")), ..fixture.read().unwrap() };
    write_flag(&fixture.flag(), &shorter).unwrap();
    follow_flag(&keeper);
    keeper.tick(at("2130-01-31T03:00:02Z"));
    keeper.shared.switch.store(State::default());
    keeper.tick(at("2130-01-31T03:30:00.9Z"));
    let scrape = keeper.shared.metrics.encode();
    assert!(scrape.contains("flagstone_maintenance_duration_seconds{window=\"nightly\"} 1800.0\n"), "{scrape}");
}

#[test]
fn upcoming_windows_come_in_order() {
    let window = |name: &str, schedule: &str| Window {
        name: name.to_owned(),
        schedule: schedule.to_owned(),
        duration: Duration::from_secs(3600),
        timezone: "UTC".to_owned(),
        reason: String::new(),
    };
    let windows = [window("late", "0 5 * * *"), window("never", "0 0 30 2 *"), window("early", "0 3 * * *")];
    let upcoming = upcoming(&windows, at("2130-01-31T00:00:00Z"));
    let names: Vec<_> = upcoming.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["early", "late"]);
    assert_eq!(upcoming[0].at.end, at("2130-01-31T04:00:00Z"));
}

/// The wall clock may be set while all this runs.
#[test]
fn a_clock_that_jumps_neither_repeats_a_window_nor_loses_those_to_come() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T02:30:00Z"));
    assert_eq!(scheduled(&keeper), 1);
    keeper.tick(at("2130-01-31T03:00:00Z"));
    assert!(remove_flag(&fixture.flag()).unwrap());
    // Back before its start and into it again: it was ended by hand, and announced.
    for time in ["2130-01-31T02:15:00Z", "2130-01-31T02:59:59Z", "2130-01-31T03:00:00Z", "2130-01-31T03:59:59Z"] {
        keeper.tick(at(time));
        assert_eq!((fixture.read(), scheduled(&keeper)), (None, 1), "{time}");
    }
    // A year ahead, in the middle of a window: that one has begun.
    keeper.tick(at("2131-01-31T03:30:00Z"));
    assert_eq!(fixture.read().unwrap().until, Some(at("2131-01-31T04:00:00Z")));
    // And all the way back: the flag that says 2131 is what there is, until it is removed; the next night is on time.
    assert!(remove_flag(&fixture.flag()).unwrap());
    keeper.tick(at("2130-02-01T02:59:59Z"));
    assert_eq!(fixture.read(), None);
    keeper.tick(at("2130-02-01T03:00:00Z"));
    assert_eq!(fixture.read().unwrap().until, Some(at("2130-02-01T04:00:00Z")));
}

/// Puts a configuration into force that differs in its windows.
fn reload(keeper: &Keeper, windows: Vec<Window>) {
    let before = keeper.live.load_full();
    let maintenance = Maintenance { windows, ..before.config.maintenance.clone() };
    let config = Config { maintenance, ..(*before.config).clone() };
    keeper.live.store(Snapshot::build(config, Some(&*before), &keeper.shared).unwrap());
}

/// As [`reload`], with another duration of one of them.
fn lasting(keeper: &Keeper, name: &str, minutes: u64) {
    let mut windows = keeper.live.load_full().config.maintenance.windows.clone();
    let window = windows.iter_mut().find(|window| window.name == name).unwrap();
    window.duration = Duration::from_secs(60 * minutes);
    reload(keeper, windows);
}

#[test]
fn the_end_of_a_window_that_runs_follows_the_configuration() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    // What somebody has added is nothing of the window's.
    let told = Flag { message: Some("Tea time".to_owned()), ..fixture.read().unwrap() };
    write_flag(&fixture.flag(), &told).unwrap();
    for (now, minutes, end) in [
        ("2130-01-31T03:10:00Z", 120, "2130-01-31T05:00:00Z"),
        ("2130-01-31T03:20:00Z", 30, "2130-01-31T03:30:00Z"),
        // It is over then.
        ("2130-01-31T03:25:00Z", 20, "2130-01-31T03:20:00Z"),
    ] {
        lasting(&keeper, "nightly", minutes);
        keeper.tick(at(now));
        assert_eq!(fixture.read(), Some(Flag { until: Some(at(end)), ..told.clone() }), "{now}");
    }
}

#[test]
fn the_end_follows_over_a_restart_too() {
    let fixture = Fixture::new();
    fixture.start().tick(at("2130-01-31T03:00:00Z"));
    let mut again = fixture.start();
    lasting(&again, "nightly", 120);
    again.tick(at("2130-01-31T03:10:00Z"));
    assert_eq!(fixture.read().unwrap().until, Some(at("2130-01-31T05:00:00Z")));
}

#[test]
fn a_flag_that_is_no_longer_a_windows_or_has_gone_follows_no_configuration() {
    let changes: [fn(Flag) -> Option<Flag>; 3] = [
        |_| None,
        |own| Some(Flag { by: Some("cli (ops)".to_owned()), ..own }),
        |own| Some(Flag { until: Some(at("2130-01-31T03:45:00Z")), ..own }),
    ];
    for change in changes {
        let fixture = Fixture::new();
        let mut keeper = fixture.start();
        keeper.tick(at("2130-01-31T03:00:00Z"));
        let changed = change(fixture.read().unwrap());
        match &changed {
            Some(flag) => write_flag(&fixture.flag(), flag).unwrap(),
            None => assert!(remove_flag(&fixture.flag()).unwrap()),
        }
        for minutes in [120, 30] {
            lasting(&keeper, "nightly", minutes);
            keeper.tick(at("2130-01-31T03:10:00Z"));
            assert_eq!(fixture.read(), changed);
        }
        assert_eq!(told(&keeper, "Maintenance window waits"), 0);
    }
}

#[test]
fn a_window_that_becomes_the_longer_one_takes_over() {
    let second = "[[maintenance.window]]\nname = \"long\"\nschedule = \"30 3 * * *\"\nduration = \"2h\"\n";
    let fixture = Fixture { extra: second, ..Fixture::new() };
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    keeper.tick(at("2130-01-31T03:30:00Z"));
    for (minutes, by, end) in
        [(120, "window:long", "2130-01-31T05:30:00Z"), (180, "window:nightly", "2130-01-31T06:00:00Z")]
    {
        lasting(&keeper, "nightly", minutes);
        keeper.tick(at("2130-01-31T03:40:00Z"));
        assert_eq!((fixture.by().as_deref(), fixture.read().unwrap().until), (Some(by), Some(at(end))));
    }
}

#[test]
fn a_window_that_becomes_the_shorter_one_ends_none_of_the_others() {
    let second = "[[maintenance.window]]\nname = \"other\"\nschedule = \"30 3 * * *\"\nduration = \"20m\"\n";
    let fixture = Fixture { extra: second, ..Fixture::new() };
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    keeper.tick(at("2130-01-31T03:30:00Z"));
    assert_eq!(fixture.by().as_deref(), Some("window:nightly"));
    for (name, minutes, by, end) in [
        ("nightly", 40, "window:other", "2130-01-31T03:50:00Z"),
        ("nightly", 60, "window:nightly", "2130-01-31T04:00:00Z"),
        ("other", 60, "window:other", "2130-01-31T04:30:00Z"),
        ("other", 15, "window:nightly", "2130-01-31T04:00:00Z"),
    ] {
        lasting(&keeper, name, minutes);
        keeper.tick(at("2130-01-31T03:35:00Z"));
        let flag = fixture.read().unwrap();
        assert_eq!((flag.by.as_deref(), flag.until), (Some(by), Some(at(end))), "{name} {minutes}");
        assert_eq!(flag.started_at, Some(at("2130-01-31T03:00:00Z")), "maintenance went on");
    }
}

#[test]
fn a_window_that_an_operator_has_ended_does_not_go_on_in_place_of_another() {
    let second = "[[maintenance.window]]\nname = \"long\"\nschedule = \"30 3 * * *\"\nduration = \"2h\"\n";
    let fixture = Fixture { extra: second, ..Fixture::new() };
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    assert!(remove_flag(&fixture.flag()).unwrap());
    keeper.tick(at("2130-01-31T03:30:00Z"));
    lasting(&keeper, "long", 10);
    keeper.tick(at("2130-01-31T03:35:00Z"));
    let flag = fixture.read().unwrap();
    assert_eq!((flag.by.as_deref(), flag.until), (Some("window:long"), Some(at("2130-01-31T03:40:00Z"))));
}

#[test]
fn a_window_that_an_operator_has_ended_stays_so_when_it_is_taken_out_and_put_back() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    let windows = keeper.live.load_full().config.maintenance.windows.clone();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    assert!(remove_flag(&fixture.flag()).unwrap());
    reload(&keeper, vec![]);
    keeper.tick(at("2130-01-31T03:10:00Z"));
    reload(&keeper, windows);
    keeper.tick(at("2130-01-31T03:20:00Z"));
    assert_eq!(fixture.read(), None);
    reload(&keeper, vec![]);
    keeper.tick(at("2130-01-31T04:00:00Z"));
    assert!(keeper.memory.begun.is_empty(), "what is over and unknown is forgotten");
}

#[test]
fn a_window_that_is_taken_out_while_it_runs_has_no_figures_any_more() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    keeper.tick(at("2130-01-31T03:00:00Z"));
    let before = keeper.live.load_full();
    follow_flag(&keeper);
    keeper.tick(at("2130-01-31T03:00:01Z"));
    let maintenance = Maintenance { windows: vec![], ..before.config.maintenance.clone() };
    let without = Config { maintenance, ..(*before.config).clone() };
    keeper.live.store(Snapshot::build(without.clone(), Some(&*before), &keeper.shared).unwrap());
    keeper.shared.keep_metrics_of(&without);
    keeper.tick(at("2130-01-31T03:10:00Z"));
    let scrape = keeper.shared.metrics.encode();
    assert!(!scrape.contains("window=\"nightly\""), "{scrape}");
}

#[test]
fn what_was_begun_is_set_aside_where_it_cannot_be_read() {
    let fixture = Fixture::new();
    let file = fixture.folder.path().join("state/windows.toml");
    fixture.start();
    assert!(!file.exists());
    fs::write(&file, "[nightly]\nbegun = \"2130-").unwrap();
    fixture.start();
    assert!(!file.exists());
    assert!(fixture.folder.path().join("state/windows.unusable").exists());
    // What may be sound stays where it is. Of all that keeps a file from being read, this stops root too.
    std::os::unix::fs::symlink(&file, &file).unwrap();
    fixture.start();
    assert!(file.is_symlink());
}

#[test]
fn each_occurrence_that_cannot_begin_is_told_once() {
    let fixture = Fixture::new();
    let mut keeper = fixture.start();
    // Where the flag would go there can be none.
    fs::remove_dir_all(fixture.flag().parent().unwrap()).unwrap();
    fs::write(fixture.flag().parent().unwrap(), "").unwrap();
    let mut told = |time: &str| {
        let before = keeper.failed.get("nightly").copied();
        keeper.tick(at(time));
        keeper.failed.get("nightly").copied() != before
    };
    assert!(told("2130-01-31T03:00:00Z") && !told("2130-01-31T03:00:01Z"));
    assert!(told("2130-02-01T03:00:00Z"), "another night is another failure");
}
