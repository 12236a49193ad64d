//! Names to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`, as the C library's stub resolver
//! takes them. A static binary has no NSS, and TTLs are honoured.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

mod servers;
mod system;

use servers::Servers;
use system::{Files, Hosts, Search};

/// Asks the system's name servers, or those it is given. It keeps no answers: who asks knows how long they last.
#[derive(Clone, Debug)]
pub struct Resolver(Source);

/// Where its settings come from.
#[derive(Clone, Debug)]
enum Source {
    Nowhere,
    Given(Arc<Settings>),
    System(Arc<Files>),
}

#[derive(Debug)]
struct Settings {
    hosts: Hosts,
    search: Search,
    servers: Servers,
}

/// What a name resolved to.
#[derive(Debug)]
pub(crate) struct Answer {
    /// At least one, in no order.
    pub(crate) addresses: Vec<IpAddr>,
    /// The end of the shortest TTL.
    pub(crate) valid_until: Instant,
    /// The family of which nobody could say whether the name has addresses.
    pub(crate) missing: Option<Missing>,
}

/// A family that has no answer, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", if self.is_ipv4 { "IPv4" } else { "IPv6" })]
pub(crate) struct Missing {
    pub(crate) is_ipv4: bool,
    error: io::Error,
}

impl Resolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`, and again when they change. Without them only `localhost` resolves.
    pub fn from_system() -> Self {
        Self(Source::System(Arc::new(Files::of_system())))
    }

    /// Asks these servers over UDP, and TCP where an answer is too long, instead of the system's.
    pub fn from_servers(servers: &[SocketAddr]) -> Self {
        let servers = Servers { addresses: servers.to_vec(), ..Servers::default() };
        Self::of(Settings { hosts: Hosts::default(), search: Search::default(), servers })
    }

    /// One that resolves nothing, for building without serving.
    pub fn unused() -> Self {
        Self(Source::Nowhere)
    }

    fn of(settings: Settings) -> Self {
        Self(Source::Given(Arc::new(settings)))
    }

    /// Every address of `host`, with `port`; an address is its own, `localhost` is this machine.
    ///
    /// # Errors
    /// The name does not exist, has no address, or no resolver answers.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if host == "localhost" {
            return Ok(loopback(port).to_vec());
        }
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let answer = self.lookup(host).await?;
        Ok(answer.addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// Every address of `host`, of both families.
    ///
    /// # Errors
    /// The name does not exist, has no address, or no resolver answers.
    pub(crate) async fn lookup(&self, host: &str) -> io::Result<Answer> {
        let settings = match &self.0 {
            Source::Nowhere => return Err(io::Error::other("no resolver is configured")),
            Source::Given(settings) => Arc::clone(settings),
            Source::System(files) => files.settings(),
        };
        if let Some(answer) = settings.hosts.answer(host) {
            return Ok(answer);
        }
        let mut outcome = Err(io::ErrorKind::InvalidInput.into());
        for name in settings.search.names(host) {
            outcome = settings.servers.addresses(&name).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// The addresses of `localhost` (RFC 6761, section 6.3), the one in use first.
pub(super) fn loopback(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}

#[cfg(test)]
mod tests;
