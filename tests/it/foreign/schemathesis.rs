//! schemathesis against the admin API: requests made from the OpenAPI document, good and bad ones, and every answer
//! held against it.
//!
//! Left out: the event stream, which never ends, and draining and
//! upgrading, which end the process.

use std::process::Command;
use std::time::Duration;

use super::HEAD;
use crate::support::admin;
use crate::support::files::Folder;
use crate::support::process::{Flagstone, Process};
use crate::support::python::python_venv;

const PACKAGE: &str = "schemathesis==4.32.5";

/// 422 is for values that the schema cannot tell to be useless, such as a CIDR with too long a prefix, and so is a
/// flag's 400. Every name in the configuration is `app`.
const SETTINGS: &str = r#"
[parameters]
"path.name" = "app"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 422, "5xx"]

[[operations]]
include-name = "POST /api/admin/maintenance/enable"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 422]
"#;

fn config(token: &str) -> String {
    let admin = format!("[admin]\ntoken = \"{token}\"");
    let head = HEAD.replace("[admin]", &admin);
    format!(
        "{head}[[route]]\nname = \"app\"\nupstream = \"app\"\nlimits = [\"app\"]\nfeature = \"app\"\n[upstream.app]\n\
         endpoints = [\"127.0.0.1:1\"]\n[limit.app]\nrate = \"10/1m\"\n[features]\napp = true\n"
    )
}

/// Runs it to its end and tells what it found.
async fn findings(token: &str, options: &[&str]) -> Result<(), String> {
    let python = python_venv(&[PACKAGE])?;
    let mut flagstone = Flagstone::serve(&config(token)).await;
    let at = flagstone.admin().await;
    let folder = Folder::new();
    let settings = folder.write("schemathesis.toml", SETTINGS);
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command.current_dir(folder.path()).arg("--config-file").arg(settings);
    command.args(["run", &format!("http://{at}/api/openapi.json"), "--no-color", "--seed", "1"]);
    for path in ["/api/events", "/api/admin/drain", "/api/admin/upgrade"] {
        command.args(["--exclude-path", path]);
    }
    command.args(["--generation-database", "none"]).args(options);
    let mut judge = Process::start(&mut command);
    let status = judge.wait(Duration::from_secs(240)).await;
    let (told, also) = (judge.stdout(), judge.stderr());
    assert!(status.success(), "{told}\n{also}");
    assert!(told.contains("Tested: "), "it has looked at something: {told}\n{also}");
    assert_eq!(admin::ask(at, "GET", "/healthz").await.text(), "ok", "it lives");
    Ok(())
}

#[tokio::test]
async fn nothing_is_found_without_a_token() {
    or_left_out!(findings("", &["--max-examples", "5", "--phases", "coverage,fuzzing"]).await);
}

#[tokio::test]
async fn nothing_is_found_with_a_token() {
    // It would try wrong tokens between the others, and be told to wait. Logging in is made of wrong tokens.
    let options = [
        "--max-examples",
        "5",
        "--phases",
        "coverage,fuzzing",
        "--exclude-checks",
        "ignored_auth",
        "--exclude-path",
        "/api/login",
    ];
    let token = ["-H", "Authorization: Bearer s3cret"];
    or_left_out!(findings("s3cret", &[&options[..], &token[..]].concat()).await);
}

#[tokio::test]
async fn no_call_forgets_to_ask_for_the_token() {
    let options = ["--max-examples", "1", "--checks", "ignored_auth", "--phases", "coverage"];
    let token = ["-H", "Authorization: Bearer s3cret"];
    or_left_out!(findings("s3cret", &[&options[..], &token[..]].concat()).await);
}
