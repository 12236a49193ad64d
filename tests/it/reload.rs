//! The configuration changes while requests run: every way to change the file, and what outlives a change.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::admin;
use crate::support::client::{self, Client};
use crate::support::files::Folder;
use crate::support::load::Load;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Signal};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

fn says(text: &str) -> String {
    format!("[[route]]\nname = \"all\"\nrespond = {{ body = \"{text}\" }}\n")
}

async fn comes_to_say(proxy: &TestProxy, text: &str) -> bool {
    eventually_async(DEADLINE, async || client::get(proxy.address(), "/").await.unwrap().text() == text).await
}

/// The value of a metric without labels.
async fn metric(proxy: &TestProxy, name: &str) -> f64 {
    let text = admin::get(proxy.admin(), "/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn a_rewritten_a_replaced_and_a_recreated_file_are_read() {
    let proxy = TestProxy::toml(says("one")).start().await;
    assert!(comes_to_say(&proxy, "one").await);
    proxy.rewrite(&says("two"));
    assert!(comes_to_say(&proxy, "two").await);
    let text = proxy.folder.read("flagstone.toml");
    proxy.folder.replace("flagstone.toml", text.replace("two", "three"));
    assert!(comes_to_say(&proxy, "three").await);
    proxy.folder.remove("flagstone.toml");
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "three");
    proxy.folder.write("flagstone.toml", text.replace("two", "four"));
    assert!(comes_to_say(&proxy, "four").await);
}

/// A Kubernetes ConfigMap: the file is a link into a link that is swapped.
#[tokio::test]
async fn a_swapped_link_on_the_way_to_the_file_is_followed() {
    let folder = Folder::new();
    let base = "[server]\nstate_dir = \"/tmp\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\n\
                address = \"127.0.0.1:0\"\n";
    let base = base.replace("/tmp", &folder.join("state").display().to_string());
    folder.write("..1/flagstone.toml", format!("{base}{}", says("one")));
    folder.write("..2/flagstone.toml", format!("{base}{}", says("two")));
    folder.write("..3/flagstone.toml", format!("{base}{}", says("three")));
    folder.swap_link("..data", "..1");
    folder.swap_link("flagstone.toml", "..data/flagstone.toml");
    let file = folder.join("flagstone.toml");
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let mut process = crate::support::process::Process::start(&mut command);
    let line = process.stderr_line("listening name=web").await;
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
    for (link, text) in [("..1", "one"), ("..2", "two"), ("..3", "three"), ("..1", "one")] {
        folder.swap_link("..data", link);
        let said = async || client::get(address, "/").await.unwrap().text() == text;
        assert!(eventually_async(DEADLINE, said).await, "{text}: {}", process.stderr());
    }
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_one_and_every_error_is_printed() {
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n{}",
        says("one")
    );
    let mut flagstone = Flagstone::serve(&config).await;
    let (address, admin) = (flagstone.address("web").await, flagstone.admin().await);
    flagstone.folder.write("flagstone.toml", format!("{config}[servr]\n[upstream.app]\nendpoints = [\"x\"]\n"));
    let line = flagstone.process.stderr_line("Configuration rejected").await;
    assert!(line.contains("servr: unknown key") && line.contains("; and 1 more\""), "{line}");
    flagstone.process.stderr_line("servr: unknown key: did you mean \"server\"?").await;
    flagstone.process.stderr_line("upstream.app.endpoints[0] = \"x\"").await;
    assert_eq!(client::get(address, "/").await.unwrap().text(), "one");
    let metrics = admin::get(admin, "/metrics").await.text();
    assert!(metrics.contains("\nflagstone_config_last_reload_success 0\n"), "{metrics}");
    assert!(metrics.contains("\nflagstone_config_generation 1\n"), "{metrics}");
    // Not TOML at all, then empty, then what it was.
    flagstone.folder.write("flagstone.toml", "[[[");
    flagstone.process.stderr_line("not TOML").await;
    flagstone.folder.write("flagstone.toml", &config);
    flagstone.process.stderr_line("Configuration reloaded").await;
    let metrics = admin::get(admin, "/metrics").await.text();
    assert!(metrics.contains("\nflagstone_config_last_reload_success 1\n"), "{metrics}");
    assert_eq!(client::get(address, "/").await.unwrap().text(), "one");
}

#[tokio::test]
async fn hup_reloads_at_once() {
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}",
        says("one")
    );
    let mut flagstone = Flagstone::serve(&config).await;
    flagstone.process.signal(Signal::HUP);
    let line = flagstone.process.stderr_line("Configuration reloaded").await;
    assert!(line.contains("generation=2"), "{line}");
}

#[tokio::test]
async fn listeners_come_and_go_without_touching_others() {
    let two = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"more\"\naddress = \"127.0.0.1:0\"\n{}",
        says("two")
    );
    let proxy = TestProxy::toml(says("one")).start().await;
    let web = proxy.address();
    let mut kept = Client::connect(web).await.unwrap();
    kept.get("/").await.unwrap();
    proxy.rewrite(&two);
    assert!(comes_to_say(&proxy, "two").await);
    assert!(eventually(DEADLINE, || proxy.has_listener("more")).await);
    let more = proxy.listener("more");
    let mut on_more = Client::connect(more).await.unwrap();
    assert_eq!(on_more.get("/").await.unwrap().text(), "two");
    proxy.rewrite(&says("three"));
    assert!(comes_to_say(&proxy, "three").await);
    assert_eq!(proxy.address(), web);
    // Open connections go on, on both; only new ones are refused.
    assert_eq!(kept.get("/").await.unwrap().text(), "three");
    assert_eq!(on_more.get("/").await.unwrap().text(), "three");
    // Refused, or somebody else's: the port is free for other programs now.
    let is_gone = async || client::get(more, "/").await.map_or(true, |answer| answer.text() != "three");
    assert!(eventually_async(DEADLINE, is_gone).await);
}

#[tokio::test]
async fn a_listener_under_another_name_keeps_its_socket() {
    let folder = Folder::new();
    let socket = folder.join("web.sock");
    let toml = |name: &str| {
        format!("[[listener]]\nname = \"{name}\"\naddress = \"unix:{}\"\n{}", socket.display(), says(name))
    };
    let proxy = TestProxy::toml(toml("one")).start().await;
    let mut kept = Client::connect_unix(&socket).await.unwrap();
    for name in ["two", "three", "one", "four"] {
        proxy.rewrite(&toml(name));
        let says = async || {
            let mut client = Client::connect_unix(&socket).await.unwrap();
            client.get("/").await.unwrap().text() == name
        };
        assert!(eventually_async(DEADLINE, says).await, "{name}");
        assert_eq!(kept.get("/").await.unwrap().text(), name);
    }
}

#[tokio::test]
async fn a_busy_new_address_refuses_the_whole_file() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = TestProxy::toml(says("one")).start().await;
    let (web, generation) = (proxy.address(), metric(&proxy, "flagstone_config_generation").await);
    proxy.rewrite(&format!(
        "[log]\naccess = \"other.log\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"more\"\naddress = \"{}\"\n{}",
        taken.local_addr().unwrap(),
        says("two")
    ));
    let refused = async || metric(&proxy, "flagstone_config_last_reload_success").await == 0.0;
    assert!(eventually_async(DEADLINE, refused).await);
    assert_eq!(metric(&proxy, "flagstone_config_generation").await, generation);
    assert_eq!(client::get(web, "/").await.unwrap().text(), "one");
    assert!(!proxy.folder.join("other.log").exists());
}

#[tokio::test]
async fn a_limit_that_did_not_change_goes_on_counting() {
    let toml = |text: &str| {
        format!(
            "[[route]]\nname = \"all\"\nrespond = {{ body = \"{text}\" }}\nlimits = [\"per_ip\"]\n\
             [[route]]\nname = \"free\"\npath = [\"=/free\"]\nrespond = {{ body = \"{text}\" }}\n\
             [limit.per_ip]\nrate = \"4/1h\"\n"
        )
    };
    let proxy = TestProxy::toml(toml("one")).start().await;
    for _ in 0..3 {
        assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    }
    proxy.rewrite(&toml("two"));
    let said = async || client::get(proxy.address(), "/free").await.unwrap().text() == "two";
    assert!(eventually_async(DEADLINE, said).await);
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 429);
}

#[tokio::test]
async fn a_breaker_stays_open_and_pools_are_kept_when_the_upstream_did_not_change() {
    let failing = FakeUpstream::http1().route("*", Reply::status(500, "no")).start().await;
    let fine = FakeUpstream::http1().route("*", "fine").start().await;
    let toml = |text: &str| {
        format!(
            "[[route]]\nname = \"bad\"\npath = [\"/bad\"]\nupstream = \"bad\"\n[[route]]\nname = \"fine\"\npath = [\"/fine\"]\n\
             upstream = \"fine\"\n[[route]]\nname = \"text\"\nrespond = {{ body = \"{text}\" }}\n\
             [upstream.bad]\nendpoints = [\"{}\"]\n[upstream.bad.breaker]\nfailures = 2\nopen = \"1h\"\nmax_open = \"1h\"\n\
             [upstream.fine]\nendpoints = [\"{}\"]\nidle_timeout = \"1m\"\n",
            failing.endpoint(),
            fine.endpoint()
        )
    };
    let proxy = TestProxy::toml(toml("one")).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    assert_eq!(client.get("/fine").await.unwrap().text(), "fine");
    for status in [500, 500, 503] {
        assert_eq!(client.get("/bad").await.unwrap().status, status);
    }
    proxy.rewrite(&toml("two"));
    assert!(comes_to_say(&proxy, "two").await);
    let refused = client.get("/bad").await.unwrap();
    assert_eq!((refused.status, refused.header("flagstone-reason")), (503, Some("circuit_open")));
    assert_eq!(client.get("/fine").await.unwrap().text(), "fine");
    assert_eq!((failing.requests().len(), fine.connections()), (2, 1));
}

/// Some of its settings changed: what the others have found out still holds.
#[tokio::test]
async fn what_did_not_change_of_an_upstream_carries_over() {
    let good = FakeUpstream::http1().route("*", "good").start().await;
    let bad = FakeUpstream::http1().route("*", Reply::status(500, "bad")).start().await;
    let spare = FakeUpstream::http1().route("*", "spare").start().await;
    let toml = |text: &str, extra: &str, breaker: &str, ejection: &str| {
        format!(
            "[[route]]\nname = \"app\"\npath = [\"/app\"]\nupstream = \"app\"\n[[route]]\nname = \"text\"\n\
             respond = {{ body = \"{text}\" }}\n[upstream.app]\nidle_timeout = \"1m\"\nbalance = \"round_robin\"\n\
             endpoints = [\"{}\", \"{}\"{extra}]\n\
             [upstream.app.breaker]\nfailures = {breaker}\nfailure_ratio = 0.0\n[upstream.app.ejection]\nfailures = {ejection}\nbase = \"1h\"\nmax = \"1h\"\n",
            good.endpoint(),
            bad.endpoint()
        )
    };
    let with_spare = format!(", {{ address = \"{}\", backup = true }}", spare.endpoint());
    let proxy = TestProxy::toml(toml("one", "", "9", "1")).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let mut statuses = async |count: usize| {
        let mut statuses = Vec::new();
        for _ in 0..count {
            statuses.push(client.get("/app").await.unwrap().status);
        }
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(statuses(4).await, [200, 200, 200, 500]);
    let breaker = async || crate::support::admin::breaker(proxy.admin(), "app").await;
    let connections = good.connections();

    // An endpoint more: the bad one stays ejected, connections are kept, the breaker goes on counting.
    proxy.rewrite(&toml("two", &with_spare, "9", "1"));
    assert!(comes_to_say(&proxy, "two").await);
    assert_eq!(statuses(4).await, [200; 4]);
    assert_eq!((bad.requests().len(), good.connections()), (1, connections));
    assert_eq!(breaker().await["statistics"]["totalCalls"], 8);

    // Forced open, then an endpoint less: it stays open.
    crate::support::admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/app/open").await;
    proxy.rewrite(&toml("three", "", "9", "1"));
    assert!(comes_to_say(&proxy, "three").await);
    assert_eq!((statuses(2).await, &breaker().await["state"]), (vec![503, 503], &"OPEN".into()));

    // Another rule for the breaker, then for ejection: each begins anew, but what is forced open stays so.
    proxy.rewrite(&toml("four", "", "8", "1"));
    assert!(comes_to_say(&proxy, "four").await);
    let anew = breaker().await;
    assert_eq!((&anew["state"], &anew["statistics"]["totalCalls"]), (&"OPEN".into(), &0.into()));
    crate::support::admin::ask(proxy.admin(), "POST", "/api/admin/circuit-breakers/app/reset").await;
    assert_eq!((statuses(2).await, bad.requests().len()), (vec![200, 200], 1));
    proxy.rewrite(&toml("five", "", "8", "2"));
    assert!(comes_to_say(&proxy, "five").await);
    statuses(2).await;
    assert_eq!((bad.requests().len(), &breaker().await["statistics"]["totalCalls"]), (2, &4.into()));
}

#[tokio::test]
async fn a_request_in_flight_finishes_on_its_generation() {
    let last = Arc::new(Notify::new());
    let old = FakeUpstream::http1().route("/slow", Reply::ok("old").at(&last)).start().await;
    let toml = |endpoint: &str, text: &str| {
        format!(
            "[[route]]\nname = \"app\"\npath = [\"/slow\"]\nupstream = \"app\"\n\
             [[route]]\nname = \"text\"\nrespond = {{ body = \"{text}\" }}\n[upstream.app]\nendpoints = [\"{endpoint}\"]\n"
        )
    };
    let new = FakeUpstream::http1().route("/slow", "new").start().await;
    let proxy = TestProxy::toml(toml(&old.endpoint(), "one")).start().await;
    let mut slow = Client::connect(proxy.address()).await.unwrap();
    slow.request("GET", "/slow", "").await.unwrap();
    assert!(eventually(DEADLINE, || old.requests().len() == 1).await);
    proxy.rewrite(&toml(&new.endpoint(), "two"));
    assert!(comes_to_say(&proxy, "two").await);
    assert_eq!(client::get(proxy.address(), "/slow").await.unwrap().text(), "new");
    last.notify_one();
    assert_eq!(slow.read_response().await.unwrap().text(), "old");
    assert_eq!(slow.get("/slow").await.unwrap().text(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_cost_no_request() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let toml = |round: usize| {
        // The upstream is rebuilt on every other round, the listener `other` comes and goes.
        let other =
            if round.is_multiple_of(3) { "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\n" } else { "" };
        format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{other}[[route]]\nname = \"all\"\nupstream = \"app\"\n\
             [upstream.app]\nendpoints = [\"{}\"]\nmax_idle = {}\n",
            upstream.endpoint(),
            8 + round / 2
        )
    };
    let proxy = TestProxy::toml(toml(0)).start().await;
    let kept = Load::get(proxy.address(), "/").tasks(4).start();
    let fresh = Load::get(proxy.address(), "/").tasks(2).on_fresh_connections().start();
    for round in 1..=50 {
        proxy.rewrite(&toml(round));
        let control = Arc::clone(proxy.control());
        tokio::task::spawn_blocking(move || control.reload()).await.unwrap().unwrap();
        assert!(kept.reaches(3, DEADLINE).await && fresh.reaches(3, DEADLINE).await);
    }
    kept.stop().await.assert_clean();
    fresh.stop().await.assert_clean();
    assert!(metric(&proxy, "flagstone_config_generation").await >= 51.0);
}

/// A file that is written in two halves with a pause is read once it is whole; were the first half taken, it would
/// be refused.
#[tokio::test]
async fn a_file_that_is_being_written_is_waited_for() {
    use std::io::Write as _;
    let proxy = TestProxy::toml(says("one")).start().await;
    let text = proxy.folder.read("flagstone.toml").replace("one", "two");
    let (first, second) = text.split_at(text.find("respond").unwrap());
    let mut file = std::fs::File::create(proxy.folder.join("flagstone.toml")).unwrap();
    for part in [first, second] {
        for byte in part.bytes() {
            file.write_all(&[byte]).unwrap();
        }
    }
    drop(file);
    assert!(comes_to_say(&proxy, "two").await);
    assert_eq!(metric(&proxy, "flagstone_config_last_reload_success").await, 1.0);
    assert_eq!(metric(&proxy, "flagstone_config_generation").await, 2.0);
}

/// Valid and invalid in quick turn: whatever is read on the way, the last word counts.
#[tokio::test]
async fn a_file_in_turmoil_ends_as_its_last_word() {
    let proxy = TestProxy::toml(says("one")).start().await;
    let text = proxy.folder.read("flagstone.toml");
    for round in 0..300_u32 {
        match round % 3 {
            0 => proxy.folder.write("flagstone.toml", "[[[ no TOML"),
            1 => proxy.folder.replace("flagstone.toml", text.replace("one", &format!("round {round}"))),
            _ => proxy.folder.write("flagstone.toml", text.replace("one", "almost")),
        };
        if round.is_multiple_of(10) {
            assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 200);
        }
    }
    proxy.folder.replace("flagstone.toml", text.replace("one", "last"));
    assert!(comes_to_say(&proxy, "last").await);
    assert_eq!(metric(&proxy, "flagstone_config_last_reload_success").await, 1.0);
}
