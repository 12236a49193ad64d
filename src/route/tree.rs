//! A radix tree over path patterns.
//!
//! One walk along the path meets every pattern that covers it, shortest first, whatever the number of patterns:
//! the work is bounded by the path's length and by the longest pattern, also for paths made of slashes.

use smallvec::SmallVec;

use super::path::PathPattern;

/// Patterns and what belongs to each.
#[derive(Clone, Debug)]
pub(super) struct Tree<V> {
    root: Node<V>,
    empty: bool,
}

/// What covers a path; the last one is the most specific.
pub(super) type Matches<'a, V> = SmallVec<[&'a V; 8]>;

#[derive(Clone, Debug)]
struct Node<V> {
    /// The bytes between the parent and this node; empty only at the root.
    label: Box<[u8]>,
    /// The first byte of each child's label, in the order of `children`; they all differ.
    heads: Vec<u8>,
    children: Vec<Self>,
    exact: Option<V>,
    prefix: Option<V>,
}

impl<V> Tree<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// The place of a pattern's value, made when it is new.
    pub(super) fn slot(&mut self, pattern: &PathPattern) -> &mut Option<V> {
        self.empty = false;
        let mut node = &mut self.root;
        let mut rest = pattern.as_str().as_bytes();
        while !rest.is_empty() {
            let (child, left) = node.descend(rest);
            (node, rest) = (child, left);
        }
        if pattern.is_exact() { &mut node.exact } else { &mut node.prefix }
    }

    /// What a pattern has, if anything.
    pub(super) fn value(&self, pattern: &PathPattern) -> Option<&V> {
        let mut node = &self.root;
        let mut rest = pattern.as_str().as_bytes();
        while !rest.is_empty() {
            (node, rest) = node.step(rest)?;
        }
        if pattern.is_exact() { node.exact.as_ref() } else { node.prefix.as_ref() }
    }

    /// Everything that covers the path: prefixes from the shortest, then the exact pattern.
    pub(super) fn matches(&self, path: &str) -> Matches<'_, V> {
        let mut found = SmallVec::new();
        let mut node = &self.root;
        let mut rest = path.as_bytes();
        loop {
            if let Some(value) = &node.prefix
                && (matches!(rest.first(), None | Some(b'/')) || node.label.last() == Some(&b'/'))
            {
                found.push(value);
            }
            if rest.is_empty() {
                found.extend(&node.exact);
                return found;
            }
            let Some((child, left)) = node.step(rest) else {
                return found;
            };
            (node, rest) = (child, left);
        }
    }
}

impl<V> Node<V> {
    fn leaf(label: &[u8]) -> Self {
        Self { label: label.into(), heads: Vec::new(), children: Vec::new(), exact: None, prefix: None }
    }

    /// The child that the bytes lead into, and what is left of them; `rest` is not empty.
    fn step<'p>(&self, rest: &'p [u8]) -> Option<(&Self, &'p [u8])> {
        // A plain scan: a node has few children, and calling memchr costs more than it finds.
        let child = &self.children[self.heads.iter().position(|&head| head == rest[0])?];
        Some((child, rest.strip_prefix(&*child.label)?))
    }

    /// As [`Self::step`], but makes and splits nodes so that there always is one.
    fn descend<'p>(&mut self, rest: &'p [u8]) -> (&mut Self, &'p [u8]) {
        let Some(index) = self.heads.iter().position(|&head| head == rest[0]) else {
            self.heads.push(rest[0]);
            self.children.push(Self::leaf(rest));
            let child = self.children.last_mut().expect("just pushed");
            return (child, &[]);
        };
        let child = &mut self.children[index];
        let common = rest.iter().zip(&*child.label).take_while(|(a, b)| a == b).count();
        if common < child.label.len() {
            child.split(common);
        }
        (child, &rest[common..])
    }

    /// Keeps the first `at` bytes here and moves all else into a single child.
    fn split(&mut self, at: usize) {
        let head = Self::leaf(&self.label[..at]);
        let mut tail = std::mem::replace(self, head);
        tail.label = tail.label[at..].into();
        self.heads.push(tail.label[0]);
        self.children.push(tail);
    }
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { root: Node::leaf(b""), empty: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(patterns: &[&str]) -> Tree<String> {
        let mut tree = Tree::default();
        for pattern in patterns {
            *tree.slot(&PathPattern::parse(pattern).unwrap()) = Some((*pattern).to_owned());
        }
        tree
    }

    #[test]
    fn matches_run_from_the_shortest_prefix_to_the_exact_path() {
        let tree = tree(&["/api/v1", "=/api/v1", "/", "/api", "/api/", "/apix", "/ap"]);
        assert_eq!(tree.matches("/api/v1").as_slice(), ["/", "/api", "/api/", "/api/v1", "=/api/v1"]);
        assert_eq!(tree.matches("/api/v1/x").as_slice(), ["/", "/api", "/api/", "/api/v1"]);
        assert_eq!(tree.matches("/apix").as_slice(), ["/", "/apix"]);
        assert_eq!(tree.matches("/ap").as_slice(), ["/", "/ap"]);
        assert_eq!(tree.matches("/a").as_slice(), ["/"]);
        assert!(tree.matches("").is_empty());
    }

    #[test]
    fn values_are_found_by_their_very_pattern() {
        let tree = tree(&["/a/b", "/a/c"]);
        assert!(tree.value(&PathPattern::parse("/a/b").unwrap()).is_some());
        assert!(tree.value(&PathPattern::parse("=/a/b").unwrap()).is_none());
        assert!(tree.value(&PathPattern::parse("/a/").unwrap()).is_none());
        assert!(tree.value(&PathPattern::parse("/a/b/c").unwrap()).is_none());
    }
}
