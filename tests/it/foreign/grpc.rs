//! grpcio's client and server, with Flagstone between them.

use std::process::Command;

use super::{HEAD, flagstone_before, python_on_a_port};
use crate::support::certs::Ca;
use crate::support::files::Folder;
use crate::support::poll::eventually;
use crate::support::process::{DEADLINE, Flagstone, Process};
use crate::support::python::python_venv;

const WORKS: [&str; 9] = [
    "unary",
    "large",
    "server streaming",
    "client streaming",
    "both streaming",
    "error trailers",
    "deadline",
    "cancellation",
    "many",
];

fn routes(endpoint: &str) -> String {
    format!(
        "[[route]]\nname = \"all\"\nupstream = \"app\"\nmax_body = 0\n[upstream.app]\nhttp2 = true\n\
         endpoints = [\"{endpoint}\"]\n"
    )
}

#[tokio::test]
async fn every_kind_of_call_passes() {
    let python = or_left_out!(python_venv(&["grpcio"]));
    let folder = Folder::new();
    let (mut server, endpoint) = python_on_a_port(python.clone(), include_str!("grpc_server.py"), &folder).await;
    let client = folder.write("client.py", include_str!("grpc_client.py"));
    let (ca, leaf_folder) = (Ca::new(), Folder::new());
    let (cert, key) = ca.leaf(&["site.example"]).write(&leaf_folder, "site");
    let roots = leaf_folder.write("ca.pem", ca.pem());
    let tls = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
         certificates = [{{ cert = \"{}\", key = \"{}\" }}]\n",
        cert.display(),
        key.display()
    );
    let mut flagstone = Flagstone::serve(&format!("{HEAD}{tls}{}", routes(&endpoint))).await;
    let (plain, tls) = (flagstone.address("web").await, flagstone.address("tls").await);
    for (address, roots) in [(plain, None), (tls, Some(&roots))] {
        let ended = Process::run(Command::new(&python).arg(&client).arg(address.to_string()).args(roots)).await;
        assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
        assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), WORKS);
        // The client's deadline reached the server, and so did the end of the call that it gave up.
        let told = || server.stdout().contains("deadline 0.9") || server.stdout().contains("deadline 1.0");
        assert!(eventually(DEADLINE, told).await, "{}", server.stdout());
        server.stdout_line("cancelled").await;
    }
    let log = flagstone.folder.read("access.log");
    assert!(log.contains("\"POST /test.Bytes/Echo HTTP/2.0\" 200 "), "{log}");
}

#[tokio::test]
async fn what_is_answered_here_is_a_grpc_status() {
    let python = or_left_out!(python_venv(&["grpcio"]));
    let (folder, nobody) = (Folder::new(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let endpoint = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let script = "import grpc, sys\n\
        call = grpc.insecure_channel(sys.argv[1]).unary_unary('/test.Bytes/Echo')\n\
        try:\n    call(b'x', timeout=20)\nexcept grpc.RpcError as error:\n    print(error.code().name)\n";
    let client = folder.write("client.py", script);
    let (flagstone, address) = flagstone_before(&endpoint).await;
    let code = async || {
        let ended = Process::run(Command::new(&python).arg(&client).arg(address.to_string())).await;
        assert!(ended.status.success(), "{}", ended.stderr);
        ended.stdout.trim().to_owned()
    };
    assert_eq!(code().await, "UNAVAILABLE");
    drop(flagstone);
}
