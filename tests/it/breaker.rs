//! The breaker as visitors and operators meet it.

use std::time::Duration;

use crate::support::admin;
use crate::support::client::{self, Client};
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{Flagstone, Signal, stop};
use crate::support::proxy::TestProxy;
use crate::support::reply::{Reply, Step};
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(10);

fn to(upstream: &FakeUpstream, extra: &str) -> String {
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n{extra}",
        upstream.endpoint()
    )
}

async fn breaker(proxy: &TestProxy) -> serde_json::Value {
    admin::breaker(proxy.admin(), "app").await
}

#[tokio::test]
async fn an_open_breaker_answers_at_once_and_asks_nobody() {
    let app = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let proxy = TestProxy::toml(to(&app, "[upstream.app.breaker]\nfailures = 3\n")).start().await;
    for _ in 0..3 {
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 500);
    }
    let refused = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (503, Some("circuit_open")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=33).contains(&wait), "{wait}");
    assert_eq!(app.requests().len(), 3);
    let seen = breaker(&proxy).await;
    assert_eq!((&seen["state"], &seen["statistics"]["rejectedCalls"]), (&"OPEN".into(), &1.into()));
    assert_eq!(breaker(&proxy).await["nextAttemptTime"], seen["nextAttemptTime"], "the same whenever it is asked for");
    let metrics = admin::metrics(proxy.admin()).await;
    assert!(metrics.contains("flagstone_breaker_state{upstream=\"app\"} 2"), "{metrics}");
    let health = admin::ask(proxy.admin(), "GET", "/api/health/summary").await;
    assert_eq!(health.status, 503);
}

/// An app that closes without a word may have failed, or have waited for its client for long enough.
#[tokio::test]
async fn an_app_that_tires_of_a_slow_client_has_not_failed() {
    for (patience, state) in [(Duration::ZERO, "OPEN"), (Duration::from_millis(1500), "CLOSED")] {
        let tired = Reply::default().then(Step::Wait(patience)).then(Step::Close);
        let app = FakeUpstream::http1().route("*", tired).start().await;
        let proxy = TestProxy::toml(to(&app, "[upstream.app.breaker]\nfailures = 1\n")).start().await;
        for first in ["", "hello"] {
            let mut client = Client::connect(proxy.address()).await.unwrap();
            client.request("POST", "/upload", "Content-Length: 10\r\n").await.unwrap();
            client.send(first).await.unwrap();
            let answer = client.read_response().await.unwrap();
            let is_refused = answer.status == 503 && state == "OPEN" && first == "hello";
            assert!(answer.status == 502 || is_refused, "{}", answer.status);
        }
        assert_eq!(breaker(&proxy).await["state"], state);
    }
}

#[tokio::test]
async fn what_the_client_does_and_4xx_never_count() {
    let app = FakeUpstream::http1().route("/hang", Reply::hang()).route("/", "well").start().await;
    let proxy = TestProxy::toml(to(&app, "[upstream.app.breaker]\nfailures = 1\n")).start().await;
    for number in 1..=3 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/hang", "").await.unwrap();
        assert!(eventually(DEADLINE, || app.requests().len() == number).await);
        client.reset();
    }
    let have_left = || proxy.access_log().matches("\" 499 ").count() == 3;
    assert!(eventually(DEADLINE, have_left).await, "{}", proxy.access_log());
    for _ in 0..3 {
        assert_eq!(client::get(proxy.address(), "/nowhere").await.unwrap().status, 404);
    }
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "well");
    assert_eq!(breaker(&proxy).await["state"], "CLOSED");
}

#[tokio::test]
async fn an_answer_that_is_too_slow_is_a_failure() {
    let app = FakeUpstream::http1().route("/", "quick").start().await;
    app.set_route("/slow", Reply::ok("late").after(Duration::from_millis(400)));
    let rules = "[upstream.app.breaker]\nfailures = 2\nslow_call = \"300ms\"\nopen = \"1h\"\nmax_open = \"1h\"\n";
    let proxy = TestProxy::toml(to(&app, rules)).start().await;
    for _ in 0..2 {
        assert_eq!(client::get(proxy.address(), "/slow").await.unwrap().text(), "late");
    }
    assert_eq!(breaker(&proxy).await["state"], "OPEN");
    let slow_is_fine = TestProxy::toml(to(&app, "[upstream.app.breaker]\nfailures = 2\n")).start().await;
    for _ in 0..3 {
        assert_eq!(client::get(slow_is_fine.address(), "/slow").await.unwrap().text(), "late");
    }
    assert_eq!(breaker(&slow_is_fine).await["statistics"]["failedCalls"], 0);
}

#[tokio::test]
async fn the_time_that_a_client_takes_to_send_is_no_slow_answer() {
    let app = FakeUpstream::http1().route("/", "quick").start().await;
    let rules = "[upstream.app.breaker]\nfailures = 1\nslow_call = \"2s\"\n";
    let proxy = TestProxy::toml(to(&app, rules)).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let upload = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\norder";
    // Byte by byte only its body: three seconds.
    client.send(&upload[..upload.len() - 5]).await.unwrap();
    client.send_slowly(&upload[upload.len() - 5..], 1, Duration::from_millis(600)).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().text(), "quick");
    let seen = breaker(&proxy).await;
    assert_eq!((&seen["state"], &seen["statistics"]["failedCalls"]), (&"CLOSED".into(), &0.into()), "{seen}");
}

#[tokio::test]
async fn what_is_a_failure_is_configured() {
    let app =
        FakeUpstream::http1().route("/", Reply::status(500, "bad")).route("/404", Reply::status(404, "")).start().await;
    let asked = async |count: &str, path: &str| {
        let proxy = TestProxy::toml(to(&app, &format!("[upstream.app.breaker]\nfailures = 1\ncount = {count}\n")))
            .start()
            .await;
        client::get(proxy.address(), path).await.unwrap();
        breaker(&proxy).await["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(asked("[\"connect\", \"timeout\", \"reset\"]", "/").await, "CLOSED");
    assert_eq!(asked("[\"500-599\"]", "/").await, "OPEN");
    assert_eq!(asked("[\"404\"]", "/404").await, "OPEN");
    app.stop().await;
    assert_eq!(asked("[\"500-599\"]", "/").await, "CLOSED");
    assert_eq!(asked("[\"connect\"]", "/").await, "OPEN");
}

/// Its client gets an error of the upstream's, and so does whoever counts those.
#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_failure() {
    let switching = Reply::raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    let app = FakeUpstream::http1().route("/", switching).start().await;
    let rules = "[upstream.app.breaker]\nfailures = 2\n[upstream.app.retry]\nattempts = 0\n";
    let proxy = TestProxy::toml(to(&app, rules)).start().await;
    for reason in ["upstream_error", "upstream_error", "circuit_open"] {
        let answer = client::get(proxy.address(), "/").await.unwrap();
        assert_eq!(answer.header("flagstone-reason"), Some(reason));
    }
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn a_probe_without_a_verdict_frees_its_place() {
    let rude = Reply::default().then(Step::Close);
    let app = FakeUpstream::http1().route("/bad", Reply::status(500, "bad")).route("/rude", rude).route("/", "well");
    let app = app.start().await;
    let rules = "[upstream.app.breaker]\nfailures = 1\nopen = \"100ms\"\ncount = [\"500-599\"]\n";
    let proxy = TestProxy::toml(to(&app, rules)).start().await;
    let status = async |path: &str| client::get(proxy.address(), path).await.unwrap().status;
    assert_eq!(status("/bad").await, 500);
    assert!(eventually_async(DEADLINE, async || status("/rude").await == 502).await);
    for _ in 0..3 {
        assert_eq!(status("/rude").await, 502);
        assert_eq!(breaker(&proxy).await["state"], "HALF_OPEN");
    }
    assert_eq!(status("/").await, 200);
    let seen = breaker(&proxy).await;
    let calls = |kind: &str| seen["statistics"][format!("{kind}Calls")].as_u64().unwrap();
    assert_eq!((&seen["state"], calls("successful"), calls("failed")), (&"CLOSED".into(), 1, 1));
    assert_eq!(calls("total"), 2 + calls("rejected"));
}

#[tokio::test]
async fn after_closing_traffic_grows_from_a_tenth() {
    let app = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let rules = "[upstream.app.breaker]\nfailures = 1\nopen = \"50ms\"\nramp = \"1h\"\n";
    let proxy = TestProxy::toml(to(&app, rules)).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 500);
    app.set_route("/", "well");
    let deadline = std::time::Instant::now() + DEADLINE;
    while client::get(proxy.address(), "/").await.unwrap().status != 200 {
        assert!(std::time::Instant::now() < deadline);
    }
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let mut passed = 0;
    for _ in 0..300 {
        passed += usize::from(client.get("/").await.unwrap().status == 200);
    }
    // 30 of them by chance; further away than this once in a million runs.
    assert!((8..=60).contains(&passed), "{passed} of 300");
    assert_eq!(breaker(&proxy).await["state"], "CLOSED");
}

#[tokio::test]
async fn a_429_lowers_the_ratio_and_is_no_failure_in_a_row() {
    let app = FakeUpstream::http1().route("/", Reply::status(429, "slower")).start().await;
    let by_row = "[upstream.app.breaker]\nfailures = 2\nfailure_ratio = 0.0\n";
    let by_ratio = "[upstream.app.breaker]\nfailures = 2\nfailure_ratio = 0.5\nmin_requests = 4\n";
    for (rule, states) in [(by_row, ["CLOSED"; 4]), (by_ratio, ["CLOSED", "CLOSED", "CLOSED", "OPEN"])] {
        let proxy = TestProxy::toml(to(&app, rule)).start().await;
        for state in states {
            assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 429);
            assert_eq!(breaker(&proxy).await["state"], state, "{rule}");
        }
    }
}

#[tokio::test]
async fn a_probe_that_its_client_abandons_frees_its_place() {
    let app = FakeUpstream::http1().route("/", Reply::status(500, "bad")).route("/hang", Reply::hang()).start().await;
    let rules = "[upstream.app.breaker]\nfailures = 1\nopen = \"100ms\"\n";
    let proxy = TestProxy::toml(to(&app, rules)).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 500);
    app.set_route("/", "well");
    let deadline = std::time::Instant::now() + DEADLINE;
    while breaker(&proxy).await["state"] != "HALF_OPEN" {
        assert!(std::time::Instant::now() < deadline);
    }
    let mut probe = Client::connect(proxy.address()).await.unwrap();
    probe.request("GET", "/hang", "").await.unwrap();
    assert!(eventually(DEADLINE, || app.requests().len() == 2).await);
    // Its only probe is on its way.
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().header("flagstone-reason"), Some("circuit_open"));
    probe.reset();
    while client::get(proxy.address(), "/").await.unwrap().status != 200 {
        assert!(std::time::Instant::now() < deadline, "the probe's place is lost");
    }
    let seen = breaker(&proxy).await;
    assert_eq!((&seen["state"], &seen["statistics"]["failedCalls"]), (&"CLOSED".into(), &1.into()), "{seen}");
}

#[tokio::test]
async fn the_status_has_the_shape_that_scripts_read() {
    let app = FakeUpstream::http1().route("/", Reply::status(500, "bad")).route("/well", "well").start().await;
    let proxy = TestProxy::toml(to(&app, "[upstream.app.breaker]\nfailures = 2\nopen = \"1m\"\n")).start().await;
    let all = async || admin::json(proxy.admin(), "/api/status/circuit-breakers").await;
    let figures = |total: u64, successful: u64, failed: u64, rejected: u64| {
        serde_json::json!({
            "totalCalls": total, "successfulCalls": successful, "failedCalls": failed, "rejectedCalls": rejected
        })
    };
    client::get(proxy.address(), "/well").await.unwrap();
    client::get(proxy.address(), "/").await.unwrap();
    let closed = serde_json::json!({ "state": "CLOSED", "failures": 1, "statistics": figures(2, 1, 1, 0) });
    assert_eq!(all().await, serde_json::json!({ "circuitBreakers": { "app": closed } }));
    for _ in 0..3 {
        client::get(proxy.address(), "/").await.unwrap();
    }
    let mut open = all().await["circuitBreakers"]["app"].take();
    let next: jiff::Timestamp = open["nextAttemptTime"].take().as_str().unwrap().parse().unwrap();
    let left = next.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((30..=66).contains(&left), "{left} s until the next attempt");
    let expected = serde_json::json!({
        "state": "OPEN", "failures": 2, "nextAttemptTime": null, "statistics": figures(5, 1, 2, 2)
    });
    assert_eq!(open, expected);
    // What it keeps out is down, though the app may be well.
    let services = admin::json(proxy.admin(), "/api/status/services").await;
    let down = serde_json::json!({ "registered": true, "initialized": true, "ready": false });
    assert_eq!(services, serde_json::json!({ "services": { "app": down } }));
    admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/app/reset").await;
    let services = admin::json(proxy.admin(), "/api/status/services").await;
    assert_eq!(services["services"]["app"]["ready"], true);
}

/// A line each, message first: `grep -c` counts them.
#[tokio::test]
async fn the_log_tells_of_every_change() {
    let shaky = FakeUpstream::http1().route("*", Reply::status(500, "bad")).start().await;
    let good = FakeUpstream::http1().route("*", "good").start().await;
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [host]\nmemory_percent = 0\ndisk_percent = 0\ncpu_percent = 0\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n[[route]]\nname = \"two\"\npath = [\"/two\"]\nupstream = \"two\"\n\
         [upstream.two]\nendpoints = [\"{0}\", \"{1}\"]\nbalance = \"round_robin\"\nbreaker = {{ enabled = false }}\n\
         ejection = {{ failures = 1, base = \"200ms\" }}\n{2}",
        shaky.endpoint(),
        good.endpoint(),
        to(&shaky, "[upstream.app.breaker]\nfailures = 2\nopen = \"3s\"\n")
    );
    let mut flagstone = Flagstone::serve(&config).await;
    let address = flagstone.address("web").await;
    client::get(address, "/two").await.unwrap();
    client::get(address, "/two").await.unwrap();
    let label = shaky.endpoint();
    let line = flagstone.process.stderr_line("Endpoint ejected").await;
    assert!(line.contains("upstream=two") && line.contains(&format!("endpoint={label}")), "{line}");
    assert!(line.contains("reason=consecutive_failures"), "{line}");
    let line = flagstone.process.stderr_line("Endpoint restored").await;
    assert!(line.contains("upstream=two") && line.contains(&format!("endpoint={label}")), "{line}");
    for _ in 0..2 {
        client::get(address, "/").await.unwrap();
    }
    let line = flagstone.process.stderr_line("Circuit breaker opened").await;
    assert!(line.contains("upstream=app reason=consecutive_failures failure=500"), "{line}");
    let line = flagstone.process.stderr_line("Health changed").await;
    assert!(line.contains("from=healthy") && line.contains("to=unhealthy") && line.contains("check=app"), "{line}");
    shaky.set_route("*", "well");
    flagstone.process.stderr_line("Circuit breaker half-open").await;
    let deadline = std::time::Instant::now() + DEADLINE;
    while client::get(address, "/").await.unwrap().status != 200 {
        assert!(std::time::Instant::now() < deadline);
    }
    flagstone.process.stderr_line("Circuit breaker closed").await;
    let is_well = || flagstone.process.stderr().contains("from=unhealthy to=healthy");
    assert!(eventually(DEADLINE, is_well).await, "{}", flagstone.process.stderr());
}

#[tokio::test]
async fn while_open_the_fallback_answers() {
    let app = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let spare = FakeUpstream::http1().route("/", "spare").start().await;
    let extra = format!(
        "[upstream.app.breaker]\nfailures = 1\nfallback = \"spare\"\n[upstream.spare]\nendpoints = [\"{}\"]\n",
        spare.endpoint()
    );
    let proxy = TestProxy::toml(to(&app, &extra)).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 500);
    for _ in 0..3 {
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "spare");
    }
    assert_eq!((app.requests().len(), spare.requests().len()), (1, 3));
    // Nobody is turned away: no reason for a balancer to take the instance out.
    let summary = async || admin::ask(proxy.admin(), "GET", "/api/health/summary").await;
    let degraded = summary().await;
    assert_eq!(degraded.status, 200, "{}", degraded.text());
    assert!(degraded.text().contains("\"degraded\""), "{}", degraded.text());
    // With the fallback open too, the answer is the refusal.
    admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/spare/open").await;
    let refused = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (503, Some("circuit_open")));
    assert_eq!(summary().await.status, 503);
}

#[tokio::test]
async fn when_the_fallback_opens_earlier_it_says_when_to_come_back() {
    let app = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let extra = format!(
        "[upstream.app.breaker]\nfailures = 1\nopen = \"1h\"\nmax_open = \"1h\"\nfallback = \"spare\"\n\
         [upstream.spare]\nendpoints = [\"{}\"]\n[upstream.spare.breaker]\nfailures = 1\nopen = \"1m\"\n",
        app.endpoint()
    );
    let proxy = TestProxy::toml(to(&app, &extra)).start().await;
    for _ in 0..2 {
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 500);
    }
    let refused = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (503, Some("circuit_open")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=66).contains(&wait), "{wait}");
}

#[tokio::test]
async fn in_shadow_it_counts_and_rejects_nothing() {
    let app = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let proxy = TestProxy::toml(to(&app, "[upstream.app.breaker]\nfailures = 2\nshadow = true\n")).start().await;
    for _ in 0..6 {
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 500);
    }
    assert_eq!(app.requests().len(), 6);
    let metrics = admin::metrics(proxy.admin()).await;
    assert!(metrics.contains("flagstone_breaker_rejected_total{upstream=\"app\"} 4"), "{metrics}");
    assert!(metrics.contains("flagstone_breaker_transitions_total{upstream=\"app\",to=\"open\"} 1"), "{metrics}");
    assert!(metrics.contains("flagstone_breaker_shadow{upstream=\"app\"} 1"), "{metrics}");
    let breakers = admin::json(proxy.admin(), "/api/status/circuit-breakers").await;
    assert_eq!(breakers["circuitBreakers"]["app"]["shadow"], true, "{breakers}");
}

#[tokio::test]
async fn the_api_forces_it_open_and_closes_it() {
    let app = FakeUpstream::http1().route("/", "well").start().await;
    let proxy = TestProxy::toml(to(&app, "")).start().await;
    let opened = admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/app/open").await;
    assert_eq!(opened.status, 200);
    assert!(opened.text().contains("\"state\":\"OPEN\""), "{}", opened.text());
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 503);
    let closed = admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/app/reset").await;
    assert_eq!(closed.status, 200);
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    let unknown = admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/nobody/reset").await;
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
}

/// How often the breaker of `app` has been told as closed.
async fn times_closed(proxy: &TestProxy) -> u32 {
    let metrics = admin::metrics(proxy.admin()).await;
    let line = "flagstone_breaker_transitions_total{upstream=\"app\",to=\"closed\"} ";
    metrics.lines().find_map(|found| found.strip_prefix(line)).map_or(0, |times| times.parse().unwrap())
}

/// Or an alarm that its opening has raised would stay.
#[tokio::test]
async fn a_breaker_that_a_reload_closes_is_told_as_closed() {
    let app = FakeUpstream::http1().route("/", Reply::status(500, "bad")).start().await;
    let rules = |rules: &str| to(&app, &format!("[upstream.app.breaker]\n{rules}\n"));
    let proxy = TestProxy::toml(rules("failures = 1")).start().await;
    for (number, changed) in [(1, "failures = 2"), (2, "enabled = false")] {
        while breaker(&proxy).await["state"] != "OPEN" {
            client::get(proxy.address(), "/").await.unwrap();
        }
        proxy.reload_with(&rules(changed)).await;
        assert_eq!(times_closed(&proxy).await, number, "{changed}");
    }
}

#[tokio::test]
async fn what_an_operator_has_opened_stays_so_over_a_reload_of_its_rules() {
    let app = FakeUpstream::http1().route("/", "well").route("/bad", Reply::status(500, "bad")).start().await;
    let rules = |failures: u32| to(&app, &format!("[upstream.app.breaker]\nfailures = {failures}\n"));
    let proxy = TestProxy::toml(rules(1)).start().await;
    client::get(proxy.address(), "/").await.unwrap();
    admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/app/open").await;
    proxy.reload_with(&rules(2)).await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().header("flagstone-reason"), Some("circuit_open"));
    assert_eq!(times_closed(&proxy).await, 0);
    let seen = breaker(&proxy).await;
    assert_eq!((&seen["state"], &seen["statistics"]["successfulCalls"]), (&"OPEN".into(), &0.into()), "{seen}");
    admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/app/reset").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "well");
    // What opened by its own rules begins anew with them.
    proxy.reload_with(&rules(1)).await;
    client::get(proxy.address(), "/bad").await.unwrap();
    assert_eq!(breaker(&proxy).await["state"], "OPEN");
    proxy.reload_with(&rules(3)).await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "well");
}

#[tokio::test]
async fn the_command_line_lists_opens_and_resets_over_tcp_and_unix() {
    let app = FakeUpstream::http1().route("/", "well").start().await;
    for listen in ["127.0.0.1:0", "unix:admin.sock"] {
        let config = format!(
            "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"{listen}\"\n[[listener]]\nname = \"web\"\n\
             address = \"127.0.0.1:0\"\n{}",
            to(&app, "")
        );
        let mut flagstone = Flagstone::serve(&config).await;
        let address = flagstone.address("web").await;
        let file = flagstone.config().display().to_string();
        let mut place = vec!["-c".to_owned(), file];
        if listen.ends_with(":0") {
            place.extend(["--admin".to_owned(), flagstone.admin().await.to_string()]);
        } else {
            flagstone.process.stderr_line("admin listening").await;
        }
        let run = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).chain(place.clone()).collect();
            async move { Flagstone::run(words).await }
        };
        let opened = run(&["breaker", "open", "app"]).await;
        assert!(opened.status.success(), "{}", opened.stderr);
        assert_eq!(client::get(address, "/").await.unwrap().status, 503);
        let listed = run(&["breaker", "list"]).await;
        assert!(
            listed.stdout.lines().any(|line| line.starts_with("app") && line.contains("OPEN")),
            "{}",
            listed.stdout
        );
        assert!(run(&["breaker", "reset", "app"]).await.status.success());
        assert_eq!(client::get(address, "/").await.unwrap().status, 200);
        let unknown = run(&["breaker", "reset", "nobody"]).await;
        assert_eq!(unknown.status.code(), Some(1));
        assert_eq!(unknown.stderr, "flagstone: there is no upstream \"nobody\": use \"app\"\n");
    }
}

#[tokio::test]
async fn the_command_line_says_when_nobody_is_there() {
    let folder = crate::support::files::Folder::new();
    let socket = folder.join("nobody.sock");
    let ended = Flagstone::run(["breaker", "list", "--admin", &format!("unix:{}", socket.display())]).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("no process answers on unix:"), "{}", ended.stderr);
    assert!(ended.stderr.contains("is it running? try flagstone run"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_process_that_stood_still_trips_no_breaker() {
    let app = FakeUpstream::http1().route("/", Reply::ok("well").after(Duration::from_millis(500))).start().await;
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[timeouts]\nresponse_head = \"3s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}",
        to(&app, "[upstream.app.breaker]\nfailures = 1\nslow_call = \"2900ms\"\n")
    );
    let mut flagstone = Flagstone::serve(&config).await;
    let (address, admin_address) = (flagstone.address("web").await, flagstone.admin().await);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        clients.spawn(async move { client::get(address, "/").await.unwrap().status });
    }
    assert!(eventually(DEADLINE, || app.requests().len() == 8).await);
    stop(&flagstone.process).await;
    // The pause itself, not a wait for something.
    tokio::time::sleep(Duration::from_secs(5)).await;
    flagstone.process.signal(Signal::CONT);
    let statuses = clients.join_all().await;
    let seen = admin::json(admin_address, "/api/status/circuit-breakers").await;
    assert_eq!(seen["circuitBreakers"]["app"]["state"], "CLOSED", "{statuses:?} {seen}");
    assert_eq!(statuses, [200; 8], "the app has answered all of them");
    assert_eq!(client::get(address, "/").await.unwrap().status, 200);
}
