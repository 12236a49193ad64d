//! A collector of traces: takes what is posted to it, and shows it decoded.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, TracesData};
use prost::Message as _;

use crate::support::poll::eventually;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What OTLP answers with success: an empty message.
pub(super) struct Collector(pub(super) FakeUpstream);

impl Collector {
    pub(super) async fn start() -> Self {
        Self(FakeUpstream::http1().route("*", Reply::ok("")).start().await)
    }

    /// As operators write it: without a path.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.0.address())
    }

    /// Each post, decoded.
    pub(super) fn messages(&self) -> Vec<ResourceSpans> {
        let requests = self.0.requests();
        let whole = requests.iter().filter(|request| !request.body.is_empty());
        let decoded = whole.filter_map(|request| TracesData::decode(&*request.body).ok());
        decoded.flat_map(|data| data.resource_spans).collect()
    }

    /// All spans so far, in the order of their arrival.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.messages().into_iter().flat_map(|message| message.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Waits for that many spans; then no more may have come.
    pub(super) async fn wait(&self, count: usize) -> Vec<Span> {
        let came = eventually(PATIENCE, || self.spans().len() >= count).await;
        let spans = self.spans();
        assert!(came && spans.len() == count, "{} spans instead of {count}: {spans:#?}", spans.len());
        spans
    }
}

/// Of a request.
pub(super) fn servers(spans: &[Span]) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind() == SpanKind::Server).collect()
}

/// Of its tries at endpoints.
pub(super) fn clients(spans: &[Span]) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind() == SpanKind::Client).collect()
}

/// An attribute as text; "" = there is none.
pub(super) fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key);
    match found.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        None => String::new(),
        Some(other) => panic!("{key}: {other:?}"),
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parts of a `traceparent`: trace, span, flags.
pub(super) fn parts(traceparent: &str) -> (String, String, String) {
    let parts: Vec<&str> = traceparent.split('-').collect();
    assert!(parts.len() == 4 && parts[0] == "00", "{traceparent}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}
