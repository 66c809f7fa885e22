//! Gauges of the machine, from Linux' /proc.

use std::fs;
use std::sync::Mutex;

/// A gauge without labels.
pub(super) struct HostGauge {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

/// In the order of [`gauges`].
pub(super) const GAUGES: [HostGauge; 4] = [
    HostGauge {
        name: "nv_cpu_utilization",
        help: "CPU utilization rate of the machine since the last scrape, 0.0 to 1.0",
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

/// The share of time that the machine's cores were busy since this was last asked.
fn utilization() -> Option<f64> {
    /// Busy and total time at the last scrape; held to swap two numbers.
    static LAST: Mutex<(f64, f64)> = Mutex::new((0.0, 0.0));
    let now = busy_and_total(&fs::read_to_string("/proc/stat").ok()?)?;
    let last = std::mem::replace(&mut *LAST.lock().ok()?, now);
    let total = now.1 - last.1;
    (total > 0.0).then(|| ((now.0 - last.0) / total).clamp(0.0, 1.0))
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
}
