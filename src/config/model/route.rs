//! `[[route]]` and `[[test]]`.

use std::net::IpAddr;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use ipnet::IpNet;

use super::Timeouts;

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique.
    pub name: String,
    /// Lower-case names, `*.`-wildcards included; empty = any.
    pub hosts: Vec<String>,
    /// As written: `/api` or `=/exact`. At least one.
    pub paths: Vec<String>,
    /// Empty = any.
    pub methods: Vec<Method>,
    pub action: Action,
    /// Removed before forwarding; starts with `/`, has no trailing slash.
    pub strip_prefix: Option<String>,
    pub preserve_host: bool,
    /// Names of [`super::Config::limits`].
    pub limits: Vec<String>,
    /// Key of [`super::Config::features`].
    pub feature: Option<String>,
    pub maintenance_exempt: bool,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// The file's `[timeouts]` with this route's own laid over.
    pub timeouts: Timeouts,
    /// `None` = no bound.
    pub body_bytes_max: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Name of one of [`super::Config::upstreams`].
    Upstream(String),
    Files(Files),
    Redirect(Redirect),
    Respond(Respond),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    pub root: PathBuf,
    pub index: String,
    /// Empty = `["$uri"]` with the index for folders.
    pub try_paths: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// May contain `$uri` (path and query), `$path`, `$query`, `$host` and `$scheme`.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    pub status: StatusCode,
    pub body: String,
    pub content_type: HeaderValue,
}

/// Applied in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// One `[[test]]`: a request and where it must go.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTest {
    pub name: String,
    pub method: Method,
    pub url: Uri,
    pub ip: IpAddr,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub expect: Expect,
}

/// `None` = not looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    pub route: Option<String>,
    pub upstream: Option<String>,
    pub status: Option<StatusCode>,
    pub limits: Option<Vec<String>>,
}
