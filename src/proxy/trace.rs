//! The trace that a request belongs to: where tracing is on, the one its client has begun, or one that begins here.
//!
//! | `traceparent` | sampled | the app is told | recorded |
//! |---|---|---|---|
//! | well formed | yes | the same trace, our span as its parent | yes |
//! | well formed | no | what came, untouched | no |
//! | none, or malformed | by the share of the configuration | a new trace, without the `tracestate` that came | if it is sampled |

use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue};

use crate::message::trace_context::{Share, TRACEPARENT, TRACESTATE, TraceContext};
use crate::telemetry::traces::{Attempt, Attempts};

/// A request's place in its trace.
#[derive(Debug)]
pub(super) struct Trace {
    /// Its own span where it is recorded, else the one that the app is told of.
    pub(super) context: TraceContext,
    is_new: bool,
    pub(super) recording: Option<Recording>,
}

/// What is only known, and only kept, of a request that is recorded.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) parent: Option<u64>,
    pub(super) tracestate: Option<String>,
    pub(super) began: SystemTime,
    pub(super) came_by_https: bool,
    pub(super) attempts: Attempts,
}

impl Trace {
    /// The trace of a request with these headers. `share` is of those that begin here.
    pub(super) fn begin(headers: &HeaderMap, share: Share, came_by_https: impl FnOnce() -> bool) -> Box<Self> {
        let parent = TraceContext::of(headers);
        let context = match parent {
            Some(parent) if parent.is_sampled() => parent.child(fastrand::u64(..)),
            Some(parent) => parent,
            None => TraceContext::begin(fastrand::u128(..), fastrand::u64(..), share),
        };
        let recording = context.is_sampled().then(|| Recording {
            parent: parent.map(TraceContext::span_id),
            tracestate: parent.and_then(|_| joined(headers)),
            began: SystemTime::now(),
            came_by_https: came_by_https(),
            attempts: Attempts::default(),
        });
        Box::new(Self { context, is_new: parent.is_none(), recording })
    }

    /// Tells the app.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if self.is_new || self.recording.is_some() {
            headers.insert(TRACEPARENT, self.context.value());
        }
        if self.is_new {
            // What others kept there is about a trace that cannot be told (section 3.3 of W3C Trace Context).
            headers.remove(TRACESTATE);
        }
    }

    /// A try at an endpoint begins, with what `made` makes of its span's id. Returns what the endpoint is to be told as
    /// its parent, where this is recorded.
    pub(super) fn begin_attempt(&mut self, made: impl FnOnce(u64) -> Attempt) -> Option<HeaderValue> {
        let recording = self.recording.as_mut()?;
        let own = self.context.child(fastrand::u64(..));
        let is_kept = recording.attempts.begin(made(own.span_id()));
        Some(if is_kept { own } else { self.context }.value())
    }

    /// It ended, with a status or by what went wrong.
    pub(super) fn end_attempt(&mut self, outcome: Result<u16, &'static str>) {
        if let Some(recording) = &mut self.recording {
            recording.attempts.end(outcome, Instant::now());
        }
    }
}

/// What has to be passed on at least (section 3.3.1.5); a longer one goes to the app, but is not kept for the
/// collector.
const TRACESTATE_BYTES_MAX: usize = 512;

/// Several lines of `tracestate` are one list, in their order (section 3.3.1.1).
fn joined(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(TRACESTATE).iter().filter_map(|line| line.to_str().ok());
    let lines: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
    Some(lines.join(",")).filter(|list| (1..=TRACESTATE_BYTES_MAX).contains(&list.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

    fn headers(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(traceparent).unwrap());
        headers.append(TRACESTATE, HeaderValue::from_static("a=1, b=2"));
        headers.append(TRACESTATE, HeaderValue::from_static("c=3"));
        headers
    }

    fn told(traceparent: &str, share: f64) -> (Box<Trace>, HeaderMap) {
        let mut headers = headers(traceparent);
        let trace = Trace::begin(&headers, Share::new(share), || false);
        trace.tell(&mut headers);
        (trace, headers)
    }

    #[test]
    fn a_sampled_trace_goes_on_with_a_span_of_ours() {
        let (trace, headers) = told(&format!("{PARENT}1"), 0.0);
        let recording = trace.recording.as_ref().unwrap();
        assert_eq!(recording.parent, Some(0x00f067aa0ba902b7));
        assert_eq!(recording.tracestate.as_deref(), Some("a=1, b=2,c=3"));
        let value = headers[TRACEPARENT].to_str().unwrap();
        assert!(value.starts_with(&PARENT[..36]) && value.ends_with("-01") && !value.contains("00f067aa0ba902b7"));
        assert_eq!(headers.get_all(TRACESTATE).iter().count(), 2);
    }

    #[test]
    fn a_trace_that_is_not_sampled_goes_on_as_it_came() {
        let came = format!("cc{}8-more", &PARENT[2..]);
        let (trace, headers) = told(&came, 1.0);
        assert!(trace.recording.is_none());
        assert_eq!(headers[TRACEPARENT], came);
        assert_eq!(headers.get_all(TRACESTATE).iter().count(), 2);
    }

    #[test]
    fn a_long_tracestate_goes_on_and_is_not_kept() {
        let mut headers = headers(&format!("{PARENT}1"));
        headers.append(TRACESTATE, HeaderValue::from_str(&format!("d={}", "x".repeat(600))).unwrap());
        let trace = Trace::begin(&headers, Share::new(0.0), || false);
        trace.tell(&mut headers);
        assert_eq!(trace.recording.and_then(|recording| recording.tracestate), None);
        assert_eq!(headers.get_all(TRACESTATE).iter().count(), 3);
    }

    #[test]
    fn what_is_malformed_gives_way_to_a_new_trace() {
        for share in [0.0, 1.0] {
            let (trace, headers) = told("00-zz", share);
            assert_eq!(trace.recording.is_some(), share > 0.0);
            assert_eq!(headers[TRACEPARENT], trace.context.value());
            assert!(!headers.contains_key(TRACESTATE));
            assert!(
                trace.recording.is_none_or(|recording| recording.parent.is_none() && recording.tracestate.is_none())
            );
        }
    }
}
