//! What is no reason not to serve, and shows only when everything has been built.

use std::path::Path;

use jiff::Timestamp;

use crate::config::{Loaded, Problem, Problems};
use crate::explain::route_tests;
use crate::snapshot::{Snapshot, log_fault};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::events::Event;
use crate::tls::Standing;

/// All of it, for who checks a file.
pub(super) fn of(snapshot: &Snapshot, loaded: &Loaded) -> Problems {
    let mut problems = of_pages(snapshot);
    problems.extend(of_certificates(snapshot, Timestamp::now().as_second()));
    // Where it is to serve, and as whom, may be another question.
    let log = &loaded.config.log.access;
    problems.extend(log_fault(log).or_else(|| AccessLog::needs_a_reader(log).then(of_pipe)));
    problems.extend(of_state_dir(&loaded.config.server.state_dir));
    loaded.locate_all(Problems(problems))
}

/// Tells of pages as events. Certificates are told of by who watches them.
pub(super) fn tell_of_pages(snapshot: &Snapshot, loaded: &Loaded) {
    for warning in loaded.locate_all(Problems(of_pages(snapshot))).0 {
        snapshot.shared.events.emit(Event::MaintenancePageBroken { error: warning.to_string() });
    }
}

/// Tells of the file's own tests that fail. At three in the morning that is no reason not to start; a reload or an
/// upgrade with the same file would be refused.
pub(super) fn tell_of_tests(snapshot: &Snapshot, loaded: &Loaded) {
    for problem in loaded.locate_all(Problems(route_tests::failures(snapshot))).0 {
        tracing::warn!("{problem}");
    }
}

/// What is missing of it is made at the start, unless something else is in its place.
fn of_state_dir(state_dir: &Path) -> Option<Problem> {
    let there = state_dir.ancestors().find(|place| place.exists() && !place.is_dir())?;
    let message = match there == state_dir {
        true => "is no folder".to_owned(),
        false => format!("is below {}, which is no folder", there.display()),
    };
    let problem = Problem::new("server.state_dir", message).with_text(&state_dir.display().to_string());
    Some(problem.with_help("name a folder; what is missing of it is made"))
}

fn of_pipe() -> Problem {
    let problem = Problem::new("log.access", "is a pipe, which can be opened only while somebody reads it");
    problem.with_help("begin to read it before this starts: without a reader the start is refused")
}

/// A broken template is no reason not to serve: the built-in page takes its place.
fn of_pages(snapshot: &Snapshot) -> Vec<Problem> {
    let warnings = snapshot.maintenance.pages.warnings().iter();
    let problem = |warning: &String| {
        Problem::new("maintenance.page", warning.as_str()).with_help("the built-in page is shown in its place")
    };
    warnings.map(problem).collect()
}

/// Old certificates serve: some clients look at no dates, and a site must start all the same.
fn of_certificates(snapshot: &Snapshot, now: i64) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, listener) in snapshot.config.listeners.iter().enumerate() {
        let Some(tls) = snapshot.listeners.get(listener.name.as_str()).and_then(|listener| listener.tls.as_ref())
        else {
            continue;
        };
        for (place, facts) in tls.certificates().iter().enumerate() {
            let (message, help) = match facts.standing(now, 0) {
                Standing::Expired => (format!("expired at {}", facts.until()), "renew it: most clients refuse it"),
                Standing::Invalid => ("is not valid yet".to_owned(), "look at this machine's clock and the file"),
                Standing::Ok | Standing::Expiring => continue,
            };
            let at = format!("listener[{index}].tls.certificates[{place}].cert");
            problems.push(Problem::new(at, message).with_text(&facts.file.display().to_string()).with_help(help));
        }
    }
    problems
}
