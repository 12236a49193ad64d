//! npm packages for a test, in a folder that later runs find again.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::left_out;
use super::python::ran;

/// Written last, so that an interrupted installation is begun anew.
const COMPLETE: &str = "complete";

/// The folder of an installed package: `npm_package("axe-core", "4.14.1")`. No script of a package runs.
///
/// # Errors
/// Why there is none, to hand to `or_left_out!`.
pub fn npm_package(name: &str, version: &str) -> Result<PathBuf, String> {
    let folder = left_out::target_dir().join("npm").join(format!("{name}@{version}"));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Tests run in processes of their own; one installs, the others wait for it.
    let lock = File::create(folder.with_extension("lock")).map_err(|error| error.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
    let package = folder.join("node_modules").join(name);
    if folder.join(COMPLETE).exists() {
        return Ok(package);
    }
    let npm = left_out::program("npm")?;
    let mut install = Command::new(npm);
    install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--prefix"]).arg(&folder);
    ran(install.arg(format!("{name}@{version}")))?;
    File::create(folder.join(COMPLETE)).map_err(|error| error.to_string())?;
    Ok(package)
}
