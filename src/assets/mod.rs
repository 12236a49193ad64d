//! Pages and documents that Flagstone carries: what is below `static/`, packed by `build.rs`. Each is unpacked when it
//! is first asked for, and stays so. Packed they take a quarter of the room. So do the [`zones`].

pub mod zones;

use std::sync::OnceLock;

use miniz_oxide::inflate::decompress_to_vec_with_limit;

include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// One file.
#[derive(Debug)]
pub struct Asset {
    name: &'static str,
    length: usize,
    packed: &'static [u8],
    unpacked: OnceLock<Vec<u8>>,
}

impl Asset {
    const fn new(name: &'static str, length: usize, packed: &'static [u8]) -> Self {
        Self { name, length, packed, unpacked: OnceLock::new() }
    }

    /// Its path below `static/`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        self.unpacked
            .get_or_init(|| decompress_to_vec_with_limit(self.packed, self.length).expect("the build packed it"))
    }

    /// What is in it.
    ///
    /// # Panics
    /// When it is no text: no file is meant to be read so that is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).expect("it is text")
    }
}

/// The file of this name, if there is one.
pub fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

/// The text of a file that is known to be there.
///
/// # Panics
/// When it is not.
pub fn text(name: &str) -> &'static str {
    find(name).expect("the file is below static/").text()
}

/// All files, sorted by name.
pub fn all() -> &'static [Asset] {
    &ASSETS
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_unpacks_to_itself() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../static");
        for asset in all() {
            assert_eq!(asset.bytes(), std::fs::read(root.join(asset.name())).unwrap(), "{}", asset.name());
        }
        assert!(all().len() > 20);
    }

    #[test]
    fn packed_they_take_less_than_a_third() {
        let (packed, whole) =
            all().iter().fold((0, 0), |(packed, whole), asset| (packed + asset.packed.len(), whole + asset.length));
        assert!(packed * 3 < whole, "{packed} of {whole}");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert!(find("nothing").is_none());
        assert!(find("schema.json").is_some());
    }
}
