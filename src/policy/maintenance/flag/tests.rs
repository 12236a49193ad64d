use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Flag {
    let (flag, warning) = Flag::parse(text.as_bytes());
    assert_eq!(warning, None, "{text}");
    flag
}

fn warned(text: &str) -> (Flag, String) {
    let (flag, warning) = Flag::parse(text.as_bytes());
    (flag, warning.expect("a warning").0)
}

#[test]
fn a_flag_that_is_understood_in_part_cuts_nothing() {
    let doubtful = [
        "grce = \"5m\"",
        "mode = \"ful\"",
        "routes = [\"api\", 5]",
        "hosts = [\"a b\"]",
        "paths = 7",
        "allow = [\"10.0.0.0/33\"]",
    ];
    for line in doubtful {
        let (flag, warning) = warned(&format!("terminate = true\n{line}"));
        assert!(!flag.terminate, "{line}");
        assert!(warning.contains("terminate: "), "{warning}");
    }
    for line in ["reason = 5", "started_at = \"noon\"", "auto_end = true", "by = []"] {
        assert!(warned(&format!("terminate = true\n{line}")).0.terminate, "what is cut is not in doubt: {line}");
    }
}

#[test]
fn nothing_blanks_and_comments_are_all_defaults() {
    for text in ["", " \n\t\n", "\u{feff}", "# just a note\n"] {
        assert_eq!(parsed(text), Flag::default());
    }
}

#[test]
fn every_key_is_read() {
    let flag = parsed(
        r#"
        reason = "Moving house"
        message = "Two\nlines"
        started_at = "2030-01-01T00:00:00Z"
        until = 2030-01-01T02:00:00+01:00
        mode = "read_only"
        routes = ["api"]
        hosts = ["example.com", "*.example.org"]
        paths = ["/api", "=/exact"]
        allow = ["10.0.0.0/8", "2001:db8::1"]
        grace = "1m30s"
        terminate = true
        auto_end = true
        by = "ops"
        "#,
    );
    assert_eq!(flag.reason.as_deref(), Some("Moving house"));
    assert_eq!(flag.message.as_deref(), Some("Two\nlines"));
    assert_eq!(flag.started_at, Some("2030-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(flag.until, Some("2030-01-01T01:00:00Z".parse().unwrap()));
    assert_eq!(flag.mode, Mode::ReadOnly);
    assert_eq!(flag.routes, ["api"]);
    assert_eq!(flag.hosts.len(), 2);
    assert_eq!(flag.paths.len(), 2);
    assert_eq!(flag.allow[1].to_string(), "2001:db8::1/128");
    assert_eq!(flag.grace, Some(Duration::from_secs(90)));
    assert!(flag.terminate && flag.auto_end);
    assert_eq!(flag.by.as_deref(), Some("ops"));
}

#[test]
fn a_second_mistake_is_another_warning() {
    for (mistake, told) in [
        ("mode = \"ro\"", "mode: \"ro\" is none of full, read_only, emergency"),
        ("mode = \"readonly\"", "mode: \"readonly\" is none of full, read_only, emergency"),
        ("terminate = \"yes\"", "terminate: \"yes\" is neither true nor false"),
        ("reason = 7", "reason: 7 is not text"),
        ("grace = -7", "grace: -7 is no duration such as \"30s\""),
        ("grace = \"90\"", "grace: \"90\": a duration needs a unit: write \"90s\" for seconds"),
        ("routes = 7", "routes: 7 is not a list of texts"),
        ("until = 7", "until: 7 is not an RFC 3339 time such as 2030-01-31T22:00:00Z"),
    ] {
        assert_eq!(warned(mistake).1, told);
    }
    let long = format!("mode = \"{}\"", "x".repeat(10_000));
    assert!(warned(&long).1.len() < 200, "what is told is short");
}

#[test]
fn graces_are_written_as_durations() {
    for (millis, written) in [(0, "0s"), (250, "250ms"), (5000, "5s"), (1500, "1s500ms"), (5_400_000, "1h30m")] {
        let flag = Flag { grace: Some(Duration::from_millis(millis)), ..Flag::default() };
        assert_eq!(flag.to_toml(), format!("grace = \"{written}\"\n"));
    }
}

#[test]
fn grace_may_be_seconds_and_a_list_one_text() {
    let flag = parsed("grace = 30\nallow = \"192.0.2.1\"");
    assert_eq!(flag.grace, Some(Duration::from_secs(30)));
    assert_eq!(flag.allow.len(), 1);
}

#[test]
fn a_grace_is_written_as_in_the_configuration_or_more_freely() {
    for (grace, seconds) in [
        ("1d", 86_400),
        ("7d12h", 648_000),
        (" 90s ", 90),
        ("1.5h", 5400),
        ("1 hour", 3600),
        ("PT1H", 3600),
        ("3650d", 315_360_000),
    ] {
        assert_eq!(parsed(&format!("grace = \"{grace}\"")).grace, Some(Duration::from_secs(seconds)), "{grace}");
    }
    assert_eq!(parsed("grace = \"7us\"").grace, Some(Duration::from_micros(7)));
    for (grace, remedy) in [
        ("\"90\"", "a duration needs a unit: write \"90s\" for seconds"),
        ("\"1w\"", "not a duration: write whole numbers with units"),
        ("\"3651d\"", "a duration is at most 10 years"),
        ("\"90000h\"", "a duration is at most 10 years"),
        ("\"90000 hours\"", ""),
        ("315360001", "a duration is at most 10 years"),
    ] {
        let (flag, warning) = warned(&format!("grace = {grace}"));
        assert!(flag.grace.is_none() && warning.starts_with(&format!("grace: {grace}: {remedy}")), "{warning}");
    }
}

#[test]
fn text_that_is_no_toml_is_the_message() {
    let (flag, warning) = warned("Back at noon.\nPromise!\n");
    assert_eq!(flag.message.as_deref(), Some("Back at noon.\nPromise!"));
    assert!(warning.contains("message"), "{warning}");
}

#[test]
fn toml_without_one_key_of_a_flag_is_the_message() {
    let (flag, _) = warned("downtime = 5");
    assert_eq!(flag.message.as_deref(), Some("downtime = 5"));
}

#[test]
fn one_bad_value_keeps_the_good_ones() {
    let (flag, warning) = warned("reason = \"ok\"\nuntil = \"soon\"\ncolour = 1\nallow = [\"10.0.0.0/8\", \"x\", 7]");
    assert_eq!(flag.reason.as_deref(), Some("ok"));
    assert_eq!(flag.until, None);
    assert_eq!(flag.allow.len(), 1);
    for part in ["until", "colour", "\"x\"", "7"] {
        assert!(warning.contains(part), "{part} in {warning}");
    }
}

#[test]
fn times_without_an_offset_and_negative_graces_are_refused() {
    assert_eq!(warned("until = 2030-01-01T00:00:00").0.until, None);
    assert_eq!(warned("until = 9999-12-31T23:59:59").0.until, None);
    for text in ["9999-12-31T23:59:59Z", "\"9999-12-31T23:59:59+01:00\""] {
        let (flag, warning) = Flag::parse(format!("until = {text}").as_bytes());
        assert_eq!((flag.until, warning), (Some(Timestamp::MAX), None), "for ever");
    }
    assert_eq!(warned("grace = -1").0.grace, None);
    assert_eq!(warned("grace = \"-5s\"").0.grace, None);
}

#[test]
fn a_grace_that_cannot_be_used_cuts_nothing() {
    for grace in ["\"soon\"", "-1", "[30]", "\"\""] {
        let (flag, warning) = warned(&format!("terminate = true\ngrace = {grace}"));
        assert_eq!((flag.grace, flag.terminate), (None, false), "{grace}");
        assert!(warning.contains("grace: ") && warning.contains("terminate: "), "{warning}");
    }
    assert!(parsed("terminate = true").terminate, "without one it is at once");
    assert!(!warned("grace = \"soon\"").1.contains("terminate"), "it was not asked for");
}

#[test]
fn auto_end_needs_an_end() {
    let (flag, warning) = warned("auto_end = true");
    assert!(!flag.auto_end);
    assert!(warning.contains("until"), "{warning}");
}

#[test]
fn bytes_that_are_no_text_still_mean_on() {
    let (flag, warning) = Flag::parse(b"\xff\xfe\x00\x01");
    assert!(warning.is_some());
    assert_eq!(flag.message.as_deref(), Some("\u{fffd}\u{fffd}"));
}

#[test]
fn texts_are_bounded_and_hold_no_control_characters() {
    let (flag, _) = Flag::parse("\u{1b}[31mé".repeat(5000).as_bytes());
    let message = flag.message.unwrap();
    assert!(message.len() <= MESSAGE_BYTES_MAX);
    assert!(!message.contains('\u{1b}'));
    assert_eq!(parsed("reason = \"a\\nb\\tc\"").reason.as_deref(), Some("a b c"));
}

#[test]
fn texts_may_be_as_long_as_their_bound_and_end_on_a_whole_character() {
    for (text, bytes) in [
        ("x".repeat(LINE_BYTES_MAX - 1), LINE_BYTES_MAX - 1),
        ("x".repeat(LINE_BYTES_MAX), LINE_BYTES_MAX),
        ("x".repeat(LINE_BYTES_MAX + 1), LINE_BYTES_MAX),
        ("é".repeat(LINE_BYTES_MAX), LINE_BYTES_MAX),
        (format!("x{}", "é".repeat(LINE_BYTES_MAX)), LINE_BYTES_MAX - 1),
        // A blank that is last only because the rest is cut off goes, too.
        (format!("{} y", "x".repeat(LINE_BYTES_MAX - 1)), LINE_BYTES_MAX - 1),
    ] {
        let flag = parsed(&format!("reason = \"{text}\""));
        assert_eq!(flag.reason.unwrap().len(), bytes);
    }
}

#[test]
fn a_list_may_have_as_many_entries_as_its_bound() {
    let routes = |count: usize| format!("routes = {:?}", vec!["api"; count]);
    assert_eq!(parsed(&routes(LIST_ENTRIES_MAX)).routes.len(), LIST_ENTRIES_MAX);
    let (flag, warning) = warned(&routes(LIST_ENTRIES_MAX + 1));
    assert_eq!(flag.routes.len(), LIST_ENTRIES_MAX);
    assert_eq!(warning, "routes: only the first 256 entries are used");
    assert!(!warned(&format!("terminate = true\n{}", routes(LIST_ENTRIES_MAX + 1))).0.terminate, "more is meant");
}

#[test]
fn the_default_flag_is_an_empty_file() {
    assert_eq!(Flag::default().to_toml(), "");
}

#[test]
fn hosts_and_paths_are_written_as_in_a_route() {
    let covers = |entry: &str, host: &str, path: &str| {
        let (flag, warning) = Flag::parse(entry.as_bytes());
        assert_eq!(warning, None, "{entry}");
        flag.hosts.iter().any(|pattern| pattern.matches(host)) || flag.paths.iter().any(|pattern| pattern.matches(path))
    };
    for (entry, is_covered) in [
        ("paths = [\"/caf%c3%a9\"]", true),
        ("paths = [\"/café/\"]", true),
        ("paths = [\"/\"]", true),
        ("paths = [\"=/caf%C3%A9/menu\"]", true),
        ("paths = [\"=/café\"]", false),
        ("paths = [\"/caf\"]", false),
        ("hosts = [\"Shop.example.com.\"]", true),
        ("hosts = [\"*.example.com\"]", true),
        ("hosts = [\"*.shop.example.com\"]", false),
    ] {
        assert_eq!(covers(entry, "shop.example.com", "/caf%C3%A9/menu"), is_covered, "{entry}");
    }
}

#[test]
fn hosts_and_paths_that_no_request_can_have_are_told() {
    for entry in ["paths = [\"/api/*\"]", "paths = [\"/api//v1\"]", "hosts = [\"shop.example.com:8080\"]"] {
        let (flag, warning) = Flag::parse(entry.as_bytes());
        assert!(warning.is_some_and(|warning| warning.0.ends_with("cannot be used")), "{entry}");
        assert!(flag.hosts.is_empty() && flag.paths.is_empty(), "in doubt a flag covers more: {entry}");
    }
}

fn any_flag() -> impl Strategy<Value = Flag> {
    let text = || proptest::option::of("[a-z\"'\\\\<é]{1,20}");
    let time = || proptest::option::of((0i64..4_000_000_000).prop_map(|s| Timestamp::from_second(s).unwrap()));
    let mode = prop_oneof![Just(Mode::Full), Just(Mode::ReadOnly), Just(Mode::Emergency)];
    let paths = proptest::collection::vec("=?/[a-z]{0,5}", 0..3);
    let grace = proptest::option::of((0u64..100_000, 0u32..1000).prop_map(|(s, ms)| Duration::new(s, ms * 1_000_000)));
    let flags = (any::<bool>(), any::<bool>(), any::<[u8; 4]>());
    (text(), text(), time(), time(), mode, paths, grace, flags).prop_map(
        |(reason, message, started_at, until, mode, paths, grace, (terminate, auto_end, ip))| Flag {
            by: reason.clone(),
            reason,
            message,
            started_at,
            until,
            mode,
            routes: paths.iter().map(|path| format!("route{path}")).collect(),
            hosts: paths.iter().map(|_| HostPattern::parse("*.example.com").unwrap()).collect(),
            paths: paths.iter().map(|path| PathPattern::parse(path).unwrap()).collect(),
            allow: vec![IpNet::from(std::net::IpAddr::from(ip))],
            grace,
            terminate,
            auto_end: auto_end && until.is_some(),
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_are_a_flag(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (flag, _) = Flag::parse(&bytes);
        prop_assert!(flag.message.is_none_or(|message| message.len() <= MESSAGE_BYTES_MAX));
    }

    #[test]
    fn any_text_under_known_keys_is_a_flag(
        key in prop_oneof![Just("until"), Just("grace"), Just("allow"), Just("mode"), Just("paths"), Just("auto_end")],
        value in "[-0-9a-zT:.\\[\\]\"{}=, ]{0,40}",
    ) {
        let (flag, _) = Flag::parse(format!("{key} = {value}").as_bytes());
        let (again, warning) = Flag::parse(flag.to_toml().as_bytes());
        prop_assert_eq!(flag, again);
        prop_assert_eq!(warning, None);
    }

    #[test]
    fn what_is_written_is_read_back(flag in any_flag()) {
        let (read, warning) = Flag::parse(flag.to_toml().as_bytes());
        prop_assert_eq!(read, flag);
        prop_assert_eq!(warning, None);
    }
}
