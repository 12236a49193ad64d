//! What an operator changes while the process runs, and what therefore must survive it: overridden limits, the
//! block list and feature switches. Each lives in one file in the state folder.

pub(crate) mod block_list;
pub(crate) mod features;
pub(crate) mod overrides;
mod state_file;

use std::path::Path;

use block_list::Blocked;
use features::Features;
use overrides::Overrides;
use state_file::StateFile;

/// Runtime state, over all generations.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    pub(crate) overrides: Overrides,
    pub(crate) blocked: Blocked,
    pub(crate) features: Features,
}

/// A change that could not be kept, and so was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("{file} cannot be written: {reason}")]
    Write { file: String, reason: String },
    #[error("there are {max} already, which is the most that are kept")]
    Full { max: usize },
}

impl Runtime {
    /// Reads what an earlier process left in the state folder. What cannot be read is set aside with a warning.
    pub(crate) fn open(state_dir: &Path) -> Self {
        Self::of(|name| StateFile::at(state_dir.join(name)))
    }

    /// What the state folder holds, for who only looks: nothing there is moved, written or made.
    pub(crate) fn look_at(state_dir: &Path) -> Self {
        Self::of(|name| StateFile::to_look_at(state_dir.join(name)))
    }

    fn of(file: impl Fn(&str) -> StateFile) -> Self {
        Self {
            overrides: Overrides::open(file("limits.json")),
            blocked: Blocked::open(file("blocklist.json")),
            features: Features::open(file("features.json")),
        }
    }
}
