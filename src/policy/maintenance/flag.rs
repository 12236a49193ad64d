//! What a flag file says: read from any bytes, written as TOML.
//!
//! Reading never fails, because the file's being there is what counts: whatever cannot be understood is
//! left out and named in one [`Warning`], and what remains holds.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use jiff::fmt::friendly::{Spacing, SpanPrinter};
use jiff::{SignedDuration, Timestamp};
use toml::{Table, Value};

use super::super::access::canonical;
use crate::config::duration;
use crate::route::{HostPattern, PathPattern};

/// Longer messages are cut: they go out with every blocked request.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Bound of `reason` and `by`.
pub const LINE_BYTES_MAX: usize = 512;
/// Bound of `routes`, `hosts`, `paths` and `allow`, each: they are looked through per request.
pub const LIST_ENTRIES_MAX: usize = 256;

/// The content of a flag file. The default is an empty file: everything is in maintenance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flag {
    /// One line.
    pub reason: Option<String>,
    /// May have several lines.
    pub message: Option<String>,
    /// `None` = when the file was last written.
    pub started_at: Option<Timestamp>,
    /// When the end is expected; `None` = not known.
    pub until: Option<Timestamp>,
    pub mode: Mode,
    /// Names of routes; empty = any, and also what no route matches.
    pub routes: Vec<String>,
    /// Empty = any.
    pub hosts: Vec<HostPattern>,
    /// Empty = any.
    pub paths: Vec<PathPattern>,
    /// Clients that see the app; read in canonical form.
    pub allow: Vec<IpNet>,
    /// How long what is in flight may still take; `None` = nothing was said.
    pub grace: Option<Duration>,
    /// Cut what is still in flight when `grace` is over; never true where it is in doubt what is to be cut, or when.
    pub terminate: bool,
    /// Remove the file at `until`; never true without one.
    pub auto_end: bool,
    /// Who wrote the file.
    pub by: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Full,
    /// GET, HEAD and OPTIONS pass.
    ReadOnly,
    /// Blocks what `Full` blocks; announced as an emergency.
    Emergency,
}

/// Everything in one flag that could not be used, as one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl Flag {
    /// Reads what a flag file holds. Nothing in it can turn maintenance off.
    pub fn parse(bytes: &[u8]) -> (Self, Option<Warning>) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() {
            return (Self::default(), None);
        }
        let table = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Table>().ok());
        if let Some(table) = table.filter(|table| table.is_empty() || table.keys().any(|key| is_known(key))) {
            return Self::from_table(&table);
        }
        let message = clean(&String::from_utf8_lossy(bytes), MESSAGE_BYTES_MAX, true);
        let flag = Self { message: (!message.is_empty()).then_some(message), ..Self::default() };
        (flag, Some(Warning("the content is not a flag's TOML and is taken as the message".to_owned())))
    }

    /// Reads the keys of a flag, as they stand in a file or came in another format.
    pub fn from_table(table: &Table) -> (Self, Option<Warning>) {
        let mut flag = Self::default();
        let mut problems = Vec::new();
        let mut is_doubtful = false;
        for (key, value) in table {
            let before = problems.len();
            if let Err(problem) = flag.set(key, value, &mut problems) {
                problems.push(format!("{key}: {problem}"));
            }
            is_doubtful |= problems.len() > before && !is_told_only(key);
        }
        if flag.terminate && is_doubtful {
            // Whoever wrote a grace did not mean "at once", nor "everything" with some routes. The key may be misspelt.
            flag.terminate = false;
            problems.push("terminate: is left out, for what is to be cut, and when, is in doubt".to_owned());
        }
        if flag.auto_end && flag.until.is_none() {
            flag.auto_end = false;
            problems.push("auto_end: has no meaning without until".to_owned());
        }
        let warning = (!problems.is_empty()).then(|| Warning(problems.join("; ")));
        (flag, warning)
    }

    /// The file's text; [`Flag::parse`] reads the same flag from it. The default flag is an empty text.
    pub fn to_toml(&self) -> String {
        let mut table = Table::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                table.insert(key.to_owned(), value);
            }
        };
        let time = |time: &Timestamp| Value::String(time.to_string());
        put("reason", self.reason.clone().map(Value::String));
        put("message", self.message.clone().map(Value::String));
        put("started_at", self.started_at.as_ref().map(time));
        put("until", self.until.as_ref().map(time));
        put("mode", (self.mode != Mode::Full).then(|| Value::String(self.mode.name().to_owned())));
        put("routes", list(&self.routes));
        put("hosts", list(&self.hosts));
        put("paths", list(&self.paths));
        put("allow", list(&self.allow));
        put("grace", self.grace.map(duration_value));
        put("terminate", self.terminate.then_some(Value::Boolean(true)));
        put("auto_end", self.auto_end.then_some(Value::Boolean(true)));
        put("by", self.by.clone().map(Value::String));
        table.to_string()
    }

    fn set(&mut self, key: &str, value: &Value, problems: &mut Vec<String>) -> Result<(), String> {
        match key {
            "reason" => self.reason = line(value)?,
            "message" => self.message = text(value, MESSAGE_BYTES_MAX, true)?,
            "started_at" => self.started_at = Some(timestamp(value)?),
            "until" => self.until = Some(timestamp(value)?),
            "mode" => self.mode = mode(value)?,
            "routes" => self.routes = each(key, value, problems, |name| Some(name.to_owned()))?,
            "hosts" => self.hosts = each(key, value, problems, |host| HostPattern::parse(host).ok())?,
            "paths" => self.paths = each(key, value, problems, path)?,
            "allow" => self.allow = each(key, value, problems, |text| network(text).map(canonical))?,
            "grace" => self.grace = Some(grace(value)?),
            "terminate" => self.terminate = boolean(value)?,
            "auto_end" => self.auto_end = boolean(value)?,
            "by" => self.by = line(value)?,
            _ => return Err("is no key of a flag".to_owned()),
        }
        Ok(())
    }
}

impl Mode {
    /// As it is written in a flag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Emergency => "emergency",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `10.0.0.0/8`, or one address.
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()))
}

/// As the configuration writes it (`"1h30m"`, `"7d"`); `"1.5h"`, `"1 hour"` and `"PT1H"` are understood, too.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    duration::parse(text).or_else(|problem| {
        let freely = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
        freely.map_or(Err(problem), duration::bounded)
    })
}

/// As a route writes it, but that `/api/` covers `/api`, too: in doubt a flag covers more.
fn path(text: &str) -> Option<PathPattern> {
    let short = if text.starts_with('=') { text } else { text.trim_end_matches('/') };
    PathPattern::parse(if short.is_empty() { text } else { short }).ok()
}

fn is_known(key: &str) -> bool {
    const KEYS: [&str; 13] = [
        "reason",
        "message",
        "started_at",
        "until",
        "mode",
        "routes",
        "hosts",
        "paths",
        "allow",
        "grace",
        "terminate",
        "auto_end",
        "by",
    ];
    KEYS.contains(&key)
}

/// Whether a key has no part in what is cut, and when.
fn is_told_only(key: &str) -> bool {
    matches!(key, "reason" | "message" | "started_at" | "until" | "auto_end" | "by")
}

fn line(value: &Value) -> Result<Option<String>, String> {
    text(value, LINE_BYTES_MAX, false)
}

fn text(value: &Value, bytes_max: usize, lines: bool) -> Result<Option<String>, String> {
    let text = clean(value.as_str().ok_or_else(|| format!("{} is not text", shown(value)))?, bytes_max, lines);
    Ok((!text.is_empty()).then_some(text))
}

/// Without control characters (they have no place in a page or a log line), trimmed, at most `bytes_max`.
fn clean(text: &str, bytes_max: usize, lines: bool) -> String {
    let mut clean = String::with_capacity(text.len().min(bytes_max));
    for c in text.trim().chars() {
        let c = match c {
            '\r' => continue,
            '\n' if lines => c,
            c if c.is_whitespace() => ' ',
            c if c.is_control() => continue,
            c => c,
        };
        if clean.len() + c.len_utf8() > bytes_max {
            break;
        }
        clean.push(c);
    }
    // Dropping control characters may have bared blanks at the edges.
    let trimmed = clean.trim();
    if trimmed.len() == clean.len() { clean } else { trimmed.to_owned() }
}

/// In a warning: with the value in it, another mistake is another warning.
fn shown(value: &Value) -> String {
    clean(&value.to_string(), 80, false)
}

fn timestamp(value: &Value) -> Result<Timestamp, String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Datetime(datetime) => datetime.to_string(),
        value => value.to_string(),
    };
    // What is meant to be for ever is often the last second of the year 9999, which has one that is beyond what a
    // Timestamp holds: the year before tells whether it is a time.
    let last = || text.strip_prefix("9999-").filter(|rest| format!("9998-{rest}").parse::<Timestamp>().is_ok());
    match text.parse() {
        Err(_) if last().is_some() => Ok(Timestamp::MAX),
        parsed => parsed.map_err(|_| format!("{} is not an RFC 3339 time such as 2030-01-31T22:00:00Z", shown(value))),
    }
}

fn mode(value: &Value) -> Result<Mode, String> {
    [Mode::Full, Mode::ReadOnly, Mode::Emergency]
        .into_iter()
        .find(|mode| value.as_str() == Some(mode.name()))
        .ok_or_else(|| format!("{} is none of full, read_only, emergency", shown(value)))
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{} is neither true nor false", shown(value)))
}

fn grace(value: &Value) -> Result<Duration, String> {
    let seconds = match value {
        Value::String(text) => return parse_duration(text).map_err(|problem| format!("{}: {problem}", shown(value))),
        Value::Integer(seconds) => u64::try_from(*seconds).ok(),
        _ => None,
    };
    let seconds = seconds.ok_or_else(|| format!("{} is no duration such as \"30s\"", shown(value)))?;
    duration::bounded(Duration::from_secs(seconds)).map_err(|problem| format!("{}: {problem}", shown(value)))
}

/// As the configuration writes it: `"1h30m"`. To the nanosecond, for that is how finely one can be given.
fn duration_value(duration: Duration) -> Value {
    const PRINTER: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);
    Value::String(PRINTER.unsigned_duration_to_string(&duration))
}

/// A list of texts, or one text. Elements that cannot be used are left out and reported.
fn each<T>(
    key: &str,
    value: &Value,
    problems: &mut Vec<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    let elements = match value {
        Value::Array(elements) => elements.as_slice(),
        Value::String(_) => std::slice::from_ref(value),
        _ => return Err(format!("{} is not a list of texts", shown(value))),
    };
    if elements.len() > LIST_ENTRIES_MAX {
        problems.push(format!("{key}: only the first {LIST_ENTRIES_MAX} entries are used"));
    }
    let mut parsed = Vec::new();
    for element in elements.iter().take(LIST_ENTRIES_MAX) {
        let text = element.as_str().map(str::trim).filter(|text| !text.is_empty());
        match text.and_then(&parse) {
            Some(element) => parsed.push(element),
            None => problems.push(format!("{key}: {} cannot be used", shown(element))),
        }
    }
    Ok(parsed)
}

fn list<T: ToString>(elements: &[T]) -> Option<Value> {
    let texts = elements.iter().map(|element| Value::String(element.to_string()));
    (!elements.is_empty()).then(|| Value::Array(texts.collect()))
}

#[cfg(test)]
mod tests;
