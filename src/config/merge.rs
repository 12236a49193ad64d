//! Several files as one document: what `include` means.
//!
//! | in two files | comes to |
//! |---|---|
//! | `[[route]]` and other lists of tables | one list, in the order of the files |
//! | `[upstream.a]` and `[upstream.b]` | both |
//! | `[upstream.a]` twice, `log.level` twice | an error that names both places |
//! | `[log]` with other keys | one table |

use super::document::{Node, Places};
use super::problem::Problem;

/// Lays `other` under `whole`; what is in both is reported at its place in `other`.
pub(super) fn merge(whole: &mut (Node, Places), other: (Node, Places)) -> Vec<Problem> {
    let (Node::Table(sections), places) = whole else { return Vec::new() };
    let (Node::Table(others), other_places) = other else { return Vec::new() };
    let mut merge = Merge { places, other: &other_places, shifts: Vec::new(), problems: Vec::new() };
    for (section, node) in others {
        if section == "include" {
            let help = "name these files in the include of the first one";
            merge.refuse("include", "a file that is included includes no further ones", help);
            continue;
        }
        match (sections.iter_mut().find(|(known, _)| *known == section), node) {
            (None, node) => sections.push((section, node)),
            (Some((_, Node::List(list))), Node::List(more)) => merge.append(&section, list, more),
            (Some((_, Node::Table(table))), Node::Table(more)) => merge.section(&section, table, more),
            // One of them is no table nor list, which is an error of its own.
            (Some(_), _) => merge.twice(&section),
        }
    }
    let Merge { shifts, problems, .. } = merge;
    places.absorb(other_places, &shifts);
    problems
}

struct Merge<'a> {
    places: &'a Places,
    other: &'a Places,
    /// Lists of the other document and by how much their elements move.
    shifts: Vec<(String, usize)>,
    problems: Vec<Problem>,
}

impl Merge<'_> {
    fn append(&mut self, path: &str, list: &mut Vec<Node>, more: Vec<Node>) {
        self.shifts.push((path.to_owned(), list.len()));
        list.extend(more);
    }

    fn section(&mut self, section: &str, table: &mut Vec<(String, Node)>, more: Vec<(String, Node)>) {
        for (key, node) in more {
            let path = super::document::Path::root().key(section).key(&key);
            match (table.iter_mut().find(|(known, _)| *known == key), node) {
                (None, node) => table.push((key, node)),
                (Some((_, Node::List(list))), Node::List(more)) if are_tables(list) && are_tables(&more) => {
                    self.append(path.as_str(), list, more);
                }
                (Some(_), _) => self.twice(path.as_str()),
            }
        }
    }

    fn twice(&mut self, path: &str) {
        let first = self.places.whole_place(path).map(|place| format!(" in {place}")).unwrap_or_default();
        self.refuse(path, &format!("is there already{first}"), "take one of them out, or give each its own name");
    }

    fn refuse(&mut self, path: &str, message: &str, help: &str) {
        self.problems.push(self.other.place(Problem::new(path, message).with_help(help)));
    }
}

fn are_tables(list: &[Node]) -> bool {
    list.iter().all(|node| matches!(node, Node::Table(_)))
}
