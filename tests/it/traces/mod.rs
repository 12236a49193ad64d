//! `[trace]`: what of requests reaches a collector, as it decodes it, and what apps are told of their trace.

mod collector;
mod failures;

use opentelemetry_proto::tonic::trace::v1::Span;

use self::collector::{Collector, PATIENCE, attribute, clients, hexadecimal, parts, servers};
use crate::support::admin;
use crate::support::client::Client;
use crate::support::h2::Http2;
use crate::support::poll::eventually;
use crate::support::process::{Flagstone, Process, Signal};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;
use crate::support::websocket::WebSocket;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn trace(collector: &Collector, sample: f64) -> String {
    format!("[trace]\notlp = \"{}\"\nsample = {sample}\n", collector.url())
}

/// A process before one app: routes `api` (`/api`), `all` and, with a limit that lets nobody through twice, `limited`.
fn site(app: &FakeUpstream, tables: &str) -> String {
    format!(
        "{tables}[server]\nstate_dir = \"state\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\n\
         access = \"access.json\"\naccess_format = \"json\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"api\"\npath = [\"/api\", \"/api/orders\"]\nupstream = \"app\"\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [[route]]\nname = \"limited\"\npath = [\"/limited\"]\nrespond = {{ body = \"ok\" }}\nlimits = [\"once\"]\n\
         [limit.once]\nrate = \"1/1h\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
        app.endpoint()
    )
}

#[tokio::test]
async fn a_request_is_a_span_and_so_is_its_try_at_the_app() {
    let (app, collector) = (FakeUpstream::http1().route("*", "hello").start().await, Collector::start().await);
    let mut flagstone = Flagstone::serve(&site(&app, &trace(&collector, 1.0))).await;
    let web = flagstone.address("web").await;
    let mut client = Client::connect(web).await.unwrap();
    let fields = "User-Agent: probe/1.0\r\ntraceparent: garbage\r\ntracestate: a=1\r\n";
    client.request("GET", "/api/orders/7?page=2&access_token=s3cret", fields).await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 200);

    let spans = collector.wait(2).await;
    let (server, attempt) = (servers(&spans)[0], clients(&spans)[0]);
    let posted = &collector.0.requests()[0].head;
    assert_eq!(posted.line, "POST /v1/traces HTTP/1.1");
    assert_eq!(posted.header("content-type"), Some("application/x-protobuf"));

    assert_eq!(server.name, "GET /api/orders");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/api/orders/7"),
        ("url.query", "page=2&access_token=REDACTED"),
        ("http.route", "/api/orders"),
        ("http.response.status_code", "200"),
        ("http.response.body.size", "5"),
        ("client.address", "127.0.0.1"),
        ("network.peer.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "probe/1.0"),
        ("server.address", "test"),
        ("flagstone.route", "api"),
        ("flagstone.upstream", "app"),
        ("flagstone.reason", ""),
        ("error.type", ""),
    ] {
        assert_eq!(attribute(&server.attributes, key), value, "{key}");
    }
    assert_eq!((server.parent_span_id.len(), server.trace_state.as_str(), &server.status), (0, "", &None));
    assert!(server.start_time_unix_nano > 0 && server.end_time_unix_nano >= server.start_time_unix_nano);

    assert_eq!((attempt.name.as_str(), &attempt.trace_id), ("GET", &server.trace_id));
    assert_eq!(attempt.parent_span_id, server.span_id);
    let endpoint = app.address();
    for (key, value) in [
        ("server.address", "127.0.0.1"),
        ("server.port", &endpoint.port().to_string()),
        ("flagstone.endpoint", &endpoint.to_string()),
        ("flagstone.upstream", "app"),
        ("http.response.status_code", "200"),
        ("http.request.resend_count", ""),
    ] {
        assert_eq!(attribute(&attempt.attributes, key), value, "{key}");
    }
    let (begins, ends) = (server.start_time_unix_nano, server.end_time_unix_nano);
    assert!(begins <= attempt.start_time_unix_nano && attempt.end_time_unix_nano <= ends, "{spans:#?}");

    let told = &app.requests()[0].head;
    let (trace, span, flags) = parts(told.header("traceparent").unwrap());
    assert_eq!((trace.as_str(), flags.as_str()), (hexadecimal(&server.trace_id).as_str(), "03"));
    assert_eq!(span, hexadecimal(&attempt.span_id));
    assert_eq!(told.header("tracestate"), None, "it was about another trace");

    let resource = collector.messages()[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name"), "flagstone");
    assert_eq!(attribute(&resource.attributes, "service.version"), env!("CARGO_PKG_VERSION"));
    let log = flagstone.folder.read("access.json");
    let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(line["trace_id"], trace);
    assert_eq!(line["request_id"], attribute(&server.attributes, "flagstone.request_id"));
    let body = collector.0.requests()[0].body.clone();
    assert!(!String::from_utf8_lossy(&body).contains("s3cret"));
}

#[tokio::test]
async fn who_came_by_https_to_a_trusted_proxy_asked_by_https() {
    let (app, collector) = (FakeUpstream::http1().route("*", "hello").start().await, Collector::start().await);
    for (trusted, told, scheme) in [
        ("127.0.0.1", "X-Forwarded-Proto: https\r\n", "https"),
        ("127.0.0.1", "X-Forwarded-Proto: http\r\n", "http"),
        ("127.0.0.1", "", "http"),
        ("10.0.0.1", "X-Forwarded-Proto: https\r\n", "http"),
    ] {
        let before = collector.spans().len();
        let tables = format!("{}[client_ip]\ntrusted_proxies = [\"{trusted}\"]\n", trace(&collector, 1.0));
        let proxy = TestProxy::before(&app, &tables, "").start().await;
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("GET", "/", told).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 200);
        let spans = collector.wait(before + 2).await;
        assert_eq!(attribute(&servers(&spans).last().unwrap().attributes, "url.scheme"), scheme, "{trusted} {told}");
        assert_eq!(attribute(&clients(&spans).last().unwrap().attributes, "url.scheme"), "http", "to the app");
    }
}

#[tokio::test]
async fn a_sampled_trace_goes_on_and_one_that_is_not_passes_untouched() {
    let (app, collector) = (FakeUpstream::http1().route("*", "hello").start().await, Collector::start().await);
    let proxy = TestProxy::before(&app, &trace(&collector, 0.0), "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let mut ask = async |fields: String| {
        client.request("GET", "/", &fields).await.unwrap();
        client.read_response().await.unwrap();
        app.requests().pop().unwrap().head
    };
    for unsampled in ["00", "02", "fc"] {
        let came = format!("00-{TRACE}-{PARENT}-{unsampled}");
        let told = ask(format!("traceparent: {came}\r\ntracestate: a=1\r\n")).await;
        assert_eq!((told.all("traceparent"), told.all("tracestate")), (vec![&*came], vec!["a=1"]));
    }
    let told = ask(String::new()).await;
    assert_eq!(parts(told.header("traceparent").unwrap()).2, "02", "a trace that begins here and is not sampled");

    let told = ask(format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\ntracestate: b=2\r\n")).await;
    assert_eq!(told.all("tracestate"), ["a=1", "b=2"]);
    let (trace, span, flags) = parts(told.header("traceparent").unwrap());
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    let spans = collector.wait(2).await;
    let server = servers(&spans)[0];
    assert_eq!((hexadecimal(&server.trace_id), hexadecimal(&server.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!((server.trace_state.as_str(), server.flags), ("a=1,b=2", 0x301), "sampled, its parent elsewhere");
    assert_eq!(hexadecimal(&clients(&spans)[0].span_id), span);
}

/// What the W3C's own test suite tries, as bytes on the wire.
#[tokio::test]
async fn a_malformed_traceparent_is_replaced_and_never_passed_on() {
    let (app, collector) = (FakeUpstream::http1().route("*", "hello").start().await, Collector::start().await);
    let proxy = TestProxy::before(&app, &trace(&collector, 0.0), "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let good = format!("00-{TRACE}-{PARENT}-01");
    for bad in [
        "",
        "00",
        "garbage",
        &good[1..],
        &format!("{good}-"),
        &format!("{good}-what-comes"),
        &format!("ff-{TRACE}-{PARENT}-01"),
        &format!("00-{}-{PARENT}-01", "0".repeat(32)),
        &format!("00-{TRACE}-{}-01", "0".repeat(16)),
        &good.to_uppercase(),
        &format!("00-{TRACE}-{PARENT}-1"),
        &format!("00-{TRACE}-{PARENT}-.1"),
        &format!("00-{TRACE}-{PARENT}-01\r\ntraceparent: {good}"),
        &format!("{good}, {good}"),
        &"0".repeat(4_000),
    ] {
        let fields = format!("traceparent: {bad}\r\ntracestate: a=1\r\n");
        client.request("GET", "/", &fields).await.unwrap();
        assert_eq!(client.read_response().await.unwrap().status, 200, "{bad}");
        let told = app.requests().pop().unwrap().head;
        let (trace, _, flags) = parts(told.all("traceparent")[0]);
        assert_eq!((told.all("traceparent").len(), told.all("tracestate").len()), (1, 0), "{bad}");
        assert!(trace != TRACE && flags == "02", "{bad}: {told:?}");
    }
}

#[tokio::test]
async fn a_later_version_and_blanks_are_understood() {
    let (app, collector) = (FakeUpstream::http1().route("*", "hello").start().await, Collector::start().await);
    let proxy = TestProxy::before(&app, &trace(&collector, 0.0), "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for value in [format!("cc-{TRACE}-{PARENT}-01-what-comes"), format!(" \t00-{TRACE}-{PARENT}-01\t ")] {
        client.request("GET", "/", &format!("traceparent: {value}\r\n")).await.unwrap();
        client.read_response().await.unwrap();
        let told = app.requests().pop().unwrap().head;
        assert_eq!(parts(told.header("traceparent").unwrap()).0, TRACE, "{value}");
    }
}

#[tokio::test]
async fn refusals_and_tries_are_told() {
    let app = FakeUpstream::http1().route("*", Reply::status(503, "no")).start().await;
    let gone = FakeUpstream::http1().start().await;
    gone.stop().await;
    let collector = Collector::start().await;
    let proxy = TestProxy::toml(format!(
        "{}[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [[route]]\nname = \"gone\"\npath = [\"=/gone\"]\nupstream = \"gone\"\n\
         [[route]]\nname = \"limited\"\npath = [\"=/limited\"]\nrespond = {{ body = \"ok\" }}\nlimits = [\"once\"]\n\
         [limit.once]\nrate = \"1/1h\"\n[upstream.app]\nendpoints = [\"{}\"]\n[upstream.gone]\nendpoints = [\"{}\"]\n",
        trace(&collector, 1.0),
        app.endpoint(),
        gone.endpoint()
    ))
    .start()
    .await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for status in [200, 429] {
        assert_eq!(client.get("/limited").await.unwrap().status, status);
    }
    let spans = collector.wait(2).await;
    let (passed, refused) = (servers(&spans)[0], servers(&spans)[1]);
    assert_eq!((passed.name.as_str(), &passed.status), ("GET /limited", &None));
    let of = |key: &str| attribute(&refused.attributes, key);
    assert_eq!((of("http.response.status_code"), of("error.type")), ("429".into(), "".into()));
    assert_eq!((of("flagstone.reason"), of("flagstone.decided_by")), ("rate_limited".into(), "once".into()));

    client.request("BREW", "/", "").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 503);
    let spans = collector.wait(2 + 2).await.split_off(2);
    let of = |key: &str| attribute(&servers(&spans)[0].attributes, key);
    assert_eq!((of("http.request.method"), of("http.request.method_original")), ("_OTHER".into(), "BREW".into()));
    assert_eq!((of("error.type"), servers(&spans)[0].name.as_str()), ("503".into(), "HTTP /"));
    assert_eq!(servers(&spans)[0].status.as_ref().map(|status| status.code), Some(2), "an error");
    assert_eq!(attribute(&clients(&spans)[0].attributes, "error.type"), "503");

    assert_eq!(client.get("/gone").await.unwrap().status, 502);
    let spans = collector.wait(4 + 3).await.split_off(4);
    assert_eq!(attribute(&servers(&spans)[0].attributes, "error.type"), "connect_failed");
    let of = |key: &str| clients(&spans).iter().map(|span| attribute(&span.attributes, key)).collect::<Vec<_>>();
    assert_eq!(
        (of("http.request.resend_count"), of("error.type")),
        (vec!["".into(), "1".into()], vec!["connect_failed".to_owned(); 2])
    );
    assert!(clients(&spans).iter().all(|span| span.parent_span_id == servers(&spans)[0].span_id));
}

#[tokio::test]
async fn what_a_client_does_to_its_body_is_no_fault_of_the_app() {
    let (app, collector) = (FakeUpstream::http1().start().await, Collector::start().await);
    let proxy = TestProxy::before(&app, &trace(&collector, 1.0), "").start().await;
    let start = async |framing: &str, part: &str| {
        let before = app.requests().len();
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.request("POST", "/", framing).await.unwrap();
        client.send(part).await.unwrap();
        assert!(eventually(PATIENCE, || app.requests().len() > before).await);
        client
    };
    start("Content-Length: 1000\r\n", "half").await.reset();
    let mut malformed = start("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n").await;
    collector.wait(2).await;
    malformed.send("zz\r\n").await.unwrap();
    assert_eq!(malformed.read_response().await.unwrap().status, 400);
    let spans = collector.wait(4).await;
    let of = |spans: &[&Span]| spans.iter().map(|span| attribute(&span.attributes, "error.type")).collect::<Vec<_>>();
    assert_eq!(
        (of(&servers(&spans)), of(&clients(&spans))),
        (vec!["client_closed".into(), String::new()], vec!["cancelled".into(); 2])
    );
}

/// HTTP/2, and a WebSocket, which is one request until it ends.
#[tokio::test]
async fn streams_and_tunnels_are_spans_as_well() {
    let app = FakeUpstream::http1().route("*", "hello").route("/ws", Reply::upgrade()).start().await;
    let collector = Collector::start().await;
    let proxy = TestProxy::before(&app, &trace(&collector, 1.0), "").start().await;
    let mut socket = WebSocket::connect(proxy.address(), "/ws").await.unwrap();
    socket.send_text("hi").await.unwrap();
    drop(socket);
    let spans = collector.wait(2).await;
    let of = |key: &str| attribute(&servers(&spans)[0].attributes, key);
    assert_eq!(
        (of("http.response.status_code"), of("url.path"), of("error.type")),
        ("101".into(), "/ws".into(), "".into())
    );
    assert_eq!(attribute(&clients(&spans)[0].attributes, "http.response.status_code"), "101");

    let mut client = Http2::connect(proxy.address()).await;
    assert_eq!(client.get("/over-h2").await.unwrap().status(), 200);
    let spans = collector.wait(4).await.split_off(2);
    let of = |key: &str| attribute(&servers(&spans)[0].attributes, key);
    assert_eq!((of("network.protocol.version"), of("url.path")), ("2".into(), "/over-h2".into()));
    assert_eq!(attribute(&clients(&spans)[0].attributes, "network.protocol.version"), "1.1");
}

#[tokio::test]
async fn without_it_traces_pass_and_nothing_is_logged_of_them() {
    let app = FakeUpstream::http1().route("*", "hello").start().await;
    let mut flagstone = Flagstone::serve(&site(&app, "")).await;
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    for value in ["garbage", &format!("00-{TRACE}-{PARENT}-01")] {
        client.request("GET", "/x", &format!("traceparent: {value}\r\ntracestate: a=1\r\n")).await.unwrap();
        client.read_response().await.unwrap();
        let told = app.requests().pop().unwrap().head;
        assert_eq!((told.all("traceparent"), told.all("tracestate")), (vec![value], vec!["a=1"]));
    }
    client.get("/x").await.unwrap();
    assert_eq!(app.requests().pop().unwrap().head.header("traceparent"), None);
    assert!(eventually(PATIENCE, || flagstone.folder.read("access.json").lines().count() == 3).await);
    assert!(!flagstone.folder.read("access.json").contains("trace_id"));
}

#[tokio::test]
async fn a_reload_switches_it_on_elsewhere_and_off() {
    let (app, first, second) =
        (FakeUpstream::http1().route("*", "hello").start().await, Collector::start().await, Collector::start().await);
    let site = |tables: &str| {
        format!(
            "{tables}[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
            app.endpoint()
        )
    };
    let proxy = TestProxy::toml(site("")).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for (tables, collector) in
        [(trace(&first, 1.0), Some(&first)), (trace(&second, 1.0), Some(&second)), (String::new(), None)]
    {
        let before = app.requests().len();
        proxy.rewrite(&site(&tables));
        // The watcher or this one: whoever comes second finds nothing changed.
        let changes = proxy.control().reload().unwrap().changes;
        assert!(changes.iter().all(|line| line.starts_with("trace: ~otlp")), "{changes:?}");
        client.get("/").await.unwrap();
        assert_eq!(app.requests().len(), before + 1);
        let told = app.requests().pop().unwrap().head.header("traceparent").map(str::to_owned);
        assert_eq!(told.is_some(), collector.is_some());
        if let Some(collector) = collector {
            let spans = collector.wait(2).await;
            assert_eq!(hexadecimal(&spans[0].trace_id), parts(&told.unwrap()).0);
        }
    }
    assert_eq!((first.spans().len(), second.spans().len()), (2, 2));
}

#[tokio::test]
async fn what_failed_is_found_by_its_trace() {
    let app = FakeUpstream::http1().route("*", Reply::status(500, "no")).start().await;
    let collector = Collector::start().await;
    let proxy = TestProxy::before(&app, &trace(&collector, 0.0), "").start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/", &format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n")).await.unwrap();
    client.read_response().await.unwrap();
    let recent = admin::json(proxy.admin(), "/api/requests").await;
    let failed = &recent["requests"][0];
    assert_eq!(failed["traceId"], TRACE);
    let (admin, id) = (proxy.admin().to_string(), failed["requestId"].as_str().unwrap());
    let told = Flagstone::run(["explain", "--admin", &admin, "--request-id", id]).await;
    assert!(told.stdout.contains(&format!("\n  trace        {TRACE}\n")), "{told:?}");
    proxy.control().reload().unwrap();
    assert_eq!(collector.spans().len(), 0, "not sampled");
}

#[tokio::test]
async fn what_still_waits_is_exported_before_the_process_ends() {
    let (app, collector) = (FakeUpstream::http1().route("*", "hello").start().await, Collector::start().await);
    let folder = crate::support::files::Folder::new();
    let file = folder.write("flagstone.toml", site(&app, &trace(&collector, 1.0)));
    let mut command = Flagstone::command(["run", "-c"]);
    command.arg(&file).current_dir(folder.path());
    command.env("OTEL_SERVICE_NAME", "shop").env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret");
    let mut process = Process::start(&mut command);
    let line = process.stderr_line("listening name=web ").await;
    let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let mut client = Client::connect(address).await.unwrap();
    for _ in 0..10 {
        client.get("/").await.unwrap();
    }
    process.signal(Signal::TERM);
    assert!(process.wait(PATIENCE).await.success());
    collector.wait(20).await;
    let request = &collector.0.requests()[0];
    assert_eq!(request.head.header("api-key"), Some("s3cret"));
    let resource = collector.messages()[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name"), "shop");
    assert!(!process.stderr().contains("s3cret"));
}
