//! The access log as the binary writes it. Its layouts are tested in their own room.

use crate::support::client::Client;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Flagstone, Signal};
use crate::support::upstream::FakeUpstream;

fn config(log: &str, upstream: &FakeUpstream) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\n{log}[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    )
}

#[tokio::test]
async fn combined_lines_go_to_stdout_as_nginx_writes_them() {
    let upstream = FakeUpstream::http1().route("*", "hello").start().await;
    let mut flagstone = Flagstone::serve(&config("", &upstream)).await;
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    client.request("GET", "/a?b=c", "User-Agent: test/1.0 \"quoted\"\r\nReferer: http://x/\r\n").await.unwrap();
    client.read_response().await.unwrap();
    let line = flagstone.process.stdout_line("/a?b=c").await;
    let (client_part, rest) = line.split_once(" [").unwrap();
    assert_eq!(client_part, "127.0.0.1 - -");
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!((time.len(), time.matches('/').count()), ("22/Nov/2026:23:00:00 +0000".len(), 2), "{time}");
    assert_eq!(rest, "\"GET /a?b=c HTTP/1.1\" 200 5 \"http://x/\" \"test/1.0 \\x22quoted\\x22\"");
    assert!(!flagstone.process.stderr().contains("/a?b=c"));
}

#[tokio::test]
async fn json_lines_are_json_with_route_and_upstream() {
    let upstream = FakeUpstream::http1().route("*", "hello").start().await;
    let log = "access = \"access.json\"\naccess_format = \"json\"\n";
    let mut flagstone = Flagstone::serve(&config(log, &upstream)).await;
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    client.get("/\u{fc}nicode").await.ok();
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    client.get("/x").await.unwrap();
    assert!(eventually(DEADLINE, || flagstone.folder.read("access.json").contains("/x")).await);
    let text = flagstone.folder.read("access.json");
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["status"], &last["route"], &last["upstream"]), (&200.into(), &"all".into(), &"app".into()));
}

#[tokio::test]
async fn a_client_that_leaves_is_499_and_off_writes_nothing() {
    let upstream = FakeUpstream::http1().route("*", crate::support::reply::Reply::hang()).start().await;
    let mut flagstone = Flagstone::serve(&config("access = \"access.log\"\n", &upstream)).await;
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    client.request("GET", "/left", "").await.unwrap();
    assert!(eventually(DEADLINE, || upstream.requests().len() == 1).await);
    drop(client);
    assert!(
        eventually(DEADLINE, || flagstone.folder.read("access.log").contains("\"GET /left HTTP/1.1\" 499 0 ")).await
    );

    let upstream = FakeUpstream::http1().route("*", "hello").start().await;
    let mut silent = Flagstone::serve(&config("access = \"off\"\n", &upstream)).await;
    let mut client = Client::connect(silent.address("web").await).await.unwrap();
    client.get("/").await.unwrap();
    silent.process.signal(Signal::TERM);
    assert_eq!(silent.process.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(silent.process.stdout(), "");
}
