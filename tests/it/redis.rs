//! Limits that several instances count together, against a real Redis: agreeing, away, hung, back, guarded.

use std::time::{Duration, Instant};

use flagstone::upstream::Resolver;
use serde_json::json;

use crate::support::admin;
use crate::support::blackhole::Blackhole;
use crate::support::certs::Ca;
use crate::support::client::{self, Client, RawResponse};
use crate::support::dns::DnsServer;
use crate::support::files::Folder;
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::port::Port;
use crate::support::process::{Flagstone, Process, Signal, stop};
use crate::support::proxy::TestProxy;
use crate::support::redis::{Make, Redis};

pub(super) const DEADLINE: Duration = Duration::from_secs(15);

fn toml(url: &str, redis: &str, limit: &str) -> String {
    format!(
        "[redis]\nurl = \"{url}\"\n{redis}\n[[route]]\nname = \"all\"\nlimits = [\"l\"]\n\
         respond = {{ status = 200, body = \"in\" }}\n[limit.l]\nstore = \"redis\"\n{limit}\n"
    )
}

pub(super) async fn proxy(url: &str, redis: &str, limit: &str) -> TestProxy {
    let proxy = TestProxy::toml(toml(url, redis, limit)).start().await;
    assert!(reachable(&proxy, true).await);
    proxy
}

/// Whether the store comes to be reachable, or not.
pub(super) async fn reachable(proxy: &TestProxy, wanted: bool) -> bool {
    eventually_async(DEADLINE, async || {
        let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
        limits["limits"]["l"]["storeReachable"] == wanted
    })
    .await
}

pub(super) async fn get(proxy: &TestProxy, path: &str) -> RawResponse {
    client::get(proxy.address(), path).await.unwrap()
}

/// What an alert would see of the store.
async fn up(proxy: &TestProxy) -> Option<u64> {
    let scrape = admin::metrics(proxy.admin()).await;
    scrape.lines().find_map(|line| line.strip_prefix("flagstone_limit_store_up{limit=\"l\"} "))?.parse().ok()
}

async fn status(proxy: &TestProxy) -> u16 {
    get(proxy, "/").await.status
}

#[tokio::test]
async fn instances_share_what_a_client_has_used() {
    let redis = or_left_out!(Redis::start().await);
    let limit = "rate = \"3/1h\"";
    let first = proxy(&redis.url(), "timeout = \"5s\"", limit).await;
    let second = proxy(&redis.url(), "timeout = \"5s\"", limit).await;
    assert_eq!(get(&first, "/").await.header("ratelimit"), Some("\"l\";r=2;t=1200"));
    assert_eq!(get(&second, "/").await.header("ratelimit"), Some("\"l\";r=1;t=1200"));
    assert_eq!(status(&first).await, 200);
    for proxy in [&second, &first, &second] {
        let refused = get(proxy, "/").await;
        assert_eq!((refused.status, refused.header("flagstone-reason")), (429, Some("rate_limited")));
        let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1190..=1200).contains(&retry), "{retry}");
    }
    let keys = redis.ask("KEYS *", "\r\n").await;
    assert_eq!(keys, "*1\r\n", "one key a client, and what the probe left is gone");
}

#[tokio::test]
async fn of_the_addresses_of_its_name_one_that_is_silent_leaves_time_for_the_next() {
    let hole = Blackhole::dig();
    let port = hole.address().port();
    let _redis = or_left_out!(Redis::start_on(Make::Redis, port, &["--bind", "127.0.0.2"]).await);
    let dns = DnsServer::start(60).await;
    dns.set("redis.test", &[[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]);
    let text = toml(&format!("redis://redis.test:{port}"), "", "rate = \"3/1h\"");
    let proxy = TestProxy::toml(text).resolver(Resolver::from_servers(&[dns.address()])).start().await;
    assert!(reachable(&proxy, true).await);
}

#[tokio::test]
async fn a_known_offender_costs_redis_nothing() {
    let redis = or_left_out!(Redis::start().await);
    let proxy = proxy(&redis.url(), "timeout = \"5s\"", "rate = \"2/1h\"").await;
    for expected in [200, 200, 429] {
        assert_eq!(status(&proxy).await, expected);
    }
    assert!(redis.runs().await >= 2);
    assert_costs_nothing(&redis, &proxy).await;
}

/// Redis is asked now and then whether it is there, and that is all.
async fn assert_costs_nothing(redis: &Redis, proxy: &TestProxy) {
    let before = redis.runs().await;
    for _ in 0..60 {
        assert_eq!(status(proxy).await, 429);
    }
    let runs = redis.runs().await - before;
    assert!(runs < 30, "{runs}");
}

#[tokio::test]
async fn the_shared_count_agrees_with_the_local_one() {
    let redis = or_left_out!(Redis::start().await);
    let toml = format!(
        "[redis]\nurl = \"{}\"\ntimeout = \"5s\"\n\
         [[route]]\nname = \"shared\"\npath = [\"/shared\"]\nlimits = [\"l\"]\nrespond = {{ status = 200 }}\n\
         [[route]]\nname = \"local\"\npath = [\"/local\"]\nlimits = [\"here\"]\nrespond = {{ status = 200 }}\n\
         [limit.l]\nstore = \"redis\"\nrate = \"20/1s\"\nburst = 9\n[limit.here]\nrate = \"20/1s\"\nburst = 9\n",
        redis.url()
    );
    let proxy = TestProxy::toml(toml).start().await;
    assert!(reachable(&proxy, true).await);
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let (mut shared, mut local, mut sent) = (0u32, 0u32, 0u32);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        for _ in 0..fastrand::u32(1..20) {
            sent += 1;
            shared += u32::from(client.get("/shared").await.unwrap().status == 200);
            local += u32::from(client.get("/local").await.unwrap().status == 200);
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..300))).await;
    }
    assert!(local < sent, "some must have been refused");
    assert!(shared.abs_diff(local) <= 3, "{shared} shared, {local} local, of {sent}");
}

#[tokio::test]
async fn three_processes_let_through_what_one_would() {
    let redis = or_left_out!(Redis::start().await);
    let rate = 100.0;
    let config = format!(
        "[server]\nstate_dir = \"state\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}",
        toml(&redis.url(), "timeout = \"10s\"", "rate = \"100/1s\"\nburst = 400\nkey = \"global\"")
    );
    let mut processes = Vec::new();
    for _ in 0..3 {
        let mut flagstone = Flagstone::serve(&config).await;
        flagstone.process.stderr_line("the shared store of limits is up").await;
        let address = flagstone.address("web").await;
        processes.push((flagstone, address));
    }
    // From one moment at which the bucket is empty to another. In between it is asked for more than comes in, or for
    // no longer than it takes to fill, so that nothing is lost of what comes.
    let begun = Instant::now();
    let empty = async || {
        let mut passed = 0;
        loop {
            let before = begun.elapsed().as_secs_f64();
            match client::get(processes[0].1, "/").await.unwrap().status {
                200 => passed += 1,
                _ => return (passed, before, begun.elapsed().as_secs_f64()),
            }
        }
    };
    let (_, first_before, first_after) = empty().await;
    let load = |address| Load::get(address, "/").tasks(2).accept(&[200, 429]).start();
    let loads: Vec<_> = processes.iter().map(|(_, address)| load(*address)).collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut passed = 0;
    for load in loads {
        let report = load.stop().await;
        report.assert_clean();
        passed += report.statuses.get(&200).copied().unwrap_or(0);
    }
    let (rest, last_before, last_after) = empty().await;
    let passed = (passed + rest) as f64;
    // One more or less at each end: the bucket may hold a part of one, and a process may still refuse what it knew of.
    let (least, most) = (rate * (last_before - first_after) - 2.0, rate * (last_after - first_before) + 2.0);
    assert!(passed >= least * 0.99 && passed <= most * 1.01, "{passed}, not from {least} to {most}");
}

#[tokio::test]
async fn while_redis_is_gone_each_instance_counts_for_itself() {
    let port = Port::reserve();
    let start = || Redis::start_on(Make::Redis, port.number(), &[]);
    let redis = or_left_out!(start().await);
    let proxy = proxy(&redis.url(), "timeout = \"2s\"", "rate = \"4/1h\"").await;
    assert_eq!(status(&proxy).await, 200);
    drop(redis);
    for expected in [200, 200, 200, 429, 429] {
        assert_eq!(status(&proxy).await, expected, "what was used before counts here too");
    }
    assert!(reachable(&proxy, false).await);
    assert_eq!(up(&proxy).await, Some(0));
    let redis = start().await.unwrap();
    assert!(reachable(&proxy, true).await, "back by itself");
    assert_eq!(up(&proxy).await, Some(1));
    let other = TestProxy::toml(toml(&redis.url(), "timeout = \"5s\"", "rate = \"4/1h\"")).start().await;
    assert!(reachable(&other, true).await);
    for expected in [200, 200, 200, 200, 429] {
        assert_eq!(status(&other).await, expected, "the new Redis knows of nothing");
    }
}

#[tokio::test]
async fn a_hung_redis_costs_its_timeout_once_and_is_back_by_itself() {
    let redis = or_left_out!(Redis::start().await);
    let proxy = proxy(&redis.url(), "timeout = \"1s\"\non_error = \"allow\"", "rate = \"1/1h\"").await;
    assert_eq!(status(&proxy).await, 200);
    assert_eq!(status(&proxy).await, 429);
    // Another key, which nothing is known about, so that Redis is asked.
    let change = json!({ "rate": "100000/1s" });
    assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/limits/l", Some(change)).await.0, 200);
    stop(&redis.process).await;
    let begun = Instant::now();
    for _ in 0..40 {
        assert_eq!(status(&proxy).await, 200);
    }
    // Had each waited for its timeout it would have been forty seconds.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(reachable(&proxy, false).await);
    redis.process.signal(Signal::CONT);
    assert!(reachable(&proxy, true).await);
    let before = redis.runs().await;
    for _ in 0..40 {
        assert_eq!(status(&proxy).await, 200);
    }
    assert!(redis.runs().await >= before + 40, "it is asked again");
}

#[tokio::test]
async fn a_redis_that_goes_while_nobody_asks_is_missed_all_the_same() {
    let redis = or_left_out!(Redis::start().await);
    let proxy = proxy(&redis.url(), "timeout = \"1s\"", "rate = \"4/1h\"").await;
    stop(&redis.process).await;
    assert!(reachable(&proxy, false).await);
    redis.process.signal(Signal::CONT);
    assert!(reachable(&proxy, true).await, "back by itself");
    drop(redis);
    assert!(reachable(&proxy, false).await);
}

#[tokio::test]
async fn each_reason_of_an_outage_is_told() {
    let port = Port::reserve();
    let redis = or_left_out!(Redis::start_on(Make::Redis, port.number(), &[]).await);
    let mut flagstone = Flagstone::serve(&format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n{}",
        toml(&redis.url(), "timeout = \"5s\"", "rate = \"1/1h\"")
    ))
    .await;
    flagstone.process.stderr_line("the shared store of limits is up").await;
    drop(redis);
    flagstone.process.stderr_line("the shared store of limits is down").await;
    let _redis = Redis::start_on(Make::Redis, port.number(), &["--requirepass", "s3cret"]).await.unwrap();
    flagstone.process.stderr_line("uthentication required").await;
}

/// A start waits a second for it, in which nothing runs yet that could stand still.
#[tokio::test]
async fn a_start_that_waits_for_redis_is_no_pause_of_the_process() {
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", hangs.local_addr().unwrap());
    let mut flagstone = Flagstone::serve(&format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n{}",
        toml(&url, "timeout = \"5s\"", "rate = \"1/1h\"")
    ))
    .await;
    // Whoever answers there has looked for a pause.
    let admin = flagstone.admin().await;
    admin::json(admin, "/api/status").await;
    flagstone.process.signal(Signal::TERM);
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
    let stderr = flagstone.process.stderr();
    assert!(!stderr.contains("stood still"), "{stderr}");
}

#[tokio::test]
async fn a_key_of_another_type_is_no_outage() {
    let redis = or_left_out!(Redis::start().await);
    let proxy = proxy(&redis.url(), "timeout = \"5s\"", "rate = \"9/1h\"").await;
    assert_eq!(status(&proxy).await, 200);
    let spoil = "for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', k) redis.call('LPUSH', k, 'x') end";
    redis.ask(&format!("EVAL \"{spoil}\" 0"), "\r\n").await;
    for _ in 0..5 {
        assert_eq!(status(&proxy).await, 200);
        let limits = admin::json(proxy.admin(), "/api/status/limits").await;
        assert_eq!(limits["limits"]["l"]["storeReachable"], true, "{limits}");
    }
}

#[tokio::test]
async fn what_on_error_says_holds_where_redis_never_was() {
    let port = Port::reserve();
    let nobody = format!("redis://{}", port.address());
    for (url, on_error, expected) in [
        (nobody.clone(), "local", [200, 429]),
        (nobody.clone(), "allow", [200, 200]),
        (nobody, "deny", [429, 429]),
        ("redis://nowhere.invalid:6379".to_owned(), "local", [200, 429]),
    ] {
        let toml = toml(&url, &format!("on_error = \"{on_error}\""), "rate = \"1/1h\"");
        let proxy = TestProxy::toml(toml).start().await;
        for expected in expected {
            let response = get(&proxy, "/").await;
            assert_eq!(response.status, expected, "{url} {on_error}");
            assert_eq!(response.header("retry-after").is_some(), expected == 429);
        }
    }
}

#[tokio::test]
async fn an_outage_that_lets_all_in_lets_in_who_was_over_the_limit() {
    let redis = or_left_out!(Redis::start().await);
    let proxy = proxy(&redis.url(), "timeout = \"5s\"\non_error = \"allow\"", "rate = \"1/1h\"").await;
    assert_eq!([status(&proxy).await, status(&proxy).await], [200, 429]);
    drop(redis);
    assert!(reachable(&proxy, false).await);
    assert_eq!([status(&proxy).await, status(&proxy).await], [200, 200]);
}

#[tokio::test]
async fn a_limit_that_lets_all_in_is_not_blamed_for_what_another_one_refuses() {
    let redis = or_left_out!(Redis::start().await);
    let limits = "rate = \"1/1h\"\n[limit.tight]\nrate = \"2/1m\"";
    let toml = toml(&redis.url(), "timeout = \"5s\"\non_error = \"allow\"", limits);
    let proxy = TestProxy::toml(toml.replace("[\"l\"]", "[\"l\", \"tight\"]")).start().await;
    assert!(reachable(&proxy, true).await);
    assert_eq!([status(&proxy).await, status(&proxy).await], [200, 429]);
    drop(redis);
    assert!(reachable(&proxy, false).await);
    assert_eq!(status(&proxy).await, 200);
    let refused = get(&proxy, "/").await;
    assert_eq!(refused.status, 429);
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(retry_after <= 30, "{refused:?}");
    assert!(refused.header("ratelimit").unwrap().contains("\"l\";r=1;"), "{refused:?}");
    let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
    let limited = |name: &str| limits["limits"][name]["limited"].as_u64();
    assert_eq!((limited("l"), limited("tight")), (Some(1), Some(1)), "{limits}");
}

#[tokio::test]
async fn neither_a_start_nor_other_settings_are_an_outage() {
    let redis = or_left_out!(Redis::start().await);
    let with = |timeout: u32| {
        let settings = format!("timeout = \"{timeout}s\"\non_error = \"deny\"");
        toml(&redis.url(), &settings, "rate = \"1000000/1s\"")
    };
    let proxy = TestProxy::toml(with(5)).start().await;
    assert_eq!(status(&proxy).await, 200, "the first request finds it connected");
    let load = Load::get(proxy.address(), "/").tasks(4).start();
    for timeout in 6..16 {
        assert!(load.reaches(50, DEADLINE).await);
        proxy.reload_with(&with(timeout)).await;
    }
    load.stop().await.assert_clean();
}

#[tokio::test]
async fn a_restart_that_forgets_the_script_is_not_noticed() {
    let redis = or_left_out!(Redis::start().await);
    let proxy = proxy(&redis.url(), "timeout = \"5s\"", "rate = \"3/1h\"").await;
    assert_eq!(status(&proxy).await, 200);
    assert!(redis.ask("SCRIPT FLUSH", "\r\n").await.starts_with("+OK"));
    for expected in [200, 200, 429] {
        assert_eq!(status(&proxy).await, expected);
    }
}

/// As where the clock of Redis is set back, or a larger limit has left more behind than this one can owe.
#[tokio::test]
async fn what_stands_in_redis_costs_nobody_more_than_the_limit() {
    let redis = or_left_out!(Redis::start().await);
    let proxy = proxy(&redis.url(), "timeout = \"5s\"", "rate = \"10/1h\"").await;
    for _ in 0..4 {
        assert_eq!(status(&proxy).await, 200);
    }
    let put = async |pattern: &str, number: &str| {
        let text = format!("(string.gsub(redis.call('GET', k), '{pattern}', '{number}'))");
        let each =
            format!("for _, k in ipairs(redis.call('KEYS', 'flagstone:l:*')) do redis.call('SET', k, {text}) end");
        redis.ask(&format!("EVAL \"{each}\" 0"), "\r\n").await;
    };
    // Written in the future.
    put("%d+$", "9999999999999999").await;
    let told = get(&proxy, "/").await;
    assert!(told.header("ratelimit").is_some_and(|told| told.starts_with("\"l\";r=5;")), "{told:?}");
    put("^%d+", "99999999999999999").await;
    let refused = get(&proxy, "/").await;
    let wait: u64 = refused.header("retry-after").expect("it is refused").parse().unwrap();
    assert!(wait <= 360, "a tenth of an hour is what one request takes: {wait}");
}

#[tokio::test]
async fn a_changed_rate_keeps_what_was_used_in_redis() {
    let redis = or_left_out!(Redis::start().await);
    let proxy = proxy(&redis.url(), "timeout = \"5s\"", "rate = \"10/1h\"").await;
    for _ in 0..4 {
        assert_eq!(status(&proxy).await, 200);
    }
    let change = json!({ "rate": "6/1m" });
    assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/limits/l", Some(change)).await.0, 200);
    let told = get(&proxy, "/").await;
    assert_eq!(told.header("ratelimit"), Some("\"l\";r=1;t=10"), "four of six were used, this is the fifth");
}

#[tokio::test]
async fn those_who_wait_take_turns_over_all_instances_and_give_them_back() {
    let redis = or_left_out!(Redis::start().await);
    let limit = "rate = \"1/1h\"\nburst = 1\nqueue = 1";
    let first = proxy(&redis.url(), "timeout = \"5s\"", limit).await;
    let second = proxy(&redis.url(), "timeout = \"5s\"", limit).await;
    let queued = async |proxy: &TestProxy| {
        let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
        limits["limits"]["l"]["queued"].as_u64().unwrap()
    };
    assert_eq!(status(&first).await, 200);
    let mut waiting = Client::connect(first.address()).await.unwrap();
    waiting.request("GET", "/", "").await.unwrap();
    assert!(eventually_async(DEADLINE, async || queued(&first).await == 1).await);
    // A separate instance has heard nothing of it but what Redis says.
    assert_eq!(status(&second).await, 429, "the one place in the queue is taken");
    drop(waiting);
    assert!(eventually(DEADLINE, || first.access_log().contains("\" 499 ")).await);
    // The place is free again in Redis; `second` still remembers what it was told, so the first one asks.
    let mut again = Client::connect(first.address()).await.unwrap();
    let joins = eventually_async(DEADLINE, async || {
        again = Client::connect(first.address()).await.unwrap();
        again.request("GET", "/", "").await.unwrap();
        eventually_async(Duration::from_millis(500), async || queued(&first).await == 2).await
    });
    assert!(joins.await);
}

/// What it was charged with here is given back once. In Redis it may be refused as well as charged when nobody waits for
/// the answer any more, so that stays: who is over the limit is not to earn a request by leaving.
#[tokio::test]
async fn a_client_that_leaves_while_redis_is_asked_gets_back_what_it_had() {
    let redis = or_left_out!(Redis::start().await);
    let here = "[limit.here]\nrate = \"5/1h\"\n";
    let limit = format!("rate = \"10/1h\"\nkey = \"global\"\n{here}key = \"global\"");
    let toml = toml(&redis.url(), "timeout = \"10s\"", &limit).replace("[\"l\"]", "[\"here\", \"l\"]");
    let proxy = TestProxy::toml(toml).start().await;
    assert!(reachable(&proxy, true).await);
    let runs = redis.runs().await;
    stop(&redis.process).await;
    let mut leaving = Client::connect(proxy.address()).await.unwrap();
    leaving.request("GET", "/left", "").await.unwrap();
    let is_charged = async || {
        let (_, limits) = admin::call(proxy.admin(), "GET", "/api/status/limits", None).await;
        limits["limits"]["here"]["keys"] == 1
    };
    assert!(eventually_async(DEADLINE, is_charged).await);
    leaving.reset();
    assert!(eventually(DEADLINE, || proxy.access_log().contains("\" 499 ")).await);
    redis.process.signal(Signal::CONT);
    assert!(eventually_async(DEADLINE, async || redis.runs().await == runs + 1).await);
    let told = get(&proxy, "/").await;
    let left = |limit: &str| {
        let told = told.header("ratelimit").unwrap().split(',').find(|told| told.contains(limit)).unwrap();
        told.split(';').find_map(|part| part.trim().strip_prefix("r=")).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!((left("here"), left("\"l\"")), (4, 8));
}

#[tokio::test]
async fn an_acl_user_may_do_all_that_is_needed() {
    an_acl_user_suffices(Make::Redis).await;
}

async fn an_acl_user_suffices(make: Make) {
    // From a file: the versions of Redis do not agree on how an argument with spaces is read.
    let folder = Folder::new();
    let users = folder.write(
        "users.acl",
        "user default off\nuser flag on >s3cret ~flagstone:* +evalsha +script|load +time +get +set +del +cluster|slots\n",
    );
    let further = ["--aclfile", users.to_str().unwrap()];
    let redis = or_left_out!(Redis::start_with(make, &further).await);
    let url = format!("redis://flag:s3cret@127.0.0.1:{}", redis.port);
    let proxy = proxy(&url, "timeout = \"5s\"", "rate = \"1/1h\"").await;
    for expected in [200, 429] {
        assert_eq!(status(&proxy).await, expected);
    }
    let wrong = format!("redis://flag:wrong@127.0.0.1:{}", redis.port);
    let wrong = TestProxy::toml(toml(&wrong, "on_error = \"deny\"", "rate = \"9/1h\"")).start().await;
    assert_eq!(status(&wrong).await, 429);
}

#[tokio::test]
async fn tls_is_verified_against_the_given_roots() {
    let (folder, ca) = (Folder::new(), Ca::new());
    let (cert, key) = ca.leaf(&["localhost"]).write(&folder, "redis");
    let roots = folder.write("ca.pem", ca.pem());
    let [cert, key, roots] = [&cert, &key, &roots].map(|path| path.to_str().unwrap().to_owned());
    let kept = Port::reserve();
    let port = kept.number().to_string();
    let further = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        &roots,
    ];
    let _redis = or_left_out!(Redis::start_on(Make::Redis, 0, &further).await);
    let config = |further: &str, ca: &str| {
        format!(
            "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}",
            toml(
                &format!("rediss://localhost:{port}{further}"),
                &format!("timeout = \"5s\"\non_error = \"deny\"\n{ca}"),
                "rate = \"1/1h\""
            )
        )
    };
    let (up, down) = ("the shared store of limits is up", "the shared store of limits is down");
    let stranger = folder.write("stranger.pem", Ca::new().pem());
    let ca = |file: &str| format!("ca = \"{file}\"\n");
    for (further, ca, environment, line) in [
        ("", String::new(), Some(&roots), up),
        ("", ca(&roots), None, up),
        ("", ca(&roots), stranger.to_str().map(str::to_owned).as_ref(), up),
        ("", ca(stranger.to_str().unwrap()), Some(&roots), down),
        ("#insecure", String::new(), None, up),
        ("", String::new(), None, down),
    ] {
        let folder = Folder::new();
        let file = folder.write("flagstone.toml", config(further, &ca));
        let mut command = Flagstone::command(["run", "-c", file.to_str().unwrap()]);
        command.env_remove("SSL_CERT_FILE");
        if let Some(roots) = environment {
            command.env("SSL_CERT_FILE", roots);
        }
        let mut process = Process::start(&mut command);
        process.stderr_line(line).await;
    }
}

#[tokio::test]
async fn under_load_it_may_die_hang_and_come_back() {
    let port = Port::reserve();
    let start = || Redis::start_on(Make::Redis, port.number(), &[]);
    let redis = or_left_out!(start().await);
    let proxy = proxy(&redis.url(), "timeout = \"1s\"", "rate = \"1000000/1s\"").await;
    let load = Load::get(proxy.address(), "/").tasks(4).pause(Duration::from_millis(1)).start();
    assert!(load.reaches(100, DEADLINE).await);
    drop(redis);
    assert!(reachable(&proxy, false).await);
    assert!(load.reaches(100, DEADLINE).await, "requests go on");
    let redis = start().await.unwrap();
    assert!(reachable(&proxy, true).await);
    for _ in 0..2 {
        stop(&redis.process).await;
        assert!(reachable(&proxy, false).await);
        assert!(load.reaches(100, DEADLINE).await, "requests go on");
        redis.process.signal(Signal::CONT);
        assert!(reachable(&proxy, true).await);
    }
    assert!(load.reaches(100, DEADLINE).await);
    load.stop().await.assert_clean();
}

/// What holds for Debian's Redis 7 in the tests above, once over with another server.
async fn counts_as_redis_does(make: Make) {
    let redis = or_left_out!(Redis::start_with(make, &[]).await);
    let limit = "rate = \"10/1h\"";
    let first = proxy(&redis.url(), "timeout = \"5s\"", limit).await;
    let second = proxy(&redis.url(), "timeout = \"5s\"", limit).await;
    assert_eq!(get(&first, "/").await.header("ratelimit"), Some("\"l\";r=9;t=360"));
    assert_eq!(get(&second, "/").await.header("ratelimit"), Some("\"l\";r=8;t=360"));
    assert!(redis.ask("SCRIPT FLUSH", "\r\n").await.starts_with("+OK"));
    assert_eq!(get(&first, "/").await.header("ratelimit"), Some("\"l\";r=7;t=360"), "the script is brought again");
    for proxy in [&first, &second] {
        let change = json!({ "rate": "6/1m" });
        assert_eq!(admin::call(proxy.admin(), "POST", "/api/admin/limits/l", Some(change)).await.0, 200);
    }
    for (proxy, expected) in [(&first, 200), (&second, 200), (&first, 200), (&second, 429), (&first, 429)] {
        assert_eq!(status(proxy).await, expected, "three of six were used before the rate changed");
    }
    assert_costs_nothing(&redis, &first).await;
    stop(&redis.process).await;
    // The key's other bucket: nothing is known of it, so the server is asked, and given up on.
    let change = json!({ "rate": "100000/1s" });
    assert_eq!(admin::call(first.admin(), "POST", "/api/admin/limits/l", Some(change)).await.0, 200);
    assert_eq!(status(&first).await, 200);
    assert!(reachable(&first, false).await);
    redis.process.signal(Signal::CONT);
    assert!(reachable(&first, true).await);
    an_acl_user_suffices(make).await;
}

#[tokio::test]
async fn redis_6_counts_too() {
    counts_as_redis_does(Make::Redis6).await;
}

#[tokio::test]
async fn valkey_counts_too() {
    counts_as_redis_does(Make::Valkey).await;
}
