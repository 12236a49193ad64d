//! `process_*`: what the kernel says about this process, read at each scrape.
//!
//! A figure that cannot be read (no `/proc` in an empty chroot) is left out, never invented.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Ticks per second of `/proc/[pid]/stat`: `USER_HZ`, 100 on every Linux that Rust runs on.
const USER_HZ: f64 = 100.0;

/// One reading; sizes in bytes, times in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// User and system time together.
    pub cpu_seconds: f64,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    /// The soft limit; `None` = unlimited.
    pub max_fds: Option<u64>,
    pub threads: Option<u64>,
    /// Unix seconds.
    pub start_time: Option<f64>,
}

impl Process {
    /// Reads them; a handful of system calls, so not for the request path.
    pub fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |key| status_number(&status, key).map(|kib| kib * 1024);
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current,
            threads: status_number(&status, "Threads:"),
            start_time: *START_TIME,
        }
    }
}

fn status_number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // The listing itself was one of them.
    count.checked_sub(1)
}

/// Read once: worked out anew it differs by some milliseconds each time, and by more where the clock is set, which whoever
/// counts its changes takes for restarts.
static START_TIME: LazyLock<Option<f64>> = LazyLock::new(start_time);

/// Now, less the age: the boot time plus the ticks at which the process began.
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.as_secs_f64() - (uptime - start_ticks(&stat)? / USER_HZ))
}

/// Field 22 of proc_pid_stat(5). The name, field 2, may hold spaces and parentheses: count from its end.
fn start_ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn this_process_is_read() {
        let process = Process::read();
        assert!(process.cpu_seconds > 0.0);
        assert!(process.resident_bytes.unwrap() > 1 << 20);
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.threads.unwrap() >= 1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - process.start_time.unwrap();
        assert!((-1.0..3600.0).contains(&age), "{age}");
    }

    #[test]
    fn the_start_is_the_same_however_often_it_is_read() {
        let began = Process::read().start_time;
        std::thread::sleep(Duration::from_millis(5));
        assert!((0..20).all(|_| Process::read().start_time == began));
    }

    #[test]
    fn a_strange_process_name_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_ticks(stat), Some(4242.0));
    }
}
