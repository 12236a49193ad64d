//! `flagstone healthcheck`: whether the running process wants requests.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::client::{AdminArgument, JsonArgument};
use super::{complain, print};

/// Whoever runs health checks waits less long than people do.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(flatten)]
    json: JsonArgument,
}

/// Exit 0 when it is ready, 1 when it is draining or not there. Needs no token.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let client = match arguments.admin.client_for_looking() {
        Ok(client) => client.patience(PATIENCE),
        Err(error) => return error.report(),
    };
    let (status, body) = match client.ask("GET", "/readyz", None) {
        Ok(answer) => answer,
        Err(error) => return error.report(),
    };
    let is_ready = status == 200;
    let body = String::from_utf8_lossy(&body);
    let detail = body.lines().next().unwrap_or_default();
    // Any web server may answer 200.
    if is_ready && detail != "ok" {
        return client.foreign("its /readyz does not say ok").report();
    }
    let answer = json!({ "ready": is_ready, "status": status, "detail": detail });
    let text = if is_ready { "ready\n" } else { "" };
    if !is_ready {
        complain(format_args!("not ready: {status} {detail}"));
    }
    let code = if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    print(arguments.json.show(&answer, |_| text.to_owned()), code)
}
