//! Which part of a file a `Range` asks for (RFC 9110, section 14.2).
//!
//! One well-formed range of bytes is heard. Anything else is ignored, as a server may ignore any range and must ignore
//! units that it does not know: several ranges, too, whose answer would be in pieces.

use http::HeaderValue;

/// What of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// From the first byte to the last, both included.
    Part(u64, u64),
    /// Nothing that there is.
    Beyond,
}

impl Extent {
    /// Of a file of `length` bytes.
    pub(super) fn of(field: &[u8], length: u64) -> Self {
        let Some((first, last)) = single(field) else { return Self::Whole };
        let (first, last) = match (first, last) {
            (Some(first), Some(last)) if last < first => return Self::Whole,
            (Some(first), last) => (first, last.unwrap_or(u64::MAX)),
            (None, Some(suffix)) => (length.saturating_sub(suffix), u64::MAX),
            (None, None) => return Self::Whole,
        };
        match length.checked_sub(1) {
            Some(end) if first <= end => Self::Part(first, last.min(end)),
            // All that there is: no `Content-Range` can say so of an empty file.
            None if first == 0 => Self::Whole,
            _ => Self::Beyond,
        }
    }

    /// The same as a field, in a form that no reader of ranges takes for another; `None` when there is nothing to say.
    pub(super) fn field(self) -> Option<HeaderValue> {
        let text = match self {
            Self::Whole => return None,
            Self::Part(first, last) => format!("bytes={first}-{last}"),
            // Also of a file that has grown meanwhile.
            Self::Beyond => format!("bytes={}-", u64::MAX),
        };
        HeaderValue::try_from(text).ok()
    }
}

/// The two numbers of the only range of a field, if it is one of bytes and well-formed so far.
fn single(field: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = std::str::from_utf8(field).ok()?.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    Some((position(first)?, position(last)?))
}

/// `Some(None)` where it is left out. A number that is too large stands behind the end of any file.
fn position(digits: &str) -> Option<Option<u64>> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::Extent::{Beyond, Part, Whole};
    use super::*;

    fn of_ten(field: &str) -> Extent {
        Extent::of(field.as_bytes(), 10)
    }

    #[test]
    fn one_range_is_a_part_as_far_as_there_is_a_file() {
        assert_eq!(of_ten("bytes=2-4"), Part(2, 4));
        assert_eq!(of_ten("bytes=9-9"), Part(9, 9));
        assert_eq!(of_ten("bytes=7-"), Part(7, 9));
        assert_eq!(of_ten("bytes=7-10"), Part(7, 9));
        assert_eq!(of_ten("bytes=0-99999999999999999999"), Part(0, 9));
        assert_eq!(of_ten("bytes=-2"), Part(8, 9));
        assert_eq!(of_ten("bytes=-10"), Part(0, 9));
        assert_eq!(of_ten("bytes=-100"), Part(0, 9));
        assert_eq!(of_ten("bytes=-99999999999999999999"), Part(0, 9));
    }

    #[test]
    fn a_unit_has_no_case_and_a_number_may_begin_with_zeros() {
        assert_eq!(of_ten("BYTES=002-004"), Part(2, 4));
    }

    #[test]
    fn what_begins_behind_the_end_cannot_be_had() {
        for field in ["bytes=10-", "bytes=10-10", "bytes=20-30", "bytes=99999999999999999999-", "bytes=-0"] {
            assert_eq!(of_ten(field), Beyond, "{field}");
        }
        assert_eq!(Extent::of(b"bytes=1-", 0), Beyond);
    }

    #[test]
    fn an_empty_file_is_whole_from_its_beginning() {
        for field in ["bytes=0-", "bytes=0-0", "bytes=-5"] {
            assert_eq!(Extent::of(field.as_bytes(), 0), Whole, "{field}");
        }
    }

    #[test]
    fn anything_else_is_ignored() {
        let fields = [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=1-2-3",
            "bytes=0x1-2",
            "bytes= 1-2",
            "bytes =1-2",
            "bytes=1 - 2",
            "bytes=0-1,4-5",
            "bytes=0-1, 4-5",
            "lines=1-2",
            "=1-2",
            "1-2",
        ];
        for field in fields {
            assert_eq!(of_ten(field), Whole, "{field}");
        }
        assert_eq!(Extent::of(b"bytes=1-\xff", 10), Whole);
    }

    #[test]
    fn it_is_told_in_one_form() {
        assert_eq!(Whole.field(), None);
        assert_eq!(Part(2, 4).field().unwrap(), "bytes=2-4");
        for length in [0, 10, u64::MAX] {
            assert_eq!(Extent::of(Beyond.field().unwrap().as_bytes(), length), Beyond, "{length}");
        }
    }
}
