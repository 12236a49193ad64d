//! The admin side's client: one call over TCP or a unix socket, for the commands that talk to a running process.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::Value;

use super::{FileArgument, complain, environment, print, refuse};
use crate::config::model::{Address, Secret};
use crate::config::{self, FoundAdmin, Problem, Problems};
use crate::error::io_reason;

/// How long the process may take for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// `admin.listen` unless set.
const DEFAULT_ADDRESS: Address = Address::Socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900));
/// How to go on where the configuration cannot be understood.
const WITHOUT_FILE: &str = "the process is found without this file by --admin ADDR: 127.0.0.1:9900, unless admin.listen says \
                            otherwise; where that wants a token, -c FILE names a file that has it";
/// What to do when nobody answers.
const NOT_RUNNING: &str = "is it running? try flagstone run -c FILE";
/// The file may have been edited since.
const MOVED: &str =
    "where admin.listen has been changed since, --admin OLD reaches a process that listens where it did before";
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where the running process is: for every command that talks to it.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgument {
    #[command(flatten)]
    pub(super) file: FileArgument,
    /// The admin side: IP:PORT, localhost:PORT or unix:/PATH [default: listen of the configuration's [admin]]
    #[arg(long, value_name = "ADDR", value_parser = address, global = true)]
    admin: Option<Address>,
}

/// Whether a result is for people or for scripts.
#[derive(Debug, clap::Args)]
pub(super) struct JsonArgument {
    /// Print the admin side's answer as JSON
    #[arg(long)]
    json: bool,
}

impl JsonArgument {
    /// The answer itself, or what `text` makes of it.
    pub(super) fn show(&self, answer: &Value, text: impl FnOnce(&Value) -> String) -> String {
        match self.json {
            true => format!("{answer:#}\n"),
            false => text(answer),
        }
    }
}

/// A way to the admin side. Each call is a connection of its own.
pub(super) struct Client {
    address: Address,
    token: Option<Secret>,
    patience: Duration,
    /// What to do when nobody answers.
    help: String,
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("{0}")]
    Configuration(Problems),
    #[error("the configuration has no admin side: set admin.listen, or name it with --admin")]
    NoAdmin,
    #[error("no process answers on {address} ({reason}): {help}")]
    Unreachable { address: Address, reason: String, help: String },
    #[error("what listens on {address} does not answer within {patience:?}: it may be stopped or very busy")]
    Silent { address: Address, patience: Duration },
    #[error("the admin side wants its token: set admin.token in the configuration used here")]
    NoToken,
    #[error("the admin side takes another token than admin.token of the configuration used here")]
    WrongToken,
    /// It said no, in its own words.
    #[error("{detail}")]
    Refused { status: u16, detail: String },
    /// Not one that an order for this file may go to.
    #[error("the process on {address} does not serve by {}; --admin ADDR gives the order to it all the same", file.display())]
    Another { address: Address, file: PathBuf },
    /// As [`Self::Another`] where there is no file.
    #[error(
        "the process on {address} serves by a file: name it with -c FILE; --admin {address} gives the order to it all the same"
    )]
    ByFile { address: Address },
    #[error("what answers at {address} is no flagstone: {what}")]
    Foreign { address: Address, what: &'static str },
}

/// What a command that only makes the process do something takes.
#[derive(Debug, clap::Args)]
pub(super) struct OrderArguments {
    #[command(flatten)]
    admin: AdminArgument,
    #[command(flatten)]
    json: JsonArgument,
}

impl OrderArguments {
    /// Gives the order, waits for up to `patience` until it is done, and prints what came of it.
    pub(super) fn order(&self, path: &str, patience: Duration, text: impl FnOnce(&Value) -> String) -> ExitCode {
        let client = self.admin.client().map(|client| client.patience(patience));
        let answer = client.and_then(|client| client.call("POST", path, None));
        tell(answer.map(|answer| self.json.show(&answer, text)))
    }

    /// The same with an answer to `look` from before, for `text` to compare with.
    pub(super) fn order_after(
        &self,
        look: &str,
        path: &str,
        patience: Duration,
        text: impl FnOnce(&Value, &Value) -> String,
    ) -> ExitCode {
        let client = self.admin.client().map(|client| client.patience(patience));
        let answers = client.and_then(|client| Ok((client.call("GET", look, None)?, client.call("POST", path, None)?)));
        tell(answers.map(|(before, answer)| self.json.show(&answer, |answer| text(&before, answer))))
    }
}

impl AdminArgument {
    /// A file with errors will do: the process serves on with the one before it. So will none at all, for a process
    /// that serves without one has its admin side at the default place.
    ///
    /// # Errors
    /// The configuration cannot be read as far as the admin side is concerned, or names none.
    pub(super) fn client(&self) -> Result<Client, CallError> {
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
    pub(super) fn client_for_looking(&self) -> Result<Client, CallError> {
        self.client_of(self.found())
    }

    /// Whether `--admin` says where to go.
    pub(super) fn is_named(&self) -> bool {
        self.admin.is_some()
    }

    /// The process that serves by the file, however broken that is: where the file says, or at the default place when
    /// what is there serves by this very file. Without a file it is the one there that serves without one, too.
    ///
    /// # Errors
    /// There is no such process.
    pub(super) fn client_of_this_file(&self) -> Result<Client, CallError> {
        let Some(file) = self.file.find() else {
            let client = self.client_of(None)?;
            return match client.call("GET", "/api/config", None)?["source"].is_null() {
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

impl Client {
    /// For who needs no token.
    pub(super) fn at(address: Address) -> Self {
        Self { address, token: None, patience: PATIENCE, help: NOT_RUNNING.to_owned() }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the process serves by this file.
    fn serves_by(&self, file: &Path) -> Result<bool, CallError> {
        let answer = self.call("GET", "/api/config", None)?;
        // A relative one is relative to a folder that is not known here.
        let source = answer["source"].as_str().map(Path::new).filter(|source| source.is_absolute());
        let same = |source: &Path| Some(source.canonicalize().ok()? == file.canonicalize().ok()?);
        Ok(source.and_then(same).unwrap_or(false))
    }

    /// Waits this long for whatever the process does.
    pub(super) fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Calls `path` and returns the JSON of a 2xx answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        let (status, body) = self.ask(method, path, body)?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body).map_err(|_| self.foreign("the answer is no JSON"));
        }
        if status == 401 {
            return Err(if self.token.is_some() { CallError::WrongToken } else { CallError::NoToken });
        }
        let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let mut detail = body["detail"].as_str().unwrap_or("it said no without a reason").to_owned();
        for error in body["errors"].as_array().into_iter().flatten() {
            detail +=
                &format!("\n{}", Problem::from_json(error).map_or_else(|| error.to_string(), |it| it.to_string()));
        }
        Err(CallError::Refused { status, detail })
    }

    /// Calls `path` and returns status and body, whatever they are.
    ///
    /// # Errors
    /// Nobody answers, or not in HTTP.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Vec<u8>), CallError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            request += &format!("Authorization: Bearer {}\r\n", token.0);
        }
        request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = self.exchange(request.as_bytes()).map_err(|error| self.failed(&error))?;
        self.parse(&answer)
    }

    fn failed(&self, error: &io::Error) -> CallError {
        let address = self.address.clone();
        match error.kind() {
            // What read(2) says of a time that is over.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                CallError::Silent { address, patience: self.patience }
            }
            _ => CallError::Unreachable { address, reason: io_reason(error), help: self.help.clone() },
        }
    }

    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        match &self.address {
            Address::Socket(address) => talk(tcp(*address, self.patience)?, request),
            Address::Name { host, port } => {
                // Only `localhost` is a name here.
                debug_assert_eq!(host, "localhost");
                let connect = |ip: IpAddr| tcp(SocketAddr::from((ip, *port)), self.patience);
                let socket = connect(Ipv4Addr::LOCALHOST.into()).or_else(|_| connect(Ipv6Addr::LOCALHOST.into()))?;
                talk(socket, request)
            }
            Address::Unix(path) => {
                let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                let socket = UnixStream::from(socket);
                socket.set_read_timeout(Some(self.patience))?;
                // Bounds how long it waits for a place in the queue, too.
                socket.set_write_timeout(Some(self.patience))?;
                net::connect(&socket, &SocketAddrUnix::new(path)?)?;
                talk(socket, request)
            }
        }
    }

    fn parse(&self, answer: &[u8]) -> Result<(u16, Vec<u8>), CallError> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        match head.parse(answer) {
            Ok(httparse::Status::Complete(length)) => Ok((head.code.unwrap_or_default(), answer[length..].to_vec())),
            _ => Err(self.foreign("the answer is no HTTP")),
        }
    }

    pub(super) fn foreign(&self, what: &'static str) -> CallError {
        CallError::Foreign { address: self.address.clone(), what }
    }
}

impl CallError {
    /// Prints it as every command does, and says no.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Configuration(problems) => refuse(problems),
            error => {
                complain(error);
                ExitCode::FAILURE
            }
        }
    }
}

/// Prints the answer to a call, or why there is none: all that most commands do.
pub(super) fn tell(result: Result<String, CallError>) -> ExitCode {
    match result {
        Ok(text) => print(text, ExitCode::SUCCESS),
        Err(error) => error.report(),
    }
}

/// One part of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn tcp(mut address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    // Where it listens on every address, this machine's own is meant.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    Ok(socket)
}

fn talk(mut socket: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    socket.write_all(request)?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
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

    fn client() -> Client {
        Client { address: Address::Unix("/none".into()), token: None, patience: PATIENCE, help: String::new() }
    }

    /// What a call makes of an answer.
    fn answered(answer: &'static [u8]) -> Result<Value, CallError> {
        asked(answer.to_vec(), |client| client.call("GET", "/", None))
    }

    /// What is made of an answer.
    fn asked<T>(answer: Vec<u8>, ask: impl FnOnce(&Client) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(socket.read(&mut request).unwrap() > 0);
            socket.write_all(&answer).unwrap();
        });
        let result = ask(&Client { address: Address::Unix(path), ..client() });
        server.join().unwrap();
        result
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let refused = answered(b"HTTP/1.1 404 Not Found\r\n\r\n{\"detail\":\"there is no such limit\"}");
        assert_eq!(refused.unwrap_err().to_string(), "there is no such limit");
        let value = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\":[1]}").unwrap();
        assert_eq!(value["a"][0], 1);
    }

    #[test]
    fn errors_are_told_as_check_tells_them() {
        let refused = answered(
            b"HTTP/1.1 422 No\r\n\r\n{\"detail\":\"no\",\"errors\":[{\"file\":\"a.toml\",\"line\":2,\"column\":1,\
              \"path\":\"x\",\"message\":\"bad\",\"value\":\"1\",\"help\":\"mend it\"}, 7]}",
        );
        assert_eq!(refused.unwrap_err().to_string(), "no\na.toml:2:1: x = 1: bad: mend it\n7");
    }

    #[test]
    fn who_speaks_something_else_is_told_apart() {
        for answer in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello"] {
            assert!(matches!(answered(answer), Err(CallError::Foreign { .. })));
        }
        assert!(matches!(client().call("GET", "/", None), Err(CallError::Unreachable { .. })));
    }

    /// Beside sockets that nobody accepts from, and whose queue is full.
    #[test]
    fn nobody_waits_for_a_connection_longer_than_for_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let unix = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        net::bind(&unix, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let tcp = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&tcp, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        for socket in [&unix, &tcp] {
            net::listen(socket, 0).unwrap();
        }
        let tcp_address = net::getsockname(&tcp).unwrap().try_into().unwrap();
        let _queued = UnixStream::connect(&path).unwrap();
        // How many a queue of TCP takes is the kernel's business.
        let connect = || TcpStream::connect_timeout(&tcp_address, Duration::from_millis(100));
        let _all: Vec<_> = std::iter::from_fn(|| connect().ok()).take(16).collect();
        for address in [Address::Unix(path), Address::Socket(tcp_address)] {
            let patience = Duration::from_millis(50);
            let client = Client { address, patience, ..client() };
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || sender.send(client.call("GET", "/", None).map(drop)));
            // Well below what they are waited for otherwise, which is ten seconds or for ever.
            let result = receiver.recv_timeout(Duration::from_secs(8)).unwrap();
            assert!(matches!(result, Err(CallError::Silent { .. })), "{result:?}");
        }
    }

    #[test]
    fn a_process_is_known_by_the_file_it_serves_by() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flagstone.toml");
        std::fs::write(&file, "[admin\n").unwrap();
        let serves = |source: &str| {
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{}", serde_json::json!({ "source": source }));
            asked(answer.into_bytes(), |client| client.serves_by(&file)).unwrap()
        };
        assert!(serves(file.to_str().unwrap()));
        assert!(serves(folder.path().join("./flagstone.toml").to_str().unwrap()));
        for other in ["flagstone.toml", "/", "/no/such/flagstone.toml", ""] {
            assert!(!serves(other), "{other}");
        }
        let refused = asked(b"HTTP/1.1 401 No\r\n\r\n".to_vec(), |client| client.serves_by(&file));
        assert!(matches!(refused, Err(CallError::NoToken)));
    }

    #[test]
    fn who_is_there_and_says_nothing_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let address = Address::Unix(path);
        let told = Client { address, patience: Duration::from_millis(50), ..client() }.call("GET", "/", None);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("does not answer within 50ms: it may be stopped or very busy"), "{told}");
    }

    #[test]
    fn addresses_are_written_as_in_the_configuration() {
        assert_eq!(address("unix:/run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!(address("127.0.0.1:9900"), Ok(Address::Socket(([127, 0, 0, 1], 9900).into())));
        assert!(address("localhost:9900").is_ok());
        assert!(address("9900").is_err() && address("unix:").is_err());
    }

    #[test]
    fn names_are_one_segment() {
        assert_eq!(segment("per_ip/../x"), "per%5Fip%2F%2E%2E%2Fx");
    }
}
