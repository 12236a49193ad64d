//! Feature switches: what is in force instead of a feature's default, until it is cleared.
//!
//! A [`Feature`] is one key, the same over all generations: a request reads one atomic of it, and a reload that
//! brings another default changes nothing about what an operator has set. Keys that the configuration no longer has
//! keep their value, in case they come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::state_file::{Access, Kept, StateFile};
use super::{ChangeError, Unreadable};
use crate::policy::maintenance::{Active, Flag};

/// Values that are kept at a time; each is of a key that the configuration had when it was set.
const VALUES_MAX: usize = 1_000;

const UNSET: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

/// One key of `[features]`.
#[derive(Debug)]
pub(crate) struct Feature {
    value: AtomicU8,
    /// What its routes answer with while it is off, as in maintenance.
    off: ArcSwap<Active>,
}

/// The features by key.
#[derive(Debug, Default)]
pub struct Features {
    file: StateFile,
    /// Locked for a moment, also in a change: who looks is not to wait for the disk.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    values: BTreeMap<String, bool>,
    features: BTreeMap<String, Arc<Feature>>,
}

impl Feature {
    fn new(value: Option<bool>) -> Self {
        Self { value: AtomicU8::new(code(value)), off: ArcSwap::new(switched_off()) }
    }

    /// Whether it is on, for a configuration that says `default`.
    pub(crate) fn is_on(&self, default: bool) -> bool {
        match self.value.load(Ordering::Acquire) {
            UNSET => default,
            value => value == ON,
        }
    }

    /// What stands in for a flag file while it is off: since when, and a key for rendered pages.
    pub(crate) fn off(&self) -> Arc<Active> {
        self.off.load_full()
    }

    fn set(&self, value: Option<bool>) {
        if value == Some(false) {
            self.off.store(switched_off());
        }
        self.value.store(code(value), Ordering::Release);
    }
}

impl Kept for Features {
    fn file(&self) -> &StateFile {
        &self.file
    }

    fn adopt(&self, file: &Access<'_>) -> Result<(), Unreadable> {
        let kept = read(file)?;
        let mut held = self.held.lock();
        let before = std::mem::replace(&mut held.values, kept);
        for (key, feature) in &held.features {
            let value = held.values.get(key).copied();
            if before.get(key).copied() != value {
                feature.set(value);
            }
        }
        Ok(())
    }
}

impl Features {
    pub(super) fn open(file: StateFile) -> Result<Self, Unreadable> {
        let held = Held { values: read(&file.access())?, features: BTreeMap::new() };
        Ok(Self { file, held: Mutex::new(held) })
    }

    /// The switch of a key. To be asked for when a generation is built; whoever has it sees every later change.
    pub(crate) fn feature(&self, key: &str) -> Arc<Feature> {
        let mut held = self.held.lock();
        if let Some(feature) = held.features.get(key) {
            return Arc::clone(feature);
        }
        // Those that no generation has any more.
        held.features.retain(|_, feature| Arc::strong_count(feature) > 1);
        let feature = Arc::new(Feature::new(held.values.get(key).copied()));
        held.features.insert(key.to_owned(), Arc::clone(&feature));
        feature
    }

    /// What somebody has set, if so.
    pub fn value(&self, key: &str) -> Option<bool> {
        self.held.lock().values.get(key).copied()
    }

    /// Sets a value, or with `None` puts the default back in force; at once, for all requests that begin from now on.
    ///
    /// # Errors
    /// It cannot be kept on disk; nothing has changed.
    pub fn set(&self, key: &str, value: Option<bool>) -> Result<(), ChangeError> {
        let file = self.file.access();
        let before = self.held.lock().values.clone();
        let mut values = before.clone();
        match value {
            Some(value) => values.insert(key.to_owned(), value),
            None => values.remove(key),
        };
        if values.len() > VALUES_MAX {
            return Err(ChangeError::Full { max: VALUES_MAX });
        }
        if values != before {
            let features: Map<_, _> = values.iter().map(|(key, &value)| (key.clone(), value.into())).collect();
            file.write(Map::from_iter([("features".into(), features.into())]))?;
        }
        let mut held = self.held.lock();
        held.values = values;
        if let Some(feature) = held.features.get(key) {
            feature.set(value);
        }
        Ok(())
    }
}

fn read(file: &Access<'_>) -> Result<BTreeMap<String, bool>, Unreadable> {
    let unusable = "entries are neither true nor false and change nothing: give them by flagstone feature set";
    file.entries("features", VALUES_MAX, Value::as_bool, unusable)
}

fn code(value: Option<bool>) -> u8 {
    value.map_or(UNSET, |value| if value { ON } else { OFF })
}

fn switched_off() -> Arc<Active> {
    Active::stand_in(Flag::default(), Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_stands_before_any_default_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Features::open(StateFile::at(folder.path().join("features.json"))).unwrap();
        let first = open();
        let feature = first.feature("a");
        assert!(feature.is_on(true) && !feature.is_on(false), "unset, the default holds");
        first.set("a", Some(false)).unwrap();
        assert!(!feature.is_on(true) && !feature.is_on(false), "who had it sees the change");

        let second = open();
        assert_eq!(second.value("a"), Some(false));
        assert!(!second.feature("a").is_on(true));
        second.set("a", None).unwrap();
        assert!(second.feature("a").is_on(true));
        assert_eq!(open().value("a"), None);
    }

    #[test]
    fn a_feature_is_one_for_all_who_ask() {
        let features = Features::default();
        let (one, other) = (features.feature("a"), features.feature("a"));
        assert!(Arc::ptr_eq(&one, &other));
        drop((one, other));
        features.feature("b");
        assert!(!features.held.lock().features.contains_key("a"), "what nobody has is forgotten");
    }

    #[test]
    fn each_time_it_is_switched_off_is_one_of_its_own() {
        let features = Features::default();
        let feature = features.feature("a");
        let before = feature.off().id;
        features.set("a", Some(false)).unwrap();
        assert_ne!(feature.off().id, before);
    }

    #[test]
    fn a_change_that_cannot_be_kept_is_not_made() {
        let features = Features::open(StateFile::at("/proc/flagstone/features.json".into())).unwrap();
        let feature = features.feature("a");
        assert!(matches!(features.set("a", Some(false)), Err(ChangeError::Write { .. })));
        assert!(feature.is_on(true) && features.value("a").is_none());
    }
}
