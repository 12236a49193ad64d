//! How a log line looks: time, level, message, then the fields; as text or as one JSON object.
//!
//! The message comes before every field, so that `grep -c 'Maintenance mode activated'` counts events. Whatever a
//! value holds, a line is one line and puts no control character on a terminal.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::event::Value;
use crate::config::model::LogFormat;
use crate::error::with_causes;
use crate::telemetry::access_log::json;
use crate::telemetry::clock::Stamp;

/// The target of [`super::EventLog`]'s lines, for `[log] level` directives.
pub(super) const EVENT_TARGET: &str = "flagstone::event";

/// Text or JSON, changeable while it is in use; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Layout(Arc<AtomicBool>);

impl Layout {
    pub(super) fn new(format: LogFormat) -> Self {
        Self(Arc::new(AtomicBool::new(format == LogFormat::Json)))
    }

    pub(super) fn set(&self, format: LogFormat) {
        self.0.store(format == LogFormat::Json, Relaxed);
    }
}

impl<S, N> FormatEvent<S, N> for Layout
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let metadata = event.metadata();
        let target = metadata.target();
        // `log` is the bridge from the log crate: its records name their module in a field.
        if !target.starts_with("flagstone") && target != "log" {
            parts.push("module", target.to_owned());
        }
        let colour = writer.has_ansi_escapes();
        let line = match self.0.load(Relaxed) {
            false => parts.text(unix_ms(), metadata.level(), colour),
            true => parts.json(unix_ms(), metadata.level()),
        };
        writer.write_str(&line)
    }
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `2026-11-22T22:02:20.123Z`
pub(super) fn rfc3339(unix_ms: u64) -> String {
    let mut stamp = Stamp::in_zone(TimeZone::UTC);
    stamp.rfc3339(unix_ms).iter().map(|&byte| byte as char).collect()
}

/// A line taken apart.
#[derive(Default)]
pub(super) struct Parts {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Parts {
    fn push(&mut self, name: &'static str, text: String) {
        match name {
            "message" => self.message = text,
            "log.target" => self.fields.push(("module", Value::Text(text))),
            _ if name.starts_with("log.") => {}
            _ => self.fields.push((name, Value::Text(text))),
        }
    }

    fn text(&self, unix_ms: u64, level: &Level, colour: bool) -> String {
        let mut line = rfc3339(unix_ms);
        let _ = match (colour, ansi(level)) {
            (true, ansi) => write!(line, " \x1b[{ansi}m{level}\x1b[0m "),
            (false, _) => write!(line, " {level} "),
        };
        // Quotes are for telling a field's end; a message reads better with its own as they are.
        line.push_str(&escaped(&self.message).replace("\\\"", "\""));
        for (name, value) in &self.fields {
            let _ = match value {
                Value::Number(number) => write!(line, " {name}={number}"),
                Value::Flag(flag) => write!(line, " {name}={flag}"),
                Value::Text(text) if is_bare(text) => write!(line, " {name}={text}"),
                Value::Text(text) => write!(line, " {name}=\"{}\"", escaped(text)),
            };
        }
        line.push('\n');
        line
    }

    fn json(&self, unix_ms: u64, level: &Level) -> String {
        let mut line = json_head(unix_ms, level.as_str(), &self.message);
        json_fields(&mut line, &self.fields);
        line.push_str("}\n");
        line
    }
}

/// `{"time":…,"level":…,"message":…`, without the closing brace.
pub(super) fn json_head(unix_ms: u64, level: &str, message: &str) -> String {
    format!("{{\"time\":\"{}\",\"level\":\"{level}\",\"message\":\"{}\"", rfc3339(unix_ms), escaped(message))
}

/// `,"name":value` for each.
pub(super) fn json_fields(line: &mut String, fields: &[(&'static str, Value)]) {
    for (name, value) in fields {
        let _ = match value {
            Value::Number(number) => write!(line, ",\"{name}\":{number}"),
            Value::Flag(flag) => write!(line, ",\"{name}\":{flag}"),
            Value::Text(text) => write!(line, ",\"{name}\":\"{}\"", escaped(text)),
        };
    }
}

fn ansi(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    }
}

/// Text that needs no quotes to be told from its surroundings.
fn is_bare(text: &str) -> bool {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b"._-:/+@%*~,".contains(&b);
    !text.is_empty() && text.bytes().all(bare)
}

/// `text` without control characters, quotes or newlines, escaped as in JSON.
fn escaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    json::escape(&mut out, text.as_bytes());
    String::from_utf8(out).expect("escaping keeps UTF-8")
}

impl Visit for Parts {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::Number(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with("log.") {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            self.fields.push((field.name(), Value::Number(value)));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Flag(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field.name(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field.name(), with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T22:02:20.123Z
    const AT: u64 = 1_795_384_940_123;

    fn parts() -> Parts {
        let mut parts = Parts::default();
        parts.push("message", "Maintenance mode activated".to_owned());
        parts.push("scope", "global".to_owned());
        parts.push("reason", "a \"b\"\nINFO forged\x1b[31m".to_owned());
        parts.fields.extend([("count", Value::Number(3)), ("enforced", Value::Flag(false))]);
        parts
    }

    #[test]
    fn text_is_one_line_with_the_message_first() {
        assert_eq!(
            parts().text(AT, &Level::INFO, false),
            "2026-11-22T22:02:20.123Z INFO Maintenance mode activated scope=global \
             reason=\"a \\\"b\\\"\\nINFO forged\\u001b[31m\" count=3 enforced=false\n"
        );
    }

    #[test]
    fn colour_is_on_the_level_only() {
        let line = parts().text(AT, &Level::WARN, true);
        assert!(line.contains("Z \x1b[33mWARN\x1b[0m Maintenance"), "{line:?}");
    }

    #[test]
    fn json_is_one_object() {
        let line = parts().json(AT, &Level::INFO);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], "Maintenance mode activated");
        assert_eq!(value["reason"], "a \"b\"\nINFO forged\x1b[31m");
        assert_eq!((&value["count"], &value["enforced"]), (&3.into(), &false.into()));
        assert_eq!(line.lines().count(), 1);
    }
}
