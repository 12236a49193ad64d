//! Follows the certificates, keys and authorities of listeners and upstreams: takes what is new and well, keeps what
//! serves when it is not, and tells of both. Tells of certificates that are about to end, too.
//!
//! The folders of the files are watched, and those that their links lead to, since certbot renews by changing links;
//! behind that the files are looked at once a second. A pair is taken as soon as both files are well and belong
//! together. One that is not may still be on its way (first the certificate, then its key), so it is called broken only
//! when it has rested.

mod reminders;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::reminders::Reminders;
use super::watch::{Bell, Folders, Watcher, is_change};
use crate::config::model::Config;
use crate::live::Live;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::telemetry::events::Event;
use crate::tls::{CertificateFacts, Finding, Standing};

/// Without events, a change is seen this late at most.
const POLL: Duration = Duration::from_secs(1);
/// Between two looks, however many events there are.
const REST: Duration = Duration::from_millis(100);
/// How long files must have been broken in the same way before that is told.
const BROKEN_AFTER: Duration = Duration::from_secs(2);
/// How long the end waits for a thread that is stuck in a dead file system.
const STOP: Duration = Duration::from_secs(1);

/// Follows what the live generation's listeners and upstreams use.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn follow(live: Arc<Live>, shared: Arc<Shared>) -> io::Result<Watcher> {
    let bell = Arc::new(Bell::default());
    let (folders, problem) = Folders::new(&bell, is_change);
    if let Some(error) = problem {
        tracing::warn!(%error, "no file events: certificates are looked at once a second");
    }
    let mut follower = Follower {
        live,
        shared,
        folders,
        generation: 0,
        seen: BTreeMap::new(),
        broken: BTreeMap::new(),
        reminders: None,
    };
    bell.heard_by("certificates", STOP, move |bell| {
        follower.look(Instant::now());
        while bell.wait(POLL) {
            follower.look(Instant::now());
            if !bell.rest(REST) {
                break;
            }
        }
    })
}

/// Tells of certificates that came with another configuration.
pub(crate) fn tell_reloaded(previous: &Snapshot, live: &Snapshot) {
    let mut told = BTreeSet::new();
    for (name, listener) in &live.listeners {
        let before = previous.listeners.get(name).and_then(|listener| listener.tls.as_ref());
        let (Some(before), Some(now)) = (before, &listener.tls) else { continue };
        for facts in now.changed_since(before) {
            if told.insert(facts.file.clone()) {
                let (domain, until) = (facts.domain(), facts.until());
                live.shared.events.emit(Event::CertificateReloaded { domain, until });
            }
        }
    }
}

/// What tells two states of a file apart without reading it; `None` = there is none.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// The thread's own.
struct Follower {
    live: Arc<Live>,
    shared: Arc<Shared>,
    folders: Folders,
    generation: u64,
    seen: BTreeMap<PathBuf, Stamp>,
    /// By the file that names the finding.
    broken: BTreeMap<PathBuf, Broken>,
    /// Read when this process is in charge: until then the one before it tells.
    reminders: Option<Reminders>,
}

/// Files that cannot be taken as they are.
struct Broken {
    domain: String,
    reason: String,
    since: Instant,
    is_told: bool,
    /// This reason was told, or one before it.
    is_known: bool,
}

impl Follower {
    fn look(&mut self, now: Instant) {
        let live = self.live.load_full();
        let terminators: Vec<_> = live.listeners.values().filter_map(|listener| listener.tls.as_deref()).collect();
        let originators: Vec<_> = live.groups.values().filter_map(|group| group.tls.as_deref()).collect();
        let files = terminators.iter().flat_map(|tls| tls.files().cloned());
        let files: BTreeSet<_> = files.chain(originators.iter().flat_map(|tls| tls.files())).collect();
        // Watch first, look then: a change in between is seen twice and never missed.
        self.folders.follow(&folders_of(&files));
        let seen: BTreeMap<_, _> = files.into_iter().map(|file| (file.clone(), stamp(&file))).collect();
        let is_reloaded = live.generation != self.generation;
        let is_new = is_reloaded || seen != self.seen;
        self.generation = live.generation;
        self.seen = seen;
        if is_reloaded {
            // A configuration is taken only when all its files are well, and tells of them itself.
            self.broken.clear();
        }
        // Broken ones are looked at again: what a stamp does not show may have mended them.
        if is_new || !self.broken.is_empty() {
            let findings = terminators.iter().flat_map(|tls| tls.refresh());
            let findings = findings.chain(originators.iter().filter_map(|tls| tls.refresh()));
            let mended = self.tell(findings.collect(), now);
            let own = originators.iter().filter_map(|tls| tls.certificate());
            let in_force = terminators.iter().flat_map(|tls| tls.certificates()).chain(own);
            self.tell_mended(mended, &in_force.collect::<Vec<_>>());
        }
        let facts = terminators.iter().flat_map(|tls| tls.certificates());
        if self.shared.is_in_charge() {
            self.remind(facts.collect(), &live.config);
        }
    }

    /// `findings` is everything that differs from what serves, perhaps several times. What was told to be broken and no
    /// longer differs is returned.
    fn tell(&mut self, findings: Vec<Finding>, now: Instant) -> BTreeMap<PathBuf, Broken> {
        let mut taken = BTreeSet::new();
        let mut broken = BTreeMap::new();
        for Finding { file, domain, outcome } in findings {
            match outcome {
                Ok(until) => {
                    if taken.insert(file) {
                        self.shared.tell(Event::CertificateReloaded { domain, until });
                    }
                }
                Err(error) => {
                    let reason = error.to_string();
                    let before = self.broken.remove(&file);
                    let is_known = before.as_ref().is_some_and(|before| before.is_known);
                    let mut entry = before.filter(|kept| kept.reason == reason).unwrap_or_else(|| Broken {
                        domain: domain.clone(),
                        reason: reason.clone(),
                        since: now,
                        is_told: false,
                        is_known,
                    });
                    if !entry.is_told && now.duration_since(entry.since) >= BROKEN_AFTER {
                        (entry.is_told, entry.is_known) = (true, true);
                        self.shared.tell(Event::CertificateRejected { domain, error: reason });
                    }
                    broken.entry(file).or_insert(entry);
                }
            }
        }
        let mut mended = std::mem::replace(&mut self.broken, broken);
        mended.retain(|file, was| was.is_known && !taken.contains(file) && !self.broken.contains_key(file));
        mended
    }

    /// Where the files that serve already were put back: nothing is new, but all is well again.
    fn tell_mended(&self, mended: BTreeMap<PathBuf, Broken>, in_force: &[CertificateFacts]) {
        for (file, Broken { domain, .. }) in mended {
            let facts = in_force.iter().find(|facts| facts.file == file);
            let until = facts.map(|facts| facts.until()).unwrap_or_default();
            self.shared.tell(Event::CertificateReloaded { domain, until });
        }
    }

    fn remind(&mut self, facts: Vec<CertificateFacts>, config: &Config) {
        let (now, warn_days) = (Timestamp::now(), config.certificates.warn_days);
        let is_ending = |facts: &CertificateFacts| {
            matches!(facts.standing(now.as_second(), warn_days), Standing::Expiring | Standing::Expired)
        };
        let ending: Vec<_> = facts.into_iter().filter(is_ending).collect();
        let keys: Vec<_> = ending.iter().map(|facts| (facts.file.clone(), facts.not_after)).collect();
        let reminders = self.reminders.get_or_insert_with(|| Reminders::read(&config.server.state_dir));
        for (facts, is_due) in ending.iter().zip(reminders.due(&keys, now)) {
            if is_due {
                let (domain, until, days_left) = (facts.domain(), facts.until(), facts.days_left(now.as_second()));
                self.shared.tell(Event::CertificateExpiring { domain, until, days_left });
            }
        }
    }
}

/// The folders whose events matter: the files' own, and those that their links lead to.
fn folders_of(files: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut folders = BTreeSet::new();
    for file in files {
        let target = fs::canonicalize(file).ok();
        let own = [Some(file.as_path()), target.as_deref()].into_iter().flatten();
        folders.extend(own.filter_map(Path::parent).map(Path::to_path_buf));
    }
    folders.into_iter().collect()
}

fn stamp(file: &Path) -> Stamp {
    let it = fs::metadata(file).ok()?;
    Some((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()))
}
