//! The command line and the environment, with the real binary.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use super::PATIENCE;
use crate::support::files::Folder;
use crate::support::poll::eventually_async;
use crate::support::process::{Ended, Flagstone, Process};

const CONFIG: &str = "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
                      [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
                      [[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n";

async fn maintenance(folder: &Folder, words: &[&str]) -> Ended {
    let file = folder.join("flagstone.toml");
    let all = ["maintenance", "-c"].map(OsStr::new).into_iter().chain([file.as_os_str()]);
    Flagstone::run(all.chain(words.iter().map(OsStr::new))).await
}

#[tokio::test]
async fn the_command_line_switches_a_running_process_and_works_without_one() {
    let mut flagstone = Flagstone::serve(CONFIG).await;
    let address = flagstone.address("web").await;
    let answers = async |status: u16| {
        eventually_async(PATIENCE, async || crate::support::client::get(address, "/").await.unwrap().status == status)
            .await
    };
    assert!(answers(200).await);
    let on = maintenance(&flagstone.folder, &["on", "--reason", "Upgrade", "--for", "1h"]).await;
    assert!(on.status.success(), "{}", on.stderr);
    assert!(answers(503).await);
    let line = flagstone.process.stderr_line("Maintenance mode activated").await;
    assert!(
        line.contains("scope=global") && line.replace('"', "").contains("by=cli") && line.contains("reason=Upgrade"),
        "{line}"
    );
    let off = maintenance(&flagstone.folder, &["off"]).await;
    assert!(off.status.success(), "{}", off.stderr);
    assert!(answers(200).await);
    flagstone.process.stderr_line("Maintenance mode deactivated").await;

    let folder = Folder::new();
    folder.write("flagstone.toml", CONFIG);
    assert!(maintenance(&folder, &["on", "--reason", "Down"]).await.status.success());
    let status = maintenance(&folder, &["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((&status["is_active"], &status["reason"]), (&true.into(), &"Down".into()));
    assert_eq!(status["in_flight"], Value::Null, "only a process knows");
}

#[tokio::test]
async fn a_file_with_errors_elsewhere_is_no_obstacle() {
    let mut flagstone = Flagstone::serve(CONFIG).await;
    let address = flagstone.address("web").await;
    flagstone.folder.replace("flagstone.toml", format!("{CONFIG}[[route]]\nnmae = \"half typed\"\n"));
    let on = maintenance(&flagstone.folder, &["on", "--reason", "Night"]).await;
    assert!(on.status.success() && on.stdout.contains("maintenance is on"), "{on:?}");
    assert!(on.stderr.starts_with("flagstone: warning: ") && on.stderr.contains("did you mean \"name\"?"), "{on:?}");
    let blocked = async || crate::support::client::get(address, "/").await.unwrap().status == 503;
    assert!(eventually_async(PATIENCE, blocked).await);

    // Where the flag is has to be known.
    for wrong in
        [CONFIG.replace("state_dir", "state_dri"), format!("{CONFIG}[maintenance]\nflag = 7\n"), "[".to_owned()]
    {
        flagstone.folder.replace("flagstone.toml", &wrong);
        let off = maintenance(&flagstone.folder, &["off"]).await;
        assert_eq!((off.status.code(), off.stdout.as_str()), (Some(1), ""), "{off:?}");
        assert!(off.stderr.contains("touch and rm will do meanwhile: /run/flagstone/maintenance.flag"), "{off:?}");
    }
    assert!(flagstone.folder.join("state/maintenance.flag").exists());
}

#[tokio::test]
async fn with_a_file_that_is_no_toml_the_process_is_asked() {
    let folder = Folder::new();
    let socket = folder.join("admin.sock");
    let config = CONFIG.replace("127.0.0.1:0\"\n[log]", &format!("unix:{}\"\n[log]", socket.display()));
    let flagstone = Flagstone::serve_in(folder, &config).await;
    let flag = flagstone.folder.join("state/maintenance.flag");
    flagstone.folder.replace("flagstone.toml", format!("{config}[[route\n"));
    let on = maintenance(&flagstone.folder, &["on", "--reason", "Night", "--for", "1h", "--read-only"]).await;
    assert!(on.status.success() && on.stdout.contains("maintenance is on for everything (by the process on"), "{on:?}");
    assert!(on.stdout.contains("read-only") && on.stdout.contains("expected back"), "{on:?}");
    assert!(on.stderr.contains("warning: ") && on.stderr.contains("flagstone.toml:"), "{on:?}");
    let written = std::fs::read_to_string(&flag).unwrap();
    assert!(written.contains("reason = \"Night\"") && written.contains("read_only"), "{written}");
    let route = maintenance(&flagstone.folder, &["on", "--route", "all"]).await;
    assert!(route.status.success() && flagstone.folder.join("state/maintenance.d/all.flag").exists(), "{route:?}");
    let status = maintenance(&flagstone.folder, &["status"]).await;
    assert!(status.stdout.contains("Night") && status.stdout.contains("on for route all"), "{status:?}");
    let off = maintenance(&flagstone.folder, &["off"]).await;
    assert_eq!(off.stdout, "maintenance is off for everything\nstill on for all (end it with --route)\n");
    assert!(!flag.exists());
    let stray = maintenance(&flagstone.folder, &["on", "--route", "al"]).await;
    assert_eq!((stray.status.code(), stray.stdout.as_str()), (Some(1), ""), "{stray:?}");

    // Where nothing of the file can be read, whoever calls says which process is meant.
    flagstone.folder.replace("flagstone.toml", "[admin\n");
    let admin = format!("unix:{}", socket.display());
    let named = maintenance(&flagstone.folder, &["on", "--admin", &admin]).await;
    assert!(named.status.success() && flag.exists(), "{named:?}");
}

#[tokio::test]
async fn a_process_tells_of_a_flag_what_files_do() {
    let mut flagstone = Flagstone::serve(CONFIG).await;
    let admin = flagstone.admin().await.to_string();
    flagstone.folder.write("state/maintenance.flag", "hosts = [\"a.example\"]\npaths = [\"/a\", \"=/b\"]\n");
    flagstone.folder.write("state/maintenance.d/gone.flag", "");
    let status = async || maintenance(&flagstone.folder, &["status", "--admin", &admin]).await.stdout;
    assert!(eventually_async(PATIENCE, async || status().await.contains("route gone")).await);
    let said = status().await;
    assert!(said.starts_with("maintenance is on for a part of the requests\n"), "{said}");
    for line in ["  hosts       a.example\n", "  paths       /a, =/b\n"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(!said.contains("  routes "), "{said}");
    let off = maintenance(&flagstone.folder, &["off", "--route", "gone", "--admin", &admin]).await;
    assert_eq!((off.status.code(), off.stdout.as_str()), (Some(0), "maintenance is off for route gone\n"), "{off:?}");
    let off = maintenance(&flagstone.folder, &["off", "--admin", &admin]).await;
    assert_eq!(off.stdout, "maintenance is off for everything\n");
}

#[tokio::test]
async fn a_process_and_files_tell_the_same_of_a_flag() {
    let mut flagstone = Flagstone::serve(CONFIG).await;
    let admin = flagstone.admin().await.to_string();
    for flag in [
        "until = \"2030-01-31T22:00:00Z\"\nauto_end = true\nallow = [\"192.0.2.0/24\"]\nterminate = true\ngrace = \"90s\"\n",
        "until = \"2020-01-31T22:00:00Z\"\nmessage = \"First\\nSecond\"\nterminate = true\nreason = \"Night\"\nby = \"ops\"\n",
    ] {
        flagstone.folder.replace("state/maintenance.flag", flag);
        let by_files = async || maintenance(&flagstone.folder, &["status"]).await.stdout;
        let by_process = async || maintenance(&flagstone.folder, &["status", "--admin", &admin]).await.stdout;
        assert!(by_files().await.contains("  in flight   cut "), "{}", by_files().await);
        let is_same = async || by_files().await == by_process().await;
        assert!(eventually_async(PATIENCE, is_same).await, "{}{}", by_files().await, by_process().await);
    }
}

#[tokio::test]
async fn a_wrong_name_among_several_leaves_all_as_it_is() {
    let mut flagstone = Flagstone::serve(CONFIG).await;
    let admin = flagstone.admin().await.to_string();
    let flag = flagstone.folder.join("state/maintenance.d/all.flag");
    let ask = async |what: &str| {
        maintenance(&flagstone.folder, &[what, "--route", "all", "--route", "al", "--admin", &admin]).await
    };
    let on = ask("on").await;
    assert!(!flag.exists(), "{on:?}");
    assert_eq!((on.status.code(), on.stdout.as_str()), (Some(1), ""), "{on:?}");
    assert!(on.stderr.contains("there is no route \"al\": did you mean \"all\"?"), "{on:?}");
    flagstone.folder.write("state/maintenance.d/all.flag", "");
    let off = ask("off").await;
    assert!(flag.exists() && off.status.code() == Some(1), "{off:?}");
}

#[tokio::test]
async fn what_was_done_before_one_of_several_failed_is_told() {
    let config = format!("{CONFIG}[[route]]\nname = \"b\"\npath = [\"/b\"]\nrespond = {{ body = \"b\" }}\n");
    let mut flagstone = Flagstone::serve(&config).await;
    let admin = flagstone.admin().await.to_string();
    flagstone.folder.write("state/maintenance.d/b.flag/full", "");
    for by in [&[][..], &["--admin", &admin]] {
        for (what, is) in [("on", "is on for route all"), ("off", "is off for route all")] {
            let words = [&[what, "--route", "all", "--route", "b"], by].concat();
            let ended = maintenance(&flagstone.folder, &words).await;
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            assert!(ended.stdout.contains(is) && ended.stdout.lines().count() == 1, "{ended:?}");
            assert!(ended.stderr.ends_with("; nothing was done for route b\n"), "{ended:?}");
            let json = maintenance(&flagstone.folder, &[&words[..], &["--json"]].concat()).await;
            assert_eq!((json.status.code(), json.stdout.as_str()), (Some(1), ""), "{json:?}");
        }
    }
}

#[tokio::test]
async fn a_process_without_a_file_is_found_by_the_same_environment() {
    let folder = Folder::new();
    let flag = folder.join("quick.flag");
    let environments: [&[(&str, &str)]; 2] =
        [&[("FLAGSTONE_LISTEN", "127.0.0.1:0"), ("FLAGSTONE_UPSTREAM", "127.0.0.1:1")], &[]];
    for environment in environments {
        if environment.is_empty() && Path::new("/etc/flagstone/flagstone.toml").exists() {
            left_out!("the Flagstone that is installed here would be switched");
        }
        let run = async |what: &str| {
            let mut command = Flagstone::command(["maintenance", what]);
            command.envs(environment.iter().copied()).env("FLAGSTONE_FLAG", &flag).current_dir(folder.path());
            Process::start(&mut command).wait(PATIENCE).await.code()
        };
        assert_eq!((run("on").await, flag.exists()), (Some(0), true));
        assert_eq!((run("off").await, flag.exists()), (Some(0), false));
    }
}

#[tokio::test]
async fn a_route_that_is_not_in_the_file_is_refused() {
    let folder = Folder::new();
    folder.write("flagstone.toml", CONFIG);
    let on = maintenance(&folder, &["on", "--route", "all", "--route", "al"]).await;
    assert_eq!((on.status.code(), on.stdout.as_str()), (Some(1), ""), "{on:?}");
    assert_eq!(on.stderr, "flagstone: there is no route \"al\": did you mean \"all\"?\n");
    assert!(!folder.join("state/maintenance.d").exists());
    // What cannot be read of a file may have been that route.
    folder.write("flagstone.toml", format!("{CONFIG}[bogus]\n"));
    let on = maintenance(&folder, &["on", "--route", "al"]).await;
    assert!(on.status.success() && on.stderr.contains("warning: there is no route \"al\""), "{on:?}");
    assert!(folder.join("state/maintenance.d/al.flag").exists());
    // Nor is one suggested that has no name.
    folder.write("flagstone.toml", CONFIG.replace("name = \"all\"", "nam = \"all\""));
    let on = maintenance(&folder, &["on", "--route", "al"]).await;
    assert!(on.status.success() && on.stderr.contains("there is no route \"al\": there is none yet\n"), "{on:?}");
}

#[tokio::test]
async fn off_for_a_route_that_there_is_not_is_refused_unless_it_has_a_flag() {
    let folder = Folder::new();
    folder.write("flagstone.toml", CONFIG);
    assert!(maintenance(&folder, &["on", "--route", "all"]).await.status.success());
    let off = maintenance(&folder, &["off", "--route", "all", "--route", "al"]).await;
    assert_eq!((off.status.code(), off.stdout.as_str()), (Some(1), ""), "{off:?}");
    assert_eq!(off.stderr, "flagstone: there is no route \"al\": did you mean \"all\"?\n");
    assert!(folder.join("state/maintenance.d/all.flag").exists(), "nothing was done");
    // The flag of a route that is gone has to go, too.
    folder.write("state/maintenance.d/gone.flag", "");
    let off = maintenance(&folder, &["off", "--route", "gone", "--route", "all"]).await;
    assert_eq!((off.status.code(), off.stderr.as_str()), (Some(0), ""), "{off:?}");
    assert!(std::fs::read_dir(folder.join("state/maintenance.d")).unwrap().next().is_none());
}

#[tokio::test]
async fn wrong_use_exits_2() {
    let folder = Folder::new();
    folder.write("flagstone.toml", CONFIG);
    for words in [&["on", "--until", "soon"][..], &["on", "--until", "2020-01-01T00:00:00Z"], &["on", "--for", "long"]]
    {
        assert_eq!(maintenance(&folder, words).await.status.code(), Some(2), "{words:?}");
    }
    assert!(!folder.join("state/maintenance.flag").exists());
}

#[tokio::test]
async fn days_are_durations_here_too() {
    let folder = Folder::new();
    folder.write("flagstone.toml", CONFIG);
    let on = maintenance(&folder, &["on", "--for", "7d", "--grace", "1d"]).await;
    assert!(on.status.success(), "{on:?}");
    let unit = maintenance(&folder, &["on", "--for", "90"]).await;
    assert_eq!(unit.status.code(), Some(2));
    assert!(unit.stderr.contains("a duration needs a unit: write \"90s\" for seconds"), "{unit:?}");
}

#[tokio::test]
async fn the_environment_starts_in_maintenance() {
    let folder = Folder::new();
    let file = folder.write("flagstone.toml", CONFIG);
    let mut command = Flagstone::command([OsStr::new("run"), OsStr::new("-c"), file.as_os_str()]);
    let mut process = Process::start(command.env("MAINTENANCE_MODE", "true").current_dir(folder.path()));
    let line = process.stderr_line("Maintenance mode activated").await;
    assert!(line.contains("by=environment"), "{line}");
    assert!(folder.read("state/maintenance.flag").contains("by = \"environment\""));
}

#[tokio::test]
async fn an_environment_that_does_not_say_true_is_warned_of() {
    for (value, is_told) in [("1", true), ("false", false), ("", false)] {
        let folder = Folder::new();
        let file = folder.write("flagstone.toml", CONFIG);
        let mut command = Flagstone::command([OsStr::new("run"), OsStr::new("-c"), file.as_os_str()]);
        let mut process = Process::start(command.env("MAINTENANCE_MODE", value).current_dir(folder.path()));
        process.stderr_line("listening name=").await;
        let log = process.stderr();
        assert_eq!(log.contains("WARN MAINTENANCE_MODE is \"1\" and begins no maintenance"), is_told, "{value}: {log}");
        assert!(!folder.join("state/maintenance.flag").exists());
    }
}

#[tokio::test]
async fn check_tells_of_a_broken_template_and_writes_nothing() {
    let folder = Folder::new();
    folder.write("page/index.html", "{% if %}");
    let file =
        folder.write("flagstone.toml", format!("[maintenance]\npage = \"page\"\nbypass_token = \"t\"\n{CONFIG}"));
    let ended = Flagstone::run([OsStr::new("check"), OsStr::new("-c"), file.as_os_str()]).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("maintenance.page") && ended.stderr.contains("index.html line 1"),
        "{}",
        ended.stderr
    );
    assert_eq!(folder.names(), ["flagstone.toml", "page"]);
}

#[tokio::test]
async fn status_says_which_routes_there_are_not() {
    let folder = Folder::new();
    folder.write("flagstone.toml", CONFIG);
    folder.write("state/maintenance.flag", "routes = [\"all\", \"checkout\"]");
    folder.write("state/maintenance.d/al.flag", "");
    let status = maintenance(&folder, &["status"]).await.stdout;
    for name in ["checkout", "al"] {
        let line = format!("  unknown     {name}: no such route, nothing is covered by it\n");
        assert!(status.contains(&line), "{status}");
    }
    let of_first = async || {
        let status = maintenance(&folder, &["status", "--json"]).await.stdout;
        serde_json::from_str::<Value>(&status).unwrap()["flags"][0]["unknown_routes"].take()
    };
    assert_eq!(of_first().await, serde_json::json!(["checkout"]));
    // What cannot be read of a file may be that route.
    folder.write("flagstone.toml", format!("{CONFIG}[bogus]\n"));
    assert_eq!(of_first().await, Value::Null);
}
