//! Webhooks: tells what `[[notify]]` asks for, one event a POST, as Slack's or as plain JSON.
//!
//! Nobody waits for a webhook. Events come over the event log's bounded channel, and every webhook has a bounded
//! queue and a task of its own, so that a slow or dead one holds up neither a request nor another webhook. What
//! cannot be delivered is tried again with growing pauses and in the end given up, with one line in the log. A
//! URL is a secret: the log names a webhook by its place in the file.

mod body;
mod post;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::post::{Poster, Verdict};
use super::events::{EventLog, Record};
use crate::config::model::Notify;
use crate::upstream::Resolver;

/// Events that wait for one webhook; further ones are dropped.
const QUEUE_MAX: usize = 128;
/// Tries for one event: with the pauses between them two minutes at least.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Tells the webhooks of what happens, for as long as it is polled.
///
/// `current` gives the generation and its webhooks. What happened before is told too, so that maintenance that was
/// on at the start is known.
pub(crate) async fn run(events: &EventLog, resolver: Resolver, current: impl Fn() -> (u64, Vec<Notify>)) {
    let mut desk = Desk { poster: Arc::new(Poster::new(resolver)), webhooks: Vec::new(), tasks: JoinSet::new() };
    let (before, mut receiver) = events.subscribe();
    let mut generation = 0;
    let mut tell = |record: &Arc<Record>| {
        let (now, webhooks) = current();
        if generation != now {
            generation = now;
            desk.arrange(&webhooks);
        }
        desk.tell(record);
    };
    before.iter().for_each(&mut tell);
    loop {
        match receiver.recv().await {
            Ok(record) => tell(&record),
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "webhooks missed events: too many at once"),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The webhooks of one generation.
struct Desk {
    poster: Arc<Poster>,
    webhooks: Vec<Webhook>,
    /// Ended with the desk; a task whose webhook is gone first works off its queue.
    tasks: JoinSet<()>,
}

struct Webhook {
    settings: Notify,
    queue: mpsc::Sender<Arc<Record>>,
    is_full: bool,
}

impl Desk {
    /// Keeps what did not change, with its queue.
    fn arrange(&mut self, wanted: &[Notify]) {
        let mut before = std::mem::take(&mut self.webhooks);
        for (index, settings) in wanted.iter().enumerate() {
            let kept = before.iter().position(|webhook| webhook.settings == *settings);
            let webhook = match kept {
                Some(at) => before.swap_remove(at),
                None => self.open(index, settings),
            };
            self.webhooks.push(webhook);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn open(&mut self, index: usize, settings: &Notify) -> Webhook {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        self.tasks.spawn(deliver(Arc::clone(&self.poster), index, settings.clone(), events));
        Webhook { settings: settings.clone(), queue, is_full: false }
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
async fn deliver(poster: Arc<Poster>, index: usize, settings: Notify, mut events: mpsc::Receiver<Arc<Record>>) {
    while let Some(record) = events.recv().await {
        let body = body::of(&record, settings.format);
        let Err(problem) = try_to_deliver(&poster, &settings, &body).await else { continue };
        tracing::warn!("notify[{index}]: {:?} was not delivered: {problem}", record.event.message());
    }
}

async fn try_to_deliver(poster: &Poster, settings: &Notify, body: &str) -> Result<(), String> {
    let mut attempt = 1;
    loop {
        let (problem, asked) = match poster.post(&settings.url.0, body).await {
            Verdict::Delivered => return Ok(()),
            Verdict::Refused(problem) => return Err(problem),
            Verdict::Failed { problem, retry_after } => (problem, retry_after),
        };
        if attempt == ATTEMPTS {
            return Err(format!("{problem}, after {ATTEMPTS} tries"));
        }
        tokio::time::sleep(pause(attempt, asked, fastrand::f64())).await;
        attempt += 1;
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
