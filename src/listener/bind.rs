//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, Type};

use crate::config::model::Address;

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A classic BPF program over TCP headers (RFC 9293, section 3.1): whatever has SYN set is dropped.
const DROP_SYN: [SockFilter; 4] = [
    // The byte of the flags …
    SockFilter::new(0x30, 0, 0, 13),
    // … with SYN: the next; without: the one after.
    SockFilter::new(0x45, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub enum Bound {
    Tcp(std::net::TcpListener, Claim),
    /// The socket file is removed on drop.
    Unix(UnixListener, SocketFile),
}

/// Whose a socket is. One that is not ours goes on without us: it is left as it was, and so is its file.
#[derive(Debug)]
pub struct Claim {
    is_ours: AtomicBool,
    /// It becomes ours when the process before has stepped back. A unit's never does.
    is_bequeathed: bool,
}

/// Removes a socket file when the listener goes, unless it is somebody else's.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    claim: Claim,
}

/// Whom a socket on `[::]` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// As the system has it: IPv4 too, unless `net.ipv6.bindv6only` says otherwise.
    Any,
    /// IPv4 has a socket of its own on this port.
    Ipv6,
}

/// Binds and listens.
///
/// # Errors
/// The address is in use, not ours, or the socket's folder can't be written.
pub fn bind(address: &Address, families: Families) -> io::Result<Bound> {
    match address {
        Address::Socket(address) => bind_tcp(*address, families).map(Bound::of_ours),
        Address::Unix(path) => {
            let socket = bind_unix(path)?;
            Ok(Bound::Unix(socket, SocketFile { path: path.clone(), claim: Claim::ours() }))
        }
        Address::Name { host, port } => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{host}:{port} is a name, not an address")))
        }
    }
}

/// What to do about an error of [`bind`].
pub fn remedy(address: &Address, error: &io::Error) -> &'static str {
    match (address, error.kind()) {
        (Address::Unix(_), io::ErrorKind::AlreadyExists) => "name another file, or take that one away",
        (Address::Unix(_), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            "name a file in a folder that is there and that this user may write"
        }
        (_, io::ErrorKind::PermissionDenied) => "give this user CAP_NET_BIND_SERVICE, or take a port from 1024 on",
        _ => "name a free address of this machine",
    }
}

/// As [`bind`], where the address may overlap those of `leaving`, as `0.0.0.0:80` does `127.0.0.1:80`: they will be
/// closed once this one serves. Until [`Bound::begin`] such a socket takes no connection from them, which would be lost
/// if it came to nothing.
///
/// # Errors
/// As [`bind`]; sockets that another user has bound, as systemd does, cannot be overlapped.
pub fn bind_beside(address: &Address, families: Families, leaving: &[&Bound]) -> io::Result<Bound> {
    match bind(address, families) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let Address::Socket(address) = address else { return Err(error) };
            let overlapped: Vec<_> = leaving.iter().filter(|bound| bound.port() == Some(address.port())).collect();
            if overlapped.is_empty() {
                Err(error)
            } else {
                bind_sharing(*address, families, &overlapped).map(Bound::of_ours)
            }
        }
        bound => bound,
    }
}

/// Sockets of one user share a port when all of them say so (SO_REUSEPORT, socket(7)). Nobody else joins unasked: no
/// socket of ours says so otherwise.
fn bind_sharing(address: SocketAddr, families: Families, others: &[&&Bound]) -> io::Result<std::net::TcpListener> {
    others.iter().try_for_each(|other| SockRef::from(other).set_reuse_port(true))?;
    let socket = tcp(address, families)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr, families: Families) -> io::Result<std::net::TcpListener> {
    let socket = tcp(address, families)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn tcp(address: SocketAddr, families: Families) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A restart need not wait for old connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    if families == Families::Ipv6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes a socket file that nobody listens on any more; what is no socket stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    // Not waited for: a queue that is full is somebody's, who may be at a standstill.
    let knock = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match knock.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket, _) => socket.as_fd(),
            Self::Unix(socket, _) => socket.as_fd(),
        }
    }
}

impl Claim {
    fn ours() -> Self {
        Self { is_ours: AtomicBool::new(true), is_bequeathed: false }
    }
}

impl Bound {
    fn of_ours(socket: std::net::TcpListener) -> Self {
        Self::Tcp(socket, Claim::ours())
    }

    /// Takes over a socket that another process has bound. `is_bequeathed`: it is to be ours once [`Bound::own`] says so.
    ///
    /// # Errors
    /// It is no listening stream socket of a kind that we serve.
    pub fn inherit(socket: OwnedFd, is_bequeathed: bool) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
        let facts = SockRef::from(&socket);
        if facts.r#type()? != Type::STREAM || !facts.is_listener()? {
            return Err(invalid("it is no listening stream socket"));
        }
        facts.set_nonblocking(true)?;
        let claim = Claim { is_ours: AtomicBool::new(false), is_bequeathed };
        let address = facts.local_addr()?;
        if address.as_socket().is_some() {
            facts.set_tcp_nodelay(true)?;
            // Whoever had it before may have shut the door. Most have not, which is an error here.
            let _ = facts.detach_filter();
            return Ok(Self::Tcp(socket.into(), claim));
        }
        let path = address.as_pathname().ok_or_else(|| invalid("it is neither TCP nor a unix socket with a path"))?;
        let file = SocketFile { path: path.to_owned(), claim };
        Ok(Self::Unix(socket.into(), file))
    }

    /// Listens, if it does not do so yet. To be called when it is sure to serve.
    ///
    /// # Errors
    /// Another socket has begun to listen on the address.
    pub fn begin(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket, _) if !SockRef::from(socket).is_listener()? => SockRef::from(socket).listen(BACKLOG),
            Self::Tcp(..) | Self::Unix(..) => Ok(()),
        }
    }

    /// Whether nobody else goes on with it: it is ours to close, its file to remove.
    pub fn is_ours(&self) -> bool {
        self.claim().is_ours.load(Relaxed)
    }

    /// Whether a unit of systemd has it, which keeps it open whatever we do: nobody can bind its address.
    pub fn is_of_a_unit(&self) -> bool {
        !self.is_ours() && !self.claim().is_bequeathed
    }

    /// Takes it from the process before, if that had it.
    pub fn own(&self) {
        if self.claim().is_bequeathed {
            self.claim().is_ours.store(true, Relaxed);
        }
    }

    /// Leaves it to whoever has it too.
    pub fn leave(&self) {
        self.claim().is_ours.store(false, Relaxed);
    }

    fn claim(&self) -> &Claim {
        match self {
            Self::Tcp(_, claim) => claim,
            Self::Unix(_, file) => &file.claim,
        }
    }

    /// Begins no more handshakes, so that the queue of accepted connections comes to an end before the socket is
    /// closed: closing would reset what is in it. Clients that knock are not answered, and refused once it is closed.
    /// To be called only when it is ours: whoever else has it would get no client either. A unix socket has no
    /// handshake.
    ///
    /// # Errors
    /// The system takes no filter.
    pub(crate) fn shut_the_door(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket, _) => SockRef::from(socket).attach_filter(&DROP_SYN),
            Self::Unix(..) => Ok(()),
        }
    }

    /// The address as it is now: the port is the real one.
    ///
    /// # Errors
    /// The system can't tell.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(socket, _) => socket.local_addr().map(Address::Socket),
            Self::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// None on a unix socket.
    fn port(&self) -> Option<u16> {
        match self.address() {
            Ok(Address::Socket(address)) => Some(address.port()),
            _ => None,
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if *self.claim.is_ours.get_mut() {
            // A file that is gone already is no loss.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_socket_is_in_use_also_when_its_queue_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let address = SockAddr::unix(&path).unwrap();
        let socket = || Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        let busy = socket();
        busy.bind(&address).unwrap();
        busy.listen(0).unwrap();
        let waiting: Vec<_> =
            std::iter::repeat_with(socket).take_while(|client| client.connect(&address).is_ok()).collect();
        assert!(!waiting.is_empty());
        let (told, outcome) = std::sync::mpsc::channel();
        let wanted = Address::Unix(path.clone());
        std::thread::spawn(move || told.send(bind(&wanted, Families::Any).map(drop)));
        let refused = outcome.recv_timeout(Duration::from_secs(10)).expect("an answer").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop((busy, waiting));
        assert!(bind(&Address::Unix(path), Families::Any).is_ok(), "nobody listens any more");
    }

    #[test]
    fn who_may_not_take_a_port_is_told_how_to_get_it() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(remedy(&Address::Socket(([0, 0, 0, 0], 80).into()), &denied).contains("CAP_NET_BIND_SERVICE"));
        assert!(remedy(&Address::Unix("/root/web.sock".into()), &denied).contains("this user may write"));
    }
}
