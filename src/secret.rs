//! What signs the cookies that are given out here, and which only who has the key of the state folder can make.
//!
//! The key is in the state folder, for its owner only, and made at the first start: cookies outlive the process.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::{hmac, rand};

use crate::config::regular_file;
use crate::error::is_full;

/// In the state folder.
const KEY_FILE: &str = "cookies.key";
const KEY_BYTES: usize = 32;

/// The key of a state folder.
#[derive(Clone)]
pub(crate) struct Secret([u8; KEY_BYTES]);

impl Secret {
    /// One that nobody else has, for building without serving.
    pub(crate) fn random() -> Self {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes).expect("the system gives random bytes");
        Self(bytes)
    }

    /// Reads the key of a state folder, or makes it.
    ///
    /// # Errors
    /// What reading or writing the file ran into.
    pub(crate) fn of_folder(folder: &Path) -> io::Result<Self> {
        let path = folder.join(KEY_FILE);
        match Self::read(&path) {
            Ok(Some(secret)) => return Ok(secret),
            Ok(None) => {
                // Somebody else's key in another form, which they may want back.
                let what = "the key for cookies is made anew, for it must have";
                let what = format_args!("{what} {KEY_BYTES} bytes: cookies of another are not taken");
                regular_file::set_aside(&path, what)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let secret = Self::random();
        match secret.keep(&path) {
            Ok(()) => Ok(secret),
            // Another process that has just started was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(&path)?.ok_or(error),
            // Where nothing can be kept, cookies end with the process.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem || is_full(&error) => Ok(secret),
            Err(error) => Err(error),
        }
    }

    /// Whoever reads it finds all of it or nothing.
    fn keep(&self, path: &Path) -> io::Result<()> {
        let temporary = regular_file::beside(path);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let kept = made
            .and_then(|mut file| file.write_all(&self.0).and_then(|()| file.sync_all()))
            .and_then(|()| regular_file::move_to_free(&temporary, path));
        if kept.is_err() {
            // Best effort: the error that counts is the one above.
            let _ = std::fs::remove_file(&temporary);
        }
        kept
    }

    /// The key of a state folder, if there is one that can be read.
    pub(crate) fn look_at(folder: &Path) -> Option<Self> {
        Self::read(&folder.join(KEY_FILE)).ok().flatten()
    }

    /// `None` = it is not whole.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        regular_file::open(path)?.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes.try_into().ok().map(Self))
    }

    /// A fixed one.
    #[cfg(test)]
    pub(crate) fn of(byte: u8) -> Self {
        Self([byte; KEY_BYTES])
    }

    /// The key for one kind of cookie: HMAC-SHA256 keyed by one over the kind's name, so that what is signed for one is
    /// worthless as another.
    pub(crate) fn key_for(&self, kind: &str) -> hmac::Key {
        let own = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&own, kind.as_bytes()).as_ref())
    }
}

impl Secret {
    /// Bytes for a hash that is to be the same in every process of this state folder, and that nobody else can guess.
    pub(crate) fn seed_for(&self, kind: &str) -> [u8; 16] {
        let tag = hmac::sign(&self.key_for(kind), b"");
        let mut seed = [0; 16];
        seed.copy_from_slice(&tag.as_ref()[..16]);
        seed
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = Secret::of_folder(folder.path()).unwrap();
        assert_eq!(Secret::of_folder(folder.path()).unwrap().0, first.0);
        let file = folder.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, [b'f'; 65]).unwrap();
        let anew = Secret::of_folder(folder.path()).unwrap();
        assert_ne!(anew.0, first.0);
        assert_eq!(std::fs::read(&file).unwrap(), anew.0);
        assert_eq!(std::fs::read(file.with_extension("unusable")).unwrap(), [b'f'; 65], "it may be wanted back");
    }

    #[test]
    fn of_many_that_start_at_once_all_have_one_key() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let start = std::sync::Barrier::new(8);
            let keys = std::thread::scope(|scope| {
                let one = || {
                    start.wait();
                    Secret::of_folder(folder.path()).unwrap().0
                };
                let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
                all.into_iter().map(|it| it.join().unwrap()).collect::<std::collections::BTreeSet<_>>()
            });
            assert_eq!(keys.len(), 1);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left lying about");
        }
    }

    #[test]
    fn each_kind_has_a_key_of_its_own() {
        let (secret, other) = (Secret::of(1), Secret::of(2));
        let sign = |secret: &Secret, kind| hmac::sign(&secret.key_for(kind), b"x").as_ref().to_vec();
        assert_eq!(sign(&secret, "a"), sign(&secret, "a"));
        assert_ne!(sign(&secret, "a"), sign(&secret, "b"));
        assert_ne!(sign(&secret, "a"), sign(&other, "a"));
    }
}
