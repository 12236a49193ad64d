//! `${VAR}` and `${VAR:-default}` in strings; `$${` is a literal `${`.
//!
//! A dollar sign without a brace stays as it is, so `$uri` needs no escaping. Nothing nests: the end of an inner one would
//! be taken for that of the outer, and the rest for text.

/// Reads the environment, or what stands in for it.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What came of one string.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// Whether a variable (or its default) went in: such a text may stand for a number or a boolean.
    pub(super) changed: bool,
    /// What the environment gave; a default stands in the file for everybody to read.
    pub(super) held: Vec<String>,
}

/// Replaces every variable in `text`.
///
/// # Errors
/// Message and remedy, for the first variable that is not well written, or for all that are not set.
pub(super) fn expand(text: &str, env: Env<'_>) -> Result<Expanded, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut changed = false;
    let mut held = Vec::new();
    let mut unset = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        let (before, after) = rest.split_at(dollar);
        let inside = &after[2..];
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = inside;
            continue;
        }
        out.push_str(before);
        let Some(end) = inside.find('}') else {
            return Err((
                "\"${\" without its \"}\"".to_owned(),
                "close it, or write \"$${\" for a literal \"${\"".to_owned(),
            ));
        };
        match variable(&inside[..end], env)? {
            Filling::Held(value) => {
                out.push_str(&value);
                held.push(value);
            }
            Filling::Default(text) => out.push_str(text),
            Filling::Unset(name) if unset.contains(&name) => {}
            Filling::Unset(name) => unset.push(name),
        }
        changed = true;
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    if unset.is_empty() { Ok(Expanded { text: out, changed, held }) } else { Err(not_set(&unset)) }
}

fn not_set(names: &[&str]) -> (String, String) {
    match names {
        [name] => (
            format!("the environment variable {name} is not set"),
            format!("set it, or give a default: \"${{{name}:-default}}\""),
        ),
        names => (
            format!("the environment variables {} are not set", names.join(", ")),
            format!("set them, or give each a default: \"${{{}:-default}}\"", names[0]),
        ),
    }
}

/// What stands in for a variable.
enum Filling<'t> {
    Held(String),
    Default(&'t str),
    /// Nothing: the name of what has to be set.
    Unset(&'t str),
}

/// What the environment gives, else the default. As in a shell, that of `:-` also stands in for an empty variable.
fn variable<'t>(inside: &'t str, env: Env<'_>) -> Result<Filling<'t>, (String, String)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named {
        return Err((
            format!("\"${{{inside}}}\" names no environment variable"),
            "write \"${NAME}\" or \"${NAME:-default}\", or \"$${\" for a literal \"${\"".to_owned(),
        ));
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err((
            format!("the default of the environment variable {name} has a variable in it"),
            "write plain text for a default".to_owned(),
        ));
    }
    Ok(match (env(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Filling::Default(default),
        (Some(value), _) => Filling::Held(value),
        (None, Some(default)) => Filling::Default(default),
        (None, None) => Filling::Unset(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("app1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn text(input: &str) -> String {
        expand(input, &env).unwrap().text
    }

    #[test]
    fn variables_and_defaults_expand() {
        assert_eq!(text("${HOST}:3000"), "app1:3000");
        assert_eq!(text("${HOST}-${NONE:-x y}"), "app1-x y");
        assert_eq!(text("${EMPTY}"), "");
        assert_eq!(text("${EMPTY:-full}"), "full");
        assert_eq!(text("${NONE:-}"), "");
        assert_eq!(text("${NONE:-a:-b}"), "a:-b");
    }

    #[test]
    fn what_is_held_is_what_the_environment_gave() {
        assert_eq!(expand("${HOST}-${NONE:-x}-${HOST}", &env).unwrap().held, ["app1", "app1"]);
        assert!(expand("${NONE:-x}", &env).unwrap().held.is_empty());
    }

    #[test]
    fn dollars_without_braces_stay() {
        let expanded = expand("https://example.com$uri $$ $", &env).unwrap();
        assert_eq!(expanded.text, "https://example.com$uri $$ $");
        assert!(!expanded.changed);
    }

    #[test]
    fn a_doubled_dollar_is_a_literal_brace() {
        assert_eq!(text("$${HOST}"), "${HOST}");
        assert_eq!(text("$${${HOST}}"), "${app1}");
    }

    #[test]
    fn what_a_variable_holds_is_not_expanded_again() {
        let env = |_: &str| Some("${HOST}".to_owned());
        assert_eq!(expand("${A}", &env).unwrap().text, "${HOST}");
    }

    #[test]
    fn an_unset_variable_is_named() {
        assert!(expand("${NONE}", &env).unwrap_err().0.contains("NONE is not set"));
        let (message, help) = expand("${NONE}:${NEITHER}/${HOST}${NONE}", &env).unwrap_err();
        assert_eq!(message, "the environment variables NONE, NEITHER are not set");
        assert_eq!(help, "set them, or give each a default: \"${NONE:-default}\"");
    }

    #[test]
    fn what_names_no_variable_is_refused() {
        for input in ["${", "${}", "${1A}", "${A B}", "${A-b}", "${:-x}"] {
            assert!(expand(input, &env).is_err(), "{input}");
        }
    }

    #[test]
    fn a_variable_in_a_default_is_refused() {
        for input in ["${NONE:-${HOST}}", "${HOST:-${NONE:-x}}", "${NONE:-$${HOST}}"] {
            let (message, _) = expand(input, &env).unwrap_err();
            assert!(message.contains("has a variable in it"), "{input}: {message}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(input in "([${}:a-]|\\PC)*") {
            let _ = expand(&input, &env);
        }
    }
}
