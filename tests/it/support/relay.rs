//! A connection that a test can cut: a relay on a port that stays the same whoever stands behind it.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Passes bytes on to wherever it is told, or closes every connection when that is nowhere.
pub struct Relay {
    address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// # Panics
    /// When there is no port on loopback.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (to, targets) = watch::channel(Some(to));
        let task = tokio::spawn(accept(listener, targets));
        Self { address, to, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes what is open, and everything new at once.
    pub fn cut(&self) {
        self.to.send_replace(None);
    }

    /// Passes on again, to this address.
    pub fn mend(&self, to: SocketAddr) {
        self.to.send_replace(Some(to));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, targets: watch::Receiver<Option<SocketAddr>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(pass_on(client, targets.clone()));
    }
}

async fn pass_on(mut client: TcpStream, mut targets: watch::Receiver<Option<SocketAddr>>) {
    let Some(target) = *targets.borrow_and_update() else { return };
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        // How it ends is of no interest to who only passes on.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = targets.changed() => {}
    }
}
