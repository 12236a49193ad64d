//! A route's path, and sets of them: `/api` is that path and what is below it, `=/exact` only that one.
//!
//! Patterns are brought into the form that normalised request paths have, so that a pattern written with a space,
//! another script or `%7e` matches what it looks like. What no normalised path can contain is refused rather than
//! left to never match. This module does not normalise requests.

use std::fmt;

use percent_encoding::percent_encode_byte;

use super::tree::Tree;

/// One path as a route names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: String,
    exact: bool,
}

/// Why a text is not a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    #[error("a path starts with `/`, or with `=/` for that path only")]
    NoSlash,
    #[error("`//` never occurs in a normalised path")]
    EmptySegment,
    #[error("`.` and `..` segments never occur in a normalised path")]
    DotSegment,
    #[error("requests with a parameter behind `.` or `..` are refused, so this would never match")]
    DotParameter,
    #[error("`*` is no wildcard here; `/api` already covers what is below it")]
    Star,
    #[error("{0:?} cannot stand in a path")]
    Character(char),
    #[error("`%` is not followed by two hexadecimal digits")]
    BadEscape,
    #[error("requests with an encoded slash, backslash or NUL are refused, so this would never match")]
    RefusedEscape,
}

impl PathPattern {
    /// Reads `/api` or `=/exact`.
    ///
    /// # Errors
    /// When no normalised request path could match.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        let (exact, path) = match text.strip_prefix('=') {
            Some(path) => (true, path),
            None => (false, text),
        };
        if !path.starts_with('/') {
            return Err(PathPatternError::NoSlash);
        }
        if path.ends_with("/*") {
            return Err(PathPatternError::Star);
        }
        let text = canonical(path)?;
        check_segments(&text)?;
        Ok(Self { text, exact })
    }

    /// Whether a normalised path is covered.
    pub fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(self.text.as_str()) {
            Some("") => true,
            Some(rest) => !self.exact && (rest.starts_with('/') || self.text.ends_with('/')),
            None => false,
        }
    }

    /// The path in normalised form, without the `=`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether only the very path matches.
    pub fn is_exact(&self) -> bool {
        self.exact
    }
}

/// As it would be written in the file.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.exact { "=" } else { "" }, self.text)
    }
}

/// Many patterns, asked at once; the time depends on the path's length, not on their number.
#[derive(Clone, Debug, Default)]
pub struct PathSet {
    tree: Tree<()>,
}

impl PathSet {
    /// Reads patterns in the syntax of a route's paths.
    ///
    /// # Errors
    /// The first text that is no pattern, and why.
    pub fn parse<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self, (String, PathPatternError)> {
        let mut set = Self::default();
        for text in texts {
            let text = text.as_ref();
            let pattern = PathPattern::parse(text).map_err(|error| (text.to_owned(), error))?;
            *set.tree.slot(&pattern) = Some(());
        }
        Ok(set)
    }

    /// Whether any pattern covers this normalised path.
    pub fn contains(&self, path: &str) -> bool {
        !self.tree.is_empty() && !self.tree.matches(path).is_empty()
    }
}

/// Escapes in the one form that a normalised path uses (RFC 3986, section 6.2.2).
fn canonical(path: &str) -> Result<String, PathPatternError> {
    let mut out = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => {
                let high = chars.next().and_then(|c| c.to_digit(16)).ok_or(PathPatternError::BadEscape)?;
                let low = chars.next().and_then(|c| c.to_digit(16)).ok_or(PathPatternError::BadEscape)?;
                push_escaped(&mut out, (high * 16 + low) as u8)?;
            }
            '?' | '#' | '\\' => return Err(PathPatternError::Character(c)),
            c if c.is_ascii_control() => return Err(PathPatternError::Character(c)),
            c if c.is_ascii() && is_pchar_or_slash(c as u8) => out.push(c),
            c => {
                for &byte in c.encode_utf8(&mut [0; 4]).as_bytes() {
                    out.push_str(percent_encode_byte(byte));
                }
            }
        }
    }
    Ok(out)
}

fn push_escaped(out: &mut String, byte: u8) -> Result<(), PathPatternError> {
    match byte {
        b'/' | b'\\' | 0 => return Err(PathPatternError::RefusedEscape),
        b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => out.push(b as char),
        b => out.push_str(percent_encode_byte(b)),
    }
    Ok(())
}

fn is_pchar_or_slash(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

/// `..;` and the like; escapes are in upper case by now.
fn has_dot_parameter(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}

fn check_segments(path: &str) -> Result<(), PathPatternError> {
    if path.contains("//") {
        return Err(PathPatternError::EmptySegment);
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(PathPatternError::DotSegment);
    }
    if path.split('/').any(has_dot_parameter) {
        return Err(PathPatternError::DotParameter);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let cases = [
            ("/api", "/api", true),
            ("/api", "/api/", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/api", "/ap", false),
            ("/api", "/", false),
            ("/api/", "/api", false),
            ("/api/", "/api/x", true),
            ("/", "/", true),
            ("/", "/anything/at/all", true),
            ("=/exact", "/exact", true),
            ("=/exact", "/exact/", false),
            ("=/exact", "/exact/x", false),
            ("=/", "/", true),
            ("=/", "/x", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(PathPattern::parse(pattern).unwrap().matches(path), expected, "{pattern} {path}");
            let set = PathSet::parse([pattern]).unwrap();
            assert_eq!(set.contains(path), expected, "set of {pattern}, {path}");
        }
    }

    #[test]
    fn patterns_take_the_form_of_normalised_paths() {
        let cases = [
            ("/a b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/%c3%a9", "/%C3%A9"),
            ("/%61%7E", "/a~"),
            ("=/{x}", "=/%7Bx%7D"),
            ("/a;b@c", "/a;b@c"),
            ("/...;/.b;", "/...;/.b;"),
        ];
        for (text, expected) in cases {
            assert_eq!(PathPattern::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn patterns_that_never_match_are_refused() {
        use PathPatternError as E;
        let cases = [
            ("", E::NoSlash),
            ("api", E::NoSlash),
            ("=api", E::NoSlash),
            ("*", E::NoSlash),
            ("/api/*", E::Star),
            ("//", E::EmptySegment),
            ("/a//b", E::EmptySegment),
            ("/a/../b", E::DotSegment),
            ("/a/%2e%2E", E::DotSegment),
            ("/.", E::DotSegment),
            ("/a/..;/b", E::DotParameter),
            ("/.;x", E::DotParameter),
            ("/%2e.%3bx", E::DotParameter),
            ("/a?b", E::Character('?')),
            ("/a#b", E::Character('#')),
            ("/a\\b", E::Character('\\')),
            ("/a\nb", E::Character('\n')),
            ("/a%2fb", E::RefusedEscape),
            ("/a%5C", E::RefusedEscape),
            ("/a%00", E::RefusedEscape),
            ("/a%2", E::BadEscape),
            ("/a%zz", E::BadEscape),
            ("/a%é", E::BadEscape),
        ];
        for (text, error) in cases {
            assert_eq!(PathPattern::parse(text), Err(error), "{text}");
        }
        assert_eq!(PathSet::parse(["/ok", "bad"]).unwrap_err(), ("bad".to_owned(), E::NoSlash));
    }

    #[test]
    fn an_empty_set_contains_nothing() {
        assert!(!PathSet::default().contains("/"));
    }
}
