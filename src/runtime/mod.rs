//! What an operator changes while the process runs, and what therefore must survive it: overridden limits, the
//! block list and feature switches. Each lives in one file in the state folder.

pub mod block_list;
pub(crate) mod features;
pub mod overrides;
mod state_file;

use std::path::Path;

use block_list::Blocked;
use features::Features;
use overrides::Overrides;
use state_file::{Kept, StateFile};

/// Runtime state, over all generations.
#[derive(Debug, Default)]
pub struct Runtime {
    pub overrides: Overrides,
    pub blocked: Blocked,
    pub features: Features,
}

/// A change that could not be kept, and so was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("{file} cannot be written: {reason}")]
    Write { file: String, reason: String },
    #[error("there are {max} already, which is the most that are kept")]
    Full { max: usize },
    #[error("another process is taking over from this one: try again")]
    HandedOver,
}

/// A file of the state folder that is there, and that cannot be read here and now.
#[derive(Debug, thiserror::Error)]
#[error("{file} cannot be read: {reason}")]
pub struct Unreadable {
    file: String,
    reason: String,
}

impl Runtime {
    /// Reads what an earlier process left in the state folder. What is no use to anybody is set aside with a warning.
    ///
    /// # Errors
    /// A file may be sound and cannot be read. To go on without would let in who is blocked.
    pub fn open(state_dir: &Path) -> Result<Self, Unreadable> {
        Self::of(|name| StateFile::at(state_dir.join(name)))
    }

    /// What the state folder holds, for who only looks: nothing there is moved, written or made.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look_at(state_dir: &Path) -> Result<Self, Unreadable> {
        Self::of(|name| StateFile::to_look_at(state_dir.join(name)))
    }

    /// From now on it is another process's: nothing is changed or written here any more. What is being written is
    /// waited for.
    pub fn hand_over(&self) {
        self.kept().iter().for_each(|kept| kept.file().hand_over());
    }

    /// From now on it is this process's, as the one before has left it. What cannot be read stays as it is known here.
    pub fn take_over(&self) {
        for kept in self.kept() {
            if let Err(error) = kept.adopt(&kept.file().take_over()) {
                tracing::warn!(%error, "what has changed in it during the upgrade is not known");
            }
        }
    }

    /// After [`Self::hand_over`]: what the other process has changed since then holds here too. Whether it has changed
    /// anything. What cannot be read stays as it is known here.
    pub fn follow(&self) -> bool {
        self.kept().iter().fold(false, |is_any, kept| match kept.follow() {
            Ok(is_changed) => is_any || is_changed,
            Err(error) => {
                tracing::warn!(%error, "what the process that has taken over changes in it is not known");
                is_any
            }
        })
    }

    fn kept(&self) -> [&dyn Kept; 3] {
        [&self.overrides, &self.blocked, &self.features]
    }

    fn of(file: impl Fn(&str) -> StateFile) -> Result<Self, Unreadable> {
        Ok(Self {
            overrides: Overrides::open(file("limits.json"))?,
            blocked: Blocked::open(file("blocklist.json"))?,
            features: Features::open(file("features.json"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rate;

    #[test]
    fn what_another_process_changes_holds_in_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Runtime::open(folder.path()).unwrap();
        let (before, after, ip) = (open(), open(), "192.0.2.1".parse().unwrap());
        before.hand_over();
        assert!(!before.follow(), "there is nothing yet");
        after.blocked.block("192.0.2.0/24".parse().unwrap(), None).unwrap();
        after.features.set("beta", Some(false)).unwrap();
        let (rate, burst) = (rate::parse("1/1s").unwrap(), std::num::NonZeroU32::MIN);
        after.overrides.set("per_ip", overrides::Override { rate, burst, until: None }).unwrap();
        assert!(before.follow() && !before.follow());
        assert!(before.blocked.contains(ip) && before.overrides.are_any());
        assert_eq!(before.features.value("beta"), Some(false));
        after.blocked.unblock("192.0.2.0/24".parse().unwrap()).unwrap();
        assert!(before.follow() && !before.blocked.contains(ip));
        assert!(before.blocked.block("192.0.2.0/24".parse().unwrap(), None).is_err(), "it is not its own any more");
    }
}
