//! What errors say of routes.

use super::*;

/// The minimal file's route with more keys.
pub(super) fn error_in_route(keys: &str) -> String {
    let text = MINIMAL.replace("upstream = \"app\"", &format!("upstream = \"app\"\n{keys}"));
    let problems = parsed(&text).expect_err("this route is wrong");
    assert_eq!(problems.0.len(), 1, "{problems}");
    Problem { file: PathBuf::new(), ..problems.0[0].clone() }.to_string()
}

#[test]
fn a_route_does_exactly_one_thing() {
    let none = errors(&MINIMAL.replace("upstream = \"app\"", ""));
    assert!(
        none.contains(
            "route[0]: does nothing with its requests: give exactly one of upstream, files, redirect or respond"
        ),
        "{none}"
    );
    assert_eq!(none.lines().count(), 1, "{none}");
    let two = error_in_route("respond = { body = \"ok\" }");
    assert_eq!(
        two,
        "route[0].respond: there is upstream already: give exactly one of upstream, files, redirect or respond"
    );
}

#[test]
fn what_does_two_things_is_told_all_that_is_wrong_in_both() {
    let route = "upstream = \"ap\"\nfiles = { root = \"\" }\nredirect = { to = \"x\" }\nrespond = { status = 204, body = \"x\" }";
    let told = errors(&MINIMAL.replace("upstream = \"app\"", route));
    for part in [
        "route[0].upstream = \"ap\": no upstream has this name: did you mean \"app\"?",
        "route[0].files: there is upstream already",
        "route[0].files.root: is missing",
        "route[0].redirect: there is upstream already",
        "route[0].redirect.to = \"x\": not a place to redirect to",
        "route[0].respond: there is upstream already",
        "route[0].respond.body: an answer with status 204 has no body",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert_eq!(told.lines().count(), 7, "{told}");
    let probe = with("[probe.x]\ntcp = \"a\"\nhttp = \"b\"\nredis = \"c\"").unwrap_err().to_string();
    for part in ["probe.x: looks at more", "probe.x.tcp = \"a\": ", "probe.x.http: not such", "probe.x.redis: not such"]
    {
        assert!(probe.contains(part), "{part}\n{probe}");
    }
    let health = with("health = { path = \"x\", tcp = true }").unwrap_err().to_string();
    assert!(
        health.contains("there is a path already") && health.contains("health.path = \"x\": not a path"),
        "{health}"
    );
}

#[test]
fn routes_in_each_others_way_are_refused() {
    let text = error_with("[[route]]\nname = \"b\"\nupstream = \"app\"");
    assert_eq!(text, "route[1]: route \"all\" has this path already, for any host and any method: tell them apart by host, path or method".replace("route[1]:", "route[1].path[0] = \"/\":"));
    assert!(with("[[route]]\nname = \"b\"\nmethod = [\"POST\"]\nupstream = \"app\"").is_ok());
    assert!(with("[[route]]\nname = \"b\"\npath = [\"=/\"]\nupstream = \"app\"").is_ok());
    assert!(with("[[route]]\nname = \"b\"\nhost = [\"b.example\"]\nupstream = \"app\"").is_ok());
}

#[test]
fn a_route_with_a_wrong_path_is_not_also_in_anothers_way() {
    let text = error_with("[[route]]\nname = \"b\"\npath = \"/b\"\nupstream = \"app\"");
    assert_eq!(text, "route[1].path = \"/b\": must be a list in square brackets: write path = [\"/b\"]");
}

#[test]
fn what_is_wrong_in_a_route_is_told() {
    let cases = [
        ("path = [\"api\"]", "start it with"),
        ("path = [\"/api/*\"]", "leave out \"/*\""),
        ("path = [\"/a//b\"]", "single slashes"),
        ("path = [\"/a/../b\"]", "leave out \".\" and \"..\""),
        ("path = [\"/a/..;/b\"]", "leave out \".\" and \"..\""),
        ("path = [\"/.;a\"]", "leave out \".\" and \"..\""),
        ("path = [\"/a?b\"]", "leave out the query"),
        ("path = []", "nothing would ever match"),
        ("host = [\"*\"]", "leave host empty"),
        ("host = [\"a.*.b\"]", "first labels only"),
        ("host = [\"a.b:80\"]", "leave out the port"),
        ("host = [\"2001:DB8::1\"]", "write an IPv6 address in brackets"),
        ("method = [\"get\"]", "write \"GET\""),
        ("method = [\"*\"]", "not a method: write each by its name, such as \"GET\": a route without any takes all"),
        ("strip_prefix = \"api\"", "not a prefix"),
        ("path = [\"/b\"]\nstrip_prefix = \"/api\"", "no request of this route begins with it"),
        ("allow = [\"10.0.0.0/33\"]", "not an address range"),
        ("request_headers = { set = { \"X Y\" = \"a\" } }", "not a header name"),
        ("request_headers = { set = { X-Y = \"a\\nb\" } }", "not a header value"),
        ("request_headers = { set = { X-Y = \"a\", x-y = \"b\" } }", "x-y is set twice"),
        ("response_headers = { remove = [\"Content-Length\"] }", "frames the message"),
        ("request_headers = { add = { HOST = \"b\" } }", "HOST would be there twice"),
    ];
    for (keys, expected) in cases {
        let text = error_in_route(keys);
        assert!(text.contains(expected), "{keys}: {text}");
    }
}

#[test]
fn the_name_of_a_route_fits_into_that_of_its_flag_file() {
    let named = |name: &str| parsed(&MINIMAL.replace("name = \"all\"", &format!("name = \"{name}\"")));
    let fits = format!("{}a", "界".repeat(83));
    assert!(named(&fits).is_ok());
    let told = named(&format!("{fits}b")).unwrap_err().to_string();
    assert!(told.contains("has 251 bytes, and may have 250: "), "{told}");
}

#[test]
fn a_prefix_is_compared_with_paths_in_one_form() {
    for (path, prefix) in [
        ("/caf%C3%A9", "/caf%c3%a9"),
        ("/~user/a", "/%7euser/"),
        ("=/%7Euser/a", "/~user"),
        ("/caf%c3%a9/", "/caf%C3%A9/menu"),
        ("/%7Ba}", "/{a%7D"),
    ] {
        let keys = format!("upstream = \"app\"\npath = [\"{path}\"]\nstrip_prefix = \"{prefix}\"");
        let loaded = parsed(&MINIMAL.replace("upstream = \"app\"", &keys));
        assert!(loaded.is_ok(), "{path} {prefix}: {loaded:?}");
    }
    for (path, prefix) in [("/caf%C3%A9s", "/caf%c3%a9"), ("=/%7Eu", "/~user"), ("/%C3%A9", "/e")] {
        let text = error_in_route(&format!("path = [\"{path}\"]\nstrip_prefix = \"{prefix}\""));
        assert!(text.contains("no request of this route begins with it"), "{path} {prefix}: {text}");
    }
}

#[test]
fn what_is_wrong_in_answers_made_here_is_told() {
    let cases = [
        ("redirect = { to = \"example.com\" }", "not a place to redirect to"),
        ("redirect = { to = \"/$urn\" }", "unknown variable \"$urn\": did you mean \"$uri\"?"),
        ("redirect = { to = \"/\", status = 305 }", "305 is no redirect"),
        ("redirect = {}", "route[0].redirect.to: is missing"),
        ("respond = { status = 99 }", "must be from 200 to 599"),
        ("respond = { status = 204, body = \"x\" }", "has no body"),
        ("files = { root = \"\" }", "route[0].files.root: is missing"),
        ("files = { root = \"a\", try = [\"$url\"] }", "not something to try"),
    ];
    for (keys, expected) in cases {
        let text = errors(&MINIMAL.replace("upstream = \"app\"", keys));
        assert!(text.contains(expected) && text.lines().count() == 1, "{keys}: {text}");
    }
}

#[test]
fn no_route_is_called_what_events_and_metrics_call_something_else() {
    for name in ["-", "global"] {
        let text = errors(&MINIMAL.replace("name = \"all\"", &format!("name = \"{name}\"")));
        assert!(text.contains(&format!("route[0].name = \"{name}\": is what events and metrics call ")), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    assert!(with("[[route]]\nname = \"--\"\npath = [\"/b\"]\nrespond = {}").is_ok());
}
