//! How busy the machine is: processor, memory and disk, in percent.
//!
//! Inside a container the memory is measured against the container's bound (cgroup v2), the processor against the whole
//! machine. A figure that cannot be read is left out, never invented.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Differences over less than this say little; until then the figure before is given again.
const CPU_SPAN_MIN: Duration = Duration::from_millis(900);

/// What the processors did since the start of the machine, in ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// Measures the processor from one asking to the next.
#[derive(Debug)]
pub struct Cpu(Mutex<Option<Asked>>);

#[derive(Debug)]
struct Asked {
    at: Instant,
    ticks: Ticks,
    percent: Option<f64>,
}

impl Default for Cpu {
    /// The first asking is answered for the time from now on; before 0.9 s have gone by, for the time since the machine
    /// started.
    fn default() -> Self {
        let ticks = fs::read_to_string("/proc/stat").ok().and_then(|stat| ticks(&stat));
        let asked = ticks.map(|ticks| Asked { at: Instant::now(), ticks, percent: share(Ticks::default(), ticks) });
        Self(Mutex::new(asked))
    }
}

impl Cpu {
    /// The share of processor time in use since it was asked before, at least 0.9 s ago, in percent. `None` where the
    /// system does not tell.
    pub fn percent(&self) -> Option<f64> {
        let mut before = self.0.lock();
        if let Some(before) = before.as_ref().filter(|before| before.at.elapsed() < CPU_SPAN_MIN) {
            return before.percent;
        }
        let ticks = ticks(&fs::read_to_string("/proc/stat").ok()?)?;
        let percent = before.as_ref().and_then(|before| share(before.ticks, ticks));
        *before = Some(Asked { at: Instant::now(), ticks, percent });
        percent
    }
}

fn share(before: Ticks, now: Ticks) -> Option<f64> {
    let all = now.all.checked_sub(before.all).filter(|&all| all > 0)?;
    Some(now.busy.saturating_sub(before.busy).min(all) as f64 / all as f64 * 100.0)
}

/// The first line of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal.
fn ticks(stat: &str) -> Option<Ticks> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let fields: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let all = fields.iter().sum();
    Some(Ticks { busy: all - fields.get(3)? - fields.get(4)?, all })
}

/// Memory in use, in percent: of the container's bound when it has one, else of the machine.
pub fn memory_percent() -> Option<f64> {
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    if let Some(bound) = number("/sys/fs/cgroup/memory.max").filter(|&bound| bound > 0) {
        let used = number("/sys/fs/cgroup/memory.current")?;
        let stat = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
        return Some(used.saturating_sub(inactive_file(&stat)) as f64 / bound as f64 * 100.0);
    }
    memory_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// What the kernel has read from files and gives back at once when memory gets scarce: counted by the container's
/// bound, but not in use.
fn inactive_file(stat: &str) -> u64 {
    let value = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn memory_of(meminfo: &str) -> Option<f64> {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let (total, available) = (kib("MemTotal:")?, kib("MemAvailable:")?);
    (total > 0.0).then(|| (1.0 - available / total).max(0.0) * 100.0)
}

/// How full the file system of `folder` is for those who are not root, in percent, as `df` shows it.
pub fn disk_percent(folder: &Path) -> Option<f64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let usable = used + stat.f_bavail;
    (usable > 0).then(|| used as f64 / usable as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_busy_with_all_but_idling_and_waiting() {
        let before = ticks("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1 1 1 1\n").unwrap();
        let now = ticks("cpu  130 0 70 840 60 0 0 0 9 9\n").unwrap();
        assert_eq!(share(before, now), Some(50.0));
        assert_eq!(share(now, now), None, "no time has passed");
        assert!(ticks("cpu0 1 2 3 4 5").is_none() && ticks("cpu 1 2").is_none());
    }

    #[test]
    fn the_first_asking_has_an_answer() {
        let percent = Cpu::default().percent().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{percent}");
    }

    #[test]
    fn memory_that_can_be_had_is_not_in_use() {
        assert_eq!(memory_of("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  250 kB\n"), Some(75.0));
        assert_eq!(memory_of("MemTotal: 1000 kB\n"), None);
    }

    #[test]
    fn what_was_read_from_files_is_not_in_use() {
        assert_eq!(inactive_file("anon 5\ninactive_anon 1\ninactive_file 4096\n"), 4096);
        assert_eq!(inactive_file(""), 0);
    }

    #[test]
    fn a_folder_lies_on_a_disk() {
        assert!((0.0..=100.0).contains(&disk_percent(&std::env::temp_dir()).unwrap()));
        assert_eq!(disk_percent(Path::new("/there/is/no/such/folder")), None);
    }
}
