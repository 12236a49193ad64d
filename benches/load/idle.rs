//! Connections that have had their answer and wait.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Opens them, says `ready`, and keeps them until standard input ends.
pub(crate) async fn run(address: SocketAddr, connections: usize) -> io::Result<()> {
    let mut open = Vec::with_capacity(connections);
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        // One answer fits one read, nearly always; what does not stays in the socket and harms nobody.
        if stream.read(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        open.push(stream);
    }
    println!("ready");
    tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await.map_err(io::Error::other)??;
    Ok(())
}
