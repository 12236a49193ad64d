//! HTTP/1.1 on kept connections, from one thread around ppoll(2).
//!
//! At a constant rate every request has a moment at which it is due, and its time counts from then, whether or not it
//! could be sent then: a proxy that stalls is charged for all that would have come meanwhile (wrk2's correction of
//! "coordinated omission"). Connections take turns, so a request waits for the one before it on its connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) path: String,
    pub(crate) requests: Option<u64>,
    pub(crate) time: Duration,
    pub(crate) rate: Option<f64>,
}

struct Connection {
    socket: TcpStream,
    /// When the request on its way was due.
    due: Option<Instant>,
    next: Instant,
    answer: Answer,
}

/// How much of an answer is here.
#[derive(Default)]
struct Answer {
    head: Vec<u8>,
    body_left: Option<usize>,
}

impl Answer {
    /// Takes bytes; true when they end the answer.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        if self.body_left.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else { return Ok(false) };
            bytes = &bytes[end + 4 - before..];
            self.body_left = Some(length(&self.head[..end])?);
        }
        let left = self.body_left.get_or_insert(0);
        let surplus = || io::Error::other("more came than the answer is long");
        *left = left.checked_sub(bytes.len()).ok_or_else(surplus)?;
        if *left > 0 {
            return Ok(false);
        }
        self.head.clear();
        self.body_left = None;
        Ok(true)
    }
}

/// Of a 200 with a length; anything else would spoil what is measured.
fn length(head: &[u8]) -> io::Result<usize> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default().split(' ').nth(1);
    let length = lines.find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    match (status, length) {
        (Some("200"), Some(length)) => Ok(length),
        _ => Err(io::Error::other(format!("not a 200 with a length: {text}"))),
    }
}

/// Prints how many there were, how long it took, and the times of answers.
pub(crate) fn run(plan: &Plan) -> io::Result<()> {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.path, plan.address).into_bytes();
    let began = Instant::now();
    // Of one connection; the first requests are spread over it.
    let gap = plan.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(plan.connections as f64 / rate));
    let mut connections = Vec::with_capacity(plan.connections);
    for index in 0..plan.connections {
        let socket = TcpStream::connect(plan.address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        connections.push(Connection { socket, due: None, next: began, answer: Answer::default() });
        let at = gap * index as u32 / plan.connections as u32;
        connections[index].next = Instant::now() + at;
    }
    let mut times = Vec::new();
    let (began, mut sent) = (Instant::now(), 0);
    let end = plan.requests.is_none().then(|| began + plan.time);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            break;
        }
        let mut next: Option<Instant> = end;
        for connection in connections.iter_mut().filter(|connection| connection.due.is_none()) {
            if plan.requests.is_some_and(|requests| sent >= requests) {
                break;
            }
            if connection.next > now {
                next = Some(next.map_or(connection.next, |next| next.min(connection.next)));
                continue;
            }
            // A request is small and the socket is empty: it is taken whole.
            connection.socket.write_all(&request)?;
            connection.due = Some(if gap.is_zero() { Instant::now() } else { connection.next });
            connection.next += gap;
            sent += 1;
        }
        if connections.iter().all(|connection| connection.due.is_none()) && next.is_none() {
            break;
        }
        let ready = wait(&connections, next)?;
        for index in ready {
            let connection = &mut connections[index];
            match connection.socket.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    if connection.answer.take(&buffer[..bytes])? {
                        let due = connection.due.take().expect("an answer has a request");
                        times.push(due.elapsed());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    report(times, began.elapsed());
    Ok(())
}

/// The connections that have something to read.
fn wait(connections: &[Connection], until: Option<Instant>) -> io::Result<Vec<usize>> {
    let mut watched: Vec<PollFd<'_>> =
        connections.iter().map(|connection| PollFd::new(&connection.socket, PollFlags::IN)).collect();
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.map(|left| Timespec::try_from(left).expect("a few seconds"));
    poll(&mut watched, left.as_ref())?;
    let is_ready = |(index, fd): (usize, &PollFd<'_>)| (!fd.revents().is_empty()).then_some(index);
    Ok(watched.iter().enumerate().filter_map(is_ready).collect())
}

fn report(mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).map_or(0, Duration::as_micros);
    println!(
        "requests={} rate={:.0} p50_us={} p99_us={} p999_us={}",
        times.len(),
        times.len() as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999)
    );
}
