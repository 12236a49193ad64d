//! `flagstone explain` and `[[test]]`: what they say is what happens.

use serde_json::Value;

use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::poll::{eventually, eventually_async};
use crate::support::process::{DEADLINE, Ended, Flagstone, Signal};
use crate::support::upstream::FakeUpstream;

const PROCESS: &str = "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"access.log\"\n\
                       access_format = \"json\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";

/// Every kind of route and policy, before one upstream.
fn everything(upstream: &FakeUpstream) -> String {
    format!(
        "{PROCESS}\
         [client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [maintenance]\npage = \"page\"\nexempt_paths = [\"=/ping\"]\nallow = [\"198.51.100.7\"]\nbypass_token = \"sesame\"\n\
         [features]\n\"beta.on\" = true\n\"beta.off\" = false\n\
         [limit.per_ip]\nrate = \"100000/1m\"\nexempt = [\"192.0.2.0/24\"]\n\
         [limit.per_key]\nkey = [\"header:X-Key\", \"path\"]\nrate = \"100000/1m\"\n\
         [upstream.app]\nendpoints = [\"{endpoint}\"]\n[upstream.other]\nendpoints = [\"{endpoint}\"]\n\
         breaker = {{ shadow = true }}\n\
         [[route]]\nname = \"any\"\nupstream = \"app\"\nlimits = [\"per_ip\"]\n\
         [[route]]\nname = \"api\"\nhost = [\"api.example\", \"*.api.example\"]\npath = [\"/v1\"]\nstrip_prefix = \"/v1\"\n\
         upstream = \"other\"\nlimits = [\"per_ip\", \"per_key\"]\n\
         [[route]]\nname = \"post\"\npath = [\"=/orders\"]\nmethod = [\"POST\"]\nupstream = \"other\"\n\
         [[route]]\nname = \"inside\"\npath = [\"/inside\"]\nupstream = \"app\"\nallow = [\"10.0.0.0/8\"]\ndeny = [\"10.6.6.6\"]\n\
         [[route]]\nname = \"on\"\npath = [\"/on\"]\nfeature = \"beta.on\"\nrespond = {{ status = 201, body = \"on\" }}\n\
         [[route]]\nname = \"off\"\npath = [\"/off\"]\nfeature = \"beta.off\"\nrespond = {{ body = \"off\" }}\n\
         [[route]]\nname = \"exempt\"\npath = [\"/exempt\"]\nmaintenance = \"exempt\"\nrespond = {{ body = \"here\" }}\n\
         [[route]]\nname = \"moved\"\npath = [\"/moved\"]\nredirect = {{ to = \"https://$host/new$uri\" }}\n\
         [[route]]\nname = \"files\"\npath = [\"/files\"]\nstrip_prefix = \"/files\"\nfiles = {{ root = \"site\" }}\n\
         [[route]]\nname = \"get\"\nhost = [\"only.example\"]\nmethod = [\"GET\"]\nrespond = {{ body = \"got\" }}\n",
        endpoint = upstream.endpoint()
    )
}

/// Method, URL, client, headers.
type Asked = (&'static str, &'static str, &'static str, &'static [&'static str]);

const REQUESTS: &[Asked] = &[
    ("GET", "http://x.example/", "203.0.113.9", &[]),
    ("GET", "http://x.example/", "192.0.2.9", &[]),
    ("GET", "http://api.example/v1/a?b=c", "203.0.113.9", &["X-Key:k"]),
    ("GET", "http://deep.down.API.example./v1", "203.0.113.9", &[]),
    ("GET", "http://api.example/v1x", "203.0.113.9", &[]),
    ("GET", "http://x.example//inside/../inside/%61", "10.1.2.3", &[]),
    ("POST", "http://x.example/orders", "203.0.113.9", &[]),
    ("GET", "http://x.example/orders", "203.0.113.9", &[]),
    ("GET", "http://x.example/inside", "10.1.2.3", &[]),
    ("GET", "http://x.example/inside", "10.6.6.6", &[]),
    ("GET", "http://x.example/inside", "203.0.113.9", &[]),
    ("GET", "http://x.example/on", "203.0.113.9", &[]),
    ("GET", "http://x.example/off", "203.0.113.9", &[]),
    ("DELETE", "http://only.example/a", "203.0.113.9", &[]),
    ("HEAD", "http://only.example/a", "203.0.113.9", &[]),
    ("GET", "http://x.example/exempt", "203.0.113.9", &[]),
    ("GET", "http://x.example/ping", "203.0.113.9", &[]),
    ("GET", "http://x.example/moved?a", "203.0.113.9", &[]),
    ("GET", "http://x.example/files", "203.0.113.9", &[]),
    ("GET", "http://x.example/files/", "203.0.113.9", &[]),
    ("GET", "http://x.example/files/none", "203.0.113.9", &[]),
    ("POST", "http://x.example/files/", "203.0.113.9", &[]),
    ("GET", "http://x.example/a%2fb", "203.0.113.9", &[]),
    ("GET", "http://x.example/../up", "203.0.113.9", &[]),
    ("GET", "http://x.example/", "198.51.100.7", &[]),
    ("GET", "http://x.example/", "203.0.113.66", &[]),
    ("GET", "http://x.example/", "203.0.113.9", &["X-Maintenance-Bypass:sesame"]),
    ("GET", "http://x.example/?maintenance_bypass=sesame", "203.0.113.9", &[]),
    ("POST", "http://x.example/?maintenance_bypass=sesame", "203.0.113.9", &[]),
    ("GET", "http://x.example/", "203.0.113.9", &["X-Forwarded-Host: no", "Host: api.example"]),
    ("OPTIONS", "http://x.example/", "203.0.113.9", &[]),
    ("POST", "http://x.example/orders", "203.0.113.9", &["Content-Length: 16777217"]),
    ("POST", "http://x.example/inside", "203.0.113.9", &["Content-Type:application/grpc"]),
    ("POST", "http://x.example/a%2fb", "203.0.113.9", &["Content-Type:application/grpc-web"]),
    ("GET", "http://x.example/logo.svg", "203.0.113.9", &[]),
    ("POST", "http://x.example/logo.svg", "203.0.113.9", &[]),
    ("GET", "http://x.example/.flagstone/maintenance/logo.svg", "203.0.113.9", &[]),
    ("GET", "http://x.example/off/logo.svg", "203.0.113.9", &["Accept:text/html"]),
    ("GET", "http://x.example/off/logo.svg", "203.0.113.9", &["Accept:application/json"]),
];

/// What `everything` serves from.
fn folder() -> Folder {
    let folder = Folder::new();
    for file in ["site/index.html", "page/index.html", "page/logo.svg", "page/off/logo.svg"] {
        folder.write(file, file);
    }
    folder
}

async fn explained(flagstone: &Flagstone, asked: &Asked) -> Value {
    let (method, url, ip, headers) = asked;
    let file = flagstone.config().display().to_string();
    // As the real request comes: over loopback, from a trusted proxy that names the client.
    let forwarded = format!("X-Forwarded-For: {ip}");
    let mut arguments = vec!["explain", "-c", &file, "--json", method, url, "--header", &forwarded];
    headers.iter().for_each(|header| arguments.extend(["--header", *header]));
    let ended = Flagstone::run(arguments).await;
    assert_eq!(ended.status.code(), Some(0), "{asked:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Status and `Flagstone-Reason`.
async fn happened(flagstone: &mut Flagstone, asked: &Asked, number: usize) -> (u16, Option<String>) {
    let (method, url, ip, headers) = asked;
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let host = headers.iter().find_map(|header| header.strip_prefix("Host: ")).unwrap_or(host);
    let mut text =
        format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {ip}\r\nX-Request-Id: n{number}n\r\n");
    for header in headers.iter().filter(|header| !header.starts_with("Host")) {
        text += &format!("{header}\r\n");
    }
    let mut client = Client::connect(flagstone.address("web").await).await.unwrap();
    client.send(format!("{text}Connection: close\r\n\r\n")).await.unwrap();
    let answer = if *method == "HEAD" { client.read_head_response().await } else { client.read_response().await };
    let answer = answer.unwrap();
    (answer.status, answer.header("flagstone-reason").map(str::to_owned))
}

/// The line of the access log of this request.
async fn logged(flagstone: &Flagstone, number: usize) -> Value {
    let mut line = Value::Null;
    let is_there = || {
        let log = flagstone.folder.read("access.log");
        let found =
            log.split_inclusive('\n').find(|line| line.contains(&format!("n{number}n")) && line.ends_with('\n'));
        line = found.map_or(Value::Null, |found| serde_json::from_str(found).unwrap());
        !line.is_null()
    };
    assert!(eventually(DEADLINE, is_there).await, "request {number}");
    line
}

/// Says of every request what then really happens to it.
async fn assert_true(flagstone: &mut Flagstone, upstream: &FakeUpstream, round: usize) {
    let mut all = Vec::new();
    for (asked, number) in REQUESTS.iter().zip(round * 100..) {
        let said = explained(flagstone, asked).await;
        let (status, reason) = happened(flagstone, asked, number).await;
        all.push((asked, number, said, status, reason));
    }
    for (asked, number, said, status, reason) in all {
        let line = logged(flagstone, number).await;
        let context = format!("round {round}, {asked:?}\nsaid {said:#}\nhappened {status} {reason:?} {line}");
        assert_eq!(said["upstream"], line["upstream"], "{context}");
        // A redirect to https or a malformed request has no route on either side.
        assert_eq!(said["route"], line["route"], "{context}");
        assert_eq!(said["reason"].as_str(), reason.as_deref(), "{context}");
        match said["status"].is_null() {
            false => assert_eq!(said["status"], status, "{context}"),
            true => {
                assert_eq!(status, 200, "{context}");
                let number = line["request_id"].as_str();
                let requests = upstream.requests();
                let got = requests.iter().find(|request| request.head.header("x-request-id") == number).unwrap();
                let sent = format!("as {}", got.head.line.trim_end_matches(" HTTP/1.1"));
                assert!(said["outcome"].as_str().unwrap().ends_with(&sent), "{context}\n{sent}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_explained_is_what_happens() {
    let upstream = FakeUpstream::http1().route("*", "app").start().await;
    let mut flagstone = Flagstone::serve_in(folder(), &everything(&upstream)).await;
    assert_true(&mut flagstone, &upstream, 0).await;
    // The same with a client blocked and features flipped, then in maintenance of three kinds.
    let admin = flagstone.admin().await.to_string();
    let file = flagstone.config().display().to_string();
    let run = async |arguments: &[&str]| {
        let ended = Flagstone::run(arguments.iter().chain(&["-c", &file])).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    };
    run(&["block", "203.0.113.66", "--admin", &admin]).await;
    run(&["feature", "set", "beta.on", "false", "--admin", &admin]).await;
    run(&["feature", "set", "beta.off", "true", "--admin", &admin]).await;
    assert_true(&mut flagstone, &upstream, 1).await;
    run(&["feature", "set", "beta.on", "true", "--admin", &admin]).await;
    for (round, flag) in
        ["", "mode = \"read_only\"", "routes = [\"api\", \"on\"]\nallow = [\"203.0.113.66\"]"].iter().enumerate()
    {
        flagstone.folder.replace("state/maintenance.flag", flag);
        let address = flagstone.address("web").await;
        let is_on = async || {
            let mut client = Client::connect(address).await.unwrap();
            client.request("POST", "/v1", "X-Forwarded-For: 203.0.113.8\r\nX-Host: api\r\n").await.unwrap();
            let other = client.read_response().await.unwrap().status;
            let mut client = Client::connect(address).await.unwrap();
            client.send("POST /on HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.8\r\n\r\n").await.unwrap();
            let on = client.read_response().await.unwrap().status;
            client.send("GET /on HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.8\r\n\r\n").await.unwrap();
            let read = client.read_response().await.unwrap().status;
            (other, on, read) == [(503, 503, 503), (503, 503, 201), (200, 503, 503)][round]
        };
        assert!(eventually_async(DEADLINE, is_on).await, "{flag}");
        assert_true(&mut flagstone, &upstream, 2 + round).await;
    }
}

#[tokio::test]
async fn an_open_breaker_is_known_while_a_process_tells_it() {
    let upstream = FakeUpstream::http1().route("*", "app").start().await;
    let mut flagstone = Flagstone::serve_in(folder(), &everything(&upstream)).await;
    let (admin, file) = (flagstone.admin().await.to_string(), flagstone.config().display().to_string());
    for upstream in ["app", "other"] {
        let opened = Flagstone::run(["breaker", "open", upstream, "-c", &file, "--admin", &admin]).await;
        assert_eq!(opened.status.code(), Some(0), "{opened:?}");
    }
    let explain_of = async |url| Flagstone::run(["explain", url, "-c", &file, "--admin", &admin]).await.stdout;
    let explain = async || explain_of("http://x.example/").await;
    let text = explain().await;
    assert!(text.contains("=> 503 circuit_open, "), "{text}");
    // One in shadow turns nobody away.
    let text = explain_of("http://api.example/v1/a").await;
    assert!(text.contains(" open, only watched\n") && text.contains("=> forwarded to upstream other "), "{text}");
    flagstone.process.signal(Signal::TERM);
    flagstone.process.wait(DEADLINE).await;
    let text = explain().await;
    assert!(text.contains("=> forwarded to upstream app as GET /\n"), "{text}");
}

async fn told(toml: &str, arguments: &[&str]) -> Ended {
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", toml).display().to_string();
    Flagstone::run(arguments.iter().chain(&["-c", &file])).await
}

#[tokio::test]
async fn it_says_which_and_why_and_leaves_no_trace() {
    let toml = format!(
        "{PROCESS}[[listener]]\nname = \"more\"\naddress = \"127.0.0.1:8081\"\n\
         [[route]]\nname = \"all\"\nrespond = {{ body = \"all\" }}\n\
         [[route]]\nname = \"api\"\nhost = [\"*.example.com\"]\npath = [\"/api\"]\nupstream = \"app\"\nlimits = [\"per_ip\"]\n\
         [limit.per_ip]\nrate = \"100/1m\"\n\
         [upstream.app]\nendpoints = [\"127.0.0.1:1\", {{ address = \"127.0.0.1:2\", weight = 3, backup = true }}]\n"
    );
    let ended =
        told(&toml, &["explain", "post", "http://www.example.com:8081/api/orders", "--ip", "2001:db8::7"]).await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    for part in [
        "POST http://www.example.com:8081/api/orders from 2001:db8::7",
        "listener     more (127.0.0.1:8081): plain",
        "route        api: host *.example.com, path /api; more specific than all",
        "maintenance  off",
        "limit        per_ip: 100/1m, burst 100; counts by client_ip = 2001:db8::/64",
        "upstream     app: 127.0.0.1:1, 127.0.0.1:2 (weight 3) (backup)",
        "=> forwarded to upstream app as POST /api/orders",
    ] {
        assert!(ended.stdout.contains(part), "{part:?} is not in {}", ended.stdout);
    }
}

#[tokio::test]
async fn reasons_are_the_true_ones() {
    let folder = Folder::new();
    let file = folder.write(
        "flagstone.toml",
        format!(
            "{PROCESS}[client_ip]\ntrusted_proxies = [\"127.0.0.1\"]\n\
             [[route]]\nname = \"all\"\nrespond = {{ body = \"all\" }}\n\
             [[route]]\nname = \"w\"\nhost = [\"*.example.com\"]\nmethod = [\"GET\", \"POST\"]\nrespond = {{ body = \"w\" }}\n"
        ),
    );
    let file = file.display().to_string();
    let explain = async |words: &[&str]| {
        let ended = Flagstone::run(["explain", "-c", &file].iter().chain(words)).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.stdout
    };
    let text = explain(&["http://a.example.com/", "--ip", "127.0.0.1"]).await;
    assert!(
        text.contains(
            "127.0.0.1: the address of the connection, which is a trusted proxy's; X-Forwarded-For names no other"
        ),
        "{text}"
    );
    let text =
        explain(&["http://a.example.com/", "--ip", "127.0.0.1", "--header", "X-Forwarded-For: 203.0.113.9"]).await;
    assert!(text.contains("203.0.113.9: from X-Forwarded-For, for 127.0.0.1 is a trusted proxy"), "{text}");
    let text = explain(&["DELETE", "http://a.example.com/"]).await;
    assert!(text.contains("all: any host, path /; w would match, but not by DELETE"), "{text}");
    let text = explain(&["http://a.example.com/"]).await;
    assert!(text.contains("w: host *.example.com, path /, method GET or POST; more specific than all"), "{text}");
    let call = ["http://a.example.com/", "--header", "Content-Type: application/grpc", "--header", "Content-Length: x"];
    let text = explain(&call).await;
    assert!(text.contains("=> 400 bad_request, answered here"), "it never becomes a call: {text}");
    for (flag, method, ip, why) in [
        ("mode = \"read_only\"", "GET", "203.0.113.9", "on, but it lets the method pass"),
        ("allow = [\"203.0.113.9\"]", "POST", "203.0.113.9", "on, but the client is on the flag's allow list"),
        ("paths = [\"/b\"]", "GET", "203.0.113.9", "on, but the flag does not cover this request"),
        ("", "GET", "203.0.113.9", "on for everything it covers"),
    ] {
        folder.write("state/maintenance.flag", flag);
        let text = explain(&[method, "http://a.example.com/", "--ip", ip]).await;
        assert!(text.contains(why), "{flag}: {text}");
    }
}

#[tokio::test]
async fn wrong_words_are_wrong_use_and_a_wrong_file_says_so() {
    let toml = format!("{PROCESS}[[route]]\nname = \"all\"\nrespond = {{ body = \"all\" }}\n");
    for wrong in
        [&["explain"][..], &["explain", "ftp://x/"], &["explain", "G T", "/"], &["explain", "/", "--header", "x"]]
    {
        let ended = told(&toml, wrong).await;
        assert_eq!(ended.status.code(), Some(2), "{wrong:?}");
        assert!(!ended.stderr.contains("Usage: flagstone <COMMAND>"), "{wrong:?}: {}", ended.stderr);
    }
    let ended = told("[[route]]\n", &["explain", "/"]).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("route[0].name: is missing"), "{}", ended.stderr);
}
