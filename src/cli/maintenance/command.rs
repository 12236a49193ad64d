//! What `flagstone maintenance` does with its arguments: who is asked, and what is refused before anything is done.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

use super::super::client::{AdminArgument, Client};
use super::super::{complain, print};
use super::process::{flag_elsewhere, order};
use super::settings::{BY_HAND, Settings, settings};
use super::{Action, Args, CliError, run};
use crate::app::flag_settings;
use crate::config;
use crate::config::model::Config;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(flatten)]
    maintenance: Args,
}

/// Does what was asked for: by its files, or by the running process.
pub(in crate::cli) fn obey(arguments: &Arguments) -> ExitCode {
    let admin = &arguments.admin;
    if admin.is_named() {
        return match admin.client() {
            Ok(client) => order_by(&arguments.maintenance, &client),
            Err(error) => error.report(),
        };
    }
    let Settings { config, is_whole, is_without_file } = match settings(&admin.file) {
        Ok(settings) => settings,
        // Nobody writes a flag to where it may not belong; the process knows.
        Err(problems) => {
            let lacks_file = admin.file.locate().is_err_and(|lack| lack == problems);
            let told = problems.0.iter().filter(|_| !lacks_file);
            told.for_each(|problem| complain(format_args!("warning: {problem}")));
            return match admin.client_of_this_file() {
                Ok(client) => order_by(&arguments.maintenance, &client),
                Err(error) => {
                    let what = if lacks_file { "" } else { "the process that serves by this file was not found: " };
                    complain(format_args!("{what}{error}"));
                    complain(BY_HAND);
                    ExitCode::FAILURE
                }
            };
        }
    };
    let routes_dir = flag_settings(&config).routes_dir;
    let named = match &arguments.maintenance.action {
        Action::On(on) => on.routes.clone(),
        // The flag of a route that is gone has to go, too.
        Action::Off(off) => {
            let has_flag = |name: &String| has_entry(&routes_dir.join(format!("{name}.flag")));
            off.routes.iter().filter(|name| !has_flag(name)).cloned().collect()
        }
        Action::Status(_) => Vec::new(),
    };
    if lacks_one(&named, &config, is_whole) {
        return ExitCode::FAILURE;
    }
    let done = run(&arguments.maintenance, &config, is_whole);
    if done.is_ok() && is_without_file {
        warn_of_another_flag(&config);
    }
    show(&arguments.maintenance, done)
}

/// Where there is no file to go by, the process may have been started otherwise.
fn warn_of_another_flag(config: &Config) {
    let Some(address) = &config.admin.listen else { return };
    let client = Client::at(address.clone()).patience(Duration::from_secs(1));
    if let Some(flag) = flag_elsewhere(&client, &config.maintenance.flag) {
        complain(format_args!(
            "warning: the process on {address} follows {}, not {}: with --admin {address} it is told itself",
            flag.display(),
            config.maintenance.flag.display()
        ));
    }
}

/// Has the process do it.
fn order_by(arguments: &Args, client: &Client) -> ExitCode {
    show(arguments, order(arguments, client, &Timestamp::now().to_zoned(config::zone::of_system())))
}

fn show(arguments: &Args, done: Result<String, CliError>) -> ExitCode {
    match done {
        Ok(text) => print(text, ExitCode::SUCCESS),
        Err(error) => {
            complain(&error);
            let exit = ExitCode::from(error.exit_code());
            // Whoever reads JSON there reads no sentences.
            if arguments.action.wants_json() { exit } else { print(error.done(), exit) }
        }
    }
}

/// Tells which of these routes there are not. Where something of the file was left out, they may have been in it: no
/// reason to refuse.
fn lacks_one(routes: &[String], config: &Config, is_whole: bool) -> bool {
    let unknown = || routes.iter().filter(|name| !config.has_route(name));
    let kind = if is_whole { "" } else { "warning: " };
    unknown().for_each(|name| complain(format_args!("{kind}{}", config.no_route(name))));
    is_whole && unknown().next().is_some()
}

/// Whether something is there, or may be.
fn has_entry(path: &Path) -> bool {
    fs::symlink_metadata(path).map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
}
