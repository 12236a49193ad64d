//! What is remembered over restarts in a TOML file of the state folder. Losing it costs a repetition, so whatever is wrong
//! with the file is a line in the log and stops nothing.

use std::path::{Path, PathBuf};

use toml::Table;

use crate::config::regular_file;
use crate::error::io_reason;

/// Read at most: a line or two for each thing that is remembered.
const BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Remembered {
    file: PathBuf,
    /// For the log: "what windows have begun".
    what: &'static str,
}

impl Remembered {
    pub(super) fn at(state_dir: &Path, file: &str, what: &'static str) -> Self {
        Self { file: state_dir.join(file), what }
    }

    /// What a process before has saved. A file that is no TOML is set aside; one that may be sound stays.
    pub(super) fn read(&self) -> Table {
        let what = self.what;
        let text = regular_file::text_of(&self.file, BYTES_MAX).unwrap_or_else(|error| {
            tracing::warn!(file = %self.file.display(), error = io_reason(&error), "{what} cannot be read");
            String::new()
        });
        text.parse().unwrap_or_else(|error: toml::de::Error| {
            // Where it cannot be moved it will be replaced.
            let _ = regular_file::set_aside(&self.file, format_args!("{what} is lost: not TOML: {}", error.message()));
            Table::new()
        })
    }

    pub(super) fn save(&self, table: &Table) {
        if let Err(error) = regular_file::replace(&self.file, table.to_string().as_bytes()) {
            let what = self.what;
            tracing::error!(file = %self.file.display(), error = io_reason(&error), "{what} cannot be written");
        }
    }
}
