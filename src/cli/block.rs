//! `flagstone block | unblock | blocked`: the running process's block list.

use std::process::ExitCode;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::arguments::{client_network, while_seconds};
use super::client::{AdminArgument, JsonArgument, tell};
use super::table::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Block {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(flatten)]
    json: JsonArgument,
    /// An address or a network: 192.0.2.7, 2001:db8::/32
    #[arg(value_parser = client_network)]
    cidr: IpNet,
    /// For how long: 15m, 1h30m [default: for good]
    #[arg(long = "for", value_name = "DURATION", value_parser = while_seconds)]
    seconds: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Unblock {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(flatten)]
    json: JsonArgument,
    /// As it is listed: a part of a blocked network cannot be let in alone
    #[arg(value_parser = client_network)]
    cidr: IpNet,
}

#[derive(Debug, clap::Args)]
pub(super) struct Blocked {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(flatten)]
    json: JsonArgument,
}

/// Blocks a network.
pub(super) fn block(arguments: &Block) -> ExitCode {
    tell((|| {
        let mut body = json!({ "cidr": arguments.cidr.to_string() });
        if let Some(seconds) = arguments.seconds {
            body["ttlSeconds"] = json!(seconds);
        }
        let entry = arguments.admin.client()?.call("POST", "/api/admin/blocklist", Some(&body), "cidr")?;
        let text =
            |entry: &Value| format!("{} is blocked {}\n", entry["cidr"].as_str().unwrap_or_default(), end(entry));
        Ok(arguments.json.show(&entry, text))
    })())
}

/// Takes a network off the list; exit code 1 when it was not on it.
pub(super) fn unblock(arguments: &Unblock) -> ExitCode {
    tell((|| {
        let path = format!("/api/admin/blocklist/{}", arguments.cidr);
        let entry = arguments.admin.client()?.call("DELETE", &path, None, "cidr")?;
        let text = |entry: &Value| format!("{} is not blocked any more\n", entry["cidr"].as_str().unwrap_or_default());
        Ok(arguments.json.show(&entry, text))
    })())
}

/// Shows the list.
pub(super) fn blocked(arguments: &Blocked) -> ExitCode {
    tell((|| {
        let answer = arguments.admin.client()?.call("GET", "/api/admin/blocklist", None, "entries")?;
        Ok(arguments.json.show(&answer, list))
    })())
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&["CIDR", "BLOCKED"]);
    for entry in answer["entries"].as_array().into_iter().flatten() {
        table.row(vec![entry["cidr"].as_str().unwrap_or_default().to_owned(), end(entry)]);
    }
    table.to_text_or("nobody is blocked\n")
}

fn end(entry: &Value) -> String {
    entry["until"].as_str().map_or_else(|| "for good".to_owned(), |until| format!("until {until}"))
}
