//! How errors read aloud, the operating system's refusals among them.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// The reason alone, lower case, without Rust's `(os error 13)`.
pub fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let mut letters = text.chars();
            letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
        }
    }
}

/// Whether there is no room left to write: a full disk, or a quota that is used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether no descriptor or memory is left for a socket (socket(2), accept(2)). That no local port is left is another
/// matter: it looks like an address that this machine cannot reach at all.
pub fn is_shortage(error: &io::Error) -> bool {
    const ALL: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| ALL.contains(&errno))
}

/// What an error says, and its causes after it. One that is in the text already is not said twice.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    without_links(without_codes(text))
}

/// Without the page of documentation for programmers that rustls names (`…: https://docs.rs/rustls/…`).
fn without_links(mut text: String) -> String {
    const MARK: &str = ": https://docs.rs/";
    while let Some(start) = text.find(MARK) {
        let rest = start + MARK.len();
        let end = text[rest..].find(char::is_whitespace).map_or(text.len(), |length| rest + length);
        text.replace_range(start..end, "");
    }
    text
}

/// Without Rust's `(os error 111)`, which says nothing that the words before it do not.
fn without_codes(mut text: String) -> String {
    const MARK: &str = " (os error ";
    while let Some(start) = text.find(MARK) {
        let Some(length) = text[start..].find(')') else { break };
        text.replace_range(start..=start + length, "");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    /// Says its cause itself if `says_it`.
    #[derive(Debug)]
    struct Layer {
        says_it: bool,
        cause: Box<dyn Error>,
    }

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.says_it {
                true => write!(f, "outer: {}", self.cause),
                false => f.write_str("middle"),
            }
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.cause)
        }
    }

    #[test]
    fn what_this_machine_lacks_is_told_apart() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(is_shortage(&errno.into()), "{errno}");
        }
        for errno in [Errno::CONNREFUSED, Errno::TIMEDOUT, Errno::NETUNREACH, Errno::ADDRNOTAVAIL, Errno::NOENT] {
            assert!(!is_shortage(&errno.into()), "{errno}");
        }
        assert!(!is_shortage(&io::Error::other("no number")));
    }

    #[test]
    fn every_cause_is_said_once() {
        let middle = Layer { says_it: false, cause: Box::new(io::Error::other("inner")) };
        let outer = Layer { says_it: true, cause: Box::new(middle) };
        assert_eq!(with_causes(&outer), "outer: middle: inner");
        let refused = Layer { says_it: true, cause: Box::new(io::Error::from_raw_os_error(111)) };
        assert_eq!(with_causes(&refused), "outer: Connection refused");
        let link = "no close_notify: https://docs.rs/rustls/latest/rustls/manual/index.html#unexpected-eof";
        let closed = Layer { says_it: true, cause: Box::new(io::Error::other(link)) };
        assert_eq!(with_causes(&closed), "outer: no close_notify");
    }
}
