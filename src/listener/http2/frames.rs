//! Counts the frames of an HTTP/2 connection without reading more of them than their heads.
//!
//! Every single frame of a flood is legal, so a parser has no reason to object: empty DATA, PING, SETTINGS, PRIORITY,
//! WINDOW_UPDATE (CVE-2019-9511 to -9518), streams opened and reset at once (CVE-2023-44487), streams that we are made
//! to reset (CVE-2025-8671). What gives a flood away is that it costs the client nothing and brings it nothing. So such
//! frames are paid from a purse that fills with time and with the answers that are really sent, and resets from one that
//! fills with time and with the streams that come to their end. An empty purse ends the connection with
//! ENHANCE_YOUR_CALM (RFC 9113, section 10.5).
//!
//! Beside floods it ends what the heads alone show to be no HTTP/2: sizes that a frame cannot have, for which h2 knows
//! no better name than PROTOCOL_ERROR, and a beginning without SETTINGS, which h2 overlooks.

use std::convert::Infallible;
use std::time::{Duration, Instant};

/// The client's first bytes (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD_BYTES: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const PROTOCOL_ERROR: u32 = 0x1;
const FRAME_SIZE_ERROR: u32 = 0x6;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Frames that bring nothing, at once.
const FRAMES_MAX: u32 = 1_000;
/// And per second.
const FRAMES_FILL: u32 = 100;
/// A client that reads may tell of it, for its stream and for its connection, and measure the way there.
const EARNED_BY_DATA: u32 = 3;
/// Streams that either side may reset beyond those that came to their end, at once.
const RESETS_MAX: u32 = 200;
/// And per second: whoever seeks in a video, types into a search or calls with deadlines may do so for days.
const RESETS_FILL: u32 = 20;

/// One frame's head (RFC 9113, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn read(bytes: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        Self { length: u32::from_be_bytes([0, a, b, c]), kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }

    fn ends_stream(self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// Whether a frame of this type can be of this size (section 6). The most is h2's to check.
    fn has_a_size(self) -> bool {
        match self.kind {
            PRIORITY => self.length == 5,
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            SETTINGS if self.flags & ACK != 0 => self.length == 0,
            SETTINGS => self.length.is_multiple_of(6),
            PING => self.length == 8,
            GOAWAY => self.length >= 8,
            _ => true,
        }
    }

    fn opens_a_connection(self) -> bool {
        self.kind == SETTINGS && self.flags & ACK == 0 && self.stream == 0
    }
}

/// Finds the heads of frames in a stream of bytes.
#[derive(Debug, Default)]
struct Cursor {
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Of the frame that is under way.
    payload_left: u32,
}

impl Cursor {
    /// Goes over `bytes` and hands each head to `seen` once it is complete; an error ends it.
    fn advance<E>(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Head) -> Result<(), E>) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skipped = bytes.len().min(self.payload_left as usize);
                self.payload_left -= skipped as u32;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(HEAD_BYTES - self.head_bytes);
            self.head[self.head_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                let head = Head::read(self.head);
                self.payload_left = head.length;
                seen(head)?;
            }
        }
        Ok(())
    }

    fn is_between_frames(&self) -> bool {
        self.head_bytes == 0 && self.payload_left == 0
    }
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("too many frames that bring nothing")]
    Frames,
    #[error("too many streams reset")]
    Resets,
    #[error("a frame of a size that its type cannot have")]
    Size,
    #[error("no SETTINGS behind the preface")]
    NoSettings,
}

impl Fault {
    /// What the client is told (section 7).
    fn code(self) -> u32 {
        match self {
            Self::Frames | Self::Resets => ENHANCE_YOUR_CALM,
            Self::Size => FRAME_SIZE_ERROR,
            Self::NoSettings => PROTOCOL_ERROR,
        }
    }
}

/// Fills with time, and with what is earned.
#[derive(Debug)]
struct Purse {
    left: u32,
    max: u32,
    fill_per_second: u32,
    filled_at: Instant,
}

impl Purse {
    fn new(max: u32, fill_per_second: u32, now: Instant) -> Self {
        Self { left: max, max, fill_per_second, filled_at: now }
    }

    /// Takes one out; `None` where there is none. What time has brought is looked at only then.
    fn pay(&mut self, now: impl Fn() -> Instant) -> Option<()> {
        if self.left == 0 {
            let now = now();
            let due = u64::from(self.fill_per_second) * passed_ms(self.filled_at, now) / 1_000;
            self.left = u32::try_from(due).unwrap_or(self.max).min(self.max);
            self.filled_at = now;
        }
        self.left = self.left.checked_sub(1)?;
        Some(())
    }

    fn earn(&mut self, earned: u32) {
        self.left = (self.left + earned).min(self.max);
    }
}

/// What is known of a connection's frames.
#[derive(Debug)]
pub(super) struct Frames {
    inbound: Cursor,
    outbound: Cursor,
    preface_left: usize,
    /// The first frame has come.
    has_begun: bool,
    /// For frames that bring nothing.
    frames: Purse,
    /// For resets by either side.
    resets: Purse,
    last_stream: u32,
    /// A header block has begun and not ended.
    in_header_block: bool,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            inbound: Cursor::default(),
            outbound: Cursor::default(),
            preface_left: PREFACE.len(),
            has_begun: false,
            frames: Purse::new(FRAMES_MAX, FRAMES_FILL, now),
            resets: Purse::new(RESETS_MAX, RESETS_FILL, now),
            last_stream: 0,
            in_header_block: false,
        }
    }

    /// Looks at what the client sent. Not to be asked again after an error.
    ///
    /// # Errors
    /// It is one frame too many, or none of HTTP/2.
    pub(super) fn received(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Fault> {
        let preface = bytes.len().min(self.preface_left);
        self.preface_left -= preface;
        let Self { inbound, has_begun, frames, resets, last_stream, in_header_block, .. } = self;
        inbound.advance(&bytes[preface..], |head| {
            if !std::mem::replace(has_begun, true) && !head.opens_a_connection() {
                return Err(Fault::NoSettings);
            }
            if !head.has_a_size() {
                return Err(Fault::Size);
            }
            match head.kind {
                HEADERS => *last_stream = head.stream.max(*last_stream),
                DATA if head.length > 0 || head.ends_stream() => return Ok(()),
                RST_STREAM => return resets.pay(&now).ok_or(Fault::Resets),
                _ => {}
            }
            if matches!(head.kind, HEADERS | CONTINUATION) {
                *in_header_block = head.flags & END_HEADERS == 0;
            }
            if head.kind == HEADERS {
                return Ok(());
            }
            frames.pay(&now).ok_or(Fault::Frames)
        })
    }

    /// Looks at what was written to the client.
    ///
    /// # Errors
    /// It made us reset one stream too many.
    pub(super) fn sent(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Fault> {
        let Self { outbound, frames, resets, .. } = self;
        let mut is_one_too_many = false;
        // To the end in any case: of where it stands, `goodbye` has to know.
        let Ok(()) = outbound.advance(bytes, |head| {
            if head.ends_stream() {
                resets.earn(1);
            }
            match head.kind {
                DATA => frames.earn(EARNED_BY_DATA),
                RST_STREAM => is_one_too_many |= resets.pay(&now).is_none(),
                _ => {}
            }
            Ok::<(), Infallible>(())
        });
        if is_one_too_many { Err(Fault::Resets) } else { Ok(()) }
    }

    /// Whether the client has begun a head and owes its end.
    pub(super) fn is_in_head(&self) -> bool {
        self.in_header_block || self.preface_left > 0
    }

    /// The last words to a client that is being sent away, when they can be said: not in the middle of another frame.
    pub(super) fn goodbye(&self, fault: Fault) -> Option<[u8; 17]> {
        if !self.outbound.is_between_frames() {
            return None;
        }
        let mut frame = [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[13..].copy_from_slice(&fault.code().to_be_bytes());
        Some(frame)
    }
}

fn passed_ms(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).min(Duration::from_secs(3600)).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0, (payload >> 8) as u8, payload as u8, kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    /// A connection that began `at` with its preface.
    fn begun(at: Instant) -> Frames {
        let mut frames = Frames::new(at);
        frames.received(PREFACE, || at).unwrap();
        frames.received(&frame(SETTINGS, 0, 0, 0), || at).unwrap();
        frames.frames = Purse::new(FRAMES_MAX, FRAMES_FILL, at);
        frames
    }

    fn receive(frames: &mut Frames, bytes: &[u8], at: Instant) -> Result<(), Fault> {
        frames.received(bytes, || at)
    }

    fn send(frames: &mut Frames, bytes: &[u8], at: Instant) -> Result<(), Fault> {
        frames.sent(bytes, || at)
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let bytes =
            [frame(HEADERS, END_HEADERS, 1, 40), frame(DATA, END_STREAM, 1, 300), frame(PING, 0, 0, 8)].concat();
        for piece in 1..bytes.len() {
            let mut cursor = Cursor::default();
            let mut seen = Vec::new();
            for part in bytes.chunks(piece) {
                cursor
                    .advance(part, |head| {
                        seen.push((head.kind, head.stream, head.length));
                        Ok::<(), ()>(())
                    })
                    .unwrap();
            }
            assert_eq!(seen, [(HEADERS, 1, 40), (DATA, 1, 300), (PING, 0, 8)], "{piece}");
            assert!(cursor.is_between_frames());
        }
    }

    #[test]
    fn frames_that_bring_nothing_are_paid_from_a_purse_that_fills_again() {
        let start = Instant::now();
        for flood in [frame(PING, 0, 0, 8), frame(DATA, 0, 1, 0), frame(WINDOW_UPDATE, 0, 0, 4), frame(0xee, 0, 0, 0)] {
            for (seconds, further) in [(0, 0), (2, 2 * FRAMES_FILL)] {
                let mut frames = begun(start);
                for _ in 0..FRAMES_MAX {
                    receive(&mut frames, &flood, start).unwrap();
                }
                let later = start + Duration::from_secs(seconds);
                for _ in 0..further {
                    receive(&mut frames, &flood, later).unwrap();
                }
                assert_eq!(receive(&mut frames, &flood, later), Err(Fault::Frames));
            }
        }
    }

    #[test]
    fn a_client_that_reads_may_say_so_for_ever() {
        let now = Instant::now();
        let mut frames = begun(now);
        for _ in 0..100_000 {
            send(&mut frames, &frame(DATA, 0, 1, 100), now).unwrap();
            receive(&mut frames, &frame(WINDOW_UPDATE, 0, 1, 4), now).unwrap();
            receive(&mut frames, &frame(WINDOW_UPDATE, 0, 0, 4), now).unwrap();
            receive(&mut frames, &frame(PING, 0, 0, 8), now).unwrap();
        }
    }

    #[test]
    fn bodies_and_heads_cost_nothing() {
        let now = Instant::now();
        let mut frames = begun(now);
        for _ in 0..10_000 {
            receive(&mut frames, &frame(HEADERS, END_HEADERS, 1, 1), now).unwrap();
            receive(&mut frames, &frame(DATA, 0, 1, 1), now).unwrap();
            receive(&mut frames, &frame(DATA, END_STREAM, 1, 0), now).unwrap();
        }
    }

    #[test]
    fn resets_of_either_side_are_held_against_streams_that_end() {
        let now = Instant::now();
        let reset = frame(RST_STREAM, 0, 1, 4);
        let mut rapid = begun(now);
        for _ in 0..RESETS_MAX {
            receive(&mut rapid, &reset, now).unwrap();
        }
        assert_eq!(receive(&mut rapid, &reset, now), Err(Fault::Resets));
        let mut made = begun(now);
        for _ in 0..RESETS_MAX {
            send(&mut made, &reset, now).unwrap();
        }
        assert_eq!(send(&mut made, &reset, now), Err(Fault::Resets));
        let mut busy = begun(now);
        for _ in 0..10_000 {
            send(&mut busy, &frame(HEADERS, END_HEADERS | END_STREAM, 1, 10), now).unwrap();
            receive(&mut busy, &reset, now).unwrap();
        }
    }

    #[test]
    fn resets_that_take_their_time_may_go_on_for_ever() {
        let start = Instant::now();
        let reset = frame(RST_STREAM, 0, 1, 4);
        let mut slow = begun(start);
        let mut now = start;
        for _ in 0..10_000 {
            now += Duration::from_secs(1) / RESETS_FILL;
            receive(&mut slow, &reset, now).unwrap();
        }
        // Time that has passed saves up no more than there is at once, once.
        let flood = (0..=2 * RESETS_MAX).try_for_each(|_| receive(&mut slow, &reset, now));
        assert_eq!(flood, Err(Fault::Resets));
    }

    #[test]
    fn a_head_that_has_not_ended_is_known() {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        assert!(frames.is_in_head(), "the preface is owed");
        receive(&mut frames, PREFACE, now).unwrap();
        assert!(!frames.is_in_head());
        receive(&mut frames, &frame(SETTINGS, 0, 0, 0), now).unwrap();
        receive(&mut frames, &frame(HEADERS, 0, 1, 10), now).unwrap();
        assert!(frames.is_in_head());
        receive(&mut frames, &frame(CONTINUATION, 0, 1, 10), now).unwrap();
        assert!(frames.is_in_head());
        receive(&mut frames, &frame(CONTINUATION, END_HEADERS, 1, 10), now).unwrap();
        assert!(!frames.is_in_head());
    }

    #[test]
    fn what_is_no_http2_is_told_by_its_heads() {
        let now = Instant::now();
        for (kind, flags, sizes) in [
            (PRIORITY, 0, [4, 6]),
            (RST_STREAM, 0, [3, 5]),
            (SETTINGS, 0, [5, 7]),
            (SETTINGS, ACK, [6, 12]),
            (PING, 0, [7, 9]),
            (GOAWAY, 0, [0, 7]),
            (WINDOW_UPDATE, 0, [3, 8]),
        ] {
            for size in sizes {
                let bytes = frame(kind, flags, 1, size);
                assert_eq!(receive(&mut begun(now), &bytes, now), Err(Fault::Size), "{kind} {size}");
            }
        }
        for first in [frame(HEADERS, END_HEADERS, 1, 10), frame(SETTINGS, ACK, 0, 0), frame(SETTINGS, 0, 1, 0)] {
            let mut frames = Frames::new(now);
            receive(&mut frames, PREFACE, now).unwrap();
            assert_eq!(receive(&mut frames, &first, now), Err(Fault::NoSettings));
        }
    }

    #[test]
    fn who_makes_us_reset_too_many_is_told_so_behind_the_last() {
        let now = Instant::now();
        let mut frames = begun(now);
        let resets = frame(RST_STREAM, 0, 1, 4).repeat(RESETS_MAX as usize + 1);
        assert_eq!(send(&mut frames, &resets, now), Err(Fault::Resets));
        assert!(frames.goodbye(Fault::Resets).is_some());
    }

    #[test]
    fn the_last_word_is_not_said_in_the_middle_of_another() {
        let now = Instant::now();
        let mut frames = begun(now);
        receive(&mut frames, &frame(HEADERS, END_HEADERS, 7, 1), now).unwrap();
        let data = frame(DATA, 0, 7, 100);
        send(&mut frames, &data[..50], now).unwrap();
        assert_eq!(frames.goodbye(Fault::Resets), None);
        send(&mut frames, &data[50..], now).unwrap();
        assert_eq!(frames.goodbye(Fault::Resets).unwrap(), [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 11]);
    }
}
