//! Where the flags are, found also when not all is well: who switches maintenance on at night has no time to mend a
//! file.

use super::super::run::{Quick, load_quick};
use super::super::{FileArgument, complain, environment, variable};
use crate::config::model::Config;
use crate::config::{self, Loaded, Problems, Sources};

/// What decides about flag files; the rest has to be right for them to be found.
const NEEDED: [&str; 2] = ["server.state_dir", "maintenance.flag"];
/// How to go on where the file does not say.
pub(in crate::cli) const BY_HAND: &str = "maintenance is on while its flag file exists, so touch and rm will do meanwhile: \
                       /run/flagstone/maintenance.flag, unless server.state_dir or maintenance.flag say otherwise";

/// What is known of the configuration.
pub(in crate::cli) struct Settings {
    pub(in crate::cli) config: Config,
    /// Nothing of the file was left out.
    pub(in crate::cli) is_whole: bool,
    /// There is no file: the environment says it.
    pub(in crate::cli) is_without_file: bool,
}

/// The configuration that the process goes by, as far as flags are concerned. Errors elsewhere in it are told as
/// warnings.
///
/// # Errors
/// There is none, or it does not say where the flags are.
pub(in crate::cli) fn settings(file: &FileArgument) -> Result<Settings, Problems> {
    let whole = |loaded: Loaded, is_without_file| Settings { config: loaded.config, is_whole: true, is_without_file };
    if let Some(quick) = without_a_file(file) {
        return load_quick(&quick).map(|loaded| whole(loaded, true));
    }
    let file = file.locate()?;
    let sources = Sources::read(&file, &environment);
    let problems = match config::load_from(&sources, &file, &environment) {
        Ok(loaded) => return Ok(whole(loaded, false)),
        Err(problems) => problems,
    };
    let remains = config::remains(&sources, &file, &environment);
    let remains = remains.filter(|remains| !NEEDED.iter().any(|path| remains.is_refused(path)));
    let Some(remains) = remains else { return Err(problems) };
    for problem in &problems.0 {
        complain(format_args!("warning: {problem}"));
    }
    Ok(Settings { config: remains.loaded.config, is_whole: false, is_without_file: false })
}

/// As `run` would serve from this environment. Where there is no file to go by, the flag alone is enough.
fn without_a_file(file: &FileArgument) -> Option<Quick> {
    file.quick().or_else(|| {
        let flag = variable("FLAGSTONE_FLAG").filter(|_| file.find().is_none())?;
        // Where it listens and what it forwards to make no difference to its flag.
        Some(Quick { listen: "127.0.0.1:0".to_owned(), upstream: "127.0.0.1:1".to_owned(), flag: Some(flag) })
    })
}
