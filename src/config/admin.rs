//! Where the process is that serves by a file which may be full of errors by now, or no TOML at all: the process
//! serves on with what the file said before.

use std::path::Path;

use super::document::{self, Node, Places, is_within};
use super::problem::{Problem, Problems};
use super::sources::{SourceFile, Sources};
use super::{Env, joined, merge, model, prove_document};

/// More wrong lines than this in one table are no slip.
const LINES_LEFT_OUT_MAX: usize = 16;

/// The admin side, as far as files tell of it; the rest is at its default.
#[derive(Clone, Debug)]
pub struct FoundAdmin {
    pub admin: model::Admin,
    /// Why not all could be read, and what is wrong in what was.
    pub problems: Problems,
    /// Where it listens is known for sure.
    pub is_told: bool,
}

/// Reads `[admin]`. Errors elsewhere do not matter; in a file that is no TOML the table is read on its own.
pub fn find_admin(file: &Path, env: Env<'_>) -> FoundAdmin {
    let sources = Sources::read(file, env);
    let (whole, places, found) = joined(&sources);
    let is_toml = whole.is_some();
    let (part, mut problems) = match whole {
        // A file that could not be read may have the table.
        Some(document) => {
            let twice = found.into_iter().filter(is_of_admin);
            let problems: Vec<Problem> = sources.problems.iter().cloned().chain(twice).collect();
            (Part { document, places, is_whole: problems.is_empty() }, problems)
        }
        None => (pieces(&sources), found),
    };
    let names_address = value(&part.document, "admin").is_some_and(|admin| value(admin, "listen").is_some());
    let is_there = part.is_whole || names_address;
    let proven = prove_document(&part.document, file, part.places, Vec::new(), env);
    let mut refused = proven.problems.iter().map(|problem| &problem.path).chain(&proven.spoilt);
    let is_told = is_there && !refused.any(|path| is_within("admin.listen", path));
    // What hides the address may stand elsewhere: `[admn]`.
    let wrong = proven.problems.into_iter().filter(|problem| is_of_admin(problem) || (is_toml && !is_told));
    problems.extend(wrong);
    FoundAdmin { admin: proven.loaded.config.admin, problems: Problems(problems), is_told }
}

fn is_of_admin(problem: &Problem) -> bool {
    is_within(&problem.path, "admin")
}

/// What can be read of files of which one is no TOML.
fn pieces(sources: &Sources) -> Part {
    let mut is_whole = true;
    let mut all = (Node::Table(Vec::new()), Places::default());
    for source in &sources.files {
        let Some(part) = readable(source) else { continue };
        is_whole &= part.is_whole;
        // Whatever is there twice is told when all of it is TOML again.
        merge::merge(&mut all, (part.document, part.places));
    }
    let (document, places) = all;
    let is_whole = is_whole && value(&document, "admin").is_some();
    Part { document, places, is_whole }
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
    fn errors_in_other_tables_are_no_problem() {
        let found = found(&[("flagstone.toml", "[admin]\nlisten = \"127.0.0.1:1\"\n[servr]\n")]);
        assert!(found.is_told && found.problems.0.is_empty() && listens(&found) == "127.0.0.1:1");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_said_to_be_a_guess() {
        for (text, place) in [
            ("[admin]\nlisten = \"${NOWHERE}\"\n", ":2:1: admin.listen: "),
            ("[admin]\nlisten = \":9900\"\n", ":2:1: admin.listen = \":9900\": "),
            ("[admin]\nlisten = 9900\n", ":2:1: admin.listen = 9900: "),
            ("[admin]\nlistn = \"127.0.0.1:1\"\n", ":2:1: admin.listn: "),
            ("[admn]\nlisten = \"127.0.0.1:1\"\n", ":1:1: admn: "),
            ("admin = 9900\n", ":1:1: admin = 9900: "),
        ] {
            let found = found(&[("flagstone.toml", text)]);
            assert!(!found.is_told && found.problems.to_string().contains(place), "{text}: {}", found.problems);
        }
    }

    #[test]
    fn a_token_that_cannot_be_used_is_told_and_hides_no_address() {
        let text = "[admin]\nlisten = \"127.0.0.1:1\"\ntoken = \"${NOWHERE}\"\n";
        let found = found(&[("flagstone.toml", text)]);
        let told = found.problems.to_string();
        assert!(told.contains(":3:1: admin.token: the environment variable NOWHERE is not set"), "{told}");
        assert_eq!((listens(&found).as_str(), found.is_told), ("127.0.0.1:1", true));
    }

    #[test]
    fn an_included_file_that_cannot_be_read_may_have_the_table() {
        let include = "include = [\"none.toml\"]\n";
        let guessed = found(&[("flagstone.toml", include)]);
        assert!(!guessed.is_told && guessed.problems.to_string().contains("none.toml"), "{guessed:?}");
        let told = found(&[("flagstone.toml", &format!("{include}[admin]\nlisten = \"127.0.0.1:1\"\n"))]);
        assert_eq!((listens(&told).as_str(), told.is_told), ("127.0.0.1:1", true));
    }
}
