//! Sticky sessions: who has the cookie comes back to the same endpoint, for as long as that one can take requests.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use flagstone::upstream::Resolver;

use crate::support::admin;
use crate::support::certs::Ca;
use crate::support::client::{Client, RawResponse};
use crate::support::dns::DnsServer;
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::proxy::{TestProxy, in_turn};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const DEADLINE: Duration = Duration::from_secs(20);
const STICKY: &str = "affinity = \"cookie:sticky\"\n";
/// A third of the sessions would go elsewhere by chance.
const SESSIONS: usize = 12;

async fn apps(names: [&str; 3]) -> [FakeUpstream; 3] {
    let start = async |name: &str| FakeUpstream::http1().route("*", name).start().await;
    [start(names[0]).await, start(names[1]).await, start(names[2]).await]
}

fn to(apps: &[FakeUpstream; 3], extra: &str) -> String {
    in_turn(&apps.each_ref(), &format!("{STICKY}{extra}"))
}

/// A client of its own session.
struct Visitor {
    address: SocketAddr,
    /// `sticky=…`, as it was given last.
    cookie: Option<String>,
}

impl Visitor {
    fn of(address: SocketAddr) -> Self {
        Self { address, cookie: None }
    }

    async fn visit(&mut self) -> RawResponse {
        let mut client = Client::connect(self.address).await.unwrap().deadline(DEADLINE);
        let cookie = self.cookie.as_ref().map(|cookie| format!("Cookie: a=b; {cookie}\r\n")).unwrap_or_default();
        client.request("GET", "/", &cookie).await.unwrap();
        let answer = client.read_response().await.unwrap();
        if let Some(set) = answer.header("set-cookie") {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        answer
    }

    /// Where it is served, and whether it was given a cookie for it.
    async fn served(&mut self) -> (String, bool) {
        let answer = self.visit().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.text(), answer.header("set-cookie").is_some())
    }
}

/// Sessions that have been begun, and where.
async fn sessions(address: SocketAddr, count: usize) -> Vec<(Visitor, String)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut visitor = Visitor::of(address);
        let (place, is_new) = visitor.served().await;
        assert!(is_new);
        all.push((visitor, place));
    }
    all
}

#[tokio::test]
async fn a_session_stays_where_it_began() {
    let apps = apps(["a", "b", "c"]).await;
    let proxy = TestProxy::toml(to(&apps, "")).start().await;
    let mut sessions = sessions(proxy.address(), 6).await;
    let begun: Vec<_> = sessions.iter().map(|(_, place)| place.clone()).collect();
    assert_eq!(begun, ["a", "b", "c", "a", "b", "c"], "who comes first is balanced as ever");
    for _ in 0..5 {
        for (visitor, place) in &mut sessions {
            assert_eq!(visitor.served().await, (place.clone(), false));
        }
    }
    // The app sees the cookie, as it sees any other.
    let last = apps[0].requests().pop().unwrap();
    assert!(last.head.header("cookie").unwrap().starts_with("a=b; sticky="), "{last:?}");
}

#[tokio::test]
async fn the_cookie_tells_nothing_and_is_for_the_session_only() {
    let apps = apps(["a", "b", "c"]).await;
    let (folder, ca) = (Folder::new(), Ca::new());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let listeners = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"tls\"\n\
         address = \"127.0.0.1:0\"\nhttp2 = false\n[listener.tls]\ncertificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n";
    let proxy = TestProxy::toml(format!("{listeners}{}", to(&apps, ""))).in_folder(folder).start().await;
    let set = Visitor::of(proxy.address()).visit().await.header("set-cookie").unwrap().to_owned();
    let (value, attributes) = set.strip_prefix("sticky=").unwrap().split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    assert!(value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
    let tls = Client::connect_tls(proxy.listener("tls"), "site.example", ca.client_config(&[b"http/1.1"])).await;
    let set = tls.unwrap().get("/").await.unwrap().header("set-cookie").unwrap().to_owned();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{set}");
}

#[tokio::test]
async fn the_cookie_is_secure_where_a_trusted_proxy_ends_tls() {
    let apps = apps(["a", "b", "c"]).await;
    let names = "[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    for (toml, told, is_secure) in [
        (names, "X-Forwarded-Proto: https", true),
        (names, "X-Forwarded-Proto: HTTPS", true),
        (names, "X-Forwarded-Proto: http", false),
        ("", "X-Forwarded-Proto: https", false),
        (&format!("{names}header = \"Forwarded\"\n"), "Forwarded: for=203.0.113.9;proto=https", true),
    ] {
        // What operators tell their apps is no word of the client's way.
        let set = "[route.request_headers]\nset = { X-Forwarded-Proto = \"gopher\" }\n[upstream.app]\n";
        let toml = format!("{toml}{}", to(&apps, "").replace("[upstream.app]\n", set));
        let proxy = TestProxy::toml(toml).start().await;
        let mut client = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
        client.request("GET", "/", &format!("{told}\r\n")).await.unwrap();
        let answer = client.read_response().await.unwrap();
        let cookie = answer.header("set-cookie").unwrap();
        assert_eq!(cookie.ends_with("; Secure"), is_secure, "{told}: {cookie}");
    }
}

#[tokio::test]
async fn the_cookie_is_set_whatever_the_route_does_with_those_of_the_app() {
    let apps = apps(["a", "b", "c"]).await;
    for app in &apps {
        app.set_route("*", Reply::with_headers(200, "Set-Cookie: own=1\r\n", ""));
    }
    for (edit, others) in [
        ("remove = [\"Set-Cookie\"]", &[][..]),
        ("set = { Set-Cookie = \"route=1\" }", &["route=1"]),
        ("add = { Set-Cookie = \"route=1\" }", &["own=1", "route=1"]),
    ] {
        let edits = format!("[route.response_headers]\n{edit}\n[upstream.app]\n");
        let proxy = TestProxy::toml(to(&apps, "").replace("[upstream.app]\n", &edits)).start().await;
        let answer = Visitor::of(proxy.address()).visit().await;
        let cookies = answer.all("set-cookie");
        let (own, rest): (Vec<_>, Vec<_>) = cookies.into_iter().partition(|cookie| cookie.starts_with("sticky="));
        assert_eq!((own.len(), &rest[..]), (1, others), "{edit}");
    }
}

#[tokio::test]
async fn a_session_stays_where_the_app_is_to_see_no_cookies() {
    let apps = apps(["a", "b", "c"]).await;
    let edits = "[route.request_headers]\nremove = [\"Cookie\"]\n[upstream.app]\n";
    let proxy = TestProxy::toml(to(&apps, "").replace("[upstream.app]\n", edits)).start().await;
    for (visitor, place) in &mut sessions(proxy.address(), 3).await {
        assert_eq!(visitor.served().await, (place.clone(), false));
    }
    assert!(apps.iter().flat_map(FakeUpstream::requests).all(|request| request.head.header("cookie").is_none()));
}

#[tokio::test]
async fn a_made_up_cookie_is_none() {
    let apps = apps(["a", "b", "c"]).await;
    let proxy = TestProxy::toml(to(&apps, "")).start().await;
    for value in ["", "0", "a", &apps[0].endpoint(), &"0".repeat(32), &"f".repeat(1000)] {
        let mut visitor = Visitor { address: proxy.address(), cookie: Some(format!("sticky={value}")) };
        assert!(visitor.served().await.1, "{value}");
        assert!(!visitor.served().await.1, "{value}");
    }
}

#[tokio::test]
async fn an_upstream_without_affinity_knows_nothing_of_it() {
    let apps = apps(["a", "b", "c"]).await;
    let sticky = TestProxy::toml(to(&apps, "")).start().await;
    let mut visitor = Visitor::of(sticky.address());
    visitor.served().await;
    let plain = TestProxy::toml(in_turn(&apps.each_ref(), "")).start().await;
    visitor.address = plain.address();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (place, is_new) = visitor.served().await;
        assert!(!is_new);
        seen.push(place);
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_session_whose_endpoint_is_gone_begins_anew_elsewhere() {
    type Departure = (&'static str, fn(&FakeUpstream));
    let departures: [Departure; 2] = [
        // Ejected after its first failure, which the other one hides.
        ("[upstream.app.ejection]\nfailures = 1\n[upstream.app.retry]\non = [\"500\"]\n", |app| {
            app.set_route("*", Reply::status(500, "bad"));
        }),
        ("[upstream.app.health]\npath = \"/health\"\ninterval = \"50ms\"\nunhealthy_after = 1\n", |app| {
            app.set_route("/health", Reply::status(500, "bad"));
        }),
    ];
    for (extra, goes) in departures {
        let apps = apps(["a", "b", "c"]).await;
        let proxy = TestProxy::toml(to(&apps, extra)).start().await;
        let mut sessions = sessions(proxy.address(), SESSIONS).await;
        goes(&apps[1]);
        let deadline = Instant::now() + DEADLINE;
        for (visitor, place) in sessions.iter_mut().filter(|(_, place)| place == "b") {
            let mut now = visitor.served().await;
            while now.0 == "b" {
                assert!(Instant::now() < deadline, "{extra}");
                now = visitor.served().await;
            }
            assert!(now.1, "{extra}: a session that moved has a new cookie");
            *place = now.0;
        }
        // They stay, also those that were elsewhere before, and also when the first endpoint is back.
        apps[1].set_route("*", "b");
        apps[1].set_route("/health", "ok");
        for (visitor, place) in &mut sessions {
            assert_eq!(visitor.served().await, (place.clone(), false), "{extra}");
        }
    }
}

#[tokio::test]
async fn a_session_whose_endpoint_refuses_is_served_elsewhere_at_once() {
    for extra in ["", "hold = \"10s\"\n"] {
        let apps = apps(["a", "b", "c"]).await;
        let proxy = TestProxy::toml(to(&apps, extra)).start().await;
        let mut sessions = sessions(proxy.address(), SESSIONS).await;
        apps[1].stop().await;
        for (visitor, place) in &mut sessions {
            let (now, is_new) = visitor.served().await;
            assert_eq!(is_new, place == "b");
            assert!(now == *place || place == "b");
            assert_eq!(visitor.served().await, (now, false), "{extra}");
        }
    }
}

#[tokio::test]
async fn a_session_whose_endpoint_is_full_visits_another_and_returns() {
    let apps = apps(["a", "b", "c"]).await;
    for app in &apps {
        app.set_route("/hang", Reply::hang());
    }
    let proxy = TestProxy::toml(to(&apps, "max_in_flight = 1\n")).start().await;
    let mut visitor = Visitor::of(proxy.address());
    let (home, _) = visitor.served().await;
    let mut stuck = Client::connect(proxy.address()).await.unwrap();
    stuck.request("GET", "/hang", &format!("Cookie: {}\r\n", visitor.cookie.as_ref().unwrap())).await.unwrap();
    let is_stuck = || apps.iter().any(|app| app.requests().iter().any(|request| request.head.line.contains("/hang")));
    assert!(eventually(DEADLINE, is_stuck).await);
    let (away, is_new) = visitor.served().await;
    assert!(away != home && !is_new, "{away} {is_new}");
    stuck.reset();
    let deadline = Instant::now() + DEADLINE;
    while visitor.served().await != (home.clone(), false) {
        assert!(Instant::now() < deadline, "it never returned");
    }
}

#[tokio::test]
async fn sessions_outlive_reloads() {
    let apps = apps(["a", "b", "c"]).await;
    let proxy = TestProxy::toml(to(&apps, "")).start().await;
    let mut sessions = sessions(proxy.address(), SESSIONS).await;
    let reloaded = async |generation: u64| {
        let deadline = Instant::now() + DEADLINE;
        while admin::json(proxy.admin(), "/api/status").await["config"]["generation"] != generation {
            assert!(Instant::now() < deadline, "the reload never came");
        }
    };
    proxy.rewrite(&to(&apps, "max_idle = 7\n"));
    reloaded(2).await;
    for (visitor, place) in &mut sessions {
        assert_eq!(visitor.served().await, (place.clone(), false));
    }
    // One endpoint is taken out of the file.
    proxy.rewrite(&in_turn(&[&apps[0], &apps[2]], STICKY));
    reloaded(3).await;
    for (visitor, place) in &mut sessions {
        let (now, is_new) = visitor.served().await;
        assert_eq!(is_new, place == "b");
        assert!(now == *place || place == "b" && now != "b");
    }
}

#[tokio::test]
async fn sessions_outlive_the_process_with_its_key() {
    let apps = apps(["a", "b", "c"]).await;
    let proxy = TestProxy::toml(to(&apps, "")).start().await;
    let mut sessions = sessions(proxy.address(), SESSIONS).await;
    let file = proxy.folder.join("state/cookies.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read(file).unwrap();
    assert!(proxy.drain(DEADLINE).await);
    let folder = Folder::new();
    folder.write("state/cookies.key", key);
    // The endpoints in another order: it is not their place that sticks.
    let turned = in_turn(&[&apps[2], &apps[0], &apps[1]], STICKY);
    let again = TestProxy::toml(turned.clone()).in_folder(folder).start().await;
    let another = TestProxy::toml(turned).start().await;
    for (visitor, place) in &mut sessions {
        visitor.address = again.address();
        assert_eq!(visitor.served().await, (place.clone(), false));
        visitor.address = another.address();
        assert!(visitor.served().await.1, "a cookie of another key");
    }
}

#[tokio::test]
async fn a_session_waits_at_the_start_until_its_home_is_known() {
    let apps = apps(["a", "b", "c"]).await;
    let toml = to(&apps, "[upstream.app.health]\npath = \"/health\"\ninterval = \"1h\"\ntimeout = \"10s\"\n");
    let proxy = TestProxy::toml(toml.clone()).start().await;
    let mut sessions = sessions(proxy.address(), SESSIONS).await;
    let key = std::fs::read(proxy.folder.join("state/cookies.key")).unwrap();
    assert!(proxy.drain(DEADLINE).await);
    // Its check takes longer than those of the others.
    apps[1].set_route("/health", Reply::ok("well").after(Duration::from_millis(700)));
    let folder = Folder::new();
    folder.write("state/cookies.key", key);
    let again = TestProxy::toml(toml).in_folder(folder).start().await;
    for (visitor, place) in sessions.iter_mut().filter(|(_, place)| place == "b") {
        visitor.address = again.address();
        assert_eq!(visitor.served().await, (place.clone(), false));
    }
}

#[tokio::test]
async fn a_session_sticks_to_an_address_of_a_name() {
    let first = FakeUpstream::http1().route("*", "1").start().await;
    let port = first.address().port();
    let second = FakeUpstream::http1().route("*", "2").address(SocketAddr::from(([127, 0, 0, 2], port))).start().await;
    let dns = DnsServer::start(0).await;
    let addresses = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
    dns.set("app.test", &addresses);
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"app.test:{port}\"]\n\
         dns_refresh = \"100ms\"\nbalance = \"round_robin\"\n{STICKY}"
    );
    let proxy = TestProxy::toml(toml).resolver(Resolver::from_servers(&[dns.address()])).start().await;
    let mut sessions = sessions(proxy.address(), 6).await;
    for (visitor, place) in &mut sessions {
        assert_eq!(visitor.served().await, (place.clone(), false));
    }
    dns.set("app.test", &addresses[1..]);
    assert!(eventually(DEADLINE, || first.open_connections() == 0).await);
    for (visitor, place) in &mut sessions {
        assert_eq!(visitor.served().await, ("2".to_owned(), place == "1"));
    }
    assert!(second.requests().len() > 6);
}
