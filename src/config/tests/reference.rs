//! The annotated reference is complete, and loads.

use super::*;
use serde_json::Value;

pub(super) const REFERENCE: &str = include_str!("../../../config/flagstone.toml");

/// With everything switched on; a line that comes "in place of the line above" replaces it.
fn uncommented() -> String {
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
