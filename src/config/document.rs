//! The TOML text as a tree of plain values, with the place of everything remembered.
//!
//! Knows TOML, not Flagstone: what keys mean is for [`super::shape`] and [`super::check`].

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;

use toml_edit::{Document, Item, Table, TableLike, Value};

use super::problem::Problem;

/// A place in the TOML: `route[0].upstream`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Path(String);

impl Path {
    pub(super) fn root() -> Self {
        Self(String::new())
    }

    /// A key below this place; quoted unless it is a bare key in TOML's sense.
    pub(super) fn key(&self, key: &str) -> Self {
        let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push('.');
        }
        match bare {
            true => path.push_str(key),
            false => write!(path, "\"{}\"", key.escape_debug()).expect("writing to a String succeeds"),
        }
        Self(path)
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the place `inner` is `outer` or below it; both are texts of a [`Path`].
pub(super) fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The place right below `outer` on the way to `inner`; `None` when they are the same, or `inner` is not below it.
pub(super) fn step_below<'a>(inner: &'a str, outer: &str) -> Option<&'a str> {
    let mut step = inner;
    loop {
        let around = parent(step)?;
        if around == outer {
            return Some(step);
        }
        step = around;
    }
}

/// `listener[0].tls` -> `listener.tls`, as it stands in a header: that of the last one.
pub(super) fn without_indices(path: &str) -> String {
    let Some(around) = parent(path) else { return path.to_owned() };
    let own = &path[around.len()..];
    let own = if own.starts_with('[') { "" } else { own };
    without_indices(around) + own
}

/// The place in the file of one in what is left of it: there, elements of lists that were left out count.
pub(super) fn place_in_file(path: &str, left_out: &BTreeSet<String>) -> String {
    let Some(around) = parent(path) else { return path.to_owned() };
    let own = &path[around.len()..];
    let around = place_in_file(around, left_out);
    let index = own.strip_prefix('[').and_then(|own| own.strip_suffix(']')).and_then(|index| index.parse().ok());
    match index {
        Some(index) => {
            let elements = (0..).map(|index| format!("{around}[{index}]"));
            elements.filter(|place| !left_out.contains(place)).nth(index).expect("there is no last one")
        }
        None => around + own,
    }
}

/// One value and its kind, as TOML has them.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A date or time, as written. No key takes one.
    Date(String),
    List(Vec<Self>),
    /// In the order of the file.
    Table(Vec<(String, Self)>),
}

/// Where every key, list element and table starts, in one file or several.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Which of the texts, and where in it.
    offsets: HashMap<String, (usize, usize)>,
    texts: Vec<Text>,
}

/// A file's text.
#[derive(Clone, Debug)]
struct Text {
    /// As it was named.
    file: PathBuf,
    line_starts: Vec<usize>,
    text: String,
}

impl Places {
    fn new(text: &str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let text = Text { file: PathBuf::new(), line_starts, text: text.to_owned() };
        Self { offsets: HashMap::new(), texts: vec![text] }
    }

    /// The same, of a text that stands in `file`.
    pub(super) fn in_file(mut self, file: &std::path::Path) -> Self {
        self.texts.iter_mut().for_each(|text| file.clone_into(&mut text.file));
        self
    }

    /// Whether this very place is in a file.
    pub(super) fn holds(&self, path: &str) -> bool {
        self.offsets.contains_key(path)
    }

    /// Line and column of the place, or of the nearest one around it that is in the file.
    pub(super) fn locate(&self, path: &str) -> Option<(usize, usize)> {
        self.find(path).map(|(text, offset)| self.texts[text].position(offset))
    }

    /// Gives a problem its file, line and column, unless it has them.
    pub(super) fn place(&self, problem: Problem) -> Problem {
        match self.find(&problem.path) {
            _ if problem.line.is_some() => problem,
            Some((text, offset)) => {
                let position = self.texts[text].position(offset);
                problem.in_file(&self.texts[text].file).at(Some(position))
            }
            None => match self.texts.first() {
                Some(text) if problem.file.as_os_str().is_empty() => problem.in_file(&text.file),
                _ => problem,
            },
        }
    }

    /// `flagstone.toml:12`; `None` when it is nowhere.
    pub(super) fn whole_place(&self, path: &str) -> Option<String> {
        let (text, offset) = self.find(path)?;
        Some(format!("{}:{}", self.texts[text].file.display(), self.texts[text].position(offset).0))
    }

    /// Whether there are several files.
    pub(super) fn are_in_several_files(&self) -> bool {
        self.texts.len() > 1
    }

    /// For sorting by file.
    pub(super) fn file_index(&self, file: &std::path::Path) -> usize {
        self.texts.iter().position(|text| text.file == file).unwrap_or_default()
    }

    /// Takes in the places of another text. What is known already stays; elements of the lists in `shifts` move.
    pub(super) fn absorb(&mut self, other: Self, shifts: &[(String, usize)]) {
        let first = self.texts.len();
        self.texts.extend(other.texts);
        for (path, (text, offset)) in other.offsets {
            let moved = shifts.iter().find_map(|(list, by)| shifted(&path, list, *by));
            self.offsets.entry(moved.unwrap_or(path)).or_insert((first + text, offset));
        }
    }

    fn find(&self, path: &str) -> Option<(usize, usize)> {
        let mut path = path;
        loop {
            if let Some(&found) = self.offsets.get(path) {
                return Some(found);
            }
            path = parent(path)?;
        }
    }
}

impl Text {
    /// Line and column, in characters, both from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|&start| start <= offset);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

/// `route[1].name` -> `route[4].name` when `route` moves by 3; `None` when it is not in that list.
fn shifted(path: &str, list: &str, by: usize) -> Option<String> {
    let (index, rest) = path.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?;
    Some(format!("{list}[{}]{rest}", index.parse::<usize>().ok()? + by))
}

/// `a.b[0]` -> `a.b` -> `a`; dots and brackets inside quotes do not count.
fn parent(path: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    let mut cut = None;
    for (at, c) in path.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '.' | '[' if !quoted => cut = Some(at),
            _ => {}
        }
    }
    cut.map(|at| &path[..at])
}

/// Where and why the text is not TOML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) position: Option<(usize, usize)>,
    pub(super) message: String,
}

/// Reads a whole text; a byte-order mark before it is no part of it.
pub(super) fn read(text: &str) -> Result<(Node, Places), SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut places = Places::new(text);
    let document = Document::parse(text).map_err(|error| SyntaxError {
        position: error.span().map(|span| places.texts[0].position(span.start.min(text.len()))),
        message: error.message().trim().replace('\n', ", "),
    })?;
    let root = table(document.as_table(), &Path::root(), &mut places);
    Ok((root, places))
}

fn table(table: &dyn TableLike, path: &Path, places: &mut Places) -> Node {
    let mut entries = Vec::new();
    for (key, value) in table.iter() {
        let below = path.key(key);
        let first = value.as_array_of_tables().and_then(|list| list.get(0));
        let header = value.as_table().or(first).and_then(Table::span);
        let own = table.key(key).and_then(toml_edit::Key::span);
        remember(&below, header.or(own), places);
        if let Some(node) = item(value, &below, places) {
            entries.push((key.to_owned(), node));
        }
    }
    Node::Table(entries)
}

fn item(item: &Item, path: &Path, places: &mut Places) -> Option<Node> {
    match item {
        Item::None => None,
        Item::Value(inner) => Some(value(inner, path, places)),
        Item::Table(inner) => Some(table(inner, path, places)),
        Item::ArrayOfTables(list) => {
            let element = |(index, inner): (usize, &Table)| {
                let below = path.index(index);
                remember(&below, inner.span(), places);
                table(inner, &below, places)
            };
            Some(Node::List(list.iter().enumerate().map(element).collect()))
        }
    }
}

fn value(value: &Value, path: &Path, places: &mut Places) -> Node {
    match value {
        Value::String(text) => Node::Text(text.value().clone()),
        Value::Integer(number) => Node::Integer(*number.value()),
        Value::Float(number) => Node::Float(*number.value()),
        Value::Boolean(boolean) => Node::Boolean(*boolean.value()),
        Value::Datetime(date) => Node::Date(date.value().to_string()),
        Value::InlineTable(inner) => table(inner, path, places),
        Value::Array(list) => {
            let element = |(index, inner): (usize, &Value)| {
                let below = path.index(index);
                remember(&below, inner.span(), places);
                self::value(inner, &below, places)
            };
            Node::List(list.iter().enumerate().map(element).collect())
        }
    }
}

fn remember(path: &Path, span: Option<Range<usize>>, places: &mut Places) {
    if let Some(span) = span {
        places.offsets.insert(path.0.clone(), (0, span.start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_place_is_found() {
        let text = "[server]\nworkers = 2\n\n[[route]]\nname = \"a\"\npath = [\"/x\",\n  \"/y\"]\n[upstream.app.breaker]\nopen = \"1s\"\n[features]\n\"a.b\" = true\n";
        let (_, places) = read(text).unwrap();
        assert_eq!(places.locate("server"), Some((1, 1)));
        assert_eq!(places.locate("server.workers"), Some((2, 1)));
        assert_eq!(places.locate("route[0]"), Some((4, 1)));
        assert_eq!(places.locate("route[0].path[1]"), Some((7, 3)));
        assert_eq!(places.locate("upstream.app.breaker.open"), Some((9, 1)));
        assert_eq!(places.locate("features.\"a.b\""), Some((11, 1)));
    }

    #[test]
    fn what_is_missing_is_placed_at_what_is_around_it() {
        let (_, places) = read("[server]\n[features]\n\"a.b\" = true").unwrap();
        assert_eq!(places.locate("server.workers"), Some((1, 1)));
        assert_eq!(places.locate("features.\"a.c\""), Some((2, 1)));
        assert_eq!(places.locate("nothing"), None);
        assert_eq!(places.locate(""), None);
    }

    #[test]
    fn columns_count_characters() {
        let (_, places) = read("a = { \"ä\" = 1, b = 2 }").unwrap();
        assert_eq!(places.locate("a.b"), Some((1, 16)));
    }

    #[test]
    fn syntax_errors_have_a_position() {
        let error = read("a = 1\nb = \n").unwrap_err();
        assert_eq!(error.position.map(|(line, _)| line), Some(2));
        assert!(!error.message.is_empty() && !error.message.contains('\n'));
    }

    #[test]
    fn what_is_left_of_a_list_keeps_its_places() {
        let left_out = ["route[0]", "route[2].path[1]", "a"].map(str::to_owned).into();
        for (path, place) in [
            ("route[0].path[0]", "route[1].path[0]"),
            ("route[1].path[0]", "route[2].path[0]"),
            ("route[1].path[1].x", "route[2].path[2].x"),
            ("features.\"a[0]\"", "features.\"a[0]\""),
            ("server.workers", "server.workers"),
            ("", ""),
        ] {
            assert_eq!(place_in_file(path, &left_out), place);
        }
    }

    #[test]
    fn paths_quote_what_is_no_bare_key() {
        let path = Path::root().key("features").key("a.b").index(1);
        assert_eq!(path.as_str(), "features.\"a.b\"[1]");
        assert_eq!(parent(path.as_str()), Some("features.\"a.b\""));
        assert_eq!(parent("features.\"a.b\""), Some("features"));
        assert_eq!(parent("features"), None);
    }
}
