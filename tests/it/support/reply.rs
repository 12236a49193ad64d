//! What a [`FakeUpstream`](super::upstream::FakeUpstream) answers: a script of steps on the raw connection.
//!
//! `Reply::ok("hello")` is the polite one. Each fault is a constructor named for what goes wrong; whatever is
//! missing is built from [`Reply::raw`] and [`Reply::then`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::wire::Message;

/// A script; after its last step the connection waits for the next request.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) steps: Vec<Step>,
}

/// One thing to do on the connection.
#[derive(Clone)]
pub enum Step {
    /// Take the request's body, then go on. Without it, a body that came is taken after the last step.
    ReadBody,
    Send(Vec<u8>),
    /// Send the same bytes again and again, with a pause after each, until the connection ends.
    Repeat {
        bytes: Vec<u8>,
        pause: Duration,
    },
    Wait(Duration),
    /// Wait until the test says so.
    Await(Arc<Notify>),
    /// Never go on; the connection stays open.
    Hang,
    /// End with FIN.
    Close,
    /// End with RST.
    Reset,
    /// Send everything back that arrives from now on.
    EchoBytes,
    /// Go on with the reply that this makes of the request.
    Answer(Arc<dyn Fn(&Message) -> Reply + Send + Sync>),
}

impl Reply {
    /// 200 with a body of known length, after reading the request's body.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200, body)
    }

    /// Any status with a body of known length, after reading the request's body.
    pub fn status(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::with_headers(status, "", body)
    }

    /// The same with headers of its own: `"A: b\r\nC: d\r\n"`.
    pub fn with_headers(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = head(status, &format!("{headers}Content-Length: {}\r\n", body.len()));
        bytes.extend_from_slice(body);
        Self::default().then(Step::ReadBody).then(Step::Send(bytes))
    }

    /// 200 with a chunked body, one chunk per item, and trailers (`"A: b\r\n"`).
    pub fn chunked(chunks: &[&str], trailers: &str) -> Self {
        let mut bytes = head(200, "Transfer-Encoding: chunked\r\n");
        for chunk in chunks {
            bytes.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
        }
        bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        Self::default().then(Step::ReadBody).then(Step::Send(bytes))
    }

    /// 200 with a body that lasts until the connection closes.
    pub fn until_close(body: impl AsRef<[u8]>) -> Self {
        let mut bytes = head(200, "Connection: close\r\n");
        bytes.extend_from_slice(body.as_ref());
        Self::default().then(Step::ReadBody).then(Step::Send(bytes)).then(Step::Close)
    }

    /// 200 with the request's body.
    pub fn echo_body() -> Self {
        Self::answer(|request| Self::ok(&request.body))
    }

    /// 200 with the request's head as text.
    pub fn echo_head() -> Self {
        Self::answer(|request| {
            let lines = request.head.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
            Self::ok(format!("{}\n{}", request.head.line, lines.collect::<String>()))
        })
    }

    /// Whatever `make` makes of each request, its body read.
    pub fn answer(make: impl Fn(&Message) -> Self + Send + Sync + 'static) -> Self {
        Self::default().then(Step::ReadBody).then(Step::Answer(Arc::new(make)))
    }

    /// Bytes as they are, after reading the request's body.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::default().then(Step::ReadBody).then(Step::Send(bytes.as_ref().to_vec()))
    }

    /// Reads the request and never says a word.
    pub fn hang() -> Self {
        Self::default().then(Step::ReadBody).then(Step::Hang)
    }

    /// Closes without an answer.
    pub fn close() -> Self {
        Self::default().then(Step::Close)
    }

    /// Resets without an answer.
    pub fn reset() -> Self {
        Self::default().then(Step::Reset)
    }

    /// Dies inside the head.
    pub fn die_in_head() -> Self {
        Self::raw("HTTP/1.1 200 OK\r\nContent-Le").then(Step::Close)
    }

    /// Announces `length` bytes, sends `body`, closes.
    pub fn truncated(length: usize, body: &str) -> Self {
        let mut bytes = head(200, &format!("Content-Length: {length}\r\n"));
        bytes.extend_from_slice(body.as_bytes());
        Self::raw(bytes).then(Step::Close)
    }

    /// Sends one chunk and half of another, closes.
    pub fn truncated_chunked() -> Self {
        let mut bytes = head(200, "Transfer-Encoding: chunked\r\n");
        bytes.extend_from_slice(b"5\r\nfirst\r\n6\r\nsec");
        Self::raw(bytes).then(Step::Close)
    }

    /// Answers, promising to keep the connection, and closes it at once.
    pub fn then_close(body: &str) -> Self {
        Self::with_headers(200, "Connection: keep-alive\r\n", body).then(Step::Close)
    }

    /// Answers, promising to keep the connection, and resets it a little later.
    pub fn then_reset(body: &str, later: Duration) -> Self {
        Self::with_headers(200, "Connection: keep-alive\r\n", body).then(Step::Wait(later)).then(Step::Reset)
    }

    /// Answers, then sends bytes that nobody asked for.
    pub fn extra_bytes(body: &str, extra: impl AsRef<[u8]>) -> Self {
        Self::ok(body).then(Step::Send(extra.as_ref().to_vec()))
    }

    /// Answers before it reads the request's body.
    pub fn early(status: u16, body: &str) -> Self {
        let mut early = Self::status(status, body);
        early.steps.retain(|step| !matches!(step, Step::ReadBody));
        early
    }

    /// Answers before it reads the request's body, and closes without ever reading it. When some of the body has
    /// arrived by then, the system sends RST instead of FIN, and the answer may be lost on the way: so it is with real
    /// servers.
    pub fn early_then_close(status: u16, body: &str) -> Self {
        Self::early(status, body).then(Step::Close)
    }

    /// Says `100 Continue`, then answers.
    pub fn continue_then(status: u16, body: &str) -> Self {
        let mut reply = Self::default().then(Step::Send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()));
        reply.steps.extend(Self::status(status, body).steps);
        reply
    }

    /// A head that no parser should take: a header name with a space in it.
    pub fn invalid_header() -> Self {
        Self::raw(head(200, "Bad Name: x\r\nContent-Length: 0\r\n"))
    }

    /// Sends `pieces` of the body one after another with a pause before each, the length announced.
    pub fn slow_body(pieces: &[&str], pause: Duration) -> Self {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let slow = Self::raw(head(200, &format!("Content-Length: {length}\r\n")));
        pieces.iter().fold(slow, |slow, piece| slow.then(Step::Wait(pause)).then(Step::Send(piece.as_bytes().to_vec())))
    }

    /// A chunked event stream, one event now and after every pause, until the connection ends.
    pub fn event_stream(event: &str, pause: Duration) -> Self {
        let event = format!("data: {event}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
        Self::raw(head(200, "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"))
            .then(Step::Repeat { bytes: chunk, pause })
    }

    /// Agrees to any upgrade and sends every byte back from then on.
    pub fn upgrade() -> Self {
        Self::answer(|request| {
            let protocol = request.head.header("upgrade").unwrap_or("websocket");
            let headers = format!("Connection: upgrade\r\nUpgrade: {protocol}\r\n{}", web_socket_accept(request));
            Self::raw(head(101, &headers)).then(Step::EchoBytes)
        })
    }

    /// Waits before the rest of the script.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        self.behind(Step::Wait(wait))
    }

    /// Does this before the rest of the script.
    #[must_use]
    pub fn behind(mut self, step: Step) -> Self {
        self.steps.insert(0, step);
        self
    }

    /// Waits for `word` before the rest of the script.
    #[must_use]
    pub fn at(mut self, word: &Arc<Notify>) -> Self {
        self.steps.insert(0, Step::Await(Arc::clone(word)));
        self
    }

    /// Does one more thing at the end.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

impl Default for Reply {
    /// Does nothing: the request stays without an answer and the next one is awaited.
    fn default() -> Self {
        Self { steps: Vec::new() }
    }
}

impl<T: AsRef<str>> From<T> for Reply {
    fn from(body: T) -> Self {
        Self::ok(body.as_ref())
    }
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ReadBody => f.write_str("ReadBody"),
            Self::Send(bytes) => write!(f, "Send({:?})", String::from_utf8_lossy(bytes)),
            Self::Repeat { pause, .. } => write!(f, "Repeat(every {pause:?})"),
            Self::Wait(wait) => write!(f, "Wait({wait:?})"),
            Self::Await(_) => f.write_str("Await(..)"),
            Self::Hang => f.write_str("Hang"),
            Self::Close => f.write_str("Close"),
            Self::Reset => f.write_str("Reset"),
            Self::EchoBytes => f.write_str("EchoBytes"),
            Self::Answer(_) => f.write_str("Answer(..)"),
        }
    }
}

fn head(status: u16, headers: &str) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    format!("HTTP/1.1 {status} {}\r\n{headers}\r\n", reason.unwrap_or("Whatever")).into_bytes()
}

fn web_socket_accept(request: &Message) -> String {
    let Some(key) = request.head.header("sec-websocket-key") else {
        return String::new();
    };
    format!("Sec-WebSocket-Accept: {}\r\n", super::websocket::accept_key(key))
}
