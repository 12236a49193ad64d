//! `[server]`, `[admin]`, `[client_ip]`, `[timeouts]`, `[bounds]`, `[trace]`, `[certificates]`.

use std::num::NonZeroUsize;

use super::super::document::Path;
use super::super::model::{
    Address, Admin, Bounds, Certificates, ClientIp, ClientIpHeader, Secret, Server, Timeouts, Trace,
};
use super::super::raw;
use super::Check;
use super::values::{at_least_one, at_least_one_thing};
use super::words::is_host_name;

/// Where a collector takes traces, below the base that people know it by (OpenTelemetry protocol, OTLP/HTTP).
const TRACES_PATH: &str = "/v1/traces";

/// Where collectors speak gRPC.
const GRPC_PORT: u16 = 4317;

impl Check<'_> {
    pub(super) fn server(&mut self, raw: &raw::Server, at: &Path) -> Server {
        if raw.state_dir.is_empty() {
            self.refuse(&at.key("state_dir"), "", "is empty", "name a folder, such as \"/run/flagstone\"");
        }
        Server {
            workers: usize::try_from(raw.workers).ok().and_then(NonZeroUsize::new),
            state_dir: self.path(&raw.state_dir, &at.key("state_dir")),
            shutdown_delay: self.duration(&raw.shutdown_delay, &at.key("shutdown_delay")),
            shutdown_grace: self.duration(&raw.shutdown_grace, &at.key("shutdown_grace")),
            max_connections: at_least_one_thing(raw.max_connections),
        }
    }

    pub(super) fn admin(&mut self, raw: &raw::Admin, at: &Path) -> Admin {
        let listen = (!raw.listen.is_empty()).then(|| self.listen_address(&raw.listen, "127.0.0.1", &at.key("listen")));
        let token = self.secret(&raw.token, &at.key("token"));
        let open = matches!(&listen, Some(Address::Socket(address)) if !address.ip().to_canonical().is_loopback());
        if open && token.is_none() && !self.is_spoilt(&at.key("token")) {
            self.refuse(
                &at.key("listen"),
                &raw.listen,
                "can be reached from other machines, so it needs a token",
                "set admin.token = \"${FLAGSTONE_TOKEN}\", or listen on \"127.0.0.1:9900\" or a unix socket",
            );
        }
        let mut allowed_hosts = Vec::new();
        for (index, host) in raw.allowed_hosts.iter().enumerate() {
            if !is_host_name(host) {
                let help = "write a bare name such as \"flagstone.internal\", without scheme, port or wildcard";
                self.refuse(&at.key("allowed_hosts").index(index), host, "not a host name", help);
            }
            allowed_hosts.push(host.trim_end_matches('.').to_ascii_lowercase());
        }
        Admin { listen, token, allowed_hosts }
    }

    pub(super) fn client_ip(&mut self, raw: &raw::ClientIp, at: &Path) -> ClientIp {
        let trusted_proxies = self.cidrs(&raw.trusted_proxies, &at.key("trusted_proxies"));
        if trusted_proxies.iter().any(|net| net.prefix_len() == 0) {
            self.warn(
                &at.key("trusted_proxies"),
                "trusts everyone",
                "any client can then choose its own address; name the proxies in front",
            );
        }
        ClientIp {
            trusted_proxies,
            header: match raw.header {
                raw::ClientIpHeader::XForwardedFor => ClientIpHeader::XForwardedFor,
                raw::ClientIpHeader::Forwarded => ClientIpHeader::Forwarded,
                raw::ClientIpHeader::XRealIp => ClientIpHeader::XRealIp,
            },
        }
    }

    pub(super) fn timeouts(&mut self, raw: &raw::Timeouts, at: &Path) -> Timeouts {
        Timeouts {
            tls_handshake: self.duration_above_zero(&raw.tls_handshake, &at.key("tls_handshake")),
            request_head: self.duration_above_zero(&raw.request_head, &at.key("request_head")),
            request_body: self.duration_above_zero(&raw.request_body, &at.key("request_body")),
            idle: self.duration_above_zero(&raw.idle, &at.key("idle")),
            connect: self.duration_above_zero(&raw.connect, &at.key("connect")),
            response_head: self.duration_above_zero(&raw.response_head, &at.key("response_head")),
            response_body: self.duration_above_zero(&raw.response_body, &at.key("response_body")),
            stream_idle: self.duration_above_zero(&raw.stream_idle, &at.key("stream_idle")),
        }
    }

    pub(super) fn bounds(&mut self, raw: &raw::Bounds, at: &Path) -> Bounds {
        Bounds {
            header_bytes_max: self.memory(&raw.max_header_bytes, 1024, &at.key("max_header_bytes")),
            headers_max: at_least_one_thing(raw.max_headers).get(),
            uri_bytes_max: self.memory(&raw.max_uri_bytes, 64, &at.key("max_uri_bytes")),
            body_bytes_max: self.size(&raw.max_body, &at.key("max_body")).filter(|&bytes| bytes > 0),
            h2_streams_max: at_least_one(raw.h2_max_streams),
        }
    }

    pub(super) fn trace(&mut self, raw: &raw::Trace, at: &Path) -> Trace {
        let (text, place) = (raw.otlp.as_str(), at.key("otlp"));
        let problems_before = self.problems.len();
        if !text.is_empty() {
            self.url(text, &["http", "https"], &place);
        }
        let is_url = !text.is_empty() && self.problems.len() == problems_before;
        let uri = text.parse::<http::Uri>().ok().filter(|_| is_url);
        if uri.as_ref().is_some_and(|uri| uri.port_u16() == Some(GRPC_PORT) && has_no_path(uri)) {
            self.warn(
                &place,
                "names the port of OTLP over gRPC, which is not spoken here",
                "name the collector's port for HTTP, 4318 by convention",
            );
        }
        let otlp = uri.map(|uri| Secret(if has_no_path(&uri) { with_path(text) } else { text.to_owned() }));
        Trace { otlp, sample: raw.sample }
    }
}

fn has_no_path(uri: &http::Uri) -> bool {
    matches!(uri.path(), "" | "/")
}

/// A base, with or without a slash and a query, and the path behind it.
fn with_path(base: &str) -> String {
    let (base, query) = base.split_once('?').map_or((base, String::new()), |(base, query)| (base, format!("?{query}")));
    format!("{}{TRACES_PATH}{query}", base.trim_end_matches('/'))
}

pub(super) fn certificates(raw: &raw::Certificates) -> Certificates {
    Certificates { warn_days: raw.warn_days }
}
