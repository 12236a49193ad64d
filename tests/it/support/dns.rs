//! A name server on UDP that says what a test wants, and may fail.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What is told.
#[derive(Debug, Default)]
struct Zone {
    /// A records by name, without the last dot; any other name does not exist.
    records: HashMap<String, Vec<Ipv4Addr>>,
    ttl: u32,
    fails: bool,
    asked: u64,
}

/// A running name server.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

impl DnsServer {
    /// Knows no name yet; answers live for `ttl` seconds.
    ///
    /// # Panics
    /// When no socket can be had.
    pub async fn start(ttl: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let zone = Arc::new(Mutex::new(Zone { ttl, ..Zone::default() }));
        let task = tokio::spawn(serve(socket, Arc::clone(&zone)));
        Self { address, zone, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `name` has these addresses; none: it does not exist.
    pub fn set(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.locked().records.insert(name.to_owned(), addresses.to_vec());
    }

    /// Answers SERVFAIL to everything from now on, or no more.
    pub fn set_fails(&self, fails: bool) {
        self.locked().fails = fails;
    }

    /// Questions so far.
    pub fn asked(&self) -> u64 {
        self.locked().asked
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().expect("no holder of this lock panics")
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut packet = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        let answer = answer(&packet[..length], &mut zone.lock().expect("no holder of this lock panics"));
        if let Some(answer) = answer {
            // A client that has gone does not wait for it.
            let _ = socket.send_to(&answer, from).await;
        }
    }
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
    let found = zone.records.get(&labels.join(".")).filter(|addresses| !addresses.is_empty());
    let (code, addresses) = match found {
        _ if zone.fails => (2, &[][..]),
        None => (3, &[][..]),
        Some(addresses) if kind == 1 => (0, addresses.as_slice()),
        Some(_) => (0, &[][..]),
    };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for address in addresses {
        // The name by a pointer to the question; A, IN.
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(zone.ttl.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
