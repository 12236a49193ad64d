//! wrk: many connections, as fast as they go, and not one error.

use std::process::Command;
use std::time::Duration;

use super::{Nginx, flagstone_before};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::process::Process;

/// How long the load lasts, in seconds; `FLAGSTONE_TESTS_WRK_SECONDS` asks for more or less.
const SECONDS: u64 = 10;

#[tokio::test]
async fn a_load_sees_no_error() {
    let wrk = or_left_out!(program("wrk"));
    let folder = Folder::new();
    folder.write("site/small.txt", "x".repeat(1024));
    let nginx = or_left_out!(Nginx::serve(folder, "").await);
    let (flagstone, address) = flagstone_before(&nginx.endpoint()).await;
    let seconds = std::env::var("FLAGSTONE_TESTS_WRK_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds: u64 = seconds.unwrap_or(SECONDS);
    let mut command = Command::new(wrk);
    command.args(["-t2", "-c64", "--timeout", "10s", &format!("-d{seconds}s"), &format!("http://{address}/small.txt")]);
    let mut process = Process::start(&mut command);
    assert!(process.wait(Duration::from_secs(seconds + 30)).await.success(), "{}", process.stderr());
    let report = process.stdout();
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let done = report.lines().find_map(|line| line.trim().split_once(" requests in ")).expect("a count").0;
    assert!(done.parse::<u64>().expect("a number") > 0, "{report}");
    eprintln!("{report}resident: {} KiB", flagstone.resident_bytes() / 1024);
}
