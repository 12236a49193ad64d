//! Certificates as they are renewed, end, and are asked about.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::admin;
use crate::support::certs::{Ca, Leaf};
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::lineage::Lineage;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone};
use crate::support::proxy::TestProxy;

const HTTP1: &[&[u8]] = &[b"http/1.1"];
const HELLO: &str = "[[route]]\nname = \"hello\"\nrespond = { body = \"hello\" }\n";

fn tls(more: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
         certificates = [{{ cert = \"site.pem\", key = \"site.key\" }}]\n{more}{HELLO}"
    )
}

async fn shown(proxy: &TestProxy, ca: &Ca) -> Option<Vec<u8>> {
    let client = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.ok()?;
    client.socket().peer_certificates().into_iter().next()
}

async fn shows(proxy: &TestProxy, ca: &Ca, leaf: &Leaf) -> bool {
    eventually_async(DEADLINE, async || shown(proxy, ca).await.as_deref() == Some(leaf.der().as_ref())).await
}

/// Messages of the event log that are about certificates, oldest first.
async fn told(proxy: &TestProxy) -> Vec<String> {
    let mut client = Client::connect(proxy.admin()).await.unwrap();
    client.send(format!("GET /api/events?recent=1000 HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.admin())).await.unwrap();
    let text = client.read_until("event: metrics").await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().filter(|line| line.contains("\"Certificate ")).map(str::to_owned).collect()
}

async fn tells(proxy: &TestProxy, parts: &[&str]) -> bool {
    let is_told = async || told(proxy).await.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    eventually_async(DEADLINE, is_told).await
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_being_asked_to() {
    let ca = Ca::new();
    let (old, new) = (ca.leaf(&["site.example"]), ca.leaf(&["site.example"]));
    let folder = Folder::new();
    old.write(&folder, "site");
    let proxy = TestProxy::toml(tls("")).in_folder(folder).start().await;
    let mut kept = Client::connect_tls(proxy.address(), "site.example", ca.client_config(HTTP1)).await.unwrap();
    new.write(&proxy.folder, "site");
    assert!(shows(&proxy, &ca, &new).await);
    assert!(tells(&proxy, &["Certificate reloaded", "site.example"]).await);
    // What is open goes on.
    assert_eq!(kept.get("/").await.unwrap().text(), "hello");
}

#[tokio::test]
async fn links_that_change_their_target_are_followed() {
    let ca = Ca::new();
    let (old, new) = (ca.leaf(&["site.example"]), ca.leaf(&["site.example"]));
    let folder = Folder::new();
    // As certbot keeps them: live/ has links into archive/.
    folder.create_folder("archive");
    folder.create_folder("live");
    for (number, leaf) in [(1, &old), (2, &new)] {
        folder.write(&format!("archive/cert{number}.pem"), &leaf.cert_pem);
        folder.write(&format!("archive/key{number}.pem"), &leaf.key_pem);
    }
    let link = |folder: &Folder, number: u8| {
        folder.swap_link("live/site.pem", format!("../archive/cert{number}.pem"));
        folder.swap_link("live/site.key", format!("../archive/key{number}.pem"));
    };
    link(&folder, 1);
    let toml = tls("").replace("\"site.", "\"live/site.");
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    assert_eq!(shown(&proxy, &ca).await.as_deref(), Some(old.der().as_ref()));
    link(&proxy.folder, 2);
    assert!(shows(&proxy, &ca, &new).await);
    // And back again, the target written in place.
    proxy.folder.write("archive/cert2.pem", &old.cert_pem);
    proxy.folder.write("archive/key2.pem", &old.key_pem);
    assert!(shows(&proxy, &ca, &old).await);
}

#[tokio::test]
async fn broken_files_leave_the_old_pair_in_place_and_are_told_of() {
    let ca = Ca::new();
    let (old, new) = (ca.leaf(&["site.example"]), ca.leaf(&["site.example"]));
    let folder = Folder::new();
    old.write(&folder, "site");
    let proxy = TestProxy::toml(tls("")).in_folder(folder).start().await;
    // Half of a renewal: the certificate, and not yet its key.
    proxy.folder.write("site.pem", &new.cert_pem);
    assert!(tells(&proxy, &["Certificate rejected", "site.example", "does not match the key in"]).await);
    assert_eq!(shown(&proxy, &ca).await.as_deref(), Some(old.der().as_ref()));
    proxy.folder.write("site.pem", &new.cert_pem[..new.cert_pem.len() / 2]);
    assert!(tells(&proxy, &["Certificate rejected", "site.pem"]).await);
    proxy.folder.remove("site.key");
    proxy.folder.write("site.pem", &new.cert_pem);
    assert!(tells(&proxy, &["Certificate rejected", "site.key"]).await);
    assert_eq!(shown(&proxy, &ca).await.as_deref(), Some(old.der().as_ref()));
    proxy.folder.write("site.key", &new.key_pem);
    assert!(shows(&proxy, &ca, &new).await);
    let lines = told(&proxy).await;
    let rejected: Vec<_> = lines.iter().filter(|line| line.contains("rejected")).collect();
    assert_eq!(rejected.iter().collect::<BTreeSet<_>>().len(), rejected.len(), "{rejected:#?}");
    assert!(rejected.len() <= 4, "each is told once: {rejected:#?}");
}

#[tokio::test]
async fn putting_back_what_serves_is_told_as_the_end_of_the_trouble() {
    let ca = Ca::new();
    let (old, new) = (ca.leaf(&["site.example"]), ca.leaf(&["site.example"]));
    let folder = Folder::new();
    old.write(&folder, "site");
    let proxy = TestProxy::toml(tls("")).in_folder(folder).start().await;
    proxy.folder.write("site.key", &new.key_pem);
    assert!(tells(&proxy, &["Certificate rejected", "site.example"]).await);
    proxy.folder.write("site.key", &old.key_pem);
    assert!(tells(&proxy, &["Certificate reloaded", "site.example", "\"until\":"]).await);
    // Broken anew, it is told anew.
    proxy.folder.write("site.key", &new.key_pem);
    let rejections = async || told(&proxy).await.iter().filter(|line| line.contains("Certificate rejected")).count();
    assert!(eventually_async(DEADLINE, async || rejections().await == 2).await);
}

#[tokio::test]
async fn one_broken_pair_does_not_hold_up_another() {
    let ca = Ca::new();
    let (first, other, new) = (ca.leaf(&["first.example"]), ca.leaf(&["site.example"]), ca.leaf(&["site.example"]));
    let folder = Folder::new();
    first.write(&folder, "first");
    other.write(&folder, "site");
    let toml = tls("").replace("[{ cert", "[{ cert = \"first.pem\", key = \"first.key\" }, { cert");
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    proxy.folder.write("first.key", "nonsense");
    new.write(&proxy.folder, "site");
    assert!(shows(&proxy, &ca, &new).await);
}

#[tokio::test]
async fn new_authorities_decide_who_is_let_in() {
    let (ca, before, after) = (Ca::new(), Ca::new(), Ca::new());
    let folder = Folder::new();
    ca.leaf(&["site.example"]).write(&folder, "site");
    folder.write("clients.pem", before.pem());
    let proxy = TestProxy::toml(tls("client_auth = { ca = \"clients.pem\" }\n")).in_folder(folder).start().await;
    let (old, new) = (before.leaf(&["me"]), after.leaf(&["me"]));
    // One configuration for all visits: what it may resume must not let it in.
    let (old, new) = (ca.client_config_with(HTTP1, &old), ca.client_config_with(HTTP1, &new));
    let enters = async |config: &Arc<rustls::ClientConfig>| {
        let Ok(mut client) = Client::connect_tls(proxy.address(), "site.example", Arc::clone(config)).await else {
            return false;
        };
        client.send("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n").await.is_ok()
            && client.read_response().await.is_ok()
    };
    assert!(enters(&old).await && !enters(&new).await);
    proxy.folder.write("clients.pem", "");
    assert!(tells(&proxy, &["Certificate rejected", "clients.pem", "holds no certificate"]).await);
    assert!(enters(&old).await && !enters(&new).await);
    proxy.folder.write("clients.pem", after.pem());
    assert!(eventually_async(DEADLINE, async || enters(&new).await).await);
    assert!(!enters(&old).await);
}

#[tokio::test]
async fn a_client_certificate_towards_an_upstream_is_told_by_the_one_in_force() {
    let ca = Ca::new();
    let (folder, own, foreign) = (Folder::new(), ca.leaf(&["me"]), ca.leaf(&["evil"]));
    own.write(&folder, "own");
    let upstream = "[upstream.app]\nendpoints = [\"127.0.0.1:9\"]\n\
                    tls = { client = { cert = \"own.pem\", key = \"own.key\" } }\n";
    let toml = format!("[[route]]\nname = \"all\"\nupstream = \"app\"\n{upstream}");
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    proxy.folder.write("own.pem", &foreign.cert_pem);
    assert!(tells(&proxy, &["Certificate rejected", "\"domain\":\"me\"", "does not match the key in"]).await);
    proxy.folder.write("own.pem", &own.cert_pem);
    assert!(tells(&proxy, &["Certificate reloaded", "\"domain\":\"me\"", "\"until\":"]).await);
    // What takes its place gives it its own name.
    proxy.folder.write("own.pem", &foreign.cert_pem);
    proxy.folder.write("own.key", &foreign.key_pem);
    assert!(tells(&proxy, &["Certificate reloaded", "\"domain\":\"evil\"", "\"until\":"]).await);
}

#[tokio::test]
async fn certificates_that_are_about_to_end_are_told_of_once() {
    let ca = Ca::new();
    let folder = Folder::new();
    ca.leaf_with(&["site.example"], crate::support::certs::Algorithm::Ecdsa, 10).write(&folder, "site");
    let proxy = TestProxy::toml(tls("")).in_folder(folder).start().await;
    assert!(tells(&proxy, &["Certificate expiring", "site.example", "\"days_left\":"]).await);
    let listed = admin::json(proxy.admin(), "/api/certificates").await;
    let entry = &listed[0];
    assert_eq!((entry["domain"].as_str(), entry["status"].as_str()), (Some("site.example"), Some("EXPIRING")));
    // Certificates know whole seconds.
    assert!(matches!(entry["daysLeft"].as_i64(), Some(9 | 10)), "{entry}");
    assert_eq!(entry["names"], serde_json::json!(["site.example"]));
    assert_eq!(entry["issuer"], "CN=Flagstone test CA");
    assert!(entry["notAfter"].as_str().is_some_and(|end| end.ends_with('Z')));
    assert_eq!(listed, admin::json(proxy.admin(), "/api/status").await["certificates"]);
    // Touching it makes another look, and no second line.
    let renewed = ca.leaf(&["site.example"]);
    renewed.write(&proxy.folder, "site");
    assert!(tells(&proxy, &["Certificate reloaded"]).await);
    let expiring = told(&proxy).await.iter().filter(|line| line.contains("expiring")).count();
    assert_eq!(expiring, 1);
    let metrics = admin::get(proxy.admin(), "/metrics").await.text();
    assert!(metrics.contains("flagstone_certificate_expiry_timestamp_seconds{domain=\"site.example\"} "), "{metrics}");
    assert_eq!(admin::json(proxy.admin(), "/api/certificates").await[0]["status"], "OK");
}

/// Each process lives for less than the day that lies between two reminders.
#[tokio::test]
async fn processes_that_replace_each_other_tell_of_an_end_once_a_day() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.leaf_with(&["site.example"], crate::support::certs::Algorithm::Ecdsa, 10).write(&folder, "site");
    let rest = tls("").replace("\"web\"", "\"secure\"");
    let mut line = Lineage::start_in(folder, &rest, "shutdown_grace = \"5s\"\n").await;
    line.first.stderr_line("Certificate expiring").await;
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    let known = line.folder.read("state/reminders.toml");
    let told = known.lines().find(|line| line.starts_with("told = ")).expect("when it was told");
    line.folder.write("state/reminders.toml", known.replace(told, "told = \"2020-01-01T00:00:00Z\""));
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    let count = || line.first.stderr().matches("Certificate expiring").count();
    assert!(eventually(DEADLINE, || count() > 1).await, "{}", line.first.stderr());
    assert_eq!(line.upgrade().await.status.code(), Some(0));
    assert_eq!(count(), 2, "{}", line.first.stderr());
}

async fn certs(folder: &Folder, more: &[&str]) -> (bool, String, String) {
    let file = folder.join("flagstone.toml");
    let args = ["certs", "-c", file.to_str().unwrap()];
    let ended = Flagstone::run(args.iter().chain(more)).await;
    (ended.status.success(), ended.stdout, ended.stderr)
}

#[tokio::test]
async fn the_command_tells_how_each_certificate_stands_without_a_process() {
    let ca = Ca::new();
    let folder = Folder::new();
    let names = ["good", "soon", "late", "wrong", "none"];
    ca.leaf_with(&["good.example"], crate::support::certs::Algorithm::Rsa, 60).write(&folder, "good");
    ca.leaf_with(&["soon.example"], crate::support::certs::Algorithm::Ed25519, 20).write(&folder, "soon");
    ca.expired(&["late.example"]).write(&folder, "late");
    ca.mismatched(&["wrong.example"]).write(&folder, "wrong");
    let listener = |names: &[&str]| {
        let pairs: Vec<_> =
            names.iter().map(|name| format!("{{ cert = \"{name}.pem\", key = \"{name}.key\" }}")).collect();
        format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{}] }}\n{HELLO}", pairs.join(", "))
    };
    folder.write("flagstone.toml", listener(&names));
    folder.write("late.toml", listener(&["good", "late"]));
    let late = folder.join("late.toml");
    let checked = Flagstone::run(["check".as_ref(), "-c".as_ref(), late.as_os_str()]).await;
    assert_eq!(checked.status.code(), Some(0), "{}", checked.stderr);
    assert!(
        checked.stderr.contains("warning: ") && checked.stderr.contains("late.pem\": expired at "),
        "{}",
        checked.stderr
    );
    assert!(checked.stderr.contains("tls.certificates[1].cert"), "{}", checked.stderr);
    folder.write("good.cut", &folder.read("good.pem")[..200]);
    let cut = folder.write("cut.toml", listener(&["good"]).replace("good.pem", "good.cut"));
    let checked = Flagstone::run(["check".as_ref(), "-c".as_ref(), cut.as_os_str()]).await;
    assert!(checked.stderr.contains("good.cut: is cut off: the line END CERTIFICATE is missing"), "{}", checked.stderr);
    let (ok, stdout, stderr) = certs(&folder, &[]).await;
    assert!(!ok);
    let lines: Vec<_> = stdout.lines().collect();
    let begins = |domain: &str| format!("Domain: {domain} Issuer: CN=Flagstone test CA Expires: 20");
    for (line, domain, end) in [
        (lines[0], "good.example", " days) Status: OK"),
        (lines[1], "soon.example", " days) Status: EXPIRING"),
        (lines[2], "late.example", "Status: EXPIRED"),
        (lines[3], "wrong.example", "Status: INVALID"),
    ] {
        assert!(line.starts_with(&begins(domain)) && line.ends_with(end), "{line}");
    }
    assert!(
        lines[4].starts_with("Domain: /") && lines[4].ends_with("none.pem Issuer: - Expires: - Status: INVALID"),
        "{}",
        lines[4]
    );
    assert!(
        stderr.contains("wrong.pem: does not match the key in ") && stderr.contains("none.pem: no such file"),
        "{stderr}"
    );
    assert!(stderr.contains("none.key: no such file"), "both are to be mended: {stderr}");
    let (ok, stdout, _) = certs(&folder, &["--json"]).await;
    assert!(stdout.starts_with("[\n  {\n    \""), "for people to read, too: {stdout}");
    let json: Value = serde_json::from_str(&stdout).unwrap();
    let statuses: Vec<_> = json.as_array().unwrap().iter().map(|entry| entry["status"].as_str().unwrap()).collect();
    assert_eq!((ok, statuses), (false, vec!["OK", "EXPIRING", "EXPIRED", "INVALID", "INVALID"]));
    folder.write("flagstone.toml", listener(&["good"]) + "[certificates]\nwarn_days = 10\n");
    assert!(certs(&folder, &[]).await.0);
    folder.write("flagstone.toml", format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{HELLO}"));
    assert_eq!(certs(&folder, &[]).await, (true, "no listener has certificates\n".into(), String::new()));
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_the_file_named() {
    let ca = Ca::new();
    let folder = Folder::new();
    ca.leaf(&["site.example"]).write(&folder, "site");
    ca.mismatched(&["wrong.example"]).write(&folder, "wrong");
    folder.write("empty.pem", "");
    folder.write("text.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    folder.write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    folder.create_folder("folder");
    folder.fifo("pipe");
    let file = folder.join("flagstone.toml");
    for (from, to, complaint) in [
        ("site.key", "wrong.key", "/site.pem: does not match the key in "),
        ("site.key", "none.key", "/none.key: no such file"),
        ("site.key", "folder", "/folder: is a directory"),
        ("site.key", "pipe", "/pipe: it is not a regular file but a pipe, a socket or a device"),
        ("site.key", "empty.pem", "/empty.pem: holds no private key"),
        ("site.key", "locked.key", "/locked.key: the key is protected by a passphrase"),
        ("site.pem", "none.pem", "/none.pem: no such file"),
        ("site.pem", "empty.pem", "/empty.pem: holds no certificate"),
        ("site.pem", "text.pem", "/text.pem: "),
        ("# auth", "client_auth = { ca = \"empty.pem\" }", "/empty.pem: holds no certificate"),
        ("# auth", "client_auth = { ca = \"none.pem\" }", "/none.pem: no such file"),
        ("# auth", "client_auth = { ca = \"text.pem\" }", "/text.pem: "),
        ("# auth", "min_version = \"1.1\"", "flagstone.toml:"),
    ] {
        folder.write("flagstone.toml", tls("# auth\n").replace(from, to));
        let ended = Flagstone::run(["check", "-c", file.to_str().unwrap()]).await;
        assert!(!ended.status.success() && ended.stderr.contains(complaint), "{to}: {}", ended.stderr);
        assert!(ended.stderr.contains("flagstone.toml:"), "the place is named: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_broken_pair_at_the_start_is_no_start() {
    let ca = Ca::new();
    let folder = Folder::new();
    ca.mismatched(&["site.example"]).write(&folder, "site");
    let file =
        folder.write("flagstone.toml", format!("[admin]\nlisten = \"\"\n[server]\nstate_dir = \"state\"\n{}", tls("")));
    let mut process =
        crate::support::process::Process::start(&mut Flagstone::command(["run", "-c", file.to_str().unwrap()]));
    process.wait(DEADLINE).await;
    assert!(process.stderr().contains("site.pem: does not match the key in "), "{}", process.stderr());
}
