//! `traceparent`: which trace a request belongs to (W3C Trace Context, levels 1 and 2).
//!
//! ```text
//! 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//! version  trace id                    parent id        flags
//! ```
//!
//! A version that is not known is read by the rules of the newest that is (section 4.3); what is written is version 00.
//! Whatever breaks a rule is no `traceparent` at all, and then its `tracestate` is worth nothing either. `tracestate`
//! itself is not looked into: it is other systems' own, and goes on as it came.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::hexadecimal;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Of version 00; a later one may be longer.
const LENGTH: usize = 55;
/// The trace is recorded by whoever asks here (section 3.2.2.5.1).
const SAMPLED: u8 = 0x01;
/// The trace's id was drawn at random, at least its last seven bytes (level 2, section 3.2.2.5.2).
const RANDOM: u8 = 0x02;
/// The part of a trace's id that level 2 asks to be random.
const RANDOM_BITS: u32 = 56;

/// A place in a trace: the trace, and one span of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// What a request's headers say; `None` when they say nothing that holds: no `traceparent`, several, or a malformed
    /// one.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => Self::parse(line.as_bytes()),
            _ => None,
        }
    }

    /// Reads the value of a `traceparent`; blanks around it are none of it (RFC 9110, section 5.5).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (text, rest) = value.split_at_checked(LENGTH)?;
        if [text[2], text[35], text[52]] != [b'-'; 3] {
            return None;
        }
        let version = hexadecimal(&text[..2])?;
        let is_complete = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|&byte| byte == b'-'),
        };
        let (trace_id, span_id) = (hexadecimal(&text[3..35])?, hexadecimal(&text[36..52])?);
        let flags = hexadecimal(&text[53..])?;
        if !is_complete || trace_id == 0 || span_id == 0 {
            return None;
        }
        // Flags that are not known are not passed on (section 3.2.2.5.3).
        let flags = u8::try_from(flags).ok()? & (SAMPLED | RANDOM);
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, flags })
    }

    /// The beginning of a trace, from random numbers. Its id decides whether it is sampled, so that all who know the
    /// share decide alike.
    pub fn begin(trace_id: u128, span_id: u64, share: Share) -> Self {
        let (trace_id, span_id) = (trace_id.max(1), span_id.max(1));
        let flags = if share.has(trace_id) { RANDOM | SAMPLED } else { RANDOM };
        Self { trace_id, span_id, flags }
    }

    /// Another span of the same trace, sampled as this one is.
    pub fn child(self, span_id: u64) -> Self {
        Self { span_id: span_id.max(1), ..self }
    }

    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Never 0.
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// Never 0.
    pub fn span_id(self) -> u64 {
        self.span_id
    }

    pub fn flags(self) -> u8 {
        self.flags
    }

    /// The value of `traceparent`.
    pub fn value(self) -> HeaderValue {
        HeaderValue::from_str(&self.to_string()).expect("hexadecimal digits and hyphens are a header value")
    }

    /// The trace's id as people and other systems write it.
    pub fn trace_id_text(self) -> [u8; 32] {
        hexadecimal::digits(self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// The share of traces that are sampled, as the first number that is (of those of 56 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// `share` is from 0 (none) to 1 (all).
    pub fn new(share: f64) -> Self {
        let all = (1u64 << RANDOM_BITS) as f64;
        Self(((1.0 - share.clamp(0.0, 1.0)) * all) as u64)
    }

    fn has(self, trace_id: u128) -> bool {
        let drawn = (trace_id & ((1 << RANDOM_BITS) - 1)) as u64;
        drawn >= self.0
    }
}

/// Lower-case digits only, as the rules have it.
fn hexadecimal(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<String> {
        TraceContext::parse(text.as_bytes()).map(|context| context.to_string())
    }

    #[test]
    fn what_is_well_formed_is_read() {
        let context = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert!(context.is_sampled());
        assert_eq!((context.trace_id(), context.span_id()), (0x4bf92f3577b34da6a3ce929d0e0e4736, 0x00f067aa0ba902b7));
        assert_eq!(context.trace_id_text(), *b"4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.value(), GOOD);
        assert_eq!(parse(&format!(" {GOOD}\t")).as_deref(), Some(GOOD));
    }

    #[test]
    fn flags_that_are_not_known_are_not_passed_on() {
        for (flags, passed) in [("00", "00"), ("02", "02"), ("03", "03"), ("ff", "03"), ("fc", "00"), ("09", "01")] {
            let text = format!("{}{flags}", &GOOD[..53]);
            assert_eq!(parse(&text), Some(format!("{}{passed}", &GOOD[..53])));
        }
    }

    #[test]
    fn a_later_version_is_read_by_what_is_known() {
        for version in ["01", "cc", "fe"] {
            let text = format!("{version}{}", &GOOD[2..]);
            assert_eq!(parse(&text).as_deref(), Some(GOOD), "{text}");
            assert_eq!(parse(&format!("{text}-what-comes-later")).as_deref(), Some(GOOD));
            assert_eq!(parse(&format!("{text}-")).as_deref(), Some(GOOD));
            assert_eq!(parse(&format!("{text}.later")), None);
        }
    }

    /// Also what the W3C's own test suite sends.
    #[test]
    fn what_breaks_a_rule_is_none() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for text in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &format!("ff-{trace}-{span}-01"),
            &format!("0-{trace}-{span}-01"),
            &format!("000-{trace}-{span}-01"),
            &format!("0x-{trace}-{span}-01"),
            &format!(".0-{trace}-{span}-01"),
            &format!("00-{}-{span}-01", "0".repeat(32)),
            &format!("00-{trace}-{}-01", "0".repeat(16)),
            &format!("00-{}-{span}-01", trace.to_uppercase()),
            &format!("00-{trace}-{}-01", span.to_uppercase()),
            &format!("00-{}.-{span}-01", &trace[1..]),
            &format!("00-{}-{span}-01", &trace[1..]),
            &format!("00-{trace}0-{span}-01"),
            &format!("00-{trace}-{}-01", &span[1..]),
            &format!("00-{trace}-{span}0-01"),
            &format!("00-{trace}-{span}-1"),
            &format!("00-{trace}-{span}-001"),
            &format!("00-{trace}-{span}-.0"),
            &format!("00-{trace}-{span}-0A"),
            &format!("00_{trace}-{span}-01"),
            &format!("00-{trace}_{span}-01"),
            &format!("00-{trace}-{span}_01"),
            &format!("{GOOD}, {GOOD}"),
            &format!("\"{GOOD}\""),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn of_several_none_holds() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(TraceContext::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::of(&headers), None);
    }

    #[test]
    fn none_all_and_a_share_are_sampled() {
        let sampled = |id: u128, share: f64| TraceContext::begin(id, 1, Share::new(share)).is_sampled();
        for id in [0, 1, u128::MAX, (1 << 56) - 1, 1 << 56] {
            assert!(!sampled(id, 0.0) && sampled(id, 1.0), "{id:x}");
        }
        assert!(sampled((1 << 56) - 1, 1e-9) && !sampled(1 << 55, 0.25) && sampled(3 << 54, 0.25));
    }

    #[test]
    fn a_trace_that_begins_is_never_zero() {
        let context = TraceContext::begin(0, 0, Share::new(0.0));
        assert_eq!(context.to_string(), format!("00-{:032x}-{:016x}-02", 1, 1));
        assert_eq!(context.child(0).span_id(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace_id in any::<u128>(), span_id in any::<u64>(), share in 0.0..=1.0) {
            let context = TraceContext::begin(trace_id, span_id, Share::new(share));
            prop_assert_eq!(TraceContext::parse(context.value().as_bytes()), Some(context));
        }

        /// Whatever comes: no panic, and what is made of it is well formed and says the same.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = TraceContext::parse(&bytes) {
                prop_assert_eq!(TraceContext::parse(context.value().as_bytes()), Some(context));
            }
        }

        /// One byte that is not what it was makes it another one that is well formed, or none.
        #[test]
        fn a_changed_byte_never_passes_unseen(at in 0..LENGTH, byte in any::<u8>()) {
            let mut changed = GOOD.as_bytes().to_vec();
            changed[at] = byte;
            if let Some(context) = TraceContext::parse(&changed) {
                let is_version = at < 2;
                let text = context.to_string();
                prop_assert!(is_version || at >= 53 || text.as_bytes() == changed, "{}", text);
            }
        }

        #[test]
        fn the_share_is_kept(share in 0.05..0.95) {
            let share_of = Share::new(share);
            let ids = (0..2_000u128).map(|id| id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            let count = ids.filter(|id| share_of.has(*id)).count();
            prop_assert!((count as f64 / 2_000.0 - share).abs() < 0.05, "{} of 2000 at {}", count, share);
        }
    }
}
