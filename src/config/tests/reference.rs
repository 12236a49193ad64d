//! The annotated reference is complete, and loads.

use super::*;
use serde_json::{Value, json};

pub(super) const REFERENCE: &str = include_str!("../../../config/flagstone.toml");

/// With everything switched on; a line that comes "in place of the line above" replaces it.
pub(super) fn uncommented() -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in REFERENCE.lines() {
        let code = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| !c.is_whitespace() && c != '-'));
        if code.is_some() && line.contains("in place of the line above") {
            lines.pop();
        }
        lines.push(code.unwrap_or(line));
    }
    lines.join("\n")
}

#[test]
fn it_loads_as_it_is_without_a_warning() {
    let loaded = parsed(REFERENCE).unwrap();
    assert_eq!(loaded.warnings, []);
}

#[test]
fn it_loads_with_everything_switched_on() {
    let loaded = parsed(&uncommented()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.files.len(), 4, "{:?}", loaded.files);
}

#[test]
fn what_it_shows_is_the_default() {
    let (full, minimal) = (parsed(REFERENCE).unwrap().config, parsed(MINIMAL).unwrap().config);
    assert_eq!(full.upstreams, minimal.upstreams);
    let mut route = full.routes[0].clone();
    (route.name, route.limits) = ("all".to_owned(), vec![]);
    assert_eq!(route, minimal.routes[0]);
    let mut rest = full.clone();
    (rest.routes, rest.limits, rest.listeners) =
        (minimal.routes.clone(), minimal.limits.clone(), minimal.listeners.clone());
    assert_eq!(rest, minimal);
}

#[test]
fn every_key_of_the_schema_occurs_in_it() {
    let text = uncommented();
    let mut missing = Vec::new();
    properties(&schema(), &mut |key| {
        let found = text.lines().any(|line| {
            let is_header = line.starts_with('[') && line.split(['[', ']', '.']).any(|part| part == key);
            is_header || line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == key)
        });
        if !found {
            missing.push(key.to_owned());
        }
    });
    assert_eq!(missing, Vec::<String>::new());
}

fn properties(schema: &Value, found: &mut dyn FnMut(&str)) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(own)) = map.get("properties") {
                own.keys().for_each(|key| found(key));
            }
            map.values().for_each(|value| properties(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| properties(value, found)),
        _ => {}
    }
}

#[test]
fn the_schema_has_descriptions_patterns_and_defaults() {
    let schema = schema();
    let timeouts = &schema["$defs"]["Timeouts"]["properties"]["idle"];
    assert_eq!(timeouts["default"], "75s");
    assert_eq!(timeouts["description"], "Keep-alive connection without a request.");
    assert_eq!(schema["$defs"]["Duration"]["pattern"], "^([0-9]+(d|h|m|s|ms|us))+$|\\$\\{");
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn the_schema_takes_a_variable_wherever_the_file_may_have_one() {
    let schema = schema();
    let property = |table: &str, key: &str| schema["$defs"][table]["properties"][key].clone();
    for (table, key, kind) in
        [("Upstream", "max_idle", "integer"), ("Upstream", "critical", "boolean"), ("Retry", "budget", "number")]
    {
        let property = property(table, key);
        assert_eq!((&property["type"], &property["pattern"]), (&json!([kind, "string"]), &json!("\\$\\{")));
    }
    assert_eq!(schema["$defs"]["Balance"]["anyOf"][1], json!({ "pattern": "\\$\\{" }));
    let upstream = "[upstream.app]\ncritical = \"${C:-true}\"\nmax_idle = \"${M:-7}\"\nbalance = \"${B:-hash}\"\n";
    with(&upstream.replace("app", "other").replace("critical", "endpoints = [\"x:1\"]\ncritical")).unwrap();
}

#[test]
fn what_the_schema_requires_may_not_be_missing() {
    let listener = "[[listener]]\nname = \"other\"\naddress = \"0.0.0.0:1\"\n";
    let (route, pair) = ("[[route]]\nname = \"other\"\n", "cert = \"a\", key = \"b\"");
    let refused = [
        ("ListenerTls", "certificates", format!("{listener}tls = {{}}")),
        ("CertificatePair", "cert", format!("{listener}tls = {{ certificates = [{{ key = \"a\" }}] }}")),
        ("CertificatePair", "key", format!("{listener}tls = {{ certificates = [{{ cert = \"a\" }}] }}")),
        ("ClientAuth", "ca", format!("{listener}tls = {{ certificates = [{{ {pair} }}], client_auth = {{}} }}")),
        ("Limit", "rate", "[limit.a]\n".to_owned()),
        ("Window", "name", "[[maintenance.window]]\nschedule = \"0 3 * * SUN\"\n".to_owned()),
        ("Window", "schedule", "[[maintenance.window]]\nname = \"a\"\n".to_owned()),
        ("Notify", "url", "[[notify]]\n".to_owned()),
        ("Route", "name", "[[route]]\nupstream = \"app\"\n".to_owned()),
        ("Files", "root", format!("{route}files = {{}}\n")),
        ("Redirect", "to", format!("{route}redirect = {{}}\n")),
        ("Test", "name", "[[test]]\nrequest = { url = \"http://a/\" }\n".to_owned()),
        ("Test", "request", "[[test]]\nname = \"a\"\n".to_owned()),
        ("Test/properties/request", "url", "[[test]]\nname = \"a\"\nrequest = {}\n".to_owned()),
        ("Upstream", "endpoints", "[upstream.other]\n".to_owned()),
        ("EndpointTable", "address", "[upstream.other]\nendpoints = [{ weight = 2 }]\n".to_owned()),
    ];
    let schema = schema();
    for (table, key, text) in &refused {
        let required = schema.pointer(&format!("/$defs/{table}/required")).and_then(Value::as_array);
        assert!(required.is_some_and(|keys| keys.contains(&json!(key))), "{table}: {key}");
        let problems = with(text).unwrap_err().to_string();
        assert!(problems.lines().any(|line| line.contains(key)), "{table}: {key}: {problems}");
    }
}

#[test]
fn what_the_schema_takes_is_no_more_than_what_loads() {
    let schema = schema();
    let listener = "[[listener]]\nname = \"other\"\naddress = \"0.0.0.0:1\"\n";
    let route = "[[route]]\nname = \"other\"\nhost = [\"a.b\"]\n";
    for (place, least, text) in [
        ("Upstream/properties/endpoints", "minItems", "[upstream.other]\nendpoints = []\n".to_owned()),
        ("ListenerTls/properties/certificates", "minItems", format!("{listener}tls = {{ certificates = [] }}\n")),
        ("Route/properties/path", "minItems", format!("{route}path = []\nrespond = {{}}\n")),
        ("LimitKey/anyOf/1", "minItems", "[limit.a]\nrate = \"1/1s\"\nkey = []\n".to_owned()),
        ("Redirect/properties/to", "minLength", format!("{route}redirect = {{ to = \"\" }}\n")),
        ("Files/properties/root", "minLength", format!("{route}files = {{ root = \"\" }}\n")),
    ] {
        assert_eq!(schema.pointer(&format!("/$defs/{place}/{least}")), Some(&json!(1)), "{place}");
        assert!(with(&text).is_err(), "{text}");
    }
    let statuses = &schema["$defs"]["Redirect"]["properties"]["status"]["anyOf"][0]["enum"];
    for status in 300..=309 {
        let loads = with(&format!("{route}redirect = {{ to = \"/\", status = {status} }}\n")).is_ok();
        assert_eq!(statuses.as_array().is_some_and(|all| all.contains(&json!(status))), loads, "{status}");
    }
    numbers(&schema, &mut |number| {
        assert!(number["minimum"].is_number() && number["maximum"].is_number(), "has no bounds: {number}");
    });
    for (count, loads) in [(u64::from(u32::MAX), true), (u64::from(u32::MAX) + 1, false)] {
        assert_eq!(with(&format!("[limit.a]\nrate = \"1/1s\"\nconcurrency = {count}\n")).is_ok(), loads);
    }
}

/// Every number that is no size: their bound is that of TOML.
fn numbers(schema: &Value, found: &mut dyn FnMut(&Value)) {
    match schema {
        Value::Object(object) => {
            if object.get("format").is_some_and(Value::is_string) && object.contains_key("type") {
                found(schema);
            }
            object.values().for_each(|inner| numbers(inner, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| numbers(inner, found)),
        _ => {}
    }
}

#[test]
fn the_documents_examples_load() {
    let page = include_str!("../../../docs/configuration.md");
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(MINIMAL.ends_with(blocks[0]), "the page shows another minimal file");
    let token = |name: &str| (name == "FLAGSTONE_TOKEN").then(|| "t".to_owned());
    let rest = MINIMAL.split("[upstream.app]").next().unwrap();
    let variables = blocks.iter().find(|block| block.contains("${FLAGSTONE_TOKEN}")).unwrap();
    let loaded = parse(&format!("{rest}{variables}"), Path::new("flagstone.toml"), &token);
    assert_eq!(loaded.unwrap().warnings, []);
}
