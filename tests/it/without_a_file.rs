//! `flagstone run` without a configuration file: arguments, environment, and where state goes then.

use std::fs::File;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::command_line::{MINIMAL, code};
use crate::support::admin;
use crate::support::client::{self};
use crate::support::files::Folder;
use crate::support::left_out::{program, target_dir};
use crate::support::poll::eventually_async;
use crate::support::process::{DEADLINE, Flagstone, Process, Signal};
use crate::support::upstream::FakeUpstream;

/// Serves without a file: arguments, environment. The state folder is the test's own.
async fn quick(folder: &Folder, arguments: &[&str], set: &[(&str, &str)]) -> (Process, std::net::SocketAddr) {
    let mut command = Flagstone::command(["run"]);
    command.args(arguments).current_dir(folder.path()).env("XDG_RUNTIME_DIR", folder.path());
    command.envs(set.iter().copied());
    let mut process = Process::start(&mut command);
    let line = process.stderr_line("listening name=").await;
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
    (process, address)
}

/// Without a file the admin side has one fixed port: tests that need it take turns, over all test processes. It may be
/// somebody else's on a machine that runs tests; then they cannot be held.
pub(super) fn usual_ports() -> Result<File, String> {
    let file = File::create(target_dir().join("usual-ports.lock")).map_err(|error| error.to_string())?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
    let free = TcpListener::bind("127.0.0.1:9900").map(drop);
    free.map(|()| file).map_err(|_| "port 9900, the admin side's usual one, is taken".into())
}

#[tokio::test]
async fn run_without_a_file_takes_arguments_and_environment() {
    let _turn = or_left_out!(usual_ports());
    let upstream = FakeUpstream::http1().route("*", "from the app").start().await;
    let endpoint = upstream.endpoint();
    let folder = Folder::new();
    let flag = folder.join("off.flag").display().to_string();

    let typed = ["--listen", "127.0.0.1:0", "--upstream", &endpoint, "--flag", &flag];
    let (mut process, address) = quick(&folder, &typed, &[]).await;
    assert_eq!(client::get(address, "/").await.unwrap().text(), "from the app");
    folder.touch("off.flag");
    let is_off = async || client::get(address, "/").await.unwrap().status == 503;
    assert!(eventually_async(Duration::from_secs(10), is_off).await);
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));

    folder.remove("off.flag");
    // Half of it typed, half of it set; an empty variable is none.
    let set = [("FLAGSTONE_LISTEN", "nonsense"), ("FLAGSTONE_UPSTREAM", &endpoint), ("FLAGSTONE_FLAG", "")];
    let (mut process, address) = quick(&folder, &["--listen", "127.0.0.1:0"], &set).await;
    assert_eq!(client::get(address, "/").await.unwrap().text(), "from the app");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));

    let set = [("FLAGSTONE_LISTEN", "127.0.0.1:0"), ("FLAGSTONE_UPSTREAM", &endpoint), ("FLAGSTONE_FLAG", &flag)];
    let (mut process, address) = quick(&folder, &[], &set).await;
    assert_eq!(client::get(address, "/").await.unwrap().text(), "from the app");
    // There is nothing to reload, and nothing has failed.
    process.signal(Signal::HUP);
    let line = process.stderr_line("there is no configuration file to reload").await;
    assert!(line.contains("WARN"), "{line}");
    let metrics = admin::metrics("127.0.0.1:9900".parse().unwrap()).await;
    assert!(metrics.contains("\nflagstone_config_last_reload_success 1\n"), "{metrics}");
    // Of another user it would be in another place.
    let mut other = Flagstone::command(["maintenance", "on"]);
    other.envs(set).env("FLAGSTONE_FLAG", folder.join("other.flag"));
    let mut other = Process::start(&mut other);
    let line = other.stderr_line("follows").await;
    assert!(line.contains(&flag) && line.contains("--admin 127.0.0.1:9900"), "{line}");
    // Where nothing says where its flag is, it is asked itself.
    let ask = async |what: &str| {
        let mut command = Flagstone::command(["maintenance", what]);
        Process::run(command.current_dir(folder.path())).await
    };
    let on = ask("on").await;
    assert_eq!((on.status.code(), on.stderr.as_str()), (Some(0), ""), "{on:?}");
    assert!(folder.join("off.flag").exists() && ask("status").await.stdout.starts_with("maintenance is on"));
    assert!(ask("off").await.status.success() && !folder.join("off.flag").exists());
    process.signal(Signal::TERM);
    assert_eq!(process.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn what_the_environment_serves_is_explained_whatever_file_there_is() {
    let folder = Folder::new();
    folder.write("flagstone.toml", MINIMAL);
    let run = async |words: &[&str], file: &[&str]| {
        let mut command = Flagstone::command(words.iter().chain(file));
        command.env("FLAGSTONE_LISTEN", "127.0.0.1:0").env("FLAGSTONE_UPSTREAM", "192.0.2.1:80");
        Process::run(command.current_dir(folder.path())).await
    };
    let explained = run(&["explain", "/a"], &[]).await;
    assert!(explained.stdout.contains("=> forwarded to upstream app as GET /a"), "{explained:?}");
    let typed = run(&["explain", "/a"], &["-c", "flagstone.toml"]).await;
    assert!(typed.status.success() && !typed.stdout.contains("upstream app"), "{typed:?}");
    let certificates = run(&["certs"], &[]).await;
    assert_eq!((code(&certificates), certificates.stdout.as_str()), (0, "no listener has certificates\n"));
}

#[tokio::test]
async fn a_file_that_is_typed_stands_against_the_environment() {
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", MINIMAL);
    let mut command = Flagstone::command(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    command.env("FLAGSTONE_LISTEN", "127.0.0.1:0").env("FLAGSTONE_UPSTREAM", "127.0.0.1:1");
    let mut process = Process::start(&mut command);
    process.stderr_line("listening name=web").await;
}

#[tokio::test]
async fn addresses_that_are_typed_wrong_are_called_by_their_option() {
    let ended = Flagstone::run(["run", "--listen", "8080", "--upstream", "app"]).await;
    assert_eq!(code(&ended), 1);
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert!(lines[0].starts_with("flagstone: --listen = \"8080\": not an address to listen on"), "{lines:?}");
    assert!(lines[1].starts_with("flagstone: --upstream = \"app\": not an endpoint's address"), "{lines:?}");
}

/// A user who may not write to /run gets a state folder of their own.
#[tokio::test]
async fn run_without_a_file_works_for_anybody() {
    let _turn = or_left_out!(usual_ports());
    let setpriv = or_left_out!(program("setpriv"));
    if !rustix::process::geteuid().is_root() {
        left_out!("only root can become another user");
    }
    let upstream = FakeUpstream::http1().route("*", "from the app").start().await;
    let folder = Folder::new();
    // Where the tests are built, others may have no way in.
    let binary = folder.join("flagstone");
    std::fs::copy(env!("CARGO_BIN_EXE_flagstone"), &binary).unwrap();
    for path in [folder.path(), &binary] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let temp = folder.create_folder("tmp");
    std::fs::set_permissions(&temp, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = Command::new(setpriv);
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&binary);
    command.args(["run", "--listen", "127.0.0.1:0", "--upstream", &upstream.endpoint()]).current_dir("/");
    command.env("TMPDIR", &temp).env_remove("XDG_RUNTIME_DIR");
    // Where everybody may make folders, somebody else may have made this one.
    let squatted = folder.create_folder("tmp/flagstone-65534");
    let refused = Process::run(&mut command).await;
    assert_eq!(code(&refused), 1);
    assert!(refused.stderr.contains("flagstone-65534\": belongs to somebody else: set XDG_RUNTIME_DIR"), "{refused:?}");
    std::fs::remove_dir(squatted).unwrap();
    let mut process = Process::start(&mut command);
    let line = process.stderr_line("listening name=").await;
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').parse().unwrap();
    assert_eq!(client::get(address, "/").await.unwrap().text(), "from the app");
    folder.touch("tmp/flagstone-65534/maintenance.flag");
    let is_off = async || client::get(address, "/").await.unwrap().status == 503;
    assert!(eventually_async(Duration::from_secs(10), is_off).await, "{}", process.stderr());
}

/// `flagstone run` in the folder of `flagstone.toml` serves by a file that is named without its folder.
#[tokio::test]
async fn a_process_is_found_by_its_file_whatever_folder_that_was_named_from() {
    let _turn = or_left_out!(usual_ports());
    let folder = Folder::new();
    let text = "[server]\nstate_dir = \"state\"\n[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                [[route]]\nname = \"a\"\nrespond = { body = \"a\" }\n";
    let file = folder.write("flagstone.toml", text);
    let mut process = Process::start(Flagstone::command(["run"]).current_dir(folder.path()));
    process.stderr_line("admin listening").await;
    // From here on the process alone knows where its flag is.
    folder.write("flagstone.toml", format!("{text}[[["));
    let file = file.to_str().unwrap();
    for words in [&["on"][..], &["off"], &["on", "-c", file]] {
        let mut command = Flagstone::command(["maintenance"].iter().chain(words));
        let ended = Process::run(command.current_dir(if words.len() > 1 { "/".as_ref() } else { folder.path() })).await;
        assert_eq!(ended.status.code(), Some(0), "{words:?}: {}", ended.stderr);
    }
    assert!(folder.join("state/maintenance.flag").exists());
}
