//! Reloads while all sorts of connections are in use: none is cut, every request is answered, and comes to the app
//! once.

use std::sync::Arc;
use std::time::Duration;

use crate::support::admin;
use crate::support::certs::Ca;
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::load::Load;
use crate::support::process::{DEADLINE, Flagstone};
use crate::support::reply::Reply;
use crate::support::streams::{Streams, assert_each_came_once, numbers};
use crate::support::upstream::FakeUpstream;
use crate::support::websocket::WebSocket;

/// Each round has another upstream, another route, another limit and every fourth another certificate.
fn config(app: &FakeUpstream, round: usize) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\nworkers = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n\
         [listener.tls]\ncertificates = [{{ cert = \"site.pem\", key = \"site.key\" }}]\nhsts = \"{}s\"\n\
         [[route]]\nname = \"all\"\nupstream = \"app\"\nlimits = [\"all\"]\n[[route]]\nname = \"round-{round}\"\npath = [\"/no/{round}\"]\n\
         respond = {{ status = 204 }}\n[limit.all]\nrate = \"{}/1s\"\n[upstream.app]\nendpoints = [\"{}\"]\nmax_idle = {}\n",
        round + 1,
        100_000 + round,
        app.endpoint(),
        64 + round % 3,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_cut_no_connection_of_any_sort() {
    let (ca, folder) = (Ca::new(), Folder::new());
    ca.leaf(&["site.example"]).write(&folder, "site");
    let upstream = FakeUpstream::http1().route("/chat", Reply::upgrade()).route("*", "ok").start().await;
    let mut flagstone = Flagstone::serve_in(folder, &config(&upstream, 0)).await;
    let (web, secure, at) =
        (flagstone.address("web").await, flagstone.address("secure").await, flagstone.admin().await);
    let tls = ca.client_config(&[b"http/1.1"]);
    let over_tls = |path| Load::get(secure, path).tasks(3).pause(Duration::from_millis(8));
    let kept = over_tls("/kept").over_tls("site.example", Arc::clone(&tls)).start();
    let fresh = over_tls("/fresh").over_tls("site.example", Arc::clone(&tls)).on_fresh_connections().start();
    let streams = Streams::start(web, "/streams", 3, 6);
    let mut chat = WebSocket::connect(web, "/chat").await.unwrap().into_client();
    let mut chat_over_tls = {
        let client = Client::connect_tls(secure, "site.example", tls).await.unwrap();
        WebSocket::open(client, "/chat", "").await.unwrap().into_client()
    };
    for round in 1..=40 {
        if round % 4 == 0 {
            ca.leaf(&["site.example"]).write(&flagstone.folder, "site");
        }
        flagstone.folder.replace("flagstone.toml", config(&upstream, round));
        let answer = admin::ask(at, "POST", "/api/admin/reload").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for stream in [&mut chat, &mut chat_over_tls] {
            stream.send("still there").await.unwrap();
            assert_eq!(stream.read_exactly(11).await.unwrap(), b"still there");
        }
        assert!(kept.reaches(2, DEADLINE).await && fresh.reaches(2, DEADLINE).await, "round {round}");
    }
    let (kept, fresh, (sent, opened)) = (kept.stop().await, fresh.stop().await, streams.stop().await);
    assert_eq!(opened, 3, "a reload is no reason to end a connection of HTTP/2");
    let counts = numbers(&upstream);
    assert_each_came_once(&counts["/streams"], sent, "/streams");
    for (report, path) in [(kept, "/kept"), (fresh, "/fresh")] {
        report.assert_clean();
        assert_each_came_once(&counts[path], report.sent, path);
    }
}
