//! `[maintenance]`, `[probe.NAME]`, `[host]` and `[[notify]]`.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};
use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::document::Path;
use super::super::model::{
    Address, EventKind, Host, Maintenance, Notify, NotifyFormat, Probe, ProbeKind, Secret, Window,
};
use super::super::{cron, raw, zone};
use super::Check;

/// Of a window, to see whether there is time between them: two months of a daily one.
const OCCURRENCES_LOOKED_AT: usize = 60;
/// In the state folder: as a flag, each would be maintenance without an end, and whoever ends it would lose it.
const OTHER_FILES: [&str; 7] = [
    "cookies.key",
    "limits.json",
    "blocklist.json",
    "features.json",
    "windows.toml",
    "reminders.toml",
    "maintenance.d",
];

impl Check<'_> {
    pub(super) fn maintenance(
        &mut self,
        raw: &raw::Maintenance,
        state_dir: &std::path::Path,
        at: &Path,
    ) -> Maintenance {
        // A folder that is there would be maintenance without an end.
        if raw.flag.rsplit('/').next().is_none_or(|name| ["", ".", ".."].contains(&name)) {
            self.refuse(
                &at.key("flag"),
                &raw.flag,
                "names no file",
                "write a file's name, such as \"maintenance.flag\"",
            );
        }
        let flag = self.path_below(state_dir, &raw.flag, &at.key("flag"));
        if is_other_file(&flag, state_dir) {
            self.refuse(
                &at.key("flag"),
                &raw.flag,
                "is the name of another file of the state folder",
                "write a name of its own, such as \"maintenance.flag\"",
            );
        }
        for (index, path) in raw.exempt_paths.iter().enumerate() {
            self.route_path(path, &at.key("exempt_paths").index(index));
        }
        let each = raw.window.iter().enumerate();
        let windows = each.map(|(index, window)| self.window(window, &at.key("window").index(index))).collect();
        Maintenance {
            flag,
            page: (!raw.page.is_empty()).then(|| self.path(&raw.page, &at.key("page"))),
            status: self.status(raw.status, &at.key("status")),
            retry_after: self.duration_above_zero(&raw.retry_after, &at.key("retry_after")),
            exempt_paths: raw.exempt_paths.clone(),
            allow: self.cidrs(&raw.allow, &at.key("allow")),
            bypass_token: self.secret(&raw.bypass_token, &at.key("bypass_token")),
            announce: self.duration(&raw.announce, &at.key("announce")),
            windows,
        }
    }

    fn window(&mut self, raw: &raw::Window, at: &Path) -> Window {
        self.name(&raw.name, &at.key("name"));
        let schedule = at.key("schedule");
        if raw.schedule.is_empty() {
            self.missing(&schedule, "write a cron pattern, such as \"0 3 * * SUN\"");
        }
        let pattern = cron::parse(&raw.schedule);
        if let Err(wrong) = &pattern
            && !raw.schedule.is_empty()
        {
            let help = "write minute (0-59), hour (0-23), day (1-31), month (1-12) and weekday (0-7, SUN-SAT), such as \
                        \"0 3 * * SUN\" or \"0 3 * * SUN#1\"";
            self.refuse(&schedule, &raw.schedule, format!("not a cron pattern: {wrong}"), help);
        }
        let timezone = zone::find(&raw.timezone);
        if timezone.is_none() {
            self.refuse(
                &at.key("timezone"),
                &raw.timezone,
                "not a time zone",
                "write a name such as \"UTC\" or \"Europe/Berlin\"",
            );
        }
        let duration = self.duration_above_zero(&raw.duration, &at.key("duration"));
        if let (Ok(pattern), Some(timezone)) = (pattern, timezone) {
            self.warn_of_schedule(&pattern, timezone, duration, at);
        }
        Window {
            name: raw.name.clone(),
            schedule: raw.schedule.clone(),
            duration,
            timezone: raw.timezone.clone(),
            reason: raw.reason.clone(),
        }
    }

    /// A pattern that never comes, and occurrences without anything between them: both may be meant.
    fn warn_of_schedule(&mut self, pattern: &Cron, timezone: TimeZone, duration: Duration, at: &Path) {
        let starts = pattern.iter_after(Timestamp::now().to_zoned(timezone)).take(OCCURRENCES_LOOKED_AT);
        let starts: Vec<Timestamp> = starts.map(|start| start.timestamp()).collect();
        let never_ends = |pair: &[Timestamp]| pair[1].duration_since(pair[0]).unsigned_abs() <= duration;
        if starts.is_empty() {
            let help = "look at day and month, such as \"0 3 31 2 *\", which no year has";
            self.warn(&at.key("schedule"), "never comes", help);
        } else if starts.len() > 1 && starts.windows(2).all(never_ends) {
            let help = "make duration shorter than the time from one start to the next";
            self.warn(&at.key("duration"), "lasts until the window begins again, so maintenance never ends", help);
        }
    }

    pub(super) fn probes(&mut self, raw: &BTreeMap<String, raw::Probe>, at: &Path) -> BTreeMap<String, Probe> {
        raw.iter()
            .map(|(name, probe)| {
                let at = at.key(name);
                self.name(name, &at);
                (name.clone(), self.probe(probe, &at))
            })
            .collect()
    }

    fn probe(&mut self, raw: &raw::Probe, at: &Path) -> Probe {
        let help = "give exactly one of tcp, http or redis";
        let given = [&raw.tcp, &raw.http, &raw.redis].into_iter().flatten().count();
        let half = ["tcp", "http", "redis"].iter().any(|key| self.is_spoilt(&at.key(key)));
        if given > 1 || (given == 0 && !half) {
            self.refuse_place(at, if given == 0 { "looks at nothing" } else { "looks at more than one thing" }, help);
        }
        let kinds = [
            raw.tcp.as_ref().map(|text| {
                let address = self.endpoint_address(text, &at.key("tcp"));
                ProbeKind::Tcp(address.unwrap_or_else(no_address))
            }),
            raw.http.as_ref().map(|url| {
                self.url(url, &["http", "https"], &at.key("http"));
                ProbeKind::Http(url.clone())
            }),
            raw.redis.as_ref().map(|url| {
                self.url(url, &["redis", "rediss"], &at.key("redis"));
                ProbeKind::Redis(Secret(url.clone()))
            }),
        ];
        let kind = kinds.into_iter().flatten().next().unwrap_or_else(|| ProbeKind::Tcp(no_address()));
        Probe {
            kind,
            critical: raw.critical,
            interval: self.duration_above_zero(&raw.interval, &at.key("interval")),
            timeout: self.duration_above_zero(&raw.timeout, &at.key("timeout")),
        }
    }

    pub(super) fn notify(&mut self, raw: &[raw::Notify], at: &Path) -> Vec<Notify> {
        let each = raw.iter().enumerate();
        each.map(|(index, notify)| self.webhook(notify, &at.index(index))).collect()
    }

    fn webhook(&mut self, raw: &raw::Notify, at: &Path) -> Notify {
        if !self.is_spoilt(&at.key("url")) {
            self.url(&raw.url, &["http", "https"], &at.key("url"));
        }
        if raw.events.is_empty() {
            self.warn(&at.key("events"), "it is told of nothing", "name what it is to be told of, or leave events out");
        }
        let event = |event: &raw::EventKind| match event {
            raw::EventKind::Maintenance => EventKind::Maintenance,
            raw::EventKind::Breaker => EventKind::Breaker,
            raw::EventKind::Health => EventKind::Health,
            raw::EventKind::Certificate => EventKind::Certificate,
            raw::EventKind::Reload => EventKind::Reload,
        };
        Notify {
            url: Secret(raw.url.clone()),
            format: match raw.format {
                raw::NotifyFormat::Slack => NotifyFormat::Slack,
                raw::NotifyFormat::Json => NotifyFormat::Json,
            },
            events: raw.events.iter().map(event).collect(),
        }
    }
}

/// A stand-in for what was refused.
fn no_address() -> Address {
    Address::Unix(PathBuf::new())
}

/// Whether it is one of [`OTHER_FILES`] or below one, however it is written; links are not looked at.
fn is_other_file(flag: &std::path::Path, state_dir: &std::path::Path) -> bool {
    let (flag, state_dir) = (plain(flag), plain(state_dir));
    let below = flag.strip_prefix(&state_dir).ok().and_then(|path| path.iter().next());
    below.is_some_and(|first| OTHER_FILES.iter().any(|name| first == *name))
}

/// Without `.` and `..`.
fn plain(path: &std::path::Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            _ => plain.push(component),
        }
    }
    plain
}

pub(super) fn host(raw: &raw::Host) -> Host {
    let percent = |percent| Some(percent).filter(|&percent| percent > 0);
    Host {
        memory_percent: percent(raw.memory_percent),
        disk_percent: percent(raw.disk_percent),
        cpu_percent: percent(raw.cpu_percent),
    }
}
