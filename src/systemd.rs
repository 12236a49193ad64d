//! What systemd is told, where it asks to be: sd_notify(3). Without `NOTIFY_SOCKET` nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// This process serves.
pub(crate) fn ready() {
    tell(&format!("READY=1\nMAINPID={}\nSTATUS=serving", std::process::id()));
}

/// A reload has begun; [`ready`] tells of its end.
pub(crate) fn reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now_usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_usec}"));
}

/// The service is about to end.
pub(crate) fn stopping() {
    tell("STOPPING=1\nSTATUS=draining");
}

/// From now on another process is the service's main one.
pub(crate) fn main_process(pid: i32) {
    tell(&format!("MAINPID={pid}"));
}

/// This process is well.
pub(crate) fn alive() {
    tell("WATCHDOG=1");
}

/// How often to say [`alive`]: twice in the time after which systemd takes the process for dead
/// (sd_watchdog_enabled(3)).
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let variable = |name: &str| std::env::var(name).ok();
    if variable("WATCHDOG_PID").is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let micros = variable("WATCHDOG_USEC")?.parse().ok().filter(|micros| *micros > 0)?;
    Some(Duration::from_micros(micros) / 2)
}

fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = told {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
