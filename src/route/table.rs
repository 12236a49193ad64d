//! The routing table: (host, path, method) to a value.
//!
//! Among the routes whose host, path and method all match, the most specific wins: exact host, then the longest
//! wildcard, then any host; within those exact path, then the longest prefix; within the same host and path a
//! route that names the method, then one that takes any. A route that does not take the method does not match, so
//! the next best one serves. Only when a host and path matched and no method did is it [`Found::MethodNotAllowed`].
//! A route that takes GET takes HEAD as well (RFC 9110, section 9.3.2), as nginx's `limit_except GET` does.

use std::collections::HashMap;

use http::Method;
use memchr::memchr_iter;

use super::host::{HostPattern, HostPatternError};
use super::path::{PathPattern, PathPatternError};
use super::tree::Tree;

/// Routes with a `T` each. Lookups take time by the length of host and path, not by the number of routes.
#[derive(Clone, Debug)]
pub struct Table<T> {
    values: Vec<T>,
    exact: HostMap,
    /// Keyed by what follows `*.`.
    wildcard: HostMap,
    /// The longest key of `wildcard`: longer suffixes need no hashing, which keeps hostile hosts cheap.
    wildcard_bytes_max: usize,
    any: Tree<Methods>,
}

/// What a lookup came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a, T> {
    Route(&'a T),
    /// Host and path are known, the method is not: these are, for `Allow`. Never empty.
    MethodNotAllowed(Vec<Method>),
    NotFound,
}

/// Why a route cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    #[error("host {text:?}: {source}")]
    Host { text: String, source: HostPatternError },
    #[error("path {text:?}: {source}")]
    Path { text: String, source: PathPatternError },
    #[error("a route has at least one path")]
    NoPath,
    /// `earlier` counts the successful calls of [`Table::add`] from 0; see [`Table::value`].
    #[error("{what} already belongs to another route")]
    Duplicate { what: String, earlier: usize },
}

type HostMap = HashMap<Box<str>, Tree<Methods>, foldhash::fast::RandomState>;

/// The routes of one host and path; each number is an index into `values`.
#[derive(Clone, Debug, Default)]
struct Methods {
    named: Vec<(Method, usize)>,
    any: Option<usize>,
}

impl<T> Table<T> {
    pub fn new() -> Self {
        Self {
            values: Vec::new(),
            exact: HostMap::default(),
            wildcard: HostMap::default(),
            wildcard_bytes_max: 0,
            any: Tree::default(),
        }
    }

    /// Adds a route for every combination of host and path. No hosts = any host, no methods = any method.
    ///
    /// # Errors
    /// A text that is no pattern, or a host, path and method that an earlier route already has; then nothing
    /// has been added.
    pub fn add(&mut self, hosts: &[String], paths: &[String], methods: &[Method], value: T) -> Result<(), AddError> {
        let hosts = parse_hosts(hosts)?;
        let paths = parse_paths(paths)?;
        for host in &hosts {
            for path in &paths {
                self.check_free(host.as_ref(), path, methods)?;
            }
        }
        let index = self.values.len();
        self.values.push(value);
        for host in &hosts {
            let tree = self.tree_mut(host.as_ref());
            for path in &paths {
                tree.slot(path).get_or_insert_default().insert(methods, index);
            }
        }
        Ok(())
    }

    /// The route for a request. `host` is in lower case and has no port (empty when the request had none), `path`
    /// is normalised and has no query.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Found<'_, T> {
        let mut allow = Vec::new();
        for tree in self.trees(host) {
            for methods in tree.matches(path).into_iter().rev() {
                match methods.pick(method) {
                    Some(index) => return Found::Route(&self.values[index]),
                    None => methods.list(&mut allow),
                }
            }
        }
        if allow.is_empty() { Found::NotFound } else { Found::MethodNotAllowed(allow) }
    }

    /// The value of the `index`th successful [`Self::add`], from 0.
    pub fn value(&self, index: usize) -> Option<&T> {
        self.values.get(index)
    }

    /// Every value, in the order they were added.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &T> {
        self.values.iter()
    }

    /// The trees that hold for a host, most specific first.
    fn trees(&self, host: &str) -> impl Iterator<Item = &Tree<Methods>> {
        // Where the longest suffix that a route names could begin.
        let from = host.len().saturating_sub(self.wildcard_bytes_max + 1);
        let dots = memchr_iter(b'.', &host.as_bytes()[from..]).map(move |at| from + at);
        let suffixes = dots.filter(|&dot| dot > 0).filter_map(move |dot| self.wildcard.get(&host[dot + 1..]));
        self.exact.get(host).into_iter().chain(suffixes).chain([&self.any])
    }

    fn tree_mut(&mut self, host: Option<&HostPattern>) -> &mut Tree<Methods> {
        match host {
            None => &mut self.any,
            Some(HostPattern::Exact(name)) => self.exact.entry(name.as_str().into()).or_default(),
            Some(HostPattern::Wildcard(suffix)) => {
                self.wildcard_bytes_max = self.wildcard_bytes_max.max(suffix.len());
                self.wildcard.entry(suffix.as_str().into()).or_default()
            }
        }
    }

    fn check_free(&self, host: Option<&HostPattern>, path: &PathPattern, methods: &[Method]) -> Result<(), AddError> {
        let tree = match host {
            None => Some(&self.any),
            Some(HostPattern::Exact(name)) => self.exact.get(name.as_str()),
            Some(HostPattern::Wildcard(suffix)) => self.wildcard.get(suffix.as_str()),
        };
        let Some((method, earlier)) = tree.and_then(|tree| tree.value(path)).and_then(|taken| taken.clash(methods))
        else {
            return Ok(());
        };
        let method = method.map_or("any method", Method::as_str);
        let what = match host {
            None => format!("{path} on any host, {method},"),
            Some(host) => format!("{path} on {host}, {method},"),
        };
        Err(AddError::Duplicate { what, earlier })
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl Methods {
    fn insert(&mut self, methods: &[Method], index: usize) {
        if methods.is_empty() {
            self.any = Some(index);
        }
        for method in methods {
            if self.named(method).is_none() {
                self.named.push((method.clone(), index));
            }
        }
    }

    fn named(&self, method: &Method) -> Option<usize> {
        self.named.iter().find(|(known, _)| known == method).map(|&(_, index)| index)
    }

    fn pick(&self, method: &Method) -> Option<usize> {
        if self.named.is_empty() {
            return self.any;
        }
        let stand_in = || self.named.iter().find(|(own, _)| takes(own, method)).map(|&(_, index)| index);
        self.named(method).or_else(stand_in).or(self.any)
    }

    /// The first method that is already taken (`None` = any method), and by which route.
    fn clash<'m>(&self, methods: &'m [Method]) -> Option<(Option<&'m Method>, usize)> {
        if methods.is_empty() {
            return self.any.map(|index| (None, index));
        }
        methods.iter().find_map(|method| self.named(method).map(|index| (Some(method), index)))
    }

    fn list(&self, allow: &mut Vec<Method>) {
        for (method, _) in &self.named {
            let head = takes(method, &Method::HEAD).then_some(&Method::HEAD);
            for method in [method].into_iter().chain(head) {
                if !allow.contains(method) {
                    allow.push(method.clone());
                }
            }
        }
    }
}

/// Whether a route that names the method `own` takes a request with `method`.
pub fn takes(own: &Method, method: &Method) -> bool {
    own == method || (*method == Method::HEAD && *own == Method::GET)
}

/// One `None` stands for any host.
fn parse_hosts(hosts: &[String]) -> Result<Vec<Option<HostPattern>>, AddError> {
    if hosts.is_empty() {
        return Ok(vec![None]);
    }
    let parse = |text: &String| match HostPattern::parse(text) {
        Ok(host) => Ok(Some(host)),
        Err(source) => Err(AddError::Host { text: text.clone(), source }),
    };
    hosts.iter().map(parse).collect()
}

fn parse_paths(paths: &[String]) -> Result<Vec<PathPattern>, AddError> {
    if paths.is_empty() {
        return Err(AddError::NoPath);
    }
    let parse =
        |text: &String| PathPattern::parse(text).map_err(|source| AddError::Path { text: text.clone(), source });
    paths.iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
