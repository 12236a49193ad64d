//! `[limit.NAME]` and `[redis]`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::super::document::Path;
use super::super::model::{Limit, LimitKey, LimitStore, Rate, Redis, RedisOnError, Secret};
use super::super::raw;
use super::Check;
use super::values::at_least_one_thing;
use super::words::Key;

impl Check<'_> {
    pub(super) fn limits(&mut self, raw: &BTreeMap<String, raw::Limit>, at: &Path) -> BTreeMap<String, Limit> {
        raw.iter()
            .map(|(name, limit)| {
                let at = at.key(name);
                self.name(name, &at);
                (name.clone(), self.limit(limit, &at))
            })
            .collect()
    }

    fn limit(&mut self, raw: &raw::Limit, at: &Path) -> Limit {
        let rate = match &raw.rate {
            Some(rate) => self.rate(rate, &at.key("rate")),
            None => {
                self.missing(&at.key("rate"), "write rate = \"100/1m\"");
                Rate { count: NonZeroU32::MIN, period: Duration::from_secs(1) }
            }
        };
        let burst = raw.burst.and_then(NonZeroU32::new).unwrap_or(rate.count);
        if !rate.refills(burst) && !self.is_refused(&at.key("rate")) {
            self.refuse_place(
                &at.key("burst"),
                "such a burst takes more than ten years to refill",
                "lower the burst or raise the rate",
            );
        }
        Limit {
            key: self.limit_keys(&raw.key, &at.key("key")),
            rate,
            burst,
            queue: raw.queue,
            concurrency: NonZeroU32::new(raw.concurrency),
            ipv6_prefix: raw.ipv6_prefix,
            exempt: self.cidrs(&raw.exempt, &at.key("exempt")),
            keys_max: at_least_one_thing(raw.max_keys),
            shadow: raw.shadow,
            store: match raw.store {
                raw::LimitStore::Local => LimitStore::Local,
                raw::LimitStore::Redis => LimitStore::Redis,
            },
            status: self.status(raw.status, &at.key("status")),
        }
    }

    fn limit_keys(&mut self, raw: &raw::LimitKey, at: &Path) -> Vec<LimitKey> {
        match raw {
            raw::LimitKey::One(text) => self.limit_key(text, at).into_iter().collect(),
            raw::LimitKey::Several(texts) => {
                if texts.is_empty() && !self.is_spoilt(&at.index(0)) {
                    self.refuse_place(at, "is empty", "write key = \"global\" to count everyone together");
                }
                let each = texts.iter().enumerate();
                each.filter_map(|(index, text)| self.limit_key(text, &at.index(index))).collect()
            }
        }
    }

    fn limit_key(&mut self, text: &str, at: &Path) -> Option<LimitKey> {
        let key = match self.key(text, &["client_ip", "global", "route", "path"], at)? {
            Key::Header(name) => LimitKey::Header(name),
            Key::Cookie(name) => LimitKey::Cookie(name),
            Key::Word(word) => match word.as_str() {
                "global" => LimitKey::Global,
                "route" => LimitKey::Route,
                "path" => LimitKey::Path,
                _ => LimitKey::ClientIp,
            },
        };
        Some(key)
    }

    pub(super) fn redis(&mut self, raw: &raw::Redis, at: &Path) -> Redis {
        if !raw.url.is_empty() {
            self.url(&raw.url, &["redis", "rediss"], &at.key("url"));
        }
        let ca = (!raw.ca.is_empty()).then(|| self.file_path(&raw.ca, &at.key("ca")));
        if ca.is_some() && !raw.url.starts_with("rediss://") && !self.is_spoilt(&at.key("url")) {
            self.refuse(&at.key("ca"), &raw.ca, "there is no TLS to use it for", "write the url as rediss://…");
        }
        Redis {
            url: (!raw.url.is_empty()).then(|| Secret(raw.url.clone())),
            ca,
            timeout: self.duration_above_zero(&raw.timeout, &at.key("timeout")),
            on_error: match raw.on_error {
                raw::RedisOnError::Local => RedisOnError::Local,
                raw::RedisOnError::Allow => RedisOnError::Allow,
                raw::RedisOnError::Deny => RedisOnError::Deny,
            },
        }
    }
}
