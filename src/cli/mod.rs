//! The command line: one file per family of commands.
//!
//! Results go to stdout, problems to stderr; exit codes are 0 (done), 1 (it said no) and 2 (wrong use).

#![warn(clippy::print_stderr, clippy::print_stdout, reason = "they panic where nobody reads")]

mod arguments;
mod block;
mod breaker;
mod certs;
mod check;
mod client;
mod completions;
mod demo;
mod drain;
mod explain;
mod feature;
mod healthcheck;
mod human;
mod limit;
pub mod maintenance;
mod reload;
mod run;
mod status;
mod table;
mod upgrade;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::client::OrderArguments;
use self::human::shown_lines;
use self::run::{Quick, load_quick};
use crate::app::loading;
use crate::config::{self, Loaded, Problems, Sources};
use crate::error::io_reason;

/// A reverse proxy that stands in front of your app: maintenance by touch, limits, breakers, hot reload.
#[derive(Debug, Parser)]
#[command(name = "flagstone", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve
    Run(run::Arguments),
    /// Run a sample app behind the proxy and print what to try
    Demo(demo::Arguments),
    /// Read, validate and build a configuration without serving it
    Check(check::Arguments),
    /// Make the running process read its configuration again, and say what changed
    Reload(OrderArguments),
    /// Show how the running process is: maintenance, upstreams, breakers, limits, certificates, last reload
    Status(status::Arguments),
    /// Switch maintenance on or off, or look at it; works with the process down too
    Maintenance(maintenance::Arguments),
    /// Look at limits, or override one for a while
    Limit(limit::Arguments),
    /// Look at feature switches, or flip one
    Feature(feature::Arguments),
    /// Turn an address or a network away, at once and on every route
    Block(block::Block),
    /// Let a blocked network in again
    Unblock(block::Unblock),
    /// Show who is blocked
    Blocked(block::Blocked),
    /// Look at the circuit breakers of the running process, close or force one
    Breaker(breaker::Arguments),
    /// Show who issued each certificate and how long it lasts; works with the process down too
    Certs(certs::Arguments),
    /// Ask whether the running process is ready; for container health checks
    Healthcheck(healthcheck::Arguments),
    /// Make the running process finish what is open and end, as on TERM
    Drain(OrderArguments),
    /// Say which listener, route, policies and upstream a request would meet, and why; works with the process down too
    Explain(explain::Arguments),
    /// Replace the running process by one of the program that is there now, without dropping a connection
    Upgrade(OrderArguments),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print completions for a shell to source
    Completions(completions::Arguments),
    /// Print the manual page
    Man,
}

/// `-c FILE`, for every command that needs the configuration.
#[derive(Debug, clap::Args)]
struct FileArgument {
    /// The configuration [default: $FLAGSTONE_CONFIG, ./flagstone.toml or /etc/flagstone/flagstone.toml]
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

impl FileArgument {
    fn locate(&self) -> Result<PathBuf, Problems> {
        config::locate(self.config.as_deref(), &environment)
    }

    /// What `run` would serve by; `None` = there is no file, or the environment goes before it.
    fn find(&self) -> Option<PathBuf> {
        match self.quick() {
            Some(_) => None,
            None => config::find(self.config.as_deref(), &environment),
        }
    }

    /// What `run` would serve without a file; `None` = a file says it.
    fn quick(&self) -> Option<Quick> {
        if self.config.is_some() { None } else { Quick::of_environment() }
    }

    /// What `run` would serve.
    fn load(&self) -> Result<Loaded, Problems> {
        match self.quick() {
            Some(quick) => load_quick(&quick),
            None => config::load(&self.locate()?, &environment),
        }
    }

    /// [`Self::load`] for those who then build it: what is wrong with the files it names is told, too.
    fn load_to_build(&self) -> Result<(Loaded, PathBuf), Problems> {
        let file = self.locate()?;
        let sources = Sources::read(&file, &environment);
        Ok((loading::load(&sources, &file, &environment)?, file))
    }
}

/// Parses the process's arguments and runs the command.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Maintenance(arguments) => maintenance::obey(&arguments),
        Command::Limit(arguments) => limit::run(&arguments),
        Command::Feature(arguments) => feature::run(&arguments),
        Command::Block(arguments) => block::block(&arguments),
        Command::Unblock(arguments) => block::unblock(&arguments),
        Command::Blocked(arguments) => block::blocked(&arguments),
        Command::Breaker(arguments) => breaker::run(&arguments),
        Command::Certs(arguments) => certs::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
        Command::Drain(arguments) => drain::run(&arguments),
        Command::Upgrade(arguments) => upgrade::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man => completions::man(),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&config::schema()).expect("a JSON value prints");
            print(schema + "\n", ExitCode::SUCCESS)
        }
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable that is set; an empty one is none.
fn variable(name: &str) -> Option<String> {
    environment(name).filter(|value| !value.is_empty())
}

/// Prints a result, all of it at once, and ends with `code`, or says no where it cannot be written.
fn print(text: impl AsRef<[u8]>, code: ExitCode) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        // `flagstone status | head`: whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => {
            complain(format_args!("cannot write: {}", io_reason(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Tells of a problem. Where nobody reads it there is nothing to be done, so the command ends as it would have.
fn complain(problem: impl Display) {
    // In one piece, or two commands that share a terminal mix their lines. It may be in the words of whatever answered.
    let line = shown_lines(&format!("flagstone: {problem}\n"));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Prints every problem and says no.
fn refuse(problems: &Problems) -> ExitCode {
    for problem in &problems.0 {
        complain(problem);
    }
    ExitCode::FAILURE
}

/// What the parser of arguments cannot see by itself, said as it would of this command.
fn wrong_use(command: &str, message: &str) -> ExitCode {
    let mut all = Arguments::command();
    // It is only then that the parts know the name of the whole.
    all.build();
    let command = all.find_subcommand_mut(command).expect("a command of ours");
    let error = command.error(clap::error::ErrorKind::MissingRequiredArgument, message);
    // Without a stderr there is nobody to tell.
    let _ = error.print();
    ExitCode::from(2)
}
