//! What the system says about names: `/etc/hosts` and `/etc/resolv.conf`. Both are read once, at the start.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use resolv_conf::Config;

use super::Answer;
use super::servers::Servers;

const PORT: u16 = 53;
/// What `/etc/hosts` says has no TTL; it is as old as the process.
const HOSTS_TTL: Duration = Duration::from_secs(86_400);

/// `/etc/hosts`: names in small letters, without a last dot.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// There may be none: an empty image has no such file.
    pub(super) fn from_system() -> Self {
        Self::parse(&std::fs::read("/etc/hosts").unwrap_or_default())
    }

    /// An address and its names a line (hosts(5)). A line that is none is left out.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut hosts = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(Ok(ip)) = words.next().map(str::parse) else { continue };
            for name in words {
                hosts.0.entry(key(name)).or_default().push(ip);
            }
        }
        hosts
    }

    pub(super) fn answer(&self, host: &str) -> Option<Answer> {
        let addresses = self.0.get(&key(host))?.clone();
        Some(Answer { addresses, valid_until: Instant::now() + HOSTS_TTL, missing: None })
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Which names a short one may stand for: `search` and `ndots` of resolv.conf(5).
#[derive(Debug, Default)]
pub(super) struct Search {
    domains: Vec<String>,
    /// A name with as many dots is asked for as it is before the domains are tried, any other one after them.
    dots: usize,
}

impl Search {
    /// What to ask for, in this order.
    pub(super) fn names(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<_> = self.domains.iter().map(|domain| format!("{host}.{domain}")).collect();
        let is_long = host.matches('.').count() >= self.dots;
        names.insert(if is_long { 0 } else { names.len() }, host.to_owned());
        names
    }
}

/// Whom to ask, and for what. Without the file, or without a server in it, nobody.
pub(super) fn resolv_conf() -> (Search, Servers) {
    let text = std::fs::read("/etc/resolv.conf");
    if let Err(error) = &text {
        tracing::warn!(%error, "names cannot be resolved: /etc/resolv.conf cannot be read");
    }
    let is_there = text.is_ok();
    let (search, servers) = parse_resolv_conf(&text.unwrap_or_default());
    if is_there && servers.addresses.is_empty() {
        tracing::warn!("names cannot be resolved: no name server is configured");
    }
    (search, servers)
}

pub(super) fn parse_resolv_conf(text: &[u8]) -> (Search, Servers) {
    let (config, errors) = Config::parse_with_errors(text);
    for error in errors {
        tracing::warn!(%error, "a line of /etc/resolv.conf is not understood");
    }
    let mut domains: Vec<_> = config.get_last_search_or_domain().map(|domain| key(domain)).collect();
    // As in the C library, the machine's own domain where no other is given.
    if domains.is_empty() {
        domains.extend(config.get_system_domain().as_deref().map(key));
    }
    domains.retain(|domain| !domain.is_empty() && domain != "--");
    let servers = Servers {
        addresses: config.nameservers.iter().map(|ip| SocketAddr::new(ip.into(), PORT)).collect(),
        // resolv.conf(5): no more than 30 seconds and five rounds.
        patience: Duration::from_secs(config.timeout.clamp(1, 30).into()),
        rounds: config.attempts.clamp(1, 5) as usize,
        says_size: config.edns0,
    };
    (Search { domains, dots: config.ndots as usize }, servers)
}
