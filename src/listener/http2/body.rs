//! The body of a request that comes on a stream of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::listener::incoming::Lost;
use crate::message::answer::content_length;

/// Opens the client's window as it is read (RFC 9113, section 5.2).
#[derive(Debug)]
pub(crate) struct StreamBody {
    stream: RecvStream,
    /// Of the length that was announced. h2 holds the client to it.
    left: Option<u64>,
    /// Only trailers may come.
    has_all_data: bool,
    /// Its client waits to be told that somebody wants it.
    awaited: Option<oneshot::Sender<()>>,
}

impl StreamBody {
    /// Who holds `awaited`'s other end tells the client, once somebody waits for the body.
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap, awaited: Option<oneshot::Sender<()>>) -> Self {
        Self { stream, left: announced(headers), has_all_data: false, awaited }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let this = self.get_mut();
        if !this.has_all_data {
            let data = this.stream.poll_data(cx);
            if let Some(awaited) = this.awaited.take_if(|_| data.is_pending()) {
                // Nobody is there any more to be told when an answer has begun.
                let _ = awaited.send(());
            }
            match ready!(data) {
                Some(Ok(bytes)) => {
                    // Only fails when the stream has gone, which the next look at it tells.
                    let _ = this.stream.flow_control().release_capacity(bytes.len());
                    this.left = this.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(lost(error)))),
                None => this.has_all_data = true,
            }
        }
        match ready!(this.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(lost(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Whatever a reset gives as its reason: only END_STREAM ends a body, and h2 tells of no error behind that. Where it
/// ends the stream itself its client has broken a rule, as one does that sends another length than it announced.
fn lost(error: h2::Error) -> Lost {
    if error.is_library() { Lost::Malformed(None) } else { Lost::Left(error.into()) }
}

/// The length that all lines and all members of `Content-Length` agree on.
fn announced(headers: &HeaderMap) -> Option<u64> {
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for member in line.to_str().ok()?.split(',') {
            let value = content_length(member.trim().as_bytes())?;
            if *length.get_or_insert(value) != value {
                return None;
            }
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_length_is_what_all_lines_agree_on() {
        for (lines, wanted) in [
            (&[][..], None),
            (&["5"], Some(5)),
            (&["5", "5"], Some(5)),
            (&["5, 5"], Some(5)),
            (&["5", "6"], None),
            (&["5, 6"], None),
            (&["+5"], None),
            (&["-5"], None),
            (&[""], None),
            (&["18446744073709551616"], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            assert_eq!(announced(&headers), wanted, "{lines:?}");
        }
    }
}
