//! Reads the PROXY header that a trusted load balancer sends before anything else.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use super::stream::Socket;
use crate::message::proxy_protocol::{
    BINARY_BYTES, LINE_BYTES_MAX, PREFIX_BYTES, Version, binary_rest, from_binary, from_line,
};

/// Takes the header off the connection, and not a byte more. `None`: the header names no client.
///
/// # Errors
/// The connection broke, or what came is no such header: nothing of the connection can be trusted then.
pub(super) async fn read(socket: &mut Socket) -> io::Result<Option<SocketAddr>> {
    let mut prefix = [0; PREFIX_BYTES];
    socket.read_exact(&mut prefix).await?;
    let version = Version::of(&prefix).map_err(io::Error::other)?;
    match version {
        Version::One => line(socket, &prefix).await,
        Version::Two => binary(socket, prefix).await,
    }
}

/// Byte by byte: what follows the line belongs to somebody else, TLS perhaps.
async fn line(socket: &mut Socket, prefix: &[u8]) -> io::Result<Option<SocketAddr>> {
    let mut line = prefix.to_vec();
    while !line.ends_with(b"\n") && line.len() < LINE_BYTES_MAX {
        line.push(socket.read_u8().await?);
    }
    from_line(&line).map_err(io::Error::other)
}

async fn binary(socket: &mut Socket, prefix: [u8; PREFIX_BYTES]) -> io::Result<Option<SocketAddr>> {
    let mut fixed = [0; BINARY_BYTES];
    fixed[..PREFIX_BYTES].copy_from_slice(&prefix);
    socket.read_exact(&mut fixed[PREFIX_BYTES..]).await?;
    // At most 64 KiB, as its length has two bytes.
    let mut rest = vec![0; binary_rest(&fixed)];
    socket.read_exact(&mut rest).await?;
    from_binary(&fixed, &rest).map_err(io::Error::other)
}
