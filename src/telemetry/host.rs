//! `[host]`: the machine's memory, disk and processor against their bounds, for `/api/health`.
//!
//! Measured every few seconds beside everything else; whoever asks gets the last measurement. A bound is passed when
//! the figure is above it, and kept again only a little below it, so that a figure that stays near its bound is no news
//! all the time. The processor is judged by its last minute: that it is busy for a moment is what it is there for.

use std::collections::VecDeque;
use std::path::Path;

use parking_lot::Mutex;

use super::machine::{self, Cpu};
use crate::config::model;

/// Seconds between two measurements.
const EVERY: u64 = 5;
/// Measurements in a minute of the processor.
const MINUTE: usize = 12;
/// Percentage points below its bound before a check is well again.
const BACK: f64 = 2.0;

/// The last measurements.
#[derive(Debug, Default)]
pub struct Host {
    cpu: Cpu,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ticks: u64,
    memory: Gauge,
    disk: Gauge,
    processor: Gauge,
    minute: VecDeque<f64>,
}

/// One figure and its bound.
#[derive(Clone, Copy, Debug, Default)]
struct Gauge {
    percent: Option<f64>,
    is_over: bool,
}

/// What there is to say of one figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub name: &'static str,
    /// 0 to 100.
    pub percent: f64,
    /// From 1 to 100.
    pub bound: u8,
    pub is_over: bool,
}

impl Host {
    /// Once a second; measures every few times. Not for the request path: it reads files.
    pub fn tick(&self, settings: &model::Host, state_dir: &Path) {
        let ticks = {
            let mut state = self.state.lock();
            state.ticks += 1;
            state.ticks
        };
        if ticks % EVERY != 1 {
            return;
        }
        // A disk that hangs is not to keep those waiting who ask for the last measurement.
        let (memory, disk, processor) =
            (machine::memory_percent(), machine::disk_percent(state_dir), self.cpu.percent());
        let mut state = self.state.lock();
        state.memory.show(memory, settings.memory_percent);
        state.disk.show(disk, settings.disk_percent);
        if let Some(percent) = processor {
            state.busy(percent, settings.cpu_percent);
        }
    }

    /// What is bounded and could be measured.
    pub fn checks(&self, settings: &model::Host) -> Vec<Check> {
        let state = self.state.lock();
        let figures = [
            ("memory", settings.memory_percent, state.memory),
            ("disk", settings.disk_percent, state.disk),
            ("cpu", settings.cpu_percent, state.processor),
        ];
        let check = |(name, bound, gauge): (&'static str, Option<u8>, Gauge)| {
            Some(Check { name, percent: gauge.percent?, bound: bound?, is_over: gauge.is_over })
        };
        figures.into_iter().filter_map(check).collect()
    }
}

impl State {
    fn busy(&mut self, percent: f64, bound: Option<u8>) {
        if self.minute.len() == MINUTE {
            self.minute.pop_front();
        }
        self.minute.push_back(percent);
        let average = self.minute.iter().sum::<f64>() / self.minute.len() as f64;
        // A whole minute, or no judgement.
        let bound = bound.filter(|_| self.minute.len() == MINUTE);
        self.processor.show(Some(average), bound);
    }
}

impl Gauge {
    fn show(&mut self, percent: Option<f64>, bound: Option<u8>) {
        self.percent = percent;
        self.is_over = match (percent, bound.map(f64::from)) {
            (Some(percent), Some(bound)) if self.is_over => percent > bound - BACK,
            (Some(percent), Some(bound)) => percent > bound,
            _ => false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(percent: u8) -> model::Host {
        let percent = Some(percent).filter(|&percent| percent > 0);
        model::Host { memory_percent: percent, disk_percent: percent, cpu_percent: percent }
    }

    #[test]
    fn a_bound_is_kept_again_only_a_little_below_it() {
        let mut gauge = Gauge::default();
        let mut over = |percent| {
            gauge.show(Some(percent), Some(80));
            gauge.is_over
        };
        assert_eq!([80.0, 80.1, 79.0, 78.1, 78.0, 80.0].map(&mut over), [false, true, true, true, false, false]);
        gauge.show(None, Some(80));
        assert!(!gauge.is_over);
    }

    #[test]
    fn the_processor_is_judged_by_its_last_minute() {
        let mut state = State::default();
        for number in 1..MINUTE {
            state.busy(100.0, Some(90));
            assert!(!state.processor.is_over, "{number} measurements are no minute");
        }
        state.busy(100.0, Some(90));
        assert!(state.processor.is_over);
        state.busy(0.0, Some(90));
        assert_eq!(state.processor.percent.map(f64::round), Some(92.0));
        assert!(state.processor.is_over);
        state.busy(0.0, Some(90));
        assert!(!state.processor.is_over);
        assert_eq!(state.minute.len(), MINUTE);
    }

    #[test]
    fn what_is_off_is_no_check() {
        let host = Host::default();
        assert!(host.checks(&settings(80)).is_empty(), "nothing is measured yet");
        host.tick(&settings(1), &std::env::temp_dir());
        let names: Vec<_> = host.checks(&settings(1)).iter().map(|check| (check.name, check.is_over)).collect();
        assert_eq!(names[0], ("memory", true));
        assert!(host.checks(&settings(0)).is_empty());
    }
}
