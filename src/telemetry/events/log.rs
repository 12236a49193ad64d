//! The event log: every event is logged, kept for a while and handed to listeners.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::event::{Event, Level, Value};
use super::format::{self, EVENT_TARGET};

/// Events kept for `GET /api/events`.
pub const RECENT: usize = 1000;

/// Events a listener may be behind before it misses the oldest.
const BEHIND_MAX: usize = 256;

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Counts from 1 without gaps since the start of the process.
    pub id: u64,
    pub unix_ms: u64,
    pub event: Event,
}

impl Record {
    /// One JSON object on one line: `id`, `time`, `level`, `message`, and the event's fields.
    pub fn to_json(&self) -> String {
        let (level, message) = (self.event.level().as_str(), self.event.message());
        let mut json = format::json_head(self.unix_ms, level, message);
        let mut fields = vec![("id", Value::Number(self.id as i64))];
        fields.extend(self.event.fields());
        format::json_fields(&mut json, &fields);
        json.push('}');
        json
    }
}

/// The log of events. Shared by everything that has something to tell.
#[derive(Debug)]
pub struct EventLog {
    recent: Mutex<Recent>,
    listeners: broadcast::Sender<Arc<Record>>,
}

#[derive(Debug, Default)]
struct Recent {
    last_id: u64,
    records: VecDeque<Arc<Record>>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl EventLog {
    pub fn new() -> Self {
        Self { recent: Mutex::default(), listeners: broadcast::Sender::new(BEHIND_MAX) }
    }

    /// Logs `event`, keeps it and tells the listeners.
    pub fn emit(&self, event: Event) {
        event.log();
        let mut recent = self.recent.lock();
        recent.last_id += 1;
        let record = Arc::new(Record { id: recent.last_id, unix_ms: format::unix_ms(), event });
        if recent.records.len() == RECENT {
            recent.records.pop_front();
        }
        recent.records.push_back(Arc::clone(&record));
        // Under the lock, so that listeners see the order of the ids. No listener is no error.
        let _ = self.listeners.send(record);
    }

    /// The last [`RECENT`] events at most, oldest first.
    pub fn recent(&self) -> Vec<Arc<Record>> {
        self.recent.lock().records.iter().cloned().collect()
    }

    /// The recent events and all that follow them, without a gap or a repetition in between. A listener more than
    /// 256 events behind gets `Lagged` and goes on with the oldest there is.
    pub fn subscribe(&self) -> (Vec<Arc<Record>>, broadcast::Receiver<Arc<Record>>) {
        let recent = self.recent.lock();
        let receiver = self.listeners.subscribe();
        (recent.records.iter().cloned().collect(), receiver)
    }
}

/// One `tracing` call with every field an event can have; those it has not are not recorded.
macro_rules! log_with_fields {
    ($level:expr, $message:expr, $fields:expr, [$($name:ident)*]) => {
        tracing::event!(
            target: EVENT_TARGET,
            $level,
            $($name = field($fields, stringify!($name)),)*
            "{}", $message
        )
    };
}

/// The fields in the order lines show them.
macro_rules! with_every_field {
    ($what:ident, $($arguments:tt)*) => {
        $what!(
            $($arguments)*,
            [scope mode by route file limit upstream endpoint window domain client path start end
             until from to check changes reason failure version error
             enforced
             generation pid days_left count dropped]
        )
    };
}

macro_rules! log_at {
    ($level:expr, $message:expr, $fields:expr) => {
        with_every_field!(log_with_fields, $level, $message, $fields)
    };
}

impl Event {
    /// Logs the event, and only that; see [`EventLog::emit`].
    pub fn log(&self) {
        let fields = &self.fields();
        match self.level() {
            Level::Info => log_at!(tracing::Level::INFO, self.message(), fields),
            Level::Warn => log_at!(tracing::Level::WARN, self.message(), fields),
            Level::Error => log_at!(tracing::Level::ERROR, self.message(), fields),
        }
    }
}

fn field<'a>(fields: &'a [(&'static str, Value)], wanted: &str) -> Option<&'a dyn tracing::Value> {
    let (_, value) = fields.iter().find(|(name, _)| *name == wanted)?;
    Some(match value {
        Value::Text(text) => text,
        Value::Number(number) => number,
        Value::Flag(flag) => flag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_left_out_of_the_log() {
        macro_rules! names {
            ($of:expr, [$($name:ident)*]) => {
                [$(stringify!($name)),*]
            };
        }
        let logged = with_every_field!(names, ());
        for (event, message) in crate::telemetry::events::tests::one_of_each() {
            for (name, _) in event.fields() {
                assert!(logged.contains(&name), "{message}: {name}");
            }
        }
    }

    fn blocked(count: u64) -> Event {
        Event::OperationBlocked { route: "api".to_owned(), count }
    }

    #[test]
    fn the_ring_keeps_the_last_thousand() {
        let log = EventLog::new();
        for count in 0..1500 {
            log.emit(blocked(count));
        }
        let recent = log.recent();
        assert_eq!(recent.len(), RECENT);
        assert_eq!(recent[0].id, 501);
        assert_eq!(recent[999].event, blocked(1499));
    }

    #[test]
    fn a_subscriber_misses_and_repeats_nothing() {
        let log = EventLog::new();
        log.emit(blocked(1));
        let (before, mut after) = log.subscribe();
        log.emit(blocked(2));
        assert_eq!(before.len(), 1);
        assert_eq!(after.try_recv().unwrap().id, 2);
        assert!(after.try_recv().is_err());
    }

    #[test]
    fn a_record_is_one_json_object() {
        let log = EventLog::new();
        log.emit(Event::ConfigurationRejected { generation: 3, error: "line 1\nline 2".to_owned() });
        let json = log.recent()[0].to_json();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["id"], 1);
        assert_eq!(value["message"], "Configuration rejected");
        assert_eq!(value["error"], "line 1\nline 2");
        assert_eq!(value["level"], "ERROR");
    }
}
