//! Workers: one thread with one current-thread runtime per core.
//!
//! A worker owns what it serves: its connections, its share of every upstream pool, its log buffer. Nothing
//! on the request path crosses from one worker to another.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use crate::allocator;
use crate::listener::places::Taken;
use crate::listener::roll::Roll;
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
    pub(crate) taken: Taken,
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

impl AsFd for AcceptedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket, _) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Where accepted connections are handed in.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Desk]>);

/// One worker as the acceptors see it.
#[derive(Debug)]
struct Desk {
    /// Bounded by `server.max_connections` through the place of each [`Accepted`].
    sender: mpsc::UnboundedSender<Order>,
    connections: Arc<Connections>,
    /// Sweeps so far: stands still when the worker does, and goes with it.
    rounds: Weak<AtomicUsize>,
}

/// How many connections a worker has, with those on their way to it.
#[derive(Debug, Default)]
struct Connections {
    count: AtomicUsize,
    emptied: Notify,
}

impl Connections {
    fn leave(&self) {
        if self.count.fetch_sub(1, Relaxed) == 1 {
            self.emptied.notify_one();
        }
    }
}

/// What a worker serves its connections with.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Which worker it is.
    pub(crate) worker: usize,
    pub(crate) live: Arc<Live>,
    /// Never marked as seen here.
    draining: watch::Receiver<Drain>,
    /// Who is woken when a drain or a round of cuts begins.
    roll: Roll,
    connections: Arc<Connections>,
}

impl Seat {
    /// How far a drain has come. Connections look at each turn, and until there is one they take no lock for it.
    pub(crate) fn drain(&self) -> Drain {
        match self.draining.has_changed() {
            Ok(false) => Drain::No,
            _ => *self.draining.borrow(),
        }
    }

    /// Serves a connection that has been counted. To be called on this worker.
    fn serve(self: &Arc<Self>, accepted: Accepted) {
        // Boxed: tokio moves a task's future a dozen times, and this one is of several KB. It ends with its connection,
        // or with the worker's event loop. If it panics, the panic hook reports it, and the others go on. Made where it
        // stays: `Box::pin` would copy it there.
        let Accepted { listener, socket, taken } = accepted;
        let place = Place { seat: Arc::clone(self), on_roll: None, taken };
        tokio::spawn(Box::into_pin(Box::write(Box::new_uninit(), serve::serve(listener, socket, place))));
    }
}

/// A connection's place on its worker, counted out however it ends.
#[derive(Debug)]
pub(crate) struct Place {
    seat: Arc<Seat>,
    on_roll: Option<usize>,
    taken: Taken,
}

impl Place {
    /// From now on this task is woken when a drain or a round of cuts begins.
    pub(crate) async fn enrol(&mut self) {
        self.on_roll = poll_fn(|cx| Poll::Ready(Some(self.seat.roll.enter(cx.waker())))).await;
    }

    /// Ready when this connection, which is idle, is to give up its place under `server.max_connections`.
    pub(crate) async fn is_wanted(&self) {
        self.taken.is_wanted().await;
    }
}

impl Deref for Place {
    type Target = Seat;

    fn deref(&self) -> &Seat {
        &self.seat
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(index) = self.on_roll {
            self.seat.roll.leave(index);
        }
        self.seat.connections.leave();
    }
}

impl Workers {
    /// Gives a connection to the worker that has the fewest. `here` is the one that this is called on.
    pub(crate) fn give(&self, accepted: Accepted, here: &Arc<Seat>) {
        let fewest = self.0.iter().enumerate().min_by_key(|(_, desk)| desk.connections.count.load(Relaxed));
        let (index, desk) = fewest.expect("there is a worker");
        desk.connections.count.fetch_add(1, Relaxed);
        if index == here.worker {
            here.serve(accepted);
        } else if desk.sender.send(Order::Serve(accepted)).is_err() {
            // Only when the worker was cut: the connection closes.
            desk.connections.leave();
        }
    }

    /// How many connections each worker has.
    pub fn connections(&self) -> Vec<usize> {
        self.0.iter().map(|desk| desk.connections.count.load(Relaxed)).collect()
    }

    /// Where each worker counts how often it has looked up from its work, which it does every [`SWEEP`]. Holding that
    /// keeps no worker from leaving.
    pub fn rounds(&self) -> Vec<Weak<AtomicUsize>> {
        self.0.iter().map(|desk| Weak::clone(&desk.rounds)).collect()
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
    /// Each with its next answer. One that waits for a request gets this long for another: closed at once, it might
    /// close upon a request that is on its way.
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
    /// Begun: finish what is open, start nothing. Subscribed to before anything has.
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
            let connections = Arc::new(Connections::default());
            let rounds = Arc::new(AtomicUsize::new(0));
            desks.push(Desk { sender, connections: Arc::clone(&connections), rounds: Arc::downgrade(&rounds) });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (live, draining) = (Arc::clone(live), phases.draining.clone());
            let seat = Arc::new(Seat { worker, live, draining, roll: Roll::default(), connections });
            let (cutting, at_work) = (phases.cutting.clone(), at_work.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
                let _at_work = at_work;
                runtime.block_on(work(seat, receiver, &rounds, cutting));
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
    seat: Arc<Seat>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    rounds: &AtomicUsize,
    mut cutting: watch::Receiver<bool>,
) {
    let mut sweep = tokio::time::interval(SWEEP);
    let (mut draining, mut rounds_of_cuts) = (seat.draining.clone(), seat.live.load_full().shared.cuts.rounds());
    let mut cut = pin!(cutting.wait_for(|cutting| *cutting));
    let mut is_last_call = false;
    while !(is_last_call && seat.connections.count.load(Relaxed) == 0) {
        tokio::select! {
            biased;
            _ = &mut cut => return,
            order = orders.recv(), if !is_last_call => match order {
                Some(Order::Serve(accepted)) => seat.serve(accepted),
                // Keeps the orders open, and so ends before the last call.
                Some(Order::Accept(acceptor)) => { tokio::spawn(acceptor.run(Arc::clone(&seat))); }
                None => is_last_call = true,
            },
            () = seat.connections.emptied.notified(), if is_last_call => {}
            Ok(()) = draining.changed() => seat.roll.wake_all(),
            Ok(()) = rounds_of_cuts.changed() => seat.roll.wake_all(),
            _ = sweep.tick() => {
                rounds.fetch_add(1, Relaxed);
                seat.roll.wake_new();
                seat.live.load_full().sweep(seat.worker);
                allocator::collect();
            }
        }
    }
}
