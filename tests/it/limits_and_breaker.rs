//! Rate limits and breakers as clients and operators see them. Their arithmetic is tested in their own rooms.

use std::time::Duration;

use crate::admin;
use crate::support::client::{Client, RawResponse};
use crate::support::poll::eventually_async;
use crate::support::process::DEADLINE;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::{FakeUpstream, OnAccept};

fn limited(keys: &str, limits: &str) -> String {
    format!("[[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\nlimits = [{keys}]\n{limits}")
}

async fn get(proxy: &TestProxy, path: &str) -> RawResponse {
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", path, "Connection: close\r\n").await.unwrap();
    client.read_response().await.unwrap()
}

async fn metric(proxy: &TestProxy, sample: &str) -> u64 {
    let text = admin::get(proxy.admin(), "/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {sample} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn over_the_limit_is_429_with_everything_a_client_needs() {
    let proxy = TestProxy::toml(limited("\"per_ip\"", "[limit.per_ip]\nrate = \"3/1h\"\n")).start().await;
    for remaining in [2, 1, 0] {
        let answer = get(&proxy, "/").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"per_ip\";q=3;w=3600"));
        let state = answer.header("ratelimit").unwrap();
        assert!(state.starts_with(&format!("\"per_ip\";r={remaining};t=")), "{state}");
    }
    let refused = get(&proxy, "/").await;
    assert_eq!((refused.status, refused.header("flagstone-reason")), (429, Some("rate_limited")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1200).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"per_ip\";r=0;t={wait}").as_str()));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(metric(&proxy, "flagstone_rate_limited_total{limit=\"per_ip\",enforced=\"true\"}").await, 1);
}

#[tokio::test]
async fn a_bucket_fills_again() {
    let proxy = TestProxy::toml(limited("\"per_ip\"", "[limit.per_ip]\nrate = \"5/1s\"\nburst = 1\n")).start().await;
    assert_eq!(get(&proxy, "/").await.status, 200);
    let refused = async || get(&proxy, "/").await.status == 429;
    assert!(eventually_async(DEADLINE, refused).await);
    let passes = async || get(&proxy, "/").await.status == 200;
    assert!(eventually_async(DEADLINE, passes).await);
}

#[tokio::test]
async fn a_shadow_counts_and_lets_through() {
    let proxy = TestProxy::toml(limited("\"s\"", "[limit.s]\nrate = \"1/1h\"\nshadow = true\n")).start().await;
    for _ in 0..3 {
        let answer = get(&proxy, "/").await;
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }
    assert_eq!(metric(&proxy, "flagstone_rate_limited_total{limit=\"s\",enforced=\"false\"}").await, 2);
    assert_eq!(metric(&proxy, "flagstone_rate_limited_total{limit=\"s\",enforced=\"true\"}").await, 0);
}

#[tokio::test]
async fn who_is_exempt_is_not_charged() {
    let proxy =
        TestProxy::toml(limited("\"l\"", "[limit.l]\nrate = \"1/1h\"\nexempt = [\"127.0.0.0/8\"]\n")).start().await;
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/").await.status, 200);
    }
}

#[tokio::test]
async fn no_limit_is_charged_when_another_refuses() {
    let toml = "[[route]]\nname = \"both\"\npath = [\"=/both\"]\nrespond = {}\nlimits = [\"wide\", \"narrow\"]\n\
                [[route]]\nname = \"wide\"\npath = [\"=/wide\"]\nrespond = {}\nlimits = [\"wide\"]\n\
                [limit.wide]\nrate = \"4/1h\"\n[limit.narrow]\nrate = \"1/1h\"\n";
    let proxy = TestProxy::toml(toml).start().await;
    let first = get(&proxy, "/both").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("ratelimit-policy"), Some("\"wide\";q=4;w=3600, \"narrow\";q=1;w=3600"));
    for _ in 0..5 {
        assert_eq!(get(&proxy, "/both").await.status, 429);
    }
    // One of four is used, whatever was refused.
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/wide").await.status, 200);
    }
    assert_eq!(get(&proxy, "/wide").await.status, 429);
}

#[tokio::test]
async fn clients_are_told_apart_behind_a_trusted_proxy() {
    let limits = "[limit.l]\nrate = \"1/1h\"\nstatus = 503\n[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let proxy = TestProxy::toml(limited("\"l\"", limits)).start().await;
    let from = async |ip: &str| {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/", &format!("X-Forwarded-For: {ip}\r\nConnection: close\r\n")).await.unwrap();
        client.read_response().await.unwrap().status
    };
    assert_eq!([from("203.0.113.1").await, from("203.0.113.1").await, from("203.0.113.2").await], [200, 503, 200]);
    // One client has a whole /64.
    assert_eq!([from("2001:db8::1").await, from("2001:db8::2").await, from("2001:db8:0:1::1").await], [200, 503, 200]);
}

/// A route `/` to an upstream with this breaker, and `/free` without one.
async fn broken(upstream: &FakeUpstream, breaker: &str) -> TestProxy {
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n[upstream.app.breaker]\n{breaker}",
        upstream.endpoint()
    );
    TestProxy::toml(toml).start().await
}

/// The breaker as the admin side shows it; its figures must add up.
async fn shown(proxy: &TestProxy) -> serde_json::Value {
    let all = admin::json(proxy.admin(), "/api/status/circuit-breakers").await;
    let shown = all["circuitBreakers"]["app"].clone();
    let count = |name: &str| shown["statistics"][name].as_u64().unwrap();
    assert_eq!(
        count("totalCalls"),
        count("successfulCalls") + count("failedCalls") + count("rejectedCalls"),
        "{shown}"
    );
    shown
}

#[tokio::test]
async fn a_breaker_opens_half_opens_and_closes() {
    let upstream = FakeUpstream::http1().route("*", Reply::status(500, "no")).start().await;
    let proxy = broken(&upstream, "failures = 3\nopen = \"2s\"\nmax_open = \"2s\"\n").await;
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/").await.status, 500);
    }
    let open = get(&proxy, "/").await;
    assert_eq!((open.status, open.header("flagstone-reason")), (503, Some("circuit_open")));
    assert!((1..=3).contains(&open.header("retry-after").unwrap().parse::<u64>().unwrap()), "{open:?}");
    let view = shown(&proxy).await;
    assert!(view["state"] == "OPEN" || view["state"] == "HALF_OPEN", "{view}");
    assert_eq!(view["statistics"]["failedCalls"], 3);
    // A probe that fails opens it again.
    let probed = async || get(&proxy, "/").await.status == 500;
    assert!(eventually_async(DEADLINE, probed).await);
    assert_eq!(get(&proxy, "/").await.status, 503);
    upstream.set_route("*", "yes");
    let closed = async || get(&proxy, "/").await.status == 200;
    assert!(eventually_async(DEADLINE, closed).await);
    let view = shown(&proxy).await;
    assert_eq!((&view["state"], &view["failures"]), (&"CLOSED".into(), &0.into()));
    assert!(view["nextAttemptTime"].is_null(), "{view}");
    let statistics = &view["statistics"];
    assert_eq!((statistics["successfulCalls"].as_u64(), statistics["failedCalls"].as_u64()), (Some(1), Some(4)));
    assert_eq!(metric(&proxy, "flagstone_breaker_state{upstream=\"app\"}").await, 0);
    assert_eq!(metric(&proxy, "flagstone_breaker_transitions_total{upstream=\"app\",to=\"open\"}").await, 2);
    assert_eq!(metric(&proxy, "flagstone_breaker_transitions_total{upstream=\"app\",to=\"closed\"}").await, 1);
}

#[tokio::test]
async fn every_kind_of_failure_counts_and_what_the_client_did_does_not() {
    for (bad, breaker) in [
        (Reply::close(), ""),
        (Reply::reset(), ""),
        (Reply::die_in_head(), ""),
        (Reply::status(599, ""), ""),
        (Reply::hang(), "\n[timeouts]\nresponse_head = \"100ms\"\n"),
    ] {
        let upstream = FakeUpstream::http1().route("*", bad).start().await;
        let proxy = broken(&upstream, &format!("failures = 2\nopen = \"1h\"\nmax_open = \"1h\"\n{breaker}")).await;
        for _ in 0..2 {
            assert_ne!(get(&proxy, "/").await.header("flagstone-reason"), Some("circuit_open"));
        }
        assert_eq!(get(&proxy, "/").await.header("flagstone-reason"), Some("circuit_open"));
        shown(&proxy).await;
    }
    let upstream = FakeUpstream::http1().route("*", Reply::status(404, "")).route("/slow", Reply::hang()).start().await;
    let proxy = broken(&upstream, "failures = 1\n").await;
    assert_eq!(get(&proxy, "/").await.status, 404);
    // A client that leaves, and one that promises a body it does not send.
    let mut leaving = Client::connect(proxy.address()).await.unwrap();
    leaving.request("GET", "/slow", "").await.unwrap();
    assert!(eventually_async(DEADLINE, async || upstream.requests().len() == 2).await);
    leaving.reset();
    let mut broken_off = Client::connect(proxy.address()).await.unwrap();
    broken_off.request("POST", "/", "Content-Length: 100\r\n").await.unwrap();
    broken_off.send("half").await.unwrap();
    drop(broken_off);
    assert!(eventually_async(DEADLINE, async || metric(&proxy, "flagstone_in_flight{route=\"all\"}").await == 0).await);
    assert_eq!(get(&proxy, "/").await.status, 404);
    assert_eq!(shown(&proxy).await["state"], "CLOSED");
}

#[tokio::test]
async fn an_open_breaker_leaves_the_upstream_alone() {
    let upstream = FakeUpstream::http1().on_accept(OnAccept::Reset).start().await;
    let proxy = broken(&upstream, "failures = 1\nopen = \"1h\"\nmax_open = \"1h\"\n").await;
    assert_eq!(get(&proxy, "/").await.status, 502);
    let before = upstream.connections();
    for _ in 0..20 {
        assert_eq!(get(&proxy, "/").await.status, 503);
    }
    assert_eq!(upstream.connections(), before);
    assert_eq!(metric(&proxy, "flagstone_breaker_rejected_total{upstream=\"app\"}").await, 20);
    let wait: u64 = get(&proxy, "/").await.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=4000).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_breaker_in_shadow_rejects_nothing() {
    let upstream = FakeUpstream::http1().route("*", Reply::status(500, "no")).start().await;
    let proxy = broken(&upstream, "failures = 1\nshadow = true\n").await;
    for _ in 0..5 {
        assert_eq!(get(&proxy, "/").await.status, 500);
    }
}

#[tokio::test]
async fn one_probe_at_a_time_goes_through() {
    let upstream = FakeUpstream::http1().route("*", Reply::status(500, "no")).start().await;
    let proxy = broken(&upstream, "failures = 1\nopen = \"100ms\"\nmax_open = \"100ms\"\n").await;
    assert_eq!(get(&proxy, "/").await.status, 500);
    upstream.set_route("*", Reply::ok("yes").after(Duration::from_secs(3)));
    let before = upstream.requests().len();
    let mut probe = Client::connect(proxy.address()).await.unwrap();
    let sent = async || {
        if upstream.requests().len() == before {
            probe.request("GET", "/", "").await.unwrap();
            // Rejected, or on its way.
            return eventually_async(Duration::from_millis(100), async || upstream.requests().len() > before).await
                || probe.read_response().await.unwrap().status != 503;
        }
        true
    };
    assert!(eventually_async(DEADLINE, sent).await);
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/").await.status, 503);
    }
    assert_eq!(shown(&proxy).await["state"], "HALF_OPEN");
    assert_eq!(probe.read_response().await.unwrap().text(), "yes");
    assert_eq!(get(&proxy, "/").await.status, 200);
}
