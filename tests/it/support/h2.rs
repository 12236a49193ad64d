//! HTTP/2 from the client's side: hyper's client for what is meant well, bare frames for everything else.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::client::Client;

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A connection with prior knowledge.
#[derive(Clone, Debug)]
pub struct Http2 {
    sender: http2::SendRequest<Body>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub head: http::response::Parts,
    pub body: Bytes,
    pub trailers: Option<http::HeaderMap>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("a handshake");
        // Ends when the sender is dropped, or the proxy has had enough.
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends a request and returns the head of its answer.
    pub async fn start(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// Sends a request and reads its whole answer.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Answer> {
        whole(self.start(request).await?).await
    }

    /// [`Http2::send`] that tells whether a request which failed may be sent again: it never left, or the other side
    /// has said with its GOAWAY that it did not look at it (RFC 9113, section 6.8).
    ///
    /// # Errors
    /// What went wrong, and whether nothing can have been done.
    pub async fn try_send(&mut self, request: Request<Body>) -> Result<Answer, (hyper::Error, bool)> {
        if let Err(error) = self.sender.ready().await {
            return Err((error, true));
        }
        let sent = self.sender.try_send_request(request).await;
        let response = sent.map_err(|mut error| {
            let is_unsent = error.take_message().is_some();
            let error = error.into_error();
            let is_untouched = is_unsent || says_farewell(&error);
            (error, is_untouched)
        })?;
        whole(response).await.map_err(|error| (error, false))
    }

    /// `GET` of a path at `http://app`.
    pub async fn get(&mut self, path: &str) -> hyper::Result<Answer> {
        self.send(get(path)).await
    }

    /// Whether the connection has come to its end.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// h2 ends streams beyond the last one that a GOAWAY names with that GOAWAY, and no others.
fn says_farewell(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<::h2::Error>());
    source
        .is_some_and(|error| error.is_go_away() && error.is_remote() && error.reason() == Some(::h2::Reason::NO_ERROR))
}

/// Reads an answer to its end.
pub async fn whole(response: Response<Incoming>) -> hyper::Result<Answer> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok(Answer { head, body: collected.to_bytes(), trailers })
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://app{path}")).body(empty()).expect("a request")
}

pub fn empty() -> Body {
    Empty::new().boxed_unsync()
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

pub mod kind {
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as bytes, its length as it is.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    framed(payload.len(), kind, flags, stream, payload)
}

/// A frame that claims to have this length.
pub fn framed(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block without compression: literals without indexing, names and values as they are (RFC 7541, section
/// 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// With a prefix of seven bits (RFC 7541, section 5.1).
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return bytes.push(value as u8);
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The fields that every request has.
pub const REQUEST: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "app"), (":path", "/")];

/// The head of a GET.
pub fn request(stream: u32, flags: u8) -> Vec<u8> {
    frame(kind::HEADERS, flags | flag::END_HEADERS, stream, block(&REQUEST))
}

/// What came from the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of RST_STREAM and GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().expect("four bytes")))
    }

    pub fn is(&self, kind: u8, flags: u8) -> bool {
        self.kind == kind && self.flags & flags == flags
    }
}

/// A connection that speaks frames.
pub struct Framed {
    pub client: Client,
}

impl Framed {
    /// Connected, and nothing said yet.
    pub async fn silent(address: SocketAddr) -> Self {
        Self { client: Client::connect(address).await.expect("a connection") }
    }

    /// With preface and empty SETTINGS exchanged.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut framed = Self::silent(address).await;
        framed.client.send(PREFACE).await.expect("a preface");
        framed.send(&frame(kind::SETTINGS, 0, 0, [])).await;
        framed.find(|frame| frame.is(kind::SETTINGS, flag::ACK)).await.expect("SETTINGS are acknowledged");
        framed.send(&frame(kind::SETTINGS, flag::ACK, 0, [])).await;
        framed
    }

    /// A write that fails is no matter: what the other side said first is still to be read.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.client.send(bytes).await.is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn read(&mut self) -> Option<Frame> {
        let head = self.client.read_exactly(9).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = self.client.read_exactly(length).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes"));
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of which `wanted` is true; `None` when the connection ends before.
    pub async fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// How the connection ends: the code of its GOAWAY, 0 where it just closes.
    pub async fn ends_with(&mut self) -> u32 {
        let mut code = 0;
        while let Some(frame) = self.read().await {
            if frame.kind == kind::GOAWAY {
                code = frame.code().unwrap_or(0).max(code);
            }
        }
        code
    }

    /// Whether the connection still answers a PING.
    pub async fn is_alive(&mut self) -> bool {
        self.send(&frame(kind::PING, 0, 0, b"alive???")).await
            && self.find(|frame| frame.is(kind::PING, flag::ACK) && frame.payload == b"alive???").await.is_some()
    }
}

/// For what must happen, and need not happen quickly.
pub const PATIENCE: Duration = Duration::from_secs(10);
