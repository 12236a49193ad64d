use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn parsed(text: &str) -> Result<Loaded, Problems> {
    parse(text, Path::new("flagstone.toml"), &no_env)
}

const MINIMAL: &str = include_str!("../../config/minimal.toml");

#[test]
fn the_minimal_file_loads() {
    let loaded = parsed(MINIMAL).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}
