//! What a proxied request allocates, counted, with a ceiling: a change that allocates more on the request path fails
//! here. A binary of its own, since counting takes the whole process's allocator.
//!
//! Client and app are threads that allocate nothing themselves while it is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flagstone::app::{App, Source};
use flagstone::config;
use flagstone::config::model::Address;
use flagstone::upstream::Resolver;

/// At most so many allocations for one request on kept connections, with all that `benches/peers.sh` switches on. To be
/// lowered whenever they become fewer. Two of them keep others below a KiB, which spares more than they cost.
const PER_REQUEST_MAX: f64 = 7.0;
/// And for one that maintenance answers.
const PER_PAGE_MAX: f64 = 10.0;

/// What a kept connection may hold while it waits for its next request.
const IDLE_BYTES_MAX: i64 = 6 * 1024;
/// And a stream that was upgraded, on both sides.
const TUNNEL_BYTES_MAX: i64 = 14 * 1024;

/// What a browser sends, so that fields are kept, matched and logged.
const REQUEST: &[u8] = b"GET /api/orders?page=2 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux \
    x86_64; rv:132.0) Gecko/20100101 Firefox/132.0\r\nAccept: text/html\r\nReferer: https://example.com/\r\nCookie: \
    session=0123456789abcdef\r\n\r\n";

const ANSWER_BODY_BYTES: usize = 1024;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Allocated and not yet freed.
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE_BYTES.fetch_add(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE_BYTES.fetch_add(size as i64 - layout.size() as i64, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One count at a time.
static COUNT: Mutex<()> = Mutex::new(());

#[test]
fn a_proxied_request_allocates_little() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let app = start_app();
    let (_proxy, address, _folder) = start(app, false);
    let each = allocations_per_request(address, b"HTTP/1.1 200 ");
    println!("{each:.2} allocations per proxied request");
    assert!(each <= PER_REQUEST_MAX, "{each:.2} allocations per request, more than {PER_REQUEST_MAX}");
}

#[test]
fn a_maintenance_page_allocates_little() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let app = start_app();
    let (_proxy, address, _folder) = start(app, true);
    let each = allocations_per_request(address, b"HTTP/1.1 503 ");
    println!("{each:.2} allocations per maintenance page");
    assert!(each <= PER_PAGE_MAX, "{each:.2} allocations per page, more than {PER_PAGE_MAX}");
}

#[test]
fn an_idle_connection_holds_little() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let (_proxy, address, _folder) = start(start_app(), false);
    let mut buffer = vec![0; 64 * 1024];
    assert_each_holds("idle connection", IDLE_BYTES_MAX, || {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(REQUEST).unwrap();
        read_answer(&mut client, &mut buffer, b"HTTP/1.1 200 ");
        client
    });
}

#[test]
fn a_silent_tunnel_holds_little() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let (_proxy, address, _folder) = start(start_app(), false);
    assert_each_holds("silent tunnel", TUNNEL_BYTES_MAX, || {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        let mut word = *b"word";
        client.write_all(&word).unwrap();
        client.read_exact(&mut word).unwrap();
        client
    });
}

/// Of many connections, once they have come to rest.
fn assert_each_holds(what: &str, bytes_max: i64, mut connect: impl FnMut() -> TcpStream) {
    const CONNECTIONS: i64 = 200;
    let _first = connect();
    let before = LIVE_BYTES.load(Relaxed);
    let clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect()).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let each = (LIVE_BYTES.load(Relaxed) - before) / CONNECTIONS;
        if each <= bytes_max {
            println!("{each} bytes per {what}");
            break;
        }
        assert!(Instant::now() < deadline, "{each} bytes per {what}, more than {bytes_max}");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(clients);
}

/// The mean of many, after a start that fills pools, buffers and tables. What the once-a-second work allocates is in
/// it, and vanishes among them.
fn allocations_per_request(address: SocketAddr, status: &[u8]) -> f64 {
    const WARM_UP: usize = 200;
    const COUNTED: usize = 2_000;
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let mut before = 0;
    for round in 0..WARM_UP + COUNTED {
        if round == WARM_UP {
            before = ALLOCATIONS.load(Relaxed);
        }
        client.write_all(REQUEST).unwrap();
        read_answer(&mut client, &mut buffer, status);
    }
    (ALLOCATIONS.load(Relaxed) - before) as f64 / COUNTED as f64
}

fn read_answer(client: &mut TcpStream, buffer: &mut [u8], status: &[u8]) {
    let mut filled = 0;
    loop {
        let read = client.read(&mut buffer[filled..]).unwrap();
        assert!(read > 0, "closed in an answer");
        filled += read;
        let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end]).unwrap();
        assert!(head.as_bytes().starts_with(status), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if filled - (end + 4) == length.parse::<usize>().unwrap() {
            return;
        }
    }
}

/// An app that gives every request the same answer, and agrees to upgrades; its threads end with the process.
fn start_app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            std::thread::spawn(move || answer_all(client));
        }
    });
    address
}

fn answer_all(mut client: TcpStream) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: app\r\nDate: Sun, 22 Nov 2026 22:02:20 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {ANSWER_BODY_BYTES}\r\nConnection: keep-alive\r\n\r\n"
    );
    let answer = [head.as_bytes(), &[b'x'; ANSWER_BODY_BYTES]].concat();
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    while let Ok(read @ 1..) = client.read(&mut buffer[filled..]) {
        filled += read;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        if memchr::memmem::find(&buffer[..filled], b"upgrade: echo").is_some() {
            drop((buffer, answer));
            return echo(client);
        }
        filled = 0;
        client.write_all(&answer).unwrap();
    }
}

fn echo(mut client: TcpStream) {
    client.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    let mut word = [0; 16];
    while let Ok(read @ 1..) = client.read(&mut word) {
        client.write_all(&word[..read]).unwrap();
    }
}

/// With one worker and everything on.
fn start(app: SocketAddr, in_maintenance: bool) -> (App, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    if in_maintenance {
        std::fs::write(state.join("maintenance.flag"), "").unwrap();
    }
    let file = folder.path().join("flagstone.toml");
    let toml = format!(
        "[server]\nworkers = 1\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"access.log\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"per_ip\"]\n\
         [upstream.app]\nendpoints = [\"{app}\"]\n[limit.per_ip]\nrate = \"1000000/1s\"\nburst = 100000\n"
    );
    std::fs::write(&file, toml).unwrap();
    let loaded = config::load(&file, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    let proxy = App::start_with(loaded, Source::File(file), Resolver::from_servers(&[]))
        .unwrap_or_else(|problems| panic!("{problems}"));
    let address = match proxy.listeners().into_iter().next() {
        Some((_, Address::Socket(address))) => address,
        other => panic!("no TCP listener: {other:?}"),
    };
    (proxy, address, folder)
}
