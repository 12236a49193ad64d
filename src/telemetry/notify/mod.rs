//! Webhooks: tells what `[[notify]]` asks for, one event a POST, as Slack's or as plain JSON.
//!
//! Nobody waits for a webhook. Events come over the event log's bounded channel, and every webhook has a bounded queue
//! and a task of its own, so that a slow or dead one holds up neither a request nor another webhook. What cannot be
//! delivered is tried again with growing pauses and in the end given up, with one line in the log. A process that
//! drains gives what is still waiting one more try, within a bound. A URL is a secret: the log names a webhook by its
//! place in the file.

mod body;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use super::events::{EventLog, Record};
use super::post::{Answer, Poster, Unsent};
use crate::config::model::Notify;
use crate::upstream::Resolver;

/// Events that wait for one webhook; further ones are dropped.
const QUEUE_MAX: usize = 128;
/// Tries for one event: with the pauses between them two minutes at least.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Tells the webhooks of what happens.
pub struct Notifier<C> {
    desk: Desk,
    receiver: broadcast::Receiver<Arc<Record>>,
    /// What happened before, which is told too, so that maintenance that was on at the start is known.
    before: Vec<Arc<Record>>,
    generation: u64,
    /// The generation that serves, and its webhooks.
    current: C,
}

impl<C: Fn() -> (u64, Vec<Notify>)> Notifier<C> {
    pub fn new(events: &EventLog, resolver: Resolver, current: C) -> Self {
        let (before, receiver) = events.subscribe();
        Self { desk: Desk::new(resolver), receiver, before, generation: 0, current }
    }

    /// Tells, for as long as it is polled.
    ///
    /// # Cancel safety
    /// Nothing is lost: it may be run again, or said farewell to.
    pub async fn run(&mut self) {
        for record in std::mem::take(&mut self.before) {
            self.tell(&record);
        }
        loop {
            match self.receiver.recv().await {
                Ok(record) => self.tell(&record),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "webhooks missed events: too many at once"),
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Delivers what is still waiting, for at most `patience`: no event waits for another try any more, each gets a
    /// last one at once.
    pub async fn farewell(mut self, patience: Duration) {
        loop {
            match self.receiver.try_recv() {
                Ok(record) => self.tell(&record),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.desk.close(patience).await;
    }

    fn tell(&mut self, record: &Arc<Record>) {
        let (now, webhooks) = (self.current)();
        if self.generation != now {
            self.generation = now;
            self.desk.arrange(&webhooks);
        }
        self.desk.tell(record);
    }
}

/// The webhooks of one generation.
struct Desk {
    poster: Arc<Poster>,
    webhooks: Vec<Webhook>,
    /// Ended with the desk; a task whose webhook is gone first works off its queue.
    tasks: JoinSet<()>,
    /// Whether there is no time left for pauses.
    closing: watch::Sender<bool>,
}

struct Webhook {
    settings: Notify,
    /// Which of `[[notify]]` it is: a reload may put it elsewhere.
    index: Arc<AtomicUsize>,
    queue: mpsc::Sender<Arc<Record>>,
    is_full: bool,
}

impl Desk {
    fn new(resolver: Resolver) -> Self {
        let poster = Arc::new(Poster::new(resolver));
        Self { poster, webhooks: Vec::new(), tasks: JoinSet::new(), closing: watch::Sender::new(false) }
    }

    /// Waits until the queues are empty, or as long as `patience`.
    async fn close(mut self, patience: Duration) {
        self.webhooks.clear();
        self.closing.send_replace(true);
        let emptied = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, emptied).await.is_err() {
            tracing::warn!(webhooks = self.tasks.len(), "webhooks have not taken their last events");
        }
    }

    /// Keeps what did not change, with its queue.
    fn arrange(&mut self, wanted: &[Notify]) {
        let mut before = std::mem::take(&mut self.webhooks);
        for (index, settings) in wanted.iter().enumerate() {
            let kept = before.iter().position(|webhook| webhook.settings == *settings);
            let webhook = match kept {
                Some(at) => before.swap_remove(at),
                None => self.open(settings),
            };
            webhook.index.store(index, Relaxed);
            self.webhooks.push(webhook);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn open(&mut self, settings: &Notify) -> Webhook {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        let (closing, index) = (self.closing.subscribe(), Arc::<AtomicUsize>::default());
        self.tasks.spawn(deliver(Arc::clone(&self.poster), Arc::clone(&index), settings.clone(), events, closing));
        Webhook { settings: settings.clone(), index, queue, is_full: false }
    }

    fn tell(&mut self, record: &Arc<Record>) {
        let Some(kind) = record.event.kind() else { return };
        for (index, webhook) in self.webhooks.iter_mut().enumerate() {
            if !webhook.settings.events.contains(&kind) {
                continue;
            }
            let is_full = webhook.queue.try_send(Arc::clone(record)).is_err();
            if is_full && !webhook.is_full {
                tracing::warn!("notify[{index}]: too many events wait for it: the newest are dropped");
            }
            webhook.is_full = is_full;
        }
    }
}

/// One webhook's task: one event after the other, in order.
async fn deliver(
    poster: Arc<Poster>,
    index: Arc<AtomicUsize>,
    settings: Notify,
    mut events: mpsc::Receiver<Arc<Record>>,
    mut closing: watch::Receiver<bool>,
) {
    while let Some(record) = events.recv().await {
        let body = Bytes::from(body::of(&record, settings.format));
        let Err(problem) = try_to_deliver(&poster, &settings, &body, &mut closing).await else { continue };
        let index = index.load(Relaxed);
        tracing::warn!("notify[{index}]: {:?} was not delivered: {problem}", record.event.message());
    }
}

async fn try_to_deliver(
    poster: &Poster,
    settings: &Notify,
    body: &Bytes,
    closing: &mut watch::Receiver<bool>,
) -> Result<(), String> {
    let mut attempt = 1;
    loop {
        let is_last = attempt == ATTEMPTS || *closing.borrow();
        let (problem, asked) = match verdict(poster.post(&settings.url.0, body.clone(), JSON, &[]).await) {
            Verdict::Delivered => return Ok(()),
            Verdict::Refused(problem) => return Err(problem),
            Verdict::Failed { problem, retry_after } => (problem, retry_after),
        };
        if is_last {
            let tries = if attempt == 1 { "1 try".to_owned() } else { format!("{attempt} tries") };
            return Err(format!("{problem}, after {tries}"));
        }
        tokio::select! {
            () = tokio::time::sleep(pause(attempt, asked, fastrand::f64())) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        attempt += 1;
    }
}

/// What came of a POST.
#[derive(Debug)]
enum Verdict {
    Delivered,
    /// Trying again would bring the same.
    Refused(String),
    Failed {
        problem: String,
        retry_after: Option<Duration>,
    },
}

fn verdict(answer: Result<Answer, Unsent>) -> Verdict {
    let Answer { status, retry_after } = match answer {
        Ok(answer) => answer,
        Err(Unsent::Wrong(problem)) => return Verdict::Refused(problem.to_owned()),
        Err(Unsent::Failed(problem)) => return Verdict::Failed { problem, retry_after: None },
    };
    let problem = format!("it answered {}", status.as_u16());
    let may_pass = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    match status {
        status if status.is_success() => Verdict::Delivered,
        status if may_pass || status.is_server_error() => Verdict::Failed { problem, retry_after },
        _ => Verdict::Refused(problem),
    }
}

/// Before the try after `attempt` (1, 2, …): doubled each time, or as long as the receiver asked for; up to half as
/// long again, so that several instances do not come back together. `random` is from 0 to 1.
fn pause(attempt: u32, asked: Option<Duration>, random: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(16));
    let pause = asked.unwrap_or_default().max(doubled).min(PAUSE_MAX);
    pause.mul_f64(1.0 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        let verdict = |code| {
            let status = StatusCode::from_u16(code).unwrap();
            verdict(Ok(Answer { status, retry_after: None }))
        };
        for code in [200, 204] {
            assert!(matches!(verdict(code), Verdict::Delivered), "{code}");
        }
        for code in [408, 429, 500, 503] {
            assert!(matches!(verdict(code), Verdict::Failed { .. }), "{code}");
        }
        for code in [301, 400, 403, 404, 410] {
            assert!(matches!(verdict(code), Verdict::Refused(_)), "{code}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_a_half() {
        let pauses = (1..=8).map(|attempt| pause(attempt, None, 0.0).as_secs());
        assert_eq!(pauses.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(8, None, 1.0), Duration::from_secs(90));
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause() {
        assert_eq!(pause(1, Some(Duration::from_secs(20)), 0.0), Duration::from_secs(20));
        assert_eq!(pause(1, Some(Duration::from_secs(3600)), 0.0), PAUSE_MAX);
        assert_eq!(pause(5, Some(Duration::from_secs(1)), 0.0), Duration::from_secs(16));
    }
}
