//! HTTP/2 as others speak it: curl in each version, nghttp2's client and load generator, OpenSSL's bare TLS, and
//! WebSockets of a browser and of Python's `h2` on a stream of their own.

use std::io::Write as _;
use std::process::{Command, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::browser::Browser;
use super::{HEAD, LONG, curl_text, python_on_a_port};
use crate::support::certs::{Ca, Leaf};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Flagstone, Process};
use crate::support::python::python_venv;

/// A plain listener `web` and one with TLS, `tls`, for `localhost`; with these routes.
async fn serve(leaf: &Leaf, ca: &Ca, routes: &str) -> Flagstone {
    let folder = Folder::new();
    leaf.write(&folder, "site");
    folder.write("ca.pem", ca.pem());
    folder.write("static/index.html", "<!doctype html><title>t</title><p>hello");
    let tls = "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
               certificates = [{ cert = \"site.pem\", key = \"site.key\" }]\n";
    Flagstone::serve_in(folder, &format!("{HEAD}{tls}{routes}")).await
}

const HELLO: &str = "[[route]]\nname = \"all\"\nrespond = { body = \"hello\" }\n";

#[tokio::test]
async fn curl_gets_the_version_that_it_asks_for() {
    or_left_out!(program("curl"));
    let ca = Ca::new();
    let mut flagstone = serve(&ca.leaf(&["localhost"]), &ca, HELLO).await;
    let (plain, tls) = (flagstone.address("web").await, flagstone.address("tls").await.port());
    let root = flagstone.folder.join("ca.pem").display().to_string();
    let (plain, tls) = (format!("http://{plain}/"), format!("https://localhost:{tls}/"));
    for (version, url, spoken) in [
        ("--http1.1", &plain, "1.1"),
        ("--http2", &plain, "1.1"),
        ("--http2-prior-knowledge", &plain, "2"),
        ("--http1.1", &tls, "1.1"),
        ("--http2", &tls, "2"),
        ("--http2-prior-knowledge", &tls, "2"),
        ("--http1.0", &plain, "1"),
    ] {
        let asked = [version, "--cacert", &root, "-w", " %{http_version} %{http_code}", "--data-binary", "body", url];
        let said = curl_text(asked).await;
        assert_eq!(said, format!("hello {spoken} 200"), "{version} {url}");
    }
}

#[tokio::test]
async fn nghttp_fetches_many_at_once() {
    let nghttp = or_left_out!(program("nghttp"));
    let ca = Ca::new();
    let mut flagstone = serve(&ca.leaf(&["localhost"]), &ca, HELLO).await;
    let (plain, tls) = (flagstone.address("web").await, flagstone.address("tls").await.port());
    for url in [format!("http://{plain}/"), format!("https://localhost:{tls}/")] {
        let ended = Process::run(Command::new(&nghttp).args(["-v", "-m", "20", "--no-verify-peer", &url])).await;
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(ended.stdout.matches(":status: 200").count(), 20, "{}", ended.stdout);
        assert!(!ended.stdout.contains("RST_STREAM"), "{}", ended.stdout);
        // As a client that wants nothing more says it.
        assert!(ended.stdout.contains("send GOAWAY frame"), "{}", ended.stdout);
        // Dependencies, padding and a tiny window.
        let args = ["-n", "-v", "--expect-continue", "-w", "8", "-W", "10", "-b", "100", "--no-verify-peer", "-d"];
        let body = flagstone.folder.write("body", "x".repeat(100_000));
        let ended = Process::run(Command::new(&nghttp).args(args).arg(body).arg(&url)).await;
        assert!(ended.stdout.contains(":status: 200"), "{}{}", ended.stdout, ended.stderr);
    }
}

#[tokio::test]
async fn h2load_finds_no_request_that_fails() {
    let h2load = or_left_out!(program("h2load"));
    let python = or_left_out!(program("python3"));
    let folder = Folder::new();
    let (_app, endpoint) = python_on_a_port(python, include_str!("upload_app.py"), &folder).await;
    let upstream = format!(
        "[[route]]\nname = \"up\"\npath = [\"/upload\"]\nupstream = \"app\"\n[upstream.app]\nendpoints = [\"{endpoint}\"]\n"
    );
    let ca = Ca::new();
    let mut flagstone = serve(&ca.leaf(&["localhost"]), &ca, &format!("{HELLO}{upstream}")).await;
    let (plain, tls) = (flagstone.address("web").await, flagstone.address("tls").await.port());
    let body = folder.write("body", "x".repeat(20_000));
    for url in [format!("http://{plain}/"), format!("https://localhost:{tls}/")] {
        let mut process = Process::start(Command::new(&h2load).args(["-n", "5000", "-c", "20", "-m", "50", &url]));
        assert!(process.wait(LONG).await.success(), "{}", process.stderr());
        let said = process.stdout();
        assert!(said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(said.contains("status codes: 5000 2xx"), "{said}");
        // Bodies on many streams at once, with the windows that HTTP/2 begins with.
        let mut command = Command::new(&h2load);
        command.args(["-n", "300", "-c", "5", "-m", "10", "-w", "16", "-W", "16", "-d"]).arg(&body);
        let mut process = Process::start(command.arg(format!("{url}upload")));
        assert!(process.wait(LONG).await.success(), "{}", process.stderr());
        assert!(process.stdout().contains("status codes: 300 2xx"), "{}", process.stdout());
    }
}

#[tokio::test]
async fn openssl_asks_by_hand_in_either_protocol() {
    let openssl = or_left_out!(program("openssl"));
    let ca = Ca::new();
    let mut flagstone = serve(&ca.leaf(&["localhost"]), &ca, HELLO).await;
    let tls = flagstone.address("tls").await;
    for (version, protocol) in [("-tls1_2", "http/1.1"), ("-tls1_3", "http/1.1"), ("-tls1_2", "h2"), ("-tls1_3", "h2")]
    {
        let mut command = Command::new(&openssl);
        command.args(["s_client", version, "-ign_eof", "-alpn", protocol, "-servername", "localhost", "-connect"]);
        command.arg(tls.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let said = tokio::task::spawn_blocking(move || {
            let mut client = command.spawn().expect("openssl starts");
            let mut input = client.stdin.take().expect("it is piped");
            let request: &[u8] = match protocol {
                // Preface, SETTINGS, and a client that leaves.
                "h2" => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
                _ => b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            };
            input.write_all(request).expect("it reads");
            String::from_utf8_lossy(&client.wait_with_output().expect("it ends").stdout).into_owned()
        });
        let said = said.await.unwrap();
        assert!(said.contains(&format!("ALPN protocol: {protocol}")), "{version} {protocol}: {said}");
        assert_eq!(said.contains("hello"), protocol != "h2", "{version} {protocol}: {said}");
    }
}

/// Chromium opens a WebSocket as a stream of the connection that the page came by.
#[tokio::test]
async fn a_browser_opens_a_websocket_on_its_connection_of_http2() {
    or_left_out!(program("curl"));
    let python = or_left_out!(python_venv(&["websockets"]));
    let ca = Ca::new();
    let leaf = ca.leaf(&["site.example"]);
    let der = leaf.der();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let pin = base64::engine::general_purpose::STANDARD.encode(digest(&SHA256, parsed.public_key().raw));
    let browser = or_left_out!(
        Browser::start_with(&[
            format!("--ignore-certificate-errors-spki-list={pin}"),
            "--host-resolver-rules=MAP site.example 127.0.0.1".to_owned(),
        ])
        .await
    );
    let folder = Folder::new();
    let (_server, endpoint) = python_on_a_port(python, include_str!("websocket_echo.py"), &folder).await;
    let routes = format!(
        "[[route]]\nname = \"page\"\nfiles = {{ root = \"static\" }}\n[[route]]\nname = \"echo\"\npath = [\"/echo\"]\n\
         upstream = \"app\"\n[upstream.app]\nendpoints = [\"{endpoint}\"]\n"
    );
    let mut flagstone = serve(&leaf, &ca, &routes).await;
    let port = flagstone.address("tls").await.port();
    browser.visit(&format!("https://site.example:{port}/")).await;
    let script = "window.heard = []; const socket = new WebSocket(`wss://${location.host}/echo`, ['chat.v2']);
        socket.onopen = () => { socket.send('over a stream'); socket.send('close 4321'); };
        socket.onmessage = message => heard.push(message.data);
        socket.onclose = end => heard.push(`${end.code} ${end.wasClean} ${socket.protocol}`);
        socket.onerror = () => heard.push('error');";
    browser.run(script).await;
    let mut heard = String::new();
    let all = eventually_async(DEADLINE, async || {
        heard = browser.run("return heard.join(', ')").await.as_str().unwrap_or_default().to_owned();
        heard.contains("true")
    });
    assert!(all.await, "{heard}");
    assert_eq!(heard, "over a stream, 4321 true chat.v2");
    let logged = || flagstone.folder.read("access.log").contains("\"GET /echo HTTP/2.0\" 200 ");
    assert!(eventually(DEADLINE, logged).await, "{}", flagstone.folder.read("access.log"));
}

/// Python's `h2` for the stream, `wsproto` for what is said on it.
#[tokio::test]
async fn python_speaks_websocket_on_a_stream() {
    let python = or_left_out!(python_venv(&["websockets", "h2", "wsproto"]));
    let folder = Folder::new();
    let (_server, endpoint) = python_on_a_port(python.clone(), include_str!("websocket_echo.py"), &folder).await;
    let (flagstone, address) = super::flagstone_before(&endpoint).await;
    let client = folder.write("client.py", include_str!("websocket_over_http2.py"));
    let ended = Process::run(Command::new(python).arg(client).arg(address.to_string())).await;
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(
        ended.stdout.lines().collect::<Vec<_>>(),
        ["offered", "200", "text", "large", "close 4001", "refused 400"]
    );
    let logged = || flagstone.folder.read("access.log").contains("\"GET /echo HTTP/2.0\" 200 ");
    assert!(eventually(DEADLINE, logged).await, "{}", flagstone.folder.read("access.log"));
}
