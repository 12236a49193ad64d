//! Where the running process is, as arguments and the configuration say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::{CallError, Client, NOT_RUNNING, PATIENCE, tell};
use crate::cli::human::shown_lines;
use crate::cli::{FileArgument, complain, environment};
use crate::config::model::Address;
use crate::config::{self, FoundAdmin, Problem, Problems};

/// `admin.listen` unless set.
const DEFAULT_ADDRESS: Address = Address::Socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900));
/// How to go on where the configuration cannot be understood.
const WITHOUT_FILE: &str = "the process is found without this file by --admin ADDR: 127.0.0.1:9900, unless admin.listen says \
                            otherwise; where that wants a token, -c FILE names a file that has it";
/// The file may have been edited since.
const MOVED: &str =
    "where admin.listen has been changed since, --admin OLD reaches a process that listens where it did before";

/// Where the running process is: for every command that talks to it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AdminArgument {
    #[command(flatten)]
    pub(in crate::cli) file: FileArgument,
    /// The admin side: IP:PORT, localhost:PORT or unix:/PATH [default: listen of the configuration's [admin]]
    #[arg(long, value_name = "ADDR", value_parser = address, global = true)]
    admin: Option<Address>,
}

/// Whether a result is for people or for scripts.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct JsonArgument {
    /// Print the admin side's answer as JSON
    #[arg(long)]
    json: bool,
}

impl JsonArgument {
    /// The answer itself, or what `text` makes of it, whoever answered.
    pub(in crate::cli) fn show(&self, answer: &Value, text: impl FnOnce(&Value) -> String) -> String {
        match self.json {
            true => format!("{answer:#}\n"),
            false => shown_lines(&text(answer)),
        }
    }
}

/// What a command that only makes the process do something takes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct OrderArguments {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(flatten)]
    json: JsonArgument,
}

impl OrderArguments {
    /// Gives the order, waits for up to `patience` until it is done, and prints what came of it. `field` is as in
    /// [`Client::call`].
    pub(in crate::cli) fn order(
        &self,
        path: &str,
        field: &'static str,
        patience: Duration,
        text: impl FnOnce(&Value) -> String,
    ) -> ExitCode {
        let client = self.admin.client().map(|client| client.patience(patience));
        let answer = client.and_then(|client| client.call("POST", path, None, field));
        tell(answer.map(|answer| self.json.show(&answer, text)))
    }

    /// The same with an answer to `look` from before, for `text` to compare with; both have the `field`.
    pub(in crate::cli) fn order_after(
        &self,
        look: &str,
        path: &str,
        field: &'static str,
        patience: Duration,
        text: impl FnOnce(&Value, &Value) -> String,
    ) -> ExitCode {
        let client = self.admin.client().map(|client| client.patience(patience));
        let answers = client
            .and_then(|client| Ok((client.call("GET", look, None, field)?, client.call("POST", path, None, field)?)));
        tell(answers.map(|(before, answer)| self.json.show(&answer, |answer| text(&before, answer))))
    }
}

impl AdminArgument {
    /// A file with errors will do: the process serves on with the one before it. So will none at all, for a process
    /// that serves without one has its admin side at the default place.
    ///
    /// # Errors
    /// The configuration cannot be read as far as the admin side is concerned, or names none.
    pub(in crate::cli) fn client(&self) -> Result<Client, CallError> {
        let Some(found) = self.found() else { return self.client_of(None) };
        match found.is_told || self.admin.is_some() {
            true => self.client_of(Some(found)),
            // An order is not given to whichever process is there.
            false => {
                let Problems(mut problems) = found.problems;
                problems.push(Problem::new("", WITHOUT_FILE));
                Err(CallError::Configuration(Problems(problems)))
            }
        }
    }

    /// [`Self::client`] of commands that only look: where the configuration does not say, they try the default place.
    ///
    /// # Errors
    /// The configuration names no admin side.
    pub(in crate::cli) fn client_for_looking(&self) -> Result<Client, CallError> {
        self.client_of(self.found())
    }

    /// Whether `--admin` says where to go.
    pub(in crate::cli) fn is_named(&self) -> bool {
        self.admin.is_some()
    }

    /// The process that serves by the file, however broken that is: where the file says, or at the default place when
    /// what is there serves by this very file. Without a file it is the one there that serves without one, too.
    ///
    /// # Errors
    /// There is no such process.
    pub(in crate::cli) fn client_of_this_file(&self) -> Result<Client, CallError> {
        let Some(file) = self.file.find() else {
            let client = self.client_of(None)?;
            return match client.call("GET", "/api/config", None, "source")?["source"].is_null() {
                true => Ok(client),
                false => Err(CallError::ByFile { address: client.address }),
            };
        };
        let FoundAdmin { admin, is_told, .. } = config::find_admin(&file, &environment);
        let address = admin.listen.ok_or(CallError::NoAdmin)?;
        let client = Client { address, token: admin.token, patience: PATIENCE, help: NOT_RUNNING.to_owned() };
        let serves = client.serves_by(&file)?;
        match is_told || serves {
            true => Ok(client),
            false => Err(CallError::Another { address: client.address, file }),
        }
    }

    fn found(&self) -> Option<FoundAdmin> {
        self.file.find().map(|file| config::find_admin(&file, &environment))
    }

    fn client_of(&self, found: Option<FoundAdmin>) -> Result<Client, CallError> {
        let help = match (&self.admin, &found) {
            (None, Some(FoundAdmin { is_told: false, .. })) => WITHOUT_FILE.to_owned(),
            (None, None) => self.file.locate().map_or_else(
                |Problems(problems)| format!("that is where it is by default, for {}", problems[0]),
                |_| NOT_RUNNING.to_owned(),
            ),
            (None, Some(_)) => format!("{NOT_RUNNING}; {MOVED}"),
            (Some(_), _) => NOT_RUNNING.to_owned(),
        };
        // Told where to go, it needs the file for nothing but the token.
        let problems = found.iter().filter(|_| self.admin.is_none()).flat_map(|found| &found.problems.0);
        problems.for_each(|problem| complain(format_args!("warning: {problem}")));
        let configured = found.as_ref().map_or(Some(DEFAULT_ADDRESS), |found| found.admin.listen.clone());
        let address = self.admin.clone().or(configured).ok_or(CallError::NoAdmin)?;
        Ok(Client { address, token: found.and_then(|found| found.admin.token), patience: PATIENCE, help })
    }
}

fn address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Address::Unix(path.into()));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(Address::Name { host: "localhost".into(), port });
    }
    text.parse().map(Address::Socket).map_err(|_| "write 127.0.0.1:9900, localhost:9900 or unix:/path".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_in_the_configuration() {
        assert_eq!(address("unix:/run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!(address("127.0.0.1:9900"), Ok(Address::Socket(([127, 0, 0, 1], 9900).into())));
        assert!(address("localhost:9900").is_ok());
        assert!(address("9900").is_err() && address("unix:").is_err());
    }
}
