//! The block list that requests ask, and its file.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::state_file::{Access, Kept, StateFile};
use super::{ChangeError, Unreadable};
use crate::policy::access::NetSet;
use crate::policy::block_list::BlockList;
use crate::policy::maintenance::network;
use crate::seldom::Seldom;

/// Entries kept at most: about 6 MB on disk, 3 MB in memory.
pub(crate) const ENTRIES_MAX: usize = 100_000;

/// Who may not come in, whatever the route.
#[derive(Debug, Default)]
pub struct Blocked {
    file: StateFile,
    /// Locked for a moment, also in a change: who looks is not to wait for the disk.
    list: Mutex<BlockList>,
    /// What requests look at; `None` = nobody is blocked.
    nets: Seldom<NetSet>,
}

impl Kept for Blocked {
    fn file(&self) -> &StateFile {
        &self.file
    }

    fn adopt(&self, file: &Access<'_>) -> Result<(), Unreadable> {
        let kept = read(file)?;
        let mut list = self.list.lock();
        *list = kept;
        self.show(&list);
        Ok(())
    }
}

impl Blocked {
    pub(super) fn open(file: StateFile) -> Result<Self, Unreadable> {
        let list = read(&file.access())?;
        let opened = Self { file, ..Self::default() };
        opened.show(&list);
        *opened.list.lock() = list;
        Ok(opened)
    }

    /// Whether `ip` is on the list. No lock: one atomic load while the list is empty, a binary search otherwise.
    #[inline]
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        self.nets.load().is_some_and(|nets| nets.contains(ip))
    }

    /// Blocks a network until `until`, or for good.
    ///
    /// # Errors
    /// The list is full or cannot be kept on disk; nothing has changed.
    pub fn block(&self, net: IpNet, until: Option<Timestamp>) -> Result<(), ChangeError> {
        self.change(|list| {
            list.block(net, until);
            true
        })
        .map(drop)
    }

    /// Takes a network off the list; false when it is not on it.
    ///
    /// # Errors
    /// The change cannot be kept on disk; nothing has changed.
    pub fn unblock(&self, net: IpNet) -> Result<bool, ChangeError> {
        self.change(|list| list.unblock(net))
    }

    /// Lets those in again whose time is over. To be called once a second.
    pub(crate) fn expire(&self, now: Timestamp) {
        let mut list = self.list.lock();
        if !list.has_expired(now) {
            return;
        }
        // In force whether or not the disk takes it: at the next start it is expired again.
        list.expire(now);
        self.show(&list);
        drop(list);
        let file = self.file.access();
        let left = to_json(&self.list.lock());
        if let Err(error) = file.write(left) {
            tracing::debug!(%error, "entries that are over stay in the file");
        }
    }

    /// Every entry and its end.
    pub fn entries(&self) -> Vec<(IpNet, Option<Timestamp>)> {
        self.list.lock().entries().collect()
    }

    /// Makes a change to a copy, keeps that on disk, then makes it to what is in force: what was over meanwhile stays
    /// off.
    fn change(&self, change: impl Fn(&mut BlockList) -> bool) -> Result<bool, ChangeError> {
        let file = self.file.access();
        let mut changed = self.list.lock().clone();
        if !change(&mut changed) {
            return Ok(false);
        }
        if changed.len() > ENTRIES_MAX {
            return Err(ChangeError::Full { max: ENTRIES_MAX });
        }
        file.write(to_json(&changed))?;
        let mut list = self.list.lock();
        change(&mut list);
        self.show(&list);
        Ok(true)
    }

    fn show(&self, list: &BlockList) {
        self.nets.store((!list.is_empty()).then(|| list.nets().into()));
    }
}

/// As files and the admin side show an entry.
pub fn entry_json((net, until): (IpNet, Option<Timestamp>)) -> Value {
    json!({ "cidr": net.to_string(), "until": until.map(|until| until.to_string()) })
}

/// An entry that somebody has edited lets nobody in without a word: one whose end cannot be read has none.
fn read(file: &Access<'_>) -> Result<BlockList, Unreadable> {
    let read = file.read()?.unwrap_or_default();
    let entries: Vec<&Value> = match read.get("entries") {
        Some(Value::Array(entries)) => entries.iter().collect(),
        other => other.into_iter().collect(),
    };
    let (entries, surplus) = entries.split_at(entries.len().min(ENTRIES_MAX));
    let mut list = BlockList::default();
    let (mut nobodys, mut endless) = (Vec::new(), Vec::new());
    for &entry in entries {
        let Some(net) = entry["cidr"].as_str().and_then(network) else {
            nobodys.push(entry);
            continue;
        };
        let until = end(entry).unwrap_or_else(|()| {
            endless.push(entry);
            None
        });
        list.block(net, until);
    }
    file.warn(&nobodys, "entries name no network and block nobody: see to them by flagstone block CIDR");
    file.warn(
        &endless,
        "entries have an end that is no time, and hold for good: give it by flagstone block CIDR --for",
    );
    file.warn(surplus, "entries are more than a list can hold and block nobody: make larger networks of them");
    list.expire(Timestamp::now());
    Ok(list)
}

/// `Ok(None)` = there is none.
fn end(entry: &Value) -> Result<Option<Timestamp>, ()> {
    match &entry["until"] {
        Value::Null => Ok(None),
        until => until.as_str().and_then(|until| until.parse().ok()).map(Some).ok_or(()),
    }
}

fn to_json(list: &BlockList) -> Map<String, Value> {
    let entries: Vec<_> = list.entries().map(entry_json).collect();
    Map::from_iter([("entries".into(), entries.into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn entries_survive_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Blocked::open(StateFile::at(folder.path().join("blocklist.json"))).unwrap();
        let first = open();
        assert!(!first.contains(ip("192.0.2.1")));
        let soon = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        first.block("192.0.2.0/24".parse().unwrap(), Some(soon)).unwrap();
        first.block("2001:db8::/32".parse().unwrap(), None).unwrap();

        let second = open();
        assert!(second.contains(ip("192.0.2.1")) && second.contains(ip("2001:db8::1")));
        assert_eq!(second.entries().len(), 2);
        second.expire(soon);
        assert!(!second.contains(ip("192.0.2.1")) && second.contains(ip("2001:db8::1")));
        assert_eq!(open().entries().len(), 1, "the file knows as well");
        assert!(second.unblock("2001:db8::/32".parse().unwrap()).unwrap());
        assert!(!second.unblock("2001:db8::/32".parse().unwrap()).unwrap());
        assert!(!open().contains(ip("2001:db8::1")));
    }

    #[test]
    fn what_is_over_during_a_change_stays_off() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Blocked::open(StateFile::at(folder.path().join("blocklist.json"))).unwrap();
        let blocked = open();
        let soon = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        blocked.block("192.0.2.1/32".parse().unwrap(), Some(soon)).unwrap();
        let (began, begun) = std::sync::mpsc::channel();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        std::thread::scope(|scope| {
            let blocked = &blocked;
            scope.spawn(move || {
                begun.recv().unwrap();
                blocked.expire(soon);
            });
            let changed = blocked.change(|list| {
                // The first time of perhaps several.
                let _ = began.send(());
                while blocked.contains(ip("192.0.2.1")) && std::time::Instant::now() < deadline {
                    std::thread::yield_now();
                }
                list.block("2001:db8::/32".parse().unwrap(), None);
                true
            });
            assert!(changed.unwrap());
            assert!(!blocked.contains(ip("192.0.2.1")), "it was let in already");
        });
        for list in [&blocked, &open()] {
            assert_eq!(list.entries(), [("2001:db8::/32".parse().unwrap(), None)]);
        }
    }

    #[test]
    fn past_its_bound_it_says_no() {
        let blocked = Blocked::default();
        for number in 0..ENTRIES_MAX as u32 {
            blocked.list.lock().block(IpNet::from(IpAddr::from(number.to_be_bytes())), None);
        }
        let error = blocked.block("2001:db8::/32".parse().unwrap(), None).unwrap_err();
        assert!(matches!(error, ChangeError::Full { .. }), "{error}");
        assert_eq!(blocked.entries().len(), ENTRIES_MAX);
        blocked.block("0.0.0.0/32".parse().unwrap(), None).expect("known already");
    }
}
