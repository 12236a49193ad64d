//! `flagstone feature list | set | clear`: the feature switches of the running process.

use std::process::ExitCode;

use clap::{ArgAction, Subcommand};
use serde_json::{Value, json};

use super::client::{AdminArgument, CallError, JsonArgument, tell};
use super::human::shown;
use super::table::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every switch: what is in force, and what the configuration says
    List {
        #[command(flatten)]
        json: JsonArgument,
    },
    /// Switch a feature on or off, at once; it stays so over restarts and reloads
    Set {
        /// A key of [features]
        key: String,
        /// true or false
        #[arg(action = ArgAction::Set)]
        value: bool,
        #[command(flatten)]
        json: JsonArgument,
    },
    /// Put the configuration's value back in force
    Clear {
        /// A key of [features]
        key: String,
        #[command(flatten)]
        json: JsonArgument,
    },
}

/// Asks the running process; exit 1 when it said no or is not there.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let admin = &arguments.admin;
    let (answer, json, show): (_, _, fn(&Value) -> String) = match &arguments.command {
        Command::List { json } => (
            admin.client().and_then(|it| it.call("GET", "/api/status/feature-flags", None, "featureFlags")),
            json,
            list,
        ),
        Command::Set { key, value, json } => (set(admin, key, Some(*value)), json, one),
        Command::Clear { key, json } => (set(admin, key, None), json, one),
    };
    tell(answer.map(|answer| json.show(&answer, show)))
}

fn set(admin: &AdminArgument, key: &str, value: Option<bool>) -> Result<Value, CallError> {
    let body = json!({ "key": key, "value": value });
    admin.client()?.call("POST", "/api/admin/feature-flags", Some(&body), "value")
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&["FEATURE", "VALUE", "DEFAULT"]);
    for (key, feature) in answer["featureFlags"].as_object().into_iter().flatten() {
        table.row(vec![shown(key), feature["value"].to_string(), feature["default"].to_string()]);
    }
    table.to_text_or("the configuration has no [features]\n")
}

fn one(feature: &Value) -> String {
    let key = feature["key"].as_str().unwrap_or_default();
    format!("{}: {} (default {})\n", shown(key), feature["value"], feature["default"])
}
