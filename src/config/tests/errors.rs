//! What errors say, whole lines of them.

use super::routes::error_in_route;
use super::*;

#[test]
fn everything_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = "[server]\nworkers = \"two\"\nworker = 2\n\n[[listener]]\naddress = \"0.0.0.0:99999\"\n\n[[route]]\nname = \"a\"\nupstreem = \"app\"\n\n[[route]]\nname = \"b\"\nupstream = \"ap\"\npath = [\"/b\"]\n\n[upstream.app]\nendpoints = [\"a:1\"]\nbreaker = { open = \"soon\" }\n";
    let expected = [
        "flagstone.toml:2:1: server.workers = \"two\": must be a whole number: write the number without quotes",
        "flagstone.toml:3:1: server.worker: unknown key: did you mean \"workers\"?",
        "flagstone.toml:6:1: listener[0].address = \"0.0.0.0:99999\": not an address to listen on: write an IP address and a port such as \"0.0.0.0:8080\" or \"[::]:443\", or \"unix:/path\"",
        "flagstone.toml:10:1: route[0].upstreem: unknown key: did you mean \"upstream\"?",
        "flagstone.toml:14:1: route[1].upstream = \"ap\": no upstream has this name: did you mean \"app\"?",
        "flagstone.toml:19:13: upstream.app.breaker.open = \"soon\": not a duration: write whole numbers with units, largest first, such as \"250ms\", \"10s\" or \"1h30m\"",
    ];
    assert_eq!(errors(text), expected.join("\n"));
}

#[test]
fn the_address_that_is_proposed_would_do() {
    let admin = |listen: &str| errors(&format!("{MINIMAL}[admin]\nlisten = \"{listen}\"\n"));
    for listen in ["9900", ":9900", "localhost:9900"] {
        // Anywhere else a token would be asked for next.
        let told = admin(listen);
        assert!(told.ends_with("not an address to listen on: write \"127.0.0.1:9900\""), "{told}");
    }
    assert!(error_with("[[listener]]\nname = \"b\"\naddress = \"80\"").ends_with("write \"0.0.0.0:80\""));
}

#[test]
fn a_name_that_ends_in_a_number_will_do_where_no_certificate_is_for_it() {
    for tls in ["", "tls = { server_name = \"b\" }", "tls = { server_name = \"10.0.0.1\" }"] {
        let told = with(&format!("[upstream.b]\nendpoints = [\"b.1:443\", \"10.0.0.1:443\"]\n{tls}\n")).err();
        assert!(told.is_none(), "{told:?}");
    }
}

#[test]
fn an_empty_file_lacks_a_listener_and_a_route() {
    let expected = "flagstone.toml: listener: is missing: add a [[listener]] with an address, such as \"0.0.0.0:8080\"\nflagstone.toml: route: is missing: add a [[route]] with a name and an upstream";
    assert_eq!(errors(""), expected);
}

#[test]
fn syntax_errors_have_line_and_column() {
    let text = errors("[server\nworkers = 2");
    assert!(text.starts_with("flagstone.toml:1:8: not TOML: "), "{text}");
    let text = errors("a = 1\na = 2\n");
    assert!(text.starts_with("flagstone.toml:2:1: not TOML: duplicate key"), "{text}");
}

#[test]
fn a_syntax_error_says_how_to_mend_it() {
    let cases = [
        ("[a]\naddress = 127.0.0.1:80\n", "2:", "a text stands in quotes: address = \"…\""),
        ("[a]\nburst = 20 nodelay\n", "2:", "a text stands in quotes: burst = \"…\""),
        ("a = \"x\nb = 1\n", "1:", "close the quotes in the same line"),
        ("a =\nb = 1\n", "1:", "write the value behind a =, in the same line"),
        ("[x]\na = 1\n[y]\na = 1\nb = 2\na = 2\n", "6:", "a stands in line 4 already: leave one of the two"),
        ("[x.y]\n[[x]]\n", "2:", "[x.y] in line 1 is a part of it: put that below [[x]]"),
        ("x.a = 1\n[x]\nb = 1\n", "2:", "x.a in line 1 is a part of it: put that below [x]"),
        ("[x]\na = { b = 1, b = 2 }\n", "2:14", "b is there twice: leave one of the two"),
        ("[x]\na = 1\n[y]\n[x] # again\n", "4:", "[x] stands in line 1 already: leave one of the two"),
        ("listener:\n  - address: x\n", "1:", "this looks like YAML, TOML writes [table] and key = value"),
        ("{ \"listener\": [] }\n", "1:", "this looks like JSON, TOML writes [table] and key = value"),
        ("# old\nserver {\n  listen 80;\n}\n", "2:", "this looks like a configuration of nginx or Caddy, TOML"),
    ];
    for (file, line, help) in cases {
        let text = errors(file);
        assert!(text.starts_with(&format!("flagstone.toml:{line}")) && text.contains(help), "{text}");
    }
    let secret = errors("[admin]\ntoken = hunter2\n");
    assert!(!secret.contains("hunter2"), "{secret}");
}

#[test]
fn what_was_refused_is_in_nobodys_way() {
    let text = errors("[[listener]]\naddress = 8080\n[[listener]]\n[[route]]\nname = \"a\"\nrespond = {}\n");
    assert_eq!(text, "flagstone.toml:2:1: listener[0].address = 8080: must be a string in quotes");
}

#[test]
fn slips_of_brackets_and_plurals_are_recognised() {
    let text = errors("[listener]\naddress = \"0.0.0.0:1\"\n[[routes]]\n[[upstream]]\n");
    let expected = [
        "flagstone.toml:1:1: listener = {…}: must be a list of tables: write [[listener]], with two brackets",
        "flagstone.toml:3:1: routes: unknown key: did you mean \"route\"?",
        "flagstone.toml:4:1: upstream = […]: must be a table: write [upstream.NAME], with one pair of brackets and a name",
    ];
    assert_eq!(text, expected.join("\n"));
}

#[test]
fn a_key_of_another_section_is_sent_there() {
    let text = error_with("[server]\nmax_body = 1");
    assert!(
        text.starts_with("server.max_body: unknown key: it belongs in [bounds] or [[route]]; the nearest key here is"),
        "{text}"
    );
}

#[test]
fn words_out_of_a_set_and_numbers_out_of_range_are_refused() {
    let cases = [
        (
            "balance = \"round-robin\"",
            "upstream.app.balance = \"round-robin\": must be \"least_requests\", \"round_robin\", \"peak_ewma\" or \"hash\": did you mean \"round_robin\"?",
        ),
        ("max_idle = -1", "upstream.app.max_idle = -1: must be from 0 to 1000000"),
        ("breaker = { failure_ratio = 1.5 }", "upstream.app.breaker.failure_ratio = 1.5: must be from 0 to 1"),
        ("breaker = { failures = -1 }", "upstream.app.breaker.failures = -1: must be from 0 to 4294967295"),
        (
            "breaker = { failure_ratio = \"0.4\" }",
            "upstream.app.breaker.failure_ratio = \"0.4\": must be a number: write the number without quotes",
        ),
        (
            "idle_timeout = 4",
            "upstream.app.idle_timeout = 4: must be a duration such as \"10s\": write \"4s\" for seconds",
        ),
        ("hold = 1979-05-27", "upstream.app.hold = 1979-05-27: must be a duration such as \"10s\""),
        ("http2 = \"yes\"", "upstream.app.http2 = \"yes\": must be true or false: write true or false without quotes"),
        (
            "[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:1\"\n[listener.tls]\ncertificates = [{ cert = \"c\", key = \"k\" }]\nmin_version = \"1.1\"",
            "listener[1].tls.min_version = \"1.1\": must be \"1.2\" or \"1.3\": did you mean \"1.2\"?",
        ),
    ];
    for (addition, expected) in cases {
        assert_eq!(error_with(addition), expected);
    }
}

#[test]
fn durations_that_must_be_above_zero_are() {
    for key in ["idle_timeout", "dns_refresh"] {
        let text = error_with(&format!("{key} = \"0s\""));
        assert!(text.contains("must be above zero"), "{text}");
    }
    assert!(error_with("[timeouts]\nidle = \"0s\"").contains("must be above zero"));
    assert!(error_with("hold = \"-1s\"").contains("a duration cannot be negative"));
}

#[test]
fn what_cannot_be_read_is_told_once_and_as_it_is_written() {
    let cases = [
        ("[bounds]\nmax_header_bytes = \"32kb\"", "bounds.max_header_bytes = \"32kb\": not a size: write \"32KB\""),
        (
            "[bounds]\nmax_uri_bytes = \"0\"",
            "bounds.max_uri_bytes = \"0\": is out of range: write a size from \"64B\" to \"4095MiB\"",
        ),
        (
            "[bounds]\nmax_uri_bytes = 7",
            "bounds.max_uri_bytes = 7: is out of range: write a size from \"64B\" to \"4095MiB\"",
        ),
        (
            "[bounds]\nmax_body = \"99999999999GiB\"",
            "bounds.max_body = \"99999999999GiB\": this is more bytes than can be counted: write a smaller size",
        ),
        (
            "[limit.l]\nrate = \"5000000000/1s\"",
            "limit.l.rate = \"5000000000/1s\": a rate's count is at most 4294967295: write a smaller one",
        ),
        (
            "hash_key = \"header:\"",
            "upstream.app.hash_key = \"header:\": not a header's name: write \"header:NAME\", such as \"header:X-Tenant\"",
        ),
        (
            "[[test]]\nname = \"t\"\nrequest = { url = \"http://a/\" }\nexpect = { status = 99 }",
            "test[0].expect.status = 99: not a status: write one from 100 to 599",
        ),
    ];
    for (addition, expected) in cases {
        assert_eq!(error_with(addition), expected);
    }
}

#[test]
fn a_flag_is_a_file() {
    for folder in ["", ".", "..", "sub/", "sub/.", "/run/.."] {
        let text = error_with(&format!("[maintenance]\nflag = \"{folder}\""));
        assert!(text.starts_with(&format!("maintenance.flag = \"{folder}\": names no file")), "{text}");
    }
    let others = [
        "cookies.key",
        "limits.json",
        "blocklist.json",
        "features.json",
        "windows.toml",
        "reminders.toml",
        "maintenance.d",
    ];
    for other in others {
        let text = error_with(&format!("[maintenance]\nflag = \"{other}\""));
        assert!(text.starts_with(&format!("maintenance.flag = \"{other}\": is the name of another file")), "{text}");
        assert!(with(&format!("[maintenance]\nflag = \"sub/{other}\"")).is_ok(), "{other}");
    }
    let others = ["./limits.json", "a/../limits.json", "../s/limits.json", "/s//limits.json", "/a/../s/limits.json"];
    let of_routes = ["maintenance.d/web.flag", "./maintenance.d/sub/x", "/s/maintenance.d/x"];
    for other in others.into_iter().chain(of_routes) {
        let text = error_with(&format!("[server]\nstate_dir = \"/s/.\"\n[maintenance]\nflag = \"{other}\""));
        assert!(text.contains("is the name of another file"), "{text}");
    }
    for file in ["a.flag", ".hidden", "sub/..a", "../a", "/run/a"] {
        assert!(with(&format!("[maintenance]\nflag = \"{file}\"")).is_ok(), "{file}");
    }
}

#[test]
fn names_must_exist_and_be_unique() {
    assert_eq!(error_in_route("limits = [\"x\"]"), "route[0].limits[0] = \"x\": no limit has this name: add [limit.x]");
    assert_eq!(
        error_in_route("feature = \"x.y\""),
        "route[0].feature = \"x.y\": no feature has this name: add [features] with \"x.y\" = true"
    );
    assert_eq!(
        error_with("[[route]]\nname = \"all\"\npath = [\"/b\"]\nupstream = \"app\""),
        "route[1].name = \"all\": route[0] has this name already: give each its own"
    );
    assert_eq!(
        error_with("[[listener]]\nname = \"b\"\naddress = \"0.0.0.0:8080\""),
        "listener[1].address = \"0.0.0.0:8080\": listener[0].address listens there already: give each its own address"
    );
}

#[test]
fn a_listener_without_a_name_is_called_by_its_address() {
    let named =
        "[[listener]]\nname = \"127.0.0.1:9\"\naddress = \"127.0.0.1:8\"\n[[listener]]\naddress = \"127.0.0.1:9\"";
    assert_eq!(
        error_with(named),
        "listener[2].name = \"127.0.0.1:9\": listener[1] has this name already: give each its own"
    );
    let any = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"";
    assert_eq!(
        error_with(any),
        "listener[2].name = \"127.0.0.1:0\": listener[1] has this name already: give each its own"
    );
    assert!(with(&any.replacen("[[listener]]", "[[listener]]\nname = \"b\"", 1)).is_ok());
}

#[test]
fn fallbacks_exist_and_do_not_go_round() {
    assert!(error_with("breaker = { fallback = \"app\" }").contains("falls back to itself"));
    assert!(error_with("breaker = { fallback = \"spare\" }").contains("no upstream has this name"));
    let text =
        with("breaker = { fallback = \"b\" }\n[upstream.b]\nendpoints = [\"b:1\"]\nbreaker = { fallback = \"app\" }")
            .unwrap_err()
            .to_string();
    assert!(text.contains("go round in a circle: app → b → app: take one of them out"), "{text}");
}

#[test]
fn the_admin_side_needs_a_token_when_others_can_reach_it() {
    let text = error_with("[admin]\nlisten = \"0.0.0.0:9900\"");
    assert!(text.contains("can be reached from other machines, so it needs a token"), "{text}");
    for fine in [
        "listen = \"\"",
        "listen = \"[::1]:9900\"",
        "listen = \"unix:/run/a.sock\"",
        "listen = \"0.0.0.0:9900\"\ntoken = \"t\"",
    ] {
        assert!(with(&format!("[admin]\n{fine}")).is_ok(), "{fine}");
    }
}

#[test]
fn the_path_of_a_unix_socket_fits_into_its_address() {
    let fits = format!("/{}", "a".repeat(106));
    let admin = |path: &str| format!("[admin]\nlisten = \"unix:{path}\"");
    let upstream = |path: &str| format!("[upstream.b]\nendpoints = [\"unix:{path}\"]");
    let listener = |path: &str| format!("[[listener]]\nname = \"b\"\naddress = \"unix:{path}\"");
    for addition in [admin, upstream, listener] {
        assert!(with(&addition(&fits)).is_ok());
        let text = error_with(&addition(&format!("{fits}a")));
        assert!(
            text.ends_with("the path of this socket has 108 bytes, and may have 107: name a shorter path"),
            "{text}"
        );
    }
    // What counts is the path that a relative one becomes.
    let relative = parse(&format!("{MINIMAL}\n{}", admin(&fits[1..])), Path::new("/etc/flagstone.toml"), &env);
    let text = relative.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("the path of this socket has 111 bytes, and may have 107"), "{text}");
}

/// What is added to the minimal file, and what its error says.
const ELSEWHERE: &[(&str, &str)] = &[
    ("[server]\nworkers = 2.0", "server.workers = 2.0: must be a whole number"),
    ("[server]\nworkers = 1e300", "server.workers = 1e300: must be a whole number"),
    ("[limit.a]", "limit.a.rate: is missing: write rate = \"100/1m\""),
    ("[limit.a]\nrate = \"0/1m\"", "a rate of 0 would let nothing pass"),
    ("[limit.a]\nrate = \"1/1m\"\nburst = 0", "must be from 1 to 4294967295"),
    ("[limit.a]\nrate = \"1/1m\"\nkey = \"ip\"", "unknown kind of key"),
    ("[limit.a]\nrate = \"1/1m\"\nkey = [\"path\", \"cookie:\"]", "limit.a.key[1] = \"cookie:\": not a cookie's name"),
    ("[limit.a]\nrate = \"1/1m\"\nstore = \"redis\"", "there is no shared store"),
    ("[redis]\nurl = \"redis://r\"\nca = \"ca.pem\"", "there is no TLS to use it for: write the url as rediss://…"),
    (
        "[redis]\nurl = \"http://r\"",
        "redis.url: not such a URL: write a whole URL that starts with \"redis://\" or \"rediss://\"",
    ),
    ("affinity = \"session\"", "write \"cookie:NAME\""),
    ("health = { path = \"/\", tcp = true }", "there is a path already"),
    ("health = { expect = \"399-200\" }", "not a list of statuses"),
    ("health = { path = \"health\" }", "health.path = \"health\": not a path: start it with \"/\""),
    ("health = { path = \"=/health\" }", "not a path: leave out the \"=\""),
    ("health = { path = \"/a#b\" }", "not a path: leave out \"#\" and what follows"),
    ("health = { path = \"/a?b=c d\" }", "not a path: percent-encode spaces"),
    ("health = { path = \"/<a>\" }", "not a path: percent-encode spaces"),
    ("health = { path = \"/a?b=ü\" }", "not a path: percent-encode spaces"),
    ("breaker = { count = [\"conect\"] }", "did you mean \"connect\"?"),
    ("breaker = { open = \"10m\" }", "is below open, 10m"),
    ("retry = { on = [\"timeout\"] }", "not a kind of failure"),
    ("retry = { on = [\"5xx\"] }", "not a list of statuses: write \"500-599\""),
    ("include = [\"more.toml\"]", "unknown key: write it at the top of the file, before the first table"),
    (
        "[[route]]\nname = \"r\"\npath = [\"/r\"]\nredirect = \"/to\"",
        "route[1].redirect = \"/to\": must be a table: write redirect = { … } with \"status\" or \"to\"",
    ),
    ("[[route]]\nname = \"r\"\npath = [\"~ ^/x\"]\nrespond = {}", "not a path: list the paths"),
    ("[[route]]\nname = \"r\"\nrespond = { content_type = \"\" }", "is empty: name a type"),
    ("[[maintenance.window]]\nname = \"w\"\nschedule = \"0 3 * *\"", "not a cron pattern: it has 4 fields, not 5"),
    ("[[maintenance.window]]\nname = \"w\"\nschedule = \"weekly\"", "not a cron pattern: it has 1 field, not 5"),
    ("[[maintenance.window]]\nname = \"w\"\nschedule = \"0 0 3 * * SUN\"", "it has 6 fields, not 5: write minute"),
    ("[[maintenance.window]]\nname = \"w\"\nschedule = \"@daily\"", "it has 1 field, not 5: write minute"),
    (
        "[[maintenance.window]]\nname = \"w\"\nschedule = \"0 25 * * *\"",
        "not a cron pattern: the hour cannot be \"25\"",
    ),
    ("[[maintenance.window]]\nname = \"w\"\nschedule = \"0 3 * * SONNTAG\"", "the weekday cannot be \"SONNTAG\""),
    ("[[maintenance.window]]\nname = \"w\"\nschedule = \"0 3 * * SUN#1\"\ntimezone = \"Berlin\"", "not a time zone"),
    ("[probe.x]", "probe.x: looks at nothing"),
    ("[probe.x]\nhttp = \"http://a:99999/\"", "probe.x.http: has no such port: write one from 1 to 65535"),
    ("[probe.x]\nredis = \"redis://:p@[::1]:0\"", "probe.x.redis: has no such port"),
    ("[probe.x]\nhttp = \"http://a:+1/\"", "probe.x.http: has no such port"),
    ("[probe.x]\ntcp = \"a:+1\"", "probe.x.tcp = \"a:+1\": not an endpoint's address"),
    ("[log]\nlevel = \"inof\"", "\"inof\" is not a level: did you mean \"info\"?"),
    ("[[notify]]\nurl = \"\"", "notify[0].url: is empty"),
    ("[[notify]]\nurl = \"https://me:1@a:65536/x\"", "notify[0].url: has no such port"),
    (
        "[trace]\notlp = \"collector:4318\"",
        "trace.otlp: not such a URL: write a whole URL that starts with \"http://\" or \"https://\"",
    ),
    ("[trace]\notlp = \"http://[::1]:0/v1/traces\"", "trace.otlp: has no such port"),
    ("[trace]\nsample = 1.5", "trace.sample = 1.5: "),
    ("[trace]\notpl = \"http://c\"", "did you mean \"otlp\""),
    ("[admin]\ntoken = \"a b\"", "admin.token: has a character that cannot be sent"),
    ("[[test]]\nname = \"t\"\nrequest = { url = \"/x\" }\nexpect = { route = \"al\" }", "not a whole URL"),
    (
        "[[test]]\nname = \"t\"\nrequest = { url = \"example.com\" }\nexpect = { route = \"al\" }",
        "\"example.com\": not a whole URL",
    ),
    (
        "[[test]]\nname = \"t\"\nrequest = { url = \"ftp://example.com/\" }\nexpect = { route = \"al\" }",
        "\"ftp://example.com/\": not a whole URL",
    ),
    ("[maintenance]\nflag = \"a\\u0000b\"", "maintenance.flag = \"a\\0b\": not a path: take out the NUL character"),
    ("[upstream.b]", "upstream.b.endpoints: is missing"),
    ("[upstream.b]\nendpoints = [\"b:1\", \"b:1\"]", "is listed twice"),
    (
        "[upstream.b]\nendpoints = [\"b.1:443\"]\ntls = { enabled = true }",
        "endpoints[0] = \"b.1:443\": ends in a number: no certificate is for such a name",
    ),
    (
        "[upstream.b]\nendpoints = [{ address = \"b.1.:443\" }]\ntls = { ca = \"a.pem\" }",
        "endpoints[0] = \"b.1:443\": ends in a number",
    ),
    (
        "[upstream.b]\nendpoints = [\"b:443\"]\ntls = { server_name = \"b.1\" }",
        "tls.server_name = \"b.1\": not a host name",
    ),
    ("[upstream.b]\nendpoints = [{ address = \"b:1\", backup = true }]", "has only backups"),
    ("[upstream.b]\nendpoints = [\"b\"]", "give a port: \"b:3000\""),
    ("[upstream.b]\nendpoints = [\"https://b\"]", "\"b:443\", and set tls = { enabled = true }"),
    ("[upstream.b]\nendpoints = \"b:1\"", "write endpoints = [\"b:1\"]"),
    ("[upstream.\"../x\"]\nendpoints = [\"b:1\"]", "cannot be a name"),
    ("[upstream.\"a\\u202E\"]\nendpoints = [\"b:1\"]", "cannot be a name: leave out"),
];

#[test]
fn what_is_wrong_elsewhere_is_told() {
    for &(addition, expected) in ELSEWHERE {
        let text = with(addition).expect_err(addition).to_string();
        assert!(text.contains(expected), "{addition}: {text}");
    }
}

#[test]
fn a_listener_with_tls_needs_certificates_and_does_not_redirect() {
    let text = error_with("[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:1\"\n[listener.tls]");
    assert!(text.starts_with("listener[1].tls.certificates: is missing"), "{text}");
    let text = error_with(
        "[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:1\"\nredirect_https = true\n[listener.tls]\ncertificates = [{ cert = \"c\", key = \"k\" }]",
    );
    assert!(text.contains("round in circles"), "{text}");
}

#[test]
fn what_comes_behind_an_element_that_is_refused_keeps_its_place() {
    let text = "[[route]]\nname = \"b\"\nrespond = {}\npath = [\n  5,\n  \"/b\",\n  \"c\",\n]";
    let told = with(text).unwrap_err().to_string();
    let line = MINIMAL.lines().count() + 6;
    for place in
        [format!("{line}:3: route[1].path[0] = 5: "), format!("{}:3: route[1].path[2] = \"c\": not a path", line + 2)]
    {
        assert!(told.contains(&place), "{place}\n{told}");
    }
}

#[test]
fn a_token_of_the_wrong_type_is_not_shown() {
    assert_eq!(error_with("[admin]\ntoken = 12345"), "admin.token: must be a string in quotes");
    let webhook = errors(&format!("notify = \"https://hooks.example.com/T0/B0/s3cret\"\n{MINIMAL}"));
    assert_eq!(webhook, "flagstone.toml:1:1: notify: must be a list of tables: write [[notify]], with two brackets");
}

#[test]
fn two_listeners_at_one_address_are_one_error() {
    let text = error_with("[[listener]]\naddress = \"0.0.0.0:8080\"");
    assert!(text.contains("listener[0].address listens there already"), "{text}");
}

#[test]
fn every_address_of_the_machine_has_the_port_of_one() {
    let two = |first: &str, second: &str| {
        let listener = format!("address = \"{first}\"\n[[listener]]\nname = \"b\"\naddress = \"{second}\"");
        parsed(&MINIMAL.replace("address = \"0.0.0.0:8080\"", &listener))
    };
    for (first, second) in [
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("127.0.0.1:80", "0.0.0.0:80"),
        ("[::]:80", "[::1]:80"),
        ("0.0.0.0:80", "[::ffff:10.0.0.1]:80"),
        ("10.0.0.1:80", "[::ffff:10.0.0.1]:80"),
    ] {
        let text = two(first, second).expect_err(second).to_string();
        assert!(
            text.contains("listener[1].address = \"") && text.contains("listener[0].address listens there"),
            "{text}"
        );
    }
    for (first, second) in [
        ("0.0.0.0:80", "[::]:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:81"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("[fe80::1%1]:80", "[fe80::1%2]:80"),
        ("0.0.0.0:0", "127.0.0.1:0"),
    ] {
        assert!(two(first, second).is_ok(), "{first} {second}");
    }
    let admin = error_with("[admin]\nlisten = \"127.0.0.1:8080\"");
    assert_eq!(
        admin,
        "listener[0].address = \"0.0.0.0:8080\": admin.listen listens there already: give each its own port, for 0.0.0.0 and [::] are every address"
    );
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_move_no_line() {
    let text = format!("\u{feff}nonsense = 1\n{MINIMAL}").replace('\n', "\r\n");
    let text = errors(&text.replacen("name = \"all\"", "name = \"all\"\r\nx = 1", 1));
    let line = MINIMAL.lines().position(|line| line.starts_with("name")).unwrap() + 3;
    assert!(text.starts_with("flagstone.toml:1:1: nonsense: unknown key"), "{text}");
    assert!(text.contains(&format!("flagstone.toml:{line}:1: route[0].x: unknown key")), "{text}");
}

#[test]
fn nesting_without_end_is_an_error_and_no_overflow() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        assert!(parsed(&format!("a = {}{}", open.repeat(50_000), close.repeat(50_000))).is_err());
    }
    assert!(parsed(&format!("{} = 1", ["a"; 50_000].join("."))).is_err());
    assert!(parsed(&format!("[{}]", ["a"; 50_000].join("."))).is_err());
}

#[test]
fn a_table_without_its_name_is_told_to_have_one() {
    let text = errors(&MINIMAL.replace("[upstream.app]", "[upstream]"));
    assert!(
        text.contains(
            "upstream.endpoints = […]: must be a table: give it a name, [upstream.NAME], and put \"endpoints\" there"
        ),
        "{text}"
    );
    let text = error_with("[limit]\nrate = \"1/1m\"");
    assert!(text.contains("give it a name, [limit.NAME], and put \"rate\" there"), "{text}");
}
