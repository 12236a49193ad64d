//! slowhttptest in its four modes: whoever is honest is answered all the while.
//!
//! Numbers with a thousand connections are in docs/testing.md.

use std::process::Command;
use std::time::{Duration, Instant};

use super::HEAD;
use crate::support::client;
use crate::support::left_out::program;
use crate::support::process::{Flagstone, Process};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const CONNECTIONS: &str = "250";
/// Slow heads, slow bodies, ranges, slow readers.
const MODES: [(&str, &[&str]); 4] = [
    ("slow heads", &["-H", "-i", "1", "-x", "24"]),
    ("slow bodies", &["-B", "-i", "1", "-s", "8192", "-x", "10"]),
    ("ranges", &["-R", "-a", "5", "-b", "500"]),
    ("slow readers", &["-X", "-w", "1", "-y", "16", "-n", "1", "-z", "4", "-k", "3"]),
];

#[tokio::test]
async fn an_honest_client_is_answered_in_every_mode() {
    let slowhttptest = or_left_out!(program("slowhttptest"));
    let upstream = FakeUpstream::http1()
        .route("/honest", "honest")
        .route("/large", Reply::ok("x".repeat(100_000)))
        .route("*", Reply::ok("x".repeat(1000)))
        .start()
        .await;
    for (name, mode) in MODES {
        let mut flagstone = Flagstone::serve(&format!(
            "{HEAD}[timeouts]\nrequest_head = \"3s\"\nrequest_body = \"2s\"\nresponse_body = \"2s\"\n[[route]]\nname = \"all\"\n\
             upstream = \"app\"\n[upstream.app]\nendpoints = [\"{}\"]\n",
            upstream.endpoint()
        ))
        .await;
        let address = flagstone.address("web").await;
        let url = format!("http://{address}/large");
        let mut command = Command::new(&slowhttptest);
        command.args(["-c", CONNECTIONS, "-r", CONNECTIONS, "-l", "4", "-p", "20", "-u", &url]).args(mode);
        let mut attack = Process::start(command.current_dir(flagstone.folder.path()));
        let began = Instant::now();
        let mut answered = 0;
        while attack.ended().is_none() && began.elapsed() < Duration::from_secs(60) {
            // A request that is not answered within the client's deadline fails here.
            assert_eq!(client::get(address, "/honest").await.expect(name).text(), "honest", "{name}");
            answered += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        attack.wait(Duration::from_secs(1)).await;
        assert!(answered >= 5, "{name}: {answered} in {:?}", began.elapsed());
        // Its own probes are honest clients too.
        let said = attack.stdout();
        assert!(said.contains("YES") && !said.contains("NO"), "{name}: {said}");
    }
}
