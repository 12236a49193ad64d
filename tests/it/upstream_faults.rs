//! Every fault of an upstream, in tables: what the client sees, and what the upstream saw of it.
//!
//! Faults of what comes beside a well-formed answer (framing, extra bytes, early answers) are in `bad_upstreams`; what
//! is tried again, and how often, in `retries`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use flagstone::upstream::Resolver;
use tokio::task::{JoinSet, LocalSet};

use crate::support::blackhole::Blackhole;
use crate::support::client::{self, Client};
use crate::support::dns::{DnsServer, Mood};
use crate::support::load::Load;
use crate::support::poll::eventually;
use crate::support::proxy::{TestProxy, in_turn};
use crate::support::reply::{Reply, Step};
use crate::support::upstream::{FakeUpstream, OnAccept};

const DEADLINE: Duration = Duration::from_secs(30);
/// One worker: one pool, so that a connection that was kept is the one that is used.
const TABLES: &str = "[server]\nstate_dir = \"state\"\nworkers = 1\n\
    [timeouts]\nconnect = \"1s\"\nresponse_head = \"2s\"\nresponse_body = \"2s\"\n";
const QUIET: &str = "ejection = { failures = 0 }\nbreaker = { enabled = false }\n";

/// What is wrong with an endpoint.
#[derive(Clone)]
enum Fault {
    Refuses,
    /// Neither takes connections nor refuses them.
    Blackhole,
    OnAccept(OnAccept),
    /// What it answers, if it does.
    Answers(Reply),
    /// A kept connection is reset while nobody uses it.
    ResetsIdle,
    /// A kept connection is reset as the next request arrives on it.
    ResetsUsed,
}

struct Row {
    name: &'static str,
    fault: Fault,
    /// GET and POST to it alone, then with a good one behind it: what the client sees, and how many requests arrived.
    seen: [&'static str; 4],
}

/// Status and reason or body for the client, or `broken`; then the requests that came to the faulty endpoint and to the
/// good one behind it. Where two things may happen, whichever the kernel is quicker with, both are named.
#[rustfmt::skip]
fn table() -> Vec<Row> {
    use Fault::{Answers, Refuses, ResetsIdle, ResetsUsed};
    let row = |name, fault, seen| Row { name, fault, seen };
    let lost = ["502 upstream_error | 2", "502 upstream_error | 1", "200 good | 1 1", "502 upstream_error | 1 0"];
    let unheard = [
        "502 upstream_error | 0 or 502 connect_failed | 0",
        "502 upstream_error | 0 or 502 connect_failed | 0",
        "200 good | 0 1",
        // Where the connection broke before anything was sent, a POST may go elsewhere.
        "200 good | 0 1 or 502 upstream_error | 0 0",
    ];
    let broken = ["broken | 1", "broken | 1", "broken | 1 0", "broken | 1 0"];
    let late = ["504 upstream_timeout | 1", "504 upstream_timeout | 1", "504 upstream_timeout | 1 0", "504 upstream_timeout | 1 0"];
    vec![
        //   fault                                               alone: GET, POST; with another: GET, POST
        row("refuses",                 Refuses,                  ["502 connect_failed | 0", "502 connect_failed | 0", "200 good | 0 1", "200 good | 0 1"]),
        row("blackhole",               Fault::Blackhole,         ["504 connect_failed | 0", "504 connect_failed | 0", "200 good | 0 1", "200 good | 0 1"]),
        row("resets on accept",        Fault::OnAccept(OnAccept::Reset),     unheard),
        row("closes on accept",        Fault::OnAccept(OnAccept::Close),     unheard),
        row("accepts and never reads", Fault::OnAccept(OnAccept::Blackhole), ["504 upstream_timeout | 0", "504 upstream_timeout | 0", "504 upstream_timeout | 0 0", "504 upstream_timeout | 0 0"]),
        row("hangs before the head",   Answers(Reply::hang()),   late),
        row("hangs in the head",       Answers(Reply::raw("HTTP/1.1 200 OK\r\nContent-Le").then(Step::Hang)), late),
        row("closes before the head",  Answers(Reply::close()),  lost),
        row("resets before the head",  Answers(Reply::reset()),  lost),
        row("dies in the head",        Answers(Reply::die_in_head()),        lost),
        row("answers no HTTP",         Answers(Reply::raw("hello\r\n\r\n").then(Step::Close)), lost),
        row("answers a bad head",      Answers(Reply::invalid_header()),     lost),
        row("dies behind the head",    Answers(Reply::truncated(10, "")),    broken),
        row("dies in the body",        Answers(Reply::truncated(10, "half")), broken),
        row("dies in a chunk",         Answers(Reply::truncated_chunked()),  broken),
        row("resets in the body",      Answers(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then(Step::Reset)), broken),
        row("hangs in the body",       Answers(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then(Step::Hang)),  broken),
        row("slow body",               Answers(Reply::slow_body(&["so ", "slow ", "a ", "body"], Duration::from_millis(200))),
                                                                 ["200 so slow a body | 1", "200 so slow a body | 1", "200 so slow a body | 1 0", "200 so slow a body | 1 0"]),
        row("resets when idle",        ResetsIdle,               ["200 well | 1", "200 well | 1", "200 well | 1 0", "200 well | 1 0"]),
        // The GET goes on to a connection of its own, the POST may have been read.
        row("resets when used",        ResetsUsed,               ["200 well | 2", "502 upstream_error | 1", "200 well | 2 0", "502 upstream_error | 1 0"]),
    ]
}

/// One request of the table, and its endpoints.
struct Cell {
    what: String,
    path: String,
    method: &'static str,
    fault: Fault,
    bad: Result<FakeUpstream, Blackhole>,
    good: Option<FakeUpstream>,
    expected: &'static str,
}

impl Cell {
    async fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for row in table() {
            let kinds = [("GET", false), ("POST", false), ("GET", true), ("POST", true)];
            for ((method, has_other), expected) in kinds.into_iter().zip(row.seen) {
                let path = format!("/{}", cells.len());
                let bad = start(&row.fault, &path).await;
                let good = if has_other { Some(FakeUpstream::http1().route("*", "good").start().await) } else { None };
                let beside = if has_other { ", another behind it" } else { "" };
                let what = format!("{}: {method}{beside}", row.name);
                cells.push(Self { what, path, method, fault: row.fault.clone(), bad, good, expected });
            }
        }
        cells
    }

    fn toml(&self) -> String {
        let name = &self.path[1..];
        let bad = match &self.bad {
            Ok(app) => app.endpoint(),
            Err(blackhole) => blackhole.address().to_string(),
        };
        let good = self.good.as_ref().map(|good| format!(", {{ address = \"{}\", backup = true }}", good.endpoint()));
        format!(
            "[[route]]\nname = \"{name}\"\npath = [\"/{name}\"]\nupstream = \"u{name}\"\n\
             [upstream.u{name}]\nendpoints = [\"{bad}\"{}]\n{QUIET}",
            good.unwrap_or_default()
        )
    }

    /// Sends the request and tells what became of it, in the words of the table.
    async fn play(&self, proxy: SocketAddr) -> String {
        if let (Fault::ResetsIdle | Fault::ResetsUsed, Ok(bad)) = (&self.fault, &self.bad) {
            let first = client::get(proxy, &format!("{}/first", self.path)).await.unwrap();
            assert_eq!(first.text(), "first");
            if matches!(self.fault, Fault::ResetsIdle) {
                bad.reset_idle();
                assert!(eventually(DEADLINE, || bad.open_connections() == 0).await, "{}", self.what);
            }
        }
        let mut client = Client::connect(proxy).await.unwrap().deadline(DEADLINE);
        let asked = match self.method {
            "POST" => client.post(&self.path, "order").await,
            _ => client.get(&self.path).await,
        };
        let seen = match asked {
            Ok(answer) => match answer.header("flagstone-reason") {
                Some(reason) => format!("{} {reason}", answer.status),
                None => format!("{} {}", answer.status, answer.text()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => panic!("{}: {error}", self.what),
            Err(_) => "broken".to_owned(),
        };
        let bad = self.bad.as_ref().map_or(0, |bad| self.arrived(bad));
        match &self.good {
            None => format!("{seen} | {bad}"),
            Some(good) => format!("{seen} | {bad} {}", self.arrived(good)),
        }
    }

    /// How often the request arrived. Nothing else may have: each connection carries requests, and nothing beside.
    fn arrived(&self, app: &FakeUpstream) -> usize {
        let (mine, first) =
            (format!("{} {} HTTP/1.1", self.method, self.path), format!("GET {}/first HTTP/1.1", self.path));
        let mut count = 0;
        for raw in app.raw() {
            let requests = crate::support::wire::requests(&raw);
            assert_eq!(requests.iter().map(|request| request.len).sum::<usize>(), raw.len(), "{}", self.what);
            for request in requests {
                assert!(request.head.line == mine || request.head.line == first, "{}: {request:?}", self.what);
                let body = if self.method == "POST" && request.head.line == mine { "order" } else { "" };
                assert!(body.as_bytes().starts_with(&request.body), "{}: {request:?}", self.what);
                assert!(!request.complete || request.body == body.as_bytes(), "{}: {request:?}", self.what);
                count += usize::from(request.head.line == mine);
            }
        }
        count
    }
}

async fn start(fault: &Fault, path: &str) -> Result<FakeUpstream, Blackhole> {
    let first = format!("{path}/first");
    let app = FakeUpstream::http1().route(&first, "first").route("*", "well");
    let app = match fault {
        Fault::Blackhole => return Err(Blackhole::dig()),
        Fault::Refuses => {
            let app = app.start().await;
            app.stop().await;
            return Ok(app);
        }
        Fault::OnAccept(on_accept) => app.on_accept(*on_accept),
        Fault::Answers(reply) => app.route("*", reply.clone()),
        Fault::ResetsIdle => app,
        Fault::ResetsUsed => app.reset_after_requests(1),
    };
    Ok(app.start().await)
}

#[tokio::test]
async fn every_fault_is_seen_as_the_table_says() {
    let cells = Cell::all().await;
    let toml: String = TABLES.to_owned() + &cells.iter().map(Cell::toml).collect::<String>();
    let proxy = TestProxy::toml(toml).start().await;
    let address = proxy.address();
    let mut playing = JoinSet::new();
    let local = LocalSet::new();
    for cell in cells {
        let play = async move {
            let seen = cell.play(address).await;
            let is_expected = cell.expected.split(" or ").any(|expected| expected == seen);
            (!is_expected).then(|| format!("{}\n    expected {}\n    but saw  {seen}", cell.what, cell.expected))
        };
        playing.spawn_local_on(play, &local);
    }
    let mut wrong: Vec<_> = local.run_until(playing.join_all()).await.into_iter().flatten().collect();
    wrong.sort();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn with_all_down_the_answer_says_how() {
    let down = async |fault: &Fault| start(fault, "").await.expect("no blackhole");
    let health = "health = { path = \"/first\", interval = \"50ms\" }\n";
    let cases = [
        (Fault::Refuses, "", (502, "connect_failed"), 0),
        (Fault::OnAccept(OnAccept::Reset), health, (503, "no_endpoint"), 0),
        (Fault::Answers(Reply::close()), "", (502, "upstream_error"), 2),
        (Fault::Answers(Reply::hang()), "", (504, "upstream_timeout"), 1),
        (Fault::Answers(Reply::status(500, "")), "", (500, ""), 1),
    ];
    for (fault, extra, expected, arrived) in cases {
        let apps = [down(&fault).await, down(&fault).await];
        let toml = format!("{TABLES}{}", in_turn(&apps.each_ref(), &format!("{QUIET}{extra}")));
        let proxy = TestProxy::toml(toml).start().await;
        let answer = client::get(proxy.address(), "/").await.unwrap();
        assert_eq!((answer.status, answer.header("flagstone-reason").unwrap_or_default()), expected);
        let requests = apps.iter().flat_map(FakeUpstream::requests);
        assert_eq!(requests.filter(|request| request.head.line == "GET / HTTP/1.1").count(), arrived, "{expected:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_flaps_costs_no_request() {
    for (has_other, extra) in [(true, "retry = { budget = 1.0 }\n"), (false, "hold = \"20s\"\n")] {
        let flapping = FakeUpstream::http1().route("*", "ok").start().await;
        let steady = FakeUpstream::http1().route("*", "ok").start().await;
        let apps = [&flapping, &steady];
        let toml = in_turn(if has_other { &apps } else { &apps[..1] }, extra);
        let proxy = TestProxy::toml(toml).start().await;
        let load = Load::get(proxy.address(), "/").tasks(8).pause(Duration::from_millis(1)).start();
        for _ in 0..8 {
            assert!(load.reaches(40, DEADLINE).await);
            flapping.stop().await;
            if has_other {
                assert!(load.reaches(40, DEADLINE).await);
            }
            flapping.restart().await;
        }
        let report = load.stop().await;
        report.assert_clean();
        // Each request arrived, and was repeated once at most.
        let mut arrived: BTreeMap<u64, usize> = BTreeMap::new();
        for request in apps.iter().flat_map(|app| app.requests()) {
            let number = request.head.header("x-number").unwrap().parse().unwrap();
            *arrived.entry(number).or_default() += 1;
        }
        assert_eq!(arrived.len() as u64, report.sent);
        let most = arrived.values().max();
        assert!(most <= Some(&if has_other { 2 } else { 3 }), "{most:?}");
    }
}

/// What happens to a name that had the address of the first replica.
struct NameRow {
    name: &'static str,
    happens: fn(&DnsServer),
    /// Which replicas get requests afterwards. All of them are answered.
    served: &'static [u8],
}

#[rustfmt::skip]
const NAMES: &[NameRow] = &[
    NameRow { name: "stays",            happens: |_| (),                                              served: &[1] },
    NameRow { name: "changes",          happens: |dns| dns.set("app.test", &[ip(2)]),                 served: &[2] },
    NameRow { name: "grows",            happens: |dns| dns.set("app.test", &[ip(3), ip(2), ip(1)]),   served: &[1, 2, 3] },
    NameRow { name: "turns around",     happens: |dns| dns.set("app.test", &[ip(1), ip(1)]),          served: &[1] },
    NameRow { name: "fails to resolve", happens: |dns| dns.set_mood(Mood::Fails),                     served: &[1] },
    NameRow { name: "is not answered",  happens: |dns| dns.set_mood(Mood::Silent),                    served: &[1] },
    NameRow { name: "is gone",          happens: |dns| dns.forget("app.test"),                        served: &[1] },
    NameRow { name: "resolves to none", happens: |dns| dns.set("app.test", &[]),                      served: &[1] },
];

const fn ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

/// Replicas on one port, each at an address of its own.
async fn replicas(count: u8) -> Vec<FakeUpstream> {
    let first = FakeUpstream::http1().route("*", "1").start().await;
    let port = first.address().port();
    let mut all = vec![first];
    for number in 2..=count {
        let address = SocketAddr::from((ip(number), port));
        all.push(FakeUpstream::http1().route("*", number.to_string()).address(address).start().await);
    }
    all
}

async fn following(dns: &DnsServer, port: u16) -> TestProxy {
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"app.test:{port}\"]\n\
         dns_refresh = \"1s\"\nbalance = \"round_robin\"\n"
    );
    TestProxy::toml(toml).resolver(Resolver::from_servers(&[dns.address()])).start().await
}

async fn name_row(row: &NameRow) {
    let (replicas, dns) = (replicas(3).await, DnsServer::start(0).await);
    dns.set("app.test", &[ip(1)]);
    let proxy = following(&dns, replicas[0].address().port()).await;
    assert_eq!(client::get(proxy.address(), "/before").await.unwrap().text(), "1");
    (row.happens)(&dns);
    // Twice for each kind of record: the answer to the first of them has been taken then.
    let asked = dns.asked();
    assert!(eventually(DEADLINE, || dns.asked() >= asked + 3).await, "{}: nobody asks", row.name);
    let until = Instant::now() + DEADLINE;
    loop {
        let mut served = Vec::new();
        for number in 0..6 {
            let path = format!("/after/{number}");
            let answer = match number % 2 {
                0 => client::get(proxy.address(), &path).await.unwrap(),
                _ => Client::connect(proxy.address()).await.unwrap().post(&path, "order").await.unwrap(),
            };
            assert_eq!(answer.status, 200, "{}: {answer:?}", row.name);
            served.push(answer.text().parse::<u8>().unwrap());
        }
        served.sort_unstable();
        served.dedup();
        if served == row.served {
            break;
        }
        assert!(Instant::now() < until, "{}: {served:?} instead of {:?}", row.name, row.served);
    }
    for (number, replica) in (1..).zip(&replicas) {
        let mut lines = replica.requests().into_iter().map(|request| request.head.line);
        let had = lines.any(|line| line.contains("/after/"));
        assert!(!row.served.contains(&number) || had, "{}: {number}", row.name);
    }
}

#[tokio::test]
async fn every_fault_of_a_name_costs_no_request() {
    // Each takes some seconds of waiting for name servers.
    let (mut rows, local) = (JoinSet::new(), LocalSet::new());
    NAMES.iter().for_each(|row| drop(rows.spawn_local_on(name_row(row), &local)));
    local.run_until(rows.join_all()).await;
}

#[tokio::test]
async fn a_name_with_a_hundred_addresses_uses_them_all() {
    let (replicas, dns) = (replicas(100).await, DnsServer::start(60).await);
    let all: Vec<_> = (1..=100).map(ip).collect();
    dns.set("app.test", &all);
    let proxy = following(&dns, replicas[0].address().port()).await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..200 {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    assert!(replicas.iter().all(|replica| replica.requests().len() == 2));
    assert!(dns.asked_over_tcp() > 0, "so many do not fit into one packet");
}
