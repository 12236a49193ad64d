//! Many numbered requests at once, for tests that change something under load: every failure is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::task::JoinSet;

use super::client::{Client, RawResponse};

/// What is told of failures in full; the rest are counted.
const FAILURES_TOLD: usize = 50;

/// A task that lost its connection waits at least this long, so that refusals do not come by the million.
const PAUSE_AFTER_LOSS: Duration = Duration::from_millis(5);

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    address: SocketAddr,
    path: String,
    tasks: usize,
    fresh_connections: bool,
    pause: Duration,
    /// Of all tasks together.
    per_second: Option<u32>,
    tls: Option<(String, Arc<ClientConfig>)>,
    statuses_accepted: Vec<u16>,
}

/// A load that is being sent.
#[derive(Debug)]
pub struct RunningLoad {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tasks: JoinSet<Report>,
    begun: Instant,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub sent: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that had no answer, or one with a status that was not accepted.
    pub failed: u64,
    /// The first of them, in full.
    pub failures: Vec<Failure>,
    pub slowest: Duration,
    /// From the beginning to the last answer.
    pub took: Duration,
}

#[derive(Clone, Debug)]
pub struct Failure {
    /// The request's own number; it was sent as `X-Number`.
    pub number: u64,
    /// Since the load began.
    pub after: Duration,
    pub what: String,
}

impl Load {
    /// Eight tasks that send `GET path` on kept connections and accept nothing but 200.
    pub fn get(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            path: path.to_owned(),
            tasks: 8,
            fresh_connections: false,
            pause: Duration::ZERO,
            per_second: None,
            tls: None,
            statuses_accepted: vec![200],
        }
    }

    #[must_use]
    pub fn tasks(mut self, tasks: usize) -> Self {
        self.tasks = tasks;
        self
    }

    /// Opens a connection for every request.
    #[must_use]
    pub fn on_fresh_connections(mut self) -> Self {
        self.fresh_connections = true;
        self
    }

    /// Lets each task wait after each answer.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Sends so many a second, all tasks together; fewer where answers do not come as fast, which
    /// [`Report::per_second`] tells.
    #[must_use]
    pub fn per_second(mut self, requests: u32) -> Self {
        self.per_second = Some(requests);
        self
    }

    /// Speaks TLS, to a host of this name.
    #[must_use]
    pub fn over_tls(mut self, name: &str, config: Arc<ClientConfig>) -> Self {
        self.tls = Some((name.to_owned(), config));
        self
    }

    /// Takes these statuses for successes.
    #[must_use]
    pub fn accept(mut self, statuses: &[u16]) -> Self {
        self.statuses_accepted = statuses.to_vec();
        self
    }

    /// Sends for a while.
    pub async fn run_for(self, time: Duration) -> Report {
        let running = self.start();
        tokio::time::sleep(time).await;
        running.stop().await
    }

    /// Sends until stopped.
    pub fn start(self) -> RunningLoad {
        let (stop, sent, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..self.tasks {
            tasks.spawn(work(self.clone(), Arc::clone(&stop), Arc::clone(&sent), begun));
        }
        RunningLoad { stop, sent, tasks, begun }
    }
}

impl RunningLoad {
    /// How many requests were begun so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests were begun; `false` when the deadline comes first.
    #[must_use = "assert it"]
    pub async fn reaches(&self, more: u64, deadline: Duration) -> bool {
        let goal = self.sent() + more;
        super::poll::eventually(deadline, || self.sent() >= goal).await
    }

    /// Lets every task finish its request and tells what happened.
    pub async fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        while let Some(part) = self.tasks.join_next().await {
            total.add(part.expect("a task that does not panic"));
        }
        total.took = self.begun.elapsed();
        total
    }
}

impl Report {
    /// # Panics
    /// When a request failed, or none was sent.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.sent > 0, "nothing was sent");
        assert!(self.failed == 0, "{} of {} requests failed: {:#?}", self.failed, self.sent, self.failures);
    }

    /// How many requests a second there were.
    pub fn per_second(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }

    fn add(&mut self, part: Self) {
        self.sent += part.sent;
        self.failed += part.failed;
        self.slowest = self.slowest.max(part.slowest);
        for (status, count) in part.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.failures.extend(part.failures);
        self.failures.sort_by_key(|failure| failure.after);
        self.failures.truncate(FAILURES_TOLD);
    }

    fn fail(&mut self, number: u64, after: Duration, what: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(Failure { number, after, what });
        }
    }
}

async fn work(load: Load, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>, begun: Instant) -> Report {
    let mut report = Report::default();
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        if let Some(rate) = load.per_second {
            // Whoever is late does not wait: what a pause of the other side held up is made up for.
            tokio::time::sleep_until((begun + Duration::from_secs(number) / rate).into()).await;
        }
        let asked = Instant::now();
        report.sent += 1;
        match exchange(&load, &mut kept, number).await {
            Ok(response) => {
                *report.statuses.entry(response.status).or_default() += 1;
                if !load.statuses_accepted.contains(&response.status) {
                    report.fail(number, begun.elapsed(), format!("{response:?}"));
                }
            }
            Err(error) => report.fail(number, begun.elapsed(), error.to_string()),
        }
        report.slowest = report.slowest.max(asked.elapsed());
        let pause =
            if kept.is_none() && !load.fresh_connections { load.pause.max(PAUSE_AFTER_LOSS) } else { load.pause };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    report
}

async fn exchange(load: &Load, kept: &mut Option<Client>, number: u64) -> std::io::Result<RawResponse> {
    let mut client = match kept.take() {
        Some(client) => client,
        None => match &load.tls {
            Some((name, config)) => Client::connect_tls(load.address, name, Arc::clone(config)).await?,
            None => Client::connect(load.address).await?,
        },
    };
    let connection = if load.fresh_connections { "Connection: close\r\n" } else { "" };
    client.request("GET", &load.path, &format!("X-Number: {number}\r\n{connection}")).await?;
    let response = client.read_response().await?;
    let closes = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if !load.fresh_connections && !closes {
        *kept = Some(client);
    }
    Ok(response)
}
