use clap::Parser;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

struct Fixture {
    folder: TempDir,
    now: Zoned,
    windows: Vec<Window>,
}

impl Fixture {
    fn new() -> Self {
        let now = "2030-01-31T21:30:00+01:00[Europe/Berlin]".parse().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), now, windows: Vec::new() }
    }

    fn flag(&self) -> PathBuf {
        self.folder.path().join("state/maintenance.flag")
    }

    fn routes_dir(&self) -> PathBuf {
        self.folder.path().join("state/maintenance.d")
    }

    fn run(&self, words: &[&str]) -> Result<String, CliError> {
        let args = Cli::try_parse_from([&["maintenance"], words].concat()).expect("right use").args;
        let (flag, routes_dir) = (self.flag(), self.routes_dir());
        let (now, by) = (self.now.clone(), "cli (ops)".to_owned());
        let retry_after = Duration::from_secs(300);
        Place { flag: &flag, routes_dir: &routes_dir, retry_after, windows: &self.windows, routes_of: None, now, by }
            .run(&args)
    }

    fn read(&self) -> Flag {
        let (flag, warning) = Flag::parse(&std::fs::read(self.flag()).unwrap());
        assert_eq!(warning, None);
        flag
    }
}

#[test]
fn on_writes_what_was_said_and_by_whom() {
    let fixture = Fixture::new();
    let said = fixture
        .run(&[
            "on",
            "--reason",
            "Upgrade",
            "--for",
            "1h30m",
            "--read-only",
            "--grace",
            "30s",
            "--terminate",
            "--allow",
            "10.0.0.0/8",
            "--allow",
            "192.0.2.1",
        ])
        .unwrap();
    assert!(said.starts_with("maintenance is on for everything ("), "{said}");
    assert!(said.ends_with("\nread-only: GET, HEAD and OPTIONS pass\nexpected back 23:00 CET\n"), "{said}");
    let flag = fixture.read();
    assert_eq!(flag.reason.as_deref(), Some("Upgrade"));
    assert_eq!(flag.until, Some("2030-01-31T22:00:00Z".parse().unwrap()));
    assert_eq!(flag.started_at, Some(fixture.now.timestamp()));
    assert_eq!((flag.mode, flag.grace, flag.terminate), (Mode::ReadOnly, Some(Duration::from_secs(30)), true));
    assert_eq!(flag.allow.len(), 2);
    assert_eq!(flag.by.as_deref(), Some("cli (ops)"));
}

#[test]
fn durations_are_those_of_the_configuration_and_what_else_is_clear() {
    for (written, end) in [
        ("1d", "2030-02-01T20:30:00Z"),
        ("7d", "2030-02-07T20:30:00Z"),
        ("1.5h", "2030-01-31T22:00:00Z"),
        ("PT1H", "2030-01-31T21:30:00Z"),
    ] {
        let fixture = Fixture::new();
        fixture.run(&["on", "--for", written, "--grace", written]).unwrap();
        assert_eq!(fixture.read().until, Some(end.parse().unwrap()), "{written}");
    }
    let wrong = Cli::try_parse_from(["maintenance", "on", "--for", "90"]).err().expect("a number has no unit");
    assert!(wrong.to_string().contains("a duration needs a unit: write \"90s\" for seconds"), "{wrong}");
}

#[test]
fn an_end_is_never_earlier_than_was_said() {
    for (written, end) in
        [("500ms", "2030-01-31T20:30:02Z"), ("1s", "2030-01-31T20:30:02Z"), ("1200ms", "2030-01-31T20:30:03Z")]
    {
        let mut fixture = Fixture::new();
        fixture.now = fixture.now.saturating_add(Duration::from_millis(300));
        fixture.run(&["on", "--for", written]).unwrap();
        assert_eq!(fixture.read().until, Some(end.parse().unwrap()), "{written}");
    }
    let wrong = Cli::try_parse_from(["maintenance", "on", "--for", "0s"]).err().expect("that is no time");
    assert!(wrong.to_string().contains("is no time at all"), "{wrong}");
}

#[test]
fn an_hour_is_the_next_one_on_the_local_clock() {
    let fixture = Fixture::new();
    for (text, end) in [
        ("22:00", "2030-01-31T21:00:00Z"),
        ("21:30", "2030-02-01T20:30:00Z"),
        ("6:05", "2030-02-01T05:05:00Z"),
        ("2030-01-31T22:00:00Z", "2030-01-31T22:00:00Z"),
        ("2030-01-31T22:00:00+01:00", "2030-01-31T21:00:00Z"),
    ] {
        fixture.run(&["on", "--until", text]).unwrap();
        assert_eq!(fixture.read().until, Some(end.parse().unwrap()), "{text}");
    }
}

#[test]
fn an_end_that_is_no_time_or_has_passed_writes_nothing() {
    let fixture = Fixture::new();
    for text in ["soon", "25:00", "22:0", "2030-01-31T21:00:00", "+1:00"] {
        assert!(matches!(fixture.run(&["on", "--until", text]), Err(CliError::NotATime(_))), "{text}");
    }
    let past = fixture.run(&["on", "--until", "2030-01-31T20:30:00Z"]).unwrap_err();
    assert_eq!(past.exit_code(), 2);
    assert!(!fixture.flag().exists());
}

#[test]
fn wrong_use_is_refused_before_anything_is_done() {
    for words in [
        &["on", "--until", "22:00", "--for", "1h"][..],
        &["on", "--for", "-5m"],
        &["on", "--allow", "10.0.0.0/99"],
        &["on", "--route", "../x"],
        &["off", "--route", ".."],
        &["maybe"],
        &[],
    ] {
        assert!(Cli::try_parse_from([&["maintenance"], words].concat()).is_err(), "{words:?}");
    }
}

#[test]
fn routes_have_their_own_files() {
    let fixture = Fixture::new();
    fixture.run(&["on", "--route", "api", "--route", "web"]).unwrap();
    assert!(!fixture.flag().exists());
    assert_eq!(
        fixture.run(&["off"]).unwrap(),
        "maintenance was not on for everything\nstill on for api, web (end it with --route)\n"
    );
    assert_eq!(fixture.run(&["off", "--route", "api"]).unwrap(), "maintenance is off for route api\n");
    assert!(fixture.run(&["status"]).unwrap().starts_with("maintenance is on for route web\n"));
}

#[test]
fn of_several_routes_those_are_told_that_were_done_before_one_failed() {
    let fixture = Fixture::new();
    // No file can take its place, nor is it one to remove.
    std::fs::create_dir_all(fixture.routes_dir().join("web.flag/full")).unwrap();
    let several = |what| fixture.run(&[what, "--route", "api", "--route", "web", "--route", "shop"]).unwrap_err();
    for (what, done) in [("on", "maintenance is on for route api ("), ("off", "maintenance is off for route api\n")] {
        let error = several(what);
        assert!(error.done().starts_with(done) && error.done().lines().count() == 1, "{error:?}");
        let said = error.to_string();
        assert!(
            said.contains("web.flag: ") && said.ends_with("; nothing was done for route web, route shop"),
            "{said}"
        );
        assert_eq!(error.exit_code(), 1);
    }
    assert!(!fixture.routes_dir().join("shop.flag").exists());
    let one = fixture.run(&["on", "--route", "web"]).unwrap_err();
    assert!((one.done(), one.to_string().contains("nothing was done")) == ("", false), "{one}");
}

#[test]
fn what_is_done_is_told_though_the_rest_cannot_be_seen() {
    let fixture = Fixture::new();
    fixture.run(&["on"]).unwrap();
    // A link to itself.
    std::os::unix::fs::symlink(fixture.routes_dir(), fixture.routes_dir()).unwrap();
    let said = fixture.run(&["off"]).unwrap();
    assert!(
        said.starts_with("maintenance is off for everything\nwhether it is on for routes of their own cannot"),
        "{said}"
    );
    assert!(!fixture.flag().exists());
}

#[test]
fn on_again_changes_the_flag_and_not_when_it_began() {
    let mut fixture = Fixture::new();
    fixture.run(&["on"]).unwrap();
    let begun = fixture.now.timestamp();
    fixture.now = fixture.now.checked_add(Duration::from_secs(60)).unwrap();
    fixture.run(&["on", "--reason", "Longer"]).unwrap();
    assert_eq!(fixture.read().started_at, Some(begun));
    assert_eq!(fixture.read().reason.as_deref(), Some("Longer"));
}

#[test]
fn status_follows_the_file_whoever_made_it() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&["status"]).unwrap(), "maintenance is off\n");
    std::fs::create_dir_all(fixture.flag().parent().unwrap()).unwrap();
    std::fs::write(fixture.flag(), "").unwrap();
    assert!(fixture.run(&["status"]).unwrap().contains("not known; clients retry after 300 s"));
    fixture.run(&["off"]).unwrap();
    fixture.run(&["on", "--for", "30m", "--reason", "Upgrade"]).unwrap();
    let status = fixture.run(&["status"]).unwrap();
    for part in ["Upgrade", "since       21:30 CET", "until       22:00 CET (in 30m)", "cli (ops)"] {
        assert!(status.contains(part), "{part:?} in {status}");
    }
    assert_eq!(fixture.run(&["off"]).unwrap(), "maintenance is off for everything\n");
}

#[test]
fn json_has_the_shape_of_the_admin_sides_status() {
    let fixture = Fixture::new();
    fixture.run(&["on", "--for", "30m", "--reason", "Upgrade"]).unwrap();
    fixture.run(&["on", "--route", "api"]).unwrap();
    let status: serde_json::Value = serde_json::from_str(&fixture.run(&["status", "--json"]).unwrap()).unwrap();
    assert_eq!(status["is_active"], true);
    assert_eq!(status["mode"], "full");
    assert_eq!(status["started_at"], "2030-01-31T20:30:00Z");
    assert_eq!(status["estimated_completion"], "2030-01-31T21:00:00Z");
    assert_eq!(status["routes"], serde_json::json!(["api"]));
    assert!(status["blocked_requests"].is_null());
    assert_eq!(status["upcoming"], serde_json::json!([]));
}

#[test]
fn status_lists_what_is_planned() {
    let window = Window {
        name: "nightly".to_owned(),
        schedule: "0 3 * * *".to_owned(),
        duration: Duration::from_secs(3600),
        timezone: "Europe/Berlin".to_owned(),
        reason: "Backup".to_owned(),
    };
    let fixture = Fixture { windows: vec![window], ..Fixture::new() };
    let json: serde_json::Value = serde_json::from_str(&fixture.run(&["status", "--json"]).unwrap()).unwrap();
    let planned = serde_json::json!([{
        "name": "nightly",
        "start": "2030-02-01T02:00:00Z",
        "end": "2030-02-01T03:00:00Z",
        "reason": "Backup",
    }]);
    assert_eq!(json["upcoming"], planned);
    let text = fixture.run(&["status"]).unwrap();
    assert_eq!(text, "maintenance is off\nplanned: nightly, 2030-02-01 03:00 CET, Backup\n");
}

#[test]
fn a_full_disk_is_told_with_what_still_works() {
    let write = |kind: io::ErrorKind| CliError::Write { path: "/run/f.flag".into(), source: kind.into() }.to_string();
    let full = write(io::ErrorKind::StorageFull);
    assert!(full.ends_with("; an empty flag says the same without a reason: touch /run/f.flag"), "{full}");
    assert_eq!(write(io::ErrorKind::PermissionDenied), "cannot write /run/f.flag: permission denied");
}

#[test]
fn status_tells_what_it_covers_and_rounds_what_is_left() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.flag().parent().unwrap()).unwrap();
    for (flag, first) in [
        ("", "maintenance is on for everything\n"),
        ("routes = [\"a\", \"b\"]", "maintenance is on for a part of the requests\n"),
        ("paths = [\"/a\"]", "maintenance is on for a part of the requests\n"),
    ] {
        std::fs::write(fixture.flag(), flag).unwrap();
        let said = fixture.run(&["status"]).unwrap();
        assert!(said.starts_with(first), "{flag}: {said}");
    }
    std::fs::write(fixture.flag(), "until = \"2030-01-31T20:30:03.279498489Z\"").unwrap();
    let said = fixture.run(&["status"]).unwrap();
    assert!(said.contains("(in 3s)"), "{said}");
    std::fs::write(fixture.flag(), "until = \"2030-02-04T15:30:00Z\"").unwrap();
    let said = fixture.run(&["status"]).unwrap();
    assert!(said.contains("(in 3d 19h)"), "{said}");
}

#[test]
fn status_tells_what_becomes_of_what_is_in_flight() {
    let fixture = Fixture::new();
    for (on, line) in [
        (&["on", "--terminate"][..], Some("  in flight   cut at once\n")),
        (&["on", "--terminate", "--grace", "90s"], Some("  in flight   cut 1m 30s after it began\n")),
        (&["on", "--grace", "90s"], None),
    ] {
        fixture.run(on).unwrap();
        let said = fixture.run(&["status"]).unwrap();
        assert_eq!(
            said.lines().find(|line| line.starts_with("  in flight")).map(|found| format!("{found}\n")).as_deref(),
            line,
            "{said}"
        );
    }
}
