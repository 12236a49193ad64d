//! The streams of one connection: futures that are polled in the connection's own task.
//!
//! A task for each would be an allocation, a place in the worker's queue and two wake-ups more per request. Here a
//! stream has a slot, whose waker stays with it: slots are used again, and a waker that was kept beyond its stream, as
//! h2 keeps one for its reset, wakes nobody or the slot's next one, which does no harm. Streams end with the
//! connection, for they are part of it.
//!
//! | who is woken | what happens |
//! |---|---|
//! | a stream, from outside | it is noted as ready, and the connection's task is woken |
//! | a stream or HTTP/2 itself, while the connection is being polled | it is noted, and polled in the same turn |
//!
//! A stream that panics is dropped alone.

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::{Mutex, MutexGuard};
use tokio::task::coop::unconstrained;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The streams, and what is ready.
pub(super) struct Streams {
    slots: Vec<Slot>,
    /// Indices of slots without a stream.
    free: Vec<usize>,
    /// Indices of slots whose stream has just come; the room is that of all that are polled together.
    batch: Vec<usize>,
    ready: Arc<Ready>,
}

struct Slot {
    stream: Option<Boxed>,
    note: Arc<Note>,
    /// Made of `note`.
    waker: Waker,
}

impl Streams {
    pub(super) fn new() -> Self {
        let state = State { streams: Vec::new(), is_connection_ready: true, is_awake: false, task: None };
        Self { slots: Vec::new(), free: Vec::new(), batch: Vec::new(), ready: Arc::new(Ready(Mutex::new(state))) }
    }

    /// What wakes the connection itself: it is ready at first.
    pub(super) fn connection_waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.ready))
    }

    /// Takes a stream, which is ready. Within a turn, whose end sees to it that the stream has one.
    pub(super) fn push(&mut self, stream: Boxed) {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            let note = Arc::new(Note { index, is_noted: AtomicBool::new(true), ready: Arc::clone(&self.ready) });
            self.slots.push(Slot { stream: None, waker: Waker::from(Arc::clone(&note)), note });
            index
        });
        self.slots[index].stream = Some(stream);
        self.batch.push(index);
    }

    /// Begins a turn of the connection's task: until it ends, what becomes ready does not wake the task.
    pub(super) fn begin_turn(&self, task: &Waker) {
        let mut state = self.ready.lock();
        state.is_awake = true;
        if !state.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            state.task = Some(task.clone());
        }
    }

    /// Ends a turn; what is still ready gets another.
    pub(super) fn end_turn(&self) {
        let mut state = self.ready.lock();
        state.is_awake = false;
        if state.is_connection_ready || !state.streams.is_empty() || !self.batch.is_empty() {
            state.wake();
        }
    }

    /// Whether HTTP/2 itself is to be polled; said once.
    pub(super) fn take_connection(&self) -> bool {
        mem::take(&mut self.ready.lock().is_connection_ready)
    }

    /// Polls those that are ready now; false when none was.
    pub(super) fn poll(&mut self) -> bool {
        let mut batch = mem::take(&mut self.batch);
        batch.append(&mut self.ready.lock().streams);
        let has_some = !batch.is_empty();
        for index in batch.drain(..) {
            if let Some(slot) = self.slots.get_mut(index)
                && slot.poll()
            {
                self.free.push(index);
            }
        }
        // Polling takes no streams in.
        self.batch = batch;
        has_some
    }

    /// Makes all of them look again.
    pub(super) fn wake_all(&self) {
        self.slots.iter().filter(|slot| slot.stream.is_some()).for_each(|slot| slot.note.wake_by_ref());
    }
}

impl Slot {
    /// Whether its stream has ended.
    fn poll(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        self.note.is_noted.store(false, Ordering::Release);
        let mut cx = Context::from_waker(&self.waker);
        // Their number, their windows and their buffers bound what streams can do in a turn. tokio's own bound is for a
        // task, which all of them share.
        let poll = || pin!(unconstrained(stream.as_mut())).poll(&mut cx);
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => return false,
            Ok(Poll::Ready(())) => self.stream = None,
            Err(_) => {
                tracing::error!("a stream of HTTP/2 panicked and is reset");
                let stream = self.stream.take();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(stream)));
            }
        }
        self.note.is_noted.store(true, Ordering::Release);
        true
    }
}

/// Notes one stream as ready.
struct Note {
    index: usize,
    /// Nor is a slot noted that has no stream, or one that was not polled yet.
    is_noted: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_noted.swap(true, Ordering::AcqRel) {
            let mut state = self.ready.lock();
            state.streams.push(self.index);
            state.wake();
        }
    }
}

/// What is ready; as a waker, that of HTTP/2 itself.
struct Ready(Mutex<State>);

struct State {
    streams: Vec<usize>,
    is_connection_ready: bool,
    /// The task is in a turn, or about to begin one.
    is_awake: bool,
    /// The connection's; `None` before its first turn and after its last.
    task: Option<Waker>,
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn wake(&mut self) {
        if !mem::replace(&mut self.is_awake, true)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.lock();
        state.is_connection_ready = true;
        state.wake();
    }
}

impl Drop for Streams {
    /// Wakers live longer than their streams, and the task's memory is not theirs to keep.
    fn drop(&mut self) {
        self.ready.lock().task = None;
    }
}

#[cfg(test)]
mod tests;
