//! `[[route]]` and `[[test]]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, Size, words};

/// One route: which requests, and what happens to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub(in super::super) struct Route {
    /// Required and unique.
    #[schemars(required, length(min = 1))]
    pub(in super::super) name: String,
    /// "example.com", "*.example.com"; empty = any.
    pub(in super::super) host: Vec<String>,
    /// "/api" = that path and what is below it; "=/exact".
    #[schemars(length(min = 1))]
    pub(in super::super) path: Vec<String>,
    /// Empty = any.
    pub(in super::super) method: Vec<String>,
    /// Forward to this upstream. Exactly one of upstream, files, redirect, respond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) upstream: Option<String>,
    /// Serve files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) files: Option<Files>,
    /// Redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) redirect: Option<Redirect>,
    /// Answer with fixed text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) respond: Option<Respond>,
    /// Removed from the path before forwarding.
    pub(in super::super) strip_prefix: String,
    /// false: Host becomes the endpoint's.
    pub(in super::super) preserve_host: bool,
    /// Names of [limit.*], all must pass.
    pub(in super::super) limits: Vec<String>,
    /// Key of [features]; false = this route answers as in maintenance.
    pub(in super::super) feature: String,
    /// Whether this route goes into maintenance with the rest.
    pub(in super::super) maintenance: RouteMaintenance,
    /// CIDRs; non-empty = everyone else gets 403.
    pub(in super::super) allow: Vec<String>,
    /// CIDRs that get 403.
    pub(in super::super) deny: Vec<String>,
    /// Changes to the request's headers.
    pub(in super::super) request_headers: HeaderEdits,
    /// Changes to the answer's headers.
    pub(in super::super) response_headers: HeaderEdits,
    /// Laid over [timeouts].
    pub(in super::super) timeouts: RouteTimeouts,
    /// Instead of bounds.max_body; 0 = no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) max_body: Option<Size>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: String::new(),
            host: Vec::new(),
            path: words(&["/"]),
            method: Vec::new(),
            upstream: None,
            files: None,
            redirect: None,
            respond: None,
            strip_prefix: String::new(),
            preserve_host: true,
            limits: Vec::new(),
            feature: String::new(),
            maintenance: RouteMaintenance::Follow,
            allow: Vec::new(),
            deny: Vec::new(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeouts: RouteTimeouts::default(),
            max_body: None,
        }
    }
}

/// Whether a route goes into maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RouteMaintenance {
    Follow,
    Exempt,
}

/// Serve files of a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["root"]))]
pub(in super::super) struct Files {
    /// The folder.
    #[schemars(required, length(min = 1))]
    pub(in super::super) root: String,
    /// The file that stands for a folder.
    pub(in super::super) index: String,
    /// Tried in turn: "$uri", "$uri/", "/index.html"; empty = the path, then the index.
    pub(in super::super) r#try: Vec<String>,
}

impl Default for Files {
    fn default() -> Self {
        Self { root: String::new(), index: "index.html".into(), r#try: Vec::new() }
    }
}

/// Answer with a redirect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["to"]))]
pub(in super::super) struct Redirect {
    /// Where to; may contain $uri (path and query), $path, $query, $host and $scheme.
    #[schemars(required, length(min = 1))]
    pub(in super::super) to: String,
    /// 301, 302, 303, 307 or 308.
    #[schemars(range(min = 301, max = 308), extend("enum" = [301, 302, 303, 307, 308]))]
    pub(in super::super) status: u16,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { to: String::new(), status: 308 }
    }
}

/// Answer with fixed text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Respond {
    /// The status.
    #[schemars(range(min = 200, max = 599))]
    pub(in super::super) status: u16,
    /// The text.
    pub(in super::super) body: String,
    /// Its media type.
    pub(in super::super) content_type: String,
}

impl Default for Respond {
    fn default() -> Self {
        Self { status: 200, body: String::new(), content_type: "text/plain".into() }
    }
}

/// Changes to headers, in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct HeaderEdits {
    /// Replaces what is there.
    pub(in super::super) set: BTreeMap<String, String>,
    /// Adds a line.
    pub(in super::super) add: BTreeMap<String, String>,
    /// Names to take out.
    pub(in super::super) remove: Vec<String>,
}

/// This route's own timeouts; what is absent is taken from [timeouts].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RouteTimeouts {
    /// As in [timeouts]; used before a route is known, so without effect here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) tls_handshake: Option<Duration>,
    /// As in [timeouts]; used before a route is known, so without effect here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) request_head: Option<Duration>,
    /// Between two reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) request_body: Option<Duration>,
    /// As in [timeouts]; used between requests, so without effect here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) idle: Option<Duration>,
    /// To connect to an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) connect: Option<Duration>,
    /// From the request sent to the answer's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) response_head: Option<Duration>,
    /// Between two reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) response_body: Option<Duration>,
    /// Upgraded connections (WebSocket) without a byte either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) stream_idle: Option<Duration>,
}

/// A request and where it must go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "request"]))]
pub(in super::super) struct Test {
    /// What the test says.
    #[schemars(required, length(min = 1))]
    pub(in super::super) name: String,
    /// The request.
    #[schemars(required)]
    pub(in super::super) request: TestRequest,
    /// Where it must go; what is absent is not looked at.
    #[schemars(required)]
    pub(in super::super) expect: Expect,
}

/// A request to try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub(in super::super) struct TestRequest {
    /// Its method.
    pub(in super::super) method: String,
    /// Its whole URL.
    #[schemars(required, length(min = 1))]
    pub(in super::super) url: String,
    /// The client's address.
    pub(in super::super) ip: String,
    /// Its headers.
    pub(in super::super) headers: BTreeMap<String, String>,
}

impl Default for TestRequest {
    fn default() -> Self {
        Self { method: "GET".into(), url: String::new(), ip: "127.0.0.1".into(), headers: BTreeMap::new() }
    }
}

/// Where a request must go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Expect {
    /// The route's name; empty = not looked at.
    pub(in super::super) route: String,
    /// The upstream's name; empty = not looked at.
    pub(in super::super) upstream: String,
    /// The status of an answer made here; 0 = not looked at.
    #[schemars(range(max = 599))]
    pub(in super::super) status: u16,
    /// The limits it meets; absent = not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) limits: Option<Vec<String>>,
}
