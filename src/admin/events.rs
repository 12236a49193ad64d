//! `/api/events`: the event log as it is written, and a metrics tick a second (server-sent events, WHATWG HTML,
//! section 9.2).
//!
//! An id is the process's start and the event's number: a client that comes back after a restart is told everything
//! that the new process knows, one that comes back to the same process only what it missed. Streams are so many at
//! most, and end when the token changes. A slow reader misses the oldest events and is told how many; metrics ticks are
//! never queued.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode, Uri};
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::calls::calls;
use super::guard::Admission;
use super::history;
use super::query::Parameters;
use super::routes::Panel;
use super::schema;
use super::view::{Problem, problem};
use crate::app::Control;
use crate::telemetry::events::{RECENT, Record};

/// Open streams.
const STREAMS_MAX: usize = 32;
/// Without anything to tell, as proxies in between close what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client is asked to wait before it comes back.
const RETRY_MS: u32 = 1_000;
/// Events in one piece of a replay.
const PIECE: usize = 50;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(super) fn router() -> Router<Panel> {
    let streams = Arc::new(Semaphore::new(STREAMS_MAX));
    calls().layer(Extension(streams))
}

calls!(stream);

#[utoipa::path(get, path = "/api/events", tag = "metrics", params(
    ("recent" = Option<u16>, Query, description = "Begin with this many of what has been", minimum = 0, maximum = 1000),
    ("metrics" = Option<bool>, Query, description = "A metrics tick a second")),
    responses((status = 200, description = "Server-sent events", body = String, content_type = "text/event-stream"),
              (status = 503, description = "Too many streams are open", body = schema::Problem, content_type = "application/problem+json")))]
async fn stream(
    State(panel): State<Panel>,
    Extension(streams): Extension<Arc<Semaphore>>,
    Extension(admission): Extension<Admission>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let wanted = Parameters::of(&uri, &["recent", "metrics"]).and_then(|query| parse(&headers, &query));
    match wanted {
        Ok(wanted) => open(panel, admission, &wanted, &streams),
        Err(problem) => problem.into_response(),
    }
}

/// What the client asked for.
#[derive(Debug, PartialEq)]
struct Wanted {
    /// Of what has been, how many.
    recent: usize,
    /// Or everything after this, when the id is of this process.
    after: Option<String>,
    ticks: bool,
}

fn open(panel: Panel, admission: Admission, wanted: &Wanted, streams: &Arc<Semaphore>) -> Response {
    let Ok(place) = Arc::clone(streams).try_acquire_owned() else {
        let text = format!("{STREAMS_MAX} event streams are open: close one, or try again later");
        let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &text).into_response();
        response.headers_mut().insert(RETRY_AFTER, 5.into());
        return response;
    };
    let stream = Stream::new(panel.control, admission, wanted, place);
    let pieces = futures_util::stream::unfold(stream, async |mut stream| {
        let piece = stream.piece().await?;
        // The first piece after a change is that the configuration was reloaded.
        if !stream.is_admitted() {
            return None;
        }
        Some((Ok::<_, std::convert::Infallible>(piece), stream))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(pieces)).into_response()
}

fn parse(headers: &HeaderMap, query: &Parameters) -> Result<Wanted, Problem> {
    let wrong = |text: String| problem(StatusCode::BAD_REQUEST, &text);
    let recent = query.get("recent").map_or(Some(0), |number| number.parse().ok().filter(|&number| number <= RECENT));
    Ok(Wanted {
        recent: recent.ok_or_else(|| wrong(format!("recent is a whole number from 0 to {RECENT}")))?,
        after: headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned),
        ticks: match query.get("metrics") {
            None | Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(wrong("metrics is true or false".to_owned())),
        },
    })
}

/// One client's stream.
struct Stream {
    control: Arc<Control>,
    admission: Admission,
    /// The part of an id that says which process it is of.
    process: String,
    before: std::vec::IntoIter<Arc<Record>>,
    events: broadcast::Receiver<Arc<Record>>,
    ticks: Option<watch::Receiver<u64>>,
    is_greeted: bool,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    fn new(control: Arc<Control>, admission: Admission, wanted: &Wanted, place: OwnedSemaphorePermit) -> Self {
        let (mut before, events) = control.shared.events.subscribe();
        let process = control.shared.instance.clone();
        let from = match wanted.after.as_deref().map(|id| number_of(id, &process)) {
            Some(Some(last)) => before.partition_point(|record| record.id <= last),
            // Of another process: this one's events are all news.
            Some(None) => 0,
            None => before.len().saturating_sub(wanted.recent),
        };
        let before = before.split_off(from).into_iter();
        let ticks = wanted.ticks.then(|| control.shared.metrics.ticks());
        Self { control, admission, process, before, events, ticks, is_greeted: false, _place: place }
    }

    /// Whether its client would still be let in.
    fn is_admitted(&self) -> bool {
        self.admission.holds(&self.control.live.load_full().config.admin)
    }

    /// The next words; `None` at the end.
    async fn piece(&mut self) -> Option<String> {
        if !self.is_greeted {
            self.is_greeted = true;
            return Some(format!("retry: {RETRY_MS}\n\n"));
        }
        let mut text = String::new();
        for record in self.before.by_ref().take(PIECE) {
            tell(&mut text, &self.process, &record);
        }
        if !text.is_empty() {
            return Some(text);
        }
        let silence = tokio::time::sleep(KEEP_ALIVE);
        tokio::select! {
            event = self.events.recv() => match event {
                Ok(record) => tell(&mut text, &self.process, &record),
                Err(RecvError::Lagged(missed)) => {
                    let _ = write!(text, "event: missed\ndata: {{\"missed\":{missed}}}\n\n");
                }
                Err(RecvError::Closed) => return None,
            },
            () = tick(&mut self.ticks) => text = told_tick(&self.control),
            () = silence => text.push_str(": still here\n\n"),
        }
        Some(text)
    }
}

async fn tick(ticks: &mut Option<watch::Receiver<u64>>) {
    match ticks {
        // The other end lives as long as the process.
        Some(ticks) => {
            let _ = ticks.changed().await;
        }
        None => std::future::pending().await,
    }
}

fn tell(text: &mut String, process: &str, record: &Record) {
    let _ = write!(text, "id: {process}-{}\nevent: log\ndata: {}\n\n", record.id, record.to_json());
}

/// The number of the event in an id of this process.
fn number_of(id: &str, process: &str) -> Option<u64> {
    id.strip_prefix(process)?.strip_prefix('-')?.parse().ok()
}

fn told_tick(control: &Control) -> String {
    let metrics = &control.shared.metrics;
    let mut body = history::last_minute(control);
    body["second"] = metrics.last_second().map(|second| history::second(&second)).unwrap_or(json!(null));
    body["generation"] = json!(control.live.load_full().generation);
    format!("event: metrics\ndata: {body}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &str) -> Option<Wanted> {
        let uri = format!("/api/events?{query}").parse().unwrap();
        let query = Parameters::of(&uri, &["recent", "metrics"]).ok()?;
        parse(&HeaderMap::new(), &query).ok()
    }

    #[test]
    fn a_mistake_is_refused() {
        assert_eq!(wanted(""), Some(Wanted { recent: 0, after: None, ticks: true }));
        assert_eq!(wanted("recent=1000&metrics=false").map(|w| (w.recent, w.ticks)), Some((1000, false)));
        for wrong in ["recent=1001", "recent=-1", "metrics=no", "since=1"] {
            assert_eq!(wanted(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_id_of_another_process_is_none_of_ours() {
        assert_eq!(number_of("5f3a-17", "5f3a"), Some(17));
        for id in ["5f3b-17", "5f3a17", "5f3a-", "17", "", "5f3a--1"] {
            assert_eq!(number_of(id, "5f3a"), None, "{id}");
        }
    }
}
