//! Copies bytes between each connection and one of its own to the target.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BUFFER_BYTES: usize = 16 * 1024;

pub(crate) async fn run(address: SocketAddr, target: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(async move {
            let Ok(app) = TcpStream::connect(target).await else { return };
            // Whichever side ends first takes the other along.
            let _ = between(client, app).await;
        });
    }
}

/// One task for both directions, as a proxy would have it.
async fn between(mut client: TcpStream, mut app: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    app.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_app, mut to_app) = app.split();
    tokio::select! {
        copied = copy(&mut from_client, &mut to_app) => copied,
        copied = copy(&mut from_app, &mut to_client) => copied,
    }
}

async fn copy(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            bytes => to.write_all(&buffer[..bytes]).await?,
        }
    }
}
