//! Facts about whole files: what loads, what is shown, what is found.

use std::time::Duration;

use proptest::prelude::*;

use super::model::*;
use super::*;

mod defaults;
mod errors;
mod hidden;
mod reference;
mod routes;
mod schema;
mod slips;
mod warnings;

fn env(name: &str) -> Option<String> {
    match name {
        "SLACK_WEBHOOK" => Some("https://hooks.example.com/T0/B0/secret".to_owned()),
        "PORT" => Some("3000".to_owned()),
        _ => None,
    }
}

fn parsed(text: &str) -> Result<Loaded, Problems> {
    parse(text, Path::new("flagstone.toml"), &env)
}

const MINIMAL: &str = include_str!("../../config/minimal.toml");

/// The minimal file with something added at its end.
fn with(addition: &str) -> Result<Loaded, Problems> {
    parsed(&format!("{MINIMAL}\n{addition}"))
}

/// All errors of a text, one a line.
fn errors(text: &str) -> String {
    parsed(text).expect_err("this text is wrong").to_string()
}

/// The only error after adding to the minimal file, without file and place.
fn error_with(addition: &str) -> String {
    let problems = with(addition).expect_err("this addition is wrong");
    assert_eq!(problems.0.len(), 1, "{problems}");
    let problem = Problem { file: PathBuf::new(), ..problems.0[0].clone() };
    assert!(problem.line.is_some(), "{problem}");
    problem.to_string()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_minimal_file_loads_without_a_warning() {
    let loaded = parsed(MINIMAL).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.files, [PathBuf::from("flagstone.toml")]);
}

#[test]
fn relative_paths_start_at_the_files_folder_and_flags_at_the_state_folder() {
    let text = format!("{MINIMAL}\n[server]\nstate_dir = \"state\"\n[log]\naccess = \"access.log\"");
    let loaded = parse(&text, Path::new("/etc/flagstone/a.toml"), &env).unwrap();
    assert_eq!(loaded.config.server.state_dir, Path::new("/etc/flagstone/state"));
    assert_eq!(loaded.config.maintenance.flag, Path::new("/etc/flagstone/state/maintenance.flag"));
    assert_eq!(loaded.config.log.access, AccessLogTarget::File("/etc/flagstone/access.log".into()));
}

#[test]
fn variables_stand_for_strings_numbers_and_booleans() {
    let text = MINIMAL.replace("127.0.0.1:3000", "app:${PORT}");
    let config = parsed(&format!("{text}http2 = \"${{H2:-true}}\"\nmax_idle = \"${{IDLE:-7}}\"")).unwrap().config;
    let upstream = &config.upstreams["app"];
    assert_eq!(upstream.endpoints[0].address, Address::Name { host: "app".to_owned(), port: 3000 });
    assert_eq!((upstream.http2, upstream.max_idle), (true, 7));
}

#[test]
fn tls_to_endpoints_is_on_when_anything_is_set() {
    let tls = |text: &str| with(text).unwrap().config.upstreams["app"].tls.clone();
    assert_eq!(tls("tls = {}"), None);
    assert_eq!(tls("tls = { enabled = false, ca = \"ca.pem\" }"), None);
    assert!(tls("tls = { enabled = true }").is_some());
    assert_eq!(tls("tls = { ca = \"ca.pem\" }").unwrap().ca, Some("ca.pem".into()));
}

#[test]
fn a_route_lays_its_timeouts_and_bound_over_the_general_ones() {
    let text =
        MINIMAL.replace("upstream = \"app\"", "upstream = \"app\"\ntimeouts = { connect = \"1s\" }\nmax_body = 0");
    let config = parsed(&text).unwrap().config;
    assert_eq!((config.routes[0].timeouts.connect, config.routes[0].timeouts.idle), (secs(1), secs(75)));
    assert_eq!((config.routes[0].body_bytes_max, config.bounds.body_bytes_max), (None, Some(16 << 20)));
}

#[test]
fn places_of_keys_can_be_asked_for_afterwards() {
    let loaded = parsed(MINIMAL).unwrap();
    let line = MINIMAL.lines().position(|line| line.starts_with("address")).unwrap() + 1;
    assert_eq!(loaded.locate_path("listener[0].address"), Some((line, 1)));
    let problem = loaded.locate(Problem::new("listener[0].address", "in use"));
    let shown = format!("flagstone.toml:{line}:1: listener[0].address = \"0.0.0.0:8080\": in use");
    assert_eq!(problem.to_string(), shown);
}

#[test]
fn secrets_are_masked_and_the_rest_is_shown() {
    let text = "[admin]\ntoken = \"s3cret-token\"\n[redis]\nurl = \"redis://:s3cret@r:6379\"\n[[notify]]\nurl = \"${SLACK_WEBHOOK}\"\n[probe.web]\nhttp = \"http://me:s3cret@web/ok?k=s3cret\"\n[maintenance]\nbypass_token = \"s3cret\"\n[trace]\notlp = \"https://me:s3cret@otel:4318?k=s3cret\"\n[[route]]\nname = \"b\"\npath = [\"/b\"]\nupstream = \"app\"\nrequest_headers = { set = { Authorization = \"s3cret\", X-Env = \"live\" } }";
    let loaded = with(text).unwrap();
    let shown = loaded.masked.to_string();
    assert!(!shown.contains("s3cret") && !shown.contains("hooks.example"), "{shown}");
    assert_eq!(loaded.masked["admin"]["token"], "***");
    assert_eq!(loaded.masked["probe"]["web"]["http"], "http://***@web/ok?***");
    assert_eq!(loaded.masked["trace"]["otlp"], "https://***@otel:4318?***");
    assert_eq!(loaded.masked["route"][1]["request_headers"]["set"]["X-Env"], "live");
    assert_eq!(loaded.masked["upstream"]["app"]["breaker"]["open"], "30s");
    assert!(!format!("{:?}", loaded.config).contains("s3cret-token"));
}

#[test]
fn secrets_within_a_url_are_masked_and_the_rest_of_it_is_shown() {
    let text = "[[route]]\nname = \"b\"\npath = [\"/b\"]\nredirect = { to = \"https://me:s3cret@b/?token=s3cret&page=2\" }\n\
                request_headers = { set = { X-Pass = \"s3cret\", Link = \"https://me:s3cret@c/d\" } }\n\
                [upstream.other]\nendpoints = [\"o:1\"]\nhealth = { path = \"/h?key=s3cret&deep=1\" }\n\
                [[test]]\nname = \"t\"\nexpect = { route = \"b\" }\n\
                request = { url = \"https://me:s3cret@e/b?maintenance_bypass=s3cret&a=b\", headers = { X-Maintenance-Bypass = \"s3cret\" } }";
    let loaded = with(text).unwrap();
    let masked = &loaded.masked;
    assert!(!masked.to_string().contains("s3cret"), "{masked}");
    assert_eq!(masked["route"][1]["redirect"]["to"], "https://***@b/?token=REDACTED&page=2");
    assert_eq!(masked["route"][1]["request_headers"]["set"]["Link"], "https://***@c/d");
    assert_eq!(masked["upstream"]["other"]["health"]["path"], "/h?key=REDACTED&deep=1");
    assert_eq!(masked["test"][0]["request"]["url"], "https://***@e/b?maintenance_bypass=REDACTED&a=b");
    let refused = with("[upstream.other]\nendpoints = [\"https://me:s3cret@o\"]").unwrap_err().to_string();
    assert!(refused.contains("leave out the scheme: \"o:443\"") && !refused.contains("s3cret"), "{refused}");
}

#[test]
fn a_collector_is_named_by_its_base_or_whole() {
    for (written, meant) in [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://me:pw@c", "https://me:pw@c/v1/traces"),
        ("http://c?key=1", "http://c/v1/traces?key=1"),
        ("http://c/v1/traces", "http://c/v1/traces"),
        ("http://c/otlp/mine?x=1", "http://c/otlp/mine?x=1"),
    ] {
        let config = with(&format!("[trace]\notlp = \"{written}\"")).unwrap().config;
        assert_eq!(config.trace.otlp.map(|url| url.0).as_deref(), Some(meant), "{written}");
    }
    let config = with("[trace]\nsample = 1").unwrap().config;
    assert_eq!(config.trace, Trace { otlp: None, sample: 1.0 });
}

#[test]
fn quick_is_one_route_to_one_upstream() {
    let loaded = quick("127.0.0.1:0", "localhost:${PORT}", Some("/tmp/m.flag"), &env).unwrap();
    let config = &loaded.config;
    assert_eq!((config.routes.len(), config.routes[0].name.as_str()), (1, "all"));
    assert_eq!(config.upstreams["app"].endpoints[0].address.to_string(), "localhost:3000");
    assert_eq!(config.maintenance.flag, Path::new("/tmp/m.flag"));
    assert!(loaded.warnings.is_empty() && loaded.files.is_empty());
    let relative = quick("127.0.0.1:0", "localhost:1", Some("m.flag"), &env).unwrap();
    assert_eq!(relative.config.maintenance.flag, std::env::current_dir().unwrap().join("m.flag"));
}

#[test]
fn quick_names_its_options() {
    let problems = quick(":8080", "http://localhost:3000", None, &env).unwrap_err().to_string();
    let expected = "--listen = \":8080\": not an address to listen on: write \"0.0.0.0:8080\"\n--upstream = \"http://localhost:3000\": not an endpoint's address: leave out the scheme: \"localhost:3000\"";
    assert_eq!(problems, expected);
    let held = quick("${PORT}", "${SLACK_WEBHOOK}", None, &env).unwrap_err().to_string();
    assert!(held.starts_with("--listen = \"${PORT}\": not an address to listen on: write \"0.0.0.0:…\"\n"), "{held}");
    assert!(held.contains("--upstream = \"${SLACK_WEBHOOK}\": ") && !held.contains("secret"), "{held}");
    for (flag, told) in [
        ("/tmp/flags/", "--flag = \"/tmp/flags/\": names no file: "),
        ("/tmp/..", "--flag = \"/tmp/..\": names no file: "),
        ("/run/flagstone/cookies.key", "is the name of another file of the state folder: "),
    ] {
        let problems = quick("127.0.0.1:0", "localhost:1", Some(flag), &env).unwrap_err().to_string();
        assert!(problems.contains(told), "{problems}");
    }
}

#[test]
fn locate_prefers_the_option_then_the_variable() {
    let set = |name: &str| (name == "FLAGSTONE_CONFIG").then(|| "/a.toml".to_owned());
    assert_eq!(locate(Some(Path::new("/b.toml")), &set), Ok("/b.toml".into()));
    assert_eq!(locate(None, &set), Ok("/a.toml".into()));
}

#[test]
fn locate_lists_where_it_looked() {
    // Tests run in the crate's folder, which holds no flagstone.toml of its own.
    if let Err(problems) = locate(None, &|_| None) {
        let text = problems.to_string();
        assert!(text.contains("./flagstone.toml") && text.contains(SYSTEM_FILE), "{text}");
    }
}

#[test]
fn load_says_what_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let text = load(&missing, &env).unwrap_err().to_string();
    assert!(text.contains("none.toml: cannot read the configuration"), "{text}");
    assert!(load(folder.path(), &env).is_err());
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"a = 1\nb = \"\xe4\"\n").unwrap();
    assert!(load(&latin, &env).unwrap_err().to_string().contains("latin.toml:2: not UTF-8"));
    let good = folder.path().join("good.toml");
    std::fs::write(&good, MINIMAL).unwrap();
    assert_eq!(load(&good, &env).unwrap().files, [good]);
}

#[test]
fn patterns_start_at_a_folder_of_any_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["plain", "[a]", "a*b", "what?"] {
        let (home, routes) = (folder.path().join(name), folder.path().join(name).join("routes"));
        std::fs::create_dir_all(&routes).unwrap();
        std::fs::write(home.join("flagstone.toml"), format!("include = [\"routes/*.toml\"]\n{MINIMAL}")).unwrap();
        let more = "[[route]]\nname = \"more\"\npath = [\"/more\"]\nrespond = {}\n";
        std::fs::write(routes.join("more.toml"), more).unwrap();
        let loaded = load(&home.join("flagstone.toml"), &env).unwrap();
        assert_eq!((loaded.config.routes.len(), &loaded.warnings[..]), (2, &[][..]), "{name}");
        assert_eq!(loaded.sources.folders, [routes]);
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = parsed(&text);
    }

    #[test]
    fn text_that_looks_like_a_file_never_panics(
        lines in proptest::collection::vec(prop::sample::select(LINES.as_slice()), 0..12)
    ) {
        let _ = parsed(&lines.join("\n"));
    }

    #[test]
    fn a_damaged_reference_never_panics(from in 0..reference::REFERENCE.len(), length in 0..200_usize) {
        let end = (from + length).min(reference::REFERENCE.len());
        let mut bytes = reference::REFERENCE.as_bytes().to_vec();
        bytes.drain(from..end);
        let _ = parsed(&String::from_utf8_lossy(&bytes));
    }
}

const LINES: [&str; 24] = [
    "[server]",
    "[[route]]",
    "[route]",
    "[upstream.app]",
    "[[upstream]]",
    "[limit.\"a.b\"]",
    "[redis]",
    "route = 1",
    "name = \"a\"",
    "name = 1",
    "path = [\"\", \"=\", \"/\"]",
    "path = [1]",
    "upstream = \"app\"",
    "endpoints = [\"a:1\"]",
    "endpoints = [{}]",
    "rate = \"0/0s\"",
    "burst = -1",
    "breaker = { fallback = \"app\", open = 1 }",
    "key = []",
    "timeouts = { idle = \"0s\" }",
    "workers = 1e400",
    "workers = nan",
    "files = { root = \"${X}\" }",
    "at = 1979-05-27",
];
