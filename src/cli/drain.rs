//! `flagstone drain`: let the running process finish and end.

use std::process::ExitCode;

use serde_json::Value;

use super::client::{OrderArguments, PATIENCE};

/// Returns as soon as draining has begun.
pub(super) fn run(arguments: &OrderArguments) -> ExitCode {
    arguments.order("/api/admin/drain", "pid", PATIENCE, told)
}

fn told(answer: &Value) -> String {
    let seconds = |key: &str| answer[key].as_f64().unwrap_or_default();
    let (delay, grace) = (seconds("delaySeconds"), seconds("graceSeconds"));
    let when = match delay > 0.0 {
        true => format!("accepts for another {delay} s and ends within {grace} s of that"),
        false => format!("accepts no more and ends within {grace} s"),
    };
    format!("draining: process {} {when}\n", answer["pid"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::told;

    #[test]
    fn without_a_delay_none_is_told() {
        let at_once = told(&json!({ "pid": 7, "delaySeconds": 0.0, "graceSeconds": 30.0 }));
        assert_eq!(at_once, "draining: process 7 accepts no more and ends within 30 s\n");
        let later = told(&json!({ "pid": 7, "delaySeconds": 5.0, "graceSeconds": 1.5 }));
        assert_eq!(later, "draining: process 7 accepts for another 5 s and ends within 1.5 s of that\n");
    }
}
