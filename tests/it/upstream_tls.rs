//! TLS with upstreams: whom Flagstone trusts, what it shows, and what it remembers.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;

use crate::support::admin;
use crate::support::certs::{Ca, Leaf};
use crate::support::client;
use crate::support::files::Folder;
use crate::support::poll::eventually_async;
use crate::support::process::{DEADLINE, Flagstone, Process};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;
use crate::tls::{HTTP1, roots};

/// What a client gets from a proxy before this upstream.
async fn through(upstream: &FakeUpstream, tls: &str, ca: &Ca) -> (u16, Option<String>) {
    trusting(&ca.pem(), upstream, tls).await
}

/// The same with this text in `ca.pem`.
async fn trusting(pem: &str, upstream: &FakeUpstream, tls: &str) -> (u16, Option<String>) {
    let folder = Folder::new();
    folder.write("ca.pem", pem);
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\ntls = {{ {tls} }}\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let response = client::get(proxy.address(), "/").await.unwrap();
    (response.status, response.header("flagstone-reason").map(str::to_owned))
}

#[tokio::test]
async fn an_upstream_is_verified_by_its_ca_and_name() {
    let ca = Ca::new();
    let upstream = |leaf: &Leaf| FakeUpstream::http1().route("*", "ok").tls(leaf.server_config(HTTP1)).start();
    let app = upstream(&ca.leaf(&["app.internal"])).await;
    let failed = (502, Some("connect_failed".to_owned()));
    assert_eq!(
        through(&app, "enabled = true, ca = \"ca.pem\", server_name = \"app.internal\"", &ca).await,
        (200, None)
    );
    // Without a name it is the address that must be in the certificate.
    assert_eq!(through(&app, "enabled = true, ca = \"ca.pem\"", &ca).await, failed);
    assert_eq!(through(&app, "enabled = true, ca = \"ca.pem\", server_name = \"other\"", &ca).await, failed);
    // Another CA, and the public ones.
    assert_eq!(
        through(&app, "enabled = true, ca = \"ca.pem\", server_name = \"app.internal\"", &Ca::new()).await,
        failed
    );
    assert_eq!(through(&app, "enabled = true, server_name = \"app.internal\"", &ca).await, failed);
    assert_eq!(through(&app, "enabled = true, insecure = true", &ca).await, (200, None));
    let by_address = upstream(&ca.leaf(&["127.0.0.1"])).await;
    assert_eq!(through(&by_address, "enabled = true, ca = \"ca.pem\"", &ca).await, (200, None));
    let old = upstream(&ca.expired(&["127.0.0.1"])).await;
    assert_eq!(through(&old, "enabled = true, ca = \"ca.pem\"", &ca).await, failed);
}

/// By requests, checks and probes alike.
#[tokio::test]
async fn without_a_ca_the_roots_of_the_environment_are_trusted_too() {
    let ca = Ca::new();
    let app = FakeUpstream::http1().route("*", "ok").tls(ca.leaf(&["localhost"]).server_config(HTTP1)).start().await;
    let (endpoint, port) = (app.endpoint(), app.address().port());
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n[[listener]]\n\
         name = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\n\
         endpoints = [\"{endpoint}\"]\ntls = {{ server_name = \"localhost\" }}\n[upstream.app.health]\npath = \"/health\"\n\
         interval = \"50ms\"\n[probe.page]\nhttp = \"https://localhost:{port}/\"\ninterval = \"50ms\"\n"
    );
    for (roots, status, health) in [(ca.pem(), 200, "healthy"), (Ca::new().pem(), 503, "unhealthy")] {
        let folder = Folder::new();
        // A system's bundle may hold some that nobody can use.
        let unusable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let roots = folder.write("roots.pem", format!("{unusable}{roots}"));
        let file = folder.write("flagstone.toml", &config);
        let mut command = Flagstone::command(["run", "-c"]);
        let process = Process::start(command.arg(file).current_dir(folder.path()).env("SSL_CERT_FILE", roots));
        let mut flagstone = Flagstone { process, folder };
        let (web, admin) = (flagstone.address("web").await, flagstone.admin().await);
        assert_eq!(client::get(web, "/").await.unwrap().status, status, "{}", flagstone.process.stderr());
        let checks = async || admin::json(admin, "/api/health").await["checks"].clone();
        let are_known = async || {
            let checks = checks().await;
            ["app", "page"].iter().all(|name| checks[*name]["status"] == health)
        };
        assert!(eventually_async(DEADLINE, are_known).await, "{}", checks().await);
    }
}

#[tokio::test]
async fn an_app_is_verified_by_its_own_certificate() {
    let app = |leaf: &Leaf| FakeUpstream::http1().route("*", "ok").tls(leaf.server_config(HTTP1)).start();
    let failed = (502, Some("connect_failed".to_owned()));
    let own = Leaf::self_signed(&["127.0.0.1"], 90);
    let listed = [Ca::new().pem(), own.cert_pem.clone()].concat();
    let up = app(&own).await;
    assert_eq!(trusting(&listed, &up, "ca = \"ca.pem\"").await, (200, None));
    // Another name, another certificate of the same name, one that has ended, and nobody who is asked.
    assert_eq!(trusting(&listed, &up, "ca = \"ca.pem\", server_name = \"other\"").await, failed);
    let other = app(&Leaf::self_signed(&["127.0.0.1"], 90)).await;
    assert_eq!(trusting(&listed, &other, "ca = \"ca.pem\"").await, failed);
    let ended = Leaf::self_signed(&["127.0.0.1"], -1);
    assert_eq!(trusting(&ended.cert_pem, &app(&ended).await, "ca = \"ca.pem\"").await, failed);
    assert_eq!(trusting(&listed, &up, "enabled = true").await, failed);
}

/// A server that asks for certificates of `ca`, if there is one, and speaks these versions.
fn server(
    leaf: &Leaf,
    ca: Option<&Ca>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots(ca).into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![leaf.der()], key).unwrap())
}

#[tokio::test]
async fn sessions_with_an_upstream_are_resumed() {
    let (folder, ca) = (Folder::new(), Ca::new());
    folder.write("ca.pem", ca.pem());
    let leaf = ca.leaf(&["app.internal"]);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let app = FakeUpstream::http1()
            .route("*", Reply::then_close("ok"))
            .tls(server(&leaf, None, &[version]))
            .start()
            .await;
        let toml = format!(
            "[server]\nstate_dir = \"state\"\nworkers = 1\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
             [upstream.app]\nendpoints = [\"{}\"]\ntls = {{ ca = \"{}\", server_name = \"app.internal\" }}\n",
            app.endpoint(),
            folder.join("ca.pem").display()
        );
        let proxy = TestProxy::toml(toml).start().await;
        for _ in 0..5 {
            assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "ok");
        }
        let handshakes = app.handshakes();
        let resumed: Vec<_> = handshakes.iter().map(|handshake| handshake.is_resumed).collect();
        assert_eq!(resumed, [false, true, true, true, true], "{version:?}");
        assert!(handshakes.iter().all(|handshake| handshake.server_name.as_deref() == Some("app.internal")));
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_gets_ours() {
    let (folder, ca, other) = (Folder::new(), Ca::new(), Ca::new());
    folder.write("ca.pem", ca.pem());
    ca.leaf(&["proxy"]).write(&folder, "own");
    other.leaf(&["proxy"]).write(&folder, "foreign");
    let leaf = ca.leaf(&["app.internal"]);
    let config = server(&leaf, Some(&ca), &[&rustls::version::TLS13, &rustls::version::TLS12]);
    let app = FakeUpstream::http1().route("*", "ok").tls(config).start().await;
    for (client, status) in [("own", 200), ("foreign", 502), ("", 502)] {
        let own = match client {
            "" => String::new(),
            name => format!(", client = {{ cert = \"{name}.pem\", key = \"{name}.key\" }}"),
        };
        let toml = format!(
            "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n\
             tls = {{ ca = \"ca.pem\", server_name = \"app.internal\"{own} }}\n",
            app.endpoint()
        );
        let here = Folder::new();
        for name in ["ca.pem", "own.pem", "own.key", "foreign.pem", "foreign.key"] {
            here.write(name, folder.read(name));
        }
        let proxy = TestProxy::toml(toml).in_folder(here).start().await;
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, status, "{client}");
    }
    let shown: Vec<_> = app.handshakes().iter().map(|handshake| handshake.certificates).collect();
    assert!(!shown.is_empty() && shown.iter().all(|count| *count == 1), "{shown:?}");
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn renewed_authorities_and_certificates_towards_an_upstream_are_taken() {
    let (folder, old, new) = (Folder::new(), Ca::new(), Ca::new());
    folder.write("ca.pem", old.pem());
    old.leaf(&["proxy.old"]).write(&folder, "own");
    let versions: &[_] = &[&rustls::version::TLS13];
    let start = async |ca: &Ca| {
        let config = server(&ca.leaf(&["app.internal"]), Some(ca), versions);
        FakeUpstream::http1().route("*", Reply::then_close("ok")).tls(config).start().await
    };
    let (before, after) = (start(&old).await, start(&new).await);
    let toml = format!(
        "[[route]]\nname = \"before\"\npath = [\"/before\"]\nupstream = \"before\"\n\
         [[route]]\nname = \"after\"\npath = [\"/after\"]\nupstream = \"after\"\n\
         [upstream.before]\nendpoints = [\"{0}\"]\n{2}\n[upstream.after]\nendpoints = [\"{1}\"]\n{2}\n",
        before.endpoint(),
        after.endpoint(),
        "tls = { ca = \"ca.pem\", server_name = \"app.internal\", client = { cert = \"own.pem\", key = \"own.key\" } }\n\
         breaker = { enabled = false }\nejection = { failures = 0 }"
    );
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let statuses = async || {
        let before = client::get(proxy.address(), "/before").await.unwrap().status;
        (before, client::get(proxy.address(), "/after").await.unwrap().status)
    };
    assert_eq!(statuses().await, (200, 502));
    // Half of it: what serves goes on.
    let (leaf, other) = (new.leaf(&["proxy.new"]), Folder::new());
    leaf.write(&other, "own");
    proxy.folder.write("own.pem", &leaf.cert_pem);
    proxy.folder.write("ca.pem", "half");
    for _ in 0..5 {
        assert_eq!(statuses().await, (200, 502));
    }
    proxy.folder.write("own.key", &leaf.key_pem);
    proxy.folder.write("ca.pem", new.pem());
    assert!(eventually_async(DEADLINE, async || statuses().await == (502, 200)).await);
}

#[tokio::test]
async fn an_upstream_without_tls_gets_nothing_readable() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let (status, reason) = through(&upstream, "enabled = true, insecure = true", &Ca::new()).await;
    // Its handshake is waited for in vain, or broken off.
    assert!(matches!(status, 502 | 504) && reason.as_deref() == Some("connect_failed"), "{status} {reason:?}");
    assert!(upstream.raw().iter().all(|bytes| memchr::memmem::find(bytes, b"GET").is_none()));
}
