//! What is no error, and worth knowing.

use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};

use super::*;

#[test]
fn what_is_odd_but_works_is_a_warning() {
    let cases = [
        ("tls = { insecure = true }", "anyone in between can read and change the traffic: give ca = \"file.pem\""),
        (
            "tls = { insecure = true, ca = \"missing\" }",
            "anyone in between can read and change the traffic: take it out, for ca has no effect with it",
        ),
        ("breaker = { enabled = true, count = [] }", "breaker.count: with nothing to count it never opens"),
        ("[[notify]]\nurl = \"https://x.example/\"\nevents = []", "notify[0].events: it is told of nothing"),
        ("[client_ip]\ntrusted_proxies = [\"0.0.0.0/0\"]", "trusts everyone"),
        ("[client_ip]\ntrusted_proxies = [\"10.1.0.0/8\"]", "it means 10.0.0.0/8"),
        ("[upstream.b]\nendpoints = [\"b:1\"]", "no route uses this upstream"),
        ("[trace]\notlp = \"http://c:4317\"", "OTLP over gRPC, which is not spoken here"),
        ("[limit.a]\nrate = \"1/1s\"", "no route uses this limit"),
        ("[maintenance]\nexempt_paths = [\"/a/*/b\"]", "\"/a/*/b\" looks like a pattern, and is taken as it stands"),
        ("[maintenance]\nexempt_paths = [\"/users/:id\"]", "looks like a pattern"),
        ("hash_key = \"uri\"", "upstream.app.hash_key: has no effect with this balance: set balance = \"hash\""),
        ("[[test]]\nname = \"t\"\nrequest = { url = \"http://a/\" }", "test[0].expect: is empty, so the test passes"),
        (
            "[[listener]]\nname = \"p\"\naddress = \"127.0.0.1:0\"\nproxy_protocol = true",
            "listener[1].proxy_protocol: believes nobody, for client_ip.trusted_proxies is empty",
        ),
        (
            "[[route]]\nname = \"r\"\npath = [\"/r\"]\nrespond = {}\ntimeouts = { idle = \"1s\", connect = \"1s\" }",
            "route[1].timeouts.idle: has no effect in a route",
        ),
        ("[[maintenance.window]]\nname = \"w\"\nschedule = \"0 3 31 2 *\"", "window[0].schedule: never comes"),
        (
            "[[maintenance.window]]\nname = \"w\"\nschedule = \"0 0 * * *\"\nduration = \"1d\"",
            "lasts until the window begins again, so maintenance never ends",
        ),
    ];
    for (addition, expected) in cases {
        let warnings = with(addition).expect(addition).warnings;
        assert!(warnings.len() == 1 && warnings[0].to_string().contains(expected), "{addition}: {warnings:?}");
        assert!(warnings[0].line.is_some());
    }
}

#[test]
fn a_level_that_a_release_does_not_have_is_a_warning_there() {
    let loaded = with("[log]\nlevel = \"info,h2=trace\"").unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let is_release = STATIC_MAX_LEVEL < LevelFilter::TRACE;
    assert_eq!(warnings.len(), usize::from(is_release), "{warnings:?}");
    assert!(
        warnings.iter().all(|text| text.contains("a release says no more at \"trace\" than at \"debug\"")),
        "{warnings:?}"
    );
    assert_eq!(loaded.config.log.level, "info,h2=trace");
}

#[test]
fn spaces_in_log_directives_are_no_part_of_them() {
    let loaded = with("[log]\nlevel = \" flagstone::upstream = debug, info\"").unwrap();
    assert_eq!((loaded.config.log.level.as_str(), &loaded.warnings[..]), ("flagstone::upstream=debug,info", &[][..]));
    assert!(with("[log]\nlevel = \"in fo\"").is_err());
}

#[test]
fn a_module_that_never_logs_is_a_warning() {
    let loaded = with("[log]\nlevel = \"info,flagston::proxy=debug,flagstone::upstream=debug,h2=warn\"").unwrap();
    let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    let expected = "log.level: nothing is logged as \"flagston::proxy\": did you mean \"flagstone::proxy\"?";
    assert!(warning.to_string().ends_with(expected), "{warning}");
    let wrong = with("[log]\nlevel = \"inof,h2=wran\"").unwrap_err().to_string();
    assert!(wrong.contains("\"inof\" is not a level") && wrong.contains("\"wran\" is not a level"), "{wrong}");
}

#[test]
fn a_file_for_the_access_log_that_is_called_like_a_stream_is_warned_of() {
    for (access, meant) in [("Stdout", "stdout"), ("OFF", "off"), ("stdrr", "stderr")] {
        let loaded = with(&format!("[log]\naccess = \"{access}\"")).unwrap();
        let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        let expected = format!("\"{access}\" is taken for the name of a file: did you mean \"{meant}\"? Else write");
        assert!(warning.to_string().contains(&expected), "{warning}");
    }
    for access in ["off", "access.log", "./Stdout", "access"] {
        assert_eq!(with(&format!("[log]\naccess = \"{access}\"")).unwrap().warnings, []);
    }
}
