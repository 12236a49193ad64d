//! Client certificates: who is told of them, and that nobody gets round them.

use std::sync::{Arc, Mutex};

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::{ClientConfig, NamedGroup};
use rustls_pki_types::ServerName;

use crate::support::certs::{Ca, Leaf};
use crate::support::client::{Client, RawResponse};
use crate::support::files::Folder;
use crate::support::h2::Http2;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone};
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

const HTTP1: &[&[u8]] = &[b"http/1.1"];
const SUBJECT: &str = "x-client-cert-subject";

fn listener(name: &str, auth: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
         certificates = [{{ cert = \"site.pem\", key = \"site.key\" }}]\n{auth}\n"
    )
}

fn auth(mode: &str) -> String {
    format!("client_auth = {{ ca = \"clients.pem\", mode = \"{mode}\" }}")
}

/// A site of two names with its CA, a CA for clients, and a folder with all of it.
struct Site {
    ca: Ca,
    clients: Ca,
    folder: Folder,
}

impl Site {
    fn new() -> Self {
        let site = Self { ca: Ca::new(), clients: Ca::new(), folder: Folder::new() };
        site.ca.leaf(&["a.example", "b.example"]).write(&site.folder, "site");
        site.folder.write("clients.pem", site.clients.pem());
        site
    }

    fn own(&self, names: &[&str]) -> Leaf {
        self.clients.leaf(names)
    }
}

async fn get(client: &mut Client, host: &str, headers: &str) -> std::io::Result<RawResponse> {
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).await?;
    client.read_response().await
}

const FORGED: &str = "X-Client-Cert-Subject: CN=admin\r\nx-client-cert-subject: CN=root\r\nClient-Cert: :AAAA:\r\n\
                      Client-Cert-Chain: :AAAA:\r\nX_Client_Cert_Subject: CN=under\r\n";

#[tokio::test]
async fn the_app_is_told_whose_certificate_it_was_and_nobody_can_claim_one() {
    let site = Site::new();
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    // One worker: its requests are all on one connection, and so recorded in their order.
    let toml = format!(
        "[server]\nstate_dir = \"state\"\nworkers = 1\n[client_ip]\ntrusted_proxies = [\"127.0.0.2\"]\n{}{}{}",
        listener("require", &auth("require")),
        listener("optional", &auth("optional")),
        listener("none", "") + "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n",
    );
    let own = site.own(&["me"]);
    let with_own = site.ca.client_config_with(HTTP1, &own);
    let without = site.ca.client_config(HTTP1);
    let proxy = TestProxy::before(&upstream, &toml, "").in_folder(site.folder).start().await;
    let mut seen = 0;
    let mut told = async |client: &mut Client| {
        assert_eq!(get(client, "a.example", FORGED).await.unwrap().status, 200);
        let head = upstream.requests().swap_remove(seen).head;
        seen += 1;
        let raw = upstream.raw().concat();
        assert!(
            !["CN=admin", "CN=root", "CN=under", "AAAA"].iter().any(|claim| memchr::memmem::find(
                &raw,
                claim.as_bytes()
            )
            .is_some())
        );
        (head.header(SUBJECT).map(str::to_owned), head.header("client-cert").map(str::to_owned))
    };
    let whole = {
        use base64::Engine as _;
        format!(":{}:", base64::engine::general_purpose::STANDARD.encode(own.der()))
    };
    for (listener, config, expected) in [
        ("require", &with_own, true),
        ("optional", &with_own, true),
        ("optional", &without, false),
        ("none", &with_own, false),
    ] {
        let address = proxy.listener(listener);
        let mut client = Client::connect_tls(address, "a.example", Arc::clone(config)).await.unwrap();
        let expected = if expected { (Some("CN=me".to_owned()), Some(whole.clone())) } else { (None, None) };
        assert_eq!(told(&mut client).await, expected, "{listener}");
    }
    let mut plain = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(told(&mut plain).await, (None, None));
}

#[tokio::test]
async fn a_subject_cannot_pass_for_another() {
    let site = Site::new();
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let config = site.ca.client_config_with(HTTP1, &site.own(&["me,O=Admin"]));
    let proxy = TestProxy::before(&upstream, &listener("web", &auth("require")), "").in_folder(site.folder);
    let proxy = proxy.start().await;
    let mut client = Client::connect_tls(proxy.address(), "a.example", config).await.unwrap();
    assert_eq!(get(&mut client, "a.example", "").await.unwrap().status, 200);
    assert_eq!(upstream.requests()[0].head.header(SUBJECT), Some("CN=me\\,O\\=Admin"));
}

#[tokio::test]
async fn a_trusted_proxy_may_tell_of_a_certificate_where_none_is_asked_for_here() {
    let site = Site::new();
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let toml = format!(
        "[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n{}[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n",
        listener("optional", &auth("optional"))
    );
    let config = site.ca.client_config(HTTP1);
    let proxy = TestProxy::before(&upstream, &toml, "").in_folder(site.folder).start().await;
    let claim = "X-Client-Cert-Subject: CN=far\r\n";
    let mut plain = Client::connect(proxy.address()).await.unwrap();
    get(&mut plain, "a.example", claim).await.unwrap();
    let mut tls = Client::connect_tls(proxy.listener("optional"), "a.example", config).await.unwrap();
    get(&mut tls, "a.example", claim).await.unwrap();
    let told: Vec<_> = upstream.requests().iter().map(|it| it.head.header(SUBJECT).map(str::to_owned)).collect();
    assert_eq!(told, [Some("CN=far".to_owned()), None]);
}

#[tokio::test]
async fn a_limit_counts_by_the_certificate_that_was_shown_and_not_by_one_that_is_claimed() {
    let site = Site::new();
    let (me, you) = (site.own(&["me"]), site.own(&["you"]));
    let shown = |leaf: &Leaf| site.ca.client_config_with(HTTP1, leaf);
    let (me, you, nobody) = (shown(&me), shown(&you), site.ca.client_config(HTTP1));
    let toml = listener("web", &auth("optional"))
        + "[[route]]\nname = \"all\"\nlimits = [\"per_client\"]\nrespond = { body = \"ok\" }\n\
           [limit.per_client]\nkey = \"header:X-Client-Cert-Subject\"\nrate = \"1/1h\"\n";
    let proxy = TestProxy::toml(toml).in_folder(site.folder).start().await;
    let mut seen = Vec::new();
    for config in [me, you, nobody] {
        for claim in ["X-Client-Cert-Subject: CN=one\r\n", "X-Client-Cert-Subject: CN=two\r\n", ""] {
            let client = Client::connect_tls(proxy.address(), "a.example", Arc::clone(&config)).await;
            seen.push(get(&mut client.unwrap(), "a.example", claim).await.unwrap().status);
        }
    }
    assert_eq!(seen, [200, 429, 429].repeat(3));
    let file = proxy.folder.join("flagstone.toml").display().to_string();
    let claim = "X-Client-Cert-Subject: CN=one";
    let explained = Flagstone::run(["explain", "-c", &file, "https://a.example/", "--header", claim]).await;
    let counts = "counts by header:x-client-cert-subject = 127.0.0.1\n";
    assert!(explained.stdout.contains(counts), "{}{}", explained.stdout, explained.stderr);
}

#[tokio::test]
async fn a_connection_made_for_one_name_is_not_used_for_another_where_certificates_are_asked_for() {
    let site = Site::new();
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let toml = listener("optional", &auth("optional")) + &listener("none", "");
    let config = site.ca.client_config_with(HTTP1, &site.own(&["me"]));
    let proxy = TestProxy::before(&upstream, &toml, "").in_folder(site.folder).start().await;
    let connect = |listener| Client::connect_tls(proxy.listener(listener), "a.example", Arc::clone(&config));
    let mut client = connect("optional").await.unwrap();
    let refused = get(&mut client, "b.example", "").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (421, Some("bad_request")));
    assert_eq!(upstream.requests().len(), 0);
    for host in ["A.Example", "a.example:8443", "a.example."] {
        assert_eq!(get(&mut client, host, "").await.unwrap().status, 200, "{host}");
    }
    let mut client = connect("none").await.unwrap();
    assert_eq!(get(&mut client, "b.example", "").await.unwrap().status, 200);
}

#[tokio::test]
async fn who_was_let_in_otherwise_than_clients_are_now_has_to_come_again() {
    let site = Site::new();
    let route = "[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n";
    let plain = "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n";
    let with_own = site.ca.client_config_with(HTTP1, &site.own(&["me"]));
    let others = Ca::new();
    let toml = format!("{}{plain}{route}", listener("web", ""));
    let proxy = TestProxy::toml(toml).in_folder(site.folder).start().await;
    let connect = || async { Client::connect_tls(proxy.address(), "a.example", Arc::clone(&with_own)).await.unwrap() };
    let mut kept = connect().await;
    let mut http2 = Http2::connect(proxy.listener("plain")).await;
    assert_eq!(get(&mut kept, "a.example", "").await.unwrap().status, 200);
    assert_eq!(http2.get("/").await.unwrap().status(), 200);

    let asking = format!("{}{}{route}", listener("web", &auth("require")), listener("plain", &auth("optional")));
    proxy.reload_with(&asking).await;
    let refused = get(&mut kept, "a.example", "").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (421, Some("bad_request")));
    assert_eq!(refused.header("connection"), Some("close"));
    kept.expect_closed().await.unwrap();
    assert_eq!(http2.get("/").await.unwrap().status(), 421);
    assert!(eventually(DEADLINE, || http2.is_closed()).await);

    // A reload that leaves this as it is ends nothing, nor does one that asks no longer.
    let mut kept = connect().await;
    assert_eq!(get(&mut kept, "a.example", "").await.unwrap().status, 200);
    proxy.reload_with(&format!("{asking}[features]\n\"a\" = true\n")).await;
    assert_eq!(get(&mut kept, "a.example", "").await.unwrap().status, 200);
    proxy.reload_with(&format!("{}{plain}{route}", listener("web", ""))).await;
    assert_eq!(get(&mut kept, "a.example", "").await.unwrap().status, 200);
    proxy.reload_with(&asking).await;
    assert_eq!(get(&mut kept, "a.example", "").await.unwrap().status, 200, "it was let in by just that");

    // Other authorities, without a reload.
    proxy.folder.write("clients.pem", others.pem());
    let is_sent_away = async || get(&mut kept, "a.example", "").await.unwrap().status == 421;
    assert!(eventually_async(DEADLINE, is_sent_away).await);
}

#[tokio::test]
async fn a_listener_that_is_gone_lets_in_no_more_than_before() {
    let site = Site::new();
    let rest = "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nrespond = {}\n";
    let with_own = site.ca.client_config_with(HTTP1, &site.own(&["me"]));
    let toml = format!("{}{rest}", listener("web", &auth("require")));
    let proxy = TestProxy::toml(toml).in_folder(site.folder).start().await;
    let visit = async || {
        let mut client = Client::connect_tls(proxy.address(), "a.example", Arc::clone(&with_own)).await?;
        get(&mut client, "a.example", "").await.map(|answer| (client, answer.status))
    };
    let (mut kept, status) = visit().await.unwrap();
    assert_eq!(status, 200);
    proxy.folder.write("clients.pem", Ca::new().pem());
    assert!(eventually_async(DEADLINE, async || visit().await.is_err()).await);
    proxy.reload_with(rest).await;
    assert_eq!(get(&mut kept, "a.example", "").await.unwrap().status, 421);
}

/// Offers its one session to whatever server it is, as an attacker would.
#[derive(Debug, Default)]
struct Anywhere {
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    tls13: Mutex<Vec<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for Anywhere {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        *self.tls12.lock().unwrap() = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.tls12.lock().unwrap().clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tls13.lock().unwrap().push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tls13.lock().unwrap().pop()
    }
}

fn replaying(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.resumption = Resumption::store(Arc::new(Anywhere::default()));
    Arc::new(config)
}

/// CVE-2025-23419 of nginx: a session from where nobody asks for a certificate, taken to where one is asked for.
#[tokio::test]
async fn a_ticket_resumes_at_its_own_name_and_listener_only() {
    let site = Site::new();
    let toml = listener("none", "")
        + &listener("require", &auth("require"))
        + "[[route]]\nname = \"hello\"\nrespond = { body = \"hello\" }\n";
    let plain = site.ca.client_config(HTTP1);
    let own = site.ca.client_config_with(HTTP1, &site.own(&["me"]));
    let proxy = TestProxy::toml(toml).in_folder(site.folder).start().await;
    let visit = async |config: &Arc<ClientConfig>, listener: &str, name: &str| {
        let mut client = Client::connect_tls(proxy.listener(listener), name, Arc::clone(config)).await?;
        let resumed = client.socket().is_resumed();
        get(&mut client, name, "").await.map(|response| (response.status, resumed))
    };
    let config = replaying(&plain);
    assert_eq!(visit(&config, "none", "a.example").await.unwrap(), (200, Some(false)));
    assert_eq!(visit(&config, "none", "a.example").await.unwrap(), (200, Some(true)));
    assert_eq!(visit(&config, "none", "b.example").await.unwrap(), (200, Some(false)));
    assert!(visit(&config, "require", "a.example").await.is_err());
    let config = replaying(&own);
    assert_eq!(visit(&config, "require", "a.example").await.unwrap(), (200, Some(false)));
    assert_eq!(visit(&config, "require", "a.example").await.unwrap(), (200, Some(true)));
    assert_eq!(visit(&config, "require", "b.example").await.unwrap(), (200, Some(false)));
}

#[tokio::test]
async fn a_ticket_outlives_a_reload_but_not_a_change_of_who_is_let_in() {
    let site = Site::new();
    let open = |hsts: &str| {
        listener("web", &format!("hsts = \"{hsts}\"")) + "[[route]]\nname = \"a\"\nrespond = { body = \"a\" }\n"
    };
    let plain = replaying(&site.ca.client_config(HTTP1));
    let proxy = TestProxy::toml(open("0s")).in_folder(site.folder).start().await;
    let visit = async || {
        let mut client = Client::connect_tls(proxy.address(), "a.example", Arc::clone(&plain)).await?;
        let resumed = client.socket().is_resumed();
        get(&mut client, "a.example", "").await.map(|response| (response.status, resumed))
    };
    let reload = async |toml: &str| {
        proxy.folder.write(
            "flagstone.toml",
            proxy.folder.read("flagstone.toml").split("[[listener]]").next().unwrap().to_owned() + toml,
        );
        let control = Arc::clone(proxy.control());
        tokio::task::spawn_blocking(move || control.reload()).await.unwrap().unwrap();
    };
    assert_eq!(visit().await.unwrap(), (200, Some(false)));
    reload(&open("1h")).await;
    assert_eq!(visit().await.unwrap(), (200, Some(true)));
    reload(&open("1h").replace("hsts = \"1h\"", &auth("require"))).await;
    assert!(visit().await.is_err());
    reload(&open("1h")).await;
    assert_eq!(visit().await.unwrap(), (200, Some(false)));
}
