//! `flagstone reload`: ask the running process to read its configuration again.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::client::OrderArguments;

/// Building a large configuration takes a while, and reloads wait for each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints what changed; exit 1 when it was refused, with all that is wrong.
pub(super) fn run(arguments: &OrderArguments) -> ExitCode {
    arguments.order("/api/admin/reload", PATIENCE, told)
}

fn told(answer: &Value) -> String {
    let changes: Vec<_> = answer["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = format!("reloaded: generation {}", answer["generation"]);
    match changes.is_empty() {
        true => text += ", nothing changed",
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
        let answer = json!({ "generation": 3, "changes": ["routes: +api ~web -old", "log: changed"] });
        assert_eq!(told(&answer), "reloaded: generation 3\n  routes: +api ~web -old\n  log: changed\n");
        assert_eq!(told(&json!({ "generation": 4, "changes": [] })), "reloaded: generation 4, nothing changed\n");
    }
}
