//! `flagstone status`: how the running process is, on one screen.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{AdminArgument, CallError, Client, tell};
use super::human::has_colours;
use crate::config::duration;

mod screen;

use screen::screen;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
    /// Print JSON instead: what GET /api/status answers
    #[arg(long)]
    json: bool,
    /// Show it again every so often, in the same place, until interrupted
    #[arg(long, value_name = "INTERVAL", value_parser = interval, num_args = 0..=1, require_equals = true,
          default_missing_value = "2s")]
    watch: Option<Duration>,
}

/// Exit 1 when nobody answers. What is unhealthy is shown, and no reason to fail: it did what it was asked.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let client = match arguments.admin.client_for_looking() {
        Ok(client) => client,
        Err(error) => return error.report(),
    };
    match (arguments.watch, arguments.json) {
        (Some(interval), as_json) => watch(&client, as_json, interval),
        (None, true) => tell(status(&client).map(|status| format!("{status:#}\n"))),
        (None, false) => tell(on_screen(&client)),
    }
}

fn status(client: &Client) -> Result<Value, CallError> {
    client.call("GET", "/api/status", None, "circuitBreakers")
}

fn on_screen(client: &Client) -> Result<String, CallError> {
    let status = status(client)?;
    let health = client.call("GET", "/api/health", None, "checks")?;
    Ok(screen(&status, &health, Timestamp::now(), has_colours()))
}

/// Until interrupted, or until nobody reads any more.
fn watch(client: &Client, as_json: bool, interval: Duration) -> ExitCode {
    let mut stdout = std::io::stdout();
    let in_place = stdout.is_terminal() && !as_json;
    if in_place {
        let _ = stdout.write_all(b"\x1b[2J");
    }
    loop {
        // Of JSON a line each time, for whoever reads line by line.
        let text = match as_json {
            true => status(client).unwrap_or_else(|error| json!({ "error": error.to_string() })).to_string() + "\n",
            // It may be back in a moment: then this screen shows it.
            false => on_screen(client).unwrap_or_else(|error| format!("{error}\n")),
        };
        let drawn = match in_place {
            true => {
                let (columns, rows) = size();
                stdout.write_all(redraw(&text, columns, rows).as_bytes())
            }
            false => {
                stdout.write_all(text.as_bytes()).and_then(|()| if as_json { Ok(()) } else { stdout.write_all(b"\n") })
            }
        };
        if drawn.and_then(|()| stdout.flush()).is_err() {
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(interval);
    }
}

/// Writes over what is there, line by line, so that nothing flickers; what does not fit is left out, for a line that took
/// two rows would push the first ones out.
fn redraw(text: &str, columns: usize, rows: usize) -> String {
    let mut drawn = "\x1b[H".to_owned();
    let lines: Vec<&str> = text.lines().collect();
    let fits = if lines.len() < rows { lines.len() } else { rows.saturating_sub(2) };
    for line in &lines[..fits] {
        drawn.extend(cut(line, columns));
        drawn += "\x1b[K\r\n";
    }
    if fits < lines.len() {
        drawn += &format!("… {} more lines\x1b[K\r\n", lines.len() - fits);
    }
    drawn + "\x1b[J"
}

/// What of a line fits beside the last column, which would wrap, and all its colours.
fn cut(line: &str, columns: usize) -> impl Iterator<Item = char> {
    let (mut column, mut is_colour) = (0, false);
    line.chars().filter(move |&char| {
        is_colour |= char == '\x1b';
        if is_colour {
            is_colour = char != 'm';
            return true;
        }
        column += 1;
        column < columns
    })
}

/// Columns and rows.
fn size() -> (usize, usize) {
    terminal_size::terminal_size()
        .map_or((usize::MAX, usize::MAX), |(width, height)| (usize::from(width.0), usize::from(height.0)))
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    match interval < Duration::from_millis(100) {
        true => Err("is below 100ms".to_owned()),
        false => Ok(interval),
    }
}

/// A number of the answer.
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_drawn_over_what_was_there() {
        assert_eq!(redraw("a\nb\n", 80, 10), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
        assert_eq!(redraw("\x1b[32mabc\x1b[0md", 3, 10), "\x1b[H\x1b[32mab\x1b[0m\x1b[K\r\n\x1b[J");
        let cut = redraw("1\n2\n3\n4\n5\n6\n", 80, 5);
        assert!(cut.contains("3\x1b[K") && !cut.contains("4\x1b[K") && cut.contains("… 3 more lines"), "{cut:?}");
        assert_eq!(cut.matches("\r\n").count(), 4, "one less than there are rows");
    }

    #[test]
    fn an_interval_is_no_busy_loop() {
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        assert!(interval("1ms").is_err() && interval("x").is_err());
    }
}
