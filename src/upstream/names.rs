//! Following a name: its addresses become endpoints, and cease to be.
//!
//! It is asked again when the TTL is over, at the latest after `dns_refresh`, and at once when an address of it cannot be
//! reached: containers come back with other addresses than they left with. As long as no server has an answer, the
//! last one stays in force: an app whose name is gone may still be there, and one that is gone refuses connections
//! anyway. So it is with the addresses of one family, when servers fail for that one only.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::group::Group;
use super::resolve::Missing;
use crate::config::model::Address;

/// However short the TTL.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// After the first failure; doubled by each further one, up to `dns_refresh`.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);
/// As long as nothing is known that could serve: containers start in any order.
const UNKNOWN_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Addresses of one name.
const ADDRESSES_MAX: usize = 256;
/// Of those that came, and of those that went.
const ADDRESSES_TOLD: usize = 8;

/// A name to follow.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whose endpoints in the group are at its addresses.
    pub(super) slot: usize,
    /// Told when one of them cannot be reached.
    pub(super) doubt: Arc<Notify>,
}

/// The host and port of a name. `localhost` is no such name: it is this machine (RFC 6761, section 6.3).
pub(super) fn name_of(address: &Address) -> Option<(&str, u16)> {
    match address {
        Address::Name { host, port } if host != "localhost" => Some((host, *port)),
        _ => None,
    }
}

/// Keeps the endpoints of a name what it resolves to, for as long as the group serves. `is_unknown`: requests wait for
/// the first answer.
pub(super) async fn follow(group: Weak<Group>, name: Name, mut is_unknown: bool) {
    let Name { host, port, slot, doubt } = name;
    let mut suspicion = Suspicion::default();
    let mut known = Vec::new();
    let mut trouble = Trouble::default();
    loop {
        let serving = group.upgrade().filter(|group| is_unknown || !group.is_over());
        let Some((resolver, refresh)) = serving.map(|group| (group.resolver().clone(), group.settings.dns_refresh))
        else {
            return;
        };
        let answer = resolver.lookup(&host).await;
        let Some(group) = group.upgrade() else { return };
        let pause = match answer {
            Ok(answer) => {
                let ttl = ttl(answer.valid_until, Instant::now());
                let mut addresses: Vec<_> = answer.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
                let pause = match answer.missing {
                    Some(missing) => {
                        let mut kept = group.addresses(slot);
                        kept.retain(|address| address.is_ipv4() == missing.is_ipv4);
                        let pause = lacking(&group, &host, &missing, kept.len(), &mut trouble);
                        addresses.extend(kept);
                        pause.min(ttl)
                    }
                    None => {
                        trouble = Trouble::default();
                        ttl
                    }
                };
                // Servers rotate their answers.
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(ADDRESSES_MAX);
                if addresses != known {
                    let (came, went) = differences(&group.addresses(slot), &addresses);
                    let (upstream, count) = (&*group.name, addresses.len());
                    tracing::info!(upstream, name = %host, count, came, went, "name resolved");
                    group.set_addresses(slot, &addresses);
                    known = addresses;
                }
                pause
            }
            // Not those of `known`: what serves may have been found before a reload.
            Err(error) => failed(&group, &host, &error, group.addresses(slot).len(), &mut trouble),
        };
        if std::mem::take(&mut is_unknown) {
            group.name_asked();
        }
        drop(group);
        suspicion.rest(pause.min(refresh), &doubt).await;
    }
}

/// That a name leads elsewhere by now, for an address of it could not be reached. It is asked again at once then, but no
/// sooner than [`PAUSE_MIN`] after it was last; after twice as long each time from there on, until it is asked as rarely as
/// any other. gRPC's clients ask again in the same case (grpc/grpc-java#1463).
#[derive(Debug, Default)]
struct Suspicion {
    pause: Option<Duration>,
}

impl Suspicion {
    /// Waits until the name is to be asked again: for `pause` without a suspicion.
    async fn rest(&mut self, pause: Duration, doubt: &Notify) {
        let began = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(self.pause.map_or(pause, |suspicious| suspicious.min(pause))) => {
                self.pause = self.pause.map(|suspicious| suspicious * 2).filter(|longer| *longer < pause);
            }
            () = doubt.notified() => {
                tokio::time::sleep(pause.min(PAUSE_MIN).saturating_sub(began.elapsed())).await;
                self.pause = Some(PAUSE_MIN);
            }
        }
    }
}

/// How long an answer is left alone.
fn ttl(valid_until: Instant, now: Instant) -> Duration {
    valid_until.saturating_duration_since(now).max(PAUSE_MIN)
}

/// The addresses that came and those that went, for people; `None` where there are none.
fn differences(before: &[SocketAddr], after: &[SocketAddr]) -> (Option<String>, Option<String>) {
    let lacking = |some: &[SocketAddr], others: &[SocketAddr]| {
        let lacking: Vec<_> = some.iter().filter(|address| !others.contains(address)).collect();
        let told: Vec<_> = lacking.iter().take(ADDRESSES_TOLD).map(ToString::to_string).collect();
        let more = match lacking.len() - told.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!told.is_empty()).then(|| told.join(", ") + &more)
    };
    (lacking(after, before), lacking(before, after))
}

/// Tells the first failure of some; returns how long to wait after this one.
fn failed(group: &Group, host: &str, error: &dyn Error, kept: usize, trouble: &mut Trouble) -> Duration {
    let (is_news, pause) = trouble.failed();
    if is_news {
        tracing::warn!(upstream = &*group.name, name = %host, %error, kept, "name not resolved");
    }
    if kept == 0 { pause.min(UNKNOWN_PAUSE_MAX) } else { pause }
}

/// As [`failed`], for one family. Many servers never answer for IPv6, which makes a lookup slow and nothing worse; but
/// addresses that there were before may be out of date now.
fn lacking(group: &Group, host: &str, missing: &Missing, kept: usize, trouble: &mut Trouble) -> Duration {
    let (is_news, pause) = trouble.lacks();
    let upstream = &*group.name;
    match kept {
        _ if !is_news => {}
        0 => tracing::info!(upstream, name = %host, %missing, "name resolved without one family: it was waited for"),
        _ => tracing::warn!(upstream, name = %host, %missing, kept, "name not resolved for one family"),
    }
    pause
}

/// How often in a row a lookup has failed, and how often one family has since there was a whole answer. Counted apart:
/// where IPv6 never has an answer, that there is none at all is news all the same.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    lacks: u32,
}

impl Trouble {
    /// There is no answer. Whether that is news, and how long to wait.
    fn failed(&mut self) -> (bool, Duration) {
        one_more(&mut self.failures)
    }

    /// There is one, for one family. The same.
    fn lacks(&mut self) -> (bool, Duration) {
        self.failures = 0;
        one_more(&mut self.lacks)
    }
}

fn one_more(count: &mut u32) -> (bool, Duration) {
    let pause = FAILURE_PAUSE.saturating_mul(1_u32.checked_shl(*count).unwrap_or(u32::MAX));
    let is_first = *count == 0;
    *count = count.saturating_add(1);
    (is_first, pause)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::model::LogFormat;
    use crate::telemetry::events::tests::captured;
    use crate::upstream::members::tests::group_of;

    #[tokio::test]
    async fn a_name_that_fails_after_a_reload_is_told_with_the_addresses_that_serve_on() {
        let group = group_of("endpoints = [\"app.test:80\"]");
        group.set_addresses(0, &[1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 80))));
        let told = captured(LogFormat::Text, || {
            let name = Name { host: "app.test".to_owned(), port: 80, slot: 0, doubt: Arc::default() };
            let following = follow(Arc::downgrade(&group), name, false);
            assert!(following.now_or_never().is_none(), "it goes on");
        });
        assert!(told.iter().any(|line| line.contains("name not resolved") && line.contains("kept=2")), "{told:?}");
    }

    #[tokio::test]
    async fn a_name_that_nothing_is_known_of_is_asked_for_every_two_seconds() {
        let group = group_of("endpoints = [\"app.test:80\"]");
        let pauses = |kept| {
            let mut trouble = Trouble::default();
            [(); 6].map(|()| failed(&group, "app.test", &std::fmt::Error, kept, &mut trouble).as_millis())
        };
        assert_eq!(pauses(0), [500, 1_000, 2_000, 2_000, 2_000, 2_000]);
        assert_eq!(pauses(1), [500, 1_000, 2_000, 4_000, 8_000, 16_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicious_name_is_asked_at_once_and_then_more_and_more_rarely() {
        let (mut suspicion, doubt) = (Suspicion::default(), Notify::new());
        let mut rest = async |is_doubted: bool| {
            if is_doubted {
                doubt.notify_one();
            }
            let began = tokio::time::Instant::now();
            suspicion.rest(Duration::from_secs(10), &doubt).await;
            (began.elapsed().as_millis() + 500) / 1000
        };
        let mut rests = Vec::new();
        for is_doubted in [false, true, false, false, true, false, false, false, false, false] {
            rests.push(rest(is_doubted).await);
        }
        assert_eq!(rests, [10, 1, 1, 2, 1, 1, 2, 4, 8, 10]);
    }

    #[test]
    fn a_name_is_asked_for_once_a_second_at_the_most() {
        let now = Instant::now();
        let after = |millis| ttl(now + Duration::from_millis(millis), now);
        assert_eq!([0, 999, 30_000].map(after), [PAUSE_MIN, PAUSE_MIN, Duration::from_secs(30)]);
        assert_eq!(ttl(now, now + Duration::from_secs(1)), PAUSE_MIN, "it was over before it came");
    }

    #[test]
    fn a_failure_is_news_although_one_family_has_failed_all_along() {
        let mut trouble = Trouble::default();
        let first = (true, FAILURE_PAUSE);
        assert_eq!(trouble.lacks(), first);
        assert_eq!(trouble.lacks(), (false, 2 * FAILURE_PAUSE));
        assert_eq!(trouble.failed(), first);
        assert_eq!(trouble.failed(), (false, 2 * FAILURE_PAUSE));
        assert_eq!(trouble.lacks(), (false, 4 * FAILURE_PAUSE), "of that family nothing has been heard since");
        assert_eq!(trouble.failed(), first, "there was an answer in between");
        trouble.failures = 100;
        assert!(trouble.failed().1 > Duration::from_secs(60 * 60), "as long as `dns_refresh` lets it be");
    }

    #[test]
    fn what_came_and_went_is_told_up_to_eight_each() {
        let of =
            |range: std::ops::Range<u8>| range.map(|last| SocketAddr::from(([10, 0, 0, last], 80))).collect::<Vec<_>>();
        assert_eq!(differences(&of(1..3), &of(1..3)), (None, None));
        assert_eq!(differences(&[], &of(1..3)), (Some("10.0.0.1:80, 10.0.0.2:80".to_owned()), None));
        let (came, went) = differences(&of(1..3), &of(2..11));
        assert_eq!(went.as_deref(), Some("10.0.0.1:80"));
        assert!(came.as_deref().is_some_and(|came| came.starts_with("10.0.0.3:80, ") && !came.contains("more")));
        let (came, _) = differences(&[], &of(1..11));
        assert!(came.as_deref().is_some_and(|came| came.ends_with(", 10.0.0.8:80 and 2 more")), "{came:?}");
    }
}
