//! The app: it does what the path of a request says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::script::{Answer, Ask, body, checksum};
use crate::support::reply::{Reply, Step};
use crate::support::wire::Message;

/// How often a request came, by its method and number.
pub(super) type Counts = Arc<Mutex<HashMap<(String, u64), u32>>>;

pub(super) fn app(counts: &Counts) -> Reply {
    let counts = Arc::clone(counts);
    Reply::default().then(Step::Answer(Arc::new(move |request| {
        if let Some((_, id, _)) = asked(request) {
            let method = request.head.line.split(' ').next().unwrap_or_default().to_owned();
            *counts.lock().unwrap().entry((method, id)).or_default() += 1;
        }
        first(request)
    })))
}

/// What it does when it has read the head.
fn first(request: &Message) -> Reply {
    match asked(request) {
        Some((Answer::Early, id, bytes)) => Reply::default().then(Step::Send(sized("", request, id, bytes, bytes))),
        _ => Reply::answer(then),
    }
}

/// What it does when it has read the body as well.
fn then(request: &Message) -> Reply {
    let Some((answer, id, bytes)) = asked(request) else { return Reply::status(400, "a path of another test") };
    let took = checksum(&request.body);
    let reply = |bytes| Reply::default().then(Step::Send(bytes));
    let half = bytes / 2;
    match answer {
        Answer::Sized | Answer::Early => reply(sized(&took, request, id, bytes, bytes)),
        Answer::Late => reply(sized(&took, request, id, bytes, bytes)).after(Duration::from_millis(id % 30)),
        Answer::Chunked => reply(chunked(&took, request, id, bytes, true)),
        Answer::ToTheEnd => {
            let head = head(&took, id, 200, "Connection: close\r\n");
            reply([head, without_head(request, body(id, bytes))].concat()).then(Step::Close)
        }
        Answer::Nothing => reply(head(&took, id, 204, "")),
        Answer::CutOff => reply(sized(&took, request, id, bytes, half)).then(Step::Close),
        Answer::Reset => reply(sized(&took, request, id, bytes, half)).then(Step::Reset),
        Answer::CutOffChunks => reply(chunked(&took, request, id, half, false)).then(Step::Close),
        Answer::None => Reply::close(),
    }
}

fn asked(request: &Message) -> Option<(Answer, u64, usize)> {
    Ask::of_path(request.head.line.split(' ').nth(1)?)
}

/// The head tells whose answer it is, and what was read of the request's body.
fn head(took: &str, id: u64, status: u16, fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Word\r\nX-Id: {id}\r\nX-Took: {took}\r\n{fields}\r\n").into_bytes()
}

/// `bytes` are announced and `sent` come.
fn sized(took: &str, request: &Message, id: u64, bytes: usize, sent: usize) -> Vec<u8> {
    let mut whole = body(id, bytes);
    whole.truncate(sent);
    [head(took, id, 200, &format!("Content-Length: {bytes}\r\n")), without_head(request, whole)].concat()
}

fn chunked(took: &str, request: &Message, id: u64, bytes: usize, ends: bool) -> Vec<u8> {
    let mut chunks = Vec::new();
    for chunk in body(id, bytes).chunks(1 + (id as usize * 37) % 9_000) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    if ends {
        chunks.extend_from_slice(b"0\r\n\r\n");
    }
    [head(took, id, 200, "Transfer-Encoding: chunked\r\n"), without_head(request, chunks)].concat()
}

fn without_head(request: &Message, body: Vec<u8>) -> Vec<u8> {
    if request.head.line.starts_with("HEAD ") { Vec::new() } else { body }
}
