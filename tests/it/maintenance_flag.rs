//! Maintenance by touch: when it begins and ends, whom it stops, and what they read.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::admin;
use crate::support::client::{Client, RawResponse};
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Process, Signal};
use crate::support::proxy::TestProxy;
use crate::support::upstream::FakeUpstream;

const ROUTES: &str = "[[route]]\nname = \"all\"\nrespond = { body = \"here\" }\n\
                      [[route]]\nname = \"shop\"\npath = [\"/shop\"]\nrespond = { body = \"here\" }\n\
                      [[route]]\nname = \"health\"\npath = [\"/health\"]\nmaintenance = \"exempt\"\nrespond = { body = \"here\" }\n";

fn config(more: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{ROUTES}{more}"
    )
}

async fn ask(address: std::net::SocketAddr, method: &str, path: &str, headers: &str) -> RawResponse {
    let mut client = Client::connect(address).await.unwrap();
    client.request(method, path, &format!("{headers}Connection: close\r\n")).await.unwrap();
    if method == "HEAD" { client.read_head_response().await.unwrap() } else { client.read_response().await.unwrap() }
}

async fn status(address: std::net::SocketAddr, path: &str) -> u16 {
    ask(address, "GET", path, "").await.status
}

async fn becomes(address: std::net::SocketAddr, path: &str, expected: u16) -> bool {
    eventually_async(DEADLINE, async || status(address, path).await == expected).await
}

/// A proxy in maintenance by this flag, which is there whole: one that is written in place is an empty one at first.
async fn maintained(flag: &str, more: &str) -> TestProxy {
    let proxy = TestProxy::toml(format!("{ROUTES}{more}")).start().await;
    proxy.folder.replace("state/maintenance.flag", flag);
    assert!(becomes(proxy.address(), "/", 503).await);
    proxy
}

#[tokio::test]
async fn touch_begins_it_and_rm_ends_it_within_a_second() {
    let mut flagstone = Flagstone::serve(&config("")).await;
    let address = flagstone.address("web").await;
    // A busy machine may be late once; the promise is kept when the quickest of some rounds keeps it.
    let mut quickest = [Duration::MAX; 2];
    for _ in 0..5 {
        for (round, expected) in [503, 200].into_iter().enumerate() {
            match expected {
                503 => drop(flagstone.folder.touch("state/maintenance.flag")),
                _ => flagstone.folder.remove("state/maintenance.flag"),
            }
            let began = Instant::now();
            assert!(becomes(address, "/", expected).await);
            quickest[round] = quickest[round].min(began.elapsed());
        }
    }
    assert!(quickest.iter().all(|took| *took < Duration::from_secs(1)), "{quickest:?}");
    let told = |what: &str| flagstone.process.stderr().matches(what).count();
    assert!(eventually(DEADLINE, || told("Maintenance mode deactivated") == 5).await);
    assert_eq!(told("Maintenance mode activated"), 5);
}

#[tokio::test]
async fn it_survives_a_restart() {
    let mut flagstone = Flagstone::serve(&config("")).await;
    flagstone.folder.replace("state/maintenance.flag", "reason = \"upgrade\"\n");
    assert!(becomes(flagstone.address("web").await, "/", 503).await);
    flagstone.process.signal(Signal::TERM);
    flagstone.process.wait(DEADLINE).await;
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), flagstone.config().as_os_str()]);
    let mut again = Process::start(&mut command);
    let line = again.stderr_line("listening name=web").await;
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
    // From the very first request on.
    assert_eq!(status(address, "/").await, 503);
}

#[tokio::test]
async fn the_environment_begins_it_at_the_start() {
    let folder = crate::support::files::Folder::new();
    let file = folder.write("flagstone.toml", config(""));
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let mut process = Process::start(command.env("MAINTENANCE_MODE", "true"));
    let line = process.stderr_line("listening name=web").await;
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
    assert_eq!(status(address, "/").await, 503);
    assert!(folder.read("state/maintenance.flag").contains("by = \"environment\""));
    folder.remove("state/maintenance.flag");
    assert!(becomes(address, "/", 200).await);
}

#[tokio::test]
async fn a_flag_for_no_route_is_told_once_and_covers_nothing() {
    let mut flagstone = Flagstone::serve(&config("")).await;
    let address = flagstone.address("web").await;
    let told = |route: &str, file: &str| {
        let file = flagstone.folder.join(file);
        format!("WARN Maintenance of an unknown route route={route} file={} error=", file.display())
    };
    let (typo, listed) = (told("al", "state/maintenance.d/al.flag"), told("checkout", "state/maintenance.flag"));
    flagstone.folder.replace("state/maintenance.d/al.flag", "");
    let line = flagstone.process.stderr_line(&typo).await;
    assert!(line.ends_with(r#"error="there is no route \"al\": did you mean \"all\"?""#), "{line}");
    flagstone.folder.replace("state/maintenance.flag", "routes = [\"checkout\"]\n");
    let line = flagstone.process.stderr_line(&listed).await;
    assert!(line.contains(r#"there is no route \"checkout\": use "#), "{line}");
    let log = flagstone.process.stderr();
    assert_eq!(log.matches("Maintenance of an unknown route").count(), 2, "{log}");
    assert_eq!(status(address, "/").await, 200);
    let flags = admin::json(flagstone.admin().await, "/api/maintenance/status").await["flags"].take();
    let unknown: Vec<_> = flags.as_array().unwrap().iter().map(|flag| &flag["unknown_routes"]).collect();
    assert_eq!(unknown, [&serde_json::json!(["checkout"]), &serde_json::json!(["al"])]);
}

#[tokio::test]
async fn an_end_that_has_passed_is_told_once_whatever_else_the_flag_says() {
    let mut flagstone = Flagstone::serve(&config("")).await;
    let address = flagstone.address("web").await;
    let log = flagstone.process.stderr();
    assert!(!log.contains("overdue"), "{log}");
    let says = async |until: &str, reason: &str| {
        let flag = format!("until = \"{until}\"\nreason = \"{reason}\"\n");
        flagstone.folder.replace("state/maintenance.flag", flag);
        let page = async || ask(address, "GET", "/", "Accept: text/plain\r\n").await.text().contains(reason);
        assert!(eventually_async(DEADLINE, page).await, "{reason}");
        // Both are told once a second: after a whole one that began with this flag, all is told.
        let blocked = || flagstone.process.stderr().matches("Operation blocked").count();
        let before = blocked();
        assert!(eventually_async(DEADLINE, async || page().await && blocked() >= before + 2).await, "{reason}");
    };
    says("2001-01-01T00:00:00Z", "first").await;
    says("2001-01-01T00:00:00Z", "second").await;
    says("2002-01-01T00:00:00Z", "third").await;
    let log = flagstone.process.stderr();
    assert_eq!(log.matches("Maintenance overdue").count(), 2, "{log}");
}

/// As are the other things that are kept there: an upgrade takes them to their new place.
#[tokio::test]
async fn another_state_folder_takes_the_flag_along_only_with_an_upgrade() {
    let mut flagstone = Flagstone::serve(&config("")).await;
    let address = flagstone.address("web").await;
    let flag = flagstone.folder.touch("state/maintenance.flag");
    assert!(becomes(address, "/", 503).await);
    flagstone.folder.replace("flagstone.toml", config("").replace("\"state\"", "\"other\""));
    let line = flagstone.process.stderr_line("Configuration reloaded").await;
    assert!(line.contains("changes=\"server.state_dir: changed (needs an upgrade)\""), "{line}");
    flagstone.process.stderr_line("flags are looked for in").await;
    assert_eq!(status(address, "/").await, 503, "maintenance ended by a reload");
    std::fs::remove_file(flag).unwrap();
    assert!(becomes(address, "/", 200).await);
    flagstone.folder.write("other/maintenance.flag", "");
    let admin = flagstone.admin().await;
    let path = "/api/admin/maintenance/enable";
    assert_eq!(crate::support::admin::call(admin, "POST", path, None).await.1["by"], "api", "by the flag that holds");
    flagstone.folder.remove("state/maintenance.flag");
    assert!(becomes(address, "/", 200).await);
    flagstone.process.signal(Signal::USR2);
    let line = flagstone.process.stderr_line("Upgrade finished").await;
    assert!(becomes(address, "/", 503).await);
    let pid: i32 = line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
}

#[tokio::test]
async fn exempt_routes_and_paths_stay_open() {
    let more = "[maintenance]\nexempt_paths = [\"=/ping\", \"/public\"]\n";
    let proxy = maintained("", more).await;
    for (path, expected) in [
        ("/", 503),
        ("/shop", 503),
        ("/health", 200),
        ("/ping", 200),
        ("/ping/x", 503),
        ("/public/x", 200),
        ("/publicx", 503),
    ] {
        assert_eq!(status(proxy.address(), path).await, expected, "{path}");
    }
    assert_eq!(status(proxy.address(), "/health/../shop").await, 503);
}

#[tokio::test]
async fn one_route_has_a_flag_of_its_own() {
    let proxy = TestProxy::toml(ROUTES).start().await;
    let address = proxy.address();
    proxy.folder.write("state/maintenance.d/shop.flag", "");
    assert!(becomes(address, "/shop", 503).await);
    assert_eq!(status(address, "/").await, 200);
    proxy.folder.remove("state/maintenance.d/shop.flag");
    assert!(becomes(address, "/shop", 200).await);
}

#[tokio::test]
async fn the_global_flag_covers_what_no_route_matches() {
    let proxy = TestProxy::toml("[[route]]\nname = \"a\"\npath = [\"/a\"]\nrespond = {}\n").start().await;
    assert_eq!(status(proxy.address(), "/b").await, 404);
    proxy.folder.touch("state/maintenance.flag");
    assert!(becomes(proxy.address(), "/b", 503).await);
}

#[tokio::test]
async fn every_kind_of_client_gets_an_answer_it_can_read() {
    let flag = "reason = \"New <racks>\"\nuntil = 2099-01-01T00:00:00Z\n";
    let proxy = maintained(flag, "").await;
    let ask = async |accept: &str| ask(proxy.address(), "GET", "/", accept).await;
    let html = ask("Accept: text/html,*/*;q=0.8\r\n").await;
    assert!(html.header("content-type").unwrap().starts_with("text/html"), "{html:?}");
    assert!(html.text().contains("New &lt;racks&gt;") && !html.text().contains("New <racks>"), "{}", html.text());
    let json = ask("Accept: application/json\r\n").await;
    assert_eq!(json.header("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["maintenance"]["reason"], "New <racks>");
    assert_eq!(problem["maintenance"]["estimated_completion"], "2099-01-01T00:00:00Z");
    let text = ask("Accept: text/plain\r\n").await;
    assert!(
        text.header("content-type").unwrap().starts_with("text/plain") && text.text().contains("New <racks>"),
        "{text:?}"
    );
    for answer in [&html, &json, &text] {
        assert_eq!((answer.status, answer.header("flagstone-reason")), (503, Some("maintenance")));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 1_000_000, "{answer:?}");
    }
}

#[tokio::test]
async fn without_an_end_the_configured_wait_is_told() {
    let proxy = maintained("", "[maintenance]\nretry_after = \"90s\"\n").await;
    assert_eq!(ask(proxy.address(), "GET", "/", "").await.header("retry-after"), Some("90"));
}

#[tokio::test]
async fn head_posts_and_grpc_calls_are_answered_too() {
    let proxy = maintained("", "").await;
    let address = proxy.address();
    let head = ask(address, "HEAD", "/", "").await;
    assert_eq!((head.status, head.header("retry-after")), (503, Some("300")));
    assert!(head.header("content-length").unwrap().parse::<u64>().unwrap() > 0);
    for method in ["DELETE", "OPTIONS", "PATCH"] {
        assert_eq!(ask(address, method, "/", "").await.status, 503, "{method}");
    }
    let grpc =
        ask(address, "POST", "/pkg.Service/Call", "Content-Type: application/grpc\r\nContent-Length: 0\r\n").await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("14")));
    // A body that is on its way is read or the connection closed: it is never taken for a request.
    let mut client = Client::connect(address).await.unwrap();
    let body = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(client.post("/", body).await.unwrap().status, 503);
    let next = client.get("/health").await;
    assert!(next.is_err() || next.unwrap().text() == "here");
}

#[tokio::test]
async fn read_only_lets_reading_through() {
    let upstream = FakeUpstream::http1().route("*", "ok").start().await;
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    );
    let proxy = TestProxy::toml(toml).start().await;
    proxy.folder.replace("state/maintenance.flag", "mode = \"read_only\"\n");
    let blocked = async || ask(proxy.address(), "DELETE", "/", "").await.status == 503;
    assert!(eventually_async(DEADLINE, blocked).await);
    let deletes = || upstream.requests().iter().filter(|request| request.head.line.starts_with("DELETE")).count();
    let before = deletes();
    for (method, expected) in [("GET", 200), ("HEAD", 200), ("OPTIONS", 200), ("DELETE", 503), ("PATCH", 503)] {
        assert_eq!(ask(proxy.address(), method, "/", "").await.status, expected, "{method}");
    }
    assert_eq!(deletes(), before);
}

#[tokio::test]
async fn content_that_is_no_toml_is_the_message_and_odd_flags_count_too() {
    let mut flagstone = Flagstone::serve(&config("")).await;
    let address = flagstone.address("web").await;
    flagstone.folder.replace("state/maintenance.flag", "Back at five!\n");
    assert!(becomes(address, "/", 503).await);
    assert!(ask(address, "GET", "/", "").await.text().contains("Back at five!"));
    flagstone.process.stderr_line("WARN flag file").await;
    flagstone.folder.remove("state/maintenance.flag");
    assert!(becomes(address, "/", 200).await);
    flagstone.folder.fifo("state/maintenance.flag");
    assert!(becomes(address, "/", 503).await);
    flagstone.folder.remove("state/maintenance.flag");
    assert!(becomes(address, "/", 200).await);
    flagstone.folder.create_folder("state/maintenance.flag");
    assert!(becomes(address, "/", 503).await);
}

#[tokio::test]
async fn it_is_in_the_status_and_the_metrics() {
    let proxy = maintained("reason = \"racks\"\nby = \"me\"\n", "").await;
    let status = admin::json(proxy.admin(), "/api/maintenance/status").await;
    assert_eq!((&status["is_active"], &status["mode"]), (&true.into(), &"full".into()));
    assert_eq!((&status["reason"], &status["by"]), (&"racks".into(), &"me".into()));
    assert!(status["blocked_requests"].as_u64().unwrap() >= 1, "{status}");
    let metrics = admin::get(proxy.admin(), "/metrics").await.text();
    assert!(metrics.contains("\nflagstone_maintenance_active{scope=\"global\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("\nflagstone_maintenance_blocked_total{scope=\"global\"} 0\n"), "{metrics}");
}

async fn cli(flagstone: &std::path::Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command: Command = Flagstone::command(["maintenance", "-c"]);
    let ended = Process::run(command.arg(flagstone).args(arguments)).await;
    (ended.status.code().unwrap(), ended.stdout, ended.stderr)
}

#[tokio::test]
async fn the_command_works_with_the_process_up_and_down() {
    let mut flagstone = Flagstone::serve(&config("")).await;
    let (address, file) = (flagstone.address("web").await, flagstone.config());
    let (code, said, _) = cli(&file, &["on", "--reason", "new racks", "--for", "1h"]).await;
    assert!(code == 0 && said.contains("maintenance is on for everything"), "{said}");
    assert!(becomes(address, "/", 503).await);
    assert!(ask(address, "GET", "/", "").await.text().contains("new racks"));
    let (code, said, _) = cli(&file, &["status"]).await;
    assert!(code == 0 && said.contains("new racks"), "{said}");
    assert_eq!(cli(&file, &["off"]).await.0, 0);
    assert!(becomes(address, "/", 200).await);
    assert_eq!(cli(&file, &["on", "--route", "shop", "--read-only"]).await.0, 0);
    assert!(
        eventually_async(DEADLINE, async || ask(address, "POST", "/shop", "Content-Length: 0\r\n").await.status == 503)
            .await
    );
    assert_eq!(cli(&file, &["off", "--route", "shop"]).await.0, 0);

    flagstone.process.signal(Signal::TERM);
    flagstone.process.wait(DEADLINE).await;
    assert_eq!(cli(&file, &["on"]).await.0, 0);
    assert!(flagstone.folder.join("state/maintenance.flag").exists());
    let (code, said, _) = cli(&file, &["status", "--json"]).await;
    assert_eq!(code, 0);
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(status["is_active"], true);
    assert_eq!(cli(&file, &["off"]).await.0, 0);
    assert!(!flagstone.folder.join("state/maintenance.flag").exists());
    let (code, said, _) = cli(&file, &["off"]).await;
    assert!(code == 0 && said.contains("was not on"), "{said}");
}

#[tokio::test]
async fn the_command_says_no_and_wrong_use_apart() {
    let folder = crate::support::files::Folder::new();
    let file = folder.write("flagstone.toml", config(""));
    for wrong in [
        &["on", "--until", "whenever"][..],
        &["on", "--until", "2001-01-01T00:00:00Z"],
        &["on", "--for", "5"],
        &["on", "--route", "../x"],
    ] {
        let (code, said, problem) = cli(&file, wrong).await;
        assert_eq!((code, said.as_str()), (2, ""), "{wrong:?}: {problem}");
    }
    // Before anything has run there is no state folder yet.
    let (code, _, problem) = cli(&file, &["on"]).await;
    assert_eq!(code, 0, "{problem}");
    let gone = folder.join("gone.toml");
    assert_eq!(cli(&gone, &["on"]).await.0, 1);
    folder.write("state-file", "");
    let file = folder.write("flagstone.toml", config("").replace("\"state\"", "\"state-file/state\""));
    let (code, _, problem) = cli(&file, &["on"]).await;
    assert!(code == 1 && problem.contains("cannot write"), "{problem}");
}
