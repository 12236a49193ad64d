//! The screen: what `GET /api/status` and `GET /api/health` say, for people.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::number;
use crate::cli::human::{Tone, count, millis, relative_of, shown, span};
use crate::cli::table::{Cell, Table};

/// One paragraph per subject; what the configuration does not have is left out.
pub(super) fn screen(status: &Value, health: &Value, now: Timestamp, colours: bool) -> String {
    let paint = |tone: Tone, text: &str| if colours { tone.paint(text) } else { text.to_owned() };
    let mut text = String::new();
    head(&mut text, status, health, now, &paint);
    maintenance(&mut text, &status["maintenance"], now, &paint);
    for table in [checks(status, health), limits(status, now), features(status), certificates(status)] {
        let table = table.to_text(colours);
        if !table.is_empty() {
            text.push('\n');
            text += &table;
        }
    }
    text
}

type Paint<'a> = &'a dyn Fn(Tone, &str) -> String;

fn head(text: &mut String, status: &Value, health: &Value, now: Timestamp, paint: Paint<'_>) {
    let (process, config) = (&status["process"], &status["config"]);
    let word = word(&health["status"]);
    let is_leaving = process["ready"] == false;
    let _ = writeln!(
        text,
        "flagstone {}   {}{}   pid {}   up {}   {} {}",
        shown(process["version"].as_str().unwrap_or("?")),
        paint(tone_of(word), word),
        if is_leaving { format!("   {}", paint(Tone::Warning, "draining")) } else { String::new() },
        process["pid"],
        span(number(&process["uptimeSeconds"])),
        process["workers"],
        if process["workers"] == 1 { "worker" } else { "workers" },
    );
    let log = &process["accessLog"];
    if log["dropping"] == true {
        let (lost, error) = (count(number(&log["dropped"])), shown(log["error"].as_str().unwrap_or_default()));
        let _ = writeln!(text, "access log {}   {lost} lines so far   {error}", paint(Tone::Bad, "losing lines"));
    }
    let source = config["source"].as_str().unwrap_or("the command line");
    let loaded = relative_of(&config["loadedAt"], now);
    let _ = writeln!(text, "configuration {}   {}   loaded {loaded}", config["generation"], shown(source));
    let last = &config["lastReload"];
    let time = relative_of(&last["time"], now);
    match last["success"].as_bool() {
        None => {}
        Some(true) => {
            let changes: Vec<_> = strings(&last["changes"]).collect();
            let changes = if changes.is_empty() { "nothing changed".to_owned() } else { changes.join("; ") };
            let _ = writeln!(text, "last reload {time}   {}   {}", paint(Tone::Good, "accepted"), shown(&changes));
        }
        Some(false) => {
            let refused = paint(Tone::Bad, "refused");
            let _ = writeln!(text, "last reload {time}   {refused}   the configuration before it serves on");
            for error in last["errors"].as_array().into_iter().flatten() {
                let line =
                    crate::config::Problem::from_json(error).map_or_else(|| error.to_string(), |it| it.to_string());
                let _ = writeln!(text, "  {}", shown(&line));
            }
        }
    }
}

fn maintenance(text: &mut String, maintenance: &Value, now: Timestamp, paint: Paint<'_>) {
    if maintenance["is_active"] == true {
        let mode = shown(maintenance["mode"].as_str().unwrap_or("full"));
        let _ = write!(text, "\nmaintenance {}   {mode}", paint(Tone::Bad, "ON"));
        let _ = write!(text, "   began {}", relative_of(&maintenance["started_at"], now));
        if maintenance["estimated_completion"].is_string() {
            let end = relative_of(&maintenance["estimated_completion"], now);
            match maintenance["overdue"] == true {
                true => drop(write!(text, "   {} {end}", paint(Tone::Bad, "should have ended"))),
                false => drop(write!(text, "   ends {end}")),
            }
        }
        let _ = write!(text, "   {} blocked", count(number(&maintenance["blocked_requests"])));
        let routes: Vec<_> = strings(&maintenance["routes"]).collect();
        if !routes.is_empty() {
            let _ = write!(text, "   routes {}", shown(&routes.join(", ")));
        }
        for (key, label) in [("by", "by "), ("reason", "")] {
            if let Some(value) = maintenance[key].as_str() {
                let _ = write!(text, "   {label}{}", shown(value));
            }
        }
        text.push('\n');
    } else {
        let _ = writeln!(text, "\nmaintenance {}", paint(Tone::Good, "off"));
    }
    for next in maintenance["upcoming"].as_array().into_iter().flatten().take(3) {
        let name = shown(next["name"].as_str().unwrap_or_default());
        let (start, date) = (relative_of(&next["start"], now), next["start"].as_str().unwrap_or_default());
        let _ = writeln!(text, "  planned {name} {start} ({date})");
    }
}

/// Upstreams, probes and the machine, with the breakers.
fn checks(status: &Value, health: &Value) -> Table {
    let mut table =
        Table::new(&["CHECK", "HEALTH", "ENDPOINTS", "LATENCY", "BREAKER", "CALLS", "FAILED", "REJECTED", ""]);
    let breakers = &status["circuitBreakers"];
    for (name, check) in object(&health["checks"]) {
        let word = word(&check["status"]);
        let endpoints = check["endpoints"].as_object();
        let up = |all: &Map<String, Value>| all.values().filter(|one| one["status"] == "healthy").count();
        let breaker = breakers.get(name);
        let state = breaker.and_then(|breaker| breaker["state"].as_str());
        let statistic = |key: &str| breaker.map_or_else(dash, |it| count(number(&it["statistics"][key])));
        let is_in_shadow = breaker.is_some_and(|breaker| breaker["shadow"] == true);
        let (rejected, shadow) = match (statistic("rejectedCalls"), is_in_shadow) {
            (rejected, false) => (rejected, String::new()),
            (shadowed, true) => ("0".to_owned(), format!("shadow, {shadowed} let through")),
        };
        let error = shown(check["error"].as_str().unwrap_or_default());
        let separator = if error.is_empty() || shadow.is_empty() { "" } else { "; " };
        let latency = match (check["latencyMs"].as_f64(), check["percentage"].as_f64()) {
            (Some(latency), _) => millis(latency),
            (None, Some(percentage)) => format!("{percentage:.0} %"),
            (None, None) => dash(),
        };
        table.line(vec![
            shown(name).into(),
            Cell::new(word, tone_of(word)),
            endpoints.map_or_else(dash, |all| format!("{}/{}", up(all), all.len())).into(),
            latency.into(),
            Cell::new(state.unwrap_or("-"), tone_of(state.unwrap_or_default())),
            statistic("totalCalls").into(),
            statistic("failedCalls").into(),
            rejected.into(),
            Cell::new(&format!("{error}{separator}{shadow}"), Tone::Faint),
        ]);
    }
    table
}

fn limits(status: &Value, now: Timestamp) -> Table {
    let mut table = Table::new(&["LIMIT", "RATE", "BURST", "KEYS", "ALLOWED", "LIMITED", "QUEUED", ""]);
    for (name, limit) in object(&status["limits"]) {
        let limited = number(&limit["limited"]);
        let mut notes = Vec::new();
        if let Value::Object(held) = &limit["override"] {
            notes.push(match held.get("until").filter(|until| until.is_string()) {
                Some(until) => format!("overridden, ends {}", relative_of(until, now)),
                None => "overridden until cleared".to_owned(),
            });
        }
        if limit["shadow"] == true {
            notes.push(format!("shadow, {} over it", count(number(&limit["shadowed"]))));
        }
        if limit["storeReachable"] == false {
            notes.push("the shared store is out of reach".to_owned());
        }
        table.line(vec![
            shown(name).into(),
            limit["rate"].as_str().unwrap_or("-").to_owned().into(),
            count(number(&limit["burst"])).into(),
            count(number(&limit["keys"])).into(),
            count(number(&limit["allowed"])).into(),
            Cell::new(&count(limited), if limited > 0 { Tone::Warning } else { Tone::Plain }),
            count(number(&limit["queued"])).into(),
            Cell::new(&notes.join("; "), Tone::Warning),
        ]);
    }
    table
}

fn features(status: &Value) -> Table {
    let mut table = Table::new(&["FEATURE", "VALUE", "DEFAULT"]);
    for (key, feature) in object(&status["featureFlags"]) {
        let word = |value: &Value| if *value == true { "on" } else { "off" };
        let tone = if feature["value"] == feature["default"] { Tone::Plain } else { Tone::Warning };
        let (value, default) = (word(&feature["value"]), word(&feature["default"]));
        table.line(vec![shown(key).into(), Cell::new(value, tone), default.to_owned().into()]);
    }
    table
}

fn certificates(status: &Value) -> Table {
    let mut table = Table::new(&["CERTIFICATE", "EXPIRES", "LEFT", "STATUS", "ISSUER"]);
    for entry in status["certificates"].as_array().into_iter().flatten() {
        let word = word(&entry["status"]);
        let date: String = entry["notAfter"].as_str().unwrap_or("-").chars().take(10).collect();
        table.line(vec![
            shown(entry["domain"].as_str().unwrap_or("-")).into(),
            date.into(),
            entry["daysLeft"].as_i64().map_or_else(dash, |days| format!("{days} d")).into(),
            Cell::new(word, tone_of(word)),
            Cell::new(&shown(entry["issuer"].as_str().unwrap_or("-")), Tone::Faint),
        ]);
    }
    table
}

fn tone_of(word: &str) -> Tone {
    match word {
        "healthy" | "CLOSED" | "OK" => Tone::Good,
        "degraded" | "unknown" | "HALF_OPEN" | "EXPIRING" => Tone::Warning,
        "unhealthy" | "OPEN" | "EXPIRED" | "INVALID" => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn dash() -> String {
    "-".to_owned()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown_at(status: &Value, health: &Value) -> String {
        screen(status, health, "2026-01-01T01:00:00Z".parse().unwrap(), false)
    }

    fn quiet() -> Value {
        json!({
            "maintenance": { "is_active": false },
            "circuitBreakers": {}, "limits": {}, "featureFlags": {}, "certificates": [],
            "config": { "generation": 1, "source": "/etc/f.toml", "loadedAt": "2026-01-01T00:00:00Z", "lastReload": null },
            "process": { "pid": 7, "version": "0.1.0", "uptimeSeconds": 3_600, "workers": 2 },
        })
    }

    #[test]
    fn a_quiet_process_needs_three_lines() {
        assert_eq!(
            shown_at(&quiet(), &json!({ "status": "healthy", "checks": {} })),
            "flagstone 0.1.0   healthy   pid 7   up 1h   2 workers\n\
             configuration 1   /etc/f.toml   loaded 1h ago\n\
             \n\
             maintenance off\n"
        );
    }

    #[test]
    fn a_process_that_is_on_its_way_out_says_so() {
        let mut status = quiet();
        status["process"]["ready"] = json!(false);
        let text = shown_at(&status, &json!({ "status": "healthy", "checks": {} }));
        assert!(text.starts_with("flagstone 0.1.0   healthy   draining   pid 7   up 1h   2 workers\n"), "{text}");
        status["process"]["ready"] = json!(true);
        assert!(!shown_at(&status, &json!({ "status": "healthy" })).contains("draining"));
    }

    #[test]
    fn an_access_log_that_loses_lines_is_told_of_as_long_as_it_does() {
        let (mut status, health) = (quiet(), json!({ "status": "healthy", "checks": {} }));
        status["process"]["accessLog"] =
            json!({ "dropping": true, "dropped": 12_345, "error": "no space left on device" });
        let text = shown_at(&status, &health);
        let line = "\naccess log losing lines   12,345 lines so far   no space left on device\nconfiguration 1 ";
        assert!(text.contains(line), "{text}");
        status["process"]["accessLog"] = json!({ "dropping": false, "dropped": 12_345, "error": null });
        assert_eq!(shown_at(&status, &health), shown_at(&quiet(), &health));
    }

    #[test]
    fn what_is_wrong_stands_out() {
        let mut status = quiet();
        status["maintenance"] = json!({
            "is_active": true, "mode": "read_only", "started_at": "2026-01-01T00:55:00Z", "by": "cli",
            "estimated_completion": "2026-01-01T00:59:00Z", "overdue": true, "blocked_requests": 12_345, "reason": "Upgrade",
        });
        status["circuitBreakers"]["app"] =
            json!({ "state": "OPEN", "statistics": { "totalCalls": 9, "failedCalls": 5, "rejectedCalls": 4 } });
        status["circuitBreakers"]["mail"] = json!({ "state": "OPEN", "shadow": true, "statistics": { "totalCalls": 9, "failedCalls": 5, "rejectedCalls": 4 } });
        status["limits"]["per_ip"] = json!({ "rate": "10/1m", "burst": 5, "keys": 3, "allowed": 1_000, "limited": 2, "queued": 0,
            "override": { "until": "2026-01-01T01:15:00Z" } });
        status["limits"]["shared"] = json!({ "rate": "1/1s", "burst": 1, "storeReachable": false });
        status["limits"]["watching"] =
            json!({ "rate": "9/1s", "burst": 9, "shadow": true, "shadowed": 1_234, "override": { "until": null } });
        status["config"]["lastReload"] = json!({ "time": "2026-01-01T00:59:30Z", "success": false,
            "errors": [{ "file": "f.toml", "line": 3, "column": 1, "path": "bogus", "message": "unknown key", "value": null, "help": null }] });
        let endpoints = json!({ "a:1": { "status": "healthy" }, "b:1": { "status": "unhealthy" } });
        let health = json!({ "status": "unhealthy", "checks": {
            "app": { "status": "unhealthy", "latencyMs": 1.234, "endpoints": endpoints, "error": "the circuit breaker is open" },
            "mail": { "status": "healthy", "latencyMs": 1.0 },
            "memory": { "status": "healthy", "percentage": 41.2 },
        } });
        let text = shown_at(&status, &health);
        for part in [
            "last reload 30s ago   refused   the configuration before it serves on\n  f.toml:3:1: bogus: unknown key\n",
            "maintenance ON   read_only   began 5m ago   should have ended 1m ago   12,345 blocked   by cli   Upgrade\n",
            "CHECK   HEALTH     ENDPOINTS  LATENCY  BREAKER  CALLS  FAILED  REJECTED\n",
            "app     unhealthy  1/2        1.23 ms  OPEN     9      5       4         the circuit breaker is open\n",
            "mail    healthy    -          1.00 ms  OPEN     9      5       0         shadow, 4 let through\n",
            "memory  healthy    -          41 %     -        -      -       -\n",
            "per_ip    10/1m  5      3     1,000    2        0       overridden, ends in 15m\n",
            "shared    1/1s   1      0     0        0        0       the shared store is out of reach\n",
            "watching  9/1s   9      0     0        0        0       overridden until cleared; shadow, 1,234 over it\n",
        ] {
            assert!(text.contains(part), "{part}{text}");
        }
        let coloured = screen(&status, &health, "2026-01-01T01:00:00Z".parse().unwrap(), true);
        assert!(coloured.contains("\x1b[1;31munhealthy\x1b[0m  1/2"), "colours take no room: {coloured}");
    }
}
