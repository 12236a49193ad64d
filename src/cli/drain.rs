//! `flagstone drain`: let the running process finish and end.

use std::process::ExitCode;

use super::client::AdminArgument;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
}

/// Returns as soon as draining has begun.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match arguments.admin.client().and_then(|client| client.call("POST", "/api/admin/drain", None)) {
        Ok(answer) => {
            println!(
                "draining: process {} accepts for another {} s and ends within {} s of that",
                answer["pid"], answer["delaySeconds"], answer["graceSeconds"]
            );
            ExitCode::SUCCESS
        }
        Err(error) => error.report(),
    }
}
