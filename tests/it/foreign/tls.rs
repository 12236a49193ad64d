//! TLS as others see it: sslyze's and OpenSSL's opinion, keys as OpenSSL writes them, a browser over https.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::browser::{chromium, dump_dom_with};
use super::{HEAD, LONG};
use crate::support::certs::{Algorithm, Ca, Leaf};
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::process::{Ended, Flagstone, Process};
use crate::support::proxy::TestProxy;
use crate::support::python::python_venv;

/// The configuration of a site with one certificate. With `more` in `[listener.tls]`.
fn site(more: &str) -> String {
    format!(
        "{HEAD}[listener.tls]\ncertificates = [{{ cert = \"site.pem\", key = \"site.key\" }}]\n{more}\n\
         [[route]]\nname = \"all\"\nrespond = {{ body = \"hello\" }}\n"
    )
}

/// The real binary with this certificate for `localhost`.
async fn serve(ca: &Ca, leaf: &Leaf, more: &str) -> (Flagstone, SocketAddr) {
    let folder = Folder::new();
    leaf.write(&folder, "site");
    folder.write("ca.pem", ca.pem());
    let mut flagstone = Flagstone::serve_in(folder, &site(more)).await;
    let address = flagstone.address("web").await;
    (flagstone, address)
}

/// sslyze looks for everything that Mozilla's intermediate profile forbids, and for the known attacks.
#[tokio::test]
async fn sslyze_finds_nothing_against_mozillas_intermediate_profile() {
    let python = or_left_out!(python_venv(&["sslyze"]));
    let ca = Ca::new();
    for algorithm in [Algorithm::Ecdsa, Algorithm::Rsa] {
        let leaf = ca.leaf_with(&["localhost"], algorithm, 80);
        let (flagstone, address) = serve(&ca, &leaf, "hsts = \"730d\"").await;
        let mut command = Command::new(python.with_file_name("sslyze"));
        command.arg("--certinfo_ca_file").arg(flagstone.folder.join("ca.pem"));
        command.args(["--sni", "localhost", &address.to_string()]);
        let mut process = Process::start(&mut command);
        let status = process.wait(LONG).await;
        let said = process.stdout();
        assert!(status.success(), "{algorithm:?}: {said}\n{}", process.stderr());
        assert!(said.contains("OK - Compliant"), "{algorithm:?}: {said}");
        assert!(!said.contains("VULNERABLE -"), "{algorithm:?}: {said}");
    }
}

/// `openssl s_client`, which ends with its standard input.
async fn s_client(openssl: &Path, address: SocketAddr, folder: &Folder, args: &[&str]) -> Ended {
    let mut command = Command::new(openssl);
    command.args(["s_client", "-connect", &address.to_string(), "-CAfile"]).arg(folder.join("ca.pem"));
    command.args(["-verify_return_error", "-servername", "localhost"]).args(args).stdin(std::process::Stdio::null());
    Process::run(&mut command).await
}

#[tokio::test]
async fn openssl_comes_to_terms_in_both_versions_and_resumes() {
    let openssl = or_left_out!(program("openssl"));
    let ca = Ca::new();
    let (flagstone, address) = serve(&ca, &ca.leaf(&["localhost"]), "").await;
    let folder = &flagstone.folder;
    let session = folder.join("session");
    let session = session.to_str().unwrap();
    for (version, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let ended = s_client(&openssl, address, folder, &[version]).await;
        assert!(ended.status.success() && ended.stdout.contains(protocol), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("Verify return code: 0 (ok)"), "{}", ended.stdout);
    }
    // TLS 1.3's tickets come behind the handshake, when the client may be gone already.
    let first = s_client(&openssl, address, folder, &["-tls1_2", "-sess_out", session]).await;
    assert!(first.stdout.contains("\nNew, TLSv1.2"), "{}", first.stdout);
    let again = s_client(&openssl, address, folder, &["-tls1_2", "-sess_in", session]).await;
    assert!(again.stdout.contains("\nReused, TLSv1.2"), "{}", again.stdout);
    for refused in [&["-tls1_1"][..], &["-tls1"], &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"]] {
        let ended = s_client(&openssl, address, folder, refused).await;
        assert!(!ended.status.success(), "{refused:?}: {}", ended.stdout);
    }
}

#[tokio::test]
async fn openssl_agrees_on_a_post_quantum_group_where_it_knows_one() {
    let openssl = or_left_out!(program("openssl"));
    let groups = Process::run(Command::new(&openssl).args(["list", "-kem-algorithms"])).await;
    let ca = Ca::new();
    let (flagstone, address) = serve(&ca, &ca.leaf(&["localhost"]), "").await;
    let knows = groups.stdout.contains("X25519MLKEM768");
    let group = if knows { "X25519MLKEM768" } else { "X25519" };
    let ended = s_client(&openssl, address, &flagstone.folder, &["-tls1_3", "-groups", group]).await;
    assert!(ended.status.success() && ended.stdout.contains(group), "{}{}", ended.stdout, ended.stderr);
}

/// Keys in every form that OpenSSL writes, with certificates of their own signature.
#[tokio::test]
async fn keys_are_read_in_every_form() {
    let openssl = or_left_out!(program("openssl"));
    let run = async |args: &[&str], folder: &Folder| {
        let ended = Process::run(Command::new(&openssl).args(args).current_dir(folder.path())).await;
        assert!(ended.status.success(), "openssl {args:?}: {}", ended.stderr);
    };
    let ec256 = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..];
    let ec384 = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..];
    let rsa2048 = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..];
    let rsa3072 = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"][..];
    for (kind, is_traditional, begins) in [
        (ec256, false, "-----BEGIN PRIVATE KEY-----"),
        (ec256, true, "-----BEGIN EC PRIVATE KEY-----"),
        (ec384, true, "-----BEGIN EC PRIVATE KEY-----"),
        (rsa2048, false, "-----BEGIN PRIVATE KEY-----"),
        (rsa2048, true, "-----BEGIN RSA PRIVATE KEY-----"),
        (rsa3072, true, "-----BEGIN RSA PRIVATE KEY-----"),
        (&["-algorithm", "ED25519"], false, "-----BEGIN PRIVATE KEY-----"),
    ] {
        let folder = Folder::new();
        run(&[&["genpkey", "-out", "site.key"], kind].concat(), &folder).await;
        let names = ["-addext", "subjectAltName=DNS:site.example", "-subj", "/CN=site.example", "-days", "30"];
        // A certificate that is its own authority, as webpki wants it.
        let new = [
            "req",
            "-x509",
            "-new",
            "-key",
            "site.key",
            "-out",
            "site.pem",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        run(&[&new[..], &names].concat(), &folder).await;
        if is_traditional {
            run(&["pkey", "-in", "site.key", "-traditional", "-out", "old.key"], &folder).await;
            std::fs::rename(folder.join("old.key"), folder.join("site.key")).unwrap();
        }
        let key = folder.read("site.key");
        assert!(key.starts_with(begins), "{}", key.lines().next().unwrap_or_default());
        let mut roots = rustls::RootCertStore::empty();
        let own = rustls_pki_types::pem::PemObject::from_pem_slice(folder.read("site.pem").as_bytes()).unwrap();
        roots.add(own).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth());
        let proxy = TestProxy::toml(site("").replace("[server]\nstate_dir = \"state\"\n", "")).in_folder(folder);
        let proxy = proxy.start().await;
        let mut client = Client::connect_tls(proxy.address(), "site.example", config).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().text(), "hello", "{kind:?} {is_traditional}");
    }
}

#[tokio::test]
async fn a_browser_is_at_home_over_https() {
    let chromium = or_left_out!(chromium());
    let ca = Ca::new();
    let leaf = ca.leaf(&["site.example"]);
    let folder = Folder::new();
    leaf.write(&folder, "site");
    folder.write(
        "static/index.html",
        "<!doctype html><title>t</title><p id=p></p><script>\n\
         fetch('/data').then(answer => answer.text()).then(text =>\n\
         { p.textContent = [location.protocol, isSecureContext, text].join(' ') })</script>",
    );
    let toml = site("hsts = \"1h\"").replace("respond = { body = \"hello\" }", "files = { root = \"static\" }")
        + "[[route]]\nname = \"data\"\npath = [\"/data\"]\nrespond = { body = \"fetched\" }\n";
    let mut flagstone = Flagstone::serve_in(folder, &toml).await;
    let port = flagstone.address("web").await.port();
    // It takes this one key for good, whoever signed it, and no other.
    let der = leaf.der();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let pin = base64::engine::general_purpose::STANDARD.encode(digest(&SHA256, parsed.public_key().raw));
    let further = [
        format!("--ignore-certificate-errors-spki-list={pin}"),
        "--host-resolver-rules=MAP site.example 127.0.0.1".to_owned(),
    ];
    let shown = dump_dom_with(chromium, &format!("https://site.example:{port}/"), &further).await;
    assert!(shown.stdout.contains("https: true fetched"), "{}\n{}", shown.stdout, shown.stderr);
}
