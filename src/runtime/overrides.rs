//! Rates that stand in for the configured ones, for a while or until cleared.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::state_file::{Access, Kept, StateFile};
use super::{ChangeError, Unreadable};
use crate::config::model::Rate;
use crate::config::rate;

/// Limits that may be overridden at a time; each is named by the configuration when it is set.
const OVERRIDES_MAX: usize = 1_000;

/// What is in force instead of a limit's own rate and burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    pub rate: Rate,
    pub burst: NonZeroU32,
    /// When the configured rate comes back; `None` = when it is cleared.
    pub until: Option<Timestamp>,
}

/// The overrides by limit.
#[derive(Debug, Default)]
pub struct Overrides {
    file: StateFile,
    /// Locked for a moment, also in a change: who looks is not to wait for the disk.
    held: Mutex<BTreeMap<String, Override>>,
    /// Written under the lock.
    are_any: AtomicBool,
}

impl Kept for Overrides {
    fn file(&self) -> &StateFile {
        &self.file
    }

    fn adopt(&self, file: &Access<'_>) -> Result<(), Unreadable> {
        let kept = read(file)?;
        let mut held = self.held.lock();
        *held = kept;
        self.are_any.store(!held.is_empty(), Relaxed);
        Ok(())
    }
}

impl Overrides {
    pub(super) fn open(file: StateFile) -> Result<Self, Unreadable> {
        let held = read(&file.access())?;
        Ok(Self { are_any: AtomicBool::new(!held.is_empty()), held: Mutex::new(held), file })
    }

    /// Whether any limit may be overridden: false needs no further look at a limit.
    #[inline]
    pub(crate) fn are_any(&self) -> bool {
        self.are_any.load(Relaxed)
    }

    /// The override of a limit that is in force at `now`.
    pub(crate) fn of(&self, limit: &str, now: Timestamp) -> Option<Override> {
        self.held.lock().get(limit).copied().filter(|held| held.is_in_force(now))
    }

    /// Those that are in force at `now`, or would be if their limits were there.
    pub fn all(&self, now: Timestamp) -> Vec<(String, Override)> {
        let held = self.held.lock();
        let in_force = held.iter().filter(|(_, held)| held.is_in_force(now));
        in_force.map(|(name, held)| (name.clone(), *held)).collect()
    }

    /// Sets or replaces one.
    ///
    /// # Errors
    /// It cannot be kept on disk; nothing has changed.
    pub fn set(&self, limit: &str, new: Override) -> Result<(), ChangeError> {
        self.change(|held| {
            held.insert(limit.to_owned(), new);
            true
        })
        .map(drop)
    }

    /// Takes one away; false when there is none.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn clear(&self, limit: &str) -> Result<bool, ChangeError> {
        self.change(|held| held.remove(limit).is_some())
    }

    /// Forgets those whose time is over. They are out of force since then anyway.
    pub(crate) fn expire(&self, now: Timestamp) {
        if self.held.lock().values().all(|held| held.is_in_force(now)) {
            return;
        }
        let forgotten = self.change(|held| {
            held.retain(|_, held| held.is_in_force(now));
            true
        });
        if let Err(error) = forgotten {
            tracing::debug!(%error, "an override that is over stays in the file");
        }
    }

    /// Changes a copy, keeps it on disk, then puts it in force.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Override>) -> bool) -> Result<bool, ChangeError> {
        let file = self.file.access();
        let mut changed = self.held.lock().clone();
        if !change(&mut changed) {
            return Ok(false);
        }
        if changed.len() > OVERRIDES_MAX {
            return Err(ChangeError::Full { max: OVERRIDES_MAX });
        }
        let limits: Map<_, _> = changed.iter().map(|(name, held)| (name.clone(), held.to_json())).collect();
        file.write(Map::from_iter([("limits".into(), limits.into())]))?;
        let mut held = self.held.lock();
        self.are_any.store(!changed.is_empty(), Relaxed);
        *held = changed;
        Ok(true)
    }
}

impl Override {
    fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// As files and the admin side show it.
    pub fn to_json(self) -> Value {
        let until = self.until.map(|until| until.to_string());
        json!({ "rate": self.rate.to_string(), "burst": self.burst, "until": until })
    }
}

fn read(file: &Access<'_>) -> Result<BTreeMap<String, Override>, Unreadable> {
    let unusable = "entries are no overrides and change nothing: give them by flagstone limit set";
    file.entries("limits", OVERRIDES_MAX, parse, unusable)
}

fn parse(value: &Value) -> Option<Override> {
    let until = match &value["until"] {
        Value::Null => None,
        until => Some(until.as_str()?.parse().ok()?),
    };
    Some(Override {
        rate: rate::parse(value["rate"].as_str()?).ok()?,
        burst: NonZeroU32::new(value["burst"].as_u64()?.try_into().ok()?)?,
        until,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_override_survives_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Overrides::open(StateFile::at(folder.path().join("limits.json"))).unwrap();
        let rate = rate::parse("10/1m").unwrap();
        let lasting = Override { rate, burst: NonZeroU32::new(3).unwrap(), until: None };
        let passing = Override { until: Some(at("2030-01-01T00:15:00Z")), ..lasting };
        let first = open();
        first.set("a", lasting).unwrap();
        first.set("b", passing).unwrap();
        let (early, late) = (at("2030-01-01T00:14:59Z"), at("2030-01-01T00:15:00Z"));

        let second = open();
        assert_eq!((second.of("a", late), second.of("b", early)), (Some(lasting), Some(passing)));
        assert_eq!(second.of("b", late), None, "over, whether anybody looked or not");
        second.expire(late);
        assert_eq!(open().of("b", early), None);
        assert!(second.clear("a").unwrap());
        assert!(!second.clear("a").unwrap());
        assert_eq!(open().of("a", early), None);
    }
}
