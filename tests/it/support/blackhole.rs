//! An address that neither takes nor refuses connections: what is sent there is never answered.
//!
//! Its listener's queue is full, so the kernel drops every further SYN, as a host that has vanished does.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Longer than a connection on loopback ever takes.
const PATIENCE: Duration = Duration::from_millis(500);

/// Lives as long as it is held.
#[derive(Debug)]
pub struct Blackhole {
    address: SocketAddr,
    _listener: Socket,
    /// They sit in its queue.
    _queue: Vec<TcpStream>,
}

impl Blackhole {
    /// # Panics
    /// When no port can be had, or the kernel goes on taking connections.
    pub fn dig() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        listener.listen(0).expect("to listen");
        let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, PATIENCE) {
            queue.push(stream);
            assert!(queue.len() < 8, "the queue never fills");
        }
        Self { address, _listener: listener, _queue: queue }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
