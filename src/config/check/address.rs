//! Addresses: of listeners and of endpoints.

use std::net::SocketAddr;

use super::super::document::Path;
use super::super::model::Address;
use super::Check;
use super::words::is_host_name;

/// What `sockaddr_un` has room for, with the NUL after it (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Check<'_> {
    /// Where to listen: an IP address and a port, or a unix socket. Port 0 = one that is free. `usual` is the IP address to
    /// propose where there is none.
    pub(super) fn listen_address(&mut self, text: &str, usual: &str, at: &Path) -> Address {
        if let Some(path) = text.strip_prefix("unix:") {
            return self.unix(path, text, at);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Address::Socket(address);
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let help = match port_number(port) {
            Some(port) if host.is_empty() || host == "*" => format!("write \"{usual}:{port}\""),
            Some(port) if host == "localhost" => format!("write \"127.0.0.1:{port}\""),
            _ if port_number(text).is_some() => format!("write \"{usual}:{text}\""),
            _ => {
                "write an IP address and a port such as \"0.0.0.0:8080\" or \"[::]:443\", or \"unix:/path\"".to_owned()
            }
        };
        self.refuse(at, text, "not an address to listen on", help);
        Address::Socket(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where to connect to: an IP address or a name, with a port above zero, or a unix socket.
    pub(super) fn endpoint_address(&mut self, text: &str, at: &Path) -> Option<Address> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some(self.unix(path, text, at));
        }
        if let Ok(address) = text.parse::<SocketAddr>()
            && address.port() > 0
        {
            return Some(Address::Socket(address));
        }
        if let Some((host, port)) = text.split_once(':')
            && is_host_name(host)
            && !looks_like_ipv4(host)
            && let Some(port) = port_number(port)
            && port > 0
        {
            return Some(Address::Name { host: host.trim_end_matches('.').to_ascii_lowercase(), port });
        }
        // Who logs in by a URL is no part of an address, and nothing to be shown.
        let host = |rest: &str| rest.rsplit_once('@').map_or(rest, |(_, host)| host).to_owned();
        let help = match text.split_once("://").map(|(scheme, rest)| (scheme, host(rest))) {
            Some(("https", rest)) => {
                format!("leave out the scheme: \"{}\", and set tls = {{ enabled = true }}", with_port(&rest, 443))
            }
            Some((_, rest)) => format!("leave out the scheme: \"{}\"", with_port(&rest, 80)),
            None if port_number(text).is_some() => format!("write \"127.0.0.1:{text}\""),
            None if is_host_name(text) => format!("give a port: \"{text}:3000\""),
            None => "write \"host:port\", \"ip:port\", \"[ipv6]:port\" or \"unix:/path\"".to_owned(),
        };
        self.refuse(at, text, "not an endpoint's address", help);
        None
    }

    fn unix(&mut self, path: &str, text: &str, at: &Path) -> Address {
        if path.is_empty() || path.starts_with("//") {
            self.refuse(at, text, "names no socket", "write \"unix:/path/to.sock\"");
        }
        let path = self.path(path, at);
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            let message = format!("the path of this socket has {bytes} bytes, and may have {SOCKET_PATH_BYTES_MAX}");
            self.refuse(at, text, message, "name a shorter path");
        }
        Address::Unix(path)
    }
}

/// Digits alone: a number's own parser takes a sign before them.
pub(super) fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `999.1.1.1` is a mistyped address, not a name to ask DNS for.
fn looks_like_ipv4(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn with_port(rest: &str, port: u16) -> String {
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.contains(':') {
        true => authority.to_owned(),
        false => format!("{authority}:{port}"),
    }
}
