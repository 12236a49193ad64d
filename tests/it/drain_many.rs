//! A drain with two thousand connections open, of every sort.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use crate::support::client::{Client, Ending};
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{Flagstone, Signal};
use crate::support::reply::Reply;
use crate::support::upstream::FakeUpstream;

const CONNECTIONS: usize = 2_000;
/// For everything that two thousand connections do on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many connections this process may have, with one to the app behind each second of them, and some to spare.
fn affordable() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, the lower one does.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(512) / 2;
    // The proxy keeps an eighth for other things.
    CONNECTIONS.min(room * 7 / 8)
}

/// What a client waits for when the drain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Idle,
    InFlight,
    Streaming,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_with_two_thousand_connections_loses_no_answer() {
    let connections = affordable();
    if connections < CONNECTIONS {
        println!("{connections} connections in place of {CONNECTIONS}: ulimit -n allows no more");
    }
    let pieces = ["piece "; 16];
    let upstream = FakeUpstream::http1()
        .route("/slow", Reply::ok("at last").after(Duration::from_secs(8)))
        .route("/stream", Reply::slow_body(&pieces, Duration::from_millis(500)))
        .route("*", "ok")
        .start()
        .await;
    let config = format!(
        "[server]\nstate_dir = \"state\"\nshutdown_grace = \"2m\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"access.log\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         [upstream.app]\nendpoints = [\"{}\"]\n",
        upstream.endpoint()
    );
    let mut flagstone = Flagstone::serve(&config).await;
    let address = flagstone.address("web").await;
    let mut clients = JoinSet::new();
    for index in 0..connections {
        let sort = [Sort::Idle, Sort::InFlight, Sort::Idle, Sort::Streaming][index % 4];
        let mut client = Client::connect(address).await.unwrap().deadline(PATIENCE);
        if sort == Sort::Idle {
            assert_eq!(client.get("/").await.unwrap().text(), "ok");
        } else {
            client.request("GET", if sort == Sort::InFlight { "/slow" } else { "/stream" }, "").await.unwrap();
        }
        clients.spawn(async move {
            if sort != Sort::Idle {
                let answer = client.read_response().await.map_err(|error| format!("{sort:?}: {error}"))?;
                let whole = if sort == Sort::InFlight { "at last".to_owned() } else { pieces.concat() };
                if (answer.status, answer.text()) != (200, whole) {
                    return Err(format!("{sort:?}: {answer:?}"));
                }
            }
            match client.expect_closed().await {
                Ok(Ending::Fin) => Ok(sort),
                end => Err(format!("{sort:?}: {end:?}")),
            }
        });
    }
    assert!(eventually(PATIENCE, || upstream.requests().len() == connections).await);
    flagstone.process.signal(Signal::TERM);
    let refused = async || Client::connect(address).await.is_err();
    assert!(eventually_async(PATIENCE, refused).await);
    let ends = clients.join_all().await;
    let lost: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
    assert!(lost.is_empty(), "{} of {connections}: {:#?}", lost.len(), &lost[..lost.len().min(20)]);
    assert_eq!(flagstone.process.wait(PATIENCE).await.code(), Some(0));
    assert!(!flagstone.process.stderr().contains("were cut"), "{}", flagstone.process.stderr());
    assert_eq!(flagstone.folder.read("access.log").lines().count(), connections);
}
