//! A port of the test's own: connections to it are refused until somebody listens there, and again when that one has
//! gone, and nobody gets it meanwhile who asks for any that is free.
//!
//! A socket is bound to it and never listens. Whoever knows its number may listen there all the same, for both sides
//! say `SO_REUSEADDR`, as servers do (socket(7)).

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// Kept as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _bound: Socket,
}

impl Port {
    /// One on 127.0.0.1.
    ///
    /// # Panics
    /// When none is free.
    pub fn reserve() -> Self {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        bound.set_reuse_address(true).expect("a socket to take the option");
        bound.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let address = bound.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        Self { number: address.port(), _bound: bound }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}
