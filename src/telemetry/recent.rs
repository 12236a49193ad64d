//! The last requests that were refused or failed, for whoever asks why.
//!
//! Each worker has a ring of its own, so that a flood of refusals on one does not wait for another; a reader gets the
//! latest of all together. A request that went well costs one comparison. Texts are cut, so that nobody's long URLs
//! fill the memory: a full ring is below a mebibyte.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::access_log::{Line, masked};

/// How many are kept for a reader, and at most by each worker.
pub const RECENT_MAX: usize = 1_000;
/// Of a target, a host or a request's id.
const TEXT_BYTES_MAX: usize = 256;

/// One request that the app did not answer well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failed {
    /// When it ended, in Unix milliseconds.
    pub unix_ms: u64,
    pub request_id: Option<String>,
    pub trace_id: Option<String>,
    /// `None` on a unix socket.
    pub client: Option<IpAddr>,
    pub method: Option<String>,
    pub host: Option<String>,
    /// As the client sent it, perhaps cut short.
    pub target: Option<String>,
    pub status: u16,
    pub route: Option<String>,
    /// The `Flagstone-Reason`; `None` = the app's own answer, or the client left.
    pub reason: Option<String>,
    /// The limit, feature, breaker or route's flag that decided.
    pub decided_by: Option<String>,
    pub upstream: Option<String>,
    pub endpoint: Option<String>,
    pub duration: Duration,
    pub upstream_duration: Option<Duration>,
}

/// The rings.
#[derive(Debug)]
pub struct Recent {
    rings: Box<[Mutex<Ring>]>,
    /// The order of them all, which clocks do not tell: they are set back.
    next: AtomicU64,
}

/// One worker's requests, each with its number.
type Ring = VecDeque<(u64, Arc<Failed>)>;

impl Recent {
    pub(crate) fn new(workers: usize) -> Self {
        Self { rings: (0..workers.max(1)).map(|_| Mutex::default()).collect(), next: AtomicU64::new(0) }
    }

    /// Keeps a finished request if it was refused here, failed, or was given up by its client.
    pub(crate) fn note(&self, worker: usize, line: &Line<'_>, decided_by: Option<&str>) {
        if line.reason.is_some() || line.status >= 499 {
            self.keep(worker, line, decided_by);
        }
    }

    #[cold]
    fn keep(&self, worker: usize, line: &Line<'_>, decided_by: Option<&str>) {
        let mut ring = self.rings[worker % self.rings.len()].lock();
        let oldest = if ring.len() == RECENT_MAX { ring.pop_front() } else { None };
        let number = self.next.fetch_add(1, Relaxed);
        // In a flood the place of the oldest is filled anew, and nothing allocated.
        let (_, mut failed) = oldest.unwrap_or_default();
        match Arc::get_mut(&mut failed) {
            Some(free) => free.fill(line, decided_by),
            // A reader still has it.
            None => {
                let mut new = Failed::default();
                new.fill(line, decided_by);
                failed = Arc::new(new);
            }
        }
        ring.push_back((number, failed));
    }

    /// The latest first, at most [`RECENT_MAX`].
    pub fn latest(&self) -> Vec<Arc<Failed>> {
        let mut all = Vec::new();
        for ring in &self.rings {
            all.extend(ring.lock().iter().cloned());
        }
        all.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        all.into_iter().take(RECENT_MAX).map(|(_, failed)| failed).collect()
    }
}

impl Failed {
    fn fill(&mut self, line: &Line<'_>, decided_by: Option<&str>) {
        self.unix_ms = line.unix_ms;
        put(&mut self.request_id, line.request_id.map(str::as_bytes));
        put(&mut self.trace_id, line.trace_id.as_ref().map(<[u8; 32]>::as_slice));
        self.client = line.client;
        put(&mut self.method, Some(line.method.as_bytes()));
        put(&mut self.host, line.host);
        let mut pieces = masked(line.target);
        put(&mut self.target, pieces.next());
        for piece in pieces {
            append(self.target.get_or_insert_default(), piece);
        }
        self.status = line.status;
        put(&mut self.route, line.route.map(str::as_bytes));
        put(&mut self.reason, line.reason.map(str::as_bytes));
        put(&mut self.decided_by, decided_by.map(str::as_bytes));
        put(&mut self.upstream, line.upstream.map(str::as_bytes));
        put(&mut self.endpoint, line.endpoint.map(str::as_bytes));
        self.duration = line.duration;
        self.upstream_duration = line.upstream_duration;
    }
}

/// Puts `text` in the place of what is there.
fn put(place: &mut Option<String>, text: Option<&[u8]>) {
    match text {
        None => *place = None,
        Some(text) => {
            let kept = place.get_or_insert_default();
            kept.clear();
            append(kept, text);
        }
    }
}

/// Appends what there is room for.
fn append(kept: &mut String, text: &[u8]) {
    let room = TEXT_BYTES_MAX.saturating_sub(kept.len());
    let text = &text[..text.len().min(room)];
    // Nearly all of it is ASCII, which is seen to eight bytes at a time here, and byte by byte there.
    match std::str::from_utf8(text) {
        Ok(text) => kept.push_str(text),
        Err(_) => kept.push_str(&String::from_utf8_lossy(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(unix_ms: u64, status: u16, reason: Option<&'static str>) -> Line<'static> {
        Line {
            unix_ms,
            client: None,
            authorization: None,
            method: "GET",
            target: b"/",
            version: http::Version::HTTP_11,
            status,
            body_bytes: 0,
            duration: Duration::ZERO,
            upstream: None,
            endpoint: None,
            upstream_duration: None,
            route: None,
            reason,
            request_id: None,
            trace_id: None,
            referer: None,
            user_agent: None,
            host: None,
        }
    }

    #[test]
    fn only_what_went_wrong_is_kept() {
        let recent = Recent::new(2);
        for (status, reason) in [(200, None), (404, None), (304, None)] {
            recent.note(0, &line(1, status, reason), None);
        }
        assert!(recent.latest().is_empty());
        for (at, status, reason) in [(1, 500, None), (2, 499, None), (3, 429, Some("rate_limited"))] {
            recent.note(at as usize, &line(at, status, reason), Some("x"));
        }
        let statuses: Vec<_> = recent.latest().iter().map(|failed| failed.status).collect();
        assert_eq!(statuses, [429, 499, 500], "the latest first, over all workers");
    }

    #[test]
    fn the_latest_is_first_whatever_the_clock_says() {
        let recent = Recent::new(2);
        for (worker, at, status) in [(0, 900, 500), (1, 901, 501), (0, 5, 502), (1, 6, 503), (0, 7, 504)] {
            recent.note(worker, &line(at, status, None), None);
        }
        let statuses: Vec<_> = recent.latest().iter().map(|failed| failed.status).collect();
        assert_eq!(statuses, [504, 503, 502, 501, 500]);
    }

    #[test]
    fn it_is_bounded_in_number_and_length() {
        let recent = Recent::new(3);
        let target = vec![b'a'; 100_000];
        for number in 0..5_000 {
            let line = Line { target: &target, ..line(number, 503, Some("maintenance")) };
            recent.note(number as usize, &line, None);
        }
        let latest = recent.latest();
        assert_eq!((latest.len(), latest[0].unix_ms, latest[999].unix_ms), (RECENT_MAX, 4_999, 4_000));
        assert_eq!(latest[0].target.as_ref().map(String::len), Some(TEXT_BYTES_MAX));
    }

    #[test]
    fn a_place_that_is_filled_anew_shows_nothing_of_before() {
        let recent = Recent::new(1);
        for _ in 0..RECENT_MAX {
            recent.note(0, &Line { route: Some("old"), host: Some(b"old"), ..line(1, 503, Some("x")) }, Some("old"));
        }
        let held = recent.latest();
        recent.note(0, &line(2, 500, None), None);
        drop(held);
        recent.note(0, &line(3, 500, None), None);
        for failed in &recent.latest()[..2] {
            let texts = [&failed.route, &failed.host, &failed.decided_by, &failed.reason];
            assert_eq!((texts, failed.target.as_deref()), ([&None; 4], Some("/")), "{failed:?}");
        }
    }

    #[test]
    fn secrets_are_masked_before_the_text_is_cut() {
        let recent = Recent::new(1);
        recent.note(0, &Line { target: b"/?maintenance_bypass=s3cret&a=b", ..line(1, 503, None) }, None);
        assert_eq!(recent.latest()[0].target.as_deref(), Some("/?maintenance_bypass=***&a=b"));
    }
}
