//! What only shows when a configuration is built: all of it is told at once, each with its place, its value and what to
//! do.

use std::collections::BTreeMap;
use std::net::TcpListener;

use serde_json::Value;

use crate::support::certs::Ca;
use crate::support::files::Folder;
use crate::support::process::{Flagstone, Process};
use crate::support::{admin, client};

const GOOD: &str = "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
                    [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nrespond = { body = \"good\" }\n";

/// Everything at once that is no matter of the text alone, and the paths that have to be named.
fn bad(folder: &Folder, busy: [&str; 2]) -> (String, Vec<&'static str>) {
    let ca = Ca::new();
    ca.leaf(&["a.example"]).write(folder, "good");
    ca.mismatched(&["b.example"]).write(folder, "mismatched");
    folder.write("garbage.pem", "garbage");
    let text = format!(
        r#"[server]
state_dir = "state"
[admin]
listen = "{}"
[log]
access = "nowhere/access.log"
[maintenance]
page = "no-page"
[[listener]]
name = "web"
address = "{}"
[listener.tls]
certificates = [
    {{ cert = "good.pem", key = "good.key" }},
    {{ cert = "missing.pem", key = "garbage.pem" }},
    {{ cert = "mismatched.pem", key = "mismatched.key" }},
]
client_auth = {{ ca = "garbage.pem" }}
[[route]]
name = "all"
upstream = "app"
[[route]]
name = "files"
path = ["/files"]
files = {{ root = "no-files" }}
[upstream.app]
endpoints = ["127.0.0.1:1"]
tls = {{ ca = "garbage.pem", client = {{ cert = "missing.pem", key = "missing.key" }} }}
[redis]
url = "rediss://127.0.0.1:1"
ca = "missing.pem"
"#,
        busy[0], busy[1]
    );
    let paths = vec![
        "admin.listen",
        "log.access",
        "maintenance.page",
        "listener[0].address",
        "listener[0].tls.certificates[1].cert",
        "listener[0].tls.certificates[1].key",
        "listener[0].tls.certificates[2].cert",
        "listener[0].tls.client_auth.ca",
        "redis.ca",
        "route[1].files.root",
        "upstream.app.tls.ca",
        "upstream.app.tls.client.cert",
        "upstream.app.tls.client.key",
    ];
    (text, paths)
}

#[tokio::test]
async fn a_refused_reload_tells_every_error_with_place_value_and_remedy() {
    let mut flagstone = Flagstone::serve(GOOD).await;
    let (web, admin) = (flagstone.address("web").await, flagstone.admin().await);
    let taken = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let taken = taken.each_ref().map(|socket| socket.local_addr().unwrap().to_string());
    let (text, paths) = bad(&flagstone.folder, [&taken[0], &taken[1]]);
    flagstone.folder.replace("flagstone.toml", &text);
    let answer = admin::ask(admin, "POST", "/api/admin/reload").await;
    assert_eq!(answer.status, 422);
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    let told: BTreeMap<_, _> =
        json["errors"].as_array().unwrap().iter().map(|error| (error["path"].as_str().unwrap(), error)).collect();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), sorted(&paths), "{json:#}");
    for (path, error) in &told {
        assert!(error["file"].as_str().is_some_and(|file| file.ends_with("flagstone.toml")), "{error}");
        let line = usize::try_from(error["line"].as_u64().unwrap()).unwrap();
        let value = error["value"].as_str().unwrap_or_else(|| panic!("{path} has no value: {error}"));
        // The value stands in that line, or, in a table of several lines, not far below.
        let near: Vec<_> = text.lines().skip(line - 1).take(3).collect();
        assert!(near.iter().any(|line| line.contains(value)), "{error}: {near:?}");
        assert!(error["help"].as_str().is_some_and(|help| help.len() > 10), "{error}");
    }
    let lines: Vec<_> = json["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64()).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    assert_eq!(client::get(web, "/").await.unwrap().text(), "good");
    for left in ["nowhere", "no-page", "no-files"] {
        assert!(!flagstone.folder.join(left).exists());
    }
}

#[tokio::test]
async fn a_shared_store_is_looked_at_before_a_limit_uses_it() {
    let folder = Folder::new();
    let with = |url: &str| format!("{GOOD}[redis]\nurl = \"{url}\"\n");
    for (url, code) in [("redis://h/1", 0), ("redis://h/notadb", 1), ("rediss://h:1/notadb", 1)] {
        let file = folder.write("flagstone.toml", with(url));
        let checked = Flagstone::run(["check".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
        assert_eq!(checked.status.code(), Some(code), "{url}: {}", checked.stderr);
        assert_eq!(checked.stderr.contains("redis.url = "), code == 1, "{}", checked.stderr);
    }
}

#[tokio::test]
async fn what_was_refused_leaves_no_series() {
    let mut flagstone = Flagstone::serve(GOOD).await;
    let admin = flagstone.admin().await;
    let refused = "[[route]]\nname = \"phantom\"\npath = [\"/phantom\"]\nupstream = \"phantom\"\nlimits = [\"phantom\"]\n\
                   [upstream.phantom]\nendpoints = [\"127.0.0.1:9\"]\n[limit.phantom]\nrate = \"1/1s\"\n\
                   [[route]]\nname = \"gone\"\npath = [\"/gone\"]\nfiles = { root = \"no-files\" }\n";
    flagstone.folder.replace("flagstone.toml", format!("{}\n{refused}", flagstone.folder.read("flagstone.toml")));
    assert_eq!(admin::ask(admin, "POST", "/api/admin/reload").await.status, 422);
    let metrics = client::get(admin, "/metrics").await.unwrap();
    assert!(!metrics.text().contains("phantom"), "{}", metrics.text());
}

#[tokio::test]
async fn a_refused_start_and_a_check_tell_the_same() {
    let taken = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let taken = taken.each_ref().map(|socket| socket.local_addr().unwrap().to_string());
    let folder = Folder::new();
    let (text, paths) = bad(&folder, [&taken[0], &taken[1]]);
    let file = folder.write("flagstone.toml", text);
    let refused = Flagstone::run(["run".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert_eq!(refused.status.code(), Some(1));
    let line_of = |text: &str, path: &str| text.lines().any(|line| line.contains(&format!(": {path} = \"")));
    for path in &paths {
        assert!(line_of(&refused.stderr, path), "{path}: {}", refused.stderr);
    }
    // It binds nothing, and may be run by whoever may not write the log.
    let checked = Flagstone::run(["check".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert_eq!(checked.status.code(), Some(1));
    for path in paths.iter().filter(|path| !["admin.listen", "log.access", "listener[0].address"].contains(path)) {
        assert!(line_of(&checked.stderr, path), "{path}: {}", checked.stderr);
    }
}

#[tokio::test]
async fn a_slip_in_the_text_does_not_hide_what_is_missing_on_disk() {
    let mut flagstone = Flagstone::serve(GOOD).await;
    let admin = flagstone.admin().await;
    let (text, mut paths) = bad(&flagstone.folder, ["127.0.0.1:0", "127.0.0.1:0"]);
    // What has to be left out of the search is what these stand for: a key, a root, a whole upstream's address.
    let text = text
        .replace("key = \"garbage.pem\"", "kye = \"garbage.pem\"")
        .replace("files = { root = \"no-files\" }", "files = { root = 7 }")
        .replace("endpoints = [\"127.0.0.1:1\"]", "endpoints = [\"app\"]");
    let is_of_text = |path: &&str| ["route[1].files.root", "listener[0].tls.certificates[1].key"].contains(path);
    // Whether an address is free, or a log can be written, is looked at when all the rest is well.
    let is_of_process = |path: &&str| ["admin.listen", "log.access", "listener[0].address"].contains(path);
    paths.retain(|path| !is_of_text(path) && !is_of_process(path));
    paths.extend(["listener[0].tls.certificates[1].kye", "route[1].files.root", "upstream.app.endpoints[0]"]);
    let file = flagstone.folder.write("flagstone.toml", &text);
    let answer = admin::ask(admin, "POST", "/api/admin/reload").await;
    assert_eq!(answer.status, 422);
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    let told: Vec<_> = json["errors"].as_array().unwrap().iter().map(|error| error["path"].as_str().unwrap()).collect();
    assert_eq!(sorted(&told), sorted(&paths), "{json:#}");
    let lines: Vec<_> = json["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64()).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    for command in ["check", "run"] {
        let refused = Flagstone::run([command.as_ref(), "-c".as_ref(), file.as_os_str()]).await;
        assert_eq!(refused.status.code(), Some(1));
        let line_of = |path: &str| refused.stderr.lines().filter(|line| line.contains(&format!(": {path}"))).count();
        assert!(paths.iter().all(|path| line_of(path) >= 1), "{command}: {}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), paths.len(), "{command}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn what_a_variable_holds_is_not_shown_as_a_wrong_path() {
    let folder = Folder::new();
    let paths = "path = [\"/a\", \"${PATHS}\"]\n[maintenance]\nexempt_paths = [\"${PATHS}\"]\n";
    let file = folder.write("flagstone.toml", format!("{GOOD}{paths}"));
    let mut check = Flagstone::command(["check".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let told = Process::run(check.env("PATHS", "/hunter2%zz")).await;
    let line_of = |path: &str| told.stderr.lines().any(|line| line.contains(&format!(": {path} = \"${{PATHS}}\": ")));
    assert!(line_of("route[0].path[1]") && line_of("maintenance.exempt_paths[0]"), "{}", told.stderr);
    assert!(!told.stderr.contains("hunter2"), "{}", told.stderr);
}

fn sorted<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    let mut paths = paths.to_vec();
    paths.sort_unstable();
    paths
}
