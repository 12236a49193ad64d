//! Collectors on bad days: requests never notice, what is lost is counted, and the log tells it once.

use super::collector::{Collector, PATIENCE};
use super::{site, trace};
use crate::support::admin;
use crate::support::client::Client;
use crate::support::poll::eventually_async;
use crate::support::process::{Flagstone, Signal};
use crate::support::reply::Reply;
use crate::support::upstream::{FakeUpstream, OnAccept};

/// One worker, an app, a collector, and a configuration that records everything.
async fn start() -> (Flagstone, FakeUpstream, Collector) {
    let (app, collector) = (FakeUpstream::http1().route("*", "hello").start().await, Collector::start().await);
    let flagstone = Flagstone::serve(&site(&app, &trace(&collector, 1.0))).await;
    (flagstone, app, collector)
}

async fn ask(flagstone: &mut Flagstone, count: usize) {
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    for _ in 0..count {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
}

async fn metric(flagstone: &mut Flagstone, name: &str) -> u64 {
    let text = admin::metrics(flagstone.admin().await).await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("the metric is there");
    line.parse().unwrap()
}

const EXPORTED: &str = "flagstone_trace_spans_exported_total";
const DROPPED: &str = "flagstone_trace_spans_dropped_total";

fn told(flagstone: &Flagstone, message: &str) -> usize {
    flagstone.process.stderr().lines().filter(|line| line.contains(message)).count()
}

#[tokio::test]
async fn one_that_is_down_gets_what_waits_when_it_is_back() {
    let (mut flagstone, _app, collector) = start().await;
    collector.0.stop().await;
    ask(&mut flagstone, 5).await;
    flagstone.process.stderr_line("Trace export is failing").await;
    collector.0.restart().await;
    flagstone.process.stderr_line("Trace export has recovered").await;
    collector.wait(10).await;
    assert_eq!((metric(&mut flagstone, EXPORTED).await, metric(&mut flagstone, DROPPED).await), (10, 0));
    assert_eq!((told(&flagstone, "is failing"), told(&flagstone, "has recovered")), (1, 1));
    let url = collector.url();
    assert!(!told(&flagstone, "is failing").to_string().contains(&url));
}

#[tokio::test]
async fn one_that_fails_for_good_costs_the_batch_and_is_told_once() {
    let (mut flagstone, _app, collector) = start().await;
    collector.0.set_route("*", Reply::status(500, "broken"));
    let mut lost = 0;
    for _ in 0..2 {
        ask(&mut flagstone, 1).await;
        lost += 2;
        let is_lost = async || metric(&mut flagstone, DROPPED).await == lost;
        assert!(eventually_async(PATIENCE, is_lost).await);
    }
    let line = flagstone.process.stderr_line("Trace export is failing").await;
    assert!(line.contains("it answered 500"), "{line}");
    assert_eq!(collector.0.requests().len(), 2, "no batch is sent again");
    collector.0.set_route("*", Reply::ok(""));
    ask(&mut flagstone, 1).await;
    let line = flagstone.process.stderr_line("Trace export has recovered").await;
    assert!(line.contains("dropped=4"), "{line}");
    assert_eq!(told(&flagstone, "is failing"), 1);
}

#[tokio::test]
async fn one_that_asks_to_wait_gets_the_batch_again() {
    let (mut flagstone, _app, collector) = start().await;
    collector.0.set_route("*", Reply::with_headers(429, "Retry-After: 1\r\n", "later"));
    ask(&mut flagstone, 1).await;
    flagstone.process.stderr_line("Trace export is failing").await;
    collector.0.set_route("*", Reply::ok(""));
    flagstone.process.stderr_line("Trace export has recovered").await;
    let bodies: Vec<_> = collector.0.requests().into_iter().map(|request| request.body).collect();
    assert!(bodies.len() >= 2 && bodies.iter().all(|body| *body == bodies[0]), "the same batch each time");
    assert_eq!((metric(&mut flagstone, EXPORTED).await, metric(&mut flagstone, DROPPED).await), (2, 0));
}

#[tokio::test]
async fn one_that_never_reads_slows_nobody_and_the_queue_is_bounded() {
    let (mut flagstone, app, collector) = start().await;
    collector.0.set_on_accept(OnAccept::Blackhole);
    ask(&mut flagstone, 6_000).await;
    assert_eq!(app.requests().len(), 6_000);
    let is_over = async || metric(&mut flagstone, DROPPED).await >= 2 * (6_000 - 2_048 - 2 * 512);
    assert!(eventually_async(PATIENCE, is_over).await);
    assert_eq!(metric(&mut flagstone, EXPORTED).await, 0);
    // Nor does it keep the process from ending.
    flagstone.process.signal(Signal::TERM);
    flagstone.process.stderr_line("the last traces were not exported").await;
    assert!(flagstone.process.wait(PATIENCE).await.success());
}
