//! A name server that says what a test wants, and may fail. It speaks UDP, and TCP for what is too long for that.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// A longer answer over UDP is cut: what a client may expect without asking for more (RFC 1035, section 4.2.1).
const UDP_BYTES_MAX: usize = 512;
/// Kinds of records (RFC 1035, section 3.2.2, and RFC 3596).
const A: u16 = 1;
const AAAA: u16 = 28;

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// SERVFAIL to everything.
    Fails,
    /// Takes questions and says nothing.
    Silent,
}

/// What is told.
#[derive(Debug, Default)]
struct Zone {
    /// A records by name, without the last dot; any other name does not exist.
    records: HashMap<String, Vec<Ipv4Addr>>,
    /// AAAA records of those that have any.
    records_v6: HashMap<String, Vec<Ipv6Addr>>,
    ttl: u32,
    mood: Mood,
    /// Towards questions for AAAA records, while it is well otherwise.
    mood_v6: Mood,
    asked: u64,
    asked_over_tcp: u64,
}

/// A running name server.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

impl DnsServer {
    /// Knows no name yet; answers live for `ttl` seconds.
    ///
    /// # Panics
    /// When no socket can be had.
    pub async fn start(ttl: u32) -> Self {
        let (udp, tcp) = one_port().await;
        let address = udp.local_addr().expect("a bound socket has an address");
        let zone = Arc::new(Mutex::new(Zone { ttl, ..Zone::default() }));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&zone)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Self { address, zone, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `name` has these addresses; none: it exists without one.
    pub fn set(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.locked().records.insert(name.to_owned(), addresses.to_vec());
    }

    /// From now on `name`, which [`set`](Self::set) has made, has these addresses besides.
    pub fn set_v6(&self, name: &str, addresses: &[Ipv6Addr]) {
        self.locked().records_v6.insert(name.to_owned(), addresses.to_vec());
    }

    /// From now on there is no such name.
    pub fn forget(&self, name: &str) {
        self.locked().records.remove(name);
    }

    pub fn set_mood(&self, mood: Mood) {
        self.locked().mood = mood;
    }

    /// Answers those who want AAAA records like that, others as before.
    pub fn set_mood_v6(&self, mood: Mood) {
        self.locked().mood_v6 = mood;
    }

    /// Questions so far.
    pub fn asked(&self) -> u64 {
        self.locked().asked
    }

    /// Those of them that came over TCP.
    pub fn asked_over_tcp(&self) -> u64 {
        self.locked().asked_over_tcp
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().expect("no holder of this lock panics")
    }
}

async fn one_port() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = udp.local_addr().expect("a bound socket has an address");
        if let Ok(tcp) = TcpListener::bind(address).await {
            return (udp, tcp);
        }
    }
    panic!("no port that is free for UDP and TCP");
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut packet = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        let answer = answer(&packet[..length], &mut zone.lock().expect("no holder of this lock panics"));
        if let Some(mut answer) = answer {
            if answer.len() > UDP_BYTES_MAX {
                cut(&mut answer, length);
            }
            // A client that has gone does not wait for it.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(stream, Arc::clone(&zone)));
    }
}

/// Each message comes with its length before it (RFC 1035, section 4.2.2).
async fn serve_connection(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let answer = {
            let mut zone = zone.lock().expect("no holder of this lock panics");
            zone.asked_over_tcp += 1;
            answer(&query, &mut zone)
        };
        let Some(answer) = answer else { continue };
        let mut message = u16::try_from(answer.len()).expect("a bounded answer").to_be_bytes().to_vec();
        message.extend(answer);
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// Leaves the question, and says that there is more.
fn cut(answer: &mut Vec<u8>, query_bytes: usize) {
    // What follows the question in the query may be EDNS; the answer's question is no longer than the query.
    let question = answer.iter().skip(12).position(|byte| *byte == 0).map_or(query_bytes, |end| 12 + end + 5);
    answer.truncate(question);
    answer[2] |= 0x02;
    answer[6..8].fill(0);
}

/// RFC 1035, section 4: one question in, its records out.
fn answer(query: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    zone.asked += 1;
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let name = labels.join(".");
    let mood = if kind == AAAA && zone.mood == Mood::Well { zone.mood_v6 } else { zone.mood };
    let (code, addresses) = match (mood, zone.records.get(&name)) {
        (Mood::Silent, _) => return None,
        (Mood::Fails, _) => (2, Vec::new()),
        (Mood::Well, None) => (3, Vec::new()),
        (Mood::Well, Some(found)) => (0, octets(kind, found, zone.records_v6.get(&name))),
    };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for address in addresses {
        // The name by a pointer to the question; IN.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(zone.ttl.to_be_bytes());
        answer.extend(u16::try_from(address.len()).ok()?.to_be_bytes());
        answer.extend(address);
    }
    Some(answer)
}

/// Those of the records that are of this kind, as they go over the wire.
fn octets(kind: u16, v4: &[Ipv4Addr], v6: Option<&Vec<Ipv6Addr>>) -> Vec<Vec<u8>> {
    match kind {
        A => v4.iter().map(|address| address.octets().to_vec()).collect(),
        AAAA => v6.into_iter().flatten().map(|address| address.octets().to_vec()).collect(),
        _ => Vec::new(),
    }
}
