//! Gauges of the machine, from Linux' /proc.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A gauge without labels.
pub(super) struct HostGauge {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

/// In the order of [`gauges`].
pub(super) const GAUGES: [HostGauge; 4] = [
    HostGauge {
        name: "nv_cpu_utilization",
        help: "CPU utilization rate of the machine over the last two seconds or more, 0.0 to 1.0",
    },
    HostGauge { name: "nv_cpu_memory_total_bytes", help: "RAM of the machine in bytes" },
    HostGauge { name: "nv_cpu_memory_used_bytes", help: "RAM in use on the machine in bytes" },
    HostGauge { name: "volley_process_resident_memory_bytes", help: "RAM that this process holds in bytes" },
];

/// The gauges that can be read here, with their values.
pub(super) fn gauges() -> impl Iterator<Item = (&'static HostGauge, f64)> {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = kilobytes(&memory, "MemTotal:");
    let used = total.zip(kilobytes(&memory, "MemAvailable:")).map(|(total, available)| total - available);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let values = [utilization(), total, used, kilobytes(&status, "VmRSS:")];
    GAUGES.iter().zip(values).filter_map(|(gauge, value)| Some((gauge, value?)))
}

/// The value of a line such as `MemTotal:  24 kB`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// The share of time that the machine's cores were busy lately.
fn utilization() -> Option<f64> {
    /// Held to read a short file of /proc and compare two numbers.
    static SAMPLE: Mutex<Sample> = Mutex::new(Sample { at: None, busy: 0.0, total: 0.0, share: None });
    let mut sample = SAMPLE.lock().ok()?;
    if sample.is_due(Instant::now()) {
        let (busy, total) = busy_and_total(&fs::read_to_string("/proc/stat").ok()?)?;
        sample.take(Instant::now(), busy, total);
    }
    sample.share
}

/// How busy the machine was between the two latest readings of its clocks. It is the same for all who ask until
/// it is [`SAMPLE_TIME`] old, so that several scrapers do not cut each other's time short.
struct Sample {
    at: Option<Instant>,
    busy: f64,
    total: f64,
    share: Option<f64>,
}

/// The clocks of /proc/stat tick a hundred times a second: a shorter sample would be a coarse one.
const SAMPLE_TIME: Duration = Duration::from_secs(2);

impl Sample {
    fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| now.duration_since(at) >= SAMPLE_TIME)
    }

    /// The first is of the time since the machine was started.
    fn take(&mut self, now: Instant, busy: f64, total: f64) {
        let (busy_since, since) = (busy - self.busy, total - self.total);
        let share = (since > 0.0).then(|| (busy_since / since).clamp(0.0, 1.0));
        *self = Sample { at: Some(now), busy, total, share: share.or(self.share) };
    }
}

/// From the first line of /proc/stat: user, nice, system, idle, iowait and so on.
fn busy_and_total(stat: &str) -> Option<(f64, f64)> {
    let times: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|time| time.parse().ok()).collect();
    let total: f64 = times.iter().take(8).sum(); // guest times are counted in user already
    let idle = times.get(3)? + times.get(4)?;
    Some((total - idle, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_it_is_written() {
        assert_eq!(kilobytes("MemFree: 1 kB\nMemTotal:   24 kB\n", "MemTotal:"), Some(24.0 * 1024.0));
        assert_eq!(kilobytes("", "MemTotal:"), None);
        assert_eq!(busy_and_total("cpu  10 0 10 70 10 0 0 0 0 0\n"), Some((20.0, 100.0)));
        assert_eq!(busy_and_total("cpu 1 2"), None);
    }

    /// Each of two scrapers had the time since the other's last scrape, or nothing.
    #[test]
    fn whoever_asks_sees_a_sample_of_two_seconds_or_more() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut sample = Sample { at: None, busy: 0.0, total: 0.0, share: None };
        assert!(sample.is_due(start));
        sample.take(start, 10.0, 100.0);
        assert_eq!(
            (sample.share, sample.is_due(after(1)), sample.is_due(after(2))),
            (Some(0.1), false, true)
        );
        sample.take(after(15), 25.0, 130.0);
        assert_eq!((sample.share, sample.is_due(after(16))), (Some(0.5), false));
        sample.take(after(20), 25.0, 130.0);
        assert_eq!(sample.share, Some(0.5), "clocks that stand still say nothing");
    }
}
