//! Python's `websockets`, as echo server behind Flagstone and as client before it; Autobahn's conformance cases through
//! it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{flagstone_before, python_on_a_port};
use crate::support::files::Folder;
use crate::support::process::Process;
use crate::support::python::python_venv;

/// For the whole suite: three hundred cases, in Python at both ends.
const SUITE: Duration = Duration::from_secs(150);

#[tokio::test]
async fn a_foreign_client_and_a_foreign_server_understand_each_other() {
    let python = or_left_out!(python_venv(&["websockets"]));
    let folder = Folder::new();
    let (_server, endpoint) = python_on_a_port(python.clone(), include_str!("websocket_echo.py"), &folder).await;
    let (flagstone, address) = flagstone_before(&endpoint).await;
    let client = folder.write("client.py", include_str!("websocket_client.py"));
    let ended = Process::run(Command::new(python).arg(client).arg(format!("ws://{address}/echo?x=1"))).await;
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    let works: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(works, ["subprotocol", "text", "binary", "large", "fragments", "ping", "close", "close codes"]);
    let logged = || flagstone.folder.read("access.log").matches("\"GET /echo?x=1 HTTP/1.1\" 101 ").count() == 4;
    assert!(crate::support::poll::eventually(crate::support::process::DEADLINE, logged).await);
}

/// Autobahn's cases, by `kosoku`: framing, fragments, pings, close codes, invalid UTF-8, large messages and
/// compression. How each one ends is the app's doing; through Flagstone it ends as it does without.
#[tokio::test]
async fn a_conformance_suite_finds_no_difference() {
    let python = or_left_out!(python_venv(&["websockets", "kosoku"]));
    let folder = Folder::new();
    let server = include_str!("websocket_conformance.py");
    let (_server, endpoint) = python_on_a_port(python.clone(), server, &folder).await;
    let (_flagstone, address) = flagstone_before(&endpoint).await;
    let suite = python.with_file_name("kosoku");
    let direct = outcomes(&suite, &endpoint, &folder.join("direct")).await;
    let through = outcomes(&suite, &address.to_string(), &folder.join("through")).await;
    assert!(direct.len() > 300, "{} cases", direct.len());
    assert!(direct.values().filter(|outcome| **outcome == (true, true)).count() > 280, "{direct:?}");
    let differ: Vec<_> = direct.iter().filter(|(case, outcome)| through.get(*case) != Some(outcome)).collect();
    assert!(
        differ.is_empty(),
        "{:?}",
        differ.iter().map(|(case, was)| (case, was, through.get(*case))).collect::<Vec<_>>()
    );
}

/// Whether the app passed each case: by what it said, and by how it closed.
async fn outcomes(suite: &Path, address: &str, reports: &Path) -> BTreeMap<String, (bool, bool)> {
    let mut command = Command::new(suite);
    command.args(["-p", "4", "-o"]).arg(reports);
    // Four megabytes in messages of some bytes: minutes in Python, and nothing new.
    for left_out in ["9.3.*", "9.4.*", "12.2.*", "12.3.*", "12.4.*", "12.5.*", "13.*"] {
        command.args(["-x", left_out]);
    }
    let mut process = Process::start(command.arg(address));
    process.wait(SUITE).await;
    let index = std::fs::read(reports.join("index.json"));
    let index = index.unwrap_or_else(|error| panic!("{error}: {}", process.stderr()));
    let index: Value = serde_json::from_slice(&index).unwrap();
    let cases = index.as_object().unwrap().values().flat_map(|agent| agent.as_object().unwrap());
    cases.map(|(case, ended)| (case.clone(), (passed(&ended["behavior"]), passed(&ended["behaviorClose"])))).collect()
}

/// Whether an echo or the close of a broken connection comes first is a race in the app itself: that is what is between
/// "OK" and "NON-STRICT".
fn passed(behaviour: &Value) -> bool {
    ["OK", "NON-STRICT", "INFORMATIONAL"].contains(&behaviour.as_str().unwrap_or(""))
}
