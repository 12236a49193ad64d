//! Sockets: addresses of every kind, connections spread over workers, bounds on connections and descriptors.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::support::admin;
use crate::support::client::{self, Client, Ending};
use crate::support::files::Folder;
use crate::support::h2::{self, Framed, flag, kind};
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Process};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const HELLO: &str = "[[route]]\nname = \"hello\"\nrespond = { body = \"hello\" }\n";
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn few_long_lived_connections_are_spread_evenly() {
    let proxy = TestProxy::toml(HELLO).start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(proxy.address()).await.unwrap());
    }
    assert!(eventually(DEADLINE, || proxy.connections() == [4, 4]).await, "{:?}", proxy.connections());
    for client in &mut clients {
        assert_eq!(client.get("/").await.unwrap().text(), "hello");
    }
    // Whoever has fewer gets the next: two of one worker's leave, and the balance is found again.
    clients.truncate(4);
    assert!(eventually(DEADLINE, || proxy.connections().iter().sum::<usize>() == 4).await);
    for _ in 0..4 {
        clients.push(Client::connect(proxy.address()).await.unwrap());
    }
    assert!(eventually(DEADLINE, || proxy.connections() == [4, 4]).await, "{:?}", proxy.connections());
}

/// Whoever has connected before a listener goes is served; the queue is not thrown away with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_accepted_connection_is_lost_when_a_listener_goes() {
    let two = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"more\"\naddress = \"127.0.0.1:0\"\n{HELLO}"
    );
    let proxy = TestProxy::toml(&two).start().await;
    for _ in 0..3 {
        let more = proxy.listener("more");
        let load = Load::get(more, "/").tasks(8).on_fresh_connections().start();
        assert!(load.reaches(100, DEADLINE).await);
        proxy.rewrite(HELLO);
        assert!(eventually(DEADLINE, || !proxy.has_listener("more")).await);
        let refused = async || Client::connect(more).await.is_err();
        assert!(eventually_async(DEADLINE, refused).await);
        let report = load.stop().await;
        let lost: Vec<_> = report.failures.iter().filter(|failure| !failure.what.contains("refused")).collect();
        assert!(lost.is_empty(), "{lost:#?}");
        proxy.rewrite(&two);
        assert!(eventually(DEADLINE, || proxy.has_listener("more")).await);
    }
}

fn at(address: &str) -> String {
    format!("[[listener]]\nname = \"web\"\naddress = \"{address}\"\n{HELLO}")
}

/// From one address of this machine to all of them and back, on the same port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_widens_and_narrows_on_its_port_without_a_refusal() {
    let proxy = TestProxy::toml(at("127.0.0.1:0")).start().await;
    let port = proxy.listener("web").port();
    let other = SocketAddr::from(([127, 0, 0, 2], port));
    let load = Load::get(proxy.listener("web"), "/").tasks(4).on_fresh_connections().start();
    assert!(load.reaches(50, DEADLINE).await);
    for _ in 0..3 {
        proxy.rewrite(&at(&format!("0.0.0.0:{port}")));
        let answers = async || client::get(other, "/").await.is_ok_and(|answer| answer.status == 200);
        assert!(eventually_async(DEADLINE, answers).await);
        proxy.rewrite(&at(&format!("127.0.0.1:{port}")));
        let refused = async || Client::connect(other).await.is_err();
        assert!(eventually_async(DEADLINE, refused).await);
    }
    load.stop().await.assert_clean();
}

/// Bound beside the socket that serves, the new one would be asked in its place: what it had taken would be lost with
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_narrows_in_a_file_that_is_refused_costs_nobody_an_answer() {
    let proxy = TestProxy::toml(at("0.0.0.0:0")).start().await;
    let port = proxy.listener("web").port();
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let load = Load::get(here, "/").tasks(4).on_fresh_connections().start();
    for round in 0..5 {
        let test = format!(
            "[[test]]\nname = \"wrong\"\nrequest = {{ url = \"http://a/{round}\" }}\nexpect = {{ status = 404 }}\n"
        );
        proxy.rewrite(&(at(&format!("127.0.0.1:{port}")) + &test));
        let rejected = async || admin::metrics(proxy.admin()).await.contains("flagstone_config_last_reload_success 0");
        assert!(eventually_async(DEADLINE, rejected).await);
        proxy.rewrite(&at(&format!("0.0.0.0:{port}")));
        let accepted = async || admin::metrics(proxy.admin()).await.contains("flagstone_config_last_reload_success 1");
        assert!(eventually_async(DEADLINE, accepted).await);
        assert!(load.reaches(20, DEADLINE).await);
    }
    load.stop().await.assert_clean();
}

/// `listen 80; listen [::]:80;` of nginx. Alone, `[::]` takes IPv4 too.
#[tokio::test]
async fn one_port_has_a_listener_for_each_family_or_one_for_both() {
    let route = |text: &str| format!("[[route]]\nname = \"all\"\nrespond = {{ body = \"{text}\" }}\n");
    let on = |name: &str, address: &str| format!("[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    let proxy = TestProxy::toml(on("v6", "[::]:0") + &route("start")).start().await;
    let port = proxy.listener("v6").port();
    let (v4, v6) = (on("v4", &format!("0.0.0.0:{port}")), on("v6", &format!("[::]:{port}")));
    let here: [SocketAddr; 2] = [([127, 0, 0, 1], port).into(), (std::net::Ipv6Addr::LOCALHOST, port).into()];
    let reached = async |text: &str| {
        for address in here {
            let answers = async || client::get(address, "/").await.is_ok_and(|answer| answer.text() == text);
            assert!(eventually_async(DEADLINE, answers).await, "{address} {text}");
        }
    };
    reached("start").await;
    for (listeners, text) in [(v6.clone(), "both"), (v4.clone() + &v6, "each"), (v6.clone(), "both again")] {
        proxy.rewrite(&(listeners + &route(text)));
        reached(text).await;
        // The listeners follow the routes.
        assert!(eventually(DEADLINE, || proxy.has_listener("v4") == (text == "each")).await, "{text}");
    }
    proxy.rewrite(&(v4 + &route("one")));
    let refused = async || Client::connect(here[1]).await.is_err();
    assert!(eventually_async(DEADLINE, refused).await);
    // And at the start.
    let folder = Folder::new();
    drop(proxy);
    let file = folder.write(
        "flagstone.toml",
        format!(
            "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n{}{v6}{}",
            on("v4", &format!("0.0.0.0:{port}")),
            route("fresh")
        ),
    );
    let mut process = Process::start(&mut Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]));
    process.stderr_line("listening name=v6").await;
    reached("fresh").await;
}

#[tokio::test]
async fn ipv4_ipv6_and_unix_listeners_serve_side_by_side() {
    let folder = Folder::new();
    let socket = folder.join("web.sock");
    let toml = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"six\"\naddress = \"[::1]:0\"\n\
         [[listener]]\nname = \"unix\"\naddress = \"unix:{}\"\n{HELLO}",
        socket.display()
    );
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        left_out!("this machine has no IPv6");
    }
    let proxy = TestProxy::toml(toml).start().await;
    for address in [proxy.address(), proxy.listener("six")] {
        assert_eq!(client::get(address, "/").await.unwrap().text(), "hello");
    }
    let mut client = Client::connect_unix(&socket).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hello");
    assert!(proxy.drain(DEADLINE).await);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_file_that_nobody_listens_on_is_taken_over_and_other_files_are_not() {
    let folder = Folder::new();
    let socket = folder.join("web.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let toml = format!("[[listener]]\nname = \"web\"\naddress = \"unix:{}\"\n{HELLO}", socket.display());
    let proxy = TestProxy::toml(&toml).start().await;
    let mut client = Client::connect_unix(&socket).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "hello");
    // One that is listened on is busy.
    let file =
        folder.write("flagstone.toml", format!("[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n{toml}"));
    let ended = Flagstone::run(["run".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert!(ended.stderr.contains("web.sock: address already in use"), "{}", ended.stderr);
    drop(proxy);
    folder.write("web.sock", "precious");
    let ended = Flagstone::run(["run".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("a file that is no socket is in the way"), "{}", ended.stderr);
    assert_eq!(folder.read("web.sock"), "precious");
}

#[tokio::test]
async fn connections_above_the_bound_wait_and_are_served_later() {
    let toml = format!("[server]\nstate_dir = \"state\"\nworkers = 2\nmax_connections = 2\n{HELLO}");
    let proxy = TestProxy::toml(toml).start().await;
    // They have not asked for anything yet: whoever has, gives up its place.
    let first = Client::connect(proxy.address()).await.unwrap();
    let mut second = Client::connect(proxy.address()).await.unwrap();
    let mut third = Client::connect(proxy.address()).await.unwrap();
    third.request("GET", "/", "").await.unwrap();
    third.expect_silence(SHORT).await.unwrap();
    drop(first);
    assert_eq!(third.read_response().await.unwrap().text(), "hello");
    assert_eq!(second.get("/").await.unwrap().text(), "hello");
}

/// As with nginx, clients that keep their connections and ask for nothing shut nobody out.
#[tokio::test]
async fn whoever_waits_for_a_place_is_given_that_of_the_one_that_has_been_idle_for_longest() {
    let toml = "[server]\nstate_dir = \"state\"\nworkers = 2\nmax_connections = 2\n[timeouts]\nidle = \"1h\"\n";
    let proxy = TestProxy::toml(format!("{toml}{HELLO}")).start().await;
    let connect = async || Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
    let (mut first, mut second) = (connect().await, connect().await);
    for client in [&mut first, &mut second] {
        assert_eq!(client.get("/").await.unwrap().text(), "hello");
    }
    assert_eq!(connect().await.get("/").await.unwrap().text(), "hello");
    assert_eq!(first.expect_closed().await.unwrap(), Ending::Fin);
}

#[tokio::test]
async fn an_idle_connection_of_http2_gives_up_its_place_too() {
    let toml = "[server]\nstate_dir = \"state\"\nworkers = 2\nmax_connections = 1\n[timeouts]\nidle = \"1h\"\n";
    let proxy = TestProxy::toml(format!("{toml}{HELLO}")).start().await;
    let mut idle = Framed::connect(proxy.address()).await;
    idle.send(&h2::request(1, flag::END_STREAM)).await;
    idle.find(|frame| frame.is(kind::DATA, flag::END_STREAM)).await.expect("an answer");
    let mut waiting = Client::connect(proxy.address()).await.unwrap().deadline(DEADLINE);
    assert_eq!(waiting.get("/").await.unwrap().text(), "hello");
    idle.find(|frame| frame.kind == kind::GOAWAY).await.expect("GOAWAY");
}

#[tokio::test]
async fn a_listener_to_which_nobody_comes_takes_no_place() {
    let listeners =
        ["web", "more", "last"].map(|name| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n"));
    let toml =
        format!("[server]\nstate_dir = \"state\"\nworkers = 2\nmax_connections = 1\n{}{HELLO}", listeners.concat());
    let proxy = TestProxy::toml(toml).start().await;
    for name in ["web", "web", "more", "last", "last", "web"] {
        assert_eq!(client::get(proxy.listener(name), "/").await.unwrap().text(), "hello", "{name}");
    }
}

/// The system's queue closes with the listener, and whoever waits in it is no less a client than those before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_place_is_served_when_the_listener_goes() {
    for drains in [false, true] {
        let word = Arc::new(Notify::new());
        let app = FakeUpstream::http1().route("/held", Reply::ok("held").at(&word)).route("/", "hello").start().await;
        let config = |address: &str| {
            format!(
                "[server]\nstate_dir = \"state\"\nworkers = 2\nmax_connections = 2\n[[listener]]\nname = \"web\"\n\
                 address = \"{address}\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\n\
                 endpoints = [\"{}\"]\n",
                app.endpoint()
            )
        };
        let proxy = TestProxy::toml(config("127.0.0.1:0")).start().await;
        let address = proxy.address();
        let mut served = Vec::new();
        for _ in 0..2 {
            let mut client = Client::connect(address).await.unwrap();
            client.request("GET", "/held", "Connection: close\r\n").await.unwrap();
            served.push(client);
        }
        assert!(eventually(DEADLINE, || app.requests().len() == 2).await);
        let mut waiting = Vec::new();
        for _ in 0..5 {
            let mut client = Client::connect(address).await.unwrap().deadline(DEADLINE);
            client.request("GET", "/", "Connection: close\r\n").await.unwrap();
            waiting.push(client);
        }
        let draining = if drains {
            let draining = tokio::spawn(proxy.drain(DEADLINE));
            let refused = async || Client::connect(address).await.is_err();
            assert!(eventually_async(DEADLINE, refused).await);
            Some(draining)
        } else {
            // And back at once: they hold no address that they do not listen on.
            proxy.reload_with(&config("127.0.0.2:0")).await;
            proxy.reload_with(&config(&address.to_string())).await;
            assert_eq!(proxy.address(), address);
            None
        };
        word.notify_waiters();
        for client in &mut served {
            assert_eq!(client.read_response().await.unwrap().text(), "held");
        }
        for client in &mut waiting {
            assert_eq!(client.read_response().await.unwrap().text(), "hello", "{drains}");
        }
        if let Some(draining) = draining {
            assert!(draining.await.unwrap(), "all came to their end");
        }
    }
}

#[tokio::test]
async fn whoever_waits_for_a_place_is_served_however_many_reloads_after_the_listener_went() {
    let word = Arc::new(Notify::new());
    let app = FakeUpstream::http1().route("/held", Reply::ok("held").at(&word)).start().await;
    let config = |listener: &str, text: &str| {
        format!(
            "[server]\nstate_dir = \"state\"\nworkers = 2\nmax_connections = 1\n[[listener]]\nname = \"{listener}\"\n\
             address = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nrespond = {{ body = \"{text}\" }}\n\
             [[route]]\nname = \"held\"\npath = [\"/held\"]\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
            app.endpoint()
        )
    };
    let proxy = TestProxy::toml(config("old", "one")).start().await;
    let old = proxy.listener("old");
    let mut served = Client::connect(old).await.unwrap().deadline(DEADLINE);
    served.request("GET", "/held", "Connection: close\r\n").await.unwrap();
    assert!(eventually(DEADLINE, || app.requests().len() == 1).await);
    let mut waiting = Client::connect(old).await.unwrap().deadline(DEADLINE);
    waiting.request("GET", "/", "").await.unwrap();
    for text in ["two", "three", "four"] {
        proxy.reload_with(&config("new", text)).await;
    }
    assert!(eventually_async(DEADLINE, async || Client::connect(old).await.is_err()).await);
    word.notify_waiters();
    assert_eq!(served.read_response().await.unwrap().text(), "held");
    assert_eq!(waiting.read_response().await.unwrap().text(), "four");
}

/// Processor time of a process so far, in clock ticks.
fn ticks(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn out_of_descriptors_it_waits_without_spinning_and_recovers() {
    let folder = Folder::new();
    let config = format!(
        "[server]\nstate_dir = \"state\"\nworkers = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{HELLO}"
    );
    let file = folder.write("flagstone.toml", config);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" run -c \"$1\"", env!("CARGO_BIN_EXE_flagstone")]).arg(file);
    let mut process = Process::start(command.current_dir(folder.path()));
    let line = process.stderr_line("listening name=web").await;
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
    let mut kept = Client::connect(address).await.unwrap();
    assert_eq!(kept.get("/").await.unwrap().text(), "hello");
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(Client::connect(address).await.unwrap());
    }
    process.stderr_line("cannot accept connections at the moment").await;
    // Who is in is served, who is not costs next to nothing.
    let before = ticks(process.id());
    let waited = std::time::Instant::now();
    while waited.elapsed() < Duration::from_secs(2) {
        assert_eq!(kept.get("/").await.unwrap().text(), "hello");
        kept.expect_silence(Duration::from_millis(100)).await.unwrap();
    }
    let spent = ticks(process.id()) - before;
    assert!(spent < 100, "{spent} ticks in {:?}: a busy loop", waited.elapsed());
    drop(crowd);
    let recovered = async || client::get(address, "/").await.is_ok_and(|answer| answer.text() == "hello");
    assert!(eventually_async(DEADLINE, recovered).await);
    let told = process.stderr().matches("cannot accept connections at the moment").count();
    assert!(told < 20, "told {told} times");
}

#[tokio::test]
async fn a_crowd_of_short_connections_leaves_nothing_behind() {
    let upstream = FakeUpstream::http1().route("*", Reply::ok("ok")).start().await;
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).start().await;
    let load = Load::get(proxy.address(), "/").tasks(8).on_fresh_connections().start();
    assert!(load.reaches(500, DEADLINE).await);
    load.stop().await.assert_clean();
    assert!(eventually(DEADLINE, || proxy.connections() == [0, 0]).await, "{:?}", proxy.connections());
}
