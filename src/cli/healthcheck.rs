//! `flagstone healthcheck`: whether the running process wants requests.

use std::process::ExitCode;
use std::time::Duration;

use super::client::AdminArgument;

/// Whoever runs health checks waits less long than people do.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
}

/// Exit 0 when it is ready, 1 when it is draining or not there. Needs no token.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let client = arguments.admin.client().map(|client| client.patience(PATIENCE));
    match client.and_then(|client| client.ask("GET", "/readyz", None)) {
        Ok((200, _)) => {
            println!("ready");
            ExitCode::SUCCESS
        }
        Ok((status, body)) => {
            let body = String::from_utf8_lossy(&body);
            eprintln!("flagstone: not ready: {status} {}", body.lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
        Err(error) => error.report(),
    }
}
