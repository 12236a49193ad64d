//! Where the process is that serves by a file which may be full of errors by now, or no TOML at all: the process
//! serves on with what the file said before.

use std::path::Path;

use super::document::{self, Node, Places};
use super::problem::Problems;
use super::sources::{SourceFile, Sources};
use super::{Env, check, joined, merge, model, raw, shape};

/// More wrong lines than this in one table are no slip.
const LINES_LEFT_OUT_MAX: usize = 16;

/// The admin side, as far as files tell of it; the rest is at its default.
#[derive(Clone, Debug)]
pub struct FoundAdmin {
    pub admin: model::Admin,
    /// Why not all could be read.
    pub problems: Problems,
    /// Where it listens is known for sure.
    pub is_told: bool,
}

/// Reads `[admin]`. Errors elsewhere do not matter; in a file that is no TOML the table is read on its own.
pub fn find_admin(file: &Path, env: Env<'_>) -> FoundAdmin {
    let sources = Sources::read(file, env);
    let (whole, places, problems) = joined(&sources);
    if let Some(document) = whole {
        return FoundAdmin {
            admin: admin_of(&document, &places, file, env),
            problems: Problems(vec![]),
            is_told: true,
        };
    }
    let mut is_whole = true;
    let mut rest = (Node::Table(Vec::new()), Places::default());
    for source in &sources.files {
        let Some(part) = readable(source) else { continue };
        is_whole &= part.is_whole;
        // Whatever is there twice is told when all of it is TOML again.
        merge::merge(&mut rest, (part.document, part.places));
    }
    let (document, places) = rest;
    let is_told = value(&document, "admin").is_some_and(|admin| is_whole || value(admin, "listen").is_some());
    FoundAdmin { admin: admin_of(&document, &places, file, env), problems: Problems(problems), is_told }
}

fn admin_of(document: &Node, places: &Places, file: &Path, env: Env<'_>) -> model::Admin {
    let shaped = shape::fit(document, env);
    let raw = serde_json::from_value::<raw::File>(shaped.value).unwrap_or_default();
    check::check(&raw, file.parent().unwrap_or(Path::new("")), shaped.spoilt, places).config.admin
}

/// What could be made of a file.
struct Part {
    document: Node,
    places: Places,
    /// No line of `[admin]` was left out.
    is_whole: bool,
}

fn readable(source: &SourceFile) -> Option<Part> {
    let text = String::from_utf8_lossy(&source.bytes);
    match document::read(&text) {
        Ok((document, places)) => Some(Part { document, places, is_whole: true }),
        Err(_) => alone(&text, "admin"),
    }
}

/// The lines of one table, from its header to the next, without those that are no TOML.
fn alone(text: &str, name: &str) -> Option<Part> {
    let mut lines: Vec<&str> = text.lines().skip_while(|line| !is_header_of(line, name)).collect();
    let is_header = |line: &&str| line.trim_start().starts_with('[');
    let length = lines.iter().skip(1).position(is_header).map_or(lines.len(), |next| next + 1);
    lines.truncate(length);
    for left_out in 0..=LINES_LEFT_OUT_MAX {
        let error = match document::read(&lines.join("\n")) {
            Ok((document, places)) => return Some(Part { document, places, is_whole: left_out == 0 }),
            Err(error) => error,
        };
        let (line, _) = error.position?;
        // Without its header it would be another table.
        if line < 2 || lines.len() < 2 {
            return None;
        }
        lines.remove(line.min(lines.len()) - 1);
    }
    None
}

fn is_header_of(line: &str, name: &str) -> bool {
    let header = line.split('#').next().unwrap_or_default().trim();
    header.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|key| key.trim() == name)
}

fn value<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Node::Table(entries) = node else { return None };
    entries.iter().find(|(own, _)| own == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::super::model::Address;
    use super::*;

    fn found(files: &[(&str, &str)]) -> FoundAdmin {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        find_admin(&folder.path().join("flagstone.toml"), &|_| None)
    }

    fn listens(found: &FoundAdmin) -> String {
        found.admin.listen.as_ref().map(Address::to_string).unwrap_or_default()
    }

    #[test]
    fn a_line_that_is_no_toml_hides_no_admin_side() {
        let admin = "[admin] # for operators\nlisten = \"127.0.0.1:1\"\ntoken = \"t\"\n";
        for text in [
            format!("{admin}[server]\nworkers = 1\nno toml\n"),
            format!("no toml\n{admin}"),
            format!("{admin}no toml\n"),
            format!("[[route]]\npath = [\"/b\"\n{admin}[[route\n"),
            format!("[[route]]\nname = \"open\n\n{admin}"),
        ] {
            let found = found(&[("flagstone.toml", &text)]);
            assert_eq!((listens(&found).as_str(), found.is_told), ("127.0.0.1:1", true), "{text}");
            assert!(found.admin.token.is_some() && found.problems.0.len() == 1, "{text}: {found:?}");
        }
    }

    #[test]
    fn an_included_file_that_is_no_toml_is_left_out() {
        let main = "include = [\"more.toml\"]\n[admin]\nlisten = \"127.0.0.1:1\"\n";
        let broken = found(&[("flagstone.toml", main), ("more.toml", "path=[\"/b\"\n")]);
        assert_eq!((listens(&broken).as_str(), broken.is_told), ("127.0.0.1:1", true));
        assert!(broken.problems.to_string().contains("more.toml:"), "{}", broken.problems);
        let elsewhere = found(&[
            ("flagstone.toml", "include = [\"more.toml\"]\n"),
            ("more.toml", "path=[\"/b\"\n[admin]\nlisten = \"127.0.0.1:1\"\n"),
        ]);
        assert_eq!((listens(&elsewhere).as_str(), elsewhere.is_told), ("127.0.0.1:1", true));
    }

    #[test]
    fn what_cannot_be_read_is_at_its_default_and_said_to_be_a_guess() {
        let garbage = "[admin]\n".to_owned() + &"no toml\n".repeat(LINES_LEFT_OUT_MAX + 2);
        for text in ["[server\n", "[admin\nlisten = \"127.0.0.1:1\"\n", "[admin]\nlisten = \"127.0.0.1:1\n", &garbage] {
            let found = found(&[("flagstone.toml", text)]);
            assert_eq!((listens(&found).as_str(), found.is_told), ("127.0.0.1:9900", false), "{text}");
            assert!(!found.problems.0.is_empty());
        }
        let gone = found(&[]);
        assert!(!gone.is_told && gone.problems.to_string().contains("cannot read the configuration"));
    }

    #[test]
    fn errors_that_are_no_matter_of_syntax_are_no_problem() {
        let found = found(&[("flagstone.toml", "[admin]\nlisten = \"127.0.0.1:1\"\n[servr]\n")]);
        assert!(found.is_told && found.problems.0.is_empty() && listens(&found) == "127.0.0.1:1");
    }
}
