//! `flagstone check`: everything that can be found wrong without serving.

use std::process::ExitCode;

use super::{FileArgument, refuse, shown};
use crate::app::App;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArgument,
}

/// Exit code 0 when the file could be served as it is, 1 with every error otherwise.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (loaded, file) = match arguments.file.load() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    let found = match App::check(&loaded) {
        Ok(found) => found,
        Err(problems) => return refuse(&problems),
    };
    for warning in loaded.warnings.iter().chain(&found.0) {
        eprintln!("flagstone: warning: {warning}");
    }
    let config = &loaded.config;
    println!(
        "{} is valid: {}, {}, {}, {}",
        shown(&file),
        counted(config.listeners.len(), "listener"),
        counted(config.routes.len(), "route"),
        counted(config.upstreams.len(), "upstream"),
        counted(config.limits.len(), "limit"),
    );
    ExitCode::SUCCESS
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
