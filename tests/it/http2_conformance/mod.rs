//! HTTP/2 by the letter: what h2spec asks of a server, section by section of RFC 9113 and RFC 7541, in bare frames.
//!
//! Each case is what a client sends behind its preface and SETTINGS, and what has to come of it. Cases are named by
//! their section; one test plays a table of them and names all that fail. Where RFC 9113 asks for less than RFC 7540
//! did (the priorities of section 5.3 are gone), what was an error may be ignored, and the case says so.

mod hpack;
mod messages;
mod streams;
mod types;

use std::time::Duration;

use crate::support::h2::{self, Frame, Framed, flag, frame, kind};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

/// RFC 9113, section 7.
mod code {
    pub(super) const PROTOCOL_ERROR: u32 = 0x1;
    pub(super) const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub(super) const STREAM_CLOSED: u32 = 0x5;
    pub(super) const FRAME_SIZE_ERROR: u32 = 0x6;
    pub(super) const REFUSED_STREAM: u32 = 0x7;
    pub(super) const COMPRESSION_ERROR: u32 = 0x9;
}

/// RFC 9113, section 6.5.2.
mod setting {
    pub(super) const ENABLE_PUSH: u16 = 0x2;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(super) const MAX_FRAME_SIZE: u16 = 0x5;
}

/// What has to come of it.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// The connection ends, by GOAWAY with one of these codes.
    ConnectionError(&'static [u32]),
    /// The stream ends with one of these codes and the connection lives on; a server may also end the connection
    /// (section 5.4.2).
    StreamError(u32, &'static [u32]),
    /// The stream's request is answered with 400, and the connection lives on.
    Refused(u32),
    /// The stream's request is answered with 200, and the connection lives on.
    Answered(u32),
    /// Nothing comes of it, and the connection lives on.
    Ignored,
}

use Verdict::{Answered, ConnectionError, Ignored, Refused, StreamError};

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    verdict: Verdict,
}

/// What a client sends in one go.
fn case<const N: usize>(name: &'static str, frames: [Vec<u8>; N], verdict: Verdict) -> Case {
    Case { name, bytes: frames.concat(), verdict }
}

/// Whether the app may get to see the requests of a table.
#[derive(PartialEq, Eq)]
enum App {
    Asked,
    /// Every request of the table is malformed: nothing of it may be forwarded.
    LeftAlone,
}

/// Plays every case on a connection of its own.
async fn play(app: App, cases: Vec<Case>) {
    // An answer that takes its time leaves its stream half closed (remote) for what comes behind the request.
    let upstream = FakeUpstream::http1()
        .route("/slow", Reply::ok("slow").after(Duration::from_millis(300)))
        .route("*", Reply::ok("hello"))
        .start()
        .await;
    let proxy = TestProxy::before(&upstream, "", "").start().await;
    let mut failures = Vec::new();
    for Case { name, bytes, verdict } in cases {
        let mut client = Framed::connect(proxy.address()).await;
        client.send(&bytes).await;
        client.send(&frame(kind::PING, 0, 0, b"the end.")).await;
        let seen = read_up_to_verdict(&mut client, verdict).await;
        if let Err(what) = judge(verdict, &seen) {
            failures.push(format!("{name}: {what}; wanted {verdict:?}, got {seen:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(app == App::Asked || upstream.raw().is_empty(), "forwarded: {:?}", upstream.requests());
}

/// Everything up to the end of the connection, or up to where it is clear that it lives.
async fn read_up_to_verdict(client: &mut Framed, verdict: Verdict) -> Vec<Frame> {
    let mut seen: Vec<Frame> = Vec::new();
    while let Some(frame) = client.read().await {
        seen.push(frame);
        let is_alive = seen.iter().any(is_the_end);
        let is_over = match verdict {
            ConnectionError(_) => false,
            StreamError(stream, _) => seen.iter().any(|frame| frame.kind == kind::RST_STREAM && frame.stream == stream),
            Answered(stream) | Refused(stream) => seen.iter().any(|frame| ends(frame, stream)),
            Ignored => true,
        };
        if is_alive && is_over {
            break;
        }
    }
    seen
}

fn is_the_end(frame: &Frame) -> bool {
    frame.is(kind::PING, flag::ACK) && frame.payload == b"the end."
}

fn ends(frame: &Frame, stream: u32) -> bool {
    frame.stream == stream && matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.flags & flag::END_STREAM != 0
}

fn judge(verdict: Verdict, seen: &[Frame]) -> Result<(), &'static str> {
    let goaway = seen.iter().find(|frame| frame.kind == kind::GOAWAY).and_then(Frame::code);
    let reset = |stream| {
        let reset = seen.iter().find(|frame| frame.kind == kind::RST_STREAM && frame.stream == stream);
        reset.and_then(Frame::code)
    };
    let lives = seen.iter().any(is_the_end) && goaway.is_none();
    match verdict {
        ConnectionError(codes) => match goaway {
            Some(code) if is_one_of(code, codes) => Ok(()),
            Some(_) => Err("another error"),
            None => Err("no error"),
        },
        StreamError(stream, codes) => match reset(stream).or(goaway) {
            Some(code) if is_one_of(code, codes) => Ok(()),
            Some(_) => Err("another error"),
            None => Err("no error"),
        },
        Answered(stream) | Refused(stream) => {
            let head = seen.iter().find(|frame| frame.kind == kind::HEADERS && frame.stream == stream);
            match head {
                _ if !lives || reset(stream).is_some() => Err("an error"),
                // `:status: 200` and `:status: 400` of the static table.
                Some(head) if head.payload[0] == if matches!(verdict, Refused(_)) { 0x8c } else { 0x88 } => Ok(()),
                Some(_) => Err("another status"),
                None => Err("no answer"),
            }
        }
        Ignored if lives && seen.iter().all(|frame| frame.kind != kind::RST_STREAM) => Ok(()),
        Ignored => Err("an error"),
    }
}

/// hyper has PROTOCOL_ERROR where the RFC has a more telling name for what ends a connection. It ends all the same, and
/// h2spec asks for no more.
fn is_one_of(code: u32, codes: &[u32]) -> bool {
    codes.contains(&code) || (code == code::PROTOCOL_ERROR && !codes.contains(&code::FRAME_SIZE_ERROR))
}

/// HEADERS with these flags, END_HEADERS among them.
fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flags | flag::END_HEADERS, stream, h2::block(fields))
}

/// A whole GET.
fn get(stream: u32) -> Vec<u8> {
    h2::request(stream, flag::END_STREAM)
}

/// A GET whose answer takes a while.
fn slow(stream: u32) -> Vec<u8> {
    head(stream, flag::END_STREAM, &request_of(":path", "/slow"))
}

/// The head of a POST, with its body to come.
fn post(stream: u32) -> Vec<u8> {
    head(stream, 0, &request_of(":method", "POST"))
}

/// The usual request with another value in one place.
fn request_of<'a>(name: &str, value: &'a str) -> [(&'a str, &'a str); 4] {
    h2::REQUEST.map(|(other, usual)| if other == name { (other, value) } else { (other, usual) })
}

/// The usual request and more.
fn request_and<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&h2::REQUEST, more].concat()
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload = pairs.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(kind::SETTINGS, 0, 0, payload.collect::<Vec<_>>())
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, 8_u32.to_be_bytes())
}

/// Depends on `parent` with this weight.
fn priority(stream: u32, parent: u32, weight: u8) -> Vec<u8> {
    frame(kind::PRIORITY, 0, stream, [&parent.to_be_bytes()[..], &[weight]].concat())
}
