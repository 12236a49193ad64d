//! Requests over the rate that wait for their turn.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::admin;
use crate::support::client::{self, Client};
use crate::support::poll::eventually_async;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(10);
/// For a turn that comes when others have been. What a test does before it has all that time, on a busy machine too.
const TURNS: Duration = Duration::from_secs(30);

async fn proxy(route: &str, limits: &str) -> TestProxy {
    TestProxy::toml(format!(
        "[[route]]\nname = \"all\"\n{route}\nrespond = {{ status = 200, body = \"in\" }}\n{limits}\n"
    ))
    .start()
    .await
}

async fn queued(proxy: &TestProxy, limit: &str) -> u64 {
    let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    limits["limits"][limit]["queued"].as_u64().unwrap()
}

#[tokio::test]
async fn those_over_the_rate_pass_at_its_pace_and_in_order() {
    // One worker, so that the log tells the order.
    let limits = "[limit.l]\nrate = \"1/4s\"\nburst = 1\nqueue = 2\n[server]\nstate_dir = \"state\"\nworkers = 1";
    let proxy = proxy("limits = [\"l\"]", limits).await;
    let begun = Instant::now();
    let mut clients = Vec::new();
    for number in 0..3u64 {
        let mut client = Client::connect(proxy.address()).await.unwrap().deadline(TURNS);
        client.request("GET", &format!("/{number}"), "").await.unwrap();
        // The order of arrival is certain: the one before has passed or joined.
        let joined = eventually_async(DEADLINE, async || match number {
            0 => proxy.access_log().contains("GET /0 "),
            _ => queued(&proxy, "l").await == number,
        });
        assert!(joined.await, "{number}");
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.read_response().await.unwrap().status, 200);
    }
    // The third had two turns of four seconds before it.
    assert!(begun.elapsed() >= Duration::from_millis(7_900), "{:?}", begun.elapsed());
    let paths = || -> Vec<String> {
        let log = proxy.access_log();
        let path =
            |line: &str| line.split("GET /").nth(1).and_then(|rest| rest.get(..1)).unwrap_or_default().to_owned();
        log.lines().map(path).collect()
    };
    assert!(eventually_async(DEADLINE, async || paths().len() == 3).await);
    assert_eq!(paths(), ["0", "1", "2"], "in order of arrival");
}

#[tokio::test]
async fn a_full_queue_refuses_and_names_the_time_until_a_place() {
    let proxy = proxy("limits = [\"l\"]", "[limit.l]\nrate = \"1/5s\"\nburst = 1\nqueue = 1").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let mut waiting = Client::connect(proxy.address()).await.unwrap().deadline(TURNS);
    waiting.request("GET", "/", "").await.unwrap();
    assert!(eventually_async(DEADLINE, async || queued(&proxy, "l").await == 1).await);
    let refused = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!(refused.status, 429);
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&retry), "until the queue has a place, not until the bucket has room: {retry}");
    assert_eq!(waiting.read_response().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_gives_its_place_back() {
    let proxy = proxy("limits = [\"l\"]", "[limit.l]\nrate = \"1/1h\"\nburst = 1\nqueue = 1").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    for round in 1..=3 {
        let mut waiting = Client::connect(proxy.address()).await.unwrap();
        waiting.request("GET", "/", "").await.unwrap();
        let joined = eventually_async(DEADLINE, async || queued(&proxy, "l").await == round);
        assert!(joined.await, "the place is free again for client {round}");
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 429, "and taken meanwhile");
        drop(waiting);
        // Seen by the proxy when its log line, a 499, is there.
        let lines = || proxy.access_log().lines().filter(|line| line.contains("\" 499 ")).count() as u64;
        let left = eventually_async(DEADLINE, async || lines() == round);
        assert!(left.await, "{}", proxy.access_log());
    }
}

/// They ask the breaker of the generation that they came in, which another one has replaced.
#[tokio::test]
async fn who_waits_over_a_reload_opens_no_breaker_of_before() {
    let app = FakeUpstream::http1().route("/", "well").start().await;
    let config = |failures: u32| {
        format!(
            "[limit.l]\nrate = \"1/5s\"\nburst = 1\nqueue = 2\n[upstream.app]\nendpoints = [\"{}\"]\n\
             [upstream.app.breaker]\nfailures = {failures}\n\
             [[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"l\"]\n",
            app.endpoint()
        )
    };
    let proxy = TestProxy::toml(config(1)).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let mut waiting = Vec::new();
    for number in 1..=2 {
        let mut client = Client::connect(proxy.address()).await.unwrap().deadline(TURNS);
        client.request("GET", "/", "").await.unwrap();
        assert!(eventually_async(DEADLINE, async || queued(&proxy, "l").await == number).await);
        waiting.push(client);
    }
    proxy.reload_with(&config(9)).await;
    app.set_route("/", Reply::status(500, "bad"));
    for client in &mut waiting {
        assert_eq!(client.read_response().await.unwrap().status, 500);
    }
    let metrics = admin::metrics(proxy.admin()).await;
    let opened = "flagstone_breaker_transitions_total{upstream=\"app\",to=\"open\"} ";
    let times = metrics.lines().find_map(|line| line.strip_prefix(opened));
    assert!(times.is_none_or(|times| times == "0"), "{metrics}");
}

#[tokio::test]
async fn waiting_for_one_limit_charges_no_other_that_refuses() {
    let limits = "[limit.q]\nrate = \"1/1h\"\nburst = 1\nqueue = 5\nkey = \"global\"\n\
                  [limit.hard]\nrate = \"1/1h\"\nkey = \"header:K\"";
    let proxy = proxy("limits = [\"q\", \"hard\"]", limits).await;
    let ask = async |key: &str| {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/", &format!("K: {key}\r\n")).await.unwrap();
        client
    };
    assert_eq!(ask("a").await.read_response().await.unwrap().status, 200);
    for _ in 0..20 {
        assert_eq!(ask("a").await.read_response().await.unwrap().status, 429, "refused by the hard one");
    }
    let mut kept = Vec::new();
    for number in 1..=5 {
        kept.push(ask(&format!("other-{number}")).await);
        let joined = eventually_async(DEADLINE, async || queued(&proxy, "q").await == number);
        assert!(joined.await, "the queue's places were not taken by the refused");
    }
    assert_eq!(ask("another").await.read_response().await.unwrap().status, 429, "now it is full");
}

#[tokio::test]
async fn who_waits_when_maintenance_begins_is_told_of_it_and_charged_nothing() {
    let limits = "[limit.l]\nrate = \"1/8s\"\nburst = 1\nqueue = 1\n[maintenance]\nflag = \"on.flag\"";
    let proxy = proxy("limits = [\"l\"]", limits).await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let mut waiting = Client::connect(proxy.address()).await.unwrap();
    waiting.request("GET", "/", "").await.unwrap();
    assert!(eventually_async(DEADLINE, async || queued(&proxy, "l").await == 1).await);
    proxy.folder.touch("state/on.flag");
    let answer = waiting.read_response().await.unwrap();
    assert_eq!((answer.status, answer.header("flagstone-reason")), (503, Some("maintenance")));
    let status = async || admin::json(proxy.admin(), "/api/maintenance/status").await;
    assert_eq!(status().await["blocked_requests"], 1);
    proxy.folder.remove("state/on.flag");
    assert!(eventually_async(DEADLINE, async || status().await["is_active"] == false).await);
    let mut next = Client::connect(proxy.address()).await.unwrap().deadline(TURNS);
    assert_eq!(next.get("/").await.unwrap().status, 200, "the turn is the next one's");
}

/// Their turn would come in an hour.
#[tokio::test]
async fn who_waits_is_told_at_once_of_what_is_switched_against_it() {
    let tables = "[limit.l]\nkey = \"global\"\nrate = \"1/1h\"\nburst = 1\nqueue = 1\n[maintenance]\nflag = \"on.flag\"\n\
                  [features]\nshop = true\n[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]";
    let proxy = proxy("limits = [\"l\"]\nfeature = \"shop\"", tables).await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let post = async |path: &str, body| assert_eq!(admin::call(proxy.admin(), "POST", path, Some(body)).await.0, 200);
    for (number, what, status) in [(1, "maintenance", 503), (2, "blocked", 403), (3, "feature_off", 503)] {
        let mut waiting = Client::connect(proxy.address()).await.unwrap();
        waiting.request("GET", "/", "X-Forwarded-For: 192.0.2.9\r\n").await.unwrap();
        assert!(eventually_async(DEADLINE, async || queued(&proxy, "l").await == number).await, "{what}");
        match what {
            "maintenance" => drop(proxy.folder.touch("state/on.flag")),
            "blocked" => post("/api/admin/blocklist", json!({ "cidr": "192.0.2.0/24" })).await,
            _ => post("/api/admin/feature-flags", json!({ "key": "shop", "value": false })).await,
        }
        let answer = waiting.read_response().await.unwrap();
        assert_eq!((answer.status, answer.header("flagstone-reason")), (status, Some(what)));
        match what {
            "maintenance" => {
                proxy.folder.remove("state/on.flag");
                let status = async || admin::json(proxy.admin(), "/api/maintenance/status").await;
                assert!(eventually_async(DEADLINE, async || status().await["is_active"] == false).await);
            }
            "blocked" => drop(admin::ask(proxy.admin(), "DELETE", "/api/admin/blocklist/192.0.2.0%2F24").await),
            _ => {}
        }
    }
}

#[tokio::test]
async fn who_waits_is_not_in_flight_yet() {
    let upstream = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let toml = format!(
        // One worker: two may read the clock in one order and charge in the other, and who is a nanosecond early waits.
        "[server]\nstate_dir = \"state\"\nworkers = 1\n[[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"l\"]\n[upstream.app]\nendpoints = [\"{}\"]\n\
         [limit.l]\nrate = \"1/1h\"\nburst = 2\nqueue = 3\nconcurrency = 2\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).start().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/", "").await.unwrap();
        clients.push(client);
    }
    let counts = async || {
        let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
        let limit = &limits["limits"]["l"];
        (limit["queued"].as_u64(), limit["inFlight"].as_u64())
    };
    let settled = eventually_async(DEADLINE, async || counts().await == (Some(3), Some(2)));
    assert!(settled.await, "{:?}", counts().await);
    assert!(eventually_async(DEADLINE, async || upstream.requests().len() == 2).await);
}
