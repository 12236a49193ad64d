//! What a blocked client gets, whatever it speaks.

use std::time::{Duration, Instant};

use super::{FLAG, PATIENCE, ask, json, status, switch_on, toml, visit};
use crate::support::client::Client;
use crate::support::poll::eventually_async;
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;
use crate::support::websocket::WebSocket;

async fn site(maintenance: &str) -> (TestProxy, FakeUpstream) {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    (TestProxy::toml(toml(&upstream, maintenance)).start().await, upstream)
}

#[tokio::test]
async fn every_answer_says_when_to_come_back_and_is_kept_by_nobody() {
    let (proxy, upstream) = site("retry_after = \"90s\"").await;
    switch_on(&proxy, "").await;
    for (method, accept, content_type) in [
        ("GET", "text/html", "text/html; charset=utf-8"),
        ("GET", "application/json", "application/problem+json"),
        ("GET", "text/plain", "text/plain; charset=utf-8"),
        ("DELETE", "text/html", "text/html; charset=utf-8"),
        ("HEAD", "text/html", "text/html; charset=utf-8"),
        ("OPTIONS", "*/*", "text/plain; charset=utf-8"),
        ("PURGE", "text/html", "text/html; charset=utf-8"),
    ] {
        let answer = visit(&proxy, method, "/x", &format!("Accept: {accept}\r\n")).await;
        assert_eq!(answer.status, 503, "{method} {accept}");
        assert_eq!(answer.header("retry-after"), Some("90"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("flagstone-reason"), Some("maintenance"));
        if accept != "*/*" {
            assert_eq!(answer.header("content-type"), Some(content_type), "{method} {accept}");
        }
        assert_eq!(answer.body.is_empty(), method == "HEAD", "{method} {accept}");
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(status(&proxy).await["blocked_requests"], 7);
}

#[tokio::test]
async fn a_head_is_followed_by_the_next_answer() {
    let (proxy, _upstream) = site("").await;
    switch_on(&proxy, "").await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("HEAD", "/", "").await.unwrap();
    assert_eq!(client.read_head_response().await.unwrap().status, 503);
    assert_eq!(client.get("/").await.unwrap().status, 503);
}

#[tokio::test]
async fn a_body_that_still_comes_is_never_taken_for_a_request() {
    let (proxy, upstream) = site("exempt_paths = [\"/open\"]").await;
    switch_on(&proxy, "").await;
    let smuggled = "GET /open/smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
    for (headers, body) in [
        (format!("Content-Length: {}\r\n", 100_000), smuggled.to_owned()),
        (format!("Content-Length: {}\r\n", smuggled.len()), smuggled.to_owned()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len())),
    ] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("POST", "/upload", &headers).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 503, "before the body, {headers}");
        // The connection may be closed by now, which is one of the two right answers.
        let _ = client.send(&body).await;
        let _ = client.finish_sending().await;
        let rest = client.read_to_end().await.unwrap_or_default();
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 200"), "{headers}");
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.raw());
}

#[tokio::test]
async fn an_upgrade_is_answered_as_any_request() {
    let (proxy, upstream) = site("").await;
    switch_on(&proxy, "").await;
    assert!(WebSocket::connect(proxy.address(), "/socket").await.is_err());
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = visit(&proxy, "GET", "/socket", upgrade).await;
    assert_eq!((answer.status, answer.header("upgrade")), (503, None));
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn grpc_reads_unavailable() {
    let (proxy, _upstream) = site("").await;
    switch_on(&proxy, "reason = \"Up % grade\"\n").await;
    let headers = "Content-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 0\r\n";
    let answer = visit(&proxy, "POST", "/pkg.Service/Method", headers).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")));
    assert_eq!(answer.header("grpc-message"), Some("Up %25 grade"));
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn one_flag_covers_also_what_no_route_matches() {
    let proxy =
        TestProxy::toml("[[route]]\nname = \"a\"\npath = [\"/a\"]\nrespond = { body = \"ok\" }\n").start().await;
    assert_eq!(visit(&proxy, "GET", "/nowhere", "").await.status, 404);
    switch_on(&proxy, "").await;
    assert_eq!(visit(&proxy, "GET", "/nowhere", "").await.status, 503);
}

#[tokio::test]
async fn a_routes_own_flag_blocks_that_route_only() {
    let proxy = TestProxy::toml(
        "[[route]]\nname = \"a\"\npath = [\"/a\"]\nrespond = { body = \"ok\" }\n\
         [[route]]\nname = \"b\"\npath = [\"/b\"]\nrespond = { body = \"ok\" }\n",
    );
    let proxy = proxy.start().await;
    proxy.folder.write("state/maintenance.d/a.flag", "");
    assert!(eventually_async(PATIENCE, async || visit(&proxy, "GET", "/a", "").await.status == 503).await);
    assert_eq!(visit(&proxy, "GET", "/b", "").await.status, 200);
    let scrape = ask(&proxy, "GET", "/metrics", "").await.text();
    assert!(scrape.contains("flagstone_maintenance_active{scope=\"a\"} 1"), "{scrape}");
    assert!(scrape.contains("flagstone_maintenance_blocked_total{scope=\"a\"} 1"), "{scrape}");
    assert_eq!(status(&proxy).await["routes"], serde_json::json!(["a"]));
}

#[tokio::test]
async fn a_page_folder_serves_its_page_and_its_assets() {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    let folder = crate::support::files::Folder::new();
    folder.write("page/index.html", "<title>{{ title }}</title><link href=\"{{ assets }}/style.css\">{{ reason }}");
    folder.write("page/index.de.html", "<p>Wartung: {{ reason }}</p>");
    folder.write("page/index.json", "{\"why\": {{ reason }}}");
    folder.write("page/index.txt", "because: {{ reason }}");
    folder.write("page/style.css", "h1 { color: teal }");
    let proxy = TestProxy::toml(toml(&upstream, "page = \"page\"")).in_folder(folder).start().await;
    assert_eq!(visit(&proxy, "GET", "/.flagstone/maintenance/style.css", "").await.text(), "the app");
    switch_on(&proxy, "reason = \"<b>\"\npaths = [\"/shop\"]\n").await;
    for (accept, body) in [
        ("text/html", "<title>We’ll be back soon</title>"),
        ("text/html\r\nAccept-Language: de-CH, en;q=0.5", "<p>Wartung: &lt;b&gt;</p>"),
        ("application/json", "{\"why\": \"<b>\"}"),
        ("text/plain", "because: <b>"),
    ] {
        let answer = visit(&proxy, "GET", "/shop", &format!("Accept: {accept}\r\n")).await;
        assert_eq!(answer.status, 503);
        let starts = answer.text().starts_with(body.split("We").next().unwrap());
        assert!(starts, "{accept}: {}", answer.text());
    }
    // Nothing blocks this path, but the page asks for it.
    let asset = visit(&proxy, "GET", "/.flagstone/maintenance/style.css", "").await;
    assert_eq!((asset.status, asset.text().as_str()), (200, "h1 { color: teal }"));
    assert_eq!(asset.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(asset.header("cache-control"), Some("no-store"));
    assert_eq!(visit(&proxy, "HEAD", "/.flagstone/maintenance/style.css", "").await.status, 200);
    assert_eq!(visit(&proxy, "GET", "/.flagstone/maintenance/other.css", "").await.text(), "the app");
    assert_eq!(visit(&proxy, "GET", "/.flagstone/maintenance/index.json", "").await.text(), "the app");
}

#[tokio::test]
async fn a_page_says_its_own_language_and_finds_its_assets() {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    let folder = crate::support::files::Folder::new();
    let page = "<html lang=\"{{ lang }}\"><style>body{background:url({{ assets }}/sky.png)}</style>";
    folder.write("page/index.html", page);
    folder.write("page/index.nl.html", page);
    folder.write("page/index.pt-BR.html", page);
    folder.write("page/sky.png", "blue");
    let proxy = TestProxy::toml(toml(&upstream, "page = \"page\"")).in_folder(folder).start().await;
    switch_on(&proxy, "").await;
    for (asked, lang) in [("fi", "en"), ("nl", "nl"), ("pt-BR", "pt-BR")] {
        let answer = visit(&proxy, "GET", "/", &format!("Accept: text/html\r\nAccept-Language: {asked}\r\n")).await;
        assert_eq!(answer.text(), page.replace("{{ lang }}", lang).replace("{{ assets }}", "/.flagstone/maintenance"));
    }
    assert_eq!(visit(&proxy, "GET", "/.flagstone/maintenance/sky.png", "").await.text(), "blue");
}

#[tokio::test]
async fn a_broken_template_is_the_built_in_page() {
    let upstream = FakeUpstream::http1().route("*", "the app").start().await;
    let folder = crate::support::files::Folder::new();
    folder.write("page/index.html", "{% if %}");
    folder.write("page/index.json", "{{ nonsense");
    let proxy = TestProxy::toml(toml(&upstream, "page = \"page\"")).in_folder(folder).start().await;
    switch_on(&proxy, "reason = \"Upgrade\"\n").await;
    let html = visit(&proxy, "GET", "/", "Accept: text/html\r\n").await;
    assert_eq!(html.status, 503);
    assert!(html.text().contains("Upgrade") && html.text().contains("<script>"));
    let problem = json(&visit(&proxy, "GET", "/", "Accept: application/json\r\n").await);
    assert_eq!(problem["maintenance"]["reason"], "Upgrade");
    let mut events = Client::connect(proxy.admin()).await.unwrap();
    events.send("GET /api/events?recent=100 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let told = String::from_utf8(events.read_until("index.json").await.unwrap()).unwrap();
    assert!(told.contains("Maintenance page broken") && told.contains("index.html"), "{told}");
}

/// Toggled a thousand times a second: an answer is the app's or maintenance's, whole.
#[tokio::test]
async fn each_answer_is_wholly_one_mode_however_fast_it_changes() {
    const PACE: Duration = Duration::from_micros(500);
    let (proxy, _upstream) = site("").await;
    let (flag, address) = (proxy.folder.join(FLAG), proxy.address());
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopping = std::sync::Arc::clone(&stop);
    let begun = Instant::now();
    let toggling = std::thread::spawn(move || {
        let mut toggles = 0_u32;
        while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
            match toggles % 2 {
                0 => std::fs::write(&flag, "reason = \"Toggled\"\n").unwrap(),
                _ => std::fs::remove_file(&flag).unwrap(),
            }
            toggles += 1;
            // By the clock, and at twice the pace that is promised, so that a late one is made up for.
            std::thread::sleep((begun + PACE * toggles).saturating_duration_since(Instant::now()));
        }
        toggles
    });
    let (mut app, mut maintenance) = (0, 0);
    let mut client = Client::connect(address).await.unwrap();
    while begun.elapsed() < Duration::from_secs(2) || app == 0 || maintenance == 0 {
        assert!(begun.elapsed() < PATIENCE, "only one mode was seen: {app} {maintenance}");
        let answer = client.get("/").await.unwrap();
        match (answer.status, answer.header("flagstone-reason"), answer.header("retry-after")) {
            (200, None, None) if answer.text() == "the app" => app += 1,
            (503, Some("maintenance"), Some(_)) if answer.text() != "the app" => maintenance += 1,
            _ => panic!("{answer:?}"),
        }
    }
    let toggled_for = begun.elapsed();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let toggles = toggling.join().unwrap();
    assert!(f64::from(toggles) / toggled_for.as_secs_f64() >= 1000.0, "{toggles} toggles in {toggled_for:?}");
}

/// The order of the stages is route, feature, maintenance.
#[tokio::test]
async fn a_feature_that_is_off_is_told_before_maintenance() {
    let proxy = TestProxy::toml(
        "[features]\n\"beta\" = false\n[[route]]\nname = \"beta\"\npath = [\"/beta\"]\nfeature = \"beta\"\n\
         respond = { body = \"beta\" }\n[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n",
    );
    let proxy = proxy.start().await;
    switch_on(&proxy, "").await;
    for (path, reason) in [("/beta", "feature_off"), ("/", "maintenance")] {
        let answer = visit(&proxy, "GET", path, "").await;
        assert_eq!((answer.status, answer.header("flagstone-reason")), (503, Some(reason)), "{path}");
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    assert_eq!(status(&proxy).await["blocked_requests"], 1, "only the second one met maintenance");
}

/// What may stand at the flag's path on a bad day. None of it may block, and all of it means on.
#[tokio::test]
async fn whatever_stands_at_the_flags_path_means_on() {
    let (proxy, _upstream) = site("").await;
    let flag = proxy.folder.join(FLAG);
    let put: [(&str, &dyn Fn()); 5] = [
        ("a folder", &|| std::fs::create_dir(&flag).unwrap()),
        ("a pipe", &|| drop(proxy.folder.fifo(FLAG))),
        ("a link to nothing", &|| std::os::unix::fs::symlink("nowhere", &flag).unwrap()),
        ("a link to itself", &|| std::os::unix::fs::symlink(&flag, &flag).unwrap()),
        ("noise", &|| std::fs::write(&flag, [0xff, 0x00, 0xfe, b'=', b'"']).unwrap()),
    ];
    for (what, put) in put {
        put();
        assert!(eventually_async(PATIENCE, async || visit(&proxy, "GET", "/", "").await.status == 503).await, "{what}");
        if flag.is_dir() {
            std::fs::remove_dir(&flag).unwrap()
        } else {
            std::fs::remove_file(&flag).unwrap()
        }
        assert!(eventually_async(PATIENCE, async || visit(&proxy, "GET", "/", "").await.status == 200).await, "{what}");
    }
}

/// As the kubelet mounts a volume: the flag is a link into `..data`, which is a link that is swapped.
#[tokio::test]
async fn a_mounted_volume_is_followed_through_its_links() {
    let (proxy, _upstream) = site("flag = \"volume/maintenance.flag\"").await;
    let folder = &proxy.folder;
    let reason = async |wanted: Option<&str>| {
        let reason = async || status(&proxy).await["reason"].as_str().map(str::to_owned);
        eventually_async(PATIENCE, async || reason().await.as_deref() == wanted).await
    };
    folder.write("state/volume/..one/maintenance.flag", "reason = \"one\"");
    folder.swap_link("state/volume/..data", "..one");
    std::os::unix::fs::symlink("..data/maintenance.flag", folder.join("state/volume/maintenance.flag")).unwrap();
    assert!(reason(Some("one")).await);
    folder.write("state/volume/..two/maintenance.flag", "reason = \"two\"");
    folder.swap_link("state/volume/..data", "..two");
    assert!(reason(Some("two")).await);
    std::fs::remove_dir_all(folder.join("state/volume")).unwrap();
    assert!(eventually_async(PATIENCE, async || status(&proxy).await["is_active"] == false).await);
    folder.write("state/volume/maintenance.flag", "reason = \"anew\"");
    assert!(reason(Some("anew")).await);
}
