//! The last requests that were refused or failed, for whoever asks why.
//!
//! Each worker has a ring of its own, so that a flood of refusals on one does not wait for another; a reader gets the
//! latest of all together. A request that went well costs one comparison. Texts are cut, so that nobody's long URLs
//! fill the memory: a full ring is below a mebibyte. A ring is long out of the processor's caches when a flood has come
//! around to a place again, so a request's texts stand one behind the other.

mod texts;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::access_log::{Line, masked};

pub use texts::Text;
use texts::Texts;

/// How many are kept for a reader, and at most by each worker.
pub const RECENT_MAX: usize = 1_000;

/// One request that the app did not answer well.
#[derive(Clone, Debug, Default)]
pub struct Failed {
    /// When it ended, in Unix milliseconds.
    pub unix_ms: u64,
    /// `None` on a unix socket.
    pub client: Option<IpAddr>,
    pub status: u16,
    pub duration: Duration,
    pub upstream_duration: Option<Duration>,
    texts: Texts,
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
    pub fn text(&self, which: Text) -> Option<&str> {
        self.texts.at(which)
    }

    fn fill(&mut self, line: &Line<'_>, decided_by: Option<&str>) {
        self.unix_ms = line.unix_ms;
        self.client = line.client;
        self.status = line.status;
        self.duration = line.duration;
        self.upstream_duration = line.upstream_duration;
        let texts = &mut self.texts;
        texts.clear();
        texts.put(Text::RequestId, line.request_id);
        texts.put(Text::Method, Some(line.method));
        texts.put(Text::Route, line.route);
        texts.put(Text::Reason, line.reason);
        texts.put(Text::DecidedBy, decided_by);
        texts.put(Text::Upstream, line.upstream);
        texts.put(Text::Endpoint, line.endpoint);
        texts.put_bytes(Text::TraceId, line.trace_id.as_ref().map(<[u8; 32]>::as_slice));
        texts.put_bytes(Text::Host, line.host);
        texts.put_bytes(Text::Target, masked(line.target));
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
        assert_eq!(latest[0].text(Text::Target).map(str::len), Some(texts::BYTES_MAX));
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
            let texts = [Text::Route, Text::Host, Text::DecidedBy, Text::Reason].map(|which| failed.text(which));
            assert_eq!((texts, failed.text(Text::Target)), ([None; 4], Some("/")), "{failed:?}");
        }
    }

    #[test]
    fn secrets_are_masked_before_the_text_is_cut() {
        let recent = Recent::new(1);
        recent.note(0, &Line { target: b"/?maintenance_bypass=s3cret&a=b", ..line(1, 503, None) }, None);
        assert_eq!(recent.latest()[0].text(Text::Target), Some("/?maintenance_bypass=***&a=b"));
    }
}
