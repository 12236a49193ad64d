//! `flagstone upgrade`: replace the running binary without dropping a connection.

use std::process::ExitCode;
use std::time::Duration;

use super::client::AdminArgument;

/// Above all that the running process waits for.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
}

/// Returns when the new process has taken over; exit 1 when the old one serves on.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let client = arguments.admin.client().map(|client| client.patience(PATIENCE));
    match client.and_then(|client| client.call("POST", "/api/admin/upgrade", None)) {
        Ok(answer) => {
            println!(
                "upgraded: process {}, version {}, has taken over; process {} drains",
                answer["pid"],
                answer["version"].as_str().unwrap_or("unknown"),
                answer["previousPid"]
            );
            ExitCode::SUCCESS
        }
        Err(error) => error.report(),
    }
}
