//! What to do about a text that is no TOML: the slips that people make, told by the line that the parser stopped at.
//!
//! Never shows a value: it may be a secret.

/// What to do about the line at `position` of `text`, where the parser said `message`.
pub(super) fn remedy(text: &str, position: (usize, usize), message: &str) -> Option<String> {
    let (number, column) = position;
    let whole = text.lines().nth(number - 1)?;
    let line = whole.trim();
    if message.starts_with("duplicate key") {
        let before: String = whole.chars().take(column - 1).collect();
        // Of a table in one line, what is meant is neither the line's own key nor another line's.
        return Some(match before.contains('{') {
            true => format!("{} is there twice: leave one of the two", key(&whole[before.len()..])),
            false => duplicate(text, number, line),
        });
    }
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let another = |what: &str| Some(format!("this looks like {what}, TOML writes [table] and key = value"));
    match line {
        _ if first.starts_with('{') => another("JSON"),
        _ if is_yaml(line) => another("YAML"),
        _ if !line.contains('=') && line.ends_with(['{', ';']) || line.starts_with('}') => {
            another("a configuration of nginx or Caddy")
        }
        _ => value_remedy(line, message),
    }
}

/// Where the first one is.
fn duplicate(text: &str, number: usize, line: &str) -> String {
    let before = || text.lines().map(str::trim).enumerate().take(number - 1);
    let (name, first) = match line.starts_with('[') {
        true => {
            let header = header(line);
            (header, before().find(|(_, other)| self::header(other) == header && other.starts_with('[')))
        }
        false => {
            let key = key(line);
            // Within the table that the line is in.
            let start = before().filter(|(_, other)| other.starts_with('[')).last().map_or(0, |(at, _)| at);
            (key, before().skip(start).find(|(_, other)| other.contains('=') && self::key(other) == key))
        }
    };
    if let Some((at, _)) = first {
        return format!("{name} stands in line {} already: leave one of the two", at + 1);
    }
    match before().find_map(|(at, other)| Some((at, part_of(name, other)?))) {
        Some((at, part)) => format!("{part} in line {} is a part of it: put that below {name}", at + 1),
        None => format!("{name} is there twice: leave one of the two"),
    }
}

/// The header or key in a line that made a table of what `header` is to begin: `[listener.tls]` before `[[listener]]`.
fn part_of<'l>(header: &str, line: &'l str) -> Option<&'l str> {
    let part = if line.starts_with('[') { self::header(line) } else { key(line) };
    let below = part.trim_start_matches('[').strip_prefix(header.trim_matches(['[', ']']))?;
    below.starts_with('.').then_some(part)
}

fn header(line: &str) -> &str {
    line.rfind(']').map_or(line, |end| &line[..=end])
}

fn key(line: &str) -> &str {
    line.split('=').next().unwrap_or(line).trim()
}

/// `key: value` or `- item`.
fn is_yaml(line: &str) -> bool {
    let line = line.strip_prefix("- ").unwrap_or(line);
    let word = line.split(':').next().unwrap_or_default();
    let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    is_word && line[word.len()..].starts_with(':') && !line.contains('=')
}

fn value_remedy(line: &str, message: &str) -> Option<String> {
    if message.contains("string, expected") && message.contains('"') {
        return Some("close the quotes in the same line".to_owned());
    }
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_quoted = value.starts_with(['"', '\'', '[', '{']);
    let is_plain = value.parse::<f64>().is_ok() || ["true", "false"].contains(&value);
    match value {
        "" => Some(format!("write the value behind {key} =, in the same line")),
        _ if is_quoted || is_plain => None,
        _ => Some(format!("a text stands in quotes: {key} = \"…\"")),
    }
}
