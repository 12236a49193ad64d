//! One connection of a [`FakeUpstream`](super::upstream::FakeUpstream): reads requests, plays replies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::reply::{Reply, Step};
use super::socket::Socket;
use super::upstream::{Handshake, OnAccept, Record, Shared, locked};
use super::wire::{self, Framing, Head, Message};

/// What is kept of a connection's bytes and of a body; what comes after is only counted.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) struct Connection {
    socket: Socket,
    /// Received and not yet taken.
    buffer: Vec<u8>,
    record: Record,
    reset_after: u64,
    reset_idle: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

/// How this side ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Reset,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Close
    }
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connection {
    /// Serves one accepted connection to its end.
    pub(super) async fn serve(socket: Socket, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
        shared.open.fetch_add(1, Ordering::SeqCst);
        let _open = Open(Arc::clone(&shared));
        let record = Record::default();
        locked(&shared.records).push(Arc::clone(&record));
        let (on_accept, reset_after) = {
            let behaviour = locked(&shared.behaviour);
            (behaviour.on_accept, behaviour.reset_after.unwrap_or(u64::MAX))
        };
        match on_accept {
            OnAccept::Serve => {}
            OnAccept::Reset => return socket.reset(),
            OnAccept::Close => return,
            OnAccept::Blackhole => return std::future::pending().await,
        }
        let socket = match (socket, tls) {
            (Socket::Tcp(stream), Some(config)) => match TlsAcceptor::from(config).accept(stream).await {
                Ok(stream) => {
                    let server_name = stream.get_ref().1.server_name().map(str::to_owned);
                    let socket = Socket::Tls(Box::new(stream.into()));
                    locked(&record).handshake = Some(Handshake {
                        server_name,
                        is_resumed: socket.is_resumed() == Some(true),
                        certificates: socket.peer_certificates().len(),
                    });
                    socket
                }
                Err(_) => return,
            },
            (socket, _) => socket,
        };
        let reset_idle = shared.reset_idle.subscribe();
        let mut connection = Self { socket, buffer: Vec::new(), record, reset_after, reset_idle, shared };
        match connection.requests().await {
            Ok(()) | Err(End::Close) => {
                // Gone already when the other side closed first.
                let _ = connection.socket.shutdown().await;
            }
            Err(End::Reset) => connection.socket.reset(),
        }
    }

    async fn requests(&mut self) -> Result<(), End> {
        let mut answered = 0;
        while let Some(head) = self.next_head(answered).await? {
            let path = head.line.split(' ').nth(1).unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default().to_owned();
            let (reply, wait) = {
                let behaviour = locked(&self.shared.behaviour);
                let reply = behaviour.replies.get(&path).or_else(|| behaviour.replies.get("*"));
                (reply.cloned(), behaviour.delays.get(&path).copied())
            };
            let reply = reply.unwrap_or_else(|| Reply::status(404, "no such route in this test\n"));
            self.play(reply.after(wait.unwrap_or_default()), head).await?;
            answered += 1;
        }
        Ok(())
    }

    /// `None` when the other side closed between requests.
    async fn next_head(&mut self, answered: usize) -> Result<Option<Head>, End> {
        while self.buffer.is_empty() {
            let read = tokio::select! {
                read = self.socket.read_buf(&mut self.buffer) => read?,
                _ = self.reset_idle.changed() => return Err(End::Reset),
            };
            if read == 0 {
                return Ok(None);
            }
            self.note(read)?;
        }
        if locked(&self.shared.behaviour).requests_max.is_some_and(|max| answered >= max) {
            return Err(End::Reset);
        }
        let end = loop {
            match wire::head_end(&self.buffer) {
                Some(end) => break end,
                None => self.read_more().await?,
            }
        };
        // A reset of idle connections that comes while this request is answered still counts afterwards.
        self.reset_idle.mark_unchanged();
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        Ok(Some(Head::parse(&head)))
    }

    async fn play(&mut self, reply: Reply, head: Head) -> Result<(), End> {
        let mut request = Message { head, body: Vec::new(), trailers: Vec::new(), complete: false, len: 0 };
        let mut steps = reply.steps;
        steps.reverse();
        while let Some(step) = steps.pop() {
            match step {
                Step::ReadBody => self.read_body(&mut request).await?,
                Step::Send(bytes) => self.send(&bytes).await?,
                Step::Repeat { bytes, pause } => self.repeat(&bytes, pause).await?,
                Step::Wait(wait) => tokio::time::sleep(wait).await,
                Step::Await(word) => word.notified().await,
                Step::Hang => self.until_the_end().await?,
                Step::Close => return Err(End::Close),
                Step::Reset => return Err(End::Reset),
                Step::EchoBytes => self.echo().await?,
                Step::Answer(make) => steps.extend(make(&request).steps.into_iter().rev()),
            }
        }
        self.read_body(&mut request).await
    }

    async fn read_body(&mut self, request: &mut Message) -> Result<(), End> {
        if request.complete {
            return Ok(());
        }
        match request.head.framing() {
            Framing::Unsaid => {}
            Framing::Length(length) => self.take(length, &mut request.body).await?,
            Framing::Chunked => loop {
                let line = self.take_line().await?;
                let Ok(size) = wire::chunk_size(&line) else {
                    return Err(End::Close);
                };
                if size == 0 {
                    break self.take_trailers(&mut request.trailers).await?;
                }
                self.take(size as u64, &mut request.body).await?;
                self.take_line().await?;
            },
        }
        request.complete = true;
        Ok(())
    }

    async fn take(&mut self, mut count: u64, body: &mut Vec<u8>) -> Result<(), End> {
        while count > 0 {
            if self.buffer.is_empty() {
                self.read_more().await?;
            }
            let piece = usize::try_from(count).unwrap_or(usize::MAX).min(self.buffer.len());
            let kept = piece.min(KEPT_BYTES_MAX - body.len());
            body.extend_from_slice(&self.buffer[..kept]);
            self.buffer.drain(..piece);
            count -= piece as u64;
        }
        Ok(())
    }

    async fn take_line(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer) {
                return Ok(self.buffer.drain(..=at).collect());
            }
            self.read_more().await?;
        }
    }

    async fn take_trailers(&mut self, trailers: &mut wire::Fields) -> Result<(), End> {
        let mut text = String::new();
        loop {
            let line = self.take_line().await?;
            if matches!(line.as_slice(), b"\n" | b"\r\n") {
                *trailers = wire::fields(&text);
                return Ok(());
            }
            text.push_str(&String::from_utf8_lossy(&line));
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.socket.write_all(bytes).await?;
        Ok(self.socket.flush().await?)
    }

    /// Ends when the other side does, which a writer alone would notice late.
    async fn repeat(&mut self, bytes: &[u8], pause: Duration) -> Result<(), End> {
        loop {
            self.send(bytes).await?;
            if let Ok(ended) = tokio::time::timeout(pause, self.until_the_end()).await {
                return ended;
            }
        }
    }

    async fn until_the_end(&mut self) -> Result<(), End> {
        loop {
            self.read_more().await?;
        }
    }

    async fn echo(&mut self) -> Result<(), End> {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            self.send(&bytes).await?;
            self.read_more().await?;
        }
    }

    /// Reads some bytes into the buffer; the end of the connection is `End::Close`.
    async fn read_more(&mut self) -> Result<(), End> {
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(End::Close),
            read => self.note(read),
        }
    }

    /// Records the last `read` bytes of the buffer.
    fn note(&self, read: usize) -> Result<(), End> {
        let mut record = locked(&self.record);
        let fresh = &self.buffer[self.buffer.len() - read..];
        let before = record.bytes.len();
        record.reads.push((before, Instant::now()));
        let room = KEPT_BYTES_MAX - before;
        record.bytes.extend_from_slice(&fresh[..read.min(room)]);
        record.total += read as u64;
        if record.total >= self.reset_after { Err(End::Reset) } else { Ok(()) }
    }
}
