//! Workers: one thread with one current-thread runtime per core.
//!
//! A worker owns what it serves: its connections, its share of every upstream pool, its log buffer. Nothing
//! on the request path crosses from one worker to another.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;

use crate::listener::{accept, serve};
use crate::live::Live;

/// How often a worker looks through its idle upstream connections.
const SWEEP: Duration = Duration::from_secs(1);

/// A connection on its way to a worker.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) listener: Arc<str>,
    pub(crate) socket: AcceptedSocket,
    /// Its share of `server.max_connections`.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What a worker can be told.
enum Order {
    Serve(Accepted),
    /// Run a listener's acceptor beside the connections.
    Accept(accept::Acceptor),
}

#[derive(Debug)]
pub(crate) enum AcceptedSocket {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl AsRawFd for AcceptedSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket, _) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

/// Where accepted connections are handed in.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Desk]>);

/// One worker as the acceptors see it.
#[derive(Debug)]
struct Desk {
    /// Bounded by `server.max_connections` through the permit in each [`Accepted`].
    sender: mpsc::UnboundedSender<Order>,
    connections: Arc<AtomicUsize>,
    /// Sweeps so far: stands still when the worker does.
    rounds: Arc<AtomicUsize>,
}

impl Workers {
    /// Gives a connection to the worker that has the fewest.
    pub(crate) fn give(&self, accepted: Accepted) {
        let desk = self.0.iter().min_by_key(|desk| desk.connections.load(Relaxed)).expect("there is a worker");
        desk.connections.fetch_add(1, Relaxed);
        if desk.sender.send(Order::Serve(accepted)).is_err() {
            // Only when the worker was cut: the connection closes.
            desk.connections.fetch_sub(1, Relaxed);
        }
    }

    /// How many connections each worker has.
    pub fn connections(&self) -> Vec<usize> {
        self.0.iter().map(|desk| desk.connections.load(Relaxed)).collect()
    }

    /// How often each worker has looked up from its work, which it does every [`SWEEP`].
    pub fn rounds(&self) -> Vec<usize> {
        self.0.iter().map(|desk| desk.rounds.load(Relaxed)).collect()
    }

    /// Runs an acceptor on the worker `index`, counted round.
    pub fn accept(&self, index: usize, acceptor: accept::Acceptor) {
        let desk = &self.0[index % self.0.len()];
        // A worker that was cut accepts nothing more, which is what cutting means.
        let _ = desk.sender.send(Order::Accept(acceptor));
    }
}

/// Whether connections are to come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    No,
    /// Each with its next answer. One that waits for a request gets this long for another: closed at once, it might close
    /// upon a request that is on its way.
    Begun {
        idle: Duration,
    },
}

impl Drain {
    pub fn has_begun(self) -> bool {
        self != Self::No
    }
}

/// How far the end has come; workers and connections watch it.
#[derive(Clone, Debug)]
pub struct Phases {
    /// Begun: finish what is open, start nothing.
    pub draining: watch::Receiver<Drain>,
    /// True: cut what is still open.
    pub cutting: watch::Receiver<bool>,
}

/// The worker threads.
#[derive(Debug)]
pub struct Crew {
    threads: Vec<JoinHandle<()>>,
    /// Disconnected when the last worker has left.
    working: std::sync::mpsc::Receiver<()>,
}

impl Crew {
    /// Starts `count` workers and returns where to hand them connections. They leave when that is dropped,
    /// by all who hold it, and their last connection has closed.
    ///
    /// # Errors
    /// The system gives no thread or no event loop.
    pub fn start(count: usize, live: &Arc<Live>, phases: &Phases) -> io::Result<(Self, Workers)> {
        let mut desks = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        let (at_work, working) = std::sync::mpsc::channel::<()>();
        for worker in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            let connections = Arc::new(AtomicUsize::new(0));
            let rounds = Arc::new(AtomicUsize::new(0));
            desks.push(Desk { sender, connections: Arc::clone(&connections), rounds: Arc::clone(&rounds) });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (live, phases, at_work) = (Arc::clone(live), phases.clone(), at_work.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
                let _at_work = at_work;
                runtime.block_on(work(worker, receiver, (connections, rounds), live, phases));
            })?;
            threads.push(thread);
        }
        Ok((Self { threads, working }, Workers(desks.into())))
    }

    /// Whether every worker left within `patience`.
    pub fn has_left(&self, patience: Duration) -> bool {
        self.working.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }

    /// Waits for every worker.
    pub fn join(self) {
        for thread in self.threads {
            // A panic of a whole worker has been printed by the panic hook.
            let _ = thread.join();
        }
    }
}

/// One worker's life: serve what is handed in until nobody can hand in more, or until cut.
async fn work(
    worker: usize,
    mut orders: mpsc::UnboundedReceiver<Order>,
    (connections, rounds): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    live: Arc<Live>,
    phases: Phases,
) {
    let mut open = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    let mut cutting = phases.cutting.clone();
    let mut is_last_call = false;
    while !(is_last_call && open.is_empty()) {
        tokio::select! {
            biased;
            _ = cutting.wait_for(|cutting| *cutting) => return,
            order = orders.recv(), if !is_last_call => match order {
                Some(Order::Serve(accepted)) => {
                    let leaving = Leaving(Arc::clone(&connections));
                    let serving = serve::serve(accepted, worker, Arc::clone(&live), phases.draining.clone());
                    // Boxed: tokio moves a task's future a dozen times, and this one is of several KB.
                    open.spawn(Box::pin(async move { let _leaving = leaving; serving.await }));
                }
                Some(Order::Accept(acceptor)) => { open.spawn(acceptor.run()); }
                None => is_last_call = true,
            },
            // A connection that panicked has been reported by the panic hook; the others go on.
            Some(_) = open.join_next() => {}
            _ = sweep.tick() => {
                rounds.fetch_add(1, Relaxed);
                live.load_full().sweep(worker);
            }
        }
    }
}

/// Counts a connection out of its worker, however it ends.
struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
