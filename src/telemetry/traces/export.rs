//! Batches of spans, sent to the collector by OTLP over HTTP (protobuf), one after the other.
//!
//! | what it answers | what becomes of the batch |
//! |---|---|
//! | 2xx | delivered |
//! | 429, 502, 503, 504, or nothing | tried again with growing pauses, in the end dropped |
//! | anything else | dropped: it would answer the same again |
//!
//! (OTLP specification, "OTLP/HTTP Response" and "Retry".) The first failure is an event, and so is the next success.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::Traces;
use super::resource::{headers, resource};
use super::span::message;
use crate::config::model::Secret;
use crate::telemetry::events::{Event, EventLog};
use crate::telemetry::post::{Poster, Unsent};
use crate::upstream::Resolver;

/// From one look at the queue to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Requests in one batch. As OpenTelemetry's own exporters have it.
const BATCH_MAX: usize = 512;
/// Tries for one batch, with the pauses between them a quarter of a minute at least.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Also when the collector asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(30);
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Sends what waits in the queue.
pub struct Exporter<C> {
    traces: Arc<Traces>,
    events: Arc<EventLog>,
    poster: Poster,
    resource: Resource,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Where to, by the generation that serves.
    current: C,
    /// The last one there was: what waits when tracing is switched off still goes there.
    url: Option<Secret>,
    batch: Option<Batch>,
    is_failing: bool,
}

/// Spans on their way.
struct Batch {
    body: Bytes,
    spans: usize,
    /// Made so far.
    tries: u32,
}

impl<C: Fn() -> Option<Secret>> Exporter<C> {
    /// `instance` tells this process from others.
    pub fn new(traces: Arc<Traces>, events: Arc<EventLog>, resolver: Resolver, instance: &str, current: C) -> Self {
        let lookup = |name: &str| std::env::var(name).ok();
        Self {
            traces,
            events,
            poster: Poster::new(resolver),
            resource: resource(instance, lookup),
            headers: headers(lookup),
            current,
            url: None,
            batch: None,
            is_failing: false,
        }
    }

    /// Exports, for as long as it is polled.
    ///
    /// # Cancel safety
    /// Nothing is lost: it may be run again, or said farewell to. The collector may get one batch twice.
    pub async fn run(&mut self) {
        let traces = Arc::clone(&self.traces);
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = traces.half_full.notified() => {}
            }
            while let Some(pause) = self.step().await {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Exports what still waits, for at most `patience`, with one try for each batch; what is left then is dropped.
    pub async fn farewell(mut self, patience: Duration) {
        let last = async {
            while self.fill() {
                if let Some(batch) = &mut self.batch {
                    batch.tries = TRIES;
                }
                self.step().await;
            }
        };
        if tokio::time::timeout(patience, last).await.is_ok() {
            return;
        }
        let waiting = self.traces.take(usize::MAX);
        let waiting: usize = waiting.iter().map(|finished| finished.span_count()).sum();
        let lost = waiting + self.batch.map_or(0, |batch| batch.spans);
        self.traces.drop_spans(lost);
        tracing::warn!(spans = lost, "the last traces were not exported: the collector does not take them");
    }

    /// Tries to deliver a batch. `None` = nothing waits any more; else how long to wait before the next step.
    async fn step(&mut self) -> Option<Duration> {
        if !self.fill() {
            return None;
        }
        let Some(batch) = &mut self.batch else { return None };
        self.url = (self.current)().or(self.url.take());
        let Some(url) = &self.url else {
            // Nothing is recorded before there is one.
            self.give_up();
            return None;
        };
        batch.tries += 1;
        let is_last = batch.tries >= TRIES;
        let doubled = FIRST_PAUSE.saturating_mul(1 << (batch.tries - 1).min(16));
        let (problem, may_pass, asked) =
            match self.poster.post(&url.0, batch.body.clone(), PROTOBUF, &self.headers).await {
                Ok(answer) if answer.status.is_success() => {
                    self.delivered();
                    return Some(Duration::ZERO);
                }
                Ok(answer) => {
                    let may_pass = matches!(
                        answer.status,
                        StatusCode::TOO_MANY_REQUESTS
                            | StatusCode::BAD_GATEWAY
                            | StatusCode::SERVICE_UNAVAILABLE
                            | StatusCode::GATEWAY_TIMEOUT
                    );
                    (format!("it answered {}", answer.status.as_u16()), may_pass, answer.retry_after)
                }
                Err(Unsent::Wrong(problem)) => (problem.to_owned(), false, None),
                Err(Unsent::Failed(problem)) => (problem, true, None),
            };
        self.failed(problem);
        if !may_pass || is_last {
            self.give_up();
            return Some(Duration::ZERO);
        }
        Some(asked.unwrap_or_default().max(doubled).min(PAUSE_MAX))
    }

    /// Makes the next batch where there is none; whether there is one then.
    fn fill(&mut self) -> bool {
        if self.batch.is_none() {
            let finished = self.traces.take(BATCH_MAX);
            if !finished.is_empty() {
                let body = message(&self.resource, &finished).encode_to_vec().into();
                let spans = finished.iter().map(|finished| finished.span_count()).sum();
                self.batch = Some(Batch { body, spans, tries: 0 });
            }
        }
        self.batch.is_some()
    }

    fn delivered(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.traces.export_spans(batch.spans);
        }
        if std::mem::take(&mut self.is_failing) {
            self.events.emit(Event::TraceExportRecovered { dropped: self.traces.dropped() });
        }
    }

    fn failed(&mut self, error: String) {
        if !std::mem::replace(&mut self.is_failing, true) {
            self.events.emit(Event::TraceExportFailing { error });
        }
    }

    fn give_up(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.traces.drop_spans(batch.spans);
        }
    }
}
