//! Limits by every kind of key, several on one route, shadow, and what clients are told.

use std::time::Duration;

use serde_json::json;

use crate::support::admin;
use crate::support::client::{Client, RawResponse};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{Flagstone, Process};
use crate::support::proxy::TestProxy;

/// One route that answers by itself, behind these limits.
fn limited(route: &str, limits: &str) -> String {
    format!(
        "[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n[[route]]\nname = \"all\"\n{route}\n\
         respond = {{ status = 200, body = \"in\", content_type = \"text/plain\" }}\n{limits}"
    )
}

async fn proxy(limit: &str) -> TestProxy {
    TestProxy::toml(limited("limits = [\"l\"]", &format!("[limit.l]\n{limit}\n"))).start().await
}

/// A request that comes from `ip`, with further headers.
async fn ask(proxy: &TestProxy, path: &str, ip: &str, headers: &str) -> RawResponse {
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", path, &format!("X-Forwarded-For: {ip}\r\n{headers}")).await.unwrap();
    client.read_response().await.unwrap()
}

async fn status(proxy: &TestProxy, path: &str, ip: &str, headers: &str) -> u16 {
    ask(proxy, path, ip, headers).await.status
}

#[tokio::test]
async fn clients_are_told_apart_by_address_and_ipv6_prefix() {
    let proxy = proxy("rate = \"1/1h\"").await;
    assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 200);
    assert_eq!(status(&proxy, "/other", "192.0.2.1", "").await, 429);
    assert_eq!(status(&proxy, "/", "192.0.2.2", "").await, 200);
    assert_eq!(status(&proxy, "/", "2001:db8::1", "").await, 200);
    assert_eq!(status(&proxy, "/", "2001:db8::2", "").await, 429, "the same /64");
    assert_eq!(status(&proxy, "/", "2001:db8:0:1::1", "").await, 200);
}

#[tokio::test]
async fn a_global_limit_counts_everyone_together() {
    let proxy = proxy("rate = \"2/1h\"\nkey = \"global\"").await;
    assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 200);
    assert_eq!(status(&proxy, "/", "192.0.2.2", "").await, 200);
    assert_eq!(status(&proxy, "/", "192.0.2.3", "").await, 429);
}

/// Two workers may read the clock in one order and charge in the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_burst_is_let_through_whole_whoever_counts_it() {
    const BURST: usize = 8;
    let proxy = proxy("rate = \"8/1h\"\nkey = \"path\"").await;
    let mut clients = Vec::new();
    for _ in 0..BURST + 2 {
        clients.push(Client::connect(proxy.address()).await.unwrap());
    }
    for round in 0..1_000 {
        let path = format!("/{round}");
        let asking: Vec<_> = clients
            .drain(..)
            .map(|mut client| {
                let path = path.clone();
                tokio::spawn(async move {
                    let status = client.get(&path).await.unwrap().status;
                    (client, status)
                })
            })
            .collect();
        let mut passed = 0;
        for asked in asking {
            let (client, status) = asked.await.unwrap();
            clients.push(client);
            passed += usize::from(status == 200);
        }
        assert_eq!(passed, BURST, "round {round}");
    }
}

#[tokio::test]
async fn a_header_counts_and_without_it_the_address_does() {
    let proxy = proxy("rate = \"1/1h\"\nkey = \"header:X-Api-Key\"").await;
    assert_eq!(status(&proxy, "/", "192.0.2.1", "X-Api-Key: a\r\n").await, 200);
    assert_eq!(status(&proxy, "/", "192.0.2.2", "x-api-key: a\r\n").await, 429, "the key counts, not the address");
    assert_eq!(status(&proxy, "/", "192.0.2.1", "X-Api-Key: b\r\n").await, 200);
    for none in ["", "X-Api-Key:\r\n", "X-Api-Key: c\r\nX-Api-Key: d\r\n"] {
        let expected = if none.is_empty() { 200 } else { 429 };
        assert_eq!(status(&proxy, "/", "192.0.2.9", none).await, expected, "{none:?} is the address");
    }
    assert_eq!(status(&proxy, "/", "192.0.2.10", "").await, 200, "and never one bucket for all");
}

#[tokio::test]
async fn a_cookie_counts_and_without_it_the_address_does() {
    let proxy = proxy("rate = \"1/1h\"\nkey = \"cookie:sid\"").await;
    assert_eq!(status(&proxy, "/", "192.0.2.1", "Cookie: a=b; sid=1\r\n").await, 200);
    assert_eq!(status(&proxy, "/", "192.0.2.2", "Cookie: sid=\"1\"\r\n").await, 429);
    assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 200);
    assert_eq!(status(&proxy, "/", "192.0.2.1", "Cookie: sid=; xsid=1\r\n").await, 429);
    assert_eq!(status(&proxy, "/", "192.0.2.2", "").await, 200);
}

#[tokio::test]
async fn a_list_counts_by_all_its_parts_and_paths_are_normalised() {
    let proxy = proxy("rate = \"1/1h\"\nkey = [\"client_ip\", \"path\"]").await;
    assert_eq!(status(&proxy, "/a/b", "192.0.2.1", "").await, 200);
    assert_eq!(status(&proxy, "/a/%62?x=1", "192.0.2.1", "").await, 429, "the same path in other words");
    assert_eq!(status(&proxy, "/a", "192.0.2.1", "").await, 200);
    assert_eq!(status(&proxy, "/a/b", "192.0.2.2", "").await, 200);
}

#[tokio::test]
async fn a_limit_by_route_is_one_bucket_a_route() {
    let respond = "respond = { status = 200, body = \"in\" }\nlimits = [\"l\"]\n";
    let toml = format!(
        "[[route]]\nname = \"a\"\npath = [\"/a\"]\n{respond}[[route]]\nname = \"b\"\npath = [\"/b\"]\n{respond}\
         [limit.l]\nrate = \"1/1h\"\nkey = \"route\"\n"
    );
    let proxy = TestProxy::toml(toml).start().await;
    assert_eq!(status(&proxy, "/a/1", "192.0.2.1", "").await, 200);
    assert_eq!(status(&proxy, "/a/2", "192.0.2.2", "").await, 429);
    assert_eq!(status(&proxy, "/b", "192.0.2.1", "").await, 200);
}

#[tokio::test]
async fn none_of_several_is_charged_when_one_refuses() {
    let toml = limited(
        "limits = [\"wide\", \"narrow\"]",
        "[limit.wide]\nrate = \"4/1h\"\nkey = \"global\"\n[limit.narrow]\nrate = \"1/1h\"\n",
    );
    let proxy = TestProxy::toml(toml).start().await;
    assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 200);
    for _ in 0..10 {
        assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 429);
    }
    for ip in ["192.0.2.2", "192.0.2.3", "192.0.2.4"] {
        assert_eq!(status(&proxy, "/", ip, "").await, 200, "the refused ones took nothing from the wide limit");
    }
    assert_eq!(status(&proxy, "/", "192.0.2.5", "").await, 429);
}

#[tokio::test]
async fn what_the_app_tells_of_its_own_limits_stays() {
    let own = "response_headers = { set = { RateLimit = '\"app\";r=1;t=1' } }";
    let behind = TestProxy::toml(limited(own, "")).start().await;
    let endpoint = behind.address();
    let toml = format!(
        "[[route]]\nname = \"all\"\nlimits = [\"l\"]\nupstream = \"app\"\n[upstream.app]\n\
         endpoints = [\"{endpoint}\"]\n[limit.l]\nrate = \"2/1m\"\n"
    );
    let proxy = TestProxy::toml(toml).start().await;
    let answer = crate::support::client::get(proxy.address(), "/").await.unwrap();
    assert_eq!(answer.all("ratelimit"), ["\"app\";r=1;t=1", "\"l\";r=1;t=30"]);
}

#[tokio::test]
async fn a_limit_with_another_key_counts_from_nothing() {
    let limit = |key: &str| limited("limits = [\"l\"]", &format!("[limit.l]\nrate = \"1/1h\"\nkey = \"{key}\"\n"));
    let proxy = TestProxy::toml(limit("header:X-One")).start().await;
    let tells = async || status(&proxy, "/", "192.0.2.1", "X-One: a\r\nX-Other: a\r\n").await;
    assert_eq!((tells().await, tells().await), (200, 429));
    proxy.reload_with(&limit("header:X-Other")).await;
    assert_eq!((tells().await, tells().await), (200, 429));
}

#[tokio::test]
async fn those_exempt_are_not_limited_nor_told() {
    let proxy = proxy("rate = \"1/1h\"\nexempt = [\"10.0.0.0/8\"]").await;
    for _ in 0..3 {
        let response = ask(&proxy, "/", "10.1.1.1", "").await;
        assert_eq!((response.status, response.header("ratelimit")), (200, None));
    }
}

#[tokio::test]
async fn an_answer_tells_where_the_client_stands() {
    let proxy = proxy("rate = \"2/1m\"\nburst = 3").await;
    let first = ask(&proxy, "/", "192.0.2.1", "").await;
    assert_eq!(first.header("ratelimit-policy"), Some("\"l\";q=2;w=60;flagstone-burst=3"));
    assert_eq!(first.header("ratelimit"), Some("\"l\";r=2;t=30"));
    assert_eq!(first.header("retry-after"), None);
    ask(&proxy, "/", "192.0.2.1", "").await;
    ask(&proxy, "/", "192.0.2.1", "").await;
    let refused = ask(&proxy, "/", "192.0.2.1", "Accept: application/json\r\n").await;
    assert_eq!((refused.status, refused.header("flagstone-reason")), (429, Some("rate_limited")));
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&retry), "{retry}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"l\";r=0;t={retry}").as_str()));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn whoever_waits_as_long_as_told_is_let_in() {
    let proxy = proxy("rate = \"1/2s\"").await;
    let begun = std::time::Instant::now();
    assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 200);
    let refused = ask(&proxy, "/", "192.0.2.1", "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("2")));
    // Polls count against nothing: a refused request is not charged.
    let passed = eventually_async(Duration::from_secs(8), async || status(&proxy, "/", "192.0.2.1", "").await == 200);
    assert!(passed.await);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn grpc_clients_get_resource_exhausted() {
    let proxy = proxy("rate = \"1/1h\"").await;
    assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 200);
    let refused = ask(&proxy, "/", "192.0.2.1", "Content-Type: application/grpc\r\n").await;
    assert_eq!((refused.status, refused.header("grpc-status")), (200, Some("8")));
    assert_eq!(refused.header("flagstone-reason"), Some("rate_limited"));
}

#[tokio::test]
async fn a_limit_in_shadow_counts_and_lets_through() {
    let toml = limited(
        "limits = [\"watched\", \"real\"]",
        "[limit.watched]\nrate = \"1/1h\"\nshadow = true\n[limit.real]\nrate = \"3/1h\"\nstatus = 420\n",
    );
    let proxy = TestProxy::toml(toml).start().await;
    for expected in [200, 200, 200, 420] {
        let response = ask(&proxy, "/", "192.0.2.1", "").await;
        assert_eq!(response.status, expected);
        assert_eq!(response.header("ratelimit-policy"), Some("\"real\";q=3;w=3600"), "of the other nobody hears");
    }
    let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    assert_eq!(limits["limits"]["watched"]["shadowed"], 2, "the fourth is the other's");
    assert_eq!(limits["limits"]["watched"]["limited"], 0);
    assert_eq!(limits["limits"]["real"]["limited"], 1);
    let mut metrics = Client::connect(proxy.admin()).await.unwrap();
    metrics.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let metrics = metrics.read_response().await.unwrap().text();
    let counted = "flagstone_rate_limited_total{limit=\"watched\",enforced=\"false\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_limit_in_shadow_counts_nothing_that_another_refuses() {
    let toml = limited(
        "limits = [\"watched\", \"real\"]",
        "[limit.watched]\nrate = \"2/1h\"\nkey = \"global\"\nshadow = true\n[limit.real]\nrate = \"1/1h\"\n",
    );
    let proxy = TestProxy::toml(toml).start().await;
    for expected in [200, 429, 429, 429] {
        assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, expected);
    }
    let counted = async || {
        let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
        ["allowed", "shadowed"].map(|count| limits["limits"]["watched"][count].as_u64())
    };
    assert_eq!(counted().await, [Some(1), Some(0)]);
    for ip in ["192.0.2.2", "192.0.2.3"] {
        assert_eq!(status(&proxy, "/", ip, "").await, 200);
    }
    assert_eq!(counted().await, [Some(2), Some(1)]);
}

const PER_IP: &str = "[limit.l]\nrate = \"2/1h\"\n";

fn served(limits: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"unix:admin.sock\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}",
        limited("limits = [\"l\"]", limits)
    )
}

async fn served_status(flagstone: &mut Flagstone, ip: &str) -> u16 {
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    client.request("GET", "/", &format!("X-Forwarded-For: {ip}\r\n")).await.unwrap();
    client.read_response().await.unwrap().status
}

async fn command(flagstone: &Flagstone, words: &str) -> (i32, String) {
    let config = flagstone.config();
    let config = config.to_str().unwrap();
    let words = words.split(' ').collect::<Vec<_>>();
    let ended = Flagstone::run([&words[..1], &["-c", config], &words[1..]].concat()).await;
    (ended.status.code().unwrap_or(-1), ended.stdout + &ended.stderr)
}

#[tokio::test]
async fn an_override_holds_over_restart_and_reload_and_keeps_what_was_used() {
    let mut flagstone = Flagstone::serve(&served(PER_IP)).await;
    assert_eq!(served_status(&mut flagstone, "192.0.2.1").await, 200);
    let (code, said) = command(&flagstone, "limit set l 3/1h").await;
    assert_eq!((code, said.as_str()), (0, "l: 3/1h, burst 3, until cleared\n"));
    assert_eq!(served_status(&mut flagstone, "192.0.2.1").await, 200);
    assert_eq!(served_status(&mut flagstone, "192.0.2.1").await, 200);
    assert_eq!(served_status(&mut flagstone, "192.0.2.1").await, 429, "the one before the change was not forgotten");

    // Another limit, and another base for the overridden one: the override stands.
    let other = served("[limit.l]\nrate = \"9/1h\"\n[limit.m]\nrate = \"1/1m\"\n");
    flagstone.folder.replace("flagstone.toml", other);
    flagstone.process.stderr_line("Configuration reloaded").await;
    assert_eq!(served_status(&mut flagstone, "192.0.2.1").await, 429);
    let (_, said) = command(&flagstone, "limit list").await;
    assert!(said.contains("until cleared"), "{said}");

    let folder = flagstone.folder;
    drop(flagstone.process);
    let mut flagstone = Flagstone::serve_in(folder, &served(PER_IP)).await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(served_status(&mut flagstone, "192.0.2.1").await, expected, "3/1h after the restart too");
    }
    let (code, said) = command(&flagstone, "limit clear l").await;
    assert_eq!((code, said.as_str()), (0, "l: 2/1h, burst 2\n"));
    assert_eq!(served_status(&mut flagstone, "192.0.2.1").await, 429, "the two of the smaller burst are used");
    let (code, said) = command(&flagstone, "limit set nosuch 1/1m").await;
    assert_eq!((code, said.as_str()), (1, "flagstone: there is no limit \"nosuch\": use \"l\"\n"));
    let (code, _) = command(&flagstone, "limit set l 0/1m").await;
    assert_eq!(code, 2);
    let (code, said) = command(&flagstone, "limit list --json").await;
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &listed["limits"]["l"]["rate"]), (0, &"2/1h".into()));
    let config = flagstone.config();
    let ended = Flagstone::run(["limit", "list", "-c", config.to_str().unwrap()]).await;
    assert!(ended.status.success(), "the file may be named behind what is to be done: {}", ended.stderr);
}

#[tokio::test]
async fn an_override_for_a_while_ends_by_itself() {
    let proxy = proxy("rate = \"100/1h\"").await;
    let change = json!({ "rate": "1/1h", "ttlSeconds": 5 });
    let (code, view) = admin::call(proxy.admin(), "POST", "/api/admin/limits/l", Some(change)).await;
    assert_eq!((code, view["rate"].as_str(), view["burst"].as_u64()), (200, Some("1/1h"), Some(1)));
    assert_eq!(view["configured"]["rate"], "100/1h");
    let told = ask(&proxy, "/", "192.0.2.1", "").await;
    assert_eq!(told.header("ratelimit-policy"), Some("\"l\";q=1;w=3600"));
    assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 429);
    let back = eventually_async(Duration::from_secs(20), async || status(&proxy, "/", "192.0.2.1", "").await == 200);
    assert!(back.await);
    let told = ask(&proxy, "/", "192.0.2.1", "").await;
    assert_eq!(told.header("ratelimit-policy"), Some("\"l\";q=100;w=3600"));
    let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    assert_eq!(limits["limits"]["l"]["override"], json!(null));
    let file = || proxy.folder.read("state/limits.json").contains("\"l\"");
    assert!(eventually(Duration::from_secs(5), || !file()).await, "the file forgets it as well");
}

#[tokio::test]
async fn what_was_edited_by_hand_and_cannot_be_used_is_told() {
    let config = "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"unix:admin.sock\"\n[log]\naccess = \"off\"\n\
                  [[listener]]\naddress = \"127.0.0.1:0\"\n[features]\na = true\n[limit.l]\nrate = \"9/1h\"\n\
                  [[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\nlimits = [\"l\"]\nfeature = \"a\"\n";
    let folder = Folder::new();
    let over =
        json!({ "l": { "rate": "5/1h", "burst": 1, "until": null }, "m": { "rate": "5/1h", "burst": 1, "until": 7 } });
    folder.write("state/limits.json", json!({ "version": 1, "limits": over }).to_string());
    folder.write("state/features.json", json!({ "version": 1, "features": { "a": "off" } }).to_string());
    let mut flagstone = Flagstone::serve_in(folder, config).await;
    for (what, parts) in [
        ("no overrides", ["WARN", "limits.json", "count=1", "\\\"m\\\"", "flagstone limit set"]),
        ("neither true nor false", ["WARN", "features.json", "count=1", "\\\"off\\\"", "flagstone feature set"]),
    ] {
        let told = flagstone.process.stderr_line(what).await;
        assert!(parts.iter().all(|part| told.contains(part)), "{parts:?}: {told}");
    }
    let (code, said) = command(&flagstone, "limit list --json").await;
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &listed["limits"]["l"]["rate"]), (0, &"5/1h".into()));
}

#[tokio::test]
async fn the_override_of_a_limit_that_is_gone_is_shown_and_can_be_cleared() {
    let proxy = proxy("rate = \"9/1h\"").await;
    let held = json!({ "rate": "1/1h", "burst": 1, "until": null });
    let change = json!({ "rate": "1/1h" });
    assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/limits/l", Some(change)).await.0, 200);
    let strays = async || admin::json(proxy.admin(), "/api/status/limits").await["strays"].clone();
    assert_eq!(strays().await, json!({}));
    proxy.reload_with(&limited("", "")).await;
    assert_eq!(strays().await, json!({ "l": held }));
    let cleared = admin::call(proxy.admin(), "DELETE", "/api/admin/limits/l", None).await;
    assert_eq!(cleared, (200, json!({ "override": null })));
    assert_eq!(strays().await, json!({}));
    assert_eq!(admin::call(proxy.admin(), "DELETE", "/api/admin/limits/l", None).await.0, 404);
    proxy.reload_with(&limited("limits = [\"l\"]", "[limit.l]\nrate = \"9/1h\"\n")).await;
    let limits = admin::json(proxy.admin(), "/api/status/limits").await;
    assert_eq!(limits["limits"]["l"]["rate"], "9/1h");
}

#[tokio::test]
async fn wrong_overrides_change_nothing() {
    let proxy = proxy("rate = \"1/1h\"").await;
    for (path, body, expected) in [
        ("/api/admin/limits/l", json!({ "rate": "0/1m" }), 422),
        ("/api/admin/limits/l", json!({ "rate": "5/1m", "burst": 0 }), 422),
        ("/api/admin/limits/l", json!({}), 422),
        ("/api/admin/limits/nosuch", json!({ "rate": "5/1m" }), 404),
    ] {
        let (code, answer) = admin::call(proxy.admin(), "POST", path, Some(body)).await;
        assert_eq!(code, expected, "{answer}");
    }
    assert_eq!(admin::call(proxy.admin(), "DELETE", "/api/admin/limits/l", None).await.0, 200);
    assert_eq!(admin::call(proxy.admin(), "DELETE", "/api/admin/limits/nosuch", None).await.0, 404);
    let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    assert_eq!(limits["limits"]["l"]["rate"], "1/1h");
    assert!(!proxy.folder.join("state/limits.json").exists());
}

#[tokio::test]
async fn a_reload_that_changes_the_rate_keeps_what_each_key_used() {
    let toml = |rate: &str| limited("limits = [\"l\"]", &format!("[limit.l]\nrate = \"{rate}\"\n"));
    let proxy = TestProxy::toml(toml("4/1h")).start().await;
    for _ in 0..3 {
        assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, 200);
    }
    proxy.rewrite(&toml("5/1h"));
    let limits = async || admin::call(proxy.admin(), "GET", "/api/status/limits", None).await.1;
    let reloaded = eventually_async(Duration::from_secs(10), async || limits().await["limits"]["l"]["rate"] == "5/1h");
    assert!(reloaded.await);
    for expected in [200, 200, 429] {
        assert_eq!(status(&proxy, "/", "192.0.2.1", "").await, expected);
    }
}

#[tokio::test]
async fn what_cannot_be_a_limit_is_refused_at_check() {
    let folder = Folder::new();
    for (limit, part) in [
        ("rate = \"0/1m\"", "a rate of 0"),
        ("rate = \"1/1m\"\nburst = 0", "burst"),
        ("rate = \"1/1m\"\nkey = \"ip\"", "key"),
        ("rate = \"1/1m\"\nkey = \"header:\"", "key"),
        ("rate = \"1/1m\"\nkey = []", "key"),
        ("rate = \"1/1m\"\nqueue = -1", "queue"),
        ("rate = \"1/1m\"\nstore = \"redis\"", "there is no shared store"),
        ("rate = \"1/1m\"\nstore = \"redis\"\n[redis]\nurl = \"http://127.0.0.1\"", "redis"),
        ("rate = \"1/1m\"\nstore = \"redis\"\n[redis]\nurl = \"redis://127.0.0.1:6379\"\ntimeout = \"0s\"", "timeout"),
    ] {
        let toml = limited("limits = [\"l\"]", &format!("[limit.l]\n{limit}\n"));
        let file = folder.write("flagstone.toml", toml);
        let ended = Flagstone::run(["check", "-c", file.to_str().unwrap()]).await;
        assert_eq!(ended.status.code(), Some(1), "{limit}");
        assert!(ended.stderr.contains(part), "{limit}: {}", ended.stderr);
        assert!(ended.stderr.contains("flagstone.toml:"), "with its place: {}", ended.stderr);
    }
}

/// nginx's `burst=4 nodelay` lets one request and four more through at once; so does a burst of 5 here.
#[tokio::test]
async fn as_many_pass_as_nginx_lets_through() {
    let nginx = or_left_out!(program("nginx"));
    let folder = Folder::new();
    let socket = folder.join("nginx.sock");
    let pid = folder.join("nginx.pid");
    let config = folder.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {}; error_log stderr crit; events {{}}\n\
             http {{ access_log off; limit_req_zone $http_x_client zone=z:1m rate=20r/s; limit_req_status 429;\n\
             client_body_temp_path {p}/b; proxy_temp_path {p}/p; fastcgi_temp_path {p}/f; uwsgi_temp_path {p}/u; \
             scgi_temp_path {p}/s;\n\
             server {{ listen unix:{}; root /nonexistent; location / {{ limit_req zone=z burst=4 nodelay; }} }} }}",
            pid.display(),
            socket.display(),
            p = folder.path().display(),
        ),
    );
    let mut command = std::process::Command::new(nginx);
    let _nginx = Process::start(command.arg("-c").arg(&config).arg("-p").arg(folder.path()));
    assert!(eventually(Duration::from_secs(10), || socket.exists()).await);
    let proxy = proxy("rate = \"20/1s\"\nburst = 5\nkey = \"header:X-Client\"").await;

    let mut ours = Client::connect(proxy.address()).await.unwrap();
    let mut theirs = Client::connect_unix(&socket).await.unwrap();
    let (mut passed_here, mut passed_there, mut sent) = (0, 0, 0);
    let begun = std::time::Instant::now();
    // Bunches and pauses: the same arrivals for both, one right after the other. What passes at nginx meets a file
    // that is missing: its `return` would come before its limits.
    while begun.elapsed() < Duration::from_secs(3) {
        for _ in 0..12 {
            sent += 1;
            for (client, passed) in [(&mut ours, &mut passed_here), (&mut theirs, &mut passed_there)] {
                client.request("GET", "/", "X-Client: one\r\n").await.unwrap();
                let status = client.read_response().await.unwrap().status;
                *passed += u32::from(status != 429);
            }
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..200))).await;
    }
    assert!(passed_here < sent, "some must have been refused");
    let difference = passed_here.abs_diff(passed_there);
    assert!(difference <= 3, "{passed_here} here, {passed_there} at nginx, of {sent}");
}
