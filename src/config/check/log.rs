//! `[log]`.

use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing_subscriber::filter::Targets;

use super::super::document::Path;
use super::super::model::{AccessFormat, AccessLogTarget, Log, LogFormat};
use super::super::problem::{nearest, one_of, suggest};
use super::super::raw;
use super::Check;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What all rooms have in common, for directives.
const WHOLE: &str = "flagstone";
/// Those of its packages that log; directives may name them, too.
const PACKAGES: [&str; 3] = ["flagstone_engine", "flagstone_shell", "flagstone_config"];
/// What events are logged as; see `telemetry::events`.
const EVENTS: &str = "event";
/// The rooms that log. One that does not would be as silent as one that is not there; a test looks.
const ROOMS: [&str; 15] = [
    "admin",
    "app",
    "cli",
    "listener",
    "proxy",
    "reload",
    "runtime",
    "shared",
    "shared_limit",
    "snapshot",
    "systemd",
    "telemetry",
    "tls",
    "upgrade",
    "upstream",
];

impl Check<'_> {
    pub(super) fn log(&mut self, raw: &raw::Log, at: &Path) -> Log {
        let level = without_spaces(&raw.level);
        self.log_level(&level, &at.key("level"));
        let access = match raw.access.as_str() {
            "stdout" => AccessLogTarget::Stdout,
            "stderr" => AccessLogTarget::Stderr,
            "off" => AccessLogTarget::Off,
            "" => {
                self.refuse(&at.key("access"), "", "is empty", "write \"stdout\", \"stderr\", \"off\" or a file");
                AccessLogTarget::Off
            }
            file => {
                let meant = nearest(file, ["stdout", "stderr", "off"]).filter(|_| !file.contains(['/', '.']));
                if let Some(meant) = meant {
                    let help = format!("did you mean \"{meant}\"? Else write \"./{file}\"");
                    self.warn(&at.key("access"), format!("\"{file}\" is taken for the name of a file"), help);
                }
                AccessLogTarget::File(self.path(file, &at.key("access")))
            }
        };
        Log {
            level,
            format: match raw.format {
                raw::LogFormat::Text => LogFormat::Text,
                raw::LogFormat::Json => LogFormat::Json,
            },
            access,
            access_format: match raw.access_format {
                raw::AccessFormat::Combined => AccessFormat::Combined,
                raw::AccessFormat::Json => AccessFormat::Json,
            },
        }
    }

    /// The filter takes any word for a module's name and would then be silent: `inof` must not pass.
    fn log_level(&mut self, text: &str, at: &Path) {
        let problems_before = self.problems.len();
        for directive in text.split(',') {
            let (module, level) = directive.rsplit_once('=').unwrap_or(("", directive));
            if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
                self.refuse(at, text, format!("\"{level}\" is not a level"), suggest(level, LEVELS));
                continue;
            }
            if level.parse::<LevelFilter>().is_ok_and(|level| level > STATIC_MAX_LEVEL) {
                let finest = STATIC_MAX_LEVEL.to_string();
                let help = format!("write \"{finest}\", or build without `--release`");
                self.warn(at, format!("a release says no more at \"{level}\" than at \"{finest}\""), help);
            }
            if let Some(help) = module_remedy(module) {
                self.warn(at, format!("nothing is logged as \"{module}\""), help);
            }
        }
        if self.problems.len() == problems_before && text.parse::<Targets>().is_err() {
            self.refuse(
                at,
                text,
                "not log directives",
                "write a level, or levels by module: \"info,flagstone::upstream=debug\"",
            );
        }
    }
}

/// The filter takes a space for a part of a name: `h2=warn, info` would be silent but for h2.
fn without_spaces(directives: &str) -> String {
    let tidy = |directive: &str| directive.split('=').map(str::trim).collect::<Vec<_>>().join("=");
    directives.split(',').map(tidy).collect::<Vec<_>>().join(",")
}

/// What to write for a module that never logs; `None` = it does, or is a library's.
fn module_remedy(module: &str) -> Option<String> {
    let (root, below) = module.split_once("::").map_or((module, None), |(root, below)| (root, Some(below)));
    let room = below.map(|below| below.split("::").next().unwrap_or_default());
    let is_room = |room: &str| room == EVENTS || ROOMS.contains(&room);
    match room {
        _ if PACKAGES.contains(&root) => None,
        None if ROOMS.contains(&root) => Some(format!("write \"{WHOLE}::{module}\"")),
        _ if root != WHOLE => {
            nearest(root, [WHOLE])?;
            let below = below.map(|below| format!("::{below}")).unwrap_or_default();
            Some(format!("did you mean \"{WHOLE}{below}\"?"))
        }
        Some(room) if !is_room(room) => Some(match nearest(room, ROOMS) {
            Some(best) => format!("did you mean \"{WHOLE}::{best}\"?"),
            None => format!("behind {WHOLE}:: use {}", one_of(ROOMS)),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_module_that_never_logs_is_told_what_to_write() {
        for (module, help) in [
            ("flagston::proxy", "did you mean \"flagstone::proxy\"?"),
            ("Flagstone", "did you mean \"flagstone\"?"),
            ("flagstone::proxi", "did you mean \"flagstone::proxy\"?"),
            ("flagstone::upstreams::names", "did you mean \"flagstone::upstream\"?"),
            ("proxy", "write \"flagstone::proxy\""),
        ] {
            assert_eq!(module_remedy(module).as_deref(), Some(help), "{module}");
        }
        assert!(module_remedy("flagstone::").is_some_and(|help| help.contains("use \"admin\", \"app\"")));
        for module in [
            "",
            "flagstone",
            "flagstone::event",
            "flagstone::upstream::names",
            "flagstone_engine::tls",
            "h2::proto",
            "hyper",
        ] {
            assert_eq!(module_remedy(module), None, "{module}");
        }
    }

    /// Which rooms of the source have a line that logs.
    fn rooms_that_log(folder: &Path, rooms: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                rooms_that_log(&entry, rooms);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                let macros = ["error!", "warn!", "info!", "debug!", "trace!", "event!"];
                if macros.iter().any(|name| text.contains(&format!("tracing::{name}("))) {
                    let below = entry.strip_prefix(source()).unwrap().with_extension("");
                    rooms.insert(below.iter().next().unwrap().to_str().unwrap().to_owned());
                }
            }
        }
    }

    fn source() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn the_rooms_that_log_are_those_of_the_source() {
        let mut rooms = BTreeSet::new();
        rooms_that_log(source(), &mut rooms);
        // Its only lines are of files that other rooms keep.
        rooms.remove("config");
        assert_eq!(rooms.iter().map(String::as_str).collect::<Vec<_>>(), ROOMS);
    }
}
