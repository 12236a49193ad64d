//! The runtime block list: from API and command line, for a while or for good, over restarts.

use std::time::Duration;

use serde_json::json;

use crate::support::admin;
use crate::support::client::{Client, RawResponse};
use crate::support::files::Folder;
use crate::support::poll::eventually_async;
use crate::support::process::Flagstone;
use crate::support::proxy::TestProxy;

const ROUTES: &str = "[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n[[route]]\nname = \"all\"\npath = [\"/in\"]\n\
                      respond = { status = 200, body = \"in\" }\n";

async fn ask(address: std::net::SocketAddr, path: &str, ip: &str) -> RawResponse {
    let mut client = Client::connect(address).await.unwrap();
    client.request("GET", path, &format!("X-Forwarded-For: {ip}\r\n")).await.unwrap();
    client.read_response().await.unwrap()
}

#[tokio::test]
async fn a_blocked_network_gets_403_everywhere_until_unblocked() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let (status, entry) =
        admin::call(proxy.admin(), "POST", "/api/admin/blocklist", Some(json!({ "cidr": "192.0.2.9/24" }))).await;
    assert_eq!((status, entry), (200, json!({ "cidr": "192.0.2.0/24", "until": null })));
    let refused = ask(proxy.address(), "/in", "192.0.2.200").await;
    assert_eq!((refused.status, refused.header("flagstone-reason")), (403, Some("blocked")));
    assert_eq!(ask(proxy.address(), "/nowhere", "192.0.2.200").await.status, 403, "also where there is no route");
    assert_eq!(ask(proxy.address(), "/in", "192.0.3.1").await.status, 200);
    assert_eq!(ask(proxy.address(), "/in", "::ffff:192.0.2.1").await.status, 403, "in other words");

    let (_, list) = admin::call(proxy.admin(), "GET", "/api/admin/blocklist", None).await;
    assert_eq!(list, json!({ "entries": [{ "cidr": "192.0.2.0/24", "until": null }] }));
    let unknown = admin::call(proxy.admin(), "DELETE", "/api/admin/blocklist/192.0.2.0/25", None).await;
    assert_eq!(unknown.0, 404);
    for path in ["/api/admin/blocklist/192.0.2.0%2F24"] {
        assert_eq!(admin::call(proxy.admin(), "DELETE", path, None).await.0, 200);
    }
    assert_eq!(ask(proxy.address(), "/in", "192.0.2.200").await.status, 200);
    for wrong in [json!({}), json!({ "cidr": "nobody" }), json!({ "cidr": "10.0.0.0/8", "ttlSeconds": -1 })] {
        assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/blocklist", Some(wrong)).await.0, 422);
    }
}

/// The answer is the entry as it is listed from then on.
#[tokio::test]
async fn a_mapped_address_is_answered_as_it_is_listed() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let mapped = Some(json!({ "cidr": "::ffff:192.0.2.9" }));
    let entry = json!({ "cidr": "192.0.2.9/32", "until": null });
    assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/blocklist", mapped).await, (200, entry.clone()));
    assert_eq!(admin::json(proxy.admin(), "/api/admin/blocklist").await, json!({ "entries": [entry] }));
    let gone = admin::call(proxy.admin(), "DELETE", "/api/admin/blocklist/::ffff:192.0.2.9", None).await;
    assert_eq!(gone, (200, json!({ "cidr": "192.0.2.9/32" })));
}

#[tokio::test]
async fn a_block_for_a_while_ends_by_itself() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let body = json!({ "cidr": "2001:db8::/32", "ttlSeconds": 1 });
    assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/blocklist", Some(body)).await.0, 200);
    let let_in = async || ask(proxy.address(), "/in", "2001:db8::5").await.status == 200;
    assert!(eventually_async(Duration::from_secs(10), let_in).await);
    let (_, list) = admin::call(proxy.admin(), "GET", "/api/admin/blocklist", None).await;
    assert_eq!(list, json!({ "entries": [] }));
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_nobody_waiting() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let list = async |method, body| admin::call(proxy.admin(), method, "/api/admin/blocklist", body).await;
    assert_eq!(list("POST", Some(json!({ "cidr": "192.0.2.9", "ttlSeconds": 1 }))).await.0, 200);
    // What is opened for writing waits for a reader.
    let disk = proxy.folder.fifo(&format!("state/blocklist.{}.new", std::process::id()));
    let is_over = async || list("GET", None).await.1 == json!({ "entries": [] });
    assert!(eventually_async(Duration::from_secs(30), is_over).await);
    assert_eq!(admin::ask(proxy.admin(), "GET", "/readyz").await.status, 200);
    assert_eq!(list("GET", None).await.0, 200);
    std::thread::spawn(|| std::fs::read(disk));
}

#[tokio::test]
async fn a_flood_from_a_blocked_client_is_one_line_a_second() {
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"unix:admin.sock\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{ROUTES}"
    );
    let mut flagstone = Flagstone::serve(&config).await;
    let file = flagstone.config();
    let file = file.to_str().unwrap();
    let ended = Flagstone::run(["block", "198.51.100.0/24", "--for", "1h", "-c", file]).await;
    assert!(ended.stdout.starts_with("198.51.100.0/24 is blocked until "), "{} {}", ended.stdout, ended.stderr);
    let address = flagstone.address("web").await;
    let begun = std::time::Instant::now();
    let mut client = Client::connect(address).await.unwrap();
    for _ in 0..200 {
        client.request("GET", "/in", "X-Forwarded-For: 198.51.100.7\r\n").await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 403);
    }
    let line = flagstone.process.stderr_line("BLOCKED").await;
    assert!(line.contains("client=198.51.100.7") && line.contains("count="), "{line}");
    let lines = flagstone.process.stderr().lines().filter(|line| line.contains("BLOCKED")).count();
    assert!(lines as u64 <= begun.elapsed().as_secs() + 2, "{lines} lines");

    let folder = flagstone.folder;
    drop(flagstone.process);
    let mut flagstone = Flagstone::serve_in(folder, &config).await;
    let address = flagstone.address("web").await;
    assert_eq!(ask(address, "/in", "198.51.100.7").await.status, 403, "after a restart too");
    let listed = Flagstone::run(["blocked", "-c", file]).await;
    assert!(listed.stdout.contains("198.51.100.0/24  until "), "{}", listed.stdout);
    let unblocked = Flagstone::run(["unblock", "::ffff:198.51.100.7/120", "-c", file]).await;
    assert_eq!(unblocked.stdout, "198.51.100.0/24 is not blocked any more\n", "{}", unblocked.stderr);
    assert_eq!(ask(address, "/in", "198.51.100.7").await.status, 200);
    assert_eq!(Flagstone::run(["unblock", "198.51.100.0/24", "-c", file]).await.status.code(), Some(1));
    let listed = Flagstone::run(["blocked", "-c", file]).await;
    assert_eq!(listed.stdout, "nobody is blocked\n");
    let _folder = flagstone.folder;
    drop(flagstone.process);
    let gone = Flagstone::run(["blocked", "-c", file]).await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.stderr.contains("no process answers on unix:"), "{}", gone.stderr);
}

#[tokio::test]
async fn a_list_that_was_edited_by_hand_lets_nobody_in_silently() {
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"unix:admin.sock\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{ROUTES}"
    );
    let folder = Folder::new();
    let entries = json!([
        { "cidr": "192.0.2.7" }, { "cidr": "2001:db8::7", "until": null },
        { "cidr": "198.51.100.0/24", "until": "tomorrow" }, { "cidr": "203.0.113.0/24", "until": 1_900_000_000 },
        { "cidr": "10.0.0.0/33" }, "10.1.0.0/16",
    ]);
    folder.write("state/blocklist.json", json!({ "version": 1, "entries": entries }).to_string());
    let mut flagstone = Flagstone::serve_in(folder, &config).await;
    let address = flagstone.address("web").await;
    for (ip, status) in [
        ("192.0.2.7", 403),
        ("192.0.2.8", 200),
        ("2001:db8::7", 403),
        ("2001:db8::8", 200),
        ("198.51.100.1", 403),
        ("203.0.113.1", 403),
        ("10.0.0.1", 200),
    ] {
        assert_eq!(ask(address, "/in", ip).await.status, status, "{ip}");
    }
    let ends = flagstone.process.stderr_line("no time").await;
    for part in ["WARN", "blocklist.json", "count=2", "tomorrow", "for good", "flagstone block"] {
        assert!(ends.contains(part), "{part}: {ends}");
    }
    let nobody = flagstone.process.stderr_line("no network").await;
    for part in ["WARN", "blocklist.json", "count=2", "10.0.0.0/33", "flagstone block"] {
        assert!(nobody.contains(part), "{part}: {nobody}");
    }
}
