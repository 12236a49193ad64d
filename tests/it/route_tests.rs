//! `[[test]]` in the configuration: run by `check` and before every reload.

use serde_json::Value;

use crate::support::admin;
use crate::support::client;
use crate::support::files::Folder;
use crate::support::poll::eventually_async;
use crate::support::process::{DEADLINE, Ended, Flagstone};
use crate::support::proxy::TestProxy;

const PROCESS: &str = "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"access.log\"\n\
                       [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";

const ROUTES: &str = "[[route]]\nname = \"api\"\nhost = [\"example.com\"]\npath = [\"/api\"]\nupstream = \"app\"\nlimits = [\"per_ip\"]\n\
                      [[route]]\nname = \"text\"\nrespond = { status = 202, body = \"one\" }\ndeny = [\"192.0.2.0/24\"]\n\
                      [upstream.app]\nendpoints = [\"127.0.0.1:1\"]\n[limit.per_ip]\nrate = \"10/1s\"\n";

const PASSING: &str = "[[test]]\nname = \"orders\"\n\
                       request = { method = \"POST\", url = \"https://example.com/api/orders\", ip = \"203.0.113.9\" }\n\
                       expect = { route = \"api\", upstream = \"app\", status = 0, limits = [\"per_ip\"] }\n\
                       [[test]]\nname = \"text\"\nrequest = { url = \"http://other/\" }\n\
                       expect = { route = \"text\", status = 202, limits = [] }\n\
                       [[test]]\nname = \"denied\"\nrequest = { url = \"http://other/\", ip = \"192.0.2.1\" }\nexpect = { status = 403 }\n";

async fn check(folder: &Folder, toml: &str, more: &[&str]) -> Ended {
    let file = folder.write("flagstone.toml", toml).display().to_string();
    Flagstone::run(["check", "-c", &file].iter().chain(more)).await
}

#[tokio::test]
async fn passing_tests_are_counted() {
    let ended = check(&Folder::new(), &format!("{PROCESS}{ROUTES}{PASSING}"), &[]).await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.ends_with("1 limit; 3 tests passed\n"), "{}", ended.stdout);
}

#[tokio::test]
async fn a_failing_test_tells_expected_and_got_with_its_place() {
    let folder = Folder::new();
    let failing =
        PASSING.replace("status = 0, limits = [\"per_ip\"]", "status = 200, limits = []").replace("= 403", "= 200");
    let toml = format!("{PROCESS}{ROUTES}{failing}").replace("host = [\"example.com\"]", "host = [\"example.org\"]");
    let ended = check(&folder, &toml, &[]).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""));
    let line = |what: &str| toml.lines().position(|line| line.starts_with(what)).unwrap() + 1;
    let at = format!("flagstone.toml:{}:", line("expect = { route = \"api\""));
    for part in [
        &format!(
            "{at}12: test[0].expect.route = \"api\": test \"orders\" failed: expected \"api\", got \"text\": POST https://example.com/api/orders is answered"
        ),
        "test[0].expect.upstream = \"app\": test \"orders\" failed: expected \"app\", got none: ",
        "test[0].expect.status = 200: test \"orders\" failed: expected 200, got 202: ",
        "test[2].expect.status = 200: test \"denied\" failed: expected 200, got 403: ",
        "flagstone: 2 of 3 tests failed\n",
    ] {
        assert!(ended.stderr.contains(part), "{part:?} is not in {}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 5, "{}", ended.stderr);
}

#[tokio::test]
async fn what_fails_is_told_without_its_secrets() {
    let toml = format!(
        "{PROCESS}{ROUTES}[[test]]\nname = \"key\"\n\
         request = {{ url = \"https://me:s3cret@example.com/api?maintenance_bypass=s3cret&page=2\" }}\nexpect = {{ route = \"text\" }}\n"
    );
    let ended = check(&Folder::new(), &toml, &[]).await;
    let shown = "GET https://***@example.com/api?maintenance_bypass=REDACTED&page=2 is forwarded";
    assert!(ended.stderr.contains(shown), "{}", ended.stderr);
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
}

#[tokio::test]
async fn check_speaks_json_whatever_comes_of_it() {
    let folder = Folder::new();
    let json = async |toml: &str| {
        let ended = check(&folder, toml, &["--format", "json"]).await;
        assert_eq!(ended.stderr, "");
        (ended.status.code(), serde_json::from_str::<Value>(&ended.stdout).unwrap())
    };
    let (code, good) = json(&format!("{PROCESS}{ROUTES}{PASSING}")).await;
    assert_eq!((code, &good["valid"], &good["errors"]), (Some(0), &true.into(), &Value::Array(Vec::new())));
    assert_eq!((&good["tests"][2]["name"], &good["tests"][2]["passed"]), (&"denied".into(), &true.into()));
    assert_eq!(good["summary"]["routes"], 2);

    let (code, failed) = json(&format!("{PROCESS}{ROUTES}{}", PASSING.replace("202", "204"))).await;
    assert_eq!((code, &failed["valid"]), (Some(1), &false.into()));
    let difference = &failed["tests"][1]["differences"][0];
    assert_eq!(
        (&difference["key"], &difference["expected"], &difference["got"]),
        (&"status".into(), &"204".into(), &"202".into())
    );
    assert_eq!(failed["errors"][0]["path"], "test[1].expect.status");
    assert!(failed["errors"][0]["line"].is_u64() && failed["tests"][1]["line"].is_u64());

    let (code, wrong) = json("[servr]\n[[route]]\nname = \"a\"\nupstream = \"b\"\n").await;
    assert_eq!((code, &wrong["tests"]), (Some(1), &Value::Array(Vec::new())));
    let errors = wrong["errors"].as_array().unwrap();
    assert!(errors.len() >= 3, "{wrong:#}");
    let unknown = errors.iter().find(|error| error["path"] == "servr").unwrap();
    assert_eq!((&unknown["line"], &unknown["help"]), (&1.into(), &"did you mean \"server\"?".into()));
}

#[tokio::test]
async fn a_failing_test_refuses_a_reload_but_not_a_start() {
    let proxy = TestProxy::toml(format!("{ROUTES}{PASSING}")).start().await;
    let text = proxy.folder.read("flagstone.toml");
    let answer = async || admin::ask(proxy.admin(), "POST", "/api/admin/reload").await;
    assert_eq!(answer().await.status, 200);
    // Another log too: a file that is refused leaves none behind.
    let failing = text.replace("\"one\"", "\"two\"").replace("status = 202, limits", "status = 299, limits");
    proxy.folder.replace("flagstone.toml", failing.replace("\"access.log\"", "\"other.log\""));
    let refused = answer().await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("test \\\"text\\\" failed: expected 299, got 202"), "{}", refused.text());
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().text(), "one");
    assert!(!proxy.folder.join("other.log").exists());
    proxy.folder.replace("flagstone.toml", failing.replace("299", "202"));
    let said = async || client::get(proxy.address(), "/").await.unwrap().text() == "two";
    assert!(eventually_async(DEADLINE, said).await);

    let mut flagstone =
        Flagstone::serve(&format!("{PROCESS}{ROUTES}{}", PASSING.replace("202, limits", "299, limits"))).await;
    flagstone.process.stderr_line("WARN").await;
    let warning = flagstone.process.stderr_line("test \"text\" failed: expected 299, got 202").await;
    assert!(warning.contains("WARN") && warning.contains("flagstone.toml:"), "{warning}");
    let address = flagstone.address("web").await;
    assert_eq!(client::get(address, "/").await.unwrap().text(), "one");
}

/// Tests prove the file: in the middle of an incident it must be possible to change it.
#[tokio::test]
async fn maintenance_does_not_fail_a_test() {
    let folder = Folder::new();
    folder.write("state/maintenance.flag", "");
    let proxy = TestProxy::toml(format!("{ROUTES}{PASSING}")).in_folder(folder).start().await;
    assert_eq!(client::get(proxy.address(), "/").await.unwrap().status, 503);
    let reloaded = admin::ask(proxy.admin(), "POST", "/api/admin/reload").await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
}
