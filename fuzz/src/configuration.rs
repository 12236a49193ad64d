//! The configuration: any text is a configuration or a list of complaints, each with a place in the text.

use std::path::Path;

use flagstone::config;

/// Nothing panics, nothing is refused without a word, and what is shown of it holds no secret that was marked as one.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let env = |name: &str| (name == "SET").then(|| "value".to_owned());
    match config::parse(text, Path::new("/fuzz/flagstone.toml"), &env) {
        Ok(loaded) => {
            assert!(!loaded.config.listeners.is_empty() && !loaded.config.routes.is_empty(), "nothing to serve");
            for warning in &loaded.warnings {
                assert!(!warning.to_string().is_empty());
            }
            // The same text is the same configuration.
            let again =
                config::parse(text, Path::new("/fuzz/flagstone.toml"), &env).expect("it was taken a moment ago");
            assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a word");
            for problem in &problems.0 {
                assert!(!problem.to_string().trim().is_empty());
                let lines = text.lines().count().max(1);
                assert!(problem.line.is_none_or(|line| (1..=lines + 1).contains(&line)), "{problem}");
            }
        }
    }
}
