//! Tests whose parts a machine may lack: they say so, and `FLAGSTONE_TESTS_STRICT=1` makes that a failure.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Set by `tests/run.sh` once it has installed everything.
const STRICT: &str = "FLAGSTONE_TESTS_STRICT";

/// Leaves the rest of the test out: `left_out!("no IPv6 here")`. The test returns.
macro_rules! left_out {
    ($reason:expr) => {{
        $crate::support::left_out::note(&$reason);
        return;
    }};
}

/// The value of a `Result`, or the test is left out: `let nginx = or_left_out!(program("nginx"));`.
macro_rules! or_left_out {
    ($part:expr) => {
        match $part {
            Ok(part) => part,
            Err(reason) => left_out!(reason),
        }
    };
}

/// Where left-out tests are counted, one per line.
pub fn list() -> PathBuf {
    target_dir().join("left-out.txt")
}

/// Cargo's target folder.
pub fn target_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's tmp folder is inside target")
}

/// Says and counts that the running test is left out.
///
/// # Panics
/// When nothing may be left out.
pub fn note(reason: &dyn Display) {
    // Both runners name the thread of a test after it.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(std::env::var_os(STRICT).is_none_or(|value| value != "1"), "{test} may not be left out here: {reason}");
    eprintln!("SKIPPED (left out): {reason}");
    let reason = reason.to_string().replace('\n', " ");
    let line = format!("{test}: {reason}\n");
    let file = OpenOptions::new().create(true).append(true).open(list());
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("to write the list of left-out tests");
}

/// A program on the `PATH`, or in Debian's folders for administrators.
///
/// # Errors
/// That it is not there, to hand to `or_left_out!`.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed"))
}
