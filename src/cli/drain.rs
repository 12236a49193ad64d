//! `flagstone drain`: let the running process finish and end.

use std::process::ExitCode;

use serde_json::Value;

use super::client::{OrderArguments, PATIENCE};

/// Returns as soon as draining has begun.
pub(super) fn run(arguments: &OrderArguments) -> ExitCode {
    arguments.order("/api/admin/drain", PATIENCE, told)
}

fn told(answer: &Value) -> String {
    format!(
        "draining: process {} accepts for another {} s and ends within {} s of that\n",
        answer["pid"], answer["delaySeconds"], answer["graceSeconds"]
    )
}
