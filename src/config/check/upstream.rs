//! `[upstream.NAME]`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::super::document::Path;
use super::super::model::{
    Address, Balance, Breaker, Ejection, Endpoint, HashKey, Health, HealthKind, Retry, Upstream, UpstreamTls,
};
use super::super::raw;
use super::Check;
use super::values::at_least_one;
use super::words::{Key, is_certifiable, is_host_name, target_remedy};

impl Check<'_> {
    pub(super) fn upstreams(&mut self, raw: &BTreeMap<String, raw::Upstream>, at: &Path) -> BTreeMap<String, Upstream> {
        raw.iter()
            .map(|(name, upstream)| {
                let at = at.key(name);
                self.name(name, &at);
                (name.clone(), self.upstream(upstream, &at))
            })
            .collect()
    }

    fn upstream(&mut self, raw: &raw::Upstream, at: &Path) -> Upstream {
        let tls = self.upstream_tls(&raw.tls, &at.key("tls"));
        let are_certified = tls.as_ref().is_some_and(|tls| tls.server_name.is_none());
        Upstream {
            endpoints: self.endpoints(&raw.endpoints, are_certified, &at.key("endpoints")),
            critical: raw.critical,
            tls,
            http2: raw.http2,
            balance: self.balance(raw, at),
            affinity_cookie: self.affinity(&raw.affinity, &at.key("affinity")),
            dns_refresh: self.duration_above_zero(&raw.dns_refresh, &at.key("dns_refresh")),
            max_idle: usize::try_from(raw.max_idle).unwrap_or(usize::MAX),
            idle_timeout: self.duration_above_zero(&raw.idle_timeout, &at.key("idle_timeout")),
            max_in_flight: NonZeroU32::new(raw.max_in_flight),
            hold: self.duration(&raw.hold, &at.key("hold")),
            slow_start: self.duration(&raw.slow_start, &at.key("slow_start")),
            health: raw.health.as_ref().map(|health| self.health(health, &at.key("health"))),
            ejection: self.ejection(&raw.ejection, &at.key("ejection")),
            breaker: self.breaker(&raw.breaker, &at.key("breaker")),
            retry: self.retry(&raw.retry, &at.key("retry")),
        }
    }

    /// `are_certified`: each shows a certificate for its own name.
    fn endpoints(&mut self, raw: &[raw::Endpoint], are_certified: bool, at: &Path) -> Vec<Endpoint> {
        if raw.is_empty() && !self.is_spoilt(&at.index(0)) {
            self.missing(at, "write endpoints = [\"app:3000\"]");
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (index, endpoint) in raw.iter().enumerate() {
            let at = at.index(index);
            let Some(endpoint) = self.endpoint(endpoint, &at) else {
                continue;
            };
            if endpoints.iter().any(|other| other.address == endpoint.address) {
                self.refuse(&at, &endpoint.address.to_string(), "is listed twice", "list it once, with a weight");
            }
            if let Address::Name { host, .. } = &endpoint.address
                && are_certified
                && !is_certifiable(host)
            {
                let message = "ends in a number: no certificate is for such a name";
                let help = "set tls.server_name to the name that its certificate is for";
                self.refuse(&at, &endpoint.address.to_string(), message, help);
            }
            endpoints.push(endpoint);
        }
        if !endpoints.is_empty() && endpoints.len() == raw.len() && endpoints.iter().all(|endpoint| endpoint.backup) {
            self.refuse_place(at, "has only backups", "leave backup = true out of at least one");
        }
        endpoints
    }

    fn endpoint(&mut self, raw: &raw::Endpoint, at: &Path) -> Option<Endpoint> {
        let plain = |address| Endpoint { address, weight: at_least_one(1), backup: false };
        match raw {
            raw::Endpoint::Address(text) => self.endpoint_address(text, at).map(plain),
            raw::Endpoint::Table(table) if table.address.is_empty() => {
                self.missing(&at.key("address"), "write address = \"app:3000\"");
                None
            }
            raw::Endpoint::Table(table) => {
                let address = self.endpoint_address(&table.address, &at.key("address"))?;
                Some(Endpoint { address, weight: at_least_one(table.weight), backup: table.backup })
            }
        }
    }

    /// Anything set means TLS, so that a CA without `enabled` does not send plain text.
    fn upstream_tls(&mut self, raw: &raw::UpstreamTls, at: &Path) -> Option<UpstreamTls> {
        let anything = *raw != raw::UpstreamTls::default();
        if !raw.enabled.unwrap_or(anything) {
            return None;
        }
        let name = &raw.server_name;
        if !(name.is_empty() || is_host_name(name) && is_certifiable(name)) {
            self.refuse(
                &at.key("server_name"),
                &raw.server_name,
                "not a host name",
                "write a name such as \"app.internal\"",
            );
        }
        if raw.insecure {
            let help = match raw.ca.is_empty() {
                true => "give ca = \"file.pem\" instead",
                false => "take it out, for ca has no effect with it",
            };
            self.warn(&at.key("insecure"), "anyone in between can read and change the traffic", help);
        }
        Some(UpstreamTls {
            server_name: (!raw.server_name.is_empty()).then(|| raw.server_name.to_ascii_lowercase()),
            ca: (!raw.ca.is_empty()).then(|| self.file_path(&raw.ca, &at.key("ca"))),
            client: raw.client.as_ref().map(|pair| self.certificate_pair(pair, &at.key("client"))),
            insecure: raw.insecure,
        })
    }

    fn balance(&mut self, raw: &raw::Upstream, at: &Path) -> Balance {
        let key = match self.key(&raw.hash_key, &["client_ip", "uri"], &at.key("hash_key")) {
            Some(Key::Header(name)) => HashKey::Header(name),
            Some(Key::Cookie(name)) => HashKey::Cookie(name),
            Some(Key::Word(word)) if word == "uri" => HashKey::Uri,
            Some(Key::Word(_)) | None => HashKey::ClientIp,
        };
        if raw.balance != raw::Balance::Hash && raw.hash_key != raw::Upstream::default().hash_key {
            let help = "set balance = \"hash\", or take it out";
            self.warn(&at.key("hash_key"), "has no effect with this balance", help);
        }
        match raw.balance {
            raw::Balance::LeastRequests => Balance::LeastRequests,
            raw::Balance::RoundRobin => Balance::RoundRobin,
            raw::Balance::PeakEwma => Balance::PeakEwma,
            raw::Balance::Hash => Balance::Hash(key),
        }
    }

    fn affinity(&mut self, text: &str, at: &Path) -> Option<String> {
        let name = text.strip_prefix("cookie:").filter(|name| super::values::is_cookie_name(name));
        if name.is_none() && !text.is_empty() {
            self.refuse(
                at,
                text,
                "not a kind of affinity",
                "write \"cookie:NAME\", such as \"cookie:sticky\", or \"\" for none",
            );
        }
        name.map(str::to_owned)
    }

    fn health(&mut self, raw: &raw::Health, at: &Path) -> Health {
        let path = raw.path.clone().unwrap_or_else(|| "/api/health".to_owned());
        if raw.tcp && raw.path.is_some() {
            self.refuse_place(&at.key("tcp"), "there is a path already", "give either path or tcp = true");
        }
        if let Some(help) = target_remedy(&path) {
            self.refuse(&at.key("path"), &path, "not a path", help);
        }
        let expect = self.statuses(&raw.expect, &at.key("expect"));
        Health {
            kind: if raw.tcp { HealthKind::Tcp } else { HealthKind::Http { path, expect } },
            interval: self.duration_above_zero(&raw.interval, &at.key("interval")),
            timeout: self.duration_above_zero(&raw.timeout, &at.key("timeout")),
            healthy_after: at_least_one(raw.healthy_after),
            unhealthy_after: at_least_one(raw.unhealthy_after),
        }
    }

    fn ejection(&mut self, raw: &raw::Ejection, at: &Path) -> Ejection {
        let base = self.duration_above_zero(&raw.base, &at.key("base"));
        let max = self.duration_above_zero(&raw.max, &at.key("max"));
        self.no_shorter(("max", max, &raw.max), ("base", base, &raw.base), at);
        Ejection { failures: NonZeroU32::new(raw.failures), base, max }
    }

    fn breaker(&mut self, raw: &raw::Breaker, at: &Path) -> Breaker {
        let open = self.duration_above_zero(&raw.open, &at.key("open"));
        let max_open = self.duration_above_zero(&raw.max_open, &at.key("max_open"));
        self.no_shorter(("max_open", max_open, &raw.max_open), ("open", open, &raw.open), at);
        if raw.enabled && raw.failures == 0 && raw.failure_ratio == 0.0 {
            self.warn(at, "with failures and failure_ratio at 0 it never opens", "set one of them, or enabled = false");
        }
        let slow_call = Some(self.duration(&raw.slow_call, &at.key("slow_call"))).filter(|slow| !slow.is_zero());
        if raw.enabled && raw.count.is_empty() && slow_call.is_none() {
            self.warn(&at.key("count"), "with nothing to count it never opens", "name a failure, or enabled = false");
        }
        Breaker {
            enabled: raw.enabled,
            failures: NonZeroU32::new(raw.failures),
            failure_ratio: Some(raw.failure_ratio).filter(|&ratio| ratio > 0.0),
            min_requests: at_least_one(raw.min_requests),
            window: self.duration_above_zero(&raw.window, &at.key("window")),
            slow_call,
            open,
            max_open,
            probes: at_least_one(raw.probes),
            ramp: self.duration(&raw.ramp, &at.key("ramp")),
            count: self.failures(&raw.count, &["connect", "timeout", "reset"], &at.key("count")),
            shadow: raw.shadow,
            fallback: (!raw.fallback.is_empty()).then(|| raw.fallback.clone()),
        }
    }

    fn retry(&mut self, raw: &raw::Retry, at: &Path) -> Retry {
        Retry {
            attempts: raw.attempts,
            on: self.failures(&raw.on, &["connect", "reset_before_response"], &at.key("on")),
            methods: self.methods(&raw.methods, &at.key("methods")),
            budget: raw.budget,
            replay_bytes_max: self.memory(&raw.max_replay, 0, &at.key("max_replay")),
        }
    }
}
