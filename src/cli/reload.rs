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
            let loaded = relative_of(&before["loadedAt"], now).replace("now", "just now");
            text += &format!(", no setting changed since generation {} was loaded {loaded}", before["generation"]);
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
        let answer = json!({ "generation": 3, "changes": ["routes: +api ~web -old", "log: changed"] });
        assert_eq!(told(&answer), "reloaded: generation 3\n  routes: +api ~web -old\n  log: changed\n");
        assert_eq!(
            told(&json!({ "generation": 4, "changes": [] })),
            "reloaded: generation 4, no setting changed since generation 2 was loaded 2s ago\n"
        );
    }
}
