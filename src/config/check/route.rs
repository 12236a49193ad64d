//! `[[route]]`.

use std::collections::BTreeMap;

use http::header::HOST;
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::super::document::Path;
use super::super::model::{Action, Bounds, Files, HeaderEdits, Redirect, Respond, Route, Timeouts};
use super::super::problem::{nearest, one_of};
use super::super::raw;
use super::Check;
use super::words::{bare_path_remedy, path_remedy};

/// What frames a message is written by the proxy alone.
const FRAMING: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

const REDIRECT_VARIABLES: [&str; 5] = ["uri", "path", "query", "host", "scheme"];

/// Labels with a meaning of their own; see `telemetry::metrics`.
const TAKEN_NAMES: [(&str, &str); 2] =
    [("-", "requests that no route matched"), ("global", "maintenance of everything")];

/// What the name of a file has room for, with `.flag` behind it (NAME_MAX of limits.h).
const NAME_BYTES_MAX: usize = 255 - ".flag".len();

const ONE_ACTION: &str = "give exactly one of upstream, files, redirect or respond";

impl Check<'_> {
    pub(super) fn routes(&mut self, raw: &[raw::Route], timeouts: &Timeouts, bounds: &Bounds, at: &Path) -> Vec<Route> {
        if raw.is_empty() {
            self.missing(at, "add a [[route]] with a name and an upstream");
        }
        let each = raw.iter().enumerate();
        each.map(|(index, route)| self.route(route, timeouts, bounds, &at.index(index))).collect()
    }

    fn route(&mut self, raw: &raw::Route, timeouts: &Timeouts, bounds: &Bounds, at: &Path) -> Route {
        self.name(&raw.name, &at.key("name"));
        if let Some((name, what)) = TAKEN_NAMES.iter().find(|(name, _)| raw.name == *name) {
            let message = format!("is what events and metrics call {what}");
            self.refuse(&at.key("name"), name, message, "give the route another name");
        }
        self.fits_flag_file(&raw.name, &at.key("name"));
        let hosts =
            raw.host.iter().enumerate().map(|(index, host)| self.host(host, &at.key("host").index(index))).collect();
        self.paths(&raw.path, &at.key("path"));
        Route {
            name: raw.name.clone(),
            hosts,
            paths: raw.path.clone(),
            methods: self.methods(&raw.method, &at.key("method")),
            action: self.action(raw, at),
            strip_prefix: self.strip_prefix(raw, &at.key("strip_prefix")),
            preserve_host: raw.preserve_host,
            limits: raw.limits.clone(),
            feature: (!raw.feature.is_empty()).then(|| raw.feature.clone()),
            maintenance_exempt: raw.maintenance == raw::RouteMaintenance::Exempt,
            allow: self.cidrs(&raw.allow, &at.key("allow")),
            deny: self.cidrs(&raw.deny, &at.key("deny")),
            request_headers: self.request_edits(&raw.request_headers, &at.key("request_headers")),
            response_headers: self.header_edits(&raw.response_headers, &at.key("response_headers")),
            timeouts: self.route_timeouts(&raw.timeouts, timeouts, &at.key("timeouts")),
            body_bytes_max: match &raw.max_body {
                None => bounds.body_bytes_max,
                Some(size) => self.size(size, &at.key("max_body")).filter(|&bytes| bytes > 0),
            },
        }
    }

    /// A name that no file can have would be one of a route that no flag can be for.
    fn fits_flag_file(&mut self, name: &str, at: &Path) {
        let bytes = name.len();
        if bytes > NAME_BYTES_MAX && !self.is_refused(at) {
            let message = format!("has {bytes} bytes, and may have {NAME_BYTES_MAX}");
            self.refuse(at, name, message, "give the route a shorter name, for its flag file is called by it");
        }
    }

    fn paths(&mut self, raw: &[String], at: &Path) {
        if raw.is_empty() && !self.is_spoilt(&at.index(0)) {
            self.refuse_place(
                at,
                "is empty, so nothing would ever match",
                "write path = [\"/\"] for every path, or leave it out",
            );
        }
        for (index, path) in raw.iter().enumerate() {
            self.route_path(path, &at.index(index));
        }
    }

    /// Of several the first, which is refused with the rest: whatever is wrong in each of them is told.
    fn action(&mut self, raw: &raw::Route, at: &Path) -> Action {
        let given = [
            ("upstream", raw.upstream.is_some()),
            ("files", raw.files.is_some()),
            ("redirect", raw.redirect.is_some()),
            ("respond", raw.respond.is_some()),
        ];
        let names: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let half = given.iter().any(|(name, _)| self.is_spoilt(&at.key(name)));
        match names.as_slice() {
            [] if !half => self.refuse_place(at, "does nothing with its requests", ONE_ACTION),
            [_, others @ ..] => {
                for other in others {
                    self.refuse_place(&at.key(other), format!("there is {} already", names[0]), ONE_ACTION);
                }
            }
            [] => {}
        }
        let actions = [
            raw.upstream.clone().map(Action::Upstream),
            raw.files.as_ref().map(|files| Action::Files(self.files(files, &at.key("files")))),
            raw.redirect.as_ref().map(|redirect| Action::Redirect(self.redirect(redirect, &at.key("redirect")))),
            raw.respond.as_ref().map(|respond| Action::Respond(self.respond(respond, &at.key("respond")))),
        ];
        actions.into_iter().flatten().next().unwrap_or_else(|| Action::Upstream(String::new()))
    }

    fn files(&mut self, raw: &raw::Files, at: &Path) -> Files {
        if raw.root.is_empty() {
            self.missing(&at.key("root"), "name the folder to serve");
        }
        if raw.index.is_empty() || raw.index.contains('/') {
            self.refuse(
                &at.key("index"),
                &raw.index,
                "not a file's name",
                "write a name without slashes, such as \"index.html\"",
            );
        }
        for (index, path) in raw.r#try.iter().enumerate() {
            let rest = path.strip_prefix("$uri").unwrap_or(path);
            let good = match rest.len() < path.len() {
                true => !rest.contains('$') && !rest.contains(".."),
                false => !path.contains('$') && path_remedy(path).is_none(),
            };
            if !good {
                let help = "write \"$uri\", \"$uri/\", \"$uri.html\" or a path such as \"/index.html\"";
                self.refuse(&at.key("try").index(index), path, "not something to try", help);
            }
        }
        Files { root: self.path(&raw.root, &at.key("root")), index: raw.index.clone(), try_paths: raw.r#try.clone() }
    }

    fn redirect(&mut self, raw: &raw::Redirect, at: &Path) -> Redirect {
        let to = at.key("to");
        let starts = ["/", "http://", "https://", "$scheme://", "$uri", "$path"];
        if raw.to.is_empty() {
            self.missing(&to, "write where to, such as \"https://example.com$uri\"");
        } else if !starts.iter().any(|start| raw.to.starts_with(start)) || HeaderValue::from_str(&raw.to).is_err() {
            self.refuse(
                &to,
                &raw.to,
                "not a place to redirect to",
                "start with \"/\", \"https://\", \"http://\" or \"$scheme://\"",
            );
        } else {
            self.redirect_variables(&raw.to, &to);
        }
        let status = at.key("status");
        if ![301, 302, 303, 307, 308].contains(&raw.status) {
            let help = "use 308 or 301 for good, 307 or 302 for now, 303 to change to GET";
            self.refuse_place(&status, format!("{} is no redirect", raw.status), help);
        }
        Redirect { to: raw.to.clone(), status: self.status(raw.status, &status) }
    }

    fn redirect_variables(&mut self, text: &str, at: &Path) {
        for part in text.split('$').skip(1) {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
            let name = &part[..end];
            if !REDIRECT_VARIABLES.contains(&name) {
                let help = match nearest(name, REDIRECT_VARIABLES) {
                    Some(best) => format!("did you mean \"${best}\"?"),
                    None => format!("after a $, use {}", one_of(REDIRECT_VARIABLES)),
                };
                self.refuse(at, text, format!("unknown variable \"${name}\""), help);
            }
        }
    }

    fn respond(&mut self, raw: &raw::Respond, at: &Path) -> Respond {
        if [204, 205, 304].contains(&raw.status) && !raw.body.is_empty() {
            self.refuse_place(
                &at.key("body"),
                format!("an answer with status {} has no body", raw.status),
                "leave the body out, or use another status",
            );
        }
        let type_at = at.key("content_type");
        if raw.content_type.is_empty() {
            self.refuse(
                &type_at,
                "",
                "is empty",
                "name a type, such as \"text/html\", or leave it out for \"text/plain\"",
            );
        }
        let content_type = self.header_value(&raw.content_type, &type_at);
        Respond {
            status: self.status(raw.status, &at.key("status")),
            body: raw.body.clone(),
            content_type: content_type.unwrap_or_else(|| HeaderValue::from_static("text/plain")),
        }
    }

    /// Refused when no request of the route could begin with it.
    fn strip_prefix(&mut self, raw: &raw::Route, at: &Path) -> Option<String> {
        let prefix = raw.strip_prefix.trim_end_matches('/');
        if raw.strip_prefix.is_empty() || raw.strip_prefix == "/" {
            return None;
        }
        if let Some(help) = bare_path_remedy(&raw.strip_prefix) {
            self.refuse(at, &raw.strip_prefix, "not a prefix", help);
        } else if !raw.path.is_empty() && !raw.path.iter().any(|path| may_begin_with(path, prefix)) {
            let help = format!("this route's paths are {}", one_of(raw.path.iter().map(String::as_str)));
            self.refuse(at, &raw.strip_prefix, "no request of this route begins with it", help);
        }
        Some(prefix.to_owned())
    }

    fn request_edits(&mut self, raw: &raw::HeaderEdits, at: &Path) -> HeaderEdits {
        // A server refuses a request with two (RFC 9112, section 3.2).
        for name in raw.add.keys().filter(|name| name.eq_ignore_ascii_case(HOST.as_str())) {
            self.refuse_place(&at.key("add").key(name), format!("{name} would be there twice"), "use set");
        }
        self.header_edits(raw, at)
    }

    fn header_edits(&mut self, raw: &raw::HeaderEdits, at: &Path) -> HeaderEdits {
        let set = self.header_lines(&raw.set, &at.key("set"));
        for (index, (name, _)) in set.iter().enumerate() {
            if set[..index].iter().any(|(before, _)| before == name) {
                let what = format!("{name} is set twice: header names that differ in case alone are the same");
                self.refuse_place(&at.key("set"), what, "leave one, or use add for more lines");
            }
        }
        HeaderEdits {
            set,
            add: self.header_lines(&raw.add, &at.key("add")),
            remove: {
                let at = at.key("remove");
                let each = raw.remove.iter().enumerate();
                each.filter_map(|(index, name)| self.free_header(name, &at.index(index))).collect()
            },
        }
    }

    fn header_lines(&mut self, raw: &BTreeMap<String, String>, at: &Path) -> Vec<(HeaderName, HeaderValue)> {
        let mut lines = Vec::new();
        for (name, value) in raw {
            let at = at.key(name);
            let (name, value) = (self.free_header(name, &at), self.header_value(value, &at));
            lines.extend(name.zip(value));
        }
        lines
    }

    fn free_header(&mut self, text: &str, at: &Path) -> Option<HeaderName> {
        let name = self.header_name(text, at)?;
        if FRAMING.contains(&name.as_str()) {
            self.refuse_place(
                at,
                format!("{text} frames the message and is written by Flagstone alone"),
                "take it out",
            );
            return None;
        }
        Some(name)
    }

    fn route_timeouts(&mut self, raw: &raw::RouteTimeouts, general: &Timeouts, at: &Path) -> Timeouts {
        let of_connections =
            [("tls_handshake", &raw.tls_handshake), ("request_head", &raw.request_head), ("idle", &raw.idle)];
        for (key, _) in of_connections.into_iter().filter(|(_, raw)| raw.is_some()) {
            let what = "has no effect in a route: it counts while there is no request yet";
            self.warn(&at.key(key), what, "set it in [timeouts]");
        }
        let mut own = |raw: &Option<raw::Duration>, key: &str, general| match raw {
            Some(raw) => self.duration_above_zero(raw, &at.key(key)),
            None => general,
        };
        Timeouts {
            tls_handshake: own(&raw.tls_handshake, "tls_handshake", general.tls_handshake),
            request_head: own(&raw.request_head, "request_head", general.request_head),
            request_body: own(&raw.request_body, "request_body", general.request_body),
            idle: own(&raw.idle, "idle", general.idle),
            connect: own(&raw.connect, "connect", general.connect),
            response_head: own(&raw.response_head, "response_head", general.response_head),
            response_body: own(&raw.response_body, "response_body", general.response_body),
            stream_idle: own(&raw.stream_idle, "stream_idle", general.stream_idle),
        }
    }
}

/// Whether a request that matches `path` could begin with `prefix`.
fn may_begin_with(path: &str, prefix: &str) -> bool {
    let below = |whole: &str, start: &str| {
        // What may be escaped and what is are the same to requests.
        let [whole, start] =
            [whole, start.trim_end_matches('/')].map(|text| percent_decode_str(text).collect::<Vec<_>>());
        whole.strip_prefix(&*start).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    match path.strip_prefix('=') {
        Some(exact) => below(exact, prefix),
        None => below(path, prefix) || below(prefix, path),
    }
}
