//! The value of `Date` (RFC 9110, section 6.6.1).

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;
use rustix::time::{ClockId, clock_gettime};

/// The time as section 5.6.7 writes it. It is put into words once a second by each worker.
pub(super) fn now() -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(i64, HeaderValue)> = const { RefCell::new((-1, HeaderValue::from_static(""))) };
    }
    // To a few milliseconds, which is all that it takes and far cheaper.
    let secs = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
    LAST.with_borrow_mut(|(at, value)| {
        if *at != secs {
            let time = UNIX_EPOCH + Duration::from_secs(secs.max(0).unsigned_abs());
            let text = Bytes::from(httpdate::fmt_http_date(time));
            (*at, *value) = (secs, HeaderValue::from_maybe_shared(text).expect("a date is a header value"));
        }
        value.clone()
    })
}
