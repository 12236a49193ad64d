use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::policy::maintenance::Mode;

struct Fixture {
    folder: TempDir,
    switch: Arc<Switch>,
    told: Arc<Mutex<Vec<String>>>,
    watcher: Option<Watcher>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, switch: Arc::default(), told: Arc::default(), watcher: None }
    }

    fn started() -> Self {
        let mut fixture = Self::new();
        fixture.start();
        fixture
    }

    fn start(&mut self) {
        let told = Arc::clone(&self.told);
        let observer = move |change| {
            told.lock().push(match change {
                Change::Activated(active) => format!("on {}", active.scope),
                Change::Changed(active) => format!("changed {}", active.scope),
                Change::Deactivated(active) => format!("off {}", active.scope),
                Change::Warning { scope, text } => format!("warning {scope}: {text}"),
            });
        };
        let settings = Settings { flag: self.flag(), routes_dir: self.routes_dir() };
        self.watcher = Some(follow(settings, Arc::clone(&self.switch), observer).unwrap());
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn flag(&self) -> PathBuf {
        self.state_dir().join("maintenance.flag")
    }

    fn routes_dir(&self) -> PathBuf {
        self.state_dir().join("maintenance.d")
    }

    fn write(&self, text: &str) {
        fs::create_dir_all(self.state_dir()).unwrap();
        fs::write(self.flag(), text).unwrap();
    }

    fn is_on(&self) -> bool {
        self.switch.load().is_some_and(|state| state.global.is_some())
    }

    fn reason(&self) -> Option<String> {
        self.switch.load()?.global.as_ref()?.flag.reason.clone()
    }

    fn warnings(&self) -> usize {
        self.told.lock().iter().filter(|told| told.starts_with("warning")).count()
    }

    fn eventually(&self, fact: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !fact(self) {
            assert!(Instant::now() < deadline, "told: {:?}", self.told.lock());
            thread::yield_now();
        }
    }
}

#[test]
fn the_first_look_is_over_when_start_returns() {
    let mut fixture = Fixture::new();
    fixture.write("reason = \"x\"");
    fixture.start();
    assert_eq!(fixture.reason().as_deref(), Some("x"));
    assert_eq!(*fixture.told.lock(), ["on global"]);
}

#[test]
fn a_flag_is_followed_as_it_comes_changes_and_goes() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.state_dir()).unwrap();
    let fixture = {
        let mut fixture = fixture;
        fixture.start();
        fixture
    };
    assert!(!fixture.is_on());
    write_flag(&fixture.flag(), &Flag::default()).unwrap();
    fixture.eventually(Fixture::is_on);
    write_flag(&fixture.flag(), &Flag { reason: Some("b".to_owned()), ..Flag::default() }).unwrap();
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("b"));
    assert!(remove_flag(&fixture.flag()).unwrap());
    assert!(!remove_flag(&fixture.flag()).unwrap());
    fixture.eventually(|fixture| fixture.switch.load().is_none());
    fixture.eventually(|fixture| *fixture.told.lock() == ["on global", "changed global", "off global"]);
}

#[test]
fn events_are_much_faster_than_the_poll() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.state_dir()).unwrap();
    fixture.start();
    // The best of a few: the machine that runs this may be busy.
    let fastest = (0..5).map(|_| {
        let begun = Instant::now();
        write_flag(&fixture.flag(), &Flag::default()).unwrap();
        fixture.eventually(Fixture::is_on);
        let took = begun.elapsed();
        remove_flag(&fixture.flag()).unwrap();
        fixture.eventually(|fixture| !fixture.is_on());
        took
    });
    assert!(fastest.min().unwrap() < Duration::from_millis(200));
}

#[test]
fn without_events_the_poll_finds_every_change() {
    let mut fixture = Fixture::new();
    let settings = Settings { flag: fixture.flag(), routes_dir: fixture.routes_dir() };
    let follower = Follower::new(settings, Arc::clone(&fixture.switch), Folders::deaf(), |_| ());
    fixture.watcher = Some(follower.start(Arc::default()).unwrap());
    // Within a second; the best of a few, as above.
    let fastest = (0..3).map(|round| {
        let begun = Instant::now();
        let reason = format!("round {round}");
        fixture.write(&format!("reason = \"{reason}\""));
        fixture.eventually(|fixture| fixture.reason().as_ref() == Some(&reason));
        begun.elapsed()
    });
    assert!(fastest.min().unwrap() < Duration::from_secs(1));
    fixture.write("reason = \"a\"");
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("a"));
    // As long as it was and in the same moment, for all that a coarse clock shows.
    fixture.write("reason = \"b\"");
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("b"));
    fs::remove_dir_all(fixture.state_dir()).unwrap();
    fixture.eventually(|fixture| !fixture.is_on());
}

#[test]
fn a_folder_may_appear_go_and_come_back() {
    let fixture = Fixture::started();
    for round in 0..3 {
        fixture.write(&format!("reason = \"{round}\""));
        fixture.eventually(|fixture| fixture.reason() == Some(round.to_string()));
        fs::remove_dir_all(fixture.state_dir()).unwrap();
        fixture.eventually(|fixture| !fixture.is_on());
    }
}

#[test]
fn each_route_has_its_own_flag() {
    let fixture = Fixture::started();
    fs::create_dir_all(fixture.routes_dir()).unwrap();
    fs::write(fixture.routes_dir().join("api.flag"), "reason = \"x\"\nroutes = [\"web\"]").unwrap();
    fs::write(fixture.routes_dir().join("notes.txt"), "").unwrap();
    fs::write(fixture.routes_dir().join(".api.flag.1.0"), "").unwrap();
    let has = |fixture: &Fixture| fixture.switch.load().is_some_and(|state| state.routes.contains_key("api"));
    fixture.eventually(|fixture| has(fixture) && fixture.warnings() == 1);
    let state = fixture.switch.load().unwrap();
    assert!(state.global.is_none());
    assert_eq!(state.routes.len(), 1);
    drop(state);
    remove_flag(&fixture.routes_dir().join("api.flag")).unwrap();
    fixture.eventually(|fixture| fixture.switch.load().is_none());
}

#[test]
fn each_text_that_is_no_flags_is_warned_of_once() {
    let mut fixture = Fixture::new();
    fixture.write("Back at noon");
    fixture.start();
    for (text, warnings) in [("Back at noon", 1), ("{\"reason\": 1}", 2), ("Back at noon", 3)] {
        regular_file::replace(&fixture.flag(), text.as_bytes()).unwrap();
        let message = |fixture: &Fixture| fixture.switch.load()?.global.as_ref()?.flag.message.clone();
        fixture.eventually(|fixture| message(fixture).as_deref() == Some(text) && fixture.warnings() >= warnings);
        assert_eq!(fixture.warnings(), warnings, "{text}");
    }
}

#[test]
fn a_folder_at_the_flags_path_is_on_with_one_warning() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.flag()).unwrap();
    fixture.start();
    assert!(fixture.is_on());
    assert_eq!(fixture.warnings(), 1);
    assert!(remove_flag(&fixture.flag()).unwrap());
    fixture.eventually(|fixture| !fixture.is_on());
    assert_eq!(fixture.warnings(), 1);
}

#[test]
fn a_fifo_is_on_and_blocks_nobody() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.state_dir()).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, fixture.flag(), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    fixture.start();
    assert!(fixture.is_on());
    assert_eq!(fixture.warnings(), 1);
    fixture.watcher = None;
}

#[test]
fn a_dangling_link_is_on_and_its_target_is_read_when_it_comes() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.state_dir()).unwrap();
    let target = fixture.folder.path().join("target");
    symlink(&target, fixture.flag()).unwrap();
    fixture.start();
    assert!(fixture.is_on());
    assert_eq!(fixture.warnings(), 1);
    fs::write(&target, "reason = \"here\"").unwrap();
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("here"));
    fs::remove_file(&target).unwrap();
    assert_eq!(fixture.reason().as_deref(), Some("here"), "a link whose target went keeps what was read");
    fs::remove_file(fixture.flag()).unwrap();
    fixture.eventually(|fixture| !fixture.is_on());
}

#[test]
fn a_file_that_cannot_be_read_is_on_with_defaults() {
    let mut fixture = Fixture::new();
    fixture.write("reason = \"secret\"");
    fs::set_permissions(fixture.flag(), fs::Permissions::from_mode(0o000)).unwrap();
    let readable_all_the_same = fs::read(fixture.flag()).is_ok(); // by root
    fixture.start();
    assert!(fixture.is_on());
    assert_eq!(fixture.reason().is_some(), readable_all_the_same);
}

#[test]
fn while_nobody_can_tell_everything_stays_as_it_was() {
    let mut fixture = Fixture::new();
    let real = fixture.folder.path().join("real");
    fs::create_dir_all(&real).unwrap();
    fs::write(real.join("maintenance.flag"), "reason = \"a\"").unwrap();
    symlink("real", fixture.state_dir()).unwrap();
    fixture.start();
    // A link to itself: neither there nor absent.
    let link = fixture.folder.path().join("link");
    symlink("state", &link).unwrap();
    fs::rename(&link, fixture.state_dir()).unwrap();
    fixture.eventually(|fixture| fixture.warnings() == 1);
    assert_eq!(fixture.reason().as_deref(), Some("a"));
    fs::remove_file(fixture.state_dir()).unwrap();
    fixture.eventually(|fixture| !fixture.is_on());
    assert_eq!(fixture.warnings(), 1);
}

#[test]
fn an_end_that_cannot_be_carried_out_is_an_end_all_the_same() {
    let mut fixture = Fixture::new();
    // There is no longer path to move it to; an unwritable folder would not stop root.
    let mut path = fixture.folder.path().to_owned();
    while let left @ 1.. = 4090_usize.saturating_sub(path.as_os_str().len()) {
        path.push("x".repeat(left.min(200)));
    }
    fs::create_dir_all(&path).unwrap();
    path.push("f");
    fs::write(&path, "auto_end = true\nuntil = 1970-01-01T00:00:00Z").unwrap();
    let Look::Present(found) = read::look(&path) else { panic!("it is there") };
    let settings = Settings { flag: path.clone(), routes_dir: fixture.routes_dir() };
    let (folders, _) = Folders::new(&Arc::default(), is_change);
    let follower = Follower::new(settings, Arc::clone(&fixture.switch), folders, |_| ());
    let mut round = Round::default();
    let before = fixture.switch.activate(Scope::Global, found.flag.clone(), found.modified);
    let held = follower.settle(&Scope::Global, Look::Present(found), path.clone(), None, &mut round);
    assert!(matches!(held, Ok(None)));
    assert!(round.warnings[&Scope::Global].contains("cannot be removed"), "{:?}", round.warnings);
    // As a link whose target is gone, too, and at the looks after that.
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    let mut follower = follower;
    for before in [Some(&before), None] {
        let found = Found { flag: Flag::default(), modified: Timestamp::now(), is_empty: false, warning: None };
        let mut round = Round::default();
        let held = follower.settle(&Scope::Global, Look::Dangling(found), path.clone(), before, &mut round);
        assert!(matches!(held, Ok(None)));
        assert!(round.warnings[&Scope::Global].contains("cannot be removed"), "{:?}", round.warnings);
        follower.ended = round.ended;
    }
    fixture.watcher = None;
}

/// The steps of `echo … > flag`, one for each pause.
#[test]
fn a_flag_that_is_being_written_is_read_when_it_has_its_content() {
    let fixture = Fixture::new();
    fixture.write("");
    let path = fixture.flag();
    let active = |flag: Flag| Switch::default().activate(Scope::Global, flag, Timestamp::UNIX_EPOCH);
    let scoped = active(Flag { mode: Mode::ReadOnly, ..Flag::default() });
    let bare = active(Flag::default());
    let look = |before: Option<&Arc<Active>>, written_after: u32| {
        fs::write(&path, "").unwrap();
        let mut pauses = 0;
        let mut settling = Settling {
            looks_left: SETTLE_LOOKS,
            pause: || {
                pauses += 1;
                if pauses == written_after {
                    fs::write(&path, "mode = \"read_only\"").unwrap();
                }
            },
        };
        match settling.look(read::look(&path), &path, before) {
            Look::Present(found) => (found.flag.mode, pauses),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(look(None, 1), (Mode::ReadOnly, 1));
    assert_eq!(look(Some(&scoped), 2), (Mode::ReadOnly, 2));
    assert_eq!(look(None, u32::MAX), (Mode::Full, SETTLE_LOOKS), "one that stays empty is a flag like any other");
    assert_eq!(look(Some(&bare), 1), (Mode::Full, 0), "nothing new is nothing to wait for");
    let long_ago = std::time::SystemTime::now() - JUST_WRITTEN * 2;
    fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    assert!(!may_be_about_to_be_written(&read::look(&path)));
    assert!(!may_be_about_to_be_written(&Look::Absent));
}

#[test]
fn a_huge_file_is_read_up_to_its_bound() {
    let mut fixture = Fixture::new();
    fixture.write("");
    fs::File::options().write(true).open(fixture.flag()).unwrap().set_len(1 << 40).unwrap();
    fixture.start();
    assert!(fixture.is_on());
    assert_eq!(fixture.warnings(), 1);
}

/// As the kubelet writes a ConfigMap: files in a folder of their own, `..data` a link to it that is swapped.
#[test]
fn a_config_map_is_followed_through_its_swapped_link() {
    let mut fixture = Fixture::new();
    let folder = fixture.state_dir();
    let publish = |generation: &str, text: &str| {
        let data = folder.join(generation);
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("maintenance.flag"), text).unwrap();
        symlink(Path::new(generation), folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..1", "reason = \"one\"");
    symlink("..data/maintenance.flag", fixture.flag()).unwrap();
    fixture.start();
    assert_eq!(fixture.reason().as_deref(), Some("one"));
    publish("..2", "reason = \"two\"");
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("two"));
    fs::remove_dir_all(folder.join("..1")).unwrap();
    fs::remove_file(fixture.flag()).unwrap();
    fixture.eventually(|fixture| !fixture.is_on());
    assert_eq!(fixture.warnings(), 0);
}

#[test]
fn after_hundreds_of_toggles_the_switch_is_as_the_file() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.state_dir()).unwrap();
    fixture.start();
    for last in [true, false] {
        for round in 0..500 {
            fixture.write(&format!("reason = \"{round}\""));
            fs::remove_file(fixture.flag()).unwrap();
        }
        if last {
            fixture.write("reason = \"last\"");
        }
        fixture.eventually(|fixture| fixture.reason().as_deref() == last.then_some("last"));
        fixture.eventually(|fixture| fixture.is_on() == last);
    }
    // The switch is told before the observer.
    let last_told = |fixture: &Fixture| fixture.told.lock().last().cloned();
    fixture.eventually(|fixture| last_told(fixture).as_deref() == Some("off global"));
    // Each beginning was followed by its end.
    let told = fixture.told.lock();
    let turns: Vec<_> = told.iter().filter(|told| *told == "on global" || *told == "off global").collect();
    assert!(turns.chunks(2).all(|pair| pair[0] == "on global" && pair[1] == "off global"), "{turns:?}");
}

#[test]
fn auto_end_removes_the_file_at_its_time() {
    let mut fixture = Fixture::new();
    let until = Timestamp::now() + jiff::SignedDuration::from_millis(300);
    fixture.write(&format!("auto_end = true\nuntil = \"{until}\""));
    fixture.start();
    fixture.eventually(|fixture| !fixture.is_on() && !fixture.flag().exists());
    assert!(Timestamp::now() >= until);
}

/// Many end at once, and take a while to remove.
#[test]
fn a_flag_that_follows_one_as_it_ends_stays() {
    let fixture = Fixture::started();
    let flag = |name: &str| fixture.routes_dir().join(format!("{name}.flag"));
    let names: Vec<_> = (0..40).map(|index| format!("r{index}")).collect();
    let until = Timestamp::now() + Duration::from_millis(500);
    for name in &names {
        write_flag(&flag(name), &Flag { until: Some(until), auto_end: true, ..Flag::default() }).unwrap();
    }
    let next = fixture.state_dir().join("next");
    fs::write(&next, "reason = \"longer\"").unwrap();
    fixture.eventually(|_| names.iter().any(|name| !flag(name).exists()));
    let left = names.iter().rev().find(|name| flag(name).exists()).unwrap_or(&names[0]);
    fs::rename(&next, flag(left)).unwrap();
    fixture.eventually(|_| names.iter().all(|name| name == left || !flag(name).exists()));
    fixture.eventually(|fixture| fixture.switch.load().is_some_and(|state| state.routes.len() == 1));
    assert!(flag(left).exists());
}

#[test]
fn a_link_whose_target_went_ends_at_its_time() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.state_dir()).unwrap();
    let target = fixture.folder.path().join("target");
    let until = Timestamp::now() + jiff::SignedDuration::from_millis(700);
    fs::write(&target, format!("auto_end = true\nuntil = \"{until}\"")).unwrap();
    symlink(&target, fixture.flag()).unwrap();
    fixture.start();
    assert!(fixture.is_on());
    fs::remove_file(&target).unwrap();
    fixture.eventually(|fixture| !fixture.is_on() && fs::symlink_metadata(fixture.flag()).is_err());
    assert!(Timestamp::now() >= until);
    assert_eq!(fixture.warnings(), 0);
}

#[test]
fn an_end_that_passes_without_auto_end_ends_nothing() {
    let mut fixture = Fixture::new();
    fixture.write("until = \"2001-01-01T00:00:00Z\"");
    fixture.start();
    assert!(fixture.is_on());
}

#[test]
fn writing_again_keeps_when_it_began_and_what_was_counted() {
    let fixture = Fixture::started();
    fixture.write("reason = \"a\"");
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("a"));
    let since = fixture.switch.load().unwrap().global.as_ref().unwrap().since;
    fixture.write("reason = \"b\"");
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("b"));
    assert_eq!(fixture.switch.load().unwrap().global.as_ref().unwrap().since, since);
}

#[test]
fn when_it_began_is_not_remembered_from_what_the_flag_no_longer_says() {
    let fixture = Fixture::started();
    fixture.write("reason = \"a\"\nstarted_at = \"2020-01-01T00:00:00Z\"");
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("a"));
    fixture.write("reason = \"b\"");
    fixture.eventually(|fixture| fixture.reason().as_deref() == Some("b"));
    let since = fixture.switch.load().unwrap().global.as_ref().unwrap().since;
    assert_eq!(since, look_at(&fixture.flag()).unwrap().unwrap().since, "as for who looks at the file");
}

#[test]
fn a_watcher_that_is_started_again_tells_nothing_twice() {
    let mut fixture = Fixture::new();
    fixture.write("reason = \"a\"");
    fixture.start();
    fixture.watcher = None;
    fixture.start();
    assert_eq!(*fixture.told.lock(), ["on global"]);
}

#[test]
fn no_temporary_file_stays() {
    let fixture = Fixture::new();
    write_flag(&fixture.flag(), &Flag::default()).unwrap();
    let busy = fixture.routes_dir().join("x.flag");
    fs::create_dir_all(&busy).unwrap();
    assert!(write_flag(&busy, &Flag::default()).is_err());
    let names = |folder: PathBuf| fs::read_dir(folder).unwrap().count();
    assert_eq!(names(fixture.state_dir()), 2);
    assert_eq!(names(fixture.routes_dir()), 1);
}
