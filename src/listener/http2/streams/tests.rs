use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;

use super::*;

/// The connection's task: counts how often it is woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn wakes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that waits as often as it is told to, and leaves its waker.
type Left = Arc<Mutex<VecDeque<Waker>>>;

fn waiting(times: usize, left: &Left) -> Boxed {
    let left = Arc::clone(left);
    let mut times = times;
    Box::pin(poll_fn(move |cx| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        left.lock().push_back(cx.waker().clone());
        Poll::Pending
    }))
}

fn turn(streams: &mut Streams, task: &Arc<Task>) -> bool {
    streams.begin_turn(&Waker::from(Arc::clone(task)));
    let had_some = streams.poll();
    streams.end_turn();
    had_some
}

fn open(streams: &Streams) -> usize {
    streams.slots.iter().filter(|slot| slot.stream.is_some()).count()
}

fn begun() -> (Streams, Arc<Task>, Left) {
    let streams = Streams::new();
    assert!(streams.take_connection(), "h2 has something to say first");
    assert!(!streams.take_connection());
    (streams, Arc::default(), Left::default())
}

#[test]
fn only_who_is_woken_is_polled() {
    let (mut streams, task, left) = begun();
    streams.push(waiting(1, &left));
    streams.push(waiting(1, &left));
    assert!(turn(&mut streams, &task));
    assert!(!turn(&mut streams, &task));
    let first = left.lock().pop_front().unwrap();
    first.wake_by_ref();
    first.wake();
    assert_eq!(task.wakes(), 1, "twice woken is once woken");
    assert!(turn(&mut streams, &task));
    assert_eq!(open(&streams), 1);
    assert!(!turn(&mut streams, &task));
}

#[test]
fn the_task_is_woken_once_for_all_that_happens_before_its_turn() {
    let (mut streams, task, left) = begun();
    for _ in 0..3 {
        streams.push(waiting(1, &left));
    }
    turn(&mut streams, &task);
    left.lock().drain(..).for_each(Waker::wake);
    streams.connection_waker().wake();
    assert_eq!(task.wakes(), 1);
    assert!(streams.take_connection());
    turn(&mut streams, &task);
    assert_eq!((task.wakes(), open(&streams)), (1, 0));
}

#[test]
fn what_is_woken_during_a_turn_and_left_over_gets_another() {
    let (mut streams, task, left) = begun();
    streams.push(waiting(2, &left));
    streams.begin_turn(&Waker::from(Arc::clone(&task)));
    streams.poll();
    left.lock().drain(..).for_each(Waker::wake);
    assert_eq!(task.wakes(), 0, "the turn may still take it");
    streams.end_turn();
    assert_eq!(task.wakes(), 1);
    // And so does h2.
    turn(&mut streams, &task);
    streams.begin_turn(&Waker::from(Arc::clone(&task)));
    streams.connection_waker().wake();
    streams.end_turn();
    assert_eq!(task.wakes(), 2);
}

#[test]
fn slots_are_used_again_and_old_wakers_do_no_harm() {
    let (mut streams, task, left) = begun();
    streams.push(waiting(1, &left));
    turn(&mut streams, &task);
    let old = left.lock().pop_front().unwrap();
    old.wake_by_ref();
    turn(&mut streams, &task);
    assert_eq!(open(&streams), 0);
    old.wake_by_ref();
    assert!(!turn(&mut streams, &task), "an empty slot is not looked at");
    streams.push(waiting(2, &left));
    turn(&mut streams, &task);
    old.wake();
    turn(&mut streams, &task);
    assert_eq!((streams.slots.len(), open(&streams)), (1, 1));
}

#[test]
fn a_panic_ends_its_own_stream() {
    let (mut streams, task, left) = begun();
    streams.push(waiting(1, &left));
    streams.push(Box::pin(async { panic!("in a stream") }));
    streams.push(waiting(0, &left));
    turn(&mut streams, &task);
    assert_eq!(open(&streams), 1);
    left.lock().drain(..).for_each(Waker::wake);
    turn(&mut streams, &task);
    assert_eq!((open(&streams), streams.free.len()), (0, 3));
}

#[test]
fn all_can_be_made_to_look_again() {
    let (mut streams, task, left) = begun();
    for _ in 0..3 {
        streams.push(waiting(1, &left));
    }
    turn(&mut streams, &task);
    streams.wake_all();
    assert_eq!(task.wakes(), 1);
    turn(&mut streams, &task);
    assert_eq!(open(&streams), 0);
}

#[test]
fn wakers_hold_no_task_whose_connection_has_ended() {
    let (mut streams, task, left) = begun();
    streams.push(waiting(1, &left));
    turn(&mut streams, &task);
    assert_eq!(Arc::strong_count(&task), 2);
    drop(streams);
    assert_eq!(Arc::strong_count(&task), 1);
    left.lock().drain(..).for_each(Waker::wake);
    assert_eq!(task.wakes(), 0);
}
