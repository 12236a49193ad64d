//! The admin side's client: one call over TCP or a unix socket, for the commands that talk to a running process.

mod arguments;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(super) use arguments::{AdminArgument, JsonArgument, OrderArguments};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::Value;

use super::{complain, print, refuse};
use crate::config::model::{Address, Secret};
use crate::config::{Problem, Problems};
use crate::error::io_reason;

/// How long the process may take for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// What to do when nobody answers.
const NOT_RUNNING: &str = "is it running? try flagstone run -c FILE";
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

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
    Foreign { address: Address, what: String },
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
        let answer = self.call("GET", "/api/config", None, "source")?;
        // A relative one is relative to a folder that is not known here.
        let source = answer["source"].as_str().map(Path::new).filter(|source| source.is_absolute());
        let same = |source: &Path| Some(source.canonicalize().ok()? == file.canonicalize().ok()?);
        Ok(source.and_then(same).unwrap_or(false))
    }

    /// Waits this long for whatever the process does.
    pub(super) fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Calls `path` and returns the JSON of a 2xx answer. `field` is one that every such answer has: whatever else
    /// speaks JSON at this address has not done what was asked.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(super) fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        field: &'static str,
    ) -> Result<Value, CallError> {
        let (status, body) = self.ask(method, path, body)?;
        if (200..300).contains(&status) {
            let answer: Value = serde_json::from_slice(&body).map_err(|_| self.foreign("the answer is no JSON"))?;
            return match answer.get(field) {
                Some(_) => Ok(answer),
                None => Err(self.foreign(format!("the answer has no \"{field}\""))),
            };
        }
        if status == 401 {
            return Err(if self.token.is_some() { CallError::WrongToken } else { CallError::NoToken });
        }
        let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let Some(detail) = body["detail"].as_str() else {
            return Err(self.foreign(format!("the answer is {status}, without a reason")));
        };
        let mut detail = detail.to_owned();
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
            Address::Socket(address) => self.talk(tcp(*address, self.patience)?, request),
            Address::Name { host, port } => {
                // Only `localhost` is a name here.
                debug_assert_eq!(host, "localhost");
                let connect = |ip: IpAddr| tcp(SocketAddr::from((ip, *port)), self.patience);
                let socket = connect(Ipv4Addr::LOCALHOST.into()).or_else(|_| connect(Ipv6Addr::LOCALHOST.into()))?;
                self.talk(socket, request)
            }
            Address::Unix(path) => {
                let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                let socket = UnixStream::from(socket);
                // Bounds how long it waits for a place in the queue, too.
                socket.set_write_timeout(Some(self.patience))?;
                net::connect(&socket, &SocketAddrUnix::new(path)?)?;
                self.talk(socket, request)
            }
        }
    }

    /// The whole answer has to be there in time: a server that sends it byte by byte is no better than a silent one.
    fn talk(&self, mut socket: impl Read + Write + AsFd, request: &[u8]) -> io::Result<Vec<u8>> {
        socket.write_all(request)?;
        let deadline = Instant::now() + self.patience;
        let (mut answer, mut piece) = (Vec::new(), [0; 16 * 1024]);
        while answer.len() < ANSWER_BYTES_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(left))?;
            match socket.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(answer)
    }

    fn parse(&self, answer: &[u8]) -> Result<(u16, Vec<u8>), CallError> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        match head.parse(answer) {
            Ok(httparse::Status::Complete(length)) => Ok((head.code.unwrap_or_default(), answer[length..].to_vec())),
            _ => Err(self.foreign("the answer is no HTTP")),
        }
    }

    pub(super) fn foreign(&self, what: impl Into<String>) -> CallError {
        CallError::Foreign { address: self.address.clone(), what: what.into() }
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
    socket.set_write_timeout(Some(patience))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client { address: Address::Unix("/none".into()), token: None, patience: PATIENCE, help: String::new() }
    }

    /// What a call makes of an answer.
    fn answered(answer: &'static [u8]) -> Result<Value, CallError> {
        asked(answer.to_vec(), |client| client.call("GET", "/", None, "a"))
    }

    /// What is made of an answer.
    fn asked<T>(answer: Vec<u8>, ask: impl FnOnce(&Client) -> T) -> T {
        let serve = move |mut socket: UnixStream| {
            let mut request = [0; 1024];
            assert!(socket.read(&mut request).unwrap() > 0);
            socket.write_all(&answer).unwrap();
        };
        served(serve, PATIENCE, ask).0
    }

    /// What `ask` makes of a server that does what `serve` says, and what that has come to.
    fn served<T, S: Send + 'static>(
        serve: impl FnOnce(UnixStream) -> S + Send + 'static,
        patience: Duration,
        ask: impl FnOnce(&Client) -> T,
    ) -> (T, S) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        let result = ask(&Client { address: Address::Unix(path), patience, ..client() });
        (result, server.join().unwrap())
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
    fn an_answer_that_does_not_end_in_time_is_none() {
        let trickle = |mut socket: UnixStream| {
            socket.write_all(b"HTTP/1.1 200 OK\r\nx: ").unwrap();
            // For a minute, unless its client has gone.
            (0..6_000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                socket.write_all(b"y").is_err()
            })
        };
        let (result, is_left) = served(trickle, Duration::from_millis(200), |client| client.ask("GET", "/", None));
        assert!(matches!(result, Err(CallError::Silent { .. })), "{result:?}");
        assert!(is_left, "it was heard out");
    }

    #[test]
    fn who_speaks_something_else_is_told_apart() {
        for answer in [
            &b""[..],
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\n\r\n{\"b\":1}",
            b"HTTP/1.1 200 OK\r\n\r\n[]",
            b"HTTP/1.1 404 Not Found\r\n\r\n<h1>Not Found</h1>",
        ] {
            assert!(matches!(answered(answer), Err(CallError::Foreign { .. })));
        }
        assert!(matches!(client().call("GET", "/", None, "a"), Err(CallError::Unreachable { .. })));
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
            std::thread::spawn(move || sender.send(client.call("GET", "/", None, "a").map(drop)));
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
        let told = Client { address, patience: Duration::from_millis(50), ..client() }.call("GET", "/", None, "a");
        let told = told.unwrap_err().to_string();
        assert!(told.contains("does not answer within 50ms: it may be stopped or very busy"), "{told}");
    }

    #[test]
    fn names_are_one_segment() {
        assert_eq!(segment("per_ip/../x"), "per%5Fip%2F%2E%2E%2Fx");
    }
}
