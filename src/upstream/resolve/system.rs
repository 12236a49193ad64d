//! What the system says about names: `/etc/hosts` and `/etc/resolv.conf`. Both are looked at whenever a name is asked
//! for, and read anew when they changed: a container that joins a network, or a lease that brings other servers, writes
//! them while we run.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use resolv_conf::{Config, ScopedIp};
use rustix::net::netdevice;

use super::servers::Servers;
use super::{Answer, Settings};

const PORT: u16 = 53;
/// What `/etc/hosts` says has no TTL: so soon a change of it is followed.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// The two files, and what they said when they were last read.
#[derive(Debug)]
pub(super) struct Files {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    read: Mutex<(Stamps, Arc<Settings>)>,
}

type Stamps = [Option<Stamp>; 2];

/// What tells one state of a file from another: a file that takes its place, and one that is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Files {
    pub(super) fn of_system() -> Self {
        Self::read("/etc/hosts".into(), "/etc/resolv.conf".into())
    }

    pub(super) fn read(hosts: PathBuf, resolv_conf: PathBuf) -> Self {
        let stamps = [stamp(&hosts), stamp(&resolv_conf)];
        let settings = Arc::new(settings(&hosts, &resolv_conf));
        Self { hosts, resolv_conf, read: Mutex::new((stamps, settings)) }
    }

    /// What they say now.
    pub(super) fn settings(&self) -> Arc<Settings> {
        let mut read = self.read.lock();
        // Before they are read: a change in the meantime is seen the next time.
        let stamps = [stamp(&self.hosts), stamp(&self.resolv_conf)];
        if stamps != read.0 {
            *read = (stamps, Arc::new(settings(&self.hosts, &self.resolv_conf)));
        }
        Arc::clone(&read.1)
    }
}

/// `None`: there is no such file.
fn stamp(file: &Path) -> Option<Stamp> {
    let it = std::fs::metadata(file).ok()?;
    Some(Stamp { inode: it.ino(), size: it.size(), modified: (it.mtime(), it.mtime_nsec()) })
}

fn settings(hosts: &Path, resolv_conf: &Path) -> Settings {
    // There may be none: an empty image has no such file.
    let hosts = Hosts::parse(&std::fs::read(hosts).unwrap_or_default());
    let (search, servers) = read_resolv_conf(resolv_conf);
    Settings { hosts, search, servers }
}

/// `/etc/hosts`: names in small letters, without a last dot.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
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
fn read_resolv_conf(file: &Path) -> (Search, Servers) {
    let text = std::fs::read(file);
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
        addresses: config.nameservers.iter().map(server_address).collect(),
        // resolv.conf(5): no more than 30 seconds and five rounds.
        patience: Duration::from_secs(config.timeout.clamp(1, 30).into()),
        rounds: config.attempts.clamp(1, 5) as usize,
        says_size: config.edns0,
    };
    (Search { domains, dots: config.ndots as usize }, servers)
}

fn server_address(server: &ScopedIp) -> SocketAddr {
    match server {
        ScopedIp::V6(ip, Some(zone)) => SocketAddrV6::new(*ip, PORT, 0, interface(zone)).into(),
        server => SocketAddr::new(server.into(), PORT),
    }
}

/// The interface that a link-local address is reached by, as its number or name (RFC 4007, section 11.2); 0 = unknown.
fn interface(zone: &str) -> u32 {
    let by_name = || netdevice::name_to_index(UnixDatagram::unbound().ok()?, zone).ok();
    zone.parse().ok().or_else(by_name).unwrap_or_else(|| {
        tracing::warn!(zone, "a name server in /etc/resolv.conf is behind an interface that there is not");
        0
    })
}
