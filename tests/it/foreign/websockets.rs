//! Python's `websockets`, as echo server behind Flagstone and as client before it.

use std::process::Command;

use super::{flagstone_before, python_on_a_port};
use crate::support::files::Folder;
use crate::support::process::Process;
use crate::support::python::python_venv;

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
