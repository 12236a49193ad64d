//! `flagstone upgrade`: replace the running binary without dropping a connection.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::client::OrderArguments;

/// Above all that the running process waits for.
const PATIENCE: Duration = Duration::from_secs(90);

/// Returns when the new process has taken over; exit 1 when the old one serves on.
pub(super) fn run(arguments: &OrderArguments) -> ExitCode {
    arguments.order("/api/admin/upgrade", "previousPid", PATIENCE, told)
}

fn told(answer: &Value) -> String {
    format!(
        "upgraded: process {}, version {}, has taken over; process {} drains\n",
        answer["pid"],
        answer["version"].as_str().unwrap_or("unknown"),
        answer["previousPid"]
    )
}
