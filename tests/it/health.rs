//! Active checks: they decide who gets requests, from the very first one on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flagstone::upstream::Resolver;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::admin;
use crate::support::blackhole::Blackhole;
use crate::support::certs::Ca;
use crate::support::client;
use crate::support::dns::DnsServer;
use crate::support::files::Folder;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::Flagstone;
use crate::support::proxy::{TestProxy, in_turn as to};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(15);
const FAST: &str = "[upstream.app.health]\npath = \"/health\"\ninterval = \"50ms\"\ntimeout = \"2s\"\n";

async fn checks(proxy: &TestProxy) -> serde_json::Value {
    admin::json(proxy.admin(), "/api/health").await
}

async fn becomes(proxy: &TestProxy, status: &str) -> serde_json::Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let health = checks(proxy).await;
        if health["status"] == status {
            return health;
        }
        assert!(Instant::now() < deadline, "never {status}: {health}");
    }
}

#[tokio::test]
async fn the_first_request_waits_for_the_first_check() {
    let app = FakeUpstream::http1().route("/", "well").start().await;
    app.set_route("/health", Reply::ok("fine").after(Duration::from_millis(300)));
    let proxy = TestProxy::toml(to(&[&app], FAST)).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "well");
    let checks: Vec<_> = app.requests().into_iter().filter(|request| request.head.line.contains("/health")).collect();
    assert!(!checks.is_empty());
    assert!(checks[0].head.header("user-agent").unwrap().starts_with("flagstone-health/"));
}

#[tokio::test]
async fn a_first_check_that_fails_is_answered_without_a_wait_for_more() {
    let app = FakeUpstream::http1().route("/health", Reply::status(500, "no")).route("/", "well").start().await;
    let proxy = TestProxy::toml(to(&[&app], FAST)).start().await;
    let response = client::get(proxy.address(), "/").await.unwrap();
    assert_eq!((response.status, response.header("flagstone-reason")), (503, Some("no_endpoint")));
    let health = checks(&proxy).await;
    assert_eq!(health["checks"]["app"]["error"], "answered 500", "{health}");
}

#[tokio::test]
async fn an_app_that_starts_after_its_proxy_need_not_wait_for_two_checks() {
    let app = FakeUpstream::http1().route("/", "well").route("/health", Reply::status(503, "starting")).start().await;
    let rare = FAST.replace("50ms", "1h");
    let proxy = TestProxy::toml(to(&[&app], &rare)).start().await;
    becomes(&proxy, "unhealthy").await;
    app.set_route("/health", "ok");
    becomes(&proxy, "healthy").await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "well");
}

#[tokio::test]
async fn requests_leave_a_replica_that_fails_its_checks_and_return() {
    let (steady, shaky) = (
        FakeUpstream::http1().route("/", "steady").route("/health", "ok").start().await,
        FakeUpstream::http1().route("/", "shaky").route("/health", "ok").start().await,
    );
    let proxy = TestProxy::toml(to(&[&steady, &shaky], FAST)).start().await;
    let answers = async |count: usize| {
        let mut answers = Vec::new();
        for _ in 0..count {
            answers.push(client::get(proxy.address(), "/").await.unwrap().text());
        }
        answers
    };
    becomes(&proxy, "healthy").await;
    let until = async |wanted: bool| {
        let deadline = Instant::now() + DEADLINE;
        while answers(4).await.contains(&"shaky".to_owned()) != wanted {
            assert!(Instant::now() < deadline);
        }
    };
    until(true).await;
    shaky.set_route("/health", Reply::status(503, "going"));
    until(false).await;
    let health = checks(&proxy).await;
    assert_eq!(health["status"], "healthy", "one replica is enough: {health}");
    assert_eq!(health["checks"]["app"]["endpoints"][shaky.endpoint()]["status"], "unhealthy", "{health}");
    let metrics = admin::metrics(proxy.admin()).await;
    let line = format!("flagstone_endpoint_healthy{{upstream=\"app\",endpoint=\"{}\"}} 0", shaky.endpoint());
    assert!(metrics.contains(&line), "{metrics}");
    shaky.set_route("/health", "ok");
    until(true).await;
}

#[tokio::test]
async fn held_requests_go_on_when_the_checks_pass_again() {
    let app = FakeUpstream::http1().route("/", "well").route("/health", Reply::status(500, "no")).start().await;
    let slow_checks = FAST.replace("50ms", "2s");
    let proxy = TestProxy::toml(to(&[&app], &format!("hold = \"20s\"\n{slow_checks}"))).start().await;
    becomes(&proxy, "unhealthy").await;
    let address = proxy.address();
    let held = tokio::spawn(async move { client::get(address, "/").await.unwrap().text() });
    app.set_route("/health", "ok");
    assert_eq!(held.await.unwrap(), "well");
}

#[tokio::test]
async fn tcp_checks_and_checks_over_tls() {
    let (folder, ca) = (Folder::new(), Ca::new());
    let plain = FakeUpstream::http1().start().await;
    let proxy =
        TestProxy::toml(to(&[&plain], "[upstream.app.health]\ntcp = true\ninterval = \"50ms\"\n")).start().await;
    becomes(&proxy, "healthy").await;
    plain.stop().await;
    becomes(&proxy, "unhealthy").await;

    let leaf = ca.leaf(&["app.test"]);
    let secure = FakeUpstream::http1()
        .route("/", "secure")
        .route("/health", "ok")
        .tls(leaf.server_config(&[b"http/1.1"]))
        .start()
        .await;
    let roots = folder.write("ca.pem", ca.pem());
    let tls = format!("tls = {{ server_name = \"app.test\", ca = \"{}\" }}\n{FAST}", roots.display());
    let proxy = TestProxy::toml(to(&[&secure], &tls)).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "secure");
    assert!(secure.requests().iter().any(|request| request.head.line.contains("/health")));
}

#[tokio::test]
async fn what_is_known_survives_a_reload() {
    let app = FakeUpstream::http1().route("/", "well").route("/health", "ok").start().await;
    let toml = to(&[&app], &FAST.replace("50ms", "1h"));
    let proxy = TestProxy::toml(toml.clone()).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "well");
    app.set_route("/health", Reply::status(500, "no"));
    let health_requests = || app.requests().iter().filter(|request| request.head.line.contains("/health")).count();
    // Unchanged, then with another setting of the same upstream.
    for (generation, changed) in
        [toml.replace("name = \"all\"", "name = \"every\""), toml.replace("round_robin", "hash")].iter().enumerate()
    {
        proxy.rewrite(changed);
        let wanted = generation as u64 + 2;
        let deadline = Instant::now() + DEADLINE;
        while admin::json(proxy.admin(), "/api/status").await["config"]["generation"] != wanted {
            assert!(Instant::now() < deadline, "the reload never came");
        }
        if generation == 0 {
            assert_eq!(health_requests(), 1);
        }
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "well");
    }
}

/// They may be wrong themselves, and it takes as many of them as ever to find somebody unwell.
#[tokio::test]
async fn other_checks_take_nobody_out_by_the_first_that_fails() {
    let app = FakeUpstream::http1().route("/", "well").route("/health", "ok").start().await;
    let checks = |path: &str| FAST.replace("/health", path);
    let proxy = TestProxy::toml(to(&[&app], "")).start().await;
    for path in ["/first", "/second"] {
        let left = std::sync::atomic::AtomicUsize::new(2);
        app.set_route(
            path,
            Reply::answer(move |_| {
                use std::sync::atomic::Ordering::SeqCst;
                let fails = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
                if fails { Reply::status(500, "not yet") } else { Reply::ok("ok") }
            }),
        );
        proxy.reload_with(&to(&[&app], &checks(path))).await;
        let (line, deadline) = (format!("GET {path} "), Instant::now() + DEADLINE);
        while app.requests().iter().filter(|request| request.head.line.starts_with(&line)).count() < 4 {
            assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "well", "{path}");
            assert!(Instant::now() < deadline, "nobody checks");
        }
    }
}

/// A redis as far as PING goes, with a password.
async fn redis() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut seen, mut piece, mut authorised) = (Vec::new(), [0; 256], false);
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    seen.extend_from_slice(&piece[..read]);
                    if seen.ends_with(b"$4\r\nAUTH\r\n$6\r\nsecret\r\n") {
                        authorised = true;
                        stream.write_all(b"+OK\r\n").await.unwrap();
                    } else if seen.ends_with(b"*1\r\n$4\r\nPING\r\n") {
                        let answer: &[u8] =
                            if authorised { b"+PONG\r\n" } else { b"-NOAUTH Authentication required.\r\n" };
                        stream.write_all(answer).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn probes_of_all_kinds_are_reported() {
    let app = FakeUpstream::http1().route("/", "well").route("/ready", "ok").start().await;
    let redis = redis().await;
    let probes = format!(
        "[probe.database]\ntcp = \"{0}\"\ninterval = \"50ms\"\n\
         [probe.search]\nhttp = \"http://{0}/ready\"\ncritical = false\ninterval = \"50ms\"\n\
         [probe.cache]\nredis = \"redis://:secret@{redis}\"\ninterval = \"50ms\"\n",
        app.endpoint()
    );
    let proxy = TestProxy::toml(to(&[&app], &probes)).start().await;
    let all_known = async || {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let summary = admin::json(proxy.admin(), "/api/health/summary").await;
            if summary["healthy"] == 4 {
                return summary;
            }
            assert!(Instant::now() < deadline, "{summary} {}", checks(&proxy).await);
        }
    };
    let summary = all_known().await;
    assert_eq!(summary, serde_json::json!({ "status": "healthy", "total": 4, "healthy": 4, "unhealthy": 0 }));
    app.set_route("/ready", Reply::status(500, "no"));
    let health = becomes(&proxy, "degraded").await;
    assert_eq!(health["checks"]["search"]["error"], "answered 500", "{health}");
    assert_eq!(admin::ask(proxy.admin(), "GET", "/api/health/summary").await.status, 200);
    app.stop().await;
    becomes(&proxy, "unhealthy").await;
    assert_eq!(admin::ask(proxy.admin(), "GET", "/api/health/summary").await.status, 503);
    assert!(eventually(DEADLINE, || proxy.access_log().is_empty()).await, "checks are no requests");
    let metrics = admin::metrics(proxy.admin()).await;
    assert!(metrics.contains("flagstone_health_status 2"), "{metrics}");
}

#[tokio::test]
async fn of_the_addresses_of_a_probe_one_that_is_silent_leaves_time_for_the_next() {
    let hole = Blackhole::dig();
    let port = hole.address().port();
    let address = SocketAddr::from(([127, 0, 0, 2], port));
    let app = FakeUpstream::http1().route("*", "ok").address(address).start().await;
    let dns = DnsServer::start(60).await;
    dns.set("app.test", &[[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]);
    let probes = format!(
        "[probe.tcp]\ntcp = \"app.test:{port}\"\ntimeout = \"2s\"\n\
         [probe.http]\nhttp = \"http://app.test:{port}/\"\ntimeout = \"2s\"\n"
    );
    let proxy = TestProxy::toml(to(&[&app], &probes)).resolver(Resolver::from_servers(&[dns.address()])).start().await;
    let are_healthy = async || {
        let checks = checks(&proxy).await["checks"].clone();
        checks["tcp"]["status"] == "healthy" && checks["http"]["status"] == "healthy"
    };
    assert!(eventually_async(DEADLINE, are_healthy).await, "{}", checks(&proxy).await);
}

#[tokio::test]
async fn a_probe_with_the_name_of_an_upstream_hides_nothing() {
    let app = FakeUpstream::http1().route("/", "well").start().await;
    let probes = "[probe.app]\ntcp = \"127.0.0.1:1\"\ncritical = false\ninterval = \"50ms\"\n";
    let proxy = TestProxy::toml(to(&[&app], probes)).start().await;
    let checks = becomes(&proxy, "degraded").await["checks"].clone();
    assert_eq!(checks["app"]["status"], "healthy", "{checks}");
    assert_eq!(checks["probe.app"]["status"], "unhealthy", "{checks}");
    let services = admin::json(proxy.admin(), "/api/status/services").await["services"].clone();
    assert_eq!(
        (&services["app"]["ready"], &services["probe.app"]["ready"]),
        (&true.into(), &false.into()),
        "{services}"
    );
}

#[tokio::test]
async fn a_real_redis_is_asked_with_its_password() {
    let _server = or_left_out!(crate::support::left_out::program("redis-server"));
    let redis = crate::support::redis::Redis::start().await.unwrap();
    let address = format!("127.0.0.1:{}", redis.port);
    let probes = format!(
        "[probe.open]\nredis = \"redis://{address}\"\ninterval = \"50ms\"\n\
         [probe.guarded]\nredis = \"redis://:secret@{address}\"\ncritical = false\ninterval = \"50ms\"\n"
    );
    let app = FakeUpstream::http1().start().await;
    let proxy = TestProxy::toml(to(&[&app], &probes)).start().await;
    // It asks for no password, so giving one is refused.
    becomes(&proxy, "degraded").await;
    let is_open = async || checks(&proxy).await["checks"]["open"]["status"] == "healthy";
    assert!(eventually_async(DEADLINE, is_open).await, "{}", checks(&proxy).await);
    let health = becomes(&proxy, "degraded").await;
    assert!(health["checks"]["guarded"]["error"].as_str().unwrap().contains("AUTH"), "{health}");
    let mut client = tokio::net::TcpStream::connect(&address).await.unwrap();
    client.write_all(b"CONFIG SET requirepass secret\r\n").await.unwrap();
    let health = becomes(&proxy, "unhealthy").await;
    assert!(health["checks"]["open"]["error"].as_str().unwrap().contains("NOAUTH"), "{health}");
    let is_in = async || checks(&proxy).await["checks"]["guarded"]["status"] == "healthy";
    assert!(eventually_async(DEADLINE, is_in).await);
}

#[tokio::test]
async fn services_are_ready_when_they_can_take_a_request() {
    let app = FakeUpstream::http1().route("/health", Reply::hang()).start().await;
    let proxy = TestProxy::toml(to(&[&app], FAST)).start().await;
    let services = admin::json(proxy.admin(), "/api/status/services").await;
    let waiting = serde_json::json!({ "registered": true, "initialized": false, "ready": false });
    assert_eq!(services["services"]["app"], waiting);
}

/// Who has only the log at night has the reason in it.
#[tokio::test]
async fn the_log_says_what_a_check_found() {
    let app = FakeUpstream::http1().route("/health", Reply::status(404, "no")).start().await;
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n{}",
        to(&[&app], FAST)
    );
    let mut flagstone = Flagstone::serve(&config).await;
    let line = flagstone.process.stderr_line("Endpoint ejected").await;
    assert!(line.contains("reason=health_check error=\"answered 404\""), "{line}");
    app.set_route("/health", "fine");
    flagstone.process.stderr_line("Endpoint restored").await;
}
