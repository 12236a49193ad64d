//! Single values that occur all over the file.

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::super::document::Path;
use super::super::model::{Rate, Secret, StatusRanges};
use super::super::problem::Problem;
use super::super::{duration, problem, rate, raw, size};
use super::Check;
use super::address::port_number;

/// Names end up in file names, metrics and URLs.
const NAME_CHARS_MAX: usize = 100;

impl Check<'_> {
    /// Zero is fine.
    pub(super) fn duration(&mut self, raw: &raw::Duration, at: &Path) -> Duration {
        duration::parse(&raw.0).unwrap_or_else(|error| {
            self.refuse_sentence(at, &raw.0, &error);
            Duration::from_secs(1)
        })
    }

    pub(super) fn duration_above_zero(&mut self, raw: &raw::Duration, at: &Path) -> Duration {
        let duration = self.duration(raw, at);
        if duration.is_zero() {
            self.refuse(at, &raw.0, "must be above zero", "write how long it may take, such as \"10s\"");
        }
        duration
    }

    /// Refuses the first of two keys where it is shorter than the second, unless one was refused: it stands at some default.
    pub(super) fn no_shorter(
        &mut self,
        (key, duration, raw): (&str, Duration, &raw::Duration),
        (least_key, least, raw_least): (&str, Duration, &raw::Duration),
        at: &Path,
    ) {
        let place = at.key(key);
        if duration < least && !self.is_refused(&place) && !self.is_refused(&at.key(least_key)) {
            let message = format!("is below {least_key}, {}", raw_least.0);
            self.refuse(&place, &raw.0, message, format!("make {key} at least as long as {least_key}"));
        }
    }

    /// `None` when it can't be read, which has been told then.
    pub(super) fn size(&mut self, raw: &raw::Size, at: &Path) -> Option<u64> {
        match raw {
            raw::Size::Bytes(bytes) => Some(*bytes),
            raw::Size::Text(text) => size::parse(text).map_err(|error| self.refuse_sentence(at, text, &error)).ok(),
        }
    }

    /// A size that must fit in memory, and be at least `low` bytes.
    pub(super) fn memory(&mut self, raw: &raw::Size, low: u64, at: &Path) -> usize {
        let Some(bytes) = self.size(raw, at) else { return 1 };
        let fits = u32::try_from(bytes).is_ok();
        if bytes < low || !fits {
            let help = format!("write a size from \"{}\" to \"4095MiB\"", size::format(low));
            let problem = Problem::new(at.as_str(), "is out of range").with_help(help);
            self.problems.push(match raw {
                raw::Size::Bytes(bytes) => problem.with_value(bytes.to_string()),
                raw::Size::Text(text) => problem.with_text(text),
            });
        }
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn rate(&mut self, raw: &raw::Rate, at: &Path) -> Rate {
        rate::parse(&raw.0).unwrap_or_else(|error| {
            self.refuse_sentence(at, &raw.0, &error);
            Rate { count: NonZeroU32::MIN, period: Duration::from_secs(1) }
        })
    }

    /// An error of the small parsers is a message and, after a colon, a remedy.
    fn refuse_sentence(&mut self, at: &Path, value: &str, sentence: &str) {
        let (message, help) = sentence.split_once(": ").expect("each of them says what to do");
        self.refuse(at, value, message, help);
    }

    /// CIDRs; a bare address stands for itself.
    pub(super) fn cidrs(&mut self, raw: &[String], at: &Path) -> Vec<IpNet> {
        let each = raw.iter().enumerate();
        each.filter_map(|(index, text)| self.cidr(text, &at.index(index))).collect()
    }

    fn cidr(&mut self, text: &str, at: &Path) -> Option<IpNet> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(IpNet::from(address));
        }
        match text.parse::<IpNet>() {
            Ok(net) => {
                if net != net.trunc() {
                    let help = format!("it means {}", net.trunc());
                    self.warn(at, format!("{text} has bits set behind its prefix"), help);
                }
                Some(net.trunc())
            }
            Err(_) => {
                self.refuse(
                    at,
                    text,
                    "not an address range",
                    "write a CIDR such as \"10.0.0.0/8\", \"2001:db8::/32\" or a single address",
                );
                None
            }
        }
    }

    pub(super) fn header_name(&mut self, text: &str, at: &Path) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(text.as_bytes()).ok();
        if name.is_none() {
            self.refuse(at, text, "not a header name", "use letters, digits and dashes, such as \"X-Request-Id\"");
        }
        name
    }

    pub(super) fn header_value(&mut self, text: &str, at: &Path) -> Option<HeaderValue> {
        let value = HeaderValue::from_str(text).ok();
        if value.is_none() {
            self.refuse_place(at, "not a header value", "take out line breaks and control characters");
        }
        value
    }

    pub(super) fn methods(&mut self, raw: &[String], at: &Path) -> Vec<Method> {
        let each = raw.iter().enumerate();
        each.filter_map(|(index, text)| self.method(text, &at.index(index))).collect()
    }

    pub(super) fn method(&mut self, text: &str, at: &Path) -> Option<Method> {
        let upper = text.to_ascii_uppercase();
        match Method::from_bytes(text.as_bytes()) {
            // A token as others are (RFC 9110, section 5.6.2), and no method: a wildcard is meant.
            Ok(_) if text == "*" => {
                let help = "write each by its name, such as \"GET\": a route without any takes all";
                self.refuse(at, text, "not a method", help);
                None
            }
            Ok(method) if upper == text => Some(method),
            Ok(_) => {
                self.refuse(at, text, "methods are upper case", format!("write \"{upper}\""));
                None
            }
            Err(_) => {
                self.refuse(at, text, "not a method", "write one such as \"GET\" or \"POST\"");
                None
            }
        }
    }

    /// `"200-399"` or `"200,204,301-303"`.
    pub(super) fn statuses(&mut self, text: &str, at: &Path) -> StatusRanges {
        let ranges: Option<Vec<_>> = text.split(',').map(|part| status_range(part.trim())).collect();
        StatusRanges(ranges.unwrap_or_else(|| {
            let help = match text.as_bytes() {
                [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
                    format!("write \"{0}00-{0}99\"", char::from(*class))
                }
                _ => "write statuses from 100 to 599, low to high, such as \"200-399\" or \"200,204\"".to_owned(),
            };
            self.refuse(at, text, "not a list of statuses", help);
            Vec::new()
        }))
    }

    /// The schema has kept `code` within 100 and 599.
    pub(super) fn status(&mut self, code: u16, at: &Path) -> StatusCode {
        StatusCode::from_u16(code).unwrap_or_else(|_| {
            let problem = Problem::new(at.as_str(), "not a status").with_help("write one from 100 to 599");
            self.problems.push(problem.with_value(code.to_string()));
            StatusCode::OK
        })
    }

    /// Empty = none. A secret is never shown, so neither is a wrong one.
    pub(super) fn secret(&mut self, text: &str, at: &Path) -> Option<Secret> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.refuse_place(
                at,
                "has a character that cannot be sent",
                "use visible ASCII without spaces (a line break at the end of a variable is the usual cause)",
            );
        }
        (!text.is_empty()).then(|| Secret(text.to_owned()))
    }

    /// A URL with one of `schemes`; it may hold a password, so it is not shown.
    pub(super) fn url(&mut self, text: &str, schemes: &[&str], at: &Path) {
        let parsed = text.parse::<http::Uri>().ok();
        let good = parsed.as_ref().is_some_and(|uri| {
            uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !good {
            let starts: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
            let help =
                format!("write a whole URL that starts with {}", problem::one_of(starts.iter().map(String::as_str)));
            self.refuse_place(at, if text.is_empty() { "is empty" } else { "not such a URL" }, help);
        } else if !parsed.as_ref().is_some_and(has_usable_port) {
            // It is not there for whoever connects, who would take the scheme's own.
            self.refuse_place(at, "has no such port", "write one from 1 to 65535");
        }
    }

    /// From the folder of the file.
    pub(super) fn path(&mut self, text: &str, at: &Path) -> PathBuf {
        self.path_below(self.folder, text, at)
    }

    /// One that is relative to another folder than the configuration's.
    pub(super) fn path_below(&mut self, folder: &std::path::Path, text: &str, at: &Path) -> PathBuf {
        if text.contains('\0') {
            self.refuse(at, text, "not a path", "take out the NUL character");
        }
        folder.join(text)
    }

    /// A path that must be given, to a file whose content the configuration depends on.
    pub(super) fn file_path(&mut self, text: &str, at: &Path) -> PathBuf {
        if text.is_empty() {
            self.missing(at, "name a PEM file");
        }
        let path = self.path(text, at);
        self.files.push(path.clone());
        path
    }

    /// The rules for every name that people give: they become file names, labels and parts of URLs.
    pub(super) fn name(&mut self, text: &str, at: &Path) {
        if text.is_empty() {
            return self.missing(at, "give it a name");
        }
        let bad = |c: char| c.is_control() || is_direction(c) || c == '/' || c == '\\';
        if text.starts_with('.') || text.contains(bad) || text.trim() != text || text.chars().count() > NAME_CHARS_MAX {
            self.refuse(
                at,
                text,
                "cannot be a name",
                "leave out \"/\", \"\\\", line breaks and marks of direction, and a \".\" or a space at its beginning; 100 characters at most",
            );
        }
    }
}

/// None is usable too, as is an empty one (RFC 3986, section 3.2.3).
fn has_usable_port(uri: &http::Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let behind_host = authority.rsplit(['@', ']']).next().unwrap_or_default();
    let port = behind_host.rsplit_once(':').map_or("", |(_, port)| port);
    port.is_empty() || port_number(port).is_some_and(|port| port > 0)
}

/// Turns the text around it: what is shown is then another name than what is meant (Unicode, UAX 9, section 2).
fn is_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn status_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| match text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().ok().filter(|code| (100..=599).contains(code)),
        false => None,
    };
    let (low, high) = (status(low.trim())?, status(high.trim())?);
    (low <= high).then_some((low, high))
}

/// Where the schema has refused zero already.
pub(super) fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// As [`at_least_one`], for counts of things in memory.
pub(super) fn at_least_one_thing(number: u32) -> NonZeroUsize {
    usize::try_from(number).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

/// A token in the sense of RFC 6265, section 4.1.1.
pub(super) fn is_cookie_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
