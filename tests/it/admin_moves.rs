//! A reload moves the admin side, and its rules with it.

use std::net::SocketAddr;

use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone};
use crate::support::proxy::TestProxy;

fn config(admin: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\n{admin}"
    )
}

const WITH_TOKEN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"secret\"\n";

const ROUTE: &str = "[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n";

/// The status of a call on a connection that is open.
async fn call(client: &mut Client, method: &str, path: &str, token: &str) -> u16 {
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n")).await.unwrap();
    client.read_response().await.unwrap().status
}

async fn refuses(address: SocketAddr) -> bool {
    eventually_async(DEADLINE, async || Client::connect(address).await.is_err()).await
}

#[tokio::test]
async fn the_admin_side_moves_with_a_reload_and_leaves_nothing_where_it_was() {
    let folder = Folder::new();
    let socket = folder.join("admin.sock");
    let on_socket = format!("[admin]\nlisten = \"unix:{}\"\n", socket.display());
    let mut flagstone = Flagstone::serve_in(folder, &config(WITH_TOKEN)).await;
    let old = flagstone.admin().await;
    let (mut kept, mut asking) = (Client::connect(old).await.unwrap(), Client::connect(old).await.unwrap());
    assert_eq!(call(&mut kept, "GET", "/metrics", "").await, 401);
    let mut streaming = Client::connect(old).await.unwrap();
    streaming
        .send("GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n\r\n")
        .await
        .unwrap();
    streaming.read_until("retry: ").await.unwrap();

    // Asked for where it was: answered there. (Unless the watcher was faster.)
    flagstone.folder.replace("flagstone.toml", config(&on_socket));
    asking
        .send("POST /api/admin/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n\r\n")
        .await
        .unwrap();
    if let Ok(answer) = asking.read_response().await {
        assert!([200, 503].contains(&answer.status), "{answer:?}");
    }
    let line = flagstone.process.stderr_line("Configuration reloaded").await;
    assert!(line.contains("admin: ~listen ~token"), "{line}");
    flagstone.process.stderr_line(&format!("admin listening address=unix:{}", socket.display())).await;
    // The token is no longer asked for, on the socket; where it was needed nobody is served any more.
    let mut on_the_socket = Client::connect_unix(&socket).await.unwrap();
    assert_eq!(call(&mut on_the_socket, "GET", "/metrics", "").await, 200);
    kept.expect_closed().await.unwrap();
    assert!(refuses(old).await);
    // A stream without an end is cut after a while.
    while streaming.read_until("\n").await.is_ok() {}

    // None at all, and back.
    flagstone.folder.replace("flagstone.toml", config("[admin]\nlisten = \"\"\n"));
    flagstone.process.stderr_line("the admin side is closed").await;
    assert!(eventually(DEADLINE, || !socket.exists()).await);
    on_the_socket.expect_closed().await.unwrap();
    flagstone.folder.replace("flagstone.toml", config(WITH_TOKEN));
    let listening = || flagstone.process.stderr().matches("admin listening").count() == 3;
    assert!(eventually(DEADLINE, listening).await, "{}", flagstone.process.stderr());
    let log = flagstone.process.stderr();
    let last = log.lines().rfind(|line| line.contains("admin listening")).unwrap();
    let back: SocketAddr = last.split("address=").nth(1).unwrap().trim().parse().unwrap();
    let mut client = Client::connect(back).await.unwrap();
    assert_eq!(call(&mut client, "GET", "/metrics", "").await, 401);
    assert_eq!(call(&mut client, "POST", "/api/admin/drain", "secret").await, 200);
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn a_busy_new_address_of_the_admin_side_refuses_the_whole_file() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut flagstone = Flagstone::serve(&config(WITH_TOKEN)).await;
    let admin = flagstone.admin().await;
    let busy = format!("[admin]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    flagstone.folder.replace("flagstone.toml", config(&busy).replace("\"ok\"", "\"new\""));
    flagstone.process.stderr_line("Configuration rejected").await;
    let line = flagstone.process.stderr_line("admin.listen").await;
    assert!(line.contains("cannot listen on") && line.contains("name a free address"), "{line}");
    // It is where it was, as strict as it was.
    let mut client = Client::connect(admin).await.unwrap();
    assert_eq!(call(&mut client, "GET", "/metrics", "").await, 401);
    assert_eq!(call(&mut client, "GET", "/metrics", "secret").await, 200);
    let web = flagstone.address("web").await;
    assert_eq!(crate::support::client::get(web, "/").await.unwrap().text(), "ok");
}

/// From this machine alone to everywhere, as for a scraper that comes from outside.
#[tokio::test]
async fn the_admin_side_widens_on_its_port() {
    let mut flagstone = Flagstone::serve(&config(WITH_TOKEN)).await;
    let port = flagstone.admin().await.port();
    let everywhere = WITH_TOKEN.replace("127.0.0.1:0", &format!("0.0.0.0:{port}"));
    flagstone.folder.replace("flagstone.toml", config(&everywhere));
    flagstone.process.stderr_line(&format!("admin listening address=0.0.0.0:{port}")).await;
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 2], port))).await.unwrap();
    assert_eq!(call(&mut client, "GET", "/metrics", "secret").await, 200);
}

/// Also with somebody connected there, to whom the rest of an answer is owed.
#[tokio::test]
async fn an_address_of_the_admin_side_that_was_given_up_is_there_to_be_taken_back() {
    let proxy = TestProxy::toml(ROUTE).start().await;
    let first = proxy.admin();
    let mut streaming = Client::connect(first).await.unwrap();
    streaming.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    streaming.read_until("retry: ").await.unwrap();
    for _ in 0..20 {
        for listen in ["", &first.to_string()] {
            proxy.reload_with(&format!("[admin]\nlisten = \"{listen}\"\n{ROUTE}")).await;
        }
    }
    let mut client = Client::connect(first).await.unwrap();
    assert_eq!(call(&mut client, "GET", "/metrics", "").await, 200);
}
