//! So much happens in a watched folder that the kernel drops events (inotify(7)): what they told of is found all the
//! same.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::support::client;
use crate::support::frozen::freeze;
use crate::support::poll::eventually_async;
use crate::support::process::{DEADLINE, Flagstone};

fn says(text: &str) -> String {
    format!(
        "[server]\nstate_dir = \"state\"\n[admin]\nlisten = \"\"\n[log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nrespond = {{ body = \"{text}\" }}\n"
    )
}

/// The process's own inotify queues, to look into.
fn queues(process: u32) -> std::io::Result<Vec<OwnedFd>> {
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    let process_fd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut queues = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let path = entry?.path();
        if std::fs::read_link(&path).is_ok_and(|target| target == Path::new("anon_inode:inotify")) {
            let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            queues.push(pidfd_getfd(&process_fd, number, PidfdGetfdFlags::empty())?);
        }
    }
    Ok(queues)
}

/// Makes and removes files in a folder until no queue takes more; false when one always does.
fn fill(folder: &Path, queues: &[OwnedFd]) -> bool {
    let waiting = || queues.iter().map(|queue| rustix::io::ioctl_fionread(queue).unwrap()).collect::<Vec<_>>();
    let mut before = waiting();
    for round in 0..200 {
        for number in 0..500 {
            let file = folder.join(format!("noise-{round}-{number}"));
            std::fs::write(&file, "x").unwrap();
            std::fs::remove_file(&file).unwrap();
        }
        let now = waiting();
        if now == before && now.iter().any(|bytes| *bytes > 0) {
            return true;
        }
        before = now;
    }
    false
}

async fn comes_to(web: SocketAddr, status: u16, text: &str) -> bool {
    eventually_async(DEADLINE, async || {
        let answer = client::get(web, "/").await.unwrap();
        answer.status == status && (text.is_empty() || answer.text() == text)
    })
    .await
}

#[tokio::test]
async fn when_the_queue_of_file_events_overflows_the_last_version_wins() {
    let mut flagstone = Flagstone::serve(&says("one")).await;
    let (web, id) = (flagstone.address("web").await, flagstone.process.id());
    assert!(comes_to(web, 200, "one").await);
    let Ok(queues) = queues(id) else { left_out!("nobody may look into another process here") };
    assert!(!queues.is_empty());
    for (folder, last) in [(".", "two"), ("state", "three")] {
        // Nobody takes events out of the queues meanwhile.
        let Ok(frozen) = freeze(id, "notify-rs") else { left_out!("nobody may stop threads here") };
        if !fill(&flagstone.folder.join(folder), &queues) {
            left_out!("this system's queues have no end (fs.inotify.max_queued_events)");
        }
        // What these would have told is lost for whoever watches the folder that was filled.
        for text in ["almost", "[[[ no TOML", last] {
            let text = if text.starts_with('[') { text.to_owned() } else { says(text) };
            flagstone.folder.replace("flagstone.toml", text);
        }
        flagstone.folder.write("state/maintenance.flag", "");
        drop(frozen);
        assert!(comes_to(web, 503, "").await, "{}", flagstone.process.stderr());
        flagstone.folder.remove("state/maintenance.flag");
        assert!(comes_to(web, 200, last).await, "{}", flagstone.process.stderr());
    }
    // It hears as before.
    flagstone.folder.replace("flagstone.toml", says("four"));
    assert!(comes_to(web, 200, "four").await, "{}", flagstone.process.stderr());
}
