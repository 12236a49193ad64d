//! `flagstone breaker`: look at the breakers of the running process, close or force one.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::client::{AdminArgument, CallError, JsonArgument, segment, tell};
use super::table::Table;

/// What every answer about them has.
const BREAKERS: &str = "circuitBreakers";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One line per breaker: upstream, state, failures in a row, calls, when it tries again
    List {
        #[command(flatten)]
        json: JsonArgument,
    },
    /// Close a breaker
    Reset {
        /// The upstream
        name: String,
        #[command(flatten)]
        json: JsonArgument,
    },
    /// Force a breaker open, until it is reset
    Open {
        /// The upstream
        name: String,
        #[command(flatten)]
        json: JsonArgument,
    },
}

/// Asks the running process; exit 1 when it said no or is not there.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let admin = &arguments.admin;
    let (answer, json) = match &arguments.command {
        Command::List { json } => {
            (admin.client().and_then(|it| it.call("GET", "/api/status/circuit-breakers", None, BREAKERS)), json)
        }
        Command::Reset { name, json } => (change(admin, name, "reset"), json),
        Command::Open { name, json } => (change(admin, name, "open"), json),
    };
    tell(answer.map(|answer| json.show(&answer, table)))
}

fn change(admin: &AdminArgument, name: &str, what: &str) -> Result<Value, CallError> {
    admin.client()?.call("POST", &format!("/api/admin/circuit-breakers/{}/{what}", segment(name)), None, BREAKERS)
}

/// The breakers of an answer, one line each below a line of headings.
fn table(answer: &Value) -> String {
    let mut table =
        Table::new(&["UPSTREAM", "STATE", "FAILURES", "CALLS", "FAILED", "REJECTED", "SHADOWED", "NEXT ATTEMPT"]);
    for (name, breaker) in answer[BREAKERS].as_object().into_iter().flatten() {
        let count = |key: &str| breaker["statistics"][key].as_u64().unwrap_or(0).to_string();
        let (rejected, none) = (count("rejectedCalls"), "0".to_owned());
        // In shadow they were let through.
        let (rejected, shadowed) = if breaker["shadow"] == true { (none, rejected) } else { (rejected, none) };
        table.row(vec![
            name.clone(),
            breaker["state"].as_str().unwrap_or("?").to_owned(),
            breaker["failures"].as_u64().unwrap_or(0).to_string(),
            count("totalCalls"),
            count("failedCalls"),
            rejected,
            shadowed,
            next_attempt(breaker),
        ]);
    }
    table.to_text_or("no upstream has a breaker\n")
}

/// One that is open without a time was opened by hand.
fn next_attempt(breaker: &Value) -> String {
    match (breaker["nextAttemptTime"].as_str(), breaker["state"] == "OPEN") {
        (Some(time), _) => whole_seconds(time),
        (None, true) => "none until it is reset".to_owned(),
        (None, false) => "-".to_owned(),
    }
}

/// RFC 3339 in UTC without the fraction.
fn whole_seconds(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(whole, _)| format!("{whole}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn breakers_stand_in_columns() {
        let statistics = json!({ "totalCalls": 12, "failedCalls": 5, "rejectedCalls": 3 });
        let answer = json!({ "circuitBreakers": {
            "app": { "state": "OPEN", "failures": 5, "nextAttemptTime": "2026-01-01T00:00:00.804409328Z", "statistics": statistics },
            "mail": { "state": "OPEN", "failures": 5, "nextAttemptTime": "2026-01-01T00:00:00Z", "shadow": true,
                      "statistics": statistics },
            "old": { "state": "OPEN", "failures": 0, "statistics": {} },
            "search": { "state": "CLOSED", "failures": 0, "statistics": {} },
        } });
        assert_eq!(
            table(&answer),
            "UPSTREAM  STATE   FAILURES  CALLS  FAILED  REJECTED  SHADOWED  NEXT ATTEMPT\n\
             app       OPEN    5         12     5       3         0         2026-01-01T00:00:00Z\n\
             mail      OPEN    5         12     5       0         3         2026-01-01T00:00:00Z\n\
             old       OPEN    0         0      0       0         0         none until it is reset\n\
             search    CLOSED  0         0      0       0         0         -\n"
        );
        assert_eq!(table(&json!({ "circuitBreakers": {} })), "no upstream has a breaker\n");
    }
}
