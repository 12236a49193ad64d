//! A real browser: Chromium without a window.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{HEAD, LONG};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::process::{Ended, Flagstone, Process};

fn chromium() -> Result<PathBuf, String> {
    program("chromium").or_else(|_| program("chromium-browser")).or_else(|_| program("google-chrome"))
}

/// Loads a page, lets its scripts run for a while of the page's own time, and prints what became of it. Whatever
/// the page says on its console is on stderr.
async fn dump_dom(chromium: PathBuf, url: &str) -> Ended {
    let profile = Folder::new();
    let mut command = Command::new(chromium);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
    ]);
    command.args(["--enable-logging=stderr", "--virtual-time-budget=3000", "--lang=en-US", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    command.env("HOME", profile.path()).env("LANGUAGE", "en").env("TZ", "UTC");
    let mut process = Process::start(&mut command);
    let status = process.wait(LONG).await;
    Ended { status, stdout: process.stdout(), stderr: process.stderr() }
}

#[tokio::test]
async fn the_maintenance_page_says_why_and_until_when() {
    let chromium = or_left_out!(chromium());
    let config = format!("{HEAD}[[route]]\nname = \"all\"\nrespond = {{ status = 200, body = \"ok\" }}\n");
    let folder = Folder::new();
    let until = jiff::Timestamp::now() + Duration::from_secs(3600);
    folder.write("state/maintenance.flag", format!("reason = \"Moving <b>house</b>\"\nuntil = \"{until}\"\n"));
    let mut flagstone = Flagstone::serve_in(folder, &config).await;
    let address = flagstone.address("web").await;
    let shown = dump_dom(chromium, &format!("http://{address}/some/page")).await;
    assert!(shown.status.success(), "{}", shown.stderr);
    assert!(shown.stdout.contains("Moving &lt;b&gt;house&lt;/b&gt;"), "{}", shown.stdout);
    assert!(shown.stdout.contains("<time"), "{}", shown.stdout);
    // What the policy of the page forbids, and what its script does wrong, is told on the console.
    let complaints = ["Content Security Policy", "Uncaught", "Refused to"];
    assert!(!complaints.iter().any(|words| shown.stderr.contains(words)), "{}", shown.stderr);
}
