//! Who gets how much.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::support::client::Client;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Signal, stop};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

async fn three() -> [FakeUpstream; 3] {
    let start = async |name: &str| FakeUpstream::http1().route("*", name).start().await;
    [start("a").await, start("b").await, start("c").await]
}

fn to(upstreams: &[FakeUpstream; 3], tables: [&str; 3], extra: &str) -> String {
    let endpoints = upstreams.iter().zip(tables);
    let endpoints: Vec<_> =
        endpoints.map(|(u, table)| format!("{{ address = \"{}\"{table} }}", u.endpoint())).collect();
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [{}]\n{extra}",
        endpoints.join(", ")
    )
}

async fn shares(proxy: &TestProxy, count: usize, headers: impl Fn(usize) -> String) -> BTreeMap<String, usize> {
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let mut shares = BTreeMap::new();
    for number in 0..count {
        client.request("GET", "/", &headers(number)).await.unwrap();
        *shares.entry(client.read_response().await.unwrap().text()).or_default() += 1;
    }
    shares
}

fn counts(shares: &BTreeMap<String, usize>) -> [usize; 3] {
    ["a", "b", "c"].map(|name| shares.get(name).copied().unwrap_or(0))
}

#[tokio::test]
async fn round_robin_is_exact_by_weight() {
    let apps = three().await;
    let toml = to(&apps, [", weight = 3", "", ", weight = 2"], "balance = \"round_robin\"\n");
    let proxy = TestProxy::toml(toml).start().await;
    assert_eq!(counts(&shares(&proxy, 60, |_| String::new()).await), [30, 10, 20]);
}

#[tokio::test]
async fn idle_endpoints_share_by_weight_with_two_choices() {
    for balance in ["least_requests", "peak_ewma"] {
        let apps = three().await;
        let proxy = TestProxy::toml(to(&apps, ["", "", ""], &format!("balance = \"{balance}\"\n"))).start().await;
        let counts = counts(&shares(&proxy, 150, |_| String::new()).await);
        if balance == "least_requests" {
            assert!(counts.iter().all(|count| (20..=85).contains(count)), "{balance}: {counts:?}");
        }
        assert_eq!(counts.iter().sum::<usize>(), 150);
    }
}

#[tokio::test]
async fn peak_ewma_leaves_the_slow_one_to_rest() {
    let apps = three().await;
    apps[1].set_route("*", Reply::ok("b").after(Duration::from_millis(150)));
    let proxy = TestProxy::toml(to(&apps, ["", "", ""], "balance = \"peak_ewma\"\n")).start().await;
    let counts = counts(&shares(&proxy, 60, |_| String::new()).await);
    assert!(counts[1] <= 6, "{counts:?}");
}

#[tokio::test]
async fn peak_ewma_knows_the_slow_one_after_a_reload() {
    let apps = three().await;
    apps[1].set_route("*", Reply::ok("b").after(Duration::from_millis(500)));
    let toml = to(&apps, ["", "", ""], "balance = \"peak_ewma\"\n");
    let proxy = TestProxy::toml(&toml).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let slow_is_known = async || client.get("/").await.unwrap().text() == "b";
    assert!(eventually_async(DEADLINE, slow_is_known).await);
    proxy.reload_with(&format!("{toml}max_in_flight = 500\n")).await;
    let counts = counts(&shares(&proxy, 60, |_| String::new()).await);
    assert_eq!(counts[1], 0, "{counts:?}");
}

#[tokio::test]
async fn peak_ewma_does_not_take_failing_fast_for_being_fast() {
    let tables = "balance = \"peak_ewma\"\n[upstream.app.ejection]\nfailures = 0\n\
                  [upstream.app.breaker]\nenabled = false\n[upstream.app.retry]\nattempts = 0\n";
    // The last of them takes no connection.
    for failure in [Some(Reply::status(503, "no")), Some(Reply::status(429, "no")), Some(Reply::reset()), None] {
        let apps = three().await;
        for (app, name) in apps.iter().zip(["a", "b", "c"]) {
            app.set_route("*", Reply::ok(name).after(Duration::from_millis(20)));
        }
        match failure.clone() {
            Some(reply) => apps[1].set_route("*", reply),
            None => apps[1].stop().await,
        }
        let proxy = TestProxy::toml(to(&apps, ["", "", ""], tables)).start().await;
        let counts = counts(&shares(&proxy, 30, |_| String::new()).await);
        assert!(counts[0] + counts[2] >= 27, "{failure:?}: {counts:?}");
    }
}

#[tokio::test]
async fn time_in_which_the_process_stood_still_is_nobodys_latency() {
    let apps = three().await;
    let word = Arc::new(Notify::new());
    for app in &apps {
        app.set_route("/asleep", Reply::ok("late").at(&word));
    }
    let mut flagstone = Flagstone::serve(&format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n{}",
        to(&apps, ["", "", ", backup = true"], "balance = \"peak_ewma\"\n")
    ))
    .await;
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    client.request("GET", "/asleep", "").await.unwrap();
    let asked = || apps.iter().position(|app| !app.requests().is_empty());
    assert!(eventually(Duration::from_secs(10), || asked().is_some()).await);
    stop(&flagstone.process).await;
    word.notify_one();
    // The pause itself, not a wait for something.
    tokio::time::sleep(Duration::from_secs(3)).await;
    flagstone.process.signal(Signal::CONT);
    assert_eq!(client.read_response().await.unwrap().text(), "late");
    let asked = &apps[asked().unwrap()];
    for _ in 0..10 {
        client.get("/").await.unwrap();
    }
    assert!(asked.requests().len() > 1, "it is taken for the slowest of all");
}

#[tokio::test]
async fn least_requests_avoids_the_busy_one() {
    let apps = three().await;
    for app in &apps {
        app.set_route("/hang", Reply::hang());
    }
    let proxy = TestProxy::toml(to(&apps, ["", "", ""], "")).start().await;
    // Some endpoint is kept busy by one request that never ends.
    let mut stuck = Client::connect(proxy.address()).await.unwrap();
    stuck.request("GET", "/hang", "").await.unwrap();
    let busy = || apps.iter().position(|app| !app.requests().is_empty());
    assert!(eventually(Duration::from_secs(10), || busy().is_some()).await);
    let busy = busy().unwrap();
    let counts = counts(&shares(&proxy, 60, |_| String::new()).await);
    assert_eq!(counts[busy], 0, "{counts:?}: two choices always find an idle one");
}

#[tokio::test]
async fn a_backup_is_used_only_when_no_primary_can() {
    let apps = three().await;
    let proxy = TestProxy::toml(to(&apps, ["", "", ", backup = true"], "hold = \"10s\"\n")).start().await;
    assert_eq!(counts(&shares(&proxy, 30, |_| String::new()).await)[2], 0);
    apps[0].stop().await;
    apps[1].stop().await;
    assert_eq!(counts(&shares(&proxy, 30, |_| String::new()).await), [0, 0, 30]);
    apps[0].restart().await;
    let back = async { while shares(&proxy, 1, |_| String::new()).await.contains_key("c") {} };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("the primary was never used again");
}

#[tokio::test]
async fn a_hash_key_sticks_and_few_keys_move_when_an_endpoint_leaves() {
    let apps = three().await;
    let toml = to(&apps, ["", "", ""], "balance = \"hash\"\nhash_key = \"header:X-User\"\nhold = \"10s\"\n");
    let proxy = TestProxy::toml(toml).start().await;
    let who = async |user: usize| {
        let share = shares(&proxy, 3, |_| format!("X-User: {user}\r\n")).await;
        assert_eq!(share.len(), 1, "user {user} went to {share:?}");
        share.into_keys().next().unwrap()
    };
    let mut before = Vec::new();
    for user in 0..40 {
        before.push(who(user).await);
    }
    for name in ["a", "b", "c"] {
        assert!((3..=30).contains(&before.iter().filter(|other| *other == name).count()), "{before:?}");
    }
    apps[2].stop().await;
    for (user, place) in before.iter().enumerate() {
        let now = who(user).await;
        assert!(place == "c" || now == *place, "user {user} moved from {place} to {now}");
    }
}

#[tokio::test]
async fn every_instance_and_every_run_places_keys_alike() {
    let apps = three().await;
    for key in ["header:X-User", "cookie:user", "uri", "client_ip"] {
        let toml = to(&apps, ["", ", weight = 3", ""], &format!("balance = \"hash\"\nhash_key = \"{key}\"\n"));
        let trusting = format!("[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n{toml}");
        // Its file names the endpoints in another order.
        let turned = trusting.replace("endpoints = [", "endpoints = [{ address = \"127.0.0.1:1\", backup = true }, ");
        let (one, other) = (TestProxy::toml(trusting).start().await, TestProxy::toml(turned).start().await);
        let places = async |proxy: &TestProxy| {
            let mut client = Client::connect(proxy.address()).await.unwrap();
            let mut places = Vec::new();
            // Ports are others in each run: of so many keys each of the three has one, but for about one run of 10^9.
            for user in 0..100 {
                let fields = format!("X-User: {user}\r\nCookie: user={user}\r\nX-Forwarded-For: 192.0.2.{user}\r\n");
                client.request("GET", &format!("/{user}"), &fields).await.unwrap();
                places.push(client.read_response().await.unwrap().text());
            }
            places
        };
        let before = places(&one).await;
        assert!(["a", "b", "c"].iter().all(|name| before.iter().any(|place| place == name)), "{key}: {before:?}");
        assert_eq!(places(&other).await, before, "{key}");
    }
}

#[tokio::test]
async fn requests_without_a_key_are_spread() {
    let apps = three().await;
    let toml = to(&apps, ["", "", ""], "balance = \"hash\"\nhash_key = \"header:X-User\"\n");
    let proxy = TestProxy::toml(toml).start().await;
    let counts = counts(&shares(&proxy, 150, |_| String::new()).await);
    assert!(counts.iter().all(|count| (20..=85).contains(count)), "{counts:?}");
}

#[tokio::test]
async fn what_returns_starts_with_a_small_share() {
    let apps = three().await;
    apps[0].stop().await;
    let toml = to(&apps, ["", "", ""], "balance = \"round_robin\"\nhold = \"10s\"\nslow_start = \"5m\"\n");
    let proxy = TestProxy::toml(toml).start().await;
    assert_eq!(counts(&shares(&proxy, 10, |_| String::new()).await)[0], 0);
    apps[0].restart().await;
    let back = async { while !shares(&proxy, 20, |_| String::new()).await.contains_key("a") {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("it was never used again");
    // A tenth of a third.
    let counts = counts(&shares(&proxy, 300, |_| String::new()).await);
    assert!((1..=45).contains(&counts[0]), "{counts:?}");
}
