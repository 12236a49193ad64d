use std::sync::Arc;
use std::time::{Instant, SystemTime};

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::super::{Attempt, AttemptEnd, Attempts, Finished};
use super::*;
use crate::message::trace_context::{Share, TraceContext};

fn finished() -> Finished {
    Finished {
        context: TraceContext::begin(7, 8, Share::new(1.0)),
        parent: None,
        tracestate: None,
        began: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
        began_at: Instant::now(),
        duration: Duration::from_millis(20),
        method: Method::GET,
        scheme: "https",
        path: "/a".to_owned(),
        query: None,
        host: "example.com".to_owned(),
        port: Some(8443),
        client: [203, 0, 113, 9].into(),
        peer: None,
        version: Version::HTTP_2,
        user_agent: None,
        request_id: "r-1".to_owned(),
        status: Some(200),
        body_bytes: 1,
        route: None,
        pattern: None,
        reason: None,
        decided_by: None,
        upstream: None,
        attempts: Attempts::default(),
    }
}

fn attempt(finished: &Finished, endpoint: &str, end: Option<Result<u16, &'static str>>) -> Attempt {
    Attempt {
        span_id: 9,
        upstream: "app".into(),
        endpoint: endpoint.into(),
        target: "/a?b=1&token=s3cret".to_owned(),
        is_tls: true,
        is_http2: true,
        began: finished.began_at + Duration::from_millis(5),
        end: end.map(|outcome| AttemptEnd { after: Duration::from_millis(10), outcome }),
    }
}

fn value(span: &Span, key: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    Some(match pair.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn who_is_to_blame_is_told_by_the_conventions() {
    // A server's span: 4xx is the client's affair.
    for (status, reason, error) in [
        (Some(200), None, None),
        (Some(404), None, None),
        (Some(429), Some("rate_limited"), None),
        (Some(500), None, Some("500")),
        (Some(503), Some("maintenance"), Some("maintenance")),
        (Some(200), Some("upstream_error"), Some("upstream_error")),
        (None, None, Some("client_closed")),
    ] {
        let span = server(&Finished { status, reason, ..finished() });
        assert_eq!((value(&span, "error.type").as_deref(), span.status.is_some()), (error, error.is_some()));
    }
    // A client's: 4xx is ours.
    for (end, error) in [
        (Some(Ok(200)), None),
        (Some(Ok(404)), Some("404")),
        (Some(Err("connect_failed")), Some("connect_failed")),
        (None, Some("cancelled")),
    ] {
        let whole = finished();
        let span = client(&whole, 0, &attempt(&whole, "10.0.0.1:3000", end));
        assert_eq!((value(&span, "error.type").as_deref(), span.status.is_some()), (error, error.is_some()));
    }
}

#[test]
fn endpoints_of_every_kind_have_an_address() {
    let whole = finished();
    for (endpoint, address, port) in [
        ("10.0.0.1:3000", "10.0.0.1", Some("3000")),
        ("[::1]:3000", "::1", Some("3000")),
        ("app.internal:80", "app.internal", Some("80")),
        ("unix:/run/app:1.sock", "unix:/run/app:1.sock", None),
    ] {
        let span = client(&whole, 2, &attempt(&whole, endpoint, Some(Ok(200))));
        assert_eq!(
            (value(&span, "server.address").as_deref(), value(&span, "server.port").as_deref()),
            (Some(address), port)
        );
        let authority = if port.is_some() { endpoint } else { "localhost" };
        let url = format!("https://{authority}/a?b=1&token=REDACTED");
        assert_eq!(value(&span, "url.full"), Some(url));
        assert_eq!(value(&span, "http.request.resend_count").as_deref(), Some("2"));
        assert_eq!(value(&span, "network.protocol.version").as_deref(), Some("2"));
    }
}

#[test]
fn a_host_that_is_an_address_has_no_brackets() {
    for (host, address) in [("[2001:db8::7]", Some("2001:db8::7")), ("example.com", Some("example.com")), ("", None)] {
        let span = server(&Finished { host: host.to_owned(), ..finished() });
        assert_eq!(value(&span, "server.address").as_deref(), address);
    }
}

#[test]
fn times_are_those_of_the_wall_and_a_try_lies_within_its_request() {
    let whole = finished();
    let span = server(&whole);
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (100_000_000_000, 100_020_000_000));
    let span = client(&whole, 0, &attempt(&whole, "a:1", Some(Ok(200))));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (100_005_000_000, 100_015_000_000));
    // Whoever left while the app was at work: until the end.
    let span = client(&whole, 0, &attempt(&whole, "a:1", None));
    assert_eq!(span.end_time_unix_nano, 100_020_000_000);
}

#[test]
fn texts_and_tries_are_bounded() {
    assert_eq!(super::super::shortened(&("a".to_owned() + &"ä".repeat(5_000))).len(), 1023);
    assert_eq!(super::super::shortened("short"), "short");
    let mut whole = finished();
    for _ in 0..50 {
        let one = attempt(&whole, "a:1", None);
        whole.attempts.begin(one);
        whole.attempts.end(Ok(200), whole.began_at);
    }
    let message = message(&Resource::default(), &VecDeque::from([Box::new(whole)]));
    let spans = &message.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.len(), 17);
}

#[test]
fn unknown_methods_make_no_new_names() {
    let method = Method::from_bytes(b"BREW").unwrap();
    let span = server(&Finished { method, pattern: Some("/pots".to_owned()), ..finished() });
    assert_eq!((span.name.as_str(), value(&span, "http.request.method").as_deref()), ("HTTP /pots", Some("_OTHER")));
    assert_eq!(value(&span, "http.request.method_original").as_deref(), Some("BREW"));
}

#[test]
fn a_parent_elsewhere_is_said_to_be() {
    let parent = 0x00f0_67aa_0ba9_02b7_u64;
    let span = server(&Finished { parent: Some(parent), upstream: Some(Arc::from("app")), ..finished() });
    assert_eq!((span.parent_span_id.as_slice(), span.flags), (&parent.to_be_bytes()[..], 0x303));
    assert_eq!(server(&finished()).flags, 0x103);
}
