//! WebSocket streams and an app that echoes them. What flows is one small frame, there and back, as often as it goes.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// A masked text frame of 32 bytes (RFC 6455, section 5.2); the mask is zero, so it reads the same in both directions.
const FRAME: [u8; 38] = {
    let mut frame = [b'x'; 38];
    (frame[0], frame[1]) = (0x81, 0x80 | 32);
    (frame[2], frame[3], frame[4], frame[5]) = (0, 0, 0, 0);
    frame
};

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Serves until it is killed.
pub(crate) async fn echo(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::spawn(async move {
            client.set_nodelay(true)?;
            read_head(&mut client).await?;
            client.write_all(ANSWER).await?;
            let mut buffer = [0; 4096];
            loop {
                match client.read(&mut buffer).await? {
                    0 => return io::Result::Ok(()),
                    bytes => client.write_all(&buffer[..bytes]).await?,
                }
            }
        });
    }
}

/// Prints how many messages came back.
pub(crate) async fn run(address: SocketAddr, streams: usize, time: Duration) -> io::Result<()> {
    let mut open = Vec::with_capacity(streams);
    for _ in 0..streams {
        open.push(upgrade(address).await?);
    }
    println!("ready");
    let messages = Rc::new(Cell::new(0u64));
    let local = LocalSet::new();
    for mut stream in open {
        let messages = Rc::clone(&messages);
        local.spawn_local(async move {
            let mut buffer = [0; FRAME.len()];
            loop {
                stream.write_all(&FRAME).await?;
                stream.read_exact(&mut buffer).await?;
                if buffer != FRAME {
                    return Err(io::Error::other("something else came back"));
                }
                messages.set(messages.get() + 1);
            }
            #[allow(unreachable_code, reason = "names the type of the error")]
            io::Result::Ok(())
        });
    }
    let _ = tokio::time::timeout(time, local).await;
    println!("messages={}", messages.get());
    Ok(())
}

async fn upgrade(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(&mut stream).await?;
    if !head.starts_with(b"HTTP/1.1 101 ") {
        return Err(io::Error::other(format!("no upgrade: {}", String::from_utf8_lossy(&head))));
    }
    Ok(stream)
}

/// Byte by byte: what follows a head is not for here.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}
