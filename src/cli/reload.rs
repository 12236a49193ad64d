//! `flagstone reload`: ask the running process to read its configuration again.

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::client::OrderArguments;
use super::human::relative_of;

/// Building a large configuration takes a while, and reloads wait for each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints what changed; exit 1 when it was refused, with all that is wrong.
pub(super) fn run(arguments: &OrderArguments) -> ExitCode {
    arguments.order_after("/api/config", "/api/admin/reload", "generation", PATIENCE, |before, answer| {
        told(before, answer, Timestamp::now())
    })
}

/// The watcher may have been faster: whoever has just saved the file reads when it was loaded.
fn told(before: &Value, answer: &Value, now: Timestamp) -> String {
    let changes: Vec<_> = answer["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = format!("reloaded: generation {}", answer["generation"]);
    match changes.is_empty() {
        true => {
            let previous = answer["generation"].as_u64().map_or(0, |generation| generation.saturating_sub(1));
            // What was loaded between the two calls may be the very change that this was asked for.
            let loaded = match before["generation"] == previous {
                true => relative_of(&before["loadedAt"], now).replace("now", "just now"),
                false => "just now".to_owned(),
            };
            text += &format!(", no setting changed since generation {previous} was loaded {loaded}");
        }
        false => changes.iter().for_each(|change| text += &format!("\n  {change}")),
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_change_has_a_line() {
        let now = "2030-01-31T21:00:05Z".parse().unwrap();
        let before = json!({ "generation": 2, "loadedAt": "2030-01-31T21:00:03Z" });
        let told = |answer| told(&before, answer, now);
        let answer = json!({ "generation": 3, "changes": ["routes: +api ~web -old", "log: ~level"] });
        assert_eq!(told(&answer), "reloaded: generation 3\n  routes: +api ~web -old\n  log: ~level\n");
        assert_eq!(
            told(&json!({ "generation": 3, "changes": [] })),
            "reloaded: generation 3, no setting changed since generation 2 was loaded 2s ago\n"
        );
    }

    #[test]
    fn what_the_watcher_loads_between_the_two_calls_is_what_nothing_changed_since() {
        let before = json!({ "generation": 2, "loadedAt": "2030-01-31T20:00:00Z" });
        assert_eq!(
            told(&before, &json!({ "generation": 4, "changes": [] }), "2030-01-31T21:00:00Z".parse().unwrap()),
            "reloaded: generation 4, no setting changed since generation 3 was loaded just now\n"
        );
    }
}
