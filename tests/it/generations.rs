//! A generation that a stream or a held request keeps alive after a reload: what is open finishes on it, and nothing
//! else goes on there.

use std::time::Duration;

use flagstone::upstream::Resolver;

use crate::names::ip;
use crate::support::admin;
use crate::support::client::{self, Client};
use crate::support::dns::DnsServer;
use crate::support::poll::{eventually, eventually_async};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;
use crate::support::websocket::WebSocket;

const DEADLINE: Duration = Duration::from_secs(20);
const CHECKED: &str = "health = { path = \"/health\", interval = \"50ms\", timeout = \"2s\" }\n";
/// Rounds of checks in which whoever is to be left alone would be asked, too.
const ROUNDS: usize = 10;

async fn app(name: &str) -> FakeUpstream {
    let app = FakeUpstream::http1().route("/ws", Reply::upgrade()).route("/health", "ok").route("/ready", "ok");
    app.route("/slow", Reply::ok("slow").after(Duration::from_millis(500))).route("/", name).start().await
}

fn to(endpoint: &str, extra: &str) -> String {
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nidle_timeout = \"1m\"\n\
         endpoints = [\"{endpoint}\"]\n{extra}"
    )
}

fn asked(app: &FakeUpstream, path: &str) -> usize {
    app.requests().iter().filter(|request| request.head.line.contains(path)).count()
}

/// An open WebSocket, which holds on to its generation.
async fn open_stream(proxy: &TestProxy) -> Client {
    let mut socket = WebSocket::connect(proxy.address(), "/ws").await.unwrap();
    socket.send_text("hello").await.unwrap();
    let mut client = socket.into_client();
    client.read_until(b"\x81").await.unwrap();
    client
}

/// So many requests at a time, each on a connection of its own to the app.
async fn keep_connections(proxy: &TestProxy, count: usize) {
    let mut clients = tokio::task::JoinSet::new();
    let address = proxy.address();
    (0..count).for_each(|_| drop(clients.spawn(async move { client::get(address, "/slow").await.unwrap().text() })));
    assert_eq!(clients.join_all().await, vec!["slow"; count]);
}

/// Whether `others` get no further request for the path while `checked` gets some.
async fn are_left_alone(others: &[(&FakeUpstream, &str)], checked: &FakeUpstream) -> bool {
    let count = || others.iter().map(|(app, path)| asked(app, path)).sum::<usize>();
    let at_least = |count: usize| eventually(DEADLINE, move || asked(checked, "/health") >= count);
    let begun = asked(checked, "/health");
    // What was under way as the reload came.
    assert!(at_least(begun + 3).await);
    let before = count();
    assert!(at_least(begun + 3 + ROUNDS).await);
    count() == before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_gone_keeps_no_connection_and_is_not_checked() {
    let (old, new) = (app("old").await, app("new").await);
    let proxy = TestProxy::toml(to(&old.endpoint(), CHECKED)).start().await;
    let _stream = open_stream(&proxy).await;
    keep_connections(&proxy, 5).await;
    assert!(old.open_connections() > 3);
    let mut late = Client::connect(proxy.address()).await.unwrap();
    late.request("GET", "/slow", "").await.unwrap();
    assert!(eventually(DEADLINE, || asked(&old, "/slow") == 6).await);
    proxy.reload_with(&to(&new.endpoint(), CHECKED)).await;
    assert_eq!(late.read_response().await.unwrap().text(), "slow");
    assert!(are_left_alone(&[(&old, "/health")], &new).await);
    let only_the_stream_is_left = || old.open_connections() == 1;
    assert!(eventually(DEADLINE, only_the_stream_is_left).await, "{} are open", old.open_connections());
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "new");
}

/// The same address under other settings has the connections still, and is checked once for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_stays_keeps_its_connections_until_it_is_gone_too() {
    let (old, new) = (app("old").await, app("new").await);
    let rarely = CHECKED.replace("50ms", "1h");
    let proxy = TestProxy::toml(to(&old.endpoint(), CHECKED)).start().await;
    let _stream = open_stream(&proxy).await;
    keep_connections(&proxy, 3).await;
    // Checked from now on by the second generation, and not by the first; `other` counts the time.
    let second =
        format!("{rarely}max_in_flight = 100\n[upstream.other]\nendpoints = [\"{}\"]\n{CHECKED}", new.endpoint());
    proxy.reload_with(&to(&old.endpoint(), &second)).await;
    assert!(are_left_alone(&[(&old, "/health")], &new).await);
    let made = old.connections();
    keep_connections(&proxy, 3).await;
    assert_eq!(old.connections(), made, "kept connections were not used");
    assert!(old.open_connections() > 3);
    proxy.reload_with(&to(&new.endpoint(), CHECKED)).await;
    assert!(eventually(DEADLINE, || old.open_connections() == 1).await, "{} are open", old.open_connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_probes_that_are_gone_are_asked_no_more() {
    let (old, probed, new) = (app("old").await, app("probed").await, app("new").await);
    let dns = DnsServer::start(0).await;
    dns.set("app.test", &[ip(1)]);
    let probe = format!(
        "dns_refresh = \"100ms\"\n[probe.more]\nhttp = \"http://{}/ready\"\ninterval = \"50ms\"\n",
        probed.endpoint()
    );
    let name = format!("app.test:{}", old.address().port());
    let proxy = TestProxy::toml(to(&name, &probe)).resolver(Resolver::from_servers(&[dns.address()])).start().await;
    assert!(eventually(DEADLINE, || asked(&probed, "/ready") > 0).await);
    let _stream = open_stream(&proxy).await;
    proxy.reload_with(&to(&new.endpoint(), CHECKED)).await;
    // One pause of the name's, at least.
    let mut asked_before = dns.asked();
    let settled = async || {
        let alone = are_left_alone(&[(&probed, "/ready")], &new).await;
        let before = std::mem::replace(&mut asked_before, dns.asked());
        alone && before == asked_before
    };
    assert!(eventually_async(DEADLINE, settled).await);
}

/// They find no endpoint of the generation after theirs, so they need those of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_held_before_a_reload_go_on_where_they_began() {
    let new = app("new").await;
    for is_stopped in [false, true] {
        let old = app("old").await;
        let proxy = TestProxy::toml(to(&old.endpoint(), &format!("hold = \"20s\"\n{CHECKED}"))).start().await;
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "old");
        if is_stopped {
            old.stop().await;
        } else {
            old.set_route("/health", Reply::status(500, "no"));
        }
        let is_away = async || admin::json(proxy.admin(), "/api/health").await["status"] == "unhealthy";
        assert!(eventually_async(DEADLINE, is_away).await);
        let mut held = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
        held.request("GET", "/", "").await.unwrap();
        let waits = async || admin::metrics(proxy.admin()).await.contains("flagstone_in_flight{route=\"all\"} 1\n");
        assert!(eventually_async(DEADLINE, waits).await);
        proxy.reload_with(&to(&new.endpoint(), CHECKED)).await;
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "new");
        if is_stopped {
            old.restart().await;
        } else {
            old.set_route("/health", "ok");
        }
        assert_eq!(held.read_response().await.unwrap().text(), "old", "{is_stopped}");
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "new");
    }
}
