use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Group, Surroundings};
use crate::breaker::Pauses;
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Resolver;
use crate::upstream::endpoint::{Change, Observer};

/// Two endpoints, each ejected by one failure.
fn group(observer: Observer) -> Group {
    let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"a\"\nupstream = \"app\"\n[upstream.app]\n\
                endpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nejection = { failures = 1, base = \"1ms\" }\n";
    let config = crate::config::parse(text, std::path::Path::new("flagstone.toml"), &|_| None).unwrap().config;
    let surroundings = Surroundings {
        workers: 1,
        resolver: &Resolver::unused(),
        metrics: Metrics::new(1).upstream("app"),
        pauses: Arc::new(Pauses::new(Duration::from_secs(1), Instant::now())),
        breaker_observer: Box::new(|_| {}),
        endpoint_observer: observer,
        secret: &Secret::random(),
        previous: None,
    };
    Group::build("app", &config.upstreams["app"], surroundings).unwrap()
}

/// Whoever tells that it is back may be held up while another worker ejects it once more.
#[test]
fn an_endpoint_is_told_to_be_back_before_it_is_told_to_be_ejected_again() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (held_up, hold_up) = mpsc::channel();
    let all = Arc::clone(&told);
    let group = group(Arc::new(move |_, change| {
        if change == Change::Restored {
            held_up.send(()).unwrap();
            let patience = Instant::now() + Duration::from_millis(200);
            while all.lock().len() < 2 && Instant::now() < patience {
                thread::yield_now();
            }
        }
        all.lock().push(matches!(change, Change::Ejected { .. }));
    }));
    let (endpoint, begun) = (&group.endpoints()[0], Instant::now());
    let at = |millis| begun + Duration::from_millis(millis);
    group.failed(endpoint, Duration::ZERO, begun);
    thread::scope(|scope| {
        scope.spawn(|| group.succeeded(endpoint, at(2), at(3)));
        hold_up.recv().unwrap();
        group.failed(endpoint, Duration::ZERO, at(4));
    });
    assert_eq!(*told.lock(), [true, false, true]);
}
