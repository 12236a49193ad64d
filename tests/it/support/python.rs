//! Python packages for a test, in a virtual environment that later runs find again.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::left_out;

/// Written last, so that an interrupted installation is begun anew.
const COMPLETE: &str = "complete";

/// The Python of an environment that holds `packages` (`"websockets"`, `"websockets==15.0"`).
///
/// # Errors
/// Why there is none, to hand to `or_left_out!`.
pub fn python_venv(packages: &[&str]) -> Result<PathBuf, String> {
    let name = if packages.is_empty() { "plain".to_owned() } else { packages.join("+").replace(['/', ' '], "_") };
    let folder = left_out::target_dir().join("python").join(name);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Tests run in processes of their own; one installs, the others wait for it.
    let lock = File::create(folder.with_extension("lock")).map_err(|error| error.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
    let python = folder.join("bin/python");
    if folder.join(COMPLETE).exists() {
        return Ok(python);
    }
    let system = ["/usr/bin/python3", "python3"].into_iter().find(|python| ran(Command::new(python).arg("-V")).is_ok());
    ran(Command::new(system.ok_or("python3 is not installed")?).args(["-m", "venv", "--clear"]).arg(&folder))?;
    if !packages.is_empty() {
        let mut pip = Command::new(&python);
        ran(pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--timeout", "20"]).args(packages))?;
    }
    File::create(folder.join(COMPLETE)).map_err(|error| error.to_string())?;
    Ok(python)
}

/// Runs a program to its end.
///
/// # Errors
/// That it failed, and what it said.
pub fn ran(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
