//! A small WebSocket client (RFC 6455) that shows its frames: enough for text, binary, ping and close.
//!
//! It neither answers pings nor joins fragments by itself; the test sees every frame as it came.

use std::io;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::client::{Client, Ending, RawResponse};
use super::wire;

/// RFC 6455 section 5.2.
pub mod opcode {
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xa;
}

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    client: Client,
    /// The answer that opened it.
    pub opening: RawResponse,
}

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// The `Sec-WebSocket-Accept` that answers a key.
pub fn accept_key(key: &str) -> String {
    let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(guid).finalize())
}

impl WebSocket {
    /// Opens one over TCP.
    pub async fn connect(address: SocketAddr, path: &str) -> io::Result<Self> {
        Self::open(Client::connect(address).await?, path, "").await
    }

    /// Opens one on a connection, with further request headers (`"A: b\r\n"`).
    ///
    /// # Errors
    /// `InvalidData` when the answer is not a proper 101.
    pub async fn open(mut client: Client, path: &str, headers: &str) -> io::Result<Self> {
        let key = STANDARD.encode(fastrand::u128(..).to_le_bytes());
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        client.request("GET", path, &format!("{upgrade}Sec-WebSocket-Key: {key}\r\n{headers}")).await?;
        let opening = client.read_response().await?;
        if opening.status != 101 || opening.header("sec-websocket-accept") != Some(&accept_key(&key)) {
            return Err(wire::invalid(format!("not a WebSocket: {opening:?}")));
        }
        Ok(Self { client, opening })
    }

    pub async fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send(true, opcode::TEXT, text.as_bytes()).await
    }

    pub async fn send_binary(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(true, opcode::BINARY, bytes).await
    }

    pub async fn ping(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(true, opcode::PING, bytes).await
    }

    /// Sends a close frame, reads frames up to the other side's, and waits for the end of the connection.
    pub async fn close(mut self, code: u16) -> io::Result<Ending> {
        self.send(true, opcode::CLOSE, &code.to_be_bytes()).await?;
        while self.read().await?.opcode != opcode::CLOSE {}
        self.client.expect_closed().await
    }

    /// Sends one masked frame.
    pub async fn send(&mut self, fin: bool, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![u8::from(fin) << 7 | opcode];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let mask = fastrand::u32(..).to_be_bytes();
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.client.send(frame).await
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// `InvalidData` when a server's frame is masked, which RFC 6455 section 5.1 forbids.
    pub async fn read(&mut self) -> io::Result<Frame> {
        let head = self.client.read_exactly(2).await?;
        if head[1] & 0x80 != 0 {
            return Err(wire::invalid("a masked frame from a server"));
        }
        let len = match head[1] {
            126 => {
                let len = self.client.read_exactly(2).await?;
                usize::from(u16::from_be_bytes([len[0], len[1]]))
            }
            127 => {
                let len = self.client.read_exactly(8).await?;
                len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
            }
            len => usize::from(len),
        };
        let payload = self.client.read_exactly(len).await?;
        Ok(Frame { fin: head[0] & 0x80 != 0, opcode: head[0] & 0x0f, payload })
    }

    /// The connection below, to end it impolitely.
    pub fn into_client(self) -> Client {
        self.client
    }
}
