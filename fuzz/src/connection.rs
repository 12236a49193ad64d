//! A whole connection: bytes in at a listener, bytes out at the app, a real proxy in between.
//!
//! Whatever is sent, the app sees a beginning of what the reference reader ([`super::reference`]) makes of it: the same
//! requests in the same order, with the same methods, paths and bodies. Everything else is refused, by a whole answer
//! that says so and the end of the connection. Over unix sockets, which run out of no ports.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use flagstone::app::{App, Source};
use flagstone::config;
use flagstone::message::path::normalise;

use super::reference::{End, Message, requests};

/// Nothing here takes long; what does hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// What an attacker says once more is not worth the time.
const BYTES_MAX: usize = 16 * 1024;
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The bytes are a client's. All calls share one proxy, which stays.
pub fn check(bytes: &[u8]) {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    lock(BENCH.get_or_init(|| Mutex::new(Bench::start()))).check(bytes);
}

/// A running proxy and its app.
pub struct Bench {
    listener: PathBuf,
    /// Whole requests that came to the app.
    seen: Arc<Mutex<Vec<Message>>>,
    /// What came there and is no request.
    strange: Arc<Mutex<Vec<String>>>,
    _app: App,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// The bytes are a client's. One at a time.
    pub fn check(&self, bytes: &[u8]) {
        // HTTP/2 is another matter.
        if bytes.len() > BYTES_MAX || bytes.starts_with(H2_PREFACE) {
            return;
        }
        lock(&self.seen).clear();
        let (expected, end, rest) = requests(bytes);
        let answered = play(self, bytes, &expected, end, rest);
        let seen = std::mem::take(&mut *lock(&self.seen));
        let input = bytes.escape_ascii();
        assert!(lock(&self.strange).is_empty(), "the app got {:?}\n{input}", lock(&self.strange));
        assert!(seen.len() <= expected.len(), "{} requests are {}: {seen:?}\n{input}", expected.len(), seen.len());
        assert_eq!(answered, seen.len(), "answers of the app\n{input}");
        for (seen, expected) in seen.iter().zip(&expected) {
            if let Err(why) = compare(seen, expected) {
                panic!("{why}: {seen:?} for {expected:?}\n{input}");
            }
        }
    }

    /// Starts both. What never comes to its end is not waited for long: that is most of what there is to try.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let text = format!(
            "[server]\nstate_dir = \"{at}/state\"\nworkers = 1\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n\
             [timeouts]\nrequest_head = \"200ms\"\nrequest_body = \"200ms\"\n\
             [[listener]]\naddress = \"unix:{at}/web\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
             [upstream.app]\nendpoints = [\"unix:{at}/app\"]\n[upstream.app.breaker]\nenabled = false\n"
        );
        let (seen, strange) = (Arc::<Mutex<Vec<Message>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        serve(UnixListener::bind(folder.path().join("app")).expect("a socket"), &seen, &strange);
        let file = folder.path().join("flagstone.toml");
        let loaded = config::parse(&text, &file, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let app = App::start(loaded, Source::Fixed).unwrap_or_else(|problems| panic!("{problems}"));
        let listener = folder.path().join("web");
        Self { listener, seen, strange, _app: app, _folder: folder }
    }
}

/// The app: takes down every whole request, and says ok.
fn serve(listener: UnixListener, seen: &Arc<Mutex<Vec<Message>>>, strange: &Arc<Mutex<Vec<String>>>) {
    let (seen, strange) = (Arc::clone(seen), Arc::clone(strange));
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (seen, strange) = (Arc::clone(&seen), Arc::clone(&strange));
            std::thread::spawn(move || answer(socket, &seen, &strange));
        }
    });
}

fn answer(mut socket: UnixStream, seen: &Mutex<Vec<Message>>, strange: &Mutex<Vec<String>>) {
    let (mut came, mut piece, mut done) = (Vec::new(), [0; 4096], 0);
    while let Ok(read @ 1..) = socket.read(&mut piece) {
        came.extend_from_slice(&piece[..read]);
        let (messages, end, _) = requests(&came);
        if let End::Malformed(why) = end {
            lock(strange).push(format!("{why}: {}", came.escape_ascii()));
            return;
        }
        for message in &messages[done..] {
            let is_head = message.method == "HEAD";
            lock(seen).push(message.clone());
            let body = if is_head { "" } else { "ok" };
            if write!(socket, "HTTP/1.1 200 OK\r\nFrom: app\r\nContent-Length: 2\r\n\r\n{body}").is_err() {
                return;
            }
        }
        done = messages.len();
        if end == End::Clean {
            came.clear();
            done = 0;
        }
    }
}

/// Sends the bytes and reads what comes: how many answers were the app's.
fn play(bench: &Bench, bytes: &[u8], expected: &[Message], end: End, rest: &[u8]) -> usize {
    let mut socket = UnixStream::connect(&bench.listener).expect("the listener listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // What is refused in the middle may be closed in the middle.
    let _ = socket.write_all(bytes);
    let (mut came, mut piece, mut answers, mut from_app) = (Vec::new(), [0; 4096], 0, 0);
    loop {
        // The answer to HEAD has no body, also when it is a refusal.
        let asked = expected.get(answers).map(|request| request.method == "HEAD");
        let is_head = asked.unwrap_or_else(|| rest.starts_with(b"HEAD "));
        if let Some((answer, length)) = whole_answer(&came, is_head) {
            came.drain(..length);
            if (100..200).contains(&answer.status) {
                continue;
            }
            answers += 1;
            from_app += usize::from(answer.is_from_app);
            let input = bytes.escape_ascii();
            assert!(answer.is_from_app || answer.has_reason, "{} without a reason\n{input}", answer.status);
            continue;
        }
        if answers >= expected.len() && !matches!(end, End::Malformed(_)) {
            return from_app;
        }
        match socket.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => came.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => {
                panic!("{error} after {answers} of {} answers, {end:?}\n{}", expected.len(), bytes.escape_ascii())
            }
        }
    }
    assert!(came.is_empty(), "half an answer: {}\n{}", came.escape_ascii(), bytes.escape_ascii());
    from_app
}

struct Answer {
    status: u16,
    is_from_app: bool,
    has_reason: bool,
}

/// The first answer in `bytes` and its length, when it is there to its end.
fn whole_answer(bytes: &[u8], is_head: bool) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    let has_body = !is_head && status >= 200 && status != 204 && status != 304;
    let whole = end + if has_body { length.unwrap_or(0) } else { 0 };
    let answer = Answer {
        status,
        is_from_app: head.contains("\r\nfrom: app\r\n"),
        has_reason: head.contains("\r\nflagstone-reason: "),
    };
    (bytes.len() >= whole).then_some((answer, whole))
}

/// Whether what the app saw is what the client said.
fn compare(seen: &Message, said: &Message) -> Result<(), &'static str> {
    if seen.method != said.method {
        return Err("another method");
    }
    if seen.body != said.body {
        return Err("another body");
    }
    if origin_form(&said.target).is_some_and(|target| target != seen.target) {
        return Err("another target");
    }
    let hosts: Vec<_> = seen.fields.iter().filter(|field| field.0 == "host").collect();
    if hosts.len() > 1 {
        return Err("several hosts");
    }
    const OURS: [&str; 10] = [
        "host",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-real-ip",
        "x-request-id",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
    ];
    let is_known = |field: &&(String, Vec<u8>)| OURS.contains(&field.0.as_str()) || said.fields.contains(field);
    if !seen.fields.iter().all(|field| is_known(&field)) {
        return Err("a field that nobody sent");
    }
    Ok(())
}

/// Path and query as they are to be forwarded; `None` for what is neither origin-form nor absolute-form.
fn origin_form(target: &str) -> Option<String> {
    let from_path = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find(['/', '?']).map_or_else(
            || "/".to_owned(),
            |at| match &rest[at..] {
                query if query.starts_with('?') => format!("/{query}"),
                path => path.to_owned(),
            },
        ),
        _ if target.starts_with('/') => target.to_owned(),
        _ => return None,
    };
    let (path, query) = match from_path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (from_path.as_str(), None),
    };
    let path = normalise(path).ok()?;
    Some(query.map_or_else(|| path.to_string(), |query| format!("{path}?{query}")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
