//! Holds the document against the schema: unknown keys, wrong types, values out of their set or range.
//!
//! Everything wrong is reported and left out, so that what remains always deserialises and the rest of the
//! file is still checked. What was left out is remembered: a key that is there but wrong is not also missing.

use std::collections::BTreeSet;

use serde_json::{Map, Number, Value};

use super::document::{Node, Path, without_indices};
use super::expand::{Env, Expanded, expand};
use super::problem::{Problem, did_you_mean, nearest, one_of};
use super::schema::INLINE;
use super::variables::Variables;

/// What remains of a document, and what was wrong with it.
pub(super) struct Shaped {
    /// Deserialises into [`raw::File`].
    pub(super) value: Value,
    pub(super) problems: Vec<Problem>,
    /// Places left out, and places that a misspelt key most likely meant.
    pub(super) spoilt: BTreeSet<String>,
    pub(super) variables: Variables,
}

/// Expands variables in strings and fits the document to the schema.
pub(super) fn fit(document: &Node, env: Env<'_>) -> Shaped {
    let mut walk = Walk { env, problems: Vec::new(), spoilt: BTreeSet::new(), variables: Variables::default() };
    let value = walk.node(document, &INLINE, &Path::root()).unwrap_or_else(|| Value::Object(Map::new()));
    let Walk { problems, spoilt, variables, .. } = walk;
    Shaped { value, problems, spoilt, variables }
}

struct Walk<'a> {
    env: Env<'a>,
    problems: Vec<Problem>,
    spoilt: BTreeSet<String>,
    variables: Variables,
}

impl Walk<'_> {
    /// The fitted value; `None` = reported and left out.
    fn node(&mut self, node: &Node, schema: &Value, path: &Path) -> Option<Value> {
        let fitted = match node {
            Node::Table(entries) => {
                let Some(schema) = alternative(schema, "object") else {
                    return self.wrong_type(node, schema, path);
                };
                return Some(self.table(entries, schema, path));
            }
            Node::List(elements) => {
                let Some(schema) = alternative(schema, "array") else {
                    return self.wrong_type(node, schema, path);
                };
                let element = |(index, inner)| self.node(inner, &schema["items"], &path.index(index));
                return Some(Value::Array(elements.iter().enumerate().filter_map(element).collect()));
            }
            Node::Text(text) => return self.text(node, text, schema, path),
            Node::Integer(number) => Value::from(*number),
            Node::Float(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
            Node::Boolean(boolean) => Value::Bool(*boolean),
            Node::Date(_) => return self.wrong_type(node, schema, path),
        };
        self.scalar(fitted, node, schema, path)
    }

    fn table(&mut self, entries: &[(String, Node)], schema: &Value, path: &Path) -> Value {
        let known = schema["properties"].as_object();
        let others = Some(&schema["additionalProperties"]).filter(|others| others.is_object());
        let mut fitted = Map::new();
        for (key, node) in entries {
            let below = path.key(key);
            match known.and_then(|known| known.get(key)).or(others) {
                Some(inner) if others.is_some() && is_key_of_named(key, node, inner) => {
                    self.nameless(key, node, inner, path);
                }
                Some(schema) => {
                    if let Some(value) = self.node(node, schema, &below) {
                        fitted.insert(key.clone(), value);
                    }
                }
                None => self.unknown_key(key, known, path),
            }
        }
        Value::Object(fitted)
    }

    /// `[upstream]` with an upstream's keys: the name is missing.
    fn nameless(&mut self, key: &str, node: &Node, schema: &Value, path: &Path) {
        self.wrong_type(node, schema, &path.key(key));
        if let Some(problem) = self.problems.last_mut() {
            let table = path.as_str();
            problem.help = Some(format!("give it a name, [{table}.NAME], and put \"{key}\" there"));
        }
        self.spoilt.insert(path.as_str().to_owned());
    }

    fn unknown_key(&mut self, key: &str, known: Option<&Map<String, Value>>, path: &Path) {
        let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let help = match nearest(key, names.iter().copied()) {
            Some(best) => {
                self.spoilt.insert(path.key(best).as_str().to_owned());
                format!("did you mean \"{best}\"?")
            }
            None => no_such_key(key, names, path),
        };
        self.problems.push(Problem::new(path.key(key).as_str(), "unknown key").with_help(help));
    }

    /// A text with a variable in it may stand for a number or a boolean: `workers = "${WORKERS:-0}"`.
    fn text(&mut self, node: &Node, text: &str, schema: &Value, path: &Path) -> Option<Value> {
        let Expanded { text: value, changed, held } = match expand(text, self.env) {
            Ok(expanded) => expanded,
            Err((message, help)) => {
                return self.refuse(Problem::new(path.as_str(), message).with_help(help), path);
            }
        };
        if changed {
            self.variables.note(path.as_str(), text, held);
        }
        if alternative(schema, "string").is_some() || !changed {
            return self.scalar(Value::String(value), node, schema, path);
        }
        let fits = |value: &Value| kinds(value).iter().any(|kind| alternative(schema, kind).is_some());
        match serde_json::from_str(&value).ok().filter(fits) {
            Some(value @ (Value::Bool(_) | Value::Number(_))) => self.scalar(value, node, schema, path),
            _ => {
                let problem = Problem::new(path.as_str(), format!("must be {}", expected(schema)));
                // It may hold a secret: its name has to do.
                self.refuse(problem.with_text(text).with_help("look at the variable"), path)
            }
        }
    }

    fn scalar(&mut self, value: Value, node: &Node, schema: &Value, path: &Path) -> Option<Value> {
        let Some(found) = kinds(&value).iter().find_map(|kind| alternative(schema, kind)) else {
            return self.wrong_type(node, schema, path);
        };
        let problem = match &value {
            Value::String(text) => out_of_set(text, found),
            Value::Number(number) => out_of_range(number, found),
            _ => None,
        };
        match problem {
            Some((message, help)) => {
                let problem = Problem { help, ..Problem::new(path.as_str(), message) };
                let problem = match node {
                    // As it was written, with the names of its variables.
                    Node::Text(text) => problem.with_text(text),
                    _ => problem.with_value(value.to_string()),
                };
                self.refuse(problem, path)
            }
            None => Some(value),
        }
    }

    fn wrong_type(&mut self, node: &Node, schema: &Value, path: &Path) -> Option<Value> {
        let mut problem = Problem::new(path.as_str(), format!("must be {}", expected(schema)));
        problem.help = table_remedy(node, schema, path);
        let problem = match node {
            _ if holds_secret(path) => problem,
            Node::Text(text) => problem.with_text(text),
            Node::Integer(number) => problem.with_value(number.to_string()),
            // Else `2.0` would be told that a whole number is wanted as `2`.
            Node::Float(number) => problem.with_value(format!("{number:?}")),
            Node::Boolean(boolean) => problem.with_value(boolean.to_string()),
            Node::Date(date) => problem.with_value(date.clone()),
            Node::List(_) => problem.with_value("[…]"),
            Node::Table(_) => problem.with_value("{…}"),
        };
        self.refuse(problem, path)
    }

    fn refuse(&mut self, problem: Problem, path: &Path) -> Option<Value> {
        self.problems.push(problem);
        self.spoilt.insert(path.as_str().to_owned());
        None
    }
}

/// What the schema calls a single value.
fn kinds(value: &Value) -> &'static [&'static str] {
    match value {
        Value::String(_) => &["string"],
        Value::Bool(_) => &["boolean"],
        Value::Number(number) if number.is_f64() => &["number"],
        Value::Number(_) => &["integer", "number"],
        _ => &[],
    }
}

/// A token without its quotes is a number, and still not to be shown; so is a webhook's URL that stands in place of its
/// table.
fn holds_secret(path: &Path) -> bool {
    ["token", "url", "redis", "notify"].iter().any(|key| path.as_str().ends_with(key))
}

/// The part of the schema that takes this kind of value: itself, or one of its alternatives.
fn alternative<'a>(schema: &'a Value, kind: &str) -> Option<&'a Value> {
    match &schema["type"] {
        Value::String(own) => return (own == kind).then_some(schema),
        Value::Array(several) => return several.iter().any(|own| own == kind).then_some(schema),
        _ => {}
    }
    if schema["oneOf"].is_array() && kind == "string" && !words(schema).is_empty() {
        return Some(schema);
    }
    ["anyOf", "oneOf", "allOf"]
        .into_iter()
        .filter_map(|several| schema[several].as_array())
        .flatten()
        .find_map(|schema| alternative(schema, kind))
}

/// The words an enum takes; empty = any text.
fn words(schema: &Value) -> Vec<&str> {
    if let Some(listed) = schema["enum"].as_array() {
        return listed.iter().filter_map(Value::as_str).collect();
    }
    let each = schema["oneOf"].as_array().into_iter().flatten();
    each.flat_map(|one| one["const"].as_str().into_iter().chain(words_of_enum(one))).collect()
}

fn words_of_enum(one: &Value) -> impl Iterator<Item = &str> {
    one["enum"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn out_of_set(text: &str, schema: &Value) -> Option<(String, Option<String>)> {
    let words = words(schema);
    if words.is_empty() || words.contains(&text) {
        return None;
    }
    let help = did_you_mean(text, words.iter().copied());
    Some((format!("must be {}", one_of(words)), help))
}

fn out_of_range(number: &Number, schema: &Value) -> Option<(String, Option<String>)> {
    let value = number.as_f64()?;
    let (low, high) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    let message = match (low, high) {
        (Some(low), Some(high)) if value < low || value > high => format!("must be from {low} to {high}"),
        (Some(low), None) if value < low => format!("must be {low} or more"),
        (None, Some(high)) if value > high => format!("must be {high} or less"),
        _ => return None,
    };
    Some((message, None))
}

/// What belongs here, in words.
fn expected(schema: &Value) -> String {
    if let Some(title) = schema["title"].as_str().filter(|title| title.starts_with("a ")) {
        return title.to_owned();
    }
    let words = words(schema);
    if !words.is_empty() {
        return one_of(words);
    }
    let named = |kind: &str| match kind {
        "string" => "a string in quotes",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" if schema["items"]["type"] == "object" => "a list of tables",
        "array" => "a list in square brackets",
        "object" => "a table",
        _ => "left out",
    };
    match &schema["type"] {
        Value::String(kind) => named(kind).to_owned(),
        Value::Array(kinds) => {
            let kinds = kinds.iter().filter_map(Value::as_str).filter(|&kind| kind != "null");
            kinds.map(named).collect::<Vec<_>>().join(" or ")
        }
        _ => {
            let several = ["anyOf", "oneOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten();
            let parts: Vec<String> = several.filter(|one| one["type"] != "null").map(expected).collect();
            parts.join(" or ")
        }
    }
}

/// `[route]` for `[[route]]` and `[[upstream]]` for `[upstream.NAME]` are slips of their own.
fn table_remedy(node: &Node, schema: &Value, path: &Path) -> Option<String> {
    let header = without_indices(path.as_str());
    let own = path.as_str().rsplit('.').next().unwrap_or_default();
    let takes_tables = || alternative(schema, "array").is_some_and(|list| list["items"]["type"] == "object");
    match node {
        Node::Table(_) | Node::Text(_) if takes_tables() => Some(format!("write [[{header}]], with two brackets")),
        Node::Table(_) => None,
        Node::List(_) if alternative(schema, "object")?["additionalProperties"]["type"] == "object" => {
            Some(format!("write [{header}.NAME], with one pair of brackets and a name"))
        }
        Node::List(_) => Some(format!("write [{header}], with one pair of brackets")),
        Node::Text(text) if alternative(schema, "array").is_some() => match alternative(&schema["items"], "string") {
            Some(_) if !own.ends_with(['"', ']']) => Some(format!("write {own} = [\"{}\"]", text.escape_debug())),
            _ => Some("put it in square brackets".to_owned()),
        },
        Node::Text(_) if alternative(schema, "boolean").is_some() => {
            Some("write true or false without quotes".to_owned())
        }
        Node::Text(_) if ["integer", "number"].iter().any(|kind| alternative(schema, kind).is_some()) => {
            Some("write the number without quotes".to_owned())
        }
        Node::Integer(number) if *number > 0 && expected(schema).starts_with("a duration") => {
            Some(format!("write \"{number}s\" for seconds"))
        }
        _ => {
            let keys = alternative(schema, "object")?["properties"].as_object()?;
            let own = if own.ends_with(']') { String::new() } else { format!("{own} = ") };
            Some(format!("write {own}{{ … }} with {}", one_of(keys.keys().map(String::as_str))))
        }
    }
}

/// Where a key that resembles no other belongs, and what there is instead, nearest first.
fn no_such_key(key: &str, mut names: Vec<&str>, path: &Path) -> String {
    if key == "include" {
        return "write it at the top of the file, before the first table".to_owned();
    }
    names.sort_by_key(|name| strsim::damerau_levenshtein(name, key));
    let in_section = !path.as_str().contains(['.', '[']);
    let elsewhere = match homes(key).filter(|_| in_section) {
        Some(homes) => format!("it belongs in {homes}; "),
        None => String::new(),
    };
    match names.split_first() {
        None => format!("{elsewhere}nothing can be set here"),
        Some((first, [])) => format!("{elsewhere}the only key here is \"{first}\""),
        Some((first, rest)) => {
            format!("{elsewhere}the nearest key here is \"{first}\", the others are {}", rest.join(", "))
        }
    }
}

/// Whether this stands where a name should, and is a key of what is named.
fn is_key_of_named(key: &str, node: &Node, schema: &Value) -> bool {
    schema["properties"].get(key).is_some() && !matches!(node, Node::Table(_))
}

/// The one or two sections that have a key of this name: `[bounds] or [[route]]`.
fn homes(key: &str) -> Option<String> {
    let sections = INLINE["properties"].as_object()?;
    let found = sections.iter().filter_map(|(section, schema)| {
        let (table, header) = if schema["items"].is_object() {
            (&schema["items"], format!("[[{section}]]"))
        } else if schema["additionalProperties"].is_object() {
            (&schema["additionalProperties"], format!("[{section}.NAME]"))
        } else {
            (schema, format!("[{section}]"))
        };
        table["properties"].get(key).map(|_| header)
    });
    let found: Vec<String> = found.collect();
    (1..=2).contains(&found.len()).then(|| found.join(" or "))
}
