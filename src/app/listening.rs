//! The sockets that are listened on, and how they follow a configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::handover::wait_until;
use crate::config::model::{Address, Config, Listener};
use crate::config::{Problem, Problems};
use crate::error::io_reason;
use crate::listener::accept::{Acceptor, Stop};
use crate::listener::bind::{Bound, Families, bind_beside, remedy};
use crate::listener::places::Places;
use crate::upgrade::Inheritance;
use crate::worker::Workers;

/// How long a reload waits for an address that its predecessors have given up. Acceptors take a tenth of a second.
const LEAVING_MAX: Duration = Duration::from_secs(1);

/// The sockets, changed by one reload at a time.
pub(super) struct Listening {
    /// `None` once draining: what the workers wait for is that nobody can hand them anything.
    pub(super) workers: Option<Workers>,
    places: Arc<Places>,
    /// How many of them are free or taken.
    pub(super) connections_max: usize,
    pub(super) open: BTreeMap<String, Open>,
    /// Those that acceptors still empty.
    leaving: Vec<Leaving>,
    /// Sockets of systemd's units that no listener has at the moment.
    spare: Vec<(BindAddress, Arc<Bound>)>,
    /// Names of listeners that are gone, owned by whatever came in there.
    gone: Vec<Weak<str>>,
}

struct Leaving {
    address: Address,
    /// Nobody receives it any more once the socket is closed.
    stop: watch::Sender<Stop>,
}

pub(super) struct Open {
    /// Owned by its acceptor and its connections.
    name: Weak<str>,
    pub(super) at: BindAddress,
    pub(super) socket: Arc<Bound>,
    pub(super) stop: watch::Sender<Stop>,
}

/// Where a configuration has a listener.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BindAddress {
    pub(super) address: Address,
    families: Families,
}

/// A listener's socket after a reload.
pub(super) enum Socket {
    /// As it was.
    Kept,
    /// An open one under another name.
    Renamed(Arc<Bound>),
    New(Arc<Bound>),
}

pub(super) type Sockets = BTreeMap<String, (BindAddress, Socket)>;

impl BindAddress {
    /// `[::]` takes IPv4 too, but not where a listener has the same port there: then both are served, as with nginx.
    fn of(listener: &Listener, config: &Config) -> Self {
        let has_ipv4 = |port: u16| {
            let is_there = |other: &Address| matches!(other, Address::Socket(it) if it.is_ipv4() && it.port() == port);
            port != 0 && config.listeners.iter().any(|other| is_there(&other.address))
        };
        let families = match &listener.address {
            Address::Socket(SocketAddr::V6(it)) if it.ip().is_unspecified() && has_ipv4(it.port()) => Families::Ipv6,
            _ => Families::Any,
        };
        Self { address: listener.address.clone(), families }
    }
}

/// Binds what is not open yet.
pub(super) fn bind_all(
    config: &Config,
    open: &BTreeMap<String, Open>,
    spare: &[(BindAddress, Arc<Bound>)],
    inheritance: &mut Inheritance,
) -> Result<Sockets, Problems> {
    let mut sockets = Sockets::new();
    let mut problems = Vec::new();
    let wanted = config.listeners.iter().map(|listener| inheritance.listener(&listener.name, &listener.address));
    let inherited: Vec<_> = wanted.collect();
    let leaves = |open: &&Open| config.listeners.iter().all(|listener| BindAddress::of(listener, config) != open.at);
    let leaving = open.values().filter(leaves).map(|open| &*open.socket);
    let leaving: Vec<_> = leaving.chain(inheritance.other_listeners()).collect();
    for (index, (listener, inherited)) in config.listeners.iter().zip(inherited).enumerate() {
        let at = BindAddress::of(listener, config);
        let is_open = open.get(&listener.name).is_some_and(|open| open.at == at);
        let socket = match (renamed(&at, config, open), spared(&at, spare)) {
            _ if is_open => Socket::Kept,
            (Some(socket), _) => Socket::Renamed(socket),
            (None, Some(socket)) => Socket::New(socket),
            (None, None) => match inherited.map_or_else(|| bind_beside(&listener.address, at.families, &leaving), Ok) {
                Ok(bound) => Socket::New(Arc::new(bound)),
                Err(error) => {
                    let text = format!("cannot listen on {}: {}", listener.address, io_reason(&error));
                    let problem = Problem::new(format!("listener[{index}].address"), text);
                    problems.push(problem.with_help(remedy(&listener.address, &error)));
                    continue;
                }
            },
        };
        sockets.insert(listener.name.clone(), (at, socket));
    }
    if problems.is_empty() { Ok(sockets) } else { Err(Problems(problems)) }
}

/// The open socket at this address, when another name had it and gives it up. Port 0 is no address: any
/// free port will do.
fn renamed(at: &BindAddress, config: &Config, open: &BTreeMap<String, Open>) -> Option<Arc<Bound>> {
    if matches!(&at.address, Address::Socket(address) if address.port() == 0) {
        return None;
    }
    let keeps = |name: &str, open: &Open| {
        config.listeners.iter().any(|other| other.name == name && BindAddress::of(other, config) == open.at)
    };
    let found = open.iter().find(|(name, open)| open.at == *at && !keeps(name, open));
    found.map(|(_, open)| Arc::clone(&open.socket))
}

/// The unit's socket that was here, or has this address.
fn spared(at: &BindAddress, spare: &[(BindAddress, Arc<Bound>)]) -> Option<Arc<Bound>> {
    let is_here = |(was, socket): &&(BindAddress, Arc<Bound>)| {
        *was == *at || socket.address().is_ok_and(|address| address == at.address)
    };
    spare.iter().find(is_here).map(|(_, socket)| Arc::clone(socket))
}

fn collide(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Socket(one), Address::Socket(other)) => one.port() == other.port(),
        _ => one == other,
    }
}

impl Listening {
    /// Nothing is open yet.
    pub(super) fn new(workers: Workers, connections_max: usize) -> Self {
        Self {
            workers: Some(workers),
            places: Arc::new(Places::new(connections_max)),
            connections_max,
            open: BTreeMap::new(),
            leaving: Vec::new(),
            spare: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Keeps what the start was given and no listener has, for a reload to take.
    pub(super) fn spare(&mut self, sockets: Vec<Bound>) {
        let placed = sockets.into_iter().filter_map(|socket| {
            let at = BindAddress { address: socket.address().ok()?, families: Families::Any };
            Some((at, Arc::new(socket)))
        });
        self.spare.extend(placed);
    }

    pub(super) fn spares(&self) -> &[(BindAddress, Arc<Bound>)] {
        &self.spare
    }

    /// Waits until the addresses are free that `config` wants back from listeners that have just left.
    pub(super) fn wait_for_leaving(&mut self, config: &Config) {
        let is_new = |listener: &&Listener| self.open.values().all(|open| open.at.address != listener.address);
        let wanted: Vec<_> = config.listeners.iter().filter(is_new).map(|listener| &listener.address).collect();
        let is_awaited = |leaving: &Leaving| wanted.iter().any(|wanted| collide(wanted, &leaving.address));
        let have_left = || {
            self.leaving.retain(|leaving| leaving.stop.receiver_count() > 0);
            !self.leaving.iter().any(is_awaited)
        };
        wait_until(have_left, LEAVING_MAX);
    }

    /// Starts acceptors for new sockets and stops those that are no longer wanted.
    pub(super) fn take_over(&mut self, sockets: Sockets) {
        let Some(workers) = self.workers.clone() else { return };
        let moved: Vec<_> = sockets
            .values()
            .filter_map(|(_, socket)| match socket {
                Socket::Renamed(socket) => Some(Arc::as_ptr(socket)),
                Socket::Kept | Socket::New(_) => None,
            })
            .collect();
        self.gone.retain(|name| name.strong_count() > 0);
        self.spare.retain(|(_, spare)| {
            let is_it =
                |(_, socket): &(BindAddress, Socket)| matches!(socket, Socket::New(taken) if Arc::ptr_eq(taken, spare));
            !sockets.values().any(is_it)
        });
        self.open.retain(|name, open| match sockets.get(name) {
            Some((_, Socket::Kept)) => true,
            _ => {
                self.gone.push(Weak::clone(&open.name));
                let is_moved = moved.contains(&Arc::as_ptr(&open.socket));
                open.stop.send_replace(if is_moved { Stop::Leave } else { Stop::HandOver });
                if !is_moved && open.socket.is_of_a_unit() {
                    self.spare.push((open.at.clone(), Arc::clone(&open.socket)));
                }
                if let (false, Ok(address)) = (is_moved, open.socket.address()) {
                    self.leaving.push(Leaving { address, stop: open.stop.clone() });
                }
                false
            }
        });
        for (index, (name, (at, socket))) in sockets.into_iter().enumerate() {
            let (Socket::New(socket) | Socket::Renamed(socket)) = socket else { continue };
            if let Err(error) = socket.begin() {
                tracing::error!(listener = name, %error, "cannot listen");
            }
            let stop = watch::Sender::new(Stop::No);
            let listener: Arc<str> = name.as_str().into();
            let owned = Arc::downgrade(&listener);
            let acceptor = Acceptor {
                listener,
                socket: Arc::clone(&socket),
                workers: workers.clone(),
                places: Arc::clone(&self.places),
                stop: stop.subscribe(),
            };
            workers.accept(index, acceptor);
            self.open.insert(name, Open { name: owned, at, socket, stop });
        }
    }

    /// Whether connections of a listener that is gone are open, or on their way.
    pub(super) fn has_connections(&self, name: &str) -> bool {
        self.gone.iter().filter_map(Weak::upgrade).any(|gone| *gone == *name)
    }

    /// Lets in more connections or fewer from now on. Those beyond the new bound are not cut: their places go as they
    /// close, with further calls.
    pub(super) fn bound_connections(&mut self, wanted: usize) {
        if wanted > self.connections_max {
            self.places.add(wanted - self.connections_max);
            self.connections_max = wanted;
        } else {
            self.connections_max -= self.places.remove(self.connections_max - wanted);
        }
    }

    /// Stops accepting for good, where another process goes on with the sockets; not with those of `unwanted` listeners.
    pub(super) fn leave(&mut self, unwanted: &[String]) {
        self.workers = None;
        for (name, open) in std::mem::take(&mut self.open) {
            if unwanted.contains(&name) {
                open.stop.send_replace(Stop::HandOver);
            } else {
                open.socket.leave();
                open.stop.send_replace(Stop::Leave);
            }
        }
    }

    /// Stops accepting for good.
    pub(super) fn close(&mut self) {
        self.workers = None;
        for (_, open) in std::mem::take(&mut self.open) {
            open.stop.send_replace(Stop::HandOver);
        }
    }
}
