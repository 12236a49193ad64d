//! Who sees the app in maintenance.

use super::{switch_off, switch_on, toml, visit};
use crate::support::poll::eventually;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const TOKEN: &str = "open-sesame-4711";

async fn site() -> (TestProxy, FakeUpstream) {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    let settings = format!("bypass_token = \"{TOKEN}\"");
    (TestProxy::toml(toml(&upstream, &settings)).start().await, upstream)
}

/// Everything that the app ever received.
fn seen(upstream: &FakeUpstream) -> String {
    upstream.raw().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
}

#[tokio::test]
async fn the_header_lets_in_and_stays_outside() {
    let (proxy, upstream) = site().await;
    switch_on(&proxy, "").await;
    let header = format!("X-Maintenance-Bypass: {TOKEN}\r\n");
    assert_eq!(visit(&proxy, "GET", "/", &header).await.text(), "the app");
    assert_eq!(visit(&proxy, "GET", "/", "X-Maintenance-Bypass: wrong\r\n").await.status, 503);
    assert_eq!(visit(&proxy, "GET", "/", "").await.status, 503);
    let seen = seen(&upstream);
    assert!(seen.contains("GET / ") && !seen.contains(TOKEN) && !seen.to_lowercase().contains("bypass"), "{seen}");
}

#[tokio::test]
async fn the_url_sets_a_cookie_that_lets_in() {
    let (proxy, upstream) = site().await;
    switch_on(&proxy, "").await;
    let answer = visit(&proxy, "GET", &format!("/shop/?a=1&maintenance_bypass={TOKEN}"), "").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/shop/?a=1")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age=43200"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains(TOKEN), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(visit(&proxy, "GET", "/shop/?a=1", &format!("Cookie: x=y; {pair}\r\n")).await.text(), "the app");
    let forged = pair.replace('.', ".0");
    assert_eq!(visit(&proxy, "GET", "/shop/", &format!("Cookie: {forged}\r\n")).await.status, 503);
    assert!(!seen(&upstream).contains(TOKEN));
    assert!(eventually(super::PATIENCE, || proxy.access_log().contains("a=1&maintenance_bypass=***")).await);
    assert!(!proxy.access_log().contains(TOKEN));
}

#[tokio::test]
async fn the_cookie_is_set_where_the_route_lets_no_cookies_through() {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    let edits = "[route.response_headers]\nremove = [\"Set-Cookie\"]\n[upstream.app]\n";
    let toml = toml(&upstream, &format!("bypass_token = \"{TOKEN}\"")).replace("[upstream.app]\n", edits);
    let proxy = TestProxy::toml(toml).start().await;
    switch_on(&proxy, "").await;
    let answer = visit(&proxy, "GET", &format!("/?maintenance_bypass={TOKEN}"), "").await;
    let pair = answer.header("set-cookie").unwrap().split(';').next().unwrap();
    assert_eq!(visit(&proxy, "GET", "/", &format!("Cookie: {pair}\r\n")).await.text(), "the app");
}

#[tokio::test]
async fn a_cookie_that_lets_in_stays_outside() {
    let (proxy, upstream) = site().await;
    switch_on(&proxy, "").await;
    let answer = visit(&proxy, "GET", &format!("/?maintenance_bypass={TOKEN}"), "").await;
    let pair = answer.header("set-cookie").unwrap().split(';').next().unwrap();
    let cookies = |cookies: &str| format!("Cookie: {}\r\n", cookies.replace("IT", pair));
    let last = || upstream.requests().last().unwrap().head.header("cookie").map(str::to_owned);
    for (sent, passed) in [("a=b; IT; c=d", Some("a=b; c=d")), ("IT; c=d", Some("c=d")), ("IT", None)] {
        assert_eq!(visit(&proxy, "GET", "/", &cookies(sent)).await.text(), "the app");
        assert_eq!(last().as_deref(), passed, "{sent}");
    }
    switch_off(&proxy).await;
    visit(&proxy, "GET", "/", &cookies("IT; e=f")).await;
    assert_eq!(last().as_deref(), Some("e=f"), "it lets in the next time, too");
    let worthless = "a=b;  flagstone_bypass=1.2;c=d";
    visit(&proxy, "GET", "/", &cookies(worthless)).await;
    assert_eq!(last().as_deref(), Some(worthless), "it is nothing of ours");
}

#[tokio::test]
async fn a_wrong_token_in_the_url_gets_the_page() {
    let (proxy, upstream) = site().await;
    switch_on(&proxy, "").await;
    let answer = visit(&proxy, "GET", "/?maintenance_bypass=guess", "Accept: text/html\r\n").await;
    assert_eq!((answer.status, answer.header("set-cookie")), (503, None));
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_form_with_the_token_is_asked_for_again_as_it_was() {
    let (proxy, _upstream) = site().await;
    switch_on(&proxy, "").await;
    let target = format!("/form?maintenance_bypass={TOKEN}");
    let answer = visit(&proxy, "POST", &target, "Content-Length: 0\r\n").await;
    assert_eq!((answer.status, answer.header("location")), (307, Some("/form")));
}

#[tokio::test]
async fn no_location_leads_to_another_site() {
    let (proxy, _upstream) = site().await;
    switch_on(&proxy, "").await;
    let answer = visit(&proxy, "GET", &format!("//evil.example/?maintenance_bypass={TOKEN}"), "").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/evil.example/")));
}

#[tokio::test]
async fn while_off_the_token_changes_nothing() {
    let (proxy, upstream) = site().await;
    let target = format!("/?maintenance_bypass={TOKEN}");
    let header = format!("X-Maintenance-Bypass: {TOKEN}\r\n");
    let answer = visit(&proxy, "GET", &target, &header).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (200, None));
    let request = &upstream.requests()[0].head;
    assert_eq!(request.line, format!("GET {target} HTTP/1.1"));
    assert_eq!(request.header("x-maintenance-bypass"), Some(TOKEN));
    assert!(eventually(super::PATIENCE, || proxy.access_log().contains("maintenance_bypass=***")).await);
}

#[tokio::test]
async fn a_cookie_outlives_the_process_that_made_it() {
    let (proxy, upstream) = site().await;
    switch_on(&proxy, "").await;
    let answer = visit(&proxy, "GET", &format!("/?maintenance_bypass={TOKEN}"), "").await;
    let pair = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let settings = format!("bypass_token = \"{TOKEN}\"");
    let key = std::fs::read(proxy.folder.join("state/cookies.key")).unwrap();
    let folder = crate::support::files::Folder::new();
    folder.write("state/cookies.key", key);
    let again = TestProxy::toml(toml(&upstream, &settings)).in_folder(folder).start().await;
    switch_on(&again, "").await;
    assert_eq!(visit(&again, "GET", "/", &format!("Cookie: {pair}\r\n")).await.status, 200);
    switch_off(&again).await;
    assert_eq!(visit(&again, "GET", "/", "").await.status, 200);
}

#[tokio::test]
async fn allowed_addresses_and_exempt_routes_see_the_app() {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    let toml = format!(
        "[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [maintenance]\nallow = [\"192.0.2.0/24\"]\nexempt_paths = [\"/health\", \"=/ping\"]\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [[route]]\nname = \"open\"\npath = [\"/open\"]\nmaintenance = \"exempt\"\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).start().await;
    switch_on(&proxy, "allow = [\"198.51.100.7\"]\n").await;
    for (path, client, status) in [
        ("/", "192.0.2.9", 200),
        ("/", "198.51.100.7", 200),
        ("/", "198.51.100.8", 503),
        ("/health/live", "203.0.113.1", 200),
        ("/ping", "203.0.113.1", 200),
        ("/ping/x", "203.0.113.1", 503),
        ("/open/x", "203.0.113.1", 200),
    ] {
        let headers = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(visit(&proxy, "GET", path, &headers).await.status, status, "{path} from {client}");
    }
}

/// The routes of files say how long these may be kept. A page or a cookie of the moment may not be, by anybody.
#[tokio::test]
async fn what_a_route_says_of_keeping_is_not_said_of_maintenance() {
    let upstream =
        FakeUpstream::http1().route("*", Reply::with_headers(200, "Cache-Control: no-store\r\n", "ok")).start().await;
    let toml = format!(
        "[maintenance]\nbypass_token = \"{TOKEN}\"\n\
         [[route]]\nname = \"app\"\nupstream = \"app\"\nresponse_headers = {{ set = {{ Cache-Control = \"max-age=9\" }} }}\n\
         [[route]]\nname = \"assets\"\npath = [\"/assets\"]\nfiles = {{ root = \".\" }}\n\
         response_headers = {{ add = {{ Cache-Control = \"max-age=31536000, immutable\" }} }}\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    );
    let folder = crate::support::files::Folder::new();
    folder.write("assets/app.js", "1");
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let keeping = async |path: &str| {
        let answer = visit(&proxy, "GET", path, "").await;
        let lines = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cache-control"));
        (answer.status, lines.map(|(_, value)| value.clone()).collect::<Vec<_>>().join(" + "))
    };
    let (for_a_year, for_nobody) = ("max-age=31536000, immutable".to_owned(), "no-store".to_owned());
    assert_eq!(keeping("/assets/app.js").await, (200, for_a_year));
    assert_eq!(keeping("/assets/app-of-tomorrow.js").await, (404, for_nobody.clone()));
    assert_eq!(keeping("/x").await, (200, "max-age=9".to_owned()));
    switch_on(&proxy, "").await;
    for path in ["/assets/app.js", "/x"] {
        assert_eq!(keeping(path).await, (503, for_nobody.clone()), "{path}");
        assert_eq!(keeping(&format!("{path}?maintenance_bypass={TOKEN}")).await, (303, for_nobody.clone()), "{path}");
    }
}
