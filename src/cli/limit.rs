//! `flagstone limit list | set | clear`: looks at the limits of the running process and overrides their rates.

use std::num::NonZeroU32;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::arguments::while_seconds;
use super::client::{AdminArgument, CallError, JsonArgument, segment, tell};
use super::table::Table;
use crate::config::rate;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every limit: what is in force, and what it has let through
    List {
        #[command(flatten)]
        json: JsonArgument,
    },
    /// Put another rate in force, at once; what each key has used stays used
    Set {
        /// A limit of the configuration
        name: String,
        /// Such as 10/1m
        #[arg(value_parser = rate_text)]
        rate: String,
        /// How many may come at once [default: the rate's count]
        #[arg(long, value_name = "N", value_parser = how_many)]
        burst: Option<NonZeroU32>,
        /// Until when: 15m, 1h30m [default: until cleared]
        #[arg(long = "for", value_name = "DURATION", value_parser = while_seconds)]
        seconds: Option<u64>,
        #[command(flatten)]
        json: JsonArgument,
    },
    /// Put the configured rate back in force
    Clear {
        /// A limit of the configuration
        name: String,
        #[command(flatten)]
        json: JsonArgument,
    },
}

/// 0 when it is done, 1 when the process said no or is not there.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    tell(act(arguments))
}

fn act(arguments: &Arguments) -> Result<String, CallError> {
    let client = arguments.admin.client()?;
    match &arguments.action {
        Action::List { json } => Ok(json.show(&client.call("GET", "/api/status/limits", None, "limits")?, list)),
        Action::Set { name, rate, burst, seconds, json: output } => {
            let mut body = json!({ "rate": rate });
            if let Some(burst) = burst {
                body["burst"] = json!(burst);
            }
            if let Some(seconds) = seconds {
                body["ttlSeconds"] = json!(seconds);
            }
            let limit =
                client.call("POST", &format!("/api/admin/limits/{}", segment(name)), Some(&body), "override")?;
            Ok(output.show(&limit, |limit| format!("{name}: {}\n", in_force(limit))))
        }
        Action::Clear { name, json } => {
            let limit = client.call("DELETE", &format!("/api/admin/limits/{}", segment(name)), None, "override")?;
            Ok(json.show(&limit, |limit| cleared(name, limit)))
        }
    }
}

fn cleared(name: &str, limit: &Value) -> String {
    match limit["rate"].is_null() {
        true => format!("{name}: no longer overridden; the configuration has no such limit\n"),
        false => format!("{name}: {}\n", in_force(limit)),
    }
}

fn in_force(limit: &Value) -> String {
    let end = end(&limit["override"]).map(|end| format!(", {end}")).unwrap_or_default();
    format!("{}, burst {}{end}", text(&limit["rate"]), text(&limit["burst"]))
}

/// Of an override, if there is one.
fn end(held: &Value) -> Option<String> {
    let until = held.as_object()?.get("until").and_then(Value::as_str);
    Some(until.map_or_else(|| "until cleared".to_owned(), |until| format!("until {until}")))
}

fn list(answer: &Value) -> String {
    let heading =
        ["NAME", "RATE", "BURST", "OVERRIDE", "KEYS", "ALLOWED", "LIMITED", "SHADOWED", "QUEUED", "IN FLIGHT"];
    let mut table = Table::new(&heading);
    for (name, limit) in answer["limits"].as_object().into_iter().flatten() {
        let overridden = end(&limit["override"]).unwrap_or_else(|| "-".to_owned());
        let counts = ["keys", "allowed", "limited", "shadowed", "queued", "inFlight"].map(|count| text(&limit[count]));
        let mut row = vec![name.clone(), text(&limit["rate"]), text(&limit["burst"]), overridden];
        row.extend(counts);
        table.row(row);
    }
    let mut list = table.to_text_or("there are no limits\n");
    for (name, held) in answer["strays"].as_object().into_iter().flatten() {
        let (rate, end) = (text(&held["rate"]), end(held).unwrap_or_default());
        list += &format!("{name} is overridden ({rate}, {end}), and the configuration has no such limit\n");
    }
    list
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn rate_text(text: &str) -> Result<String, String> {
    rate::parse(text).map(|rate| rate.to_string())
}

fn how_many(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| match text.parse::<u32>() {
        Ok(_) => "has to be at least 1".to_owned(),
        Err(_) => format!("is no whole number from 1 to {}", u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_what_is_in_force() {
        let answer = json!({ "limits": {
            "login": { "rate": "5/1m", "burst": 5, "override": null, "keys": 0, "allowed": 0, "limited": 0,
                       "shadowed": 4, "queued": 0, "inFlight": 2 },
            "per_ip": { "rate": "10/1m", "burst": 3, "override": { "rate": "10/1m", "burst": 3, "until": "2030-01-01T00:00:00Z" },
                        "keys": 12, "allowed": 1000, "limited": 7, "shadowed": 0, "queued": 0, "inFlight": 0 },
        }});
        let text = list(&answer);
        let lines: Vec<&str> = text.lines().collect();
        let cells: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(cells, ["login", "5/1m", "5", "-", "0", "0", "0", "4", "0", "2"]);
        assert!(lines[2].contains("until 2030-01-01T00:00:00Z"), "{text}");
        assert_eq!(list(&json!({ "limits": {} })), "there are no limits\n");
    }

    #[test]
    fn an_override_without_its_limit_is_told_and_cleared() {
        let strays = json!({ "old": { "rate": "1/1m", "burst": 1, "until": null } });
        let said = list(&json!({ "limits": {}, "strays": strays }));
        let line = "old is overridden (1/1m, until cleared), and the configuration has no such limit\n";
        assert_eq!(said, format!("there are no limits\n{line}"));
        let said = cleared("old", &json!({ "override": null }));
        assert_eq!(said, "old: no longer overridden; the configuration has no such limit\n");
    }

    #[test]
    fn a_burst_is_at_least_one() {
        assert_eq!(how_many("3"), Ok(NonZeroU32::new(3).unwrap()));
        assert_eq!(how_many("0"), Err("has to be at least 1".to_owned()));
        for text in ["-1", "many", "4294967296", "1.5"] {
            assert_eq!(how_many(text), Err("is no whole number from 1 to 4294967295".to_owned()), "{text}");
        }
    }
}
