//! Reading a configuration in order to build it.

use std::path::Path;

use crate::config::{self, Env, Loaded, Problem, Problems, Sources};
use crate::runtime::Runtime;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::upstream::Resolver;

/// [`config::load_from`], with one look at all that is wrong: a misspelt key does not hide that a certificate is
/// missing.
///
/// # Errors
/// As there, and what cannot be read of the files that the rest of the configuration names.
pub(crate) fn load(sources: &Sources, file: &Path, env: Env<'_>) -> Result<Loaded, Problems> {
    config::load_from(sources, file, env).map_err(|Problems(told)| {
        let Some(remains) = config::remains(sources, file, env) else { return Problems(told) };
        let shared = Shared::new(1, Resolver::unused(), Runtime::default());
        let faults = Snapshot::faults_of_files(&remains.loaded.config, &shared).into_iter();
        let faults = faults.filter(|fault: &Problem| !remains.is_refused(&fault.path));
        let faults = faults.map(|fault| remains.loaded.locate(fault));
        remains.loaded.in_order(told.into_iter().chain(faults).collect())
    })
}
