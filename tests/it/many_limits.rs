//! Many limits on one route: each counts by its own key, and all are asked.

use std::fmt::Write as _;

use crate::support::admin;
use crate::support::client::{Client, RawResponse};
use crate::support::proxy::TestProxy;

/// A route behind these limits, in order: name and settings.
async fn proxy(limits: &[(&str, &str)]) -> TestProxy {
    let names: Vec<_> = limits.iter().map(|(name, _)| name).collect();
    let mut toml = format!(
        "[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n[[route]]\nname = \"all\"\nlimits = {names:?}\n\
         respond = {{ body = \"in\" }}\n"
    );
    for (name, settings) in limits {
        writeln!(toml, "[limit.{name}]\n{settings}").unwrap();
    }
    TestProxy::toml(toml).start().await
}

async fn ask(proxy: &TestProxy, ip: &str, api_key: &str) -> RawResponse {
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", &format!("X-Forwarded-For: {ip}\r\nX-Api-Key: {api_key}\r\n")).await.unwrap();
    client.read_response().await.unwrap()
}

#[tokio::test]
async fn each_counts_by_its_own_key() {
    let proxy = proxy(&[
        ("by_ip", "rate = \"100/1h\""),
        ("by_key", "rate = \"2/1h\"\nkey = \"header:X-Api-Key\""),
        ("by_ip_too", "rate = \"3/1h\""),
        ("by_key_too", "rate = \"100/1h\"\nkey = \"header:X-Api-Key\""),
        ("by_net", "rate = \"4/1h\"\nipv6_prefix = 48"),
    ])
    .await;
    let refused_by = async |ip: &str, api_key: &str| {
        let response = ask(&proxy, ip, api_key).await;
        let told = response.header("ratelimit").unwrap().to_owned();
        let used_up = |item: &str| Some(item.split_once(";r=0;")?.0.trim().to_owned());
        (response.status == 429).then(|| told.split(',').filter_map(used_up).collect::<Vec<_>>())
    };
    assert_eq!(refused_by("192.0.2.1", "a").await, None);
    assert_eq!(refused_by("192.0.2.2", "a").await, None);
    assert_eq!(refused_by("192.0.2.3", "a").await, Some(vec!["\"by_key\"".to_owned()]));
    assert_eq!(refused_by("192.0.2.1", "b").await, None);
    assert_eq!(refused_by("192.0.2.1", "c").await, None);
    assert_eq!(refused_by("192.0.2.1", "d").await, Some(vec!["\"by_ip_too\"".to_owned()]));
    for (net, api_key) in [("1", "e"), ("2", "f"), ("3", "g"), ("4", "h")] {
        assert_eq!(refused_by(&format!("2001:db8:0:{net}::1"), api_key).await, None);
    }
    assert_eq!(refused_by("2001:db8:0:5::1", "i").await, Some(vec!["\"by_net\"".to_owned()]));
}

#[tokio::test]
async fn of_a_hundred_the_nearest_are_told_and_every_one_counts() {
    let settings: Vec<_> = (0..100).map(|n| (format!("l{n}"), format!("rate = \"{}/1h\"", 200 - n))).collect();
    let limits: Vec<_> = settings.iter().map(|(name, settings)| (name.as_str(), settings.as_str())).collect();
    let proxy = proxy(&limits).await;
    for used in 1..=101 {
        let response = ask(&proxy, "192.0.2.1", "").await;
        assert_eq!(response.status, 200, "{used}");
        let told = response.header("ratelimit").unwrap();
        let nearest: Vec<_> = told.split(", ").map(|item| item.rsplit_once(';').unwrap().0).collect();
        let expected: Vec<_> = (92..100).map(|n| format!("\"l{n}\";r={}", 200 - n - used)).collect();
        assert_eq!(nearest, expected);
        let policy: Vec<_> = (92..100).map(|n| format!("\"l{n}\";q={};w=3600", 200 - n)).collect();
        assert_eq!(response.header("ratelimit-policy"), Some(policy.join(", ").as_str()), "of the lowest rates");
    }
    let refused = ask(&proxy, "192.0.2.1", "").await;
    assert_eq!(refused.status, 429);
    assert!(refused.header("ratelimit").unwrap().contains("\"l99\";r=0;"));
    let (_, status) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    for n in 0..100 {
        let limit = &status["limits"][format!("l{n}")];
        assert_eq!((&limit["allowed"], &limit["keys"]), (&101.into(), &1.into()), "l{n}");
        assert_eq!(limit["limited"], u64::from(n == 99));
    }
}

#[tokio::test]
async fn one_of_several_that_exempts_is_neither_asked_nor_counted() {
    let proxy = proxy(&[("strict", "rate = \"1/1h\"\nexempt = [\"10.0.0.0/8\"]"), ("wide", "rate = \"100/1h\"")]).await;
    for _ in 0..3 {
        let response = ask(&proxy, "10.1.1.1", "").await;
        assert_eq!(response.status, 200);
        assert!(response.header("ratelimit").unwrap().starts_with("\"wide\";"));
    }
    assert_eq!(ask(&proxy, "192.0.2.1", "").await.status, 200);
    assert_eq!(ask(&proxy, "192.0.2.1", "").await.status, 429);
    let (_, status) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    assert_eq!((&status["limits"]["strict"]["allowed"], &status["limits"]["wide"]["allowed"]), (&1.into(), &4.into()));
}
