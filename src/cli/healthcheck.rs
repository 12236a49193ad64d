//! `flagstone healthcheck`: whether the running process wants requests.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

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
    // Any web server may answer.
    let detail = match (status, detail_of(&body)) {
        (200, detail) if detail.as_deref() != Some("ok") => {
            return client.foreign("its /readyz does not say ok").report();
        }
        (200 | 503, Some(detail)) => detail,
        _ => return client.foreign(format!("its /readyz answers {status}")).report(),
    };
    let answer = json!({ "ready": is_ready, "status": status, "detail": detail });
    let text = if is_ready { "ready\n" } else { "" };
    if !is_ready {
        complain(format_args!("not ready: {status} {detail}"));
    }
    let code = if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    print(arguments.json.show(&answer, |_| text.to_owned()), code)
}

/// How a flagstone says that it is ready, or why it is not; `None` = it is none.
fn detail_of(body: &[u8]) -> Option<String> {
    let problem = || serde_json::from_slice::<Value>(body).ok()?["detail"].as_str().map(str::to_owned);
    match body {
        b"ok" | b"starting" | b"draining" => Some(String::from_utf8_lossy(body).into_owned()),
        _ => problem(),
    }
}
