//! Names whose addresses come and go.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use flagstone::upstream::Resolver;

use crate::support::admin;
use crate::support::client::{self, Client};
use crate::support::dns::{DnsServer, Mood};
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Several on one port, each at an address of its own.
pub(crate) async fn replicas(count: u8) -> Vec<FakeUpstream> {
    let first = FakeUpstream::http1().route("/", "replica 1").start().await;
    let port = first.address().port();
    let mut all = vec![first];
    for number in 2..=count {
        let address = SocketAddr::from((ip(number), port));
        let body = format!("replica {number}");
        all.push(FakeUpstream::http1().route("/", body).address(address).start().await);
    }
    all
}

pub(crate) fn ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

/// In front of what `dns` tells of `name`, which is asked anew all the time.
pub(crate) async fn proxy(dns: SocketAddr, name: &str, port: u16, extra: &str) -> TestProxy {
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{name}:{port}\"]\n\
         dns_refresh = \"100ms\"\nbalance = \"round_robin\"\n{extra}"
    );
    TestProxy::toml(toml).resolver(Resolver::from_servers(&[dns])).start().await
}

/// Whoever answers in some rounds.
async fn answering(proxy: &TestProxy) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        seen.insert(client::get(proxy.address(), "/").await.unwrap().text());
    }
    seen
}

pub(crate) async fn becomes(proxy: &TestProxy, numbers: &[u8]) {
    let wanted: BTreeSet<_> = numbers.iter().map(|number| format!("replica {number}")).collect();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen = answering(proxy).await;
        if seen == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{seen:?} instead of {wanted:?}");
    }
}

#[tokio::test]
async fn scaling_up_and_down_is_followed_without_an_error() {
    let (replicas, dns) = (replicas(3).await, DnsServer::start(0).await);
    dns.set("app.test", &[ip(1)]);
    let proxy = proxy(dns.address(), "app.test", replicas[0].address().port(), "").await;
    becomes(&proxy, &[1]).await;
    let load = Load::get(proxy.address(), "/").tasks(4).pause(Duration::from_millis(1)).start();
    dns.set("app.test", &[ip(1), ip(2), ip(3)]);
    becomes(&proxy, &[1, 2, 3]).await;
    dns.set("app.test", &[ip(2)]);
    becomes(&proxy, &[2]).await;
    load.stop().await.assert_clean();
    // What was kept to the others is closed, and nothing new is kept.
    let drained = || replicas[0].open_connections() + replicas[2].open_connections() == 0;
    assert!(eventually(DEADLINE, drained).await);
    let metrics = admin::metrics(proxy.admin()).await;
    let label = format!("app.test:{}", replicas[0].address().port());
    assert!(metrics.contains(&format!("flagstone_endpoint_healthy{{upstream=\"app\",endpoint=\"{label}\"}} 1")));
}

/// `docker compose up --scale app=3` and back: containers come with their addresses and go without waiting for anybody.
#[tokio::test]
async fn scaling_with_containers_is_followed_within_the_ttl_and_costs_no_request() {
    const TTL: Duration = Duration::from_secs(2);
    /// For a machine under load. `dns_refresh` is 30 s, so it is the TTL that is followed.
    const SLACK: Duration = Duration::from_secs(6);
    let (replicas, dns) = (replicas(3).await, DnsServer::start(TTL.as_secs() as u32).await);
    let label = format!("app.test:{}", replicas[0].address().port());
    replicas[1].stop().await;
    replicas[2].stop().await;
    dns.set("app.test", &[ip(1)]);
    let toml = format!("[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{label}\"]\n");
    let proxy = TestProxy::toml(toml).resolver(Resolver::from_servers(&[dns.address()])).start().await;
    let load = Load::get(proxy.address(), "/").tasks(8).pause(Duration::from_millis(2)).start();
    assert!(load.reaches(50, DEADLINE).await);
    for _ in 0..2 {
        replicas[1].restart().await;
        replicas[2].restart().await;
        let before = [replicas[1].requests().len(), replicas[2].requests().len()];
        dns.set("app.test", &[ip(1), ip(2), ip(3)]);
        let are_used = || replicas[1].requests().len() > before[0] && replicas[2].requests().len() > before[1];
        assert!(eventually(TTL + SLACK, are_used).await, "the new replicas are not used");
        assert!(load.reaches(50, DEADLINE).await);
        replicas[1].stop().await;
        replicas[2].stop().await;
        dns.set("app.test", &[ip(1)]);
        let until = Instant::now() + TTL + SLACK;
        loop {
            let health = admin::json(proxy.admin(), "/api/health").await;
            if health["checks"]["app"]["endpoints"].as_object().unwrap().len() == 1 {
                break;
            }
            assert!(Instant::now() < until, "the replicas that are gone are still endpoints: {health}");
        }
        assert!(load.reaches(50, DEADLINE).await);
    }
    load.stop().await.assert_clean();
}

#[tokio::test]
async fn a_name_unknown_at_the_start_does_not_stop_it() {
    let (replicas, dns) = (replicas(1).await, DnsServer::start(0).await);
    let proxy = proxy(dns.address(), "app.test", replicas[0].address().port(), "").await;
    let response = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((response.status, response.header("flagstone-reason")), (503, Some("no_endpoint")));
    let health = admin::json(proxy.admin(), "/api/health").await;
    assert_eq!(health["checks"]["app"]["error"], "no name has an address", "{health}");
    dns.set("app.test", &[ip(1)]);
    let deadline = Instant::now() + DEADLINE;
    while client::get(proxy.address(), "/").await.unwrap().status != 200 {
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn requests_held_for_a_name_go_on_when_it_appears() {
    let (replicas, dns) = (replicas(1).await, DnsServer::start(0).await);
    let proxy = proxy(dns.address(), "app.test", replicas[0].address().port(), "hold = \"20s\"\n").await;
    let address = proxy.address();
    let held = tokio::spawn(async move { client::get(address, "/").await.unwrap().text() });
    assert!(eventually(DEADLINE, || dns.asked() >= 2).await);
    dns.set("app.test", &[ip(1)]);
    assert_eq!(held.await.unwrap(), "replica 1");
}

/// `docker compose up --force-recreate app`, where answers about names live for ten minutes. Without waiting for them:
/// `dns_refresh` is half a minute.
#[tokio::test]
async fn a_container_that_returns_at_another_address_is_found_at_once() {
    let (replicas, dns) = (replicas(2).await, DnsServer::start(600).await);
    let port = replicas[0].address().port();
    for (hold, meanwhile) in [("0s", 502), ("20s", 200)] {
        dns.set("app.test", &[ip(1)]);
        let toml = format!(
            "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"app.test:{port}\"]\n\
             hold = \"{hold}\"\nbreaker = {{ enabled = false }}\n"
        );
        let proxy = TestProxy::toml(toml).resolver(Resolver::from_servers(&[dns.address()])).start().await;
        becomes(&proxy, &[1]).await;
        replicas[0].stop().await;
        let address = proxy.address();
        let waiting = tokio::spawn(async move { client::get(address, "/").await.unwrap().status });
        let before = dns.asked();
        assert!(eventually(DEADLINE, || dns.asked() > before).await, "{hold}: nobody asked");
        dns.set("app.test", &[ip(2)]);
        assert_eq!(waiting.await.unwrap(), meanwhile, "{hold}");
        let is_found = async || client::get(address, "/").await.unwrap().text() == "replica 2";
        assert!(eventually_async(DEADLINE, is_found).await, "{hold}");
        replicas[0].restart().await;
    }
}

#[tokio::test]
async fn an_address_that_comes_back_has_no_more_places_than_are_free() {
    comes_back_full("").await;
}

#[tokio::test]
async fn an_address_that_comes_back_after_a_reload_has_no_more_places_than_are_free() {
    comes_back_full("idle_timeout = \"5s\"\n").await;
}

/// `changed` is reloaded while the address is away.
async fn comes_back_full(changed: &str) {
    let (replicas, dns) = (replicas(2).await, DnsServer::start(0).await);
    replicas[0].set_route("/slow", Reply::hang());
    dns.set("app.test", &[ip(1)]);
    let proxy = proxy(dns.address(), "app.test", replicas[0].address().port(), "max_in_flight = 1\n").await;
    becomes(&proxy, &[1]).await;
    let mut slow = Client::connect(proxy.address()).await.unwrap();
    slow.request("GET", "/slow", "").await.unwrap();
    let is_there = || replicas[0].requests().iter().any(|request| request.head.line.contains("/slow"));
    assert!(eventually(DEADLINE, is_there).await);
    for number in [2, 1] {
        dns.set("app.test", &[ip(number)]);
        let label = format!("{}:{}", ip(number), replicas[0].address().port());
        let is_known = async || {
            let health = admin::json(proxy.admin(), "/api/health").await;
            health["checks"]["app"]["endpoints"].get(&label).is_some()
        };
        assert!(eventually_async(DEADLINE, is_known).await);
        if number == 2 {
            proxy.reload_with(&(proxy.folder.read("flagstone.toml") + changed)).await;
        }
    }
    let full = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((full.status, full.header("flagstone-reason")), (503, Some("no_endpoint")));
    slow.reset();
    let is_free = async || client::get(proxy.address(), "/").await.unwrap().text() == "replica 1";
    assert!(eventually_async(DEADLINE, is_free).await);
}

/// As long as no server has an answer, the last one stays in force: for each family by itself.
#[tokio::test]
async fn a_family_that_fails_keeps_its_addresses_and_the_other_one_is_followed() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let (replicas, dns) = (replicas(2).await, DnsServer::start(0).await);
    let port = replicas[0].address().port();
    let _third =
        FakeUpstream::http1().route("/", "replica 3").address((Ipv6Addr::LOCALHOST, port).into()).start().await;
    for mood in [Mood::Fails, Mood::Silent] {
        dns.set("app.test", &[ip(1)]);
        dns.set_v6("app.test", &[Ipv6Addr::LOCALHOST]);
        dns.set_mood_v6(Mood::Well);
        let proxy = proxy(dns.address(), "app.test", port, "").await;
        becomes(&proxy, &[1, 3]).await;
        dns.set_mood_v6(mood);
        dns.set("app.test", &[ip(1), ip(2)]);
        // Once more, for the first time some may have been asked before and some after the change.
        becomes(&proxy, &[1, 2, 3]).await;
        becomes(&proxy, &[1, 2, 3]).await;
        // What has no address any more has none; what fails is another matter.
        dns.set_v6("app.test", &[]);
        dns.set_mood_v6(Mood::Well);
        becomes(&proxy, &[1, 2]).await;
    }
}
