//! `flagstone demo`: what it prints works, and nothing of it stays.

use std::process::Command;
use std::time::Duration;

use crate::support::client;
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::poll::eventually_async;
use crate::support::process::{DEADLINE, Flagstone, Process, Signal};
use crate::without_a_file::usual_ports;

/// The lines of the printed text that a shell can run, by the number of the thing to try.
fn things(text: &str) -> Vec<Vec<&str>> {
    let mut things: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            things.push(Vec::new());
        } else if let (Some(last), Some(command)) = (things.last_mut(), line.strip_prefix("   ")) {
            last.push(command);
        }
    }
    things
}

async fn shell(lines: &[&str]) -> String {
    let mut process = Process::start(Command::new("bash").args(["-ec", &lines.join("\n")]));
    let status = process.wait(Duration::from_secs(60)).await;
    assert!(status.success(), "{lines:?}: {}", process.stderr());
    process.stdout()
}

#[tokio::test]
async fn what_the_demo_prints_works_when_pasted() {
    let temp = Folder::new();
    or_left_out!(program("curl"));
    let mut command = Flagstone::command(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut demo = Process::start(command.env("TMPDIR", temp.path()));
    demo.stdout_line("Ctrl-C").await;
    let text = demo.stdout();
    let things = things(&text);
    assert_eq!(things.len(), 5, "{text}");

    let maintained = shell(&things[0]).await;
    assert!(maintained.starts_with("HTTP/1.1 503 "), "{maintained}");
    assert!(maintained.to_ascii_lowercase().contains("retry-after: 60"), "{maintained}");
    let site = text.lines().find_map(|line| line.strip_prefix("The site ")).unwrap().trim();
    let address = site.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let is_back = async || client::get(address, "/").await.unwrap().status == 200;
    assert!(eventually_async(Duration::from_secs(10), is_back).await);

    let hammered = shell(&things[1]).await;
    let statuses: Vec<_> = hammered.split_whitespace().collect();
    assert!(statuses.starts_with(&["200"; 10]) && statuses.contains(&"429"), "{statuses:?}");

    let tripped = shell(&things[2]).await;
    assert!(tripped.contains("500 500 500 503 503 503"), "{tripped}");
    assert!(tripped.contains("HTTP/1.1 200 "), "{tripped}");

    let edited = shell(&things[3]).await;
    assert!(edited.starts_with("Edit me") && edited.contains("I was edited"), "{edited}");

    let admin = shell(&things[4]).await;
    assert!(admin.contains("\"circuitBreakers\"") && admin.contains("flagstone_requests_total"), "{admin}");

    demo.signal(Signal::INT);
    assert_eq!(demo.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(temp.names(), Vec::<String>::new());
}

/// In a container each has the same process id.
#[tokio::test]
async fn what_a_demo_that_was_killed_has_left_keeps_no_other_from_starting() {
    let temp = Folder::new();
    let script = "mkdir \"$TMPDIR/flagstone-demo-$$\"; exec \"$0\" demo --listen 127.0.0.1:0 --admin 127.0.0.1:0";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_flagstone")]).env("TMPDIR", temp.path());
    let mut demo = Process::start(&mut command);
    demo.stdout_line("Ctrl-C").await;
    demo.signal(Signal::INT);
    assert_eq!(demo.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(temp.names(), [format!("flagstone-demo-{}", demo.id())]);
}

#[tokio::test]
async fn what_a_demo_prints_works_from_everywhere_though_its_folder_was_named_from_somewhere() {
    let folder = Folder::new();
    std::fs::create_dir(folder.join("temp")).unwrap();
    let mut command = Flagstone::command(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut demo = Process::start(command.env("TMPDIR", "temp").current_dir(folder.path()));
    demo.stdout_line("Ctrl-C").await;
    let text = demo.stdout();
    let file = text.lines().find_map(|line| line.strip_prefix("The file ")).unwrap().trim();
    assert!(file.starts_with('/'), "{file}");
    assert!(text.contains("   touch /"), "{text}");
    demo.signal(Signal::INT);
    assert_eq!(demo.wait(DEADLINE).await.code(), Some(0));
    assert!(!std::fs::exists(file).unwrap());
}

#[tokio::test]
async fn the_admin_side_of_a_demo_is_for_this_machine() {
    let temp = Folder::new();
    let mut command = Flagstone::command(["demo", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"]);
    let mut demo = Process::start(command.env("TMPDIR", temp.path()));
    assert_eq!(demo.wait(DEADLINE).await.code(), Some(2));
    let said = demo.stderr();
    assert!(said.contains("'--admin <ADDR>': it has no token: give a loopback address, such as 127.0.0.1:0"), "{said}");
    assert_eq!(temp.names(), Vec::<String>::new());
}

#[tokio::test]
async fn the_demo_cleans_up_on_term_and_says_when_a_given_port_is_busy() {
    let temp = Folder::new();
    let start = |arguments: &[&str]| {
        let mut command = Flagstone::command(["demo"]);
        Process::start(command.args(arguments).env("TMPDIR", temp.path()))
    };
    // The usual ports, or free ones when those are taken.
    let _turn = usual_ports();
    let mut demo = start(&[]);
    demo.stdout_line("Ctrl-C").await;
    let text = demo.stdout();
    let taken = text.lines().find_map(|line| line.strip_prefix("The site ")).unwrap().trim();
    let taken = taken.trim_start_matches("http://").trim_end_matches('/');

    let mut second = start(&["--listen", taken, "--admin", "127.0.0.1:0"]);
    assert_eq!(second.wait(DEADLINE).await.code(), Some(1));
    let said = second.stderr();
    assert!(said.contains(&format!("cannot listen on {taken}: address already in use")), "{said}");
    assert!(said.contains("--listen 127.0.0.1:0"), "{said}");
    assert_eq!(second.stdout(), "");

    // And beside a demo that has the usual ports, another one finds its own.
    let mut third = start(&[]);
    third.stdout_line("Ctrl-C").await;
    for mut demo in [demo, third] {
        demo.signal(Signal::TERM);
        assert_eq!(demo.wait(DEADLINE).await.code(), Some(0));
    }
    assert_eq!(temp.names(), Vec::<String>::new());
}
