//! Which route a request meets, and what routes do by themselves.

use crate::support::client::{Client, RawResponse};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

async fn ask(proxy: &TestProxy, method: &str, host: &str, path: &str) -> RawResponse {
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await.unwrap();
    if method == "HEAD" { client.read_head_response().await.unwrap() } else { client.read_response().await.unwrap() }
}

/// Routes that say their own name.
fn named(routes: &[(&str, &str)]) -> String {
    let route = |(name, keys): &(&str, &str)| {
        format!("[[route]]\nname = \"{name}\"\n{keys}\nrespond = {{ body = \"{name}\" }}\n")
    };
    routes.iter().map(route).collect()
}

#[tokio::test]
async fn the_most_specific_route_wins() {
    let toml = named(&[
        ("any", ""),
        ("api", "path = [\"/api\"]"),
        ("api-v1", "path = [\"/api/v1\"]"),
        ("exact", "path = [\"=/api/v1/exact\"]"),
        ("post", "path = [\"/api\"]\nmethod = [\"POST\"]"),
        ("site", "host = [\"site.example\"]"),
        ("site-api", "host = [\"site.example\"]\npath = [\"/api\"]"),
        ("wild", "host = [\"*.site.example\"]"),
        ("inner", "host = [\"in.site.example\"]\npath = [\"/only\"]"),
    ]);
    let proxy = TestProxy::toml(toml).start().await;
    for (method, host, path, expected) in [
        ("GET", "x", "/", "any"),
        ("GET", "x", "/apix", "any"),
        ("GET", "x", "/api", "api"),
        ("GET", "x", "/api/", "api"),
        ("GET", "x", "/api/v1/more", "api-v1"),
        ("GET", "x", "/api/v1/exact", "exact"),
        ("GET", "x", "/api/v1/exact/more", "api-v1"),
        ("POST", "x", "/api", "post"),
        ("PUT", "x", "/api", "api"),
        // The host comes before the path, however specific that is elsewhere.
        ("GET", "site.example", "/api/v1/exact", "site-api"),
        ("GET", "SITE.example:8080", "/", "site"),
        ("GET", "a.site.example", "/", "wild"),
        ("GET", "in.site.example", "/only/this", "inner"),
    ] {
        let answer = ask(&proxy, method, host, path).await;
        assert_eq!((answer.status, answer.text()), (200, expected.into()), "{method} {host}{path}");
    }
}

#[tokio::test]
async fn no_route_is_404_and_a_wrong_method_405() {
    let toml = named(&[("get", "path = [\"/a\"]\nmethod = [\"GET\"]"), ("put", "path = [\"/a\"]\nmethod = [\"PUT\"]")]);
    let proxy = TestProxy::toml(toml).start().await;
    let nothing = ask(&proxy, "GET", "x", "/b").await;
    assert_eq!((nothing.status, nothing.header("flagstone-reason")), (404, Some("no_route")));
    let wrong = ask(&proxy, "DELETE", "x", "/a").await;
    assert_eq!((wrong.status, wrong.header("flagstone-reason")), (405, Some("no_route")));
    let allow = wrong.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("PUT"), "{allow}");
}

#[tokio::test]
async fn redirects_fill_in_what_was_asked_for() {
    let toml = "[[route]]\nname = \"all\"\nredirect = { to = \"https://new.example$uri\", status = 308 }\n\
                [[route]]\nname = \"parts\"\npath = [\"/parts\"]\nredirect = { to = \"$scheme://$host/x?p=$path&q=$query\", status = 302 }\n";
    let proxy = TestProxy::toml(toml).start().await;
    let all = ask(&proxy, "POST", "old.example", "/a/b?c=d&e").await;
    assert_eq!((all.status, all.header("location")), (308, Some("https://new.example/a/b?c=d&e")));
    let parts = ask(&proxy, "GET", "Old.example:80", "/parts?k=v").await;
    assert_eq!((parts.status, parts.header("location")), (302, Some("http://old.example/x?p=/parts&q=k=v")));
    // A path that would make another site of it is one path by then.
    let twisted = ask(&proxy, "GET", "x", "//evil.example/%0d%0aX:y").await;
    assert_eq!(twisted.header("location"), Some("https://new.example/evil.example/%0D%0AX:y"));
}

/// HTTP/1.0 may come without, and `https:///` leads nowhere.
#[tokio::test]
async fn a_redirect_to_the_host_needs_one() {
    let toml = "[[route]]\nname = \"host\"\npath = [\"/host\"]\nredirect = { to = \"https://$host$uri\" }\n\
                [[route]]\nname = \"other\"\nredirect = { to = \"https://new.example$uri\" }\n";
    let proxy = TestProxy::toml(toml).start().await;
    let old = async |target: &str, fields: &str| {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(format!("GET {target} HTTP/1.0\r\n{fields}\r\n")).await.unwrap();
        client.read_response().await.unwrap()
    };
    let nowhere = old("/host", "").await;
    assert_eq!((nowhere.status, nowhere.header("flagstone-reason")), (400, Some("bad_request")));
    assert_eq!(nowhere.header("location"), None);
    assert_eq!(old("/host", "Host: a.example\r\n").await.header("location"), Some("https://a.example/host"));
    assert_eq!(old("http://a.example/host", "").await.header("location"), Some("https://a.example/host"));
    assert_eq!(old("/other", "").await.header("location"), Some("https://new.example/other"));
}

#[tokio::test]
async fn fixed_answers_have_status_type_and_body() {
    let toml =
        "[[route]]\nname = \"r\"\nrespond = { status = 418, body = \"{}\", content_type = \"application/json\" }\n";
    let proxy = TestProxy::toml(toml).start().await;
    let answer = ask(&proxy, "GET", "x", "/").await;
    assert_eq!(
        (answer.status, answer.text(), answer.header("content-type")),
        (418, "{}".into(), Some("application/json"))
    );
    let head = ask(&proxy, "HEAD", "x", "/").await;
    assert_eq!((head.status, head.header("content-length")), (418, Some("2")));
}

#[tokio::test]
async fn headers_are_removed_set_and_added() {
    let upstream = FakeUpstream::http1()
        .route("*", Reply::with_headers(200, "X-Gone: 1\r\nX-Set: app\r\nX-Add: app\r\n", "ok"))
        .start()
        .await;
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         request_headers = {{ remove = [\"X-Debug\"], set = {{ X-Env = \"live\" }}, add = {{ X-Via = \"flagstone\" }} }}\n\
         response_headers = {{ remove = [\"X-Gone\"], set = {{ X-Set = \"here\" }}, add = {{ X-Add = \"here\" }} }}\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", "X-Debug: 1\r\nX-Env: test\r\nX-Via: client\r\n").await.unwrap();
    let answer = client.read_response().await.unwrap();
    assert_eq!(
        (answer.all("x-gone"), answer.all("x-set"), answer.all("x-add")),
        (vec![], vec!["here"], vec!["app", "here"])
    );
    let head = &upstream.requests()[0].head;
    assert_eq!(
        (head.all("x-debug"), head.all("x-env"), head.all("x-via")),
        (vec![], vec!["live"], vec!["client", "flagstone"])
    );
}

#[tokio::test]
async fn a_prefix_is_stripped_and_the_host_kept_or_replaced() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let endpoint = upstream.endpoint();
    let toml = format!(
        "[[route]]\nname = \"api\"\npath = [\"/api\"]\nstrip_prefix = \"/api\"\nupstream = \"app\"\n\
         [[route]]\nname = \"host\"\npath = [\"/host\"]\npreserve_host = false\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{endpoint}\"]\n"
    );
    let proxy = TestProxy::toml(toml).start().await;
    for path in ["/api", "/api/", "/api/a/b?c=/api", "/host"] {
        assert_eq!(ask(&proxy, "GET", "site.example", path).await.status, 200, "{path}");
    }
    let mut seen: Vec<_> = upstream
        .requests()
        .into_iter()
        .map(|r| (r.head.line.clone(), r.head.header("host").unwrap().to_owned()))
        .collect();
    seen.sort();
    let mut expected: Vec<_> = [
        ("GET / HTTP/1.1", "site.example"),
        ("GET / HTTP/1.1", "site.example"),
        ("GET /a/b?c=/api HTTP/1.1", "site.example"),
        ("GET /host HTTP/1.1", endpoint.as_str()),
    ]
    .map(|(line, host)| (line.to_owned(), host.to_owned()))
    .into();
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_feature_that_is_off_answers_as_in_maintenance() {
    let toml = "[[route]]\nname = \"new\"\npath = [\"/new\"]\nfeature = \"shop.new\"\nrespond = { body = \"new\" }\n\
                [[route]]\nname = \"old\"\nfeature = \"shop.old\"\nrespond = { body = \"old\" }\n\
                [features]\n\"shop.new\" = false\n\"shop.old\" = true\n";
    let proxy = TestProxy::toml(toml).start().await;
    assert_eq!(ask(&proxy, "GET", "x", "/").await.text(), "old");
    let off = ask(&proxy, "GET", "x", "/new").await;
    assert_eq!((off.status, off.header("flagstone-reason")), (503, Some("feature_off")));
    assert_eq!(off.header("cache-control"), Some("no-store"));
    assert!(off.header("retry-after").is_some_and(|secs| secs.parse::<u64>().unwrap() >= 1), "{off:?}");
}

#[tokio::test]
async fn lists_let_in_and_keep_out() {
    let toml = named(&[
        ("denied", "path = [\"/denied\"]\ndeny = [\"127.0.0.0/8\"]"),
        ("others", "path = [\"/others\"]\nallow = [\"10.0.0.0/8\"]"),
        ("us", "path = [\"/us\"]\nallow = [\"127.0.0.1\"]"),
    ]);
    let proxy = TestProxy::toml(toml).start().await;
    for (path, status) in [("/denied", 403), ("/others", 403), ("/us", 200)] {
        let answer = ask(&proxy, "GET", "x", path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("flagstone-reason"), (status == 403).then_some("denied"), "{path}");
    }
}

/// Twice the default of tries, and still the reason is that nobody answered there.
#[tokio::test]
async fn an_upstream_that_is_down_is_a_failed_connect() {
    let upstream = FakeUpstream::http1().start().await;
    upstream.stop().await;
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n[upstream.app.breaker]\nfailures = 3\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).start().await;
    for _ in 0..3 {
        let answer = ask(&proxy, "GET", "x", "/").await;
        assert_eq!((answer.status, answer.header("flagstone-reason")), (502, Some("connect_failed")));
    }
    let answer = ask(&proxy, "GET", "x", "/").await;
    assert_eq!((answer.status, answer.header("flagstone-reason")), (503, Some("circuit_open")));
}
