//! What a request would meet, without sending it: the answer of `flagstone explain` and the judge of every `[[test]]`.
//!
//! The request is written out and judged like one from a socket, then goes through [`crate::proxy::decide`], as every
//! request does. Nothing is counted, charged or connected to. What cannot be known without doing it is not claimed:
//! whether a limit is used up, what the app would answer.
//!
//! May import snapshot, the request path's decisions and the pure rooms.

pub(crate) mod route_tests;
mod stages;

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use serde_json::{Value, json};

use crate::listener::head;
use crate::message::forwarded;
use crate::message::negotiate::Kind;
use crate::proxy::decide::{self, Asked, Switches, Verdict, decide};
use crate::proxy::refusal::Refusal;
use crate::proxy::respond;
use crate::snapshot::{Action, Route, Snapshot};

/// A request that nobody sends.
#[derive(Clone, Debug)]
pub(crate) struct Hypothetical {
    pub(crate) method: Method,
    /// With scheme and host.
    pub(crate) url: Uri,
    /// Where the connection comes from.
    pub(crate) ip: IpAddr,
    pub(crate) headers: HeaderMap,
}

/// What is known of the moment for which it is asked.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) switches: Switches<'a>,
    /// The state of each upstream's breaker, as a running process tells it (`OPEN`); `None` = nobody tells.
    pub(crate) breakers: Option<&'a BTreeMap<String, String>>,
}

impl Moment<'_> {
    /// As the configuration alone has it: no maintenance, nobody blocked, features at their defaults, breakers closed.
    pub(crate) const UNDISTURBED: Moment<'static> =
        Moment { switches: Switches { maintenance: None, blocked: None, features_are_set: false }, breakers: None };
}

/// What the request would meet.
#[derive(Clone, Debug)]
pub(crate) struct Explanation {
    request: String,
    pub(crate) listener: Option<String>,
    pub(crate) client_ip: IpAddr,
    host: String,
    path: String,
    pub(crate) route: Option<String>,
    /// Answers made here are those of gRPC.
    is_of_grpc: bool,
    /// In order, up to the one that answers.
    stages: Vec<Stage>,
    pub(crate) outcome: Outcome,
}

/// One thing that is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    name: &'static str,
    says: String,
}

/// Where it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Of an answer that is made here; `None` = the app's answer.
    pub(crate) status: Option<StatusCode>,
    /// `Flagstone-Reason`.
    reason: Option<&'static str>,
    pub(crate) upstream: Option<String>,
    /// Names of the limits that it is charged to.
    pub(crate) limits: Vec<String>,
    pub(crate) says: String,
}

/// What happens to a request in one generation at one moment.
pub(crate) fn explain(wanted: &Hypothetical, snapshot: &Snapshot, moment: Moment<'_>) -> Explanation {
    let mut request = wanted.to_request();
    let client = snapshot.trusted.resolve(wanted.ip, request.headers(), snapshot.client_ip_header);
    let listener = stages::listener(wanted, snapshot);
    let mut explained = Explanation {
        request: format!("{} {} from {}", wanted.method, wanted.url, wanted.ip),
        listener: listener.map(|listener| listener.name.clone()),
        client_ip: client.ip,
        host: String::new(),
        path: String::new(),
        route: None,
        is_of_grpc: false,
        stages: vec![stages::listener_stage(wanted, listener), stages::client_stage(wanted, &client, snapshot)],
        outcome: Outcome::default(),
    };
    let place = judge(&request, snapshot).and_then(|()| {
        // What is no request is answered with text, whatever it would be one of.
        explained.is_of_grpc = respond::kind_for(request.headers()) == Kind::Grpc;
        decide::place(&request, None)
    });
    let (host, path) = match place {
        Ok((host, path)) => (host.name().to_owned(), path.into_owned()),
        Err(refusal) => {
            explained.answered(&refusal);
            return explained;
        }
    };
    (explained.host, explained.path) = (host.clone(), path.clone());
    if listener.is_some_and(stages::asks_for_certificate) {
        // There is no handshake that shows one, and claims do not count.
        forwarded::set_client_certificate(request.headers_mut(), None, None);
    }
    let asked = Asked {
        listener: listener.map(|listener| listener.name.as_str()).unwrap_or_default(),
        // Where no listener speaks TLS, what stands in front does, and says so.
        is_tls: wanted.is_https(),
        peer_is_trusted: client.peer_trusted,
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
        host: &host,
        path: &path,
        client_ip: client.ip,
        is_bypassed: snapshot.maintenance.bypass.as_ref().is_some_and(|bypass| bypass.admits(request.headers())),
    };
    explained.follow(&asked, snapshot, moment);
    explained
}

/// Whether a listener would let such a head through.
fn judge(request: &Request<()>, snapshot: &Snapshot) -> Result<(), Refusal> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let read = head::read(&bytes.into(), &snapshot.head_bounds(), &mut HeaderMap::new());
    read.map(drop).map_err(Refusal::of_head)
}

impl Hypothetical {
    fn is_https(&self) -> bool {
        self.url.scheme() == Some(&Scheme::HTTPS)
    }

    /// As a client of HTTP/1.1 writes it.
    fn to_request(&self) -> Request<()> {
        let target = self.url.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::try_from(target).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        if let Some(authority) = self.url.authority().filter(|_| !self.headers.contains_key(HOST)) {
            let name = authority.as_str().rsplit('@').next().unwrap_or_default();
            request.headers_mut().extend(HeaderValue::from_str(name).map(|name| (HOST, name)));
        }
        request
    }
}

impl Explanation {
    /// Goes through the stages and notes what each says.
    fn follow(&mut self, asked: &Asked<'_>, snapshot: &Snapshot, moment: Moment<'_>) {
        let decision = decide(asked, snapshot, moment.switches);
        let (route, verdict) = (decision.route.map(|route| &**route), decision.verdict);
        self.route = route.map(|route| route.name.to_string());
        if !matches!(verdict, Verdict::ToHttps(_) | Verdict::NoHost) {
            self.stages.push(stages::route(asked, route, &verdict, snapshot));
        }
        let later = [
            stages::feature(route, &verdict, snapshot),
            stages::maintenance(asked, route, &verdict, snapshot, moment),
            stages::access(asked, route, &verdict, moment),
        ];
        self.stages.extend(later.into_iter().flatten());
        match verdict {
            Verdict::Pass(route) => self.enter(asked, route, snapshot, moment),
            Verdict::ToHttps(location) => {
                self.redirected(StatusCode::PERMANENT_REDIRECT, &location);
                self.outcome.says += ": the listener sends plain requests on to https";
            }
            Verdict::Enter(entrance) => {
                self.outcome.status = Some(entrance.status());
                self.outcome.says = "redirected to the same URL without the token, with a cookie for it".to_owned();
            }
            Verdict::PageAsset(_) => self.given_part_of_page("maintenance"),
            verdict => {
                let refusal = verdict.refusal(snapshot).expect("all others are refusals");
                match respond::has_in_place_of(&refusal, asked, snapshot) {
                    true => self.given_part_of_page(refusal.row().reason),
                    false => self.answered(&refusal),
                }
            }
        }
    }

    /// Limits, breaker, and what the route does.
    fn enter(&mut self, asked: &Asked<'_>, route: &Route, snapshot: &Snapshot, moment: Moment<'_>) {
        let limits = decide::limits_met(route, asked.client_ip);
        self.outcome.limits = limits.map(|limit| limit.name.clone()).collect();
        self.stages.extend(stages::limits(asked, route, snapshot));
        match &route.action {
            Action::Upstream(target) => {
                let is_open = |name: &str| {
                    let state = moment.breakers.and_then(|states| states.get(name));
                    state.is_some_and(|state| state == "OPEN")
                };
                // When it will close is not known here.
                let ask = |group: &crate::upstream::group::Group| {
                    let breaker = &group.settings.breaker;
                    if is_open(&group.name) && !breaker.shadow { Err(breaker.open) } else { Ok(()) }
                };
                let chosen = decide::upstream(target, ask);
                let group = chosen.map_or(&target.group, |(group, ())| group);
                self.stages.push(stages::breaker(target, group, moment));
                if let Err(retry_after) = chosen {
                    return self.answered(&Refusal::CircuitOpen { retry_after });
                }
                self.stages.push(stages::upstream(group));
                self.outcome.upstream = Some(group.name.to_string());
                if let Err(refusal) = decide::announced_body(asked.headers, route) {
                    return self.answered(&refusal);
                }
                let sent = crate::proxy::forward::target(asked.uri, asked.path, route.strip_prefix.as_deref());
                let sent = sent.as_ref().unwrap_or(asked.uri);
                self.outcome.says = format!("forwarded to upstream {} as {} {sent}", group.name, asked.method);
            }
            Action::Files(folder) => match folder.foresee(asked.method, asked.path, route.strip_prefix.as_deref()) {
                Ok(found) => {
                    self.outcome.status = Some(found.status());
                    self.outcome.says = match found.file() {
                        Some(file) => format!("answered with the file {}", file.display()),
                        None => "redirected to the folder's name with a slash".to_owned(),
                    };
                }
                Err(refusal) => {
                    self.answered(&refusal);
                    self.outcome.says += &format!(" (looked for in {})", folder.root().display());
                }
            },
            Action::Redirect(redirect) => match respond::location(redirect, asked, snapshot) {
                Ok(location) => self.redirected(redirect.status, &location),
                Err(refusal) => self.answered(&refusal),
            },
            Action::Respond(answer) => {
                self.outcome.status = Some(answer.status);
                self.outcome.says = "answered with the route's own text".to_owned();
            }
        }
    }

    fn redirected(&mut self, status: StatusCode, location: &str) {
        self.outcome.status = Some(status);
        self.outcome.says = format!("redirected to {location}");
    }

    fn given_part_of_page(&mut self, reason: &'static str) {
        self.outcome.status = Some(StatusCode::OK);
        self.outcome.reason = Some(reason);
        self.outcome.says = "answered with a part of the maintenance page".to_owned();
    }

    fn answered(&mut self, refusal: &Refusal) {
        let row = refusal.row();
        self.outcome.status = Some(row.status);
        self.outcome.reason = Some(row.reason);
        self.outcome.says = format!("answered here: {}", row.detail);
        if self.is_of_grpc {
            // Its client reads what became of it behind that.
            self.outcome.status = Some(StatusCode::OK);
            self.outcome.says += &format!(" (grpc-status {})", refusal.grpc_status());
        }
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{}\n\n", self.request);
        for Stage { name, says } in &self.stages {
            text += &format!("  {name:<12} {says}\n");
        }
        let status = self.outcome.status.map(|status| format!("{} ", status.as_u16())).unwrap_or_default();
        let reason = self.outcome.reason.map(|reason| format!("{reason}, ")).unwrap_or_default();
        text + &format!("\n=> {status}{reason}{}\n", self.outcome.says)
    }

    pub(crate) fn to_json(&self) -> Value {
        let Outcome { status, reason, upstream, limits, says } = &self.outcome;
        let stages = self.stages.iter().map(|stage| json!({ "stage": stage.name, "says": stage.says }));
        json!({
            "request": self.request,
            "listener": self.listener,
            "clientIp": self.client_ip,
            "host": self.host,
            "path": self.path,
            "route": self.route,
            "upstream": upstream,
            "limits": limits,
            "status": status.map(|status| status.as_u16()),
            "reason": reason,
            "outcome": says,
            "stages": stages.collect::<Vec<_>>(),
        })
    }
}
