//! A client that speaks bytes: what a test sends is what goes out, what comes back is kept as it came.
//!
//! Every wait has a deadline ([`DEADLINE`] unless [`Client::deadline`] says otherwise), so that no test hangs.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::socket::Socket;
use super::wire::{self, Fields, Framing, Head};

/// How long a client waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    /// Received and not yet taken.
    buffer: Vec<u8>,
    deadline: Duration,
}

/// A response as it came.
#[derive(Clone, Debug)]
pub struct RawResponse {
    pub status: u16,
    /// The status line without its line end.
    pub line: String,
    /// In order, names as they were written.
    pub headers: Fields,
    /// With chunks joined.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Statuses of the 1xx responses before it.
    pub interim: Vec<u16>,
    /// The final response's own bytes, head and framing included.
    pub raw: Vec<u8>,
}

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Fin,
    Reset,
}

impl RawResponse {
    /// The first value of a header, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::find(&self.headers, name).next()
    }

    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        wire::find(&self.headers, name).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// Connects over TCP.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = within(DEADLINE, "a connection", TcpStream::connect(address)).await?;
        Self::on(stream)
    }

    /// On a connection that was made already.
    pub fn on(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::over(Socket::Tcp(stream)))
    }

    /// Connects to a unix socket.
    pub async fn connect_unix(path: impl AsRef<Path>) -> io::Result<Self> {
        let stream = within(DEADLINE, "a connection", UnixStream::connect(path)).await?;
        Ok(Self::over(Socket::Unix(stream)))
    }

    /// Connects over TLS; roots and ALPN are the configuration's (see `certs`), `name` is verified and sent as SNI.
    pub async fn connect_tls(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        Self::connect_tls_behind(address, b"", name, config).await
    }

    /// The same with some bytes before the handshake, such as a PROXY header.
    ///
    /// # Errors
    /// As for [`Client::connect_tls`].
    pub async fn connect_tls_behind(
        address: SocketAddr,
        before: &[u8],
        name: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let mut stream = within(DEADLINE, "a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        within(DEADLINE, "a write", tokio::io::AsyncWriteExt::write_all(&mut stream, before)).await?;
        Self::tls_on(stream, name, config).await
    }

    /// The same on a connection that was made already.
    ///
    /// # Errors
    /// As for [`Client::connect_tls`].
    pub async fn tls_on(stream: TcpStream, name: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        let stream = within(DEADLINE, "a TLS handshake", handshake).await?;
        Ok(Self::over(Socket::Tls(Box::new(stream.into()))))
    }

    fn over(socket: Socket) -> Self {
        Self { socket, buffer: Vec::new(), deadline: DEADLINE }
    }

    /// Waits this long for anything from now on.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The connection itself, to ask about TLS.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sending = async {
            self.socket.write_all(bytes.as_ref()).await?;
            self.socket.flush().await
        };
        within(self.deadline, "room to send", sending).await
    }

    /// Sends bytes in pieces with a pause after each: a slow client.
    pub async fn send_slowly(&mut self, bytes: impl AsRef<[u8]>, piece: usize, pause: Duration) -> io::Result<()> {
        for piece in bytes.as_ref().chunks(piece) {
            self.send(piece).await?;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Sends a request without a body: `GET /path`, `Host: test`, and whatever `headers` holds (`"A: b\r\n"`).
    pub async fn request(&mut self, method: &str, path: &str, headers: &str) -> io::Result<()> {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await
    }

    /// One `GET` and its response; the connection stays open for more.
    pub async fn get(&mut self, path: &str) -> io::Result<RawResponse> {
        self.request("GET", path, "").await?;
        self.read_response().await
    }

    /// One `POST` with a body of known length, and its response.
    pub async fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> io::Result<RawResponse> {
        let body = body.as_ref();
        self.request("POST", path, &format!("Content-Length: {}\r\n", body.len())).await?;
        self.send(body).await?;
        self.read_response().await
    }

    /// Ends the sending side (FIN) and keeps reading.
    pub async fn finish_sending(&mut self) -> io::Result<()> {
        within(self.deadline, "room to send", self.socket.shutdown()).await
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        self.socket.reset();
    }

    /// Reads the next final response, 1xx before it noted in `interim`.
    ///
    /// # Errors
    /// `TimedOut` past the deadline, `UnexpectedEof` when the connection ends inside the response,
    /// `InvalidData` when it cannot be read; each says what had come.
    pub async fn read_response(&mut self) -> io::Result<RawResponse> {
        self.read_final(false).await
    }

    /// Reads the next final response as the answer to `HEAD`: nothing follows its head.
    pub async fn read_head_response(&mut self) -> io::Result<RawResponse> {
        self.read_final(true).await
    }

    /// Reads one 1xx response, to see that it came before anything else.
    pub async fn read_interim(&mut self) -> io::Result<u16> {
        let (_, status) = self.read_head().await?;
        if (100..200).contains(&status) { Ok(status) } else { Err(wire::invalid(format!("{status} instead of 1xx"))) }
    }

    /// Reads exactly so many bytes.
    pub async fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.read_more().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Reads up to and including the first occurrence of `end`.
    pub async fn read_until(&mut self, end: impl AsRef<[u8]>) -> io::Result<Vec<u8>> {
        let end = end.as_ref();
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.read_more().await?;
        }
    }

    /// Reads everything until the other side closes. A reset is an error.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.read_more().await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the other side to end the connection without sending another byte.
    pub async fn expect_closed(&mut self) -> io::Result<Ending> {
        let ending = match self.read_more().await {
            Ok(()) => return Err(self.explain("an end", wire::invalid("more bytes came"))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ending::Fin,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ending::Reset,
            Err(error) => return Err(error),
        };
        if self.buffer.is_empty() { Ok(ending) } else { Err(self.explain("an end", wire::invalid("bytes were left"))) }
    }

    /// Succeeds when nothing comes and nothing ends for `quiet`.
    pub async fn expect_silence(&mut self, quiet: Duration) -> io::Result<()> {
        let waited = self.deadline;
        self.deadline = quiet;
        let read = self.read_more().await;
        self.deadline = waited;
        match read {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(self.explain("silence", wire::invalid("bytes came"))),
        }
    }

    async fn read_final(&mut self, to_head: bool) -> io::Result<RawResponse> {
        let mut interim = Vec::new();
        loop {
            let (raw, status) = self.read_head().await?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
            } else {
                let bodyless = to_head || matches!(status, 101 | 204 | 304);
                return self.read_body(raw, status, interim, bodyless).await;
            }
        }
    }

    async fn read_head(&mut self) -> io::Result<(Vec<u8>, u16)> {
        let raw = loop {
            if let Some(end) = wire::head_end(&self.buffer) {
                break self.buffer.drain(..end).collect::<Vec<_>>();
            }
            self.read_more().await?;
        };
        let line = Head::parse(&raw).line;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        status.map(|status| (raw, status)).ok_or_else(|| wire::invalid(format!("no status line: {line:?}")))
    }

    async fn read_body(
        &mut self,
        mut raw: Vec<u8>,
        status: u16,
        interim: Vec<u16>,
        bodyless: bool,
    ) -> io::Result<RawResponse> {
        let head = Head::parse(&raw);
        let mut trailers = Vec::new();
        let body = match head.framing() {
            _ if bodyless => Vec::new(),
            Framing::Length(length) => {
                let length = usize::try_from(length).map_err(io::Error::other)?;
                let body = self.read_exactly(length).await?;
                raw.extend_from_slice(&body);
                body
            }
            Framing::Unsaid => {
                let body = self.read_to_end().await?;
                raw.extend_from_slice(&body);
                body
            }
            Framing::Chunked => {
                let (body, after) = self.read_chunks(&mut raw).await?;
                trailers = after;
                body
            }
        };
        Ok(RawResponse { status, line: head.line, headers: head.headers, body, trailers, interim, raw })
    }

    /// Reads chunk by chunk, so that a long stream is looked at once and what follows it is left alone.
    async fn read_chunks(&mut self, raw: &mut Vec<u8>) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until("\n").await?;
            raw.extend_from_slice(&line);
            let size = wire::chunk_size(&line)?;
            if size == 0 {
                break;
            }
            let data = self.read_exactly(size.saturating_add(2)).await?;
            raw.extend_from_slice(&data);
            body.extend_from_slice(&data[..size]);
        }
        let mut trailers = String::new();
        loop {
            let line = self.read_until("\n").await?;
            raw.extend_from_slice(&line);
            if matches!(line.as_slice(), b"\n" | b"\r\n") {
                return Ok((body, wire::fields(&trailers)));
            }
            trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        let read = within(self.deadline, "bytes", self.socket.read_buf(&mut self.buffer)).await;
        match read {
            Ok(0) => Err(self.explain("bytes", io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain("bytes", error)),
        }
    }

    fn explain(&self, awaited: &str, error: io::Error) -> io::Error {
        let had = &self.buffer[..self.buffer.len().min(2000)];
        let had = String::from_utf8_lossy(had);
        io::Error::new(error.kind(), format!("waiting for {awaited}: {error}; not yet taken: {had:?}"))
    }
}

/// One `GET` on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<RawResponse> {
    let mut client = Client::connect(address).await?;
    client.request("GET", path, "Connection: close\r\n").await?;
    client.read_response().await
}

async fn within<T>(deadline: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no {what} within {deadline:?}"))),
    }
}
