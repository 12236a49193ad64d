//! curl before Flagstone: large bodies in both directions, unix sockets, interim answers.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use super::{LONG, Nginx, curl, curl_command, curl_text, flagstone_before, python_on_a_port};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::process::{Flagstone, Process};

const MIB: u64 = 1 << 20;
/// How much the proxy may grow while it moves what is far larger.
const GROWTH_BYTES_MAX: u64 = 32 * MIB;

/// A file of zeros that takes no room on the disk.
fn sparse(folder: &Folder, name: &str, bytes: u64) -> String {
    let file = folder.write(name, "");
    File::options().write(true).open(&file).and_then(|file| file.set_len(bytes)).expect("a sparse file");
    file.to_str().expect("a path in UTF-8").to_owned()
}

async fn sha256_of(file: &str) -> String {
    let ended = Process::run(Command::new("sha256sum").arg(file)).await;
    ended.stdout.split_whitespace().next().expect("a sum").to_owned()
}

/// How much the proxy's memory grew at most while `process` ran.
async fn growth_while(flagstone: &Flagstone, process: &mut Process) -> u64 {
    let before = flagstone.resident_bytes();
    let mut most = before;
    let ended = crate::support::poll::eventually(LONG, || {
        most = most.max(flagstone.resident_bytes());
        process.ended().is_some()
    });
    assert!(ended.await, "it did not end: {}", process.stderr());
    most - before
}

#[tokio::test]
async fn uploads_of_100_mib_arrive_whole_in_flat_memory() {
    or_left_out!(program("curl"));
    let python = or_left_out!(program("python3"));
    let folder = Folder::new();
    let (_app, endpoint) = python_on_a_port(python, include_str!("upload_app.py"), &folder).await;
    let (flagstone, address) = flagstone_before(&endpoint).await;
    let file = sparse(&folder, "large.bin", 100 * MIB);
    let sum = sha256_of(&file).await;
    let url = format!("http://{address}/upload");
    for (method, framing, extra) in [
        ("PUT", "fixed", "X-Test: 1"),
        ("PUT", "chunked", "Transfer-Encoding: chunked"),
        ("POST", "fixed", "X-Test: 1"),
        ("POST", "chunked", "Transfer-Encoding: chunked"),
    ] {
        let mut process = Process::start(&mut curl_command(["-X", method, "-T", &file, "-H", extra, &url]));
        let growth = growth_while(&flagstone, &mut process).await;
        assert!(process.wait(LONG).await.success(), "{method} {framing}: {}", process.stderr());
        assert_eq!(process.stdout(), format!("[\"{method}\", \"{framing}\", 104857600, \"{sum}\"]\n"));
        assert!(growth < GROWTH_BYTES_MAX, "{method} {framing}: grew by {} MiB", growth / MIB);
    }
}

#[tokio::test]
async fn a_download_of_1_gib_passes_in_flat_memory() {
    or_left_out!(program("curl"));
    let folder = Folder::new();
    sparse(&folder, "site/large.bin", 1024 * MIB);
    let nginx = or_left_out!(Nginx::serve(folder, "").await);
    let (flagstone, address) = flagstone_before(&nginx.endpoint()).await;
    let url = format!("http://{address}/large.bin");
    let mut process =
        Process::start(&mut curl_command(["-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url]));
    let growth = growth_while(&flagstone, &mut process).await;
    assert!(process.wait(LONG).await.success(), "{}", process.stderr());
    assert_eq!(process.stdout(), "200 1073741824");
    assert!(growth < GROWTH_BYTES_MAX, "grew by {} MiB", growth / MIB);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_ahead_for() {
    or_left_out!(program("curl"));
    let folder = Folder::new();
    sparse(&folder, "site/large.bin", 1024 * MIB);
    let nginx = or_left_out!(Nginx::serve(folder, "").await);
    let (flagstone, address) = flagstone_before(&nginx.endpoint()).await;
    let url = format!("http://{address}/large.bin");
    // A mebibyte a second for three seconds: then curl gives up, with its own exit code for that.
    let args = ["-o", "/dev/null", "--limit-rate", "1M", "--max-time", "3", &url];
    let mut process = Process::start(&mut curl_command(args));
    let growth = growth_while(&flagstone, &mut process).await;
    assert_eq!(process.wait(LONG).await.code(), Some(28), "{}", process.stderr());
    assert!(growth < GROWTH_BYTES_MAX, "grew by {} MiB", growth / MIB);
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    or_left_out!(program("curl"));
    let python = or_left_out!(program("python3"));
    let folder = Folder::new();
    let (_app, endpoint) = python_on_a_port(python, include_str!("upload_app.py"), &folder).await;
    let (_flagstone, address) = flagstone_before(&endpoint).await;
    let data = format!("@{}", sparse(&folder, "some.bin", 4 * MIB));
    let args = ["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "60", "--data-binary", &data];
    let ended = curl(args.into_iter().chain([format!("http://{address}/upload").as_str()])).await;
    assert!(ended.stderr.contains("< HTTP/1.1 100 Continue"), "{}", ended.stderr);
    assert!(ended.stderr.contains("< HTTP/1.1 200 OK"), "{}", ended.stderr);
    assert!(ended.stdout.starts_with("[\"POST\", \"fixed\", 4194304,"), "{}", ended.stdout);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    or_left_out!(program("curl"));
    let config = super::all_to("127.0.0.1:1").replace("max_body = 0", "max_body = \"1MiB\"");
    let mut flagstone = Flagstone::serve(&config).await;
    let address = flagstone.address("web").await;
    let data = format!("@{}", sparse(&flagstone.folder, "some.bin", 4 * MIB));
    let args =
        ["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "60", "-w", "%{size_upload}", "-o", "/dev/null"];
    let ended = curl(args.into_iter().chain(["--data-binary", &data, &format!("http://{address}/upload")])).await;
    assert!(ended.stderr.contains("< HTTP/1.1 413 "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("100 Continue"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "0");
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    or_left_out!(program("curl"));
    let folder = Folder::new();
    folder.write("site/a.txt", "a");
    let nginx = or_left_out!(Nginx::serve(folder, "").await);
    let (_flagstone, address) = flagstone_before(&nginx.endpoint()).await;
    let urls = format!("http://{address}/a.txt?[1-50]");
    let printed = curl_text(["-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null", &urls]).await;
    assert_eq!(printed.lines().filter(|line| line.ends_with("200 1")).count(), 1, "{printed}");
    assert_eq!(printed.lines().filter(|line| line.ends_with("200 0")).count(), 49, "{printed}");
}

#[tokio::test]
async fn the_admin_side_answers_on_a_unix_socket() {
    or_left_out!(program("curl"));
    let folder = Folder::new();
    let socket = folder.join("admin.sock").display().to_string();
    let config = format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"unix:{socket}\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"all\"\nrespond = {{ body = \"ok\" }}\n"
    );
    let flagstone = Flagstone::serve_in(folder, &config).await;
    let on_socket = async |arguments: &[&str]| {
        let all = ["--unix-socket", &socket].into_iter().chain(arguments.iter().copied());
        let ended = Process::run(Command::new("curl").args(["-sS", "--max-time", "20"]).args(all)).await;
        assert!(ended.status.success(), "{}", ended.stderr);
        ended.stdout
    };
    assert_eq!(on_socket(&["http://localhost/readyz"]).await, "ok");
    let enable = "http://flagstone/api/admin/maintenance/enable";
    // Any other name could be that of a web page; a loopback name or an address is none.
    let refused: serde_json::Value = serde_json::from_str(&on_socket(&["-X", "POST", enable]).await).unwrap();
    assert_eq!(refused["status"], 403, "{refused}");
    let enable = enable.replace("flagstone", "localhost");
    let on: serde_json::Value =
        serde_json::from_str(&on_socket(&["-X", "POST", "--json", "{\"reason\":\"curl\"}", &enable]).await).unwrap();
    assert_eq!((&on["is_active"], &on["reason"]), (&true.into(), &"curl".into()));
    assert!(flagstone.folder.join("state/maintenance.flag").exists());
    let scrape = on_socket(&["http://localhost/metrics"]).await;
    assert!(scrape.contains("\nflagstone_maintenance_active{scope=\"global\"} 1\n"), "{scrape}");
    let document: serde_json::Value =
        serde_json::from_str(&on_socket(&["http://localhost/api/openapi.json"]).await).unwrap();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
}

#[tokio::test]
async fn a_unix_socket_serves_like_any_listener() {
    or_left_out!(program("curl"));
    let folder = Folder::new();
    folder.write("site/a.txt", "through two sockets\n");
    let nginx = or_left_out!(Nginx::serve(folder, "").await);
    let config = super::all_to(&nginx.endpoint()).replace("127.0.0.1:0\"\n[[route]]", "unix:web.sock\"\n[[route]]");
    assert!(config.contains("unix:web.sock"));
    let flagstone = Flagstone::serve(&config).await;
    let socket = flagstone.folder.join("web.sock");
    let socket = Path::new(&socket).to_str().expect("a path in UTF-8");
    let text = curl_text(["--unix-socket", socket, "http://site.example/a.txt"]).await;
    assert_eq!(text, "through two sockets\n");
}
