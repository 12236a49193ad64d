//! When the end of each certificate was last told of. Kept in `reminders.toml` of the state folder: a process that is
//! replaced every day is to tell of it as well, and one that starts again every hour not each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use toml::{Table, Value};

use crate::reload::remembered::Remembered;

/// In the state folder.
const FILE: &str = "reminders.toml";
/// Between two reminders of the same certificate.
const PAUSE_SECS: i64 = 24 * 60 * 60;

/// By certificate: its file, and its end in Unix seconds, for a renewed one is another.
pub(super) type Key = (PathBuf, i64);

#[derive(Debug)]
pub(super) struct Reminders {
    file: Remembered,
    /// When each was told of.
    told: BTreeMap<Key, Timestamp>,
}

impl Reminders {
    /// What a process before has told of. Where nobody can tell, nothing.
    pub(super) fn read(state_dir: &Path) -> Self {
        let file = Remembered::at(state_dir, FILE, "which certificates were told of");
        let table = file.read();
        let entry = |(path, entry): (&String, &Value)| {
            let told = entry.get("told")?.as_str()?.parse().ok()?;
            Some(((path.into(), entry.get("ends")?.as_integer()?), told))
        };
        // One by one: collected, they would be sorted first, by code of their own.
        let mut told = BTreeMap::new();
        told.extend(table.iter().filter_map(entry));
        Self { told, file }
    }

    /// Which of `ending` are to be told of now; they count as told. What is not among them is forgotten.
    pub(super) fn due(&mut self, ending: &[Key], now: Timestamp) -> Vec<bool> {
        let before = self.told.len();
        self.told.retain(|known, _| ending.contains(known));
        let mut is_changed = self.told.len() != before;
        let is_due = ending.iter().map(|key| {
            let last = self.told.get(key);
            // A time to come is one of a clock that was wrong.
            let is_due = last.is_none_or(|last| !(0..PAUSE_SECS).contains(&now.duration_since(*last).as_secs()));
            if is_due {
                self.told.insert(key.clone(), now);
                is_changed = true;
            }
            is_due
        });
        let is_due = is_due.collect();
        if is_changed {
            self.save();
        }
        is_due
    }

    fn save(&self) {
        let entry = |((path, ends), told): (&Key, &Timestamp)| {
            let entry = Table::from_iter([
                ("ends".to_owned(), Value::Integer(*ends)),
                ("told".to_owned(), Value::String(told.to_string())),
            ]);
            (path.display().to_string(), Value::Table(entry))
        };
        self.file.save(&self.told.iter().map(entry).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = PAUSE_SECS;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_900_000_000 + secs).unwrap()
    }

    fn key(ends: i64) -> Key {
        ("/etc/tls/site.pem".into(), ends)
    }

    #[test]
    fn each_is_told_of_once_a_day_however_many_processes_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let told = |ends: i64, now: i64| Reminders::read(folder.path()).due(&[key(ends)], at(now));
        assert_eq!(told(1, 0), [true]);
        assert_eq!((told(1, 1), told(1, DAY - 1)), (vec![false], vec![false]));
        assert_eq!((told(1, DAY), told(1, DAY + 1)), (vec![true], vec![false]));
        assert_eq!(told(2, DAY + 2), [true], "a renewed one is another");
        assert_eq!(told(2, 0), [true], "the clock was set back");
        assert_eq!(told(2, 1), [false]);
    }

    #[test]
    fn what_does_not_end_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut reminders = Reminders::read(folder.path());
        reminders.due(&[key(1)], at(0));
        assert_eq!(reminders.due(&[], at(1)), Vec::<bool>::new());
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), "");
        assert_eq!(reminders.due(&[key(1)], at(2)), [true]);
    }

    #[test]
    fn what_cannot_be_read_or_written_is_told_of_again() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["[", "a = 1\n", "[\"/etc/tls/site.pem\"]\nends = \"soon\"\ntold = 1\n"] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(Reminders::read(folder.path()).due(&[key(1)], at(0)), [true], "{text}");
        }
        let aside = std::fs::read_to_string(folder.path().join("reminders.unusable"));
        assert_eq!(aside.unwrap(), "[", "what is no TOML is set aside, as everywhere");
        let mut nowhere = Reminders::read(Path::new("/proc/flagstone"));
        assert_eq!((nowhere.due(&[key(1)], at(0)), nowhere.due(&[key(1)], at(1))), (vec![true], vec![false]));
    }
}
