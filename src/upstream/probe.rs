//! `[probe.NAME]`: further things that `/api/health` reports on. They carry no requests.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Once, Weak};
use std::time::{Duration, Instant};

use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use super::check::{self, Failed};
use super::connect::{Connector, connect_unix, first_of, share};
use super::endpoint::Aborting;
use super::resolve::Resolver;
use super::tls::Originator;
use crate::breaker::Pauses;
use crate::config::model::{self, Address, ProbeKind};
use crate::message::host::without_brackets;

/// One `[probe.NAME]`, alive. Each check decides at once.
pub(crate) struct Probe {
    pub(crate) settings: model::Probe,
    resolver: Resolver,
    pauses: Arc<Pauses>,
    last: Mutex<Option<Result<Duration, String>>>,
    started: Once,
    task: Mutex<Option<Aborting>>,
}

impl Probe {
    /// Nothing is checked before [`Probe::start`].
    pub(crate) fn new(settings: &model::Probe, resolver: &Resolver, pauses: Arc<Pauses>) -> Self {
        Self {
            settings: settings.clone(),
            resolver: resolver.clone(),
            pauses,
            last: Mutex::default(),
            started: Once::new(),
            task: Mutex::default(),
        }
    }

    /// Begins to check, on `runtime`. Once; later calls do nothing.
    pub(crate) fn start(self: &Arc<Self>, runtime: &Handle) {
        self.started.call_once(|| {
            let task = runtime.spawn(run(Arc::downgrade(self))).abort_handle();
            *self.task.lock() = Some(Aborting(task));
        });
    }

    /// Ends its checks, or keeps them from beginning: no configuration has it any more.
    pub(crate) fn retire(&self) {
        self.started.call_once(|| {});
        *self.task.lock() = None;
    }

    /// How long the last check took, or why it failed; `None` before the first is through.
    pub(crate) fn last(&self) -> Option<Result<Duration, String>> {
        self.last.lock().clone()
    }

    async fn check(&self) -> Result<(), Failed> {
        match &self.settings.kind {
            ProbeKind::Tcp(Address::Unix(path)) => Ok(connect_unix(path).await.map(drop)?),
            ProbeKind::Tcp(Address::Socket(address)) => self.tcp(&[*address]).await,
            ProbeKind::Tcp(Address::Name { host, port }) => self.tcp(&self.addresses(host, *port).await?).await,
            ProbeKind::Http(url) => self.http(url).await,
            ProbeKind::Redis(url) => self.redis(&url.0).await,
        }
    }

    async fn tcp(&self, addresses: &[SocketAddr]) -> Result<(), Failed> {
        Ok(first_of(addresses, self.settings.timeout).await.map(drop)?)
    }

    /// 2xx and 3xx pass.
    async fn http(&self, url: &str) -> Result<(), Failed> {
        let uri: Uri = url.parse().map_err(|_| "not a URL".to_owned())?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().map(without_brackets).ok_or("the URL has no host")?;
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = self.addresses(host, port).await?;
        let tls = if is_tls { Some(client_tls(host)?) } else { None };
        let host = uri.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        let host = HeaderValue::from_str(host.unwrap_or_default()).map_err(|error| error.to_string())?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let limit = share(self.settings.timeout, addresses.len());
        let mut last = Failed::from("the name has no address");
        for address in addresses {
            let connector = Connector::new(Address::Socket(address), tls.clone(), false);
            match check::http(&connector, &host, target, limit).await {
                Ok(status) if status.is_success() || status.is_redirection() => return Ok(()),
                Ok(status) => return Err(format!("answered {}", status.as_u16()).into()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn redis(&self, url: &str) -> Result<(), Failed> {
        let uri: Uri = url.parse().map_err(|_| "not a URL".to_owned())?;
        let host = uri.host().map(without_brackets).ok_or("the URL has no host")?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let user_info = authority.rsplit_once('@').map_or("", |(user_info, _)| user_info);
        let (user, password) = user_info.split_once(':').unwrap_or(("", user_info));
        let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decoded(user), decoded(password));
        let addresses = self.addresses(host, uri.port_u16().unwrap_or(6379)).await?;
        let stream = first_of(&addresses, self.settings.timeout).await?;
        if uri.scheme_str() == Some("rediss") {
            let (tls, name) = client_tls(host)?;
            let stream = TlsConnector::from(tls.config()).connect(name, stream).await;
            return Ok(check::redis_ping(stream.map_err(|error| format!("no TLS: {error}"))?, &user, &password).await?);
        }
        Ok(check::redis_ping(stream, &user, &password).await?)
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        self.resolver.resolve(host, port).await.map_err(|error| format!("{host}: {error}"))
    }
}

type ClientTls = (Arc<Originator>, ServerName<'static>);

fn client_tls(host: &str) -> Result<ClientTls, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    Ok((Arc::new(Originator::of_the_web().map_err(|error| error.to_string())?), name))
}

async fn run(probe: Weak<Probe>) {
    loop {
        let Some(checked) = probe.upgrade() else { return };
        let (began, limit) = (Instant::now(), checked.settings.timeout);
        let result = tokio::time::timeout(limit, checked.check()).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {limit:?}").into()));
        // That the process stood still, or could not even ask, is no fault of what is probed.
        if result.is_ok() || !(checked.pauses.spoil(began, Instant::now()) || check::for_shortage(&result)) {
            let result = result.map(|()| began.elapsed()).map_err(|failed| failed.why);
            *checked.last.lock() = Some(result);
        }
        let interval = check::jittered(checked.settings.interval);
        drop(checked);
        tokio::time::sleep(interval).await;
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("settings", &self.settings).finish_non_exhaustive()
    }
}
