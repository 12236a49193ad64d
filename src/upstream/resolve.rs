//! Names to addresses, through hickory: a static binary has no NSS, and TTLs are honoured.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;

/// The system's resolver configuration, with answers cached for at most `dns_refresh`.
#[derive(Clone, Debug)]
pub struct Resolver(Option<TokioResolver>);

impl Resolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`. Without them only `localhost` resolves.
    ///
    /// `ttl_max` bounds how long an answer is kept.
    pub fn from_system(ttl_max: Duration) -> Self {
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().positive_max_ttl = Some(ttl_max);
            builder.build()
        });
        if let Err(error) = &built {
            tracing::warn!(%error, "names cannot be resolved: the system's resolver configuration is unusable");
        }
        Self(built.ok())
    }

    /// One that resolves nothing, for building without serving.
    pub(crate) fn unused() -> Self {
        Self(None)
    }

    /// Every address of `host`, with `port`.
    ///
    /// # Errors
    /// The name does not exist, has no address, or no resolver answers.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if host == "localhost" {
            return Ok(vec![([127, 0, 0, 1], port).into(), (std::net::Ipv6Addr::LOCALHOST, port).into()]);
        }
        let resolver = self.0.as_ref().ok_or_else(|| io::Error::other("no resolver is configured"))?;
        let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
        let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}
