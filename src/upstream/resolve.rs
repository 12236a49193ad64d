//! Names to addresses, through hickory: a static binary has no NSS, and TTLs are honoured.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// Asks the system's name servers, or those it is given. It keeps no answers: who asks knows how long they last.
#[derive(Clone, Debug)]
pub struct Resolver(Option<TokioResolver>);

/// What a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// At least one, in no order.
    pub(crate) addresses: Vec<IpAddr>,
    /// The end of the shortest TTL.
    pub(crate) valid_until: Instant,
}

impl Resolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`. Without them only `localhost` resolves.
    pub fn from_system() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().cache_size = 0;
            builder.build()
        });
        if let Err(error) = &built {
            tracing::warn!(%error, "names cannot be resolved: the system's resolver configuration is unusable");
        }
        Self(built.ok())
    }

    /// Asks these servers over UDP, and TCP where an answer is too long, instead of the system's.
    pub fn from_servers(servers: &[SocketAddr]) -> Self {
        let server = |address: &SocketAddr| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections.iter_mut().for_each(|connection| connection.port = address.port());
            server
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().cache_size = 0;
        Self(builder.build().ok())
    }

    /// One that resolves nothing, for building without serving.
    pub(crate) fn unused() -> Self {
        Self(None)
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

    /// Every address of `host`: the A records, or the AAAA records where there are no others.
    ///
    /// # Errors
    /// The name does not exist, has no address, or no resolver answers.
    pub(crate) async fn lookup(&self, host: &str) -> io::Result<Answer> {
        let resolver = self.0.as_ref().ok_or_else(|| io::Error::other("no resolver is configured"))?;
        let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
        let addresses: Vec<_> = found.iter().collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(Answer { addresses, valid_until: found.valid_until() })
    }
}

/// The addresses of `localhost` (RFC 6761, section 6.3), the one in use first.
pub(super) fn loopback(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}
