//! Sending plain requests on to https, and `Strict-Transport-Security`.

use crate::maintenance::switch_on;
use crate::support::certs::Ca;
use crate::support::client::{Client, RawResponse};
use crate::support::files::Folder;
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const PLAIN: &str = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nredirect_https = true\n";
const TLS: &str = "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n\
                   tls = { certificates = [{ cert = \"site.pem\", key = \"site.key\" }], hsts = \"2h\" }\n";
const HELLO: &str = "[[route]]\nname = \"hello\"\nrespond = { body = \"hello\" }\n";

async fn ask(client: &mut Client, request: &str) -> RawResponse {
    client.send(request).await.unwrap();
    client.read_response().await.unwrap()
}

async fn location(proxy: &TestProxy, line: &str, headers: &str) -> Result<String, u16> {
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let response = ask(&mut client, &format!("{line}\r\n{headers}\r\n")).await;
    match response.status {
        308 => Ok(response.header("location").unwrap().to_owned()),
        status => Err(status),
    }
}

#[tokio::test]
async fn a_plain_request_is_sent_on_to_https_with_its_whole_address() {
    let proxy = TestProxy::toml(format!("{PLAIN}{HELLO}")).start().await;
    let host = "Host: Site.Example:8080\r\n";
    for (line, to) in [
        ("GET / HTTP/1.1", "https://site.example/"),
        ("POST /a%20b/../c?d=%2F&e HTTP/1.1", "https://site.example/c?d=%2F&e"),
        ("GET http://site.example:8080/x HTTP/1.1", "https://site.example/x"),
        ("OPTIONS /y HTTP/1.0", "https://site.example/y"),
    ] {
        assert_eq!(location(&proxy, line, host).await.as_deref(), Ok(to), "{line}");
    }
    assert_eq!(location(&proxy, "GET / HTTP/1.1", "Host: [::1]:80\r\n").await.as_deref(), Ok("https://[::1]/"));
    // Nothing to be sent on to.
    assert_eq!(location(&proxy, "GET / HTTP/1.0", "").await, Err(400));
}

#[tokio::test]
async fn nobody_is_sent_to_another_host_by_the_path() {
    let proxy = TestProxy::toml(format!("{PLAIN}{HELLO}")).start().await;
    for target in ["//evil.example/", "/%2f%2fevil.example", "/\\evil.example", "/.//evil.example"] {
        let sent = location(&proxy, &format!("GET {target} HTTP/1.1"), "Host: a.example\r\n").await;
        assert!(sent.as_ref().map_or(true, |to| to.starts_with("https://a.example/")), "{target}: {sent:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_no_second_request() {
    let proxy = TestProxy::toml(format!("{PLAIN}{HELLO}")).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let inner = "GET /inner HTTP/1.1\r\nHost: b\r\n\r\n";
    let request = format!("POST /outer HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
    assert_eq!(ask(&mut client, &request).await.header("location"), Some("https://a/outer"));
    assert_eq!(
        ask(&mut client, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await.header("location"),
        Some("https://a/next")
    );
}

#[tokio::test]
async fn challenges_and_exempt_paths_are_answered_here() {
    let toml = format!("{PLAIN}{HELLO}[maintenance]\nexempt_paths = [\"/api/health\", \"=/ping\"]\n");
    let proxy = TestProxy::toml(toml).start().await;
    for path in ["/.well-known/acme-challenge/token", "/api/health", "/api/health/db", "/ping"] {
        assert_eq!(location(&proxy, &format!("GET {path} HTTP/1.1"), "Host: a\r\n").await, Err(200), "{path}");
    }
    for path in ["/.well-known/acme-challenge", "/.well-known/acme-challenge/../x", "/ping/x", "/api/healthy"] {
        assert!(location(&proxy, &format!("GET {path} HTTP/1.1"), "Host: a\r\n").await.is_ok(), "{path}");
    }
}

#[tokio::test]
async fn who_came_to_a_trusted_proxy_by_https_is_not_sent_round_in_circles() {
    let told = "Host: a\r\nX-Forwarded-Proto: https\r\n";
    let trusting = format!("{PLAIN}{HELLO}[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let trusting = TestProxy::toml(trusting).start().await;
    assert_eq!(location(&trusting, "GET / HTTP/1.1", told).await, Err(200));
    let plain = told.replace("https", "http");
    assert_eq!(location(&trusting, "GET / HTTP/1.1", &plain).await.as_deref(), Ok("https://a/"));
    let twice = format!("{told}X-Forwarded-Proto: http\r\n");
    assert_eq!(location(&trusting, "GET / HTTP/1.1", &twice).await.as_deref(), Ok("https://a/"));
    let wary = TestProxy::toml(format!("{PLAIN}{HELLO}")).start().await;
    assert_eq!(location(&wary, "GET / HTTP/1.1", told).await.as_deref(), Ok("https://a/"));
}

#[tokio::test]
async fn what_is_answered_knows_of_https_in_front_of_a_trusted_proxy() {
    let toml = "[maintenance]\nbypass_token = \"token-of-test-4711\"\n[[route]]\nname = \"moved\"\n\
                redirect = { to = \"$scheme://new.example$path\", status = 308 }\n";
    let trusting = format!("[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n{toml}");
    for (toml, https) in [(trusting.as_str(), "https"), (toml, "http")] {
        let proxy = TestProxy::toml(toml).start().await;
        for (told, scheme) in [("https", https), ("HTTPS", https), ("http", "http")] {
            let headers = format!("Host: a\r\nX-Forwarded-Proto: {told}\r\n");
            let moved = location(&proxy, "GET /a HTTP/1.1", &headers).await;
            assert_eq!(moved, Ok(format!("{scheme}://new.example/a")), "{told}");
        }
        switch_on(&proxy, "").await;
        for (told, scheme) in [("https", https), ("HTTPS", https), ("http", "http")] {
            let mut client = Client::connect(proxy.address()).await.unwrap();
            let target = "/?maintenance_bypass=token-of-test-4711";
            let asked = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: {told}\r\n\r\n");
            let answer = ask(&mut client, &asked).await;
            let cookie = answer.header("set-cookie").unwrap();
            assert_eq!(cookie.ends_with("; Secure"), scheme == "https", "{told}: {cookie}");
        }
    }
}

#[tokio::test]
async fn who_came_by_https_is_told_in_forwarded_where_that_is_chosen() {
    let trusting = format!("{PLAIN}{HELLO}[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let chosen = TestProxy::toml(format!("{trusting}header = \"Forwarded\"\n")).start().await;
    let other = TestProxy::toml(trusting).start().await;
    let round = Ok("https://a/");
    for (headers, by_forwarded, by_others) in [
        ("Forwarded: for=203.0.113.9;proto=https\r\n", Err(200), round),
        ("Forwarded: for=203.0.113.9;proto=http\r\nX-Forwarded-Proto: https\r\n", round, Err(200)),
        ("Forwarded: for=203.0.113.9\r\nX-Forwarded-Proto: https\r\n", Err(200), Err(200)),
        ("Forwarded: for=1.1.1.1;proto=https, for=203.0.113.9\r\n", round, round),
    ] {
        let headers_sent = format!("Host: a\r\n{headers}");
        for (proxy, expected) in [(&chosen, by_forwarded), (&other, by_others)] {
            let sent = location(proxy, "GET / HTTP/1.1", &headers_sent).await;
            assert_eq!(sent.as_deref().map_err(|status| *status), expected, "{headers}");
        }
    }
}

#[tokio::test]
async fn only_the_listener_that_says_so_sends_on() {
    let other = PLAIN.replace("web", "other").replace("redirect_https = true\n", "");
    let proxy = TestProxy::toml(format!("{PLAIN}{other}{HELLO}")).start().await;
    let mut client = Client::connect(proxy.listener("other")).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hello");
    proxy.rewrite(&format!("{other}{}{HELLO}", PLAIN.replace("redirect_https = true\n", "")));
    let mut kept = Client::connect(proxy.address()).await.unwrap();
    let settled = async || kept.get("/").await.is_ok_and(|response| response.status == 200);
    assert!(crate::support::poll::eventually_async(crate::support::process::DEADLINE, settled).await);
}

#[tokio::test]
async fn every_answer_over_tls_carries_hsts_once_and_none_without_tls() {
    let ca = Ca::new();
    let folder = Folder::new();
    ca.leaf(&["site.example"]).write(&folder, "site");
    let strict = Reply::with_headers(200, "Strict-Transport-Security: max-age=1; preload\r\n", "ok");
    let upstream = FakeUpstream::http1().route("*", strict).start().await;
    let app = format!(
        "[[route]]\nname = \"app\"\npath = [\"/app\"]\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n\
         [[route]]\nname = \"own\"\npath = [\"/own\"]\nrespond = {{ body = \"own\" }}\n\
         response_headers = {{ set = {{ Strict-Transport-Security = \"max-age=9; includeSubDomains\" }} }}\n\
         [[route]]\nname = \"fixed\"\npath = [\"/fixed\"]\nrespond = {{ body = \"fixed\" }}\n",
        upstream.endpoint()
    );
    let plain = PLAIN.replace("redirect_https = true\n", "");
    let proxy = TestProxy::toml(format!("{TLS}{plain}{app}")).in_folder(folder).start().await;
    const STS: &str = "strict-transport-security";
    for (path, expected) in [
        ("/fixed", "max-age=7200"),
        ("/none", "max-age=7200"),
        ("/app", "max-age=7200"),
        ("/own", "max-age=9; includeSubDomains"),
    ] {
        let config = ca.client_config(&[b"http/1.1"]);
        let mut client = Client::connect_tls(proxy.listener("tls"), "site.example", config).await.unwrap();
        assert_eq!(client.get(path).await.unwrap().all(STS), [expected], "{path}");
    }
    // What is refused before it is a request, too.
    let config = ca.client_config(&[b"http/1.1"]);
    let mut client = Client::connect_tls(proxy.listener("tls"), "site.example", config).await.unwrap();
    let refused = ask(&mut client, "GET / HTTP/1.1\r\nContent-Length: +1\r\nHost: a\r\n\r\n").await;
    assert_eq!((refused.status, refused.all(STS)), (400, vec!["max-age=7200"]));
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/fixed").await.unwrap().header(STS), None);
    // The app's own word, where we have none.
    assert_eq!(client.get("/app").await.unwrap().header(STS), Some("max-age=1; preload"));
}

/// What a connection was promised where it came in holds to its end, whatever listeners there are by then.
#[tokio::test]
async fn whoever_came_by_a_listener_that_is_gone_is_sent_on_and_told_as_before() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let proxy = TestProxy::toml(format!("{PLAIN}{TLS}{HELLO}")).in_folder(folder).start().await;
    let mut plain = Client::connect(proxy.address()).await.unwrap();
    let config = ca.client_config(&[b"http/1.1"]);
    let mut secure = Client::connect_tls(proxy.listener("tls"), "site.example", config).await.unwrap();
    let renamed = format!("{PLAIN}{TLS}").replace("name = \"web\"", "name = \"new\"").replace("\"tls\"", "\"new_tls\"");
    let neither = PLAIN.replace("web", "other").replace("redirect_https = true\n", "");
    for (round, listeners) in [&renamed, &renamed, &neither, &neither].into_iter().enumerate() {
        proxy
            .reload_with(&format!("{listeners}{HELLO}").replace("body = \"hello\"", &format!("body = \"{round}\"")))
            .await;
        let sent = plain.get("/").await.unwrap();
        assert_eq!((sent.status, sent.text()), (308, String::new()), "{round}");
        let answer = secure.get("/").await.unwrap();
        let told = answer.header("strict-transport-security");
        assert_eq!((answer.text(), told), (round.to_string(), Some("max-age=7200")));
    }
}
