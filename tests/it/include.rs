//! `include`: a configuration in several files.

use std::time::{Duration, Instant};

use crate::support::client;
use crate::support::files::Folder;
use crate::support::poll::eventually_async;
use crate::support::process::{DEADLINE, Flagstone, Signal};

const MAIN: &str = "include = [\"routes/*.toml\", \"limits.toml\"]\n[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                    [log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
                    [[route]]\nname = \"rest\"\nrespond = { body = \"rest\" }\n";

fn route(name: &str, text: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\npath = [\"/{name}\"]\nlimits = [\"per_ip\"]\nrespond = {{ body = \"{text}\" }}\n"
    )
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("flagstone.toml", MAIN);
    folder.write("limits.toml", "[limit.per_ip]\nrate = \"1000/1s\"\n");
    folder.write("routes/b.toml", route("b", "b one"));
    folder.write("routes/a.toml", route("a", "a one"));
    folder.write("routes/.hidden.toml", "[[[");
    folder
}

async fn check(folder: &Folder) -> (i32, String, String) {
    let file = folder.join("flagstone.toml");
    let ended = Flagstone::run(["check".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    (ended.status.code().unwrap(), ended.stdout, ended.stderr)
}

#[tokio::test]
async fn every_file_is_followed_also_those_that_come() {
    let mut flagstone = Flagstone::serve_in(folder(), MAIN).await;
    let address = flagstone.address("web").await;
    let says = async |path: &str, text: &str| {
        let said = async || client::get(address, path).await.unwrap().text() == text;
        assert!(eventually_async(DEADLINE, said).await, "{path} should say {text:?}");
    };
    says("/a", "a one").await;
    says("/b", "b one").await;
    flagstone.folder.replace("routes/a.toml", route("a", "a two"));
    says("/a", "a two").await;
    flagstone.folder.write("routes/c.toml", route("c", "c one"));
    says("/c", "c one").await;
    flagstone.folder.remove("routes/b.toml");
    says("/b", "rest").await;
    let line = flagstone.process.stderr_line("generation=4").await;
    assert!(line.contains("routes: -b"), "{line}");
    // One of them is wrong: the rest serves on, and the file is named.
    flagstone.folder.write("routes/d.toml", "\n[[route]]\nname = \"d\"\nrespnd = {}\n");
    let line = flagstone.process.stderr_line("unknown key: did you mean \"respond\"?").await;
    assert!(line.contains("routes/d.toml:4:1: route[3].respnd: "), "{line}");
    says("/a", "a two").await;
}

/// As a shell's `>` does it, and `scp`: empty first, and written when there is something to write.
#[tokio::test]
async fn a_file_that_is_emptied_to_be_written_takes_nothing_away() {
    let mut flagstone = Flagstone::serve_in(folder(), MAIN).await;
    let address = flagstone.address("web").await;
    flagstone.folder.write("routes/a.toml", "");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        assert_eq!(client::get(address, "/a").await.unwrap().text(), "a one");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    flagstone.folder.write("routes/a.toml", route("a", "a two"));
    let line = flagstone.process.stderr_line("Configuration reloaded").await;
    assert!(line.contains("routes: ~a"), "{line}");
    assert_eq!(client::get(address, "/a").await.unwrap().text(), "a two");
    // One that stays empty says nothing, and is taken at its word.
    flagstone.folder.write("routes/a.toml", "");
    flagstone.process.stderr_line("routes: -a").await;
}

#[tokio::test]
async fn who_asks_for_a_reload_is_warned_of_a_file_that_is_empty() {
    let mut flagstone = Flagstone::serve_in(folder(), MAIN).await;
    flagstone.folder.write("routes/a.toml", "");
    flagstone.process.signal(Signal::HUP);
    flagstone.process.stderr_line("routes: -a").await;
    let line = flagstone.process.stderr_line("routes/a.toml is empty").await;
    assert!(line.contains(" WARN ") && line.contains("include[0] = \"routes/*.toml\": "), "{line}");
    let (code, _, stderr) = check(&flagstone.folder).await;
    assert!(code == 0 && stderr.contains("routes/a.toml is empty"), "{stderr}");
}

#[tokio::test]
async fn errors_name_their_file_and_line() {
    let folder = folder();
    assert_eq!(check(&folder).await.0, 0);
    folder.write("routes/a.toml", "\n[[route]]\nname = \"a\"\nupstream = \"nowhere\"\n[limit.b]\nrate = \"often\"\n");
    folder.write(
        "routes/b.toml",
        "# nothing yet\n[server]\nworkrs = 2\n[[route]]\nname = \"b\"\npath = [\"/b\", \"b\"]\nrespond = {}\n",
    );
    let (code, _, stderr) = check(&folder).await;
    assert_eq!(code, 1);
    for part in [
        "routes/a.toml:4:1: route[1].upstream = \"nowhere\": no upstream has this name",
        "routes/a.toml:6:1: limit.b.rate = \"often\": ",
        "routes/b.toml:3:1: server.workrs: unknown key: did you mean \"workers\"?",
        "routes/b.toml:6:15: route[2].path[1] = \"b\": ",
    ] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    let files: Vec<_> = stderr.lines().filter_map(|line| line.split(".toml:").next()).collect();
    assert!(files.is_sorted_by_key(|file| file.ends_with('b')), "in the order of the files: {stderr}");
}

#[tokio::test]
async fn what_is_in_two_files_names_both() {
    let folder = folder();
    folder.write(
        "routes/a.toml",
        "[[route]]\nname = \"rest\"\npath = [\"/x\"]\nrespond = {}\n[log]\naccess = \"stdout\"\nformat = \"json\"\n",
    );
    folder.write("routes/b.toml", "[limit.per_ip]\nrate = \"1/1s\"\n[[route]]\nname = \"b\"\nrespond = {}\n");
    let (code, _, stderr) = check(&folder).await;
    assert_eq!(code, 1);
    let main = folder.join("flagstone.toml").display().to_string();
    let line = |what: &str| MAIN.lines().position(|line| line == what).unwrap() + 1;
    for part in [
        format!(
            "routes/a.toml:2:1: route[1].name = \"rest\": route[0] ({main}:{}) has this name already",
            line("[[route]]")
        ),
        format!("routes/a.toml:6:1: log.access: is there already in {main}:{}: ", line("access = \"off\"")),
        format!("limits.toml:1:1: limit.per_ip: is there already in {}:1: ", folder.join("routes/b.toml").display()),
        format!(
            "routes/b.toml:3:1: route[2].path[0] = \"/\": route \"rest\" ({main}:{}) has this path already",
            line("[[route]]")
        ),
    ] {
        assert!(stderr.contains(&part), "{part:?} is not in {stderr}");
    }
}

#[tokio::test]
async fn what_cannot_be_included_says_so() {
    let folder = folder();
    folder.write(
        "flagstone.toml",
        MAIN.replace("\"limits.toml\"", "\"gone.toml\", \"none/*.toml\", \"a[\", \"**/x\", 3"),
    );
    folder.write("routes/a.toml", "include = [\"x.toml\"]\n");
    let (code, _, stderr) = check(&folder).await;
    assert_eq!(code, 1);
    for part in [
        "flagstone.toml:1:29: include[1] = \"gone.toml\": cannot read ",
        "gone.toml: no such file or folder: name a file that this user may read",
        "include[3] = \"a[\": not a pattern",
        "include[4] = \"**/x\": \"**\" would lead anywhere",
        "include[5] = 3: must be a string in quotes",
        "routes/a.toml:1:1: include: a file that is included includes no further ones",
    ] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    folder.write("flagstone.toml", MAIN.replace("\"limits.toml\"", "\"${FLAGSTONE_NOWHERE}/*.toml\""));
    let (code, _, stderr) = check(&folder).await;
    assert_eq!(
        (code, stderr.matches("the environment variable FLAGSTONE_NOWHERE is not set").count()),
        (1, 1),
        "{stderr}"
    );
    // No TOML in two of them: both are told.
    folder.write("flagstone.toml", MAIN);
    folder.write("routes/a.toml", "a = = 1\n");
    folder.write("routes/b.toml", "\n[[route]\n");
    let (_, _, stderr) = check(&folder).await;
    assert!(stderr.contains("routes/a.toml:1:5: not TOML") && stderr.contains("routes/b.toml:2:"), "{stderr}");
    folder.remove("routes/a.toml");
    folder.remove("routes/b.toml");
    let (code, stdout, stderr) = check(&folder).await;
    assert!(
        stderr.contains("warning: ") && stderr.contains("include[0] = \"routes/*.toml\": matches no file"),
        "{stderr}"
    );
    assert!(code == 0 && stdout.contains("1 route"), "{stdout}");
}

/// Opening one would wait for who writes to it, and the reload, the end of the process and `check` with it.
#[tokio::test]
async fn a_pipe_is_refused_and_nothing_waits_for_it() {
    let mut flagstone = Flagstone::serve_in(folder(), MAIN).await;
    flagstone.folder.fifo("routes/pipe.toml");
    let line = flagstone.process.stderr_line("include[0] = \"routes/*.toml\": cannot read ").await;
    assert!(line.contains("routes/pipe.toml: it is not a regular file"), "{line}");
    let (code, _, stderr) = check(&flagstone.folder).await;
    assert!(code == 1 && stderr.contains("routes/pipe.toml: it is not a regular file"), "{stderr}");
    flagstone.folder.remove("flagstone.toml");
    flagstone.folder.fifo("flagstone.toml");
    flagstone.process.signal(Signal::HUP);
    flagstone.process.stderr_line("cannot read the configuration: it is not a regular file").await;
    let (code, _, stderr) = check(&flagstone.folder).await;
    assert!(code == 1 && stderr.contains("nothing came out of it"), "{stderr}");
    flagstone.process.signal(Signal::TERM);
    assert_eq!(flagstone.process.wait(DEADLINE).await.code(), Some(0));
}
