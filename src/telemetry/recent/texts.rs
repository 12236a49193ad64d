//! A few short texts in one piece of memory.

/// How long each may be.
pub(super) const BYTES_MAX: usize = 256;

/// What is text of a [`Failed`](super::Failed).
#[derive(Clone, Copy, Debug)]
pub enum Text {
    RequestId,
    TraceId,
    Method,
    Host,
    /// As the client sent it, perhaps cut short.
    Target,
    Route,
    /// The `Flagstone-Reason`; absent = the app's own answer, or the client left.
    Reason,
    /// The limit, feature, breaker or route's flag that decided.
    DecidedBy,
    Upstream,
    Endpoint,
}

const TEXTS: usize = Text::Endpoint as usize + 1;

/// One of each, there or not, that are filled again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    joined: String,
    spans: [Option<Span>; TEXTS],
}

/// Where a text stands, in bytes. Ten of 256 bytes, or thrice that where none of it is UTF-8, are far below 64 KiB.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u16,
    end: u16,
}

impl Texts {
    pub(super) fn at(&self, which: Text) -> Option<&str> {
        self.spans[which as usize].map(|span| &self.joined[span.start.into()..span.end.into()])
    }

    pub(super) fn clear(&mut self) {
        self.joined.clear();
        self.spans = [None; TEXTS];
    }

    /// One that is not there yet, cut short if need be.
    #[inline]
    pub(super) fn put(&mut self, which: Text, text: Option<&str>) {
        let Some(text) = text else { return };
        if text.len() > BYTES_MAX {
            return self.put_bytes(which, std::iter::once(text.as_bytes()));
        }
        let start = self.joined.len();
        self.joined.push_str(text);
        self.span(which, start);
    }

    /// The same, of `pieces` that need not be UTF-8; of none, it is not there.
    pub(super) fn put_bytes<'a>(&mut self, which: Text, pieces: impl IntoIterator<Item = &'a [u8]>) {
        let start = self.joined.len();
        for piece in pieces {
            let room = BYTES_MAX.saturating_sub(self.joined.len() - start);
            let piece = &piece[..piece.len().min(room)];
            // Nearly all of it is ASCII, which is seen to eight bytes at a time here, and byte by byte there.
            match std::str::from_utf8(piece) {
                Ok(text) => self.joined.push_str(text),
                Err(_) => self.joined.push_str(&String::from_utf8_lossy(piece)),
            }
            self.span(which, start);
        }
    }

    fn span(&mut self, which: Text, start: usize) {
        let at = |byte: usize| u16::try_from(byte).expect("texts are cut");
        self.spans[which as usize] = Some(Span { start: at(start), end: at(self.joined.len()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: [Text; 4] = [Text::RequestId, Text::Route, Text::Method, Text::Target];

    #[test]
    fn each_is_told_from_the_others_and_from_none() {
        let mut texts = Texts::default();
        texts.put(Text::Method, Some("first"));
        texts.put(Text::RequestId, Some(""));
        texts.put_bytes(Text::Target, [b"a=".as_slice(), b"\xff", "ü".as_bytes()]);
        assert_eq!(SOME.map(|which| texts.at(which)), [Some(""), None, Some("first"), Some("a=\u{fffd}ü")]);
        texts.clear();
        texts.put(Text::Route, None);
        assert_eq!(SOME.map(|which| texts.at(which)), [None; 4]);
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let mut texts = Texts::default();
        let long = format!("{}ü and more", "x".repeat(BYTES_MAX - 1));
        texts.put(Text::Route, Some(&long));
        texts.put_bytes(Text::Target, [long.as_bytes(), b"and this"]);
        let expected = format!("{}\u{fffd}", "x".repeat(BYTES_MAX - 1));
        assert_eq!([Text::Route, Text::Target].map(|which| texts.at(which)), [Some(expected.as_str()); 2]);
    }

    #[test]
    fn the_longest_there_can_be_have_room() {
        let mut texts = Texts::default();
        let all = [
            [Text::RequestId, Text::TraceId, Text::Method, Text::Host, Text::Target],
            [Text::Route, Text::Reason, Text::DecidedBy, Text::Upstream, Text::Endpoint],
        ];
        for which in all.concat() {
            texts.put_bytes(which, [[0xff; 1_000].as_slice()]);
        }
        assert_eq!(texts.at(Text::Endpoint).map(|text| text.chars().count()), Some(BYTES_MAX));
        assert_eq!(all.concat().len(), TEXTS);
    }
}
