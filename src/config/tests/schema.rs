//! What the schema refuses does not load: an editor that goes by it marks nothing that is well.

use std::fmt::Write as _;

use regex_lite::Regex;
use serde_json::{Map, Value, json};

use super::super::document::{self, Node};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn what_the_schema_refuses_does_not_load(place in any::<prop::sample::Index>(), slip in slip()) {
        let mut file = whole_file();
        let places = pointers(&file, String::new());
        let place = place.get(&places);
        slip.make(&mut file, place);
        let told = refusals(&file);
        prop_assert!(told.is_empty() || parsed(&toml(&file)).is_err(), "{place}: {told:?}\n{}", toml(&file));
    }
}

#[test]
fn the_schema_takes_the_whole_reference() {
    let file = whole_file();
    assert_eq!(refusals(&file), [""; 0]);
    parsed(&toml(&file)).unwrap_or_else(|problems| panic!("{problems}"));
}

/// What somebody may do to a file.
#[derive(Clone, Debug)]
enum Slip {
    Replace(Value),
    TakeOut,
    PutIn(String, Value),
}

impl Slip {
    fn make(self, file: &mut Value, place: &str) {
        match self {
            Self::Replace(value) => *file.pointer_mut(place).expect("it is there") = value,
            Self::TakeOut => {
                let (around, key) = place.rsplit_once('/').expect("it is not the root");
                match file.pointer_mut(around) {
                    Some(Value::Object(table)) => drop(table.remove(&unescaped(key))),
                    Some(Value::Array(list)) => drop(list.remove(key.parse().expect("an index"))),
                    _ => unreachable!("something is in it"),
                }
            }
            Self::PutIn(key, value) => match file.pointer_mut(place) {
                Some(Value::Object(table)) => drop(table.insert(key, value)),
                Some(Value::Array(list)) => list.push(value),
                _ => {}
            },
        }
    }
}

fn slip() -> impl Strategy<Value = Slip> {
    let keys = prop_oneof!["[a-z_]{1,8}", Just("name".to_owned()), Just("path".to_owned()), Just("a.b".to_owned())];
    prop_oneof![
        6 => any_value().prop_map(Slip::Replace),
        1 => Just(Slip::TakeOut),
        2 => (keys, any_value()).prop_map(|(key, value)| Slip::PutIn(key, value)),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    const TEXTS: [&str; 14] =
        ["", "x", "/", "=/x", "0s", "1h30m", "1.5s", "64KiB", "100/1m", "1/m", "GET", "a.b:1", "${PORT}", "$${"];
    const NUMBERS: [i64; 7] = [-1, 0, 1, 200, 65_536, u32::MAX as i64 + 1, i64::MAX];
    let plain = prop_oneof![
        prop::sample::select(&TEXTS[..]).prop_map(Value::from),
        "[0-9]{1,3}(d|h|m|s|ms|us|B|KB|KiB|/1s)".prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
        prop::sample::select(&NUMBERS[..]).prop_map(Value::from),
        prop::sample::select(&[0.0, 0.5, 1.0, 1.5, -0.5, 1e300][..]).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ];
    let list = |value: Value| json!([value]);
    let table = |value: Value| json!({ "a": value });
    prop_oneof![
        6 => plain.clone(),
        1 => plain.clone().prop_map(list),
        1 => plain.prop_map(table),
        1 => prop::sample::select(vec![json!([]), json!({}), json!([{}]), json!([[]])]),
    ]
}

/// The reference with everything switched on.
fn whole_file() -> Value {
    let (document, _) = document::read(&reference::uncommented()).expect("it is TOML");
    value(document)
}

fn value(node: Node) -> Value {
    match node {
        Node::Text(text) => text.into(),
        Node::Integer(number) => number.into(),
        Node::Float(number) => number.into(),
        Node::Boolean(boolean) => boolean.into(),
        Node::Date(date) => unreachable!("no key takes a date: {date}"),
        Node::List(list) => list.into_iter().map(value).collect(),
        Node::Table(entries) => entries.into_iter().map(|(key, node)| (key, value(node))).collect::<Map<_, _>>().into(),
    }
}

/// A line for each key. What JSON escapes in texts, TOML does as well.
fn toml(file: &Value) -> String {
    let entries = file.as_object().into_iter().flatten();
    entries.fold(String::new(), |mut text, (key, value)| {
        writeln!(text, "{} = {}", json!(key), inline(value)).expect("a String takes every write");
        text
    })
}

fn inline(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let entries = table.iter().map(|(key, value)| format!("{} = {}", json!(key), inline(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}

/// Of everything below the root.
fn pointers(value: &Value, at: String) -> Vec<String> {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(table) => table.iter().map(|(key, value)| (format!("{at}/{}", escaped(key)), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(at_, value)| (format!("{at}/{at_}"), value)).collect(),
        _ => Vec::new(),
    };
    below.into_iter().flat_map(|(at, value)| [vec![at.clone()], pointers(value, at)].concat()).collect()
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescaped(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

/// What the schema has against a file.
fn refusals(file: &Value) -> Vec<String> {
    let root = schema();
    let mut told = Vec::new();
    Validator { root: &root }.look(&root, file, "", &mut told);
    told
}

/// As much of JSON Schema as ours has; a keyword that it does not know is a panic. A library for all of it brings thirty
/// others.
struct Validator<'s> {
    root: &'s Value,
}

impl Validator<'_> {
    fn look(&self, schema: &Value, value: &Value, at: &str, told: &mut Vec<String>) {
        if schema == &json!(false) {
            return told.push(format!("{at}: nothing can stand here"));
        }
        for (keyword, argument) in schema.as_object().into_iter().flatten() {
            match keyword.as_str() {
                "$ref" => {
                    let pointer = argument.as_str().and_then(|text| text.strip_prefix('#')).expect("a place in it");
                    self.look(self.root.pointer(pointer).expect("it is there"), value, at, told);
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.look(argument, item, &format!("{at}[{index}]"), told);
                    }
                }
                "properties" | "additionalProperties" => {
                    for (key, value) in value.as_object().into_iter().flatten() {
                        let named = schema["properties"].get(key);
                        let own = if keyword == "properties" { named } else { named.xor(Some(argument)) };
                        own.into_iter().for_each(|own| self.look(own, value, &format!("{at}.{key}"), told));
                    }
                }
                _ if self.holds(keyword, argument, value) => {}
                _ => told.push(format!("{at}: {keyword} {argument}")),
            }
        }
    }

    /// A keyword that is about the value as a whole.
    fn holds(&self, keyword: &str, argument: &Value, value: &Value) -> bool {
        let takes = |schema: &&Value| {
            let mut told = Vec::new();
            self.look(schema, value, "", &mut told);
            told.is_empty()
        };
        let each = || argument.as_array().into_iter().flatten();
        let size = |value: usize| value as u64 >= argument.as_u64().expect("a number");
        let number = |fits: fn(f64, f64) -> bool| {
            value.as_f64().is_none_or(|number| fits(number, argument.as_f64().expect("a number")))
        };
        match keyword {
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" | "format" => true,
            "type" if argument.is_array() => each().any(|kind| is_of(kind, value)),
            "type" => is_of(argument, value),
            "enum" => each().any(|word| word == value),
            "const" => argument == value,
            "anyOf" => each().any(|schema| takes(&schema)),
            "oneOf" => each().filter(takes).count() == 1,
            "minimum" => number(|number, least| number >= least),
            "maximum" => number(|number, most| number <= most),
            "minLength" => value.as_str().is_none_or(|text| size(text.chars().count())),
            "minItems" => value.as_array().is_none_or(|list| size(list.len())),
            "pattern" => {
                let pattern = Regex::new(argument.as_str().expect("a text")).expect("a pattern");
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "required" => {
                let mut keys = each().filter_map(Value::as_str);
                value.as_object().is_none_or(|table| keys.all(|key| table.contains_key(key)))
            }
            other => panic!("the schema has a keyword that this test does not know: {other}"),
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a word") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        // One without a fraction is whole, however it is written (JSON Schema core, section 4.2.3).
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type: {other}"),
    }
}
