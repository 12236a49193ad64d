//! Commands that steer the running process: reload, healthcheck, drain; and what is printed for shells and for `man`.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::client;
use crate::support::files::Folder;
use crate::support::process::{DEADLINE, Ended, Flagstone, Process};

fn config(routes: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"unix:ADMIN\"\ntoken = \"secret\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n{routes}"
    )
}

fn says(name: &str, text: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\npath = [\"/{name}\"]\nrespond = {{ body = \"{text}\" }}\n")
}

/// A process with the admin side on a unix socket in its folder.
async fn serve(routes: &str) -> Flagstone {
    let folder = Folder::new();
    let admin = folder.join("admin.sock").display().to_string();
    Flagstone::serve_in(folder, &config(routes).replace("ADMIN", &admin)).await
}

fn rewrite(flagstone: &Flagstone, routes: &str) {
    let admin = flagstone.folder.join("admin.sock").display().to_string();
    flagstone.folder.replace("flagstone.toml", config(routes).replace("ADMIN", &admin));
}

async fn run(flagstone: &Flagstone, command: &str) -> Ended {
    Flagstone::run([command.as_ref(), "-c".as_ref(), flagstone.config().as_os_str()]).await
}

#[tokio::test]
async fn reload_prints_what_changed() {
    let mut flagstone = serve(&(says("kept", "1") + &says("old", "1"))).await;
    let nothing = run(&flagstone, "reload").await;
    assert_eq!(nothing.status.code(), Some(0), "{nothing:?}");
    assert!(nothing.stdout.contains(", no setting changed since generation 1 was loaded "), "{}", nothing.stdout);
    let address = flagstone.address("web").await;
    // The watcher may be faster than the command, which then finds nothing new: the event says what changed either way.
    rewrite(&flagstone, &(says("api", "1") + &says("kept", "2")));
    let reloaded = run(&flagstone, "reload").await;
    assert_eq!((reloaded.status.code(), reloaded.stderr.as_str()), (Some(0), ""));
    let changes = "routes: +api ~kept -old";
    let line = flagstone.process.stderr_line(changes).await;
    let told = reloaded.stdout.contains(&format!("\n  {changes}\n")) || reloaded.stdout.contains("no setting changed");
    assert!(told, "{}\n{line}", reloaded.stdout);
    assert_eq!(client::get(address, "/kept").await.unwrap().text(), "2");
}

#[tokio::test]
async fn a_refused_reload_is_1_with_every_error_and_the_old_file_serves_on() {
    let mut flagstone = serve(&says("kept", "1")).await;
    let address = flagstone.address("web").await;
    rewrite(&flagstone, &(says("kept", "2") + "[servr]\n[upstream.app]\nendpoints = [\"x\"]\n"));
    let refused = run(&flagstone, "reload").await;
    assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    let expected =
        ["The old configuration serves on", ":13:1: servr: unknown key: did you mean \"server\"?", "endpoints[0]"];
    for part in expected {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert_eq!(client::get(address, "/kept").await.unwrap().text(), "1");
    // A file that is broken is no reason for an orchestrator to kill what serves on.
    assert_eq!(run(&flagstone, "healthcheck").await.status.code(), Some(0));
    let broken = flagstone.folder.read("flagstone.toml").replace("[admin]", "[[[");
    flagstone.folder.write("flagstone.toml", broken);
    let told = run(&flagstone, "reload").await;
    assert_eq!(told.status.code(), Some(1));
    assert!(told.stderr.contains("not TOML"), "{}", told.stderr);
}

#[tokio::test]
async fn a_file_that_is_no_toml_any_more_is_no_reason_to_end_what_serves_on() {
    let flagstone = serve(&says("kept", "1")).await;
    let right = flagstone.folder.read("flagstone.toml");
    flagstone.folder.write("more.toml", "path=[\"/b\"\n");
    for broken in [format!("{right}no toml\n"), format!("include = [\"more.toml\"]\n{right}")] {
        flagstone.folder.write("flagstone.toml", broken);
        for (command, says) in [("healthcheck", "ready\n"), ("status", "flagstone ")] {
            let ended = run(&flagstone, command).await;
            assert_eq!(ended.status.code(), Some(0), "{command}: {ended:?}");
            assert!(ended.stdout.starts_with(says), "{}", ended.stdout);
            assert!(ended.stderr.starts_with("flagstone: warning: ") && ended.stderr.contains("not TOML"), "{ended:?}");
        }
        let refused = run(&flagstone, "reload").await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("The old configuration serves on"), "{refused:?}");
    }
}

#[tokio::test]
async fn healthcheck_follows_readiness_and_drain_ends_the_process() {
    let mut flagstone = serve(&says("a", "1")).await;
    let admin = flagstone.folder.join("admin.sock").display().to_string();
    let slow = config(&says("a", "1")).replace("[admin]", "shutdown_delay = \"3s\"\n[admin]").replace("ADMIN", &admin);
    flagstone.folder.replace("flagstone.toml", slow);
    flagstone.process.stderr_line("Configuration reloaded").await;
    let ready = run(&flagstone, "healthcheck").await;
    assert_eq!((ready.status.code(), ready.stdout.as_str()), (Some(0), "ready\n"));
    let drained = run(&flagstone, "drain").await;
    assert_eq!((drained.status.code(), drained.stderr.as_str()), (Some(0), ""));
    assert!(
        drained.stdout.starts_with(&format!("draining: process {} ", flagstone.process.id())),
        "{}",
        drained.stdout
    );
    let (code, told) = json(&flagstone, "healthcheck").await;
    assert_eq!((code, &told["ready"], &told["status"]), (1, &false.into(), &503.into()), "{told}");
    let unready = run(&flagstone, "healthcheck").await;
    assert_eq!((unready.status.code(), unready.stdout.as_str()), (Some(1), ""));
    assert!(unready.stderr.contains("not ready: 503 draining"), "{}", unready.stderr);
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
    let gone = run(&flagstone, "healthcheck").await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.stderr.contains("no process answers on"), "{}", gone.stderr);
}

#[tokio::test]
async fn what_is_no_flagstone_is_not_ready() {
    let not_ok = "its /readyz does not say ok";
    for (status, body, why) in [
        ("200 OK", "hello", not_ok),
        ("200 OK", "", not_ok),
        ("200 OK", "okay", not_ok),
        ("200 OK", "{\"ok\":true}", not_ok),
        ("404 Not Found", "<h1>Not Found</h1>", "its /readyz answers 404"),
        ("503 Service Unavailable", "<h1>Back soon</h1>", "its /readyz answers 503"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let other = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
            socket.write_all(format!("HTTP/1.1 {status}\r\n\r\n{body}").as_bytes()).unwrap();
        });
        let ended = Flagstone::run(["healthcheck", "--json", "--admin", &address]).await;
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{body:?}: {ended:?}");
        assert!(ended.stderr.contains(&format!("is no flagstone: {why}")), "{body:?}: {ended:?}");
        other.join().unwrap();
    }
}

/// What a command prints with `--json`, and its exit code.
async fn json(flagstone: &Flagstone, command: &str) -> (i32, serde_json::Value) {
    let words = command.split(' ').map(std::ffi::OsStr::new);
    let config = flagstone.config();
    let ended = Flagstone::run(words.chain(["--json".as_ref(), "-c".as_ref(), config.as_os_str()])).await;
    let value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{command}: {error}: {ended:?}"));
    (ended.status.code().unwrap(), value)
}

#[tokio::test]
async fn scripts_get_json_from_every_command_that_tells_something() {
    let app = crate::support::upstream::FakeUpstream::http1().route("*", "ok").start().await;
    let more = format!(
        "[[route]]\nname = \"app\"\nupstream = \"app\"\nlimits = [\"l\"]\nfeature = \"f\"\n[upstream.app]\nendpoints = [\"{}\"]\n\
         [limit.l]\nrate = \"9/1s\"\n[features]\nf = true\n",
        app.endpoint()
    );
    let flagstone = serve(&(says("a", "1") + &more)).await;
    for (command, key) in [
        ("reload", "generation"),
        ("healthcheck", "ready"),
        ("check", "valid"),
        ("status", "process"),
        ("maintenance on --route a", "is_active"),
        ("maintenance status", "is_active"),
        ("maintenance off --route a", "is_active"),
        ("breaker list", "circuitBreakers"),
        ("breaker open app", "circuitBreakers"),
        ("breaker reset app", "circuitBreakers"),
        ("limit list", "limits"),
        ("limit set l 5/1s", "rate"),
        ("limit clear l", "rate"),
        ("feature list", "featureFlags"),
        ("feature set f false", "value"),
        ("feature clear f", "value"),
        ("block 192.0.2.1", "cidr"),
        ("blocked", "entries"),
        ("unblock 192.0.2.1", "cidr"),
        ("explain /app", "route"),
    ] {
        let (code, value) = json(&flagstone, command).await;
        assert!(code == 0 && !value[key].is_null(), "{command}: {code}: {value:#}");
    }
    assert_eq!(json(&flagstone, "certs").await, (0, serde_json::json!([])));
    assert_eq!(json(&flagstone, "maintenance off").await.1["is_active"], false);
}

#[tokio::test]
async fn steering_wants_the_token() {
    let flagstone = serve(&says("a", "1")).await;
    let config = flagstone.folder.read("flagstone.toml");
    for (other, told) in [
        (config.replace("secret", "guess"), "the admin side takes another token than admin.token"),
        (config.replace("token =", "# token ="), "the admin side wants its token"),
        (config.replace("secret", "${NOWHERE}"), "admin.token: the environment variable NOWHERE is not set"),
        (
            config.replace("[admin]", "[admn]"),
            "admn: unknown key: did you mean \"admin\"?\nflagstone: the process is found",
        ),
    ] {
        let other = flagstone.folder.write("other.toml", other);
        for command in ["reload", "drain"] {
            let refused = Flagstone::run([command.as_ref(), "-c".as_ref(), other.as_os_str()]).await;
            assert_eq!(refused.status.code(), Some(1));
            assert!(refused.stderr.contains(told), "{}", refused.stderr);
        }
    }
    assert_eq!(run(&flagstone, "healthcheck").await.status.code(), Some(0));
}

#[tokio::test]
async fn completions_are_for_every_shell_and_bash_reads_its_own() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Flagstone::run(["completions", shell]).await;
        assert_eq!((script.status.code(), script.stderr.as_str()), (Some(0), ""), "{shell}");
        for command in ["maintenance", "healthcheck", "reload"] {
            assert!(script.stdout.contains(command), "{shell}: {command}");
        }
    }
    let folder = Folder::new();
    let script = folder.write("completions.bash", Flagstone::run(["completions", "bash"]).await.stdout);
    let words =
        "COMP_WORDS=(flagstone mainte); COMP_CWORD=1; _flagstone flagstone mainte flagstone; echo \"${COMPREPLY[@]}\"";
    let asked = format!("source {} && {words}", script.display());
    let completed = Process::run(std::process::Command::new("bash").args(["-c", &asked])).await;
    assert_eq!((completed.stdout.as_str(), completed.stderr.as_str()), ("maintenance\n", ""));
    assert_eq!(Flagstone::run(["completions", "tcsh"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn the_manual_page_has_every_command_and_option() {
    let page = Flagstone::run(["man"]).await;
    assert_eq!((page.status.code(), page.stderr.as_str()), (Some(0), ""));
    assert!(page.stdout.contains(".TH flagstone 1"), "{}", page.stdout);
    let help = Flagstone::run(["--help"]).await.stdout;
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    // Two spaces before a name, more before the rest of a description.
    let listed = commands.lines().filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let names: Vec<_> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 12, "{names:?}");
    for name in names.into_iter().filter(|name| !["help"].contains(name)) {
        assert!(page.stdout.contains(&format!(".SS \"flagstone {name}")), "{name}");
    }
    for part in ["\\-\\-upstream", "\\-\\-terminate", "EXIT STATUS", "USR1"] {
        assert!(page.stdout.contains(part), "{part}");
    }
    // A request of troff that is none would be printed as nothing.
    let known = [".TH", ".SH", ".SS", ".TP", ".PP", ".IP", ".RS", ".RE", ".br", ".ie", ".el"];
    for line in page.stdout.lines().filter(|line| line.starts_with('.')) {
        assert!(known.iter().any(|request| line.starts_with(request)), "{line}");
    }
}
