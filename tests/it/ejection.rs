//! One bad replica: it is left alone for a while, and comes back; the last one standing stays.

use std::time::Duration;

use crate::support::admin;
use crate::support::client::{self, Client};
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::Flagstone;
use crate::support::proxy::{TestProxy, in_turn as to};
use crate::support::reply::Reply;
use crate::support::upstream::{FakeUpstream, OnAccept};

const DEADLINE: Duration = Duration::from_secs(10);

async fn metrics(proxy: &TestProxy) -> String {
    admin::metrics(proxy.admin()).await
}

fn healthy(upstream: &FakeUpstream, value: u8) -> String {
    format!("flagstone_endpoint_healthy{{upstream=\"app\",endpoint=\"{}\"}} {value}", upstream.endpoint())
}

#[tokio::test]
async fn a_replica_that_fails_again_and_again_is_left_alone() {
    let good = FakeUpstream::http1().route("/", "good").start().await;
    let bad = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let rules = "[upstream.app.ejection]\nfailures = 3\n[upstream.app.breaker]\nenabled = false\n";
    let proxy = TestProxy::toml(to(&[&good, &bad], rules)).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(client.get("/").await.unwrap().status);
    }
    assert_eq!(bad.requests().len(), 3, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 3);
    let text = metrics(&proxy).await;
    assert!(text.contains(&healthy(&bad, 0)), "{text}");
    assert!(text.contains(&healthy(&good, 1)), "{text}");
}

#[tokio::test]
async fn the_last_one_standing_is_never_ejected() {
    let bad = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let worse = FakeUpstream::http1().route("/", Reply::status(500, "worse")).start().await;
    let rules = "[upstream.app.ejection]\nfailures = 1\n[upstream.app.breaker]\nenabled = false\n";
    let proxy = TestProxy::toml(to(&[&bad, &worse], rules)).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().status, 500);
    }
    assert_eq!(bad.requests().len() + worse.requests().len(), 20);
    assert_eq!(bad.requests().len().min(worse.requests().len()), 1);
}

/// As by `kill -9` while they have eight uploads each, one while the other is ejected though it is back: that has one cause
/// each, which is not the upstream's as a whole.
#[tokio::test]
async fn replicas_that_die_one_after_the_other_open_no_breaker() {
    let both = [FakeUpstream::http1().start().await, FakeUpstream::http1().start().await];
    let proxy = TestProxy::toml(to(&[&both[0], &both[1]], "")).start().await;
    let address = proxy.address();
    let post = |path: &'static str| async move {
        Client::connect(address).await.unwrap().post(path, "hello").await.unwrap().status
    };
    for (dying, steady, path) in [(&both[0], &both[1], "/first"), (&both[1], &both[0], "/second")] {
        dying.set_route(path, Reply::hang());
        steady.set_route(path, "steady");
        let has = |app: &FakeUpstream| app.requests().iter().filter(|request| request.head.line.contains(path)).count();
        let mut posting = Vec::new();
        while has(dying) < 8 {
            posting.push(tokio::spawn(post(path)));
            assert!(eventually(DEADLINE, || has(dying) + has(steady) == posting.len()).await);
        }
        dying.stop().await;
        let mut failed = 0;
        for posted in posting {
            failed += usize::from(posted.await.unwrap() == 502);
        }
        assert_eq!(failed, 8);
        let seen = admin::breaker(proxy.admin(), "app").await;
        assert_eq!((&seen["state"], &seen["failures"]), (&"CLOSED".into(), &1.into()), "{seen}");
        // Others find it away, and are served all the same.
        while !metrics(&proxy).await.contains(&healthy(dying, 0)) {
            assert_eq!(post(path).await, 200);
        }
        dying.restart().await;
    }
}

/// Where all that comes goes to it first: it answers at once, badly, or it hangs, and all that it has fails at one moment.
#[tokio::test]
async fn what_one_replica_fails_at_opens_no_breaker() {
    for (fault, failing) in [(Reply::status(500, "bad"), 500), (Reply::hang(), 504)] {
        let good = FakeUpstream::http1().route("*", "well").start().await;
        let bad = FakeUpstream::http1().route("*", "well").start().await;
        let by_path = "hash_key = \"uri\"\n[timeouts]\nresponse_head = \"1s\"\n";
        let toml = to(&[&good, &bad], by_path).replace("\"round_robin\"", "\"hash\"");
        let proxy = TestProxy::toml(toml).start().await;
        let address = proxy.address();
        let post = |path: String| async move {
            Client::connect(address).await.unwrap().post(&path, "hello").await.unwrap().status
        };
        // Both have shown that they are well.
        let mut number = 0;
        while good.requests().is_empty() || bad.requests().is_empty() {
            number += 1;
            assert_eq!(post(format!("/{number}")).await, 200);
        }
        let path = bad.requests()[0].head.line.split(' ').nth(1).unwrap().to_owned();
        bad.set_route(&path, fault);
        let failed: Vec<_> = (0..5).map(|_| tokio::spawn(post(path.clone()))).collect();
        for posted in failed {
            assert_eq!(posted.await.unwrap(), failing);
        }
        assert!(metrics(&proxy).await.contains(&healthy(&bad, 0)));
        let seen = admin::breaker(proxy.admin(), "app").await;
        assert_eq!((&seen["state"], &seen["failures"]), (&"CLOSED".into(), &1.into()), "{seen}");
        assert_eq!(post(path).await, 200);
    }
}

#[tokio::test]
async fn it_comes_back_when_its_time_is_over() {
    let good = FakeUpstream::http1().route("/", "good").start().await;
    let flaky = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let rules = "[upstream.app.ejection]\nfailures = 1\nbase = \"3s\"\n[upstream.app.breaker]\nenabled = false\n";
    let proxy = TestProxy::toml(to(&[&good, &flaky], rules)).start().await;
    for _ in 0..4 {
        client::get(proxy.address(), "/").await.unwrap();
    }
    assert_eq!(flaky.requests().len(), 1);
    flaky.set_route("/", "well again");
    let back = async {
        loop {
            if client::get(proxy.address(), "/").await.unwrap().text() == "well again" {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, back).await.expect("it never came back");
    assert!(metrics(&proxy).await.contains(&healthy(&flaky, 1)));
}

#[tokio::test]
async fn refusals_cost_the_visitor_nothing_and_eject() {
    let good = FakeUpstream::http1().route("*", "good").start().await;
    let gone = FakeUpstream::http1().start().await;
    gone.stop().await;
    let rules = "[upstream.app.ejection]\nfailures = 2\n";
    let proxy = TestProxy::toml(to(&[&good, &gone], rules)).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..10 {
        // POST too: nothing was sent.
        assert_eq!(client.post("/x", "body").await.unwrap().text(), "good");
    }
    assert_eq!(good.requests().len(), 10);
    let text = metrics(&proxy).await;
    assert!(text.contains("flagstone_retries_total{upstream=\"app\"} 2"), "{text}");
    assert!(text.contains(&healthy(&gone, 0)), "{text}");
}

#[tokio::test]
async fn one_that_is_ejected_is_asked_when_the_others_take_no_connection() {
    let first = FakeUpstream::http1().route("*", "first").start().await;
    let second = FakeUpstream::http1().route("*", "second").start().await;
    let proxy =
        TestProxy::toml(to(&[&first, &second], "[upstream.app.ejection]\nfailures = 1\nbase = \"1h\"\nmax = \"1h\"\n"));
    let proxy = proxy.start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    first.stop().await;
    for _ in 0..4 {
        assert_eq!(client.get("/").await.unwrap().text(), "second");
    }
    assert!(metrics(&proxy).await.contains(&healthy(&first, 0)));
    // A rolling restart: back, and the other's turn.
    first.restart().await;
    second.stop().await;
    for _ in 0..8 {
        assert_eq!(client.post("/", "order").await.unwrap().text(), "first");
    }
    let text = metrics(&proxy).await;
    assert!(text.contains(&healthy(&first, 1)) && text.contains(&healthy(&second, 0)), "{text}");
}

#[tokio::test]
async fn a_client_that_leaves_is_held_against_nobody() {
    let slow = FakeUpstream::http1().route("/", Reply::hang()).start().await;
    let other = FakeUpstream::http1().route("/", Reply::hang()).start().await;
    let rules = "[upstream.app.ejection]\nfailures = 1\n";
    let proxy = TestProxy::toml(to(&[&slow, &other], rules)).start().await;
    for number in 1..=4 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/", "").await.unwrap();
        let arrived = || slow.requests().len() + other.requests().len() == number;
        assert!(eventually(DEADLINE, arrived).await);
        client.reset();
    }
    let have_left = || proxy.access_log().matches("\" 499 ").count() == 4;
    assert!(eventually(DEADLINE, have_left).await, "{}", proxy.access_log());
    let text = metrics(&proxy).await;
    assert!(text.contains(&healthy(&slow, 1)) && text.contains(&healthy(&other, 1)), "{text}");
}

/// Or an alarm that was raised for it would stay.
#[tokio::test]
async fn one_that_a_reload_takes_back_is_told_as_restored() {
    let good = FakeUpstream::http1().route("*", "good").start().await;
    let bad = FakeUpstream::http1().route("*", Reply::status(500, "bad")).start().await;
    let config = |rules: &str| {
        format!(
            "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n[[listener]]\n\
             name = \"web\"\naddress = \"127.0.0.1:0\"\n{}",
            to(&[&good, &bad], rules)
        )
    };
    let ejection =
        |failures: u32| format!("[upstream.app.ejection]\nfailures = {failures}\nbase = \"1h\"\nmax = \"1h\"\n");
    let health = |expect: &str| format!("[upstream.app.health]\npath = \"/\"\nexpect = \"{expect}\"\n");
    for (before, after) in
        [(ejection(1), ejection(2)), (health("200"), health("200-599")), (health("200"), String::new())]
    {
        let mut flagstone = Flagstone::serve(&config(&before)).await;
        let address = flagstone.address("web").await;
        for _ in 0..2 {
            client::get(address, "/").await.unwrap();
        }
        flagstone.process.stderr_line("Endpoint ejected").await;
        flagstone.folder.write("flagstone.toml", config(&after));
        flagstone.process.stderr_line("Endpoint restored").await;
        let log = flagstone.process.stderr();
        assert_eq!(
            (log.matches("Endpoint ejected").count(), log.matches("Endpoint restored").count()),
            (1, 1),
            "{log}"
        );
    }
}

#[tokio::test]
async fn one_that_comes_back_and_fails_at_once_is_told_as_both() {
    let good = FakeUpstream::http1().route("*", "good").start().await;
    let bad = FakeUpstream::http1().route("*", Reply::status(500, "bad")).start().await;
    let rules = "[upstream.app.ejection]\nfailures = 1\nbase = \"10ms\"\n[upstream.app.breaker]\nenabled = false\n";
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n[[listener]]\n\
         name = \"web\"\naddress = \"127.0.0.1:0\"\n{}",
        to(&[&good, &bad], rules)
    );
    let mut flagstone = Flagstone::serve(&config).await;
    let address = flagstone.address("web").await;
    let told = |log: &str| -> Vec<bool> {
        let ejected =
            log.lines().filter(|line| line.contains("Endpoint ejected") || line.contains("Endpoint restored"));
        ejected.map(|line| line.contains("Endpoint ejected")).collect()
    };
    let enough = async || {
        client::get(address, "/").await.unwrap();
        told(&flagstone.process.stderr()).len() >= 6
    };
    assert!(eventually_async(DEADLINE, enough).await);
    let told = told(&flagstone.process.stderr());
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{}", flagstone.process.stderr());
}

#[tokio::test]
async fn an_endpoint_that_resets_on_accept_is_ejected() {
    let good = FakeUpstream::http1().route("*", "good").start().await;
    let bad = FakeUpstream::http1().on_accept(OnAccept::Reset).start().await;
    let proxy = TestProxy::toml(to(&[&good, &bad], "[upstream.app.ejection]\nfailures = 2\n")).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().text(), "good");
    }
    assert!(metrics(&proxy).await.contains(&healthy(&bad, 0)));
}
