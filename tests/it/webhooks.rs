//! `[[notify]]`: what happens is told over HTTP and HTTPS, to receivers on good and bad days.

use std::net::SocketAddr;
use std::time::Duration;

use flagstone::upstream::Resolver;
use serde_json::Value;

use crate::support::blackhole::Blackhole;
use crate::support::certs::Ca;
use crate::support::dns::DnsServer;
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::process::{Flagstone, Process, Signal};
use crate::support::proxy::TestProxy;
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const PATIENCE: Duration = Duration::from_secs(20);
const ROUTE: &str = "[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n";

fn webhook(url: &str, format: &str, events: &str) -> String {
    format!("[[notify]]\nurl = \"{url}\"\nformat = \"{format}\"\nevents = [{events}]\n")
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/hooks/s3cret")
}

/// The bodies that a receiver got, read to their end.
fn bodies(receiver: &FakeUpstream) -> Vec<Value> {
    let requests = receiver.requests();
    requests.iter().filter_map(|request| serde_json::from_slice(&request.body).ok()).collect()
}

fn messages(receiver: &FakeUpstream) -> Vec<String> {
    bodies(receiver).iter().filter_map(|body| body["message"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn maintenance_is_told_in_order_and_other_kinds_are_not() {
    let receiver = FakeUpstream::http1().route("*", "ok").start().await;
    let toml = format!("{ROUTE}{}", webhook(&url(receiver.address()), "json", "\"maintenance\""));
    let proxy = TestProxy::toml(toml).start().await;
    proxy.folder.replace("state/maintenance.flag", "reason = \"Upgrade\"\nby = \"me\"\n");
    assert!(eventually(PATIENCE, || messages(&receiver).len() == 1).await);
    proxy.control().reload().unwrap();
    proxy.folder.remove("state/maintenance.flag");
    assert!(eventually(PATIENCE, || messages(&receiver).len() == 2).await);
    assert_eq!(messages(&receiver), ["Maintenance mode activated", "Maintenance mode deactivated"]);
    let request = &receiver.requests()[0];
    assert_eq!(request.head.line, "POST /hooks/s3cret HTTP/1.1");
    assert_eq!(request.head.header("content-type"), Some("application/json"));
    let body = &bodies(&receiver)[0];
    assert_eq!((&body["kind"], &body["reason"]), (&"maintenance".into(), &"Upgrade".into()));
    assert_eq!((&body["by"], &body["scope"]), (&"me".into(), &"global".into()));
}

#[tokio::test]
async fn slack_gets_a_text() {
    let receiver = FakeUpstream::http1().route("*", "ok").start().await;
    let toml = format!("{ROUTE}{}", webhook(&url(receiver.address()), "slack", "\"reload\""));
    let proxy = TestProxy::toml(toml).start().await;
    proxy.control().reload().unwrap();
    assert!(eventually(PATIENCE, || bodies(&receiver).len() == 1).await);
    let text = bodies(&receiver)[0]["text"].as_str().unwrap().to_owned();
    let this_machine = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!(text, format!(":information_source: *Configuration reloaded*\ngeneration: 2\nhost: {this_machine}"));
}

#[tokio::test]
async fn a_receiver_that_comes_back_gets_what_it_missed() {
    let receiver = FakeUpstream::http1().route("*", Reply::status(503, "later")).start().await;
    let toml = format!("{ROUTE}{}", webhook(&url(receiver.address()), "json", "\"reload\""));
    let proxy = TestProxy::toml(toml).start().await;
    proxy.control().reload().unwrap();
    assert!(eventually(PATIENCE, || !messages(&receiver).is_empty()).await);
    receiver.set_route("*", "ok");
    let tries = messages(&receiver).len();
    assert!(eventually(PATIENCE, || messages(&receiver).len() > tries).await);
    proxy.control().reload().unwrap();
    let generation = |generation: i64| bodies(&receiver).iter().filter(|body| body["generation"] == generation).count();
    assert!(eventually(PATIENCE, || generation(3) == 1).await);
    assert!(generation(2) >= 2, "it was tried again");
}

#[tokio::test]
async fn a_receiver_that_says_no_is_not_asked_again() {
    let receiver = FakeUpstream::http1().route("*", Reply::status(410, "gone")).start().await;
    let toml = format!("{ROUTE}{}", webhook(&url(receiver.address()), "json", "\"reload\""));
    let proxy = TestProxy::toml(toml).start().await;
    proxy.control().reload().unwrap();
    proxy.control().reload().unwrap();
    // The second event comes when the first one is done with.
    assert!(eventually(PATIENCE, || messages(&receiver).len() == 2).await);
    let generations: Vec<_> = bodies(&receiver).iter().map(|body| body["generation"].as_i64()).collect();
    assert_eq!(generations, [Some(2), Some(3)]);
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_neither_requests_nor_other_webhooks() {
    let hanging = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let good = FakeUpstream::http1().route("*", "ok").start().await;
    let (slow, quick) = (url(hanging.address()), url(good.address()));
    let toml = format!("{ROUTE}{}{}", webhook(&slow, "json", "\"reload\""), webhook(&quick, "json", "\"reload\""));
    let proxy = TestProxy::toml(toml).start().await;
    // More than the slow one's queue can hold.
    for _ in 0..150 {
        proxy.control().reload().unwrap();
        let response = crate::support::client::get(proxy.address(), "/").await.unwrap();
        assert_eq!(response.status, 200);
    }
    assert!(eventually(PATIENCE, || messages(&good).len() == 150).await, "{}", messages(&good).len());
    assert_eq!(hanging.requests().len(), 1);
}

#[tokio::test]
async fn an_address_that_is_silent_leaves_time_for_the_next() {
    let hole = Blackhole::dig();
    let port = hole.address().port();
    let address = SocketAddr::from(([127, 0, 0, 2], port));
    let receiver = FakeUpstream::http1().route("*", "ok").address(address).start().await;
    let dns = DnsServer::start(60).await;
    dns.set("hooks.test", &[[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]);
    let toml = format!("{ROUTE}{}", webhook(&format!("http://hooks.test:{port}/"), "json", "\"reload\""));
    let proxy = TestProxy::toml(toml).resolver(Resolver::from_servers(&[dns.address()])).start().await;
    proxy.control().reload().unwrap();
    assert!(eventually(PATIENCE, || messages(&receiver).len() == 1).await);
}

/// A configuration for a process, with one webhook for maintenance.
fn site_with(webhook: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{ROUTE}{webhook}"
    )
}

#[tokio::test]
async fn what_still_waits_is_told_before_the_process_ends() {
    let receiver = FakeUpstream::http1().route("*", Reply::status(503, "later")).start().await;
    let mut flagstone =
        Flagstone::serve(&site_with(&webhook(&url(receiver.address()), "json", "\"maintenance\""))).await;
    flagstone.address("web").await;
    // The third event waits for the second, which waits for another try of the first.
    let flag = "state/maintenance.flag";
    flagstone.folder.write(flag, "");
    assert!(eventually(PATIENCE, || !messages(&receiver).is_empty()).await);
    flagstone.folder.remove(flag);
    flagstone.process.stderr_line("Maintenance mode deactivated").await;
    receiver.set_route("*", "ok");
    let before = messages(&receiver).len();
    flagstone.process.signal(Signal::TERM);
    assert!(flagstone.process.wait(PATIENCE).await.success());
    let told = messages(&receiver).split_off(before);
    assert_eq!(told, ["Maintenance mode activated", "Maintenance mode deactivated"]);
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_keep_a_process_from_ending() {
    let hanging = FakeUpstream::http1().route("*", Reply::hang()).start().await;
    let mut flagstone =
        Flagstone::serve(&site_with(&webhook(&url(hanging.address()), "json", "\"maintenance\""))).await;
    flagstone.address("web").await;
    flagstone.folder.write("state/maintenance.flag", "");
    assert!(eventually(PATIENCE, || hanging.requests().len() == 1).await);
    flagstone.process.signal(Signal::TERM);
    flagstone.process.stderr_line("webhooks have not taken their last events").await;
    assert!(flagstone.process.wait(PATIENCE).await.success());
}

#[tokio::test]
async fn https_is_verified_against_the_operators_roots_and_the_log_shows_no_url() {
    let ca = Ca::new();
    let receiver =
        FakeUpstream::http1().route("*", "ok").tls(ca.leaf(&["localhost"]).server_config(&[b"http/1.1"])).start().await;
    let stranger = FakeUpstream::http1()
        .route("*", "ok")
        .tls(Ca::new().leaf(&["localhost"]).server_config(&[b"http/1.1"]))
        .start()
        .await;
    let at = |receiver: &FakeUpstream| format!("https://localhost:{}/hooks/s3cret", receiver.address().port());
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\nlevel = \"trace\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{ROUTE}{}{}",
        webhook(&at(&receiver), "json", "\"maintenance\""),
        webhook(&at(&stranger), "json", "\"maintenance\""),
    );
    let folder = Folder::new();
    let roots = folder.write("roots.pem", ca.pem());
    let file = folder.write("flagstone.toml", config);
    let mut command = Flagstone::command(["run", "-c"]);
    let mut process = Process::start(command.arg(&file).current_dir(folder.path()).env("SSL_CERT_FILE", roots));
    process.stderr_line("listening name=").await;
    folder.write("state/maintenance.flag", "");
    assert!(
        eventually(PATIENCE, || messages(&receiver) == ["Maintenance mode activated"]).await,
        "{}",
        process.stderr()
    );
    assert!(messages(&stranger).is_empty(), "nothing is told to who cannot prove its name");
    assert!(!process.stderr().contains("s3cret"), "{}", process.stderr());
}

#[tokio::test]
async fn a_webhook_is_told_of_by_its_place_in_the_file_that_serves() {
    let receiver = FakeUpstream::http1().route("/bad", Reply::status(400, "no")).route("/good", "ok").start().await;
    let hook = |path: &str| {
        format!("[[notify]]\nurl = \"http://{}/{path}\"\nevents = [\"maintenance\"]\n", receiver.address())
    };
    let config = "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
                  [[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nrespond = {}\n";
    let mut flagstone = Flagstone::serve(&format!("{config}{}{}", hook("bad"), hook("good"))).await;
    flagstone.folder.write("state/maintenance.flag", "");
    let line = flagstone.process.stderr_line("was not delivered").await;
    assert!(line.contains("notify[0]"), "{line}");
    flagstone.folder.replace("flagstone.toml", format!("{config}{}{}", hook("good"), hook("bad")));
    flagstone.process.stderr_line("Configuration reloaded").await;
    flagstone.folder.remove("state/maintenance.flag");
    let line = flagstone.process.stderr_line("Maintenance mode deactivated\" was not delivered").await;
    assert!(line.contains("notify[1]"), "{line}");
}
