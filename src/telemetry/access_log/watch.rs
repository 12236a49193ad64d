//! Watches over access logs: tells of lines that are lost, and ends logs that a reload has replaced.
//!
//! The last one to let go of a log waits up to two seconds for a file that does not take its lines. That must not be
//! a worker that finishes the last request of an old generation, so every log is held here until nobody else does.

use std::sync::Arc;

use super::AccessLog;

/// The log in use and those before it. To be asked now and then.
#[derive(Debug, Default)]
pub(crate) struct LogWatch {
    /// The one in use comes last.
    logs: Vec<Watched>,
    is_dropping: bool,
    dropped: u64,
}

#[derive(Debug)]
struct Watched {
    log: Arc<AccessLog>,
    dropped: u64,
}

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Dropping { error: String },
    Recovered { dropped: u64 },
}

impl LogWatch {
    /// Looks at every log; `current` is the one in use. Returns how many lines were lost since the last look, and what
    /// is new.
    pub(crate) fn look(&mut self, current: &Arc<AccessLog>) -> (u64, Option<News>) {
        match self.logs.iter().position(|watched| Arc::ptr_eq(&watched.log, current)) {
            Some(index) => {
                let last = self.logs.len() - 1;
                self.logs.swap(index, last);
            }
            None => self.logs.push(Watched { log: Arc::clone(current), dropped: 0 }),
        }
        let mut lost = 0;
        for watched in &mut self.logs {
            let dropped = watched.log.dropped();
            lost += dropped - watched.dropped;
            watched.dropped = dropped;
        }
        self.dropped += lost;
        self.end_replaced(current);
        let is_dropping = current.is_dropping();
        let news = match (self.is_dropping, is_dropping) {
            (false, true) => Some(News::Dropping { error: current.error() }),
            (true, false) => Some(News::Recovered { dropped: self.dropped }),
            _ => None,
        };
        self.is_dropping = is_dropping;
        (lost, news)
    }

    fn end_replaced(&mut self, current: &Arc<AccessLog>) {
        let is_over =
            |watched: &mut Watched| !Arc::ptr_eq(&watched.log, current) && Arc::strong_count(&watched.log) == 1;
        let ended: Vec<Watched> = self.logs.extract_if(.., is_over).collect();
        if !ended.is_empty() {
            // It ends when they have written what they can, or after two seconds each. Without a thread they end here.
            let _ = std::thread::Builder::new().name("old-access-log".into()).spawn(move || drop(ended));
        }
    }
}
