//! GoAccess reads the access log, whatever clients made of it.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{HEAD, curl_text};
use crate::support::client::Client;
use crate::support::left_out::program;
use crate::support::process::{DEADLINE, Flagstone, Process};

/// Targets, referers and agents that log readers have stumbled over. Left out is what GoAccess cannot read from nginx
/// either: user names with a space or a bracket, and lines of more than 4 KiB.
const NASTY: &[(&str, &str)] = &[
    ("/quote\"in\"path", "User-Agent: say \"hi\"\r\n"),
    ("/back%5Cslash", "User-Agent: back\\slash\\\r\n"),
    ("/%22%0d%0aforged", "User-Agent: a] [b\r\nReferer: http://x/\"y\"\r\n"),
    ("/?q=a%20b&c=\"d\"", "User-Agent: \r\n"),
    ("/?[]{}|^`", "User-Agent: -\r\nReferer: -\r\n"),
    ("/%F0%9F%92%A9", "User-Agent: \u{fffd} umlaut \u{e4}\u{1f4a9}\r\n"),
    ("/tab", "User-Agent: tab\there\r\n"),
    ("/' or 1=1 --", "User-Agent: x\r\n"),
    ("/percent%", "User-Agent: %h %s %d\r\n"),
    (
        "/a",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36\r\n",
    ),
    ("/basic", "Authorization: Basic d2VpcmQidXNlcjpwYXNz\r\n"),
    ("*", "User-Agent: star\r\n"),
];

#[tokio::test]
async fn no_line_of_the_access_log_fails_in_goaccess() {
    or_left_out!(program("curl"));
    let goaccess = or_left_out!(program("goaccess"));
    let config = format!("{HEAD}[[route]]\nname = \"all\"\nrespond = {{ status = 200, body = \"ok\" }}\n");
    let mut flagstone = Flagstone::serve(&config).await;
    let address = flagstone.address("web").await;
    for (target, headers) in NASTY {
        let mut client = Client::connect(address).await.expect("a connection");
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await.expect("a request sent");
        client.read_response().await.expect("an answer, good or bad");
    }
    for garbage in ["\x16\x03\x01\x02\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\"\\ / HTTP/1.1\r\n\r\n"] {
        let mut client = Client::connect(address).await.expect("a connection");
        client.send(garbage).await.expect("bytes sent");
        // An answer or a closed connection: both are fine here.
        let _ = client.read_to_end().await;
    }
    let long = format!("http://{address}/{}?{}", "l".repeat(2000), "x=1&".repeat(250));
    curl_text(["-o", "/dev/null", "-A", "curl \"agent\"", "-e", "http://example.com/\\", &long, &long]).await;
    curl_text(["-o", "/dev/null", "-X", "PROPFIND", &format!("http://{address}/dav")]).await;
    flagstone.process.signal(crate::support::process::Signal::TERM);
    flagstone.process.wait(DEADLINE).await;

    let log = flagstone.folder.join("access.log");
    let report = flagstone.folder.join("report.json");
    let mut command = Command::new(goaccess);
    command.arg(&log).args(["--log-format=COMBINED", "--no-global-config", "--no-progress", "-o"]).arg(&report);
    command.arg("--invalid-requests").arg(flagstone.folder.join("invalid.log"));
    let mut process = Process::start(&mut command);
    let status = process.wait(Duration::from_secs(30)).await;
    assert!(status.success(), "{}\n{}", process.stdout(), process.stderr());
    let report: Value = serde_json::from_str(&flagstone.folder.read("report.json")).expect("a report in JSON");
    let lines = flagstone.folder.read("access.log").lines().count();
    assert!(lines > NASTY.len() / 2, "most of these are requests: {}", flagstone.folder.read("access.log"));
    let invalid = std::fs::read_to_string(flagstone.folder.join("invalid.log")).unwrap_or_default();
    assert_eq!(report["general"]["failed_requests"], 0, "{invalid}");
    assert_eq!(report["general"]["total_requests"], lines, "{}", flagstone.folder.read("access.log"));
}
