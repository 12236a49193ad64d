//! The binary as people and scripts meet it: arguments, environment, streams, exit codes.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::certs::Ca;
use crate::support::client::Client;
use crate::support::files::Folder;
use crate::support::load::Load;
use crate::support::process::{DEADLINE, Ended, Flagstone, Process, Signal};
use crate::support::python::python_venv;

pub(super) const MINIMAL: &str = "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                                  [log]\naccess = \"access.log\"\n\
                                  [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
                                  [[route]]\nname = \"hello\"\nrespond = { body = \"hello\" }\n";

pub(super) fn code(ended: &Ended) -> i32 {
    ended.status.code().expect("it was not killed")
}

async fn check(folder: &Folder, toml: &str) -> Ended {
    let file = folder.write("flagstone.toml", toml);
    Flagstone::run(["check".as_ref(), "-c".as_ref(), file.as_os_str()]).await
}

/// A configuration that cannot be served: what `run` says, with `check` saying the same.
async fn refused(folder: &Folder, toml: &str) -> String {
    let file = folder.write("flagstone.toml", toml);
    let ended = Flagstone::run(["run".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert_eq!(code(&ended), 1, "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert!(!ended.stderr.contains("listening"), "{}", ended.stderr);
    assert!(!folder.join("access.log").exists(), "a log was left behind");
    ended.stderr
}

#[tokio::test]
async fn every_command_has_help_on_stdout() {
    let commands: [&[&str]; 7] =
        [&[], &["run"], &["demo"], &["check"], &["schema"], &["maintenance"], &["maintenance", "on"]];
    for command in commands {
        let ended = Flagstone::run(command.iter().chain(&["--help"])).await;
        assert_eq!(code(&ended), 0, "{command:?}");
        assert!(ended.stdout.contains("Usage: flagstone"), "{command:?}: {}", ended.stdout);
        assert_eq!(ended.stderr, "");
    }
}

#[tokio::test]
async fn wrong_use_is_2_and_on_stderr() {
    let wrong: [&[&str]; 7] = [
        &[],
        &["frobnicate"],
        &["run", "--listen", "127.0.0.1:0"],
        &["run", "--upstream", "127.0.0.1:1"],
        &["run", "--flag", "x"],
        &["run", "-c", "x.toml", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1"],
        &["demo", "--listen", "nowhere"],
    ];
    for arguments in wrong {
        let ended = Flagstone::run(arguments).await;
        assert_eq!(code(&ended), 2, "{arguments:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        let shows_the_way = ["Usage: flagstone", "try '--help'"].iter().any(|part| ended.stderr.contains(part));
        assert!(shows_the_way, "{arguments:?}: {}", ended.stderr);
        // Of the command that was given, not of all.
        assert!(!ended.stderr.contains("Usage: flagstone <COMMAND>") || arguments.len() < 2, "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_valid_file_is_checked_without_a_trace() {
    let folder = Folder::new();
    let ended = check(&folder, MINIMAL).await;
    assert_eq!(code(&ended), 0, "{ended:?}");
    assert!(ended.stdout.contains("is valid: 1 listener, 1 route, 0 upstreams, 0 limits"), "{}", ended.stdout);
    assert_eq!(ended.stderr, "");
    assert_eq!(folder.names(), ["flagstone.toml"]);
}

#[tokio::test]
async fn what_is_no_path_is_told_at_its_own_place() {
    let folder = Folder::new();
    let toml = format!(
        "{MINIMAL}path = [\"/a\", \"/%zz\"]\n\
         [maintenance]\nexempt_paths = [\"/ping\",\n\"/%4\"]\n"
    );
    let ended = check(&folder, &toml).await;
    assert_eq!((code(&ended), ended.stdout.as_str()), (1, ""));
    for (place, what, remedy) in [
        ("13:15", "route[0].path[1] = \"/%zz\": `%` is not followed by two hexadecimal digits", "write"),
        ("16:1", "maintenance.exempt_paths[1] = \"/%4\": `%` is not followed", "write"),
    ] {
        let start = format!("flagstone.toml:{place}: {what}");
        let line = ended.stderr.lines().find(|line| line.contains(&start));
        let line = line.unwrap_or_else(|| panic!("{start}\n{}", ended.stderr));
        assert!(line.contains(remedy) && !line.contains("of one of them"), "{line}");
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_written_here_is_a_warning_of_check() {
    let folder = Folder::new();
    let toml = MINIMAL.replace("access.log", "logs/access.log");
    let ended = check(&folder, &toml).await;
    assert_eq!(code(&ended), 0);
    let said = &ended.stderr;
    assert!(said.starts_with("flagstone: warning: ") && said.contains("logs does not exist: name a file"), "{said}");
    folder.create_folder("logs");
    let ended = check(&folder, &toml).await;
    assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
    assert!(
        refused(&Folder::new(), &toml).await.contains("logs does not exist"),
        "where it is to serve it is an error"
    );
}

#[tokio::test]
async fn a_log_that_is_a_pipe_is_a_warning_of_check_and_wants_a_reader() {
    let folder = Folder::new();
    folder.fifo("log.pipe");
    let toml = MINIMAL.replace("access.log", "log.pipe");
    let checked = check(&folder, &toml).await;
    let said = &checked.stderr;
    assert_eq!(code(&checked), 0, "{said}");
    assert!(said.starts_with("flagstone: warning: ") && said.contains("is a pipe, which can be opened only"), "{said}");
    let said = refused(&folder, &toml).await;
    assert!(said.contains("a pipe that nobody reads"), "{said}");
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_one_is_a_warning_of_check() {
    for (place, what) in [("taken", "is no folder"), ("taken/state", "taken, which is no folder")] {
        let folder = Folder::new();
        folder.write("taken", "");
        let toml = MINIMAL.replace("\"state\"", &format!("\"{place}\""));
        assert!(toml.contains(place));
        let checked = check(&folder, &toml).await;
        let said = &checked.stderr;
        assert_eq!(code(&checked), 0, "{said}");
        assert!(said.starts_with("flagstone: warning: ") && said.contains(what), "{said}");
        assert!(refused(&folder, &toml).await.contains("server.state_dir"), "where it is to serve it is an error");
    }
}

#[tokio::test]
async fn check_tells_every_error_with_place_value_and_remedy() {
    let folder = Folder::new();
    let toml = "[server]\nworkrs = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"a\"\nupstream = \"ap\"\n\
                timeouts = { response_head = \"5\" }\n[[route]]\nname = \"a\"\npath = [\"/x\"]\nrespond = {}\n\
                [upstream.app]\nendpoints = [\"127.0.0.1:1\"]\n";
    let ended = check(&folder, toml).await;
    assert_eq!((code(&ended), ended.stdout.as_str()), (1, ""));
    let file = folder.join("flagstone.toml");
    let expected = [
        "2:1: server.workrs: unknown key: did you mean \"workers\"?",
        "7:1: route[0].upstream = \"ap\": no upstream has this name: did you mean \"app\"?",
        "8:14: route[0].timeouts.response_head = \"5\": a duration needs a unit: write \"5s\" for seconds",
        "10:1: route[1].name = \"a\": route[0] has this name already: give each its own",
    ];
    let lines: Vec<String> = expected.map(|line| format!("flagstone: {}:{line}", file.display())).into();
    assert_eq!(ended.stderr.lines().collect::<Vec<_>>(), lines);
}

#[tokio::test]
async fn check_builds_certificates_folders_and_pages() {
    let folder = Folder::new();
    let toml = format!(
        "{MINIMAL}[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
         certificates = [{{ cert = \"no.pem\", key = \"no.key\" }}]\n\
         [[route]]\nname = \"site\"\npath = [\"/site\"]\nfiles = {{ root = \"nowhere\" }}\n\
         [maintenance]\npage = \"nopage\"\n"
    );
    let ended = check(&folder, &toml).await;
    assert_eq!(code(&ended), 1);
    for part in [
        "no.pem: no such file",
        "no.key: no such file",
        "files.root = \"nowhere\": ",
        "maintenance.page = \"nopage\": ",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 4, "{}", ended.stderr);
    let said = refused(&folder, &toml).await;
    let errors = said.lines().filter(|line| line.starts_with("flagstone: ")).count();
    assert_eq!(errors, 4, "{said}");
}

#[tokio::test]
async fn the_files_in_the_repository_are_valid() {
    let root = env!("CARGO_MANIFEST_DIR");
    for name in ["config/flagstone.toml", "config/minimal.toml"] {
        let ended = Flagstone::run(["check", "-c", &format!("{root}/{name}")]).await;
        assert_eq!(code(&ended), 0, "{name}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_one_sentence_and_1() {
    let ca = Ca::new();
    let folder = Folder::new();
    ca.leaf(&["a.example"]).write(&folder, "good");
    ca.mismatched(&["a.example"]).write(&folder, "bad");
    folder.write("empty.pem", "");
    folder.write("file", "");
    let tls = |pair: &str, more: &str| {
        format!(
            "{MINIMAL}[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = [{pair}]\n{more}"
        )
    };
    let web_at = |address: &str| {
        let (before, after) = MINIMAL.rsplit_once("127.0.0.1:0").unwrap();
        format!("{before}{address}{after}")
    };
    let cases = [
        (MINIMAL.replace("respond = { body = \"hello\" }", "upstream = \"app\""), "no upstream has this name"),
        (MINIMAL.replace("respond", "upstrem = \"x\"\nrespond"), "unknown key: did you mean \"upstream\"?"),
        (tls("{ cert = \"gone.pem\", key = \"good.key\" }", ""), "gone.pem: no such file or folder"),
        (tls("{ cert = \"empty.pem\", key = \"good.key\" }", ""), "empty.pem: holds no certificate in PEM form"),
        (tls("{ cert = \"good.pem\", key = \"good.pem\" }", ""), "good.pem: holds no private key in PEM form"),
        (tls("{ cert = \"bad.pem\", key = \"bad.key\" }", ""), "bad.pem: does not match the key in "),
        (tls("{ cert = \"good.pem\", key = \"good.key\" }", "min_version = \"1.1\"\n"), "must be \"1.2\" or \"1.3\""),
        (MINIMAL.replace("\"state\"", "\"file/state\""), "file/state cannot be written: "),
        (MINIMAL.replace("access.log", "file/access.log"), "log.access = \"file/access.log\": "),
        (format!("{MINIMAL}[maintenance]\npage = \"nopage\"\n"), "nopage"),
        (web_at("unix:gone/web.sock"), "no such file or folder: name a file in a folder that is there"),
        (web_at("unix:file"), "a file that is no socket is in the way: name another file, or take that one away"),
        (web_at(&format!("unix:{}.sock", "long".repeat(40))), "name a shorter path"),
        (web_at("198.51.100.7:8080"), "this machine does not have that address: name a free address of this machine"),
        (
            MINIMAL.replace("respond = { body = \"hello\" }", "files = { root = \"gone\" }"),
            "gone: no such file or folder",
        ),
        (MINIMAL.replace("respond = { body = \"hello\" }", "files = { root = \"file\" }"), "file: not a directory"),
    ];
    for (toml, expected) in cases {
        let said = refused(&folder, &toml).await;
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("flagstone: ")).collect();
        assert_eq!(errors.len(), 1, "{expected}: {said}");
        assert!(errors[0].contains(expected) && errors[0].contains("flagstone.toml:"), "{expected}: {said}");
    }
}

#[tokio::test]
async fn a_block_list_that_cannot_be_read_is_no_empty_one() {
    let folder = Folder::new();
    let list = folder.create_folder("state").join("blocklist.json");
    // Of all that keeps a file from being read, this stops root too.
    std::os::unix::fs::symlink(&list, &list).unwrap();
    let said = refused(&folder, MINIMAL).await;
    assert!(said.contains("state/blocklist.json cannot be read: "), "{said}");
    assert!(said.contains("let this user read it"), "{said}");
    assert!(list.is_symlink(), "it stays where it is");
}

#[tokio::test]
async fn busy_ports_are_all_told_and_nothing_is_left() {
    let folder = Folder::new();
    let busy = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let [web, admin] = busy.each_ref().map(|socket| socket.local_addr().unwrap());
    let toml = MINIMAL.replacen("\"127.0.0.1:0\"", &format!("\"{admin}\""), 1);
    let toml = toml.replacen("\"127.0.0.1:0\"", &format!("\"{web}\""), 1);
    let said = refused(&folder, &toml).await;
    for address in [web, admin] {
        assert!(said.contains(&format!("cannot listen on {address}: address already in use")), "{said}");
    }
}

#[tokio::test]
async fn the_configuration_is_searched_in_order() {
    let folder = Folder::new();
    let run = async |set: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Flagstone::command(["check"]);
        command.args(arguments).current_dir(folder.path()).envs(set.iter().copied());
        Process::run(&mut command).await
    };
    let none = run(&[], &[]).await;
    assert_eq!(code(&none), 1);
    assert!(none.stderr.contains("./flagstone.toml and /etc/flagstone/flagstone.toml"), "{}", none.stderr);
    folder.write("flagstone.toml", MINIMAL);
    assert_eq!(run(&[], &[]).await.stdout.split(' ').next(), Some("flagstone.toml"));
    folder.write("named.toml", MINIMAL);
    let named = [("FLAGSTONE_CONFIG", "named.toml")];
    assert_eq!(run(&named, &[]).await.stdout.split(' ').next(), Some("named.toml"));
    assert_eq!(run(&named, &["-c", "flagstone.toml"]).await.stdout.split(' ').next(), Some("flagstone.toml"));
    let gone = run(&[("FLAGSTONE_CONFIG", "gone.toml")], &[]).await;
    assert_eq!(gone.stderr, "flagstone: gone.toml: cannot read the configuration: no such file or folder\n");
}

#[tokio::test]
async fn the_schema_is_a_schema_that_the_files_meet() {
    let ended = Flagstone::run(["schema"]).await;
    assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
    let schema: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(schema["$schema"].as_str().is_some_and(|url| url.contains("2020-12")), "{}", schema["$schema"]);
    let python = or_left_out!(python_venv(&["jsonschema"]));
    let folder = Folder::new();
    folder.write("schema.json", &ended.stdout);
    let script = "import json, sys, tomllib, jsonschema\n\
                  schema = json.load(open(sys.argv[1]))\n\
                  jsonschema.Draft202012Validator.check_schema(schema)\n\
                  validator = jsonschema.Draft202012Validator(schema)\n\
                  for name in sys.argv[2:-1]:\n    validator.validate(tomllib.load(open(name, 'rb')))\n\
                  assert not validator.is_valid(tomllib.load(open(sys.argv[-1], 'rb'))), 'an unknown key passes'\n";
    let script = folder.write("validate.py", script);
    let bad = folder.write("bad.toml", format!("{MINIMAL}nonsense = 1\n"));
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(python);
    command.arg(script).arg(folder.join("schema.json"));
    command.args([format!("{root}/config/flagstone.toml"), format!("{root}/config/minimal.toml")]).arg(bad);
    let ended = Process::run(&mut command).await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[tokio::test]
async fn a_closed_stdout_stops_nothing() {
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", MINIMAL.replace("\"access.log\"", "\"stdout\""));
    let mut shell = Command::new("sh");
    let script = "exec \"$0\" run -c \"$1\" >&-";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_flagstone")]).arg(file).current_dir(folder.path());
    let mut process = Process::start(&mut shell);
    let line = process.stderr_line("listening name=web").await;
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
    let mut client = Client::connect(address).await.unwrap();
    for _ in 0..50 {
        assert_eq!(client.get("/").await.unwrap().text(), "hello");
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
}

/// As with `flagstone schema | head -1`, and on a disk that is full.
#[test]
fn results_that_nobody_reads_or_that_do_not_fit_are_no_panic() {
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", MINIMAL);
    let commands: [&[&str]; 6] =
        [&["schema"], &["man"], &["completions", "bash"], &["check"], &["certs"], &["maintenance", "status"]];
    let ended = |words: &[&str], stdout: Stdio| {
        let mut command = Flagstone::command(words);
        let ended = command.env("FLAGSTONE_CONFIG", &file).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    for words in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(ended(words, writer.into()), (Some(0), String::new()), "{words:?}");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let told = "flagstone: cannot write: no space left on device\n".to_owned();
        assert_eq!(ended(words, full.into()), (Some(1), told), "{words:?}");
    }
}

/// The process serves on with the file before it; whoever looks at it is told how to get there.
#[tokio::test]
async fn a_file_that_is_no_toml_keeps_nobody_from_the_process() {
    let mut flagstone = Flagstone::serve(MINIMAL).await;
    let admin = flagstone.admin().await.to_string();
    let wrong = flagstone.folder.write("wrong.toml", "[server\n");
    let wrong = wrong.to_str().unwrap();
    let commands: [&[&str]; 7] = [
        &["reload"],
        &["drain"],
        &["upgrade"],
        &["breaker", "list"],
        &["limit", "list"],
        &["feature", "list"],
        &["block", "192.0.2.1"],
    ];
    for words in commands {
        let refused = Flagstone::run([words, &["-c", wrong]].concat()).await;
        assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(1), ""), "{words:?}");
        let lines: Vec<&str> = refused.stderr.lines().collect();
        let [error, hint] = lines[..] else { panic!("{words:?}: {}", refused.stderr) };
        assert!(error.starts_with(&format!("flagstone: {wrong}:1:8: not TOML: ")), "{words:?}: {error}");
        assert!(hint.starts_with("flagstone: the process is found without this file by --admin ADDR: 127.0.0.1:9900"));
    }
    let found = Flagstone::run(["status", "-c", wrong, "--admin", &admin]).await;
    assert!(found.status.success() && found.stderr.is_empty(), "{found:?}");
    // Whether anybody is at the default place is not ours to say here.
    for looking in ["status", "healthcheck"] {
        let looked = Flagstone::run([looking, "-c", wrong]).await;
        assert!(looked.stderr.starts_with(&format!("flagstone: warning: {wrong}:1:8: not TOML: ")), "{looked:?}");
    }
}

/// As with `flagstone check 2>&1 | head -1`, and on a disk that is full.
#[test]
fn problems_that_nobody_reads_or_that_do_not_fit_are_no_panic() {
    let folder = Folder::new();
    let right = folder.write("flagstone.toml", MINIMAL);
    let wrong = folder.write("wrong.toml", format!("{MINIMAL}[[route]]\nnmae = \"half typed\"\n"));
    let nobody = ["--admin", "unix:/nowhere/admin.sock"];
    let commands = [
        (&wrong, vec!["check"], 1),
        (&wrong, vec!["certs"], 1),
        (&wrong, vec!["run"], 1),
        (&wrong, vec!["explain", "http://test/"], 1),
        (&wrong, vec!["maintenance", "on"], 0),
        (&right, vec!["maintenance", "on", "--route", "unknown"], 1),
        (&right, vec!["maintenance", "on", "--route", "../x"], 2),
        (&right, [&["status"][..], &nobody].concat(), 1),
        (&right, [&["healthcheck"][..], &nobody].concat(), 1),
        (&right, vec!["explain"], 2),
        (&right, vec!["no-such-command"], 2),
    ];
    for (file, words, code) in commands {
        let (reader, unread) = std::io::pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for stderr in [Stdio::from(unread), full.into()] {
            let mut command = Flagstone::command(&words);
            let ended = command.env("FLAGSTONE_CONFIG", file).stderr(stderr).output().unwrap();
            assert_eq!(ended.status.code(), Some(code), "{words:?}");
        }
    }
}

/// As with `flagstone run | head -1`.
#[tokio::test]
async fn a_stdout_that_nobody_reads_any_more_stops_nothing() {
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", MINIMAL.replace("\"access.log\"", "\"stdout\""));
    let mut shell = Command::new("bash");
    let script = "exec \"$0\" run -c \"$1\" > >(exit 0)";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_flagstone")]).arg(file).current_dir(folder.path());
    let mut process = Process::start(&mut shell);
    let line = process.stderr_line("listening name=web").await;
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
    let load = Load::get(address, "/").tasks(2).start();
    assert!(load.reaches(500, DEADLINE).await);
    load.stop().await.assert_clean();
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
}
