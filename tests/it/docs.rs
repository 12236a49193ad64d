//! What the documentation says must hold: configurations load, commands parse, links lead somewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flagstone::config;
use flagstone::config::Loaded;

use crate::support::left_out::program;
use crate::support::process::Process;

/// The line before a block of TOML that is no configuration.
const NO_CONFIGURATION: &str = "<!-- no configuration -->";

/// A fenced block of a page.
pub(crate) struct Block {
    /// `docs/routes.md:12`
    pub(crate) place: String,
    pub(crate) language: String,
    pub(crate) text: String,
    /// The line before it.
    pub(crate) before: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md, CHANGELOG.md and everything in docs/ and docs/runbooks/.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    pages.extend(files_in("docs", "md"));
    pages.extend(files_in("docs/runbooks", "md"));
    pages
}

pub(crate) fn files_in(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder of the repository");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn name_of(page: &Path) -> String {
    page.strip_prefix(root()).expect("a file of the repository").display().to_string()
}

pub(crate) fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).expect("a page");
    let mut blocks: Vec<Block> = Vec::new();
    let (mut is_open, mut before) = (false, "");
    for (index, line) in text.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if is_open => is_open = false,
            Some(language) => {
                is_open = true;
                blocks.push(Block {
                    place: format!("{}:{}", name_of(page), index + 2),
                    language: language.trim().to_owned(),
                    text: String::new(),
                    before: before.to_owned(),
                });
            }
            None if is_open => {
                let block = blocks.last_mut().expect("an open block is in the list");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
        before = line.trim();
    }
    blocks
}

/// The configurations that a page's commands write: `<<'TOML'`.
fn written_by(commands: &Block) -> Option<&str> {
    let (_, rest) = commands.text.split_once("<<'TOML'\n")?;
    Some(rest.split_once("\nTOML\n")?.0)
}

/// Adds what an excerpt leaves out: a listener, a route, and whatever its routes name.
fn completed(excerpt: &str) -> String {
    let table: toml::Table = excerpt.parse().unwrap_or_else(|error| panic!("{error}\n{excerpt}"));
    let names = |table: &toml::Table, key: &str| -> BTreeSet<String> {
        let table = table.get(key).and_then(toml::Value::as_table);
        table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
    };
    let mut text = format!("{excerpt}\n");
    let mut upstreams = BTreeSet::new();
    let mut limits = BTreeSet::new();
    for route in table.get("route").and_then(toml::Value::as_array).into_iter().flatten() {
        upstreams.extend(route.get("upstream").and_then(toml::Value::as_str).map(str::to_owned));
        let named = route.get("limits").and_then(toml::Value::as_array).into_iter().flatten();
        limits.extend(named.filter_map(toml::Value::as_str).map(str::to_owned));
    }
    let given = names(&table, "upstream");
    let without_endpoints = given.iter().filter(|name| table["upstream"][name.as_str()].get("endpoints").is_none());
    for name in upstreams.difference(&given).chain(without_endpoints) {
        let _ = write!(text, "[upstream.{name}]\nendpoints = [\"127.0.0.1:3000\"]\n");
    }
    for name in limits.difference(&names(&table, "limit")) {
        let _ = write!(text, "[limit.{name}]\nrate = \"1/1s\"\n");
    }
    if !table.contains_key("listener") {
        text.push_str("[[listener]]\naddress = \"0.0.0.0:8080\"\n");
    }
    if !table.contains_key("route") {
        text.push_str("[[route]]\nname = \"completed\"\nrespond = { status = 200, body = \"\" }\n");
    }
    text
}

fn loaded(place: &str, text: &str) -> Loaded {
    // Only what must be set is: the defaults of the others are what readers see.
    let env = |name: &str| (!text.contains(&format!("${{{name}:-"))).then(|| "from-the-environment".to_owned());
    config::parse(text, &root().join("config/some.toml"), &env)
        .unwrap_or_else(|problems| panic!("{place}\n{problems}\n{text}"))
}

#[test]
fn every_configuration_in_the_documentation_loads() {
    let mut count = 0;
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let text = match block.language.as_str() {
            "toml" if block.before == NO_CONFIGURATION => {
                block.text.parse::<toml::Table>().unwrap_or_else(|error| panic!("{}: {error}", block.place));
                continue;
            }
            "toml" => block.text.as_str(),
            "sh" => match written_by(&block) {
                Some(text) => text,
                None => continue,
            },
            _ => continue,
        };
        loaded(&block.place, &completed(text));
        count += 1;
    }
    assert!(count > 20, "only {count} found");
}

#[test]
fn every_example_configuration_loads_without_a_warning() {
    let examples = files_in("config/examples", "toml");
    assert!(!examples.is_empty());
    for file in examples.into_iter().chain([root().join("config/minimal.toml")]) {
        let text = fs::read_to_string(&file).expect("an example");
        let loaded = loaded(&name_of(&file), &text);
        assert!(loaded.warnings.is_empty(), "{}: {:?}", name_of(&file), loaded.warnings);
    }
}

#[tokio::test]
async fn every_command_in_the_documentation_is_one_that_bash_can_read() {
    let bash = or_left_out!(program("bash"));
    let mut count = 0;
    for block in pages().iter().flat_map(|page| blocks(page)).filter(|block| block.language == "sh") {
        let ended = Process::run(Command::new(&bash).args(["-n", "-c", &block.text])).await;
        // A here-document without its end is only a warning.
        assert!(ended.status.success() && ended.stderr.is_empty(), "{}: {}", block.place, ended.stderr);
        count += 1;
    }
    assert!(count > 10, "only {count} found");
}

#[test]
fn every_link_leads_to_a_file_and_its_heading() {
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().expect("a split has a first part");
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a page is in a folder").join(file),
            };
            assert!(target.exists(), "{}: {link}", name_of(&page));
            if !anchor.is_empty() {
                assert!(headings(&target).any(|heading| heading == anchor), "{}: no heading {link}", name_of(&page));
            }
        }
    }
}

/// As GitHub names them in links.
fn headings(page: &Path) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(page).expect("a page");
    let headings: Vec<_> = text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect();
    headings.into_iter().map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        words.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-').collect::<String>().replace(' ', "-")
    })
}

#[test]
fn every_page_is_in_the_index() {
    let index = fs::read_to_string(root().join("docs/README.md")).expect("the index");
    for page in files_in("docs", "md") {
        let name = page.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "{name} is not in docs/README.md");
    }
}

#[tokio::test]
async fn the_unit_file_starts_the_binary_with_arguments_that_it_takes() {
    let unit = fs::read_to_string(root().join("config/flagstone.service")).expect("the unit file");
    let lines = unit.lines().filter_map(|line| line.split_once("=/usr/local/bin/flagstone "));
    let commands: Vec<_> = lines.map(|(_, arguments)| arguments).collect();
    assert_eq!(commands.len(), 2);
    for arguments in commands {
        let arguments = arguments.split_whitespace().map(|word| match word.starts_with('/') {
            true => "/nonexistent/flagstone.toml",
            false => word,
        });
        let ended = crate::support::process::Flagstone::run(arguments).await;
        // Refused for its file, not for its arguments (which would be 2).
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    }
}
