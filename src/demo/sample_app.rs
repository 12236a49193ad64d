//! The sample app: a small HTTP/1.1 server inside this process.
//!
//! Bounded like the proxy before it, since the demo may well be pointed at by a load generator: so many
//! connections, so long for a head, so much in a WebSocket message.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::{answers, echo};

const CONNECTIONS_MAX: usize = 1024;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Long enough not to spin when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running sample app. Dropping it closes its listener and all its connections.
#[derive(Debug)]
pub struct SampleApp {
    /// Where it listens, the port filled in.
    pub addr: SocketAddr,
    accepting: JoinHandle<()>,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) started: Instant,
    /// While set, `/fail` answers 500.
    pub(super) failing: AtomicBool,
}

/// Where a handler leaves a WebSocket that its connection takes over after the 101, so that every
/// WebSocket runs in its connection's task and ends with the app.
pub(super) type UpgradeSlot = Arc<Mutex<Option<OnUpgrade>>>;

impl SampleApp {
    /// Listens on `addr` (port 0 = any free one) and serves on the current runtime.
    ///
    /// # Errors
    /// What binding the address says.
    pub async fn start(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let app = Arc::new(App { started: Instant::now(), failing: AtomicBool::new(false) });
        Ok(Self { addr, accepting: tokio::spawn(accept(listener, app)) })
    }
}

impl Drop for SampleApp {
    fn drop(&mut self) {
        // The connections are owned by this task, so they end with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, app: Arc<App>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = Arc::clone(&app);
                connections.spawn(async move {
                    serve(stream, app).await;
                    drop(slot);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, app: Arc<App>) {
    // Failing to set it costs latency, nothing else.
    let _ = stream.set_nodelay(true);
    let slot = UpgradeSlot::default();
    let service = service_fn(|request| {
        let (app, slot) = (Arc::clone(&app), Arc::clone(&slot));
        async move { Ok::<_, Infallible>(answers::answer(request, &app, &slot).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    let upgrade = slot.lock().expect("no holder of this lock panics").take();
    if let (Ok(()), Some(upgrade)) = (served, upgrade)
        && let Ok(upgraded) = upgrade.await
    {
        echo::run(upgraded).await;
    }
}

#[cfg(test)]
mod tests;
