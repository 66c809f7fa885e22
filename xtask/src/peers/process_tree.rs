//! What a server costs with all its workers: the processor time and the memory of a tree of processes.

use std::collections::HashMap;
use std::fs;

/// Microseconds in a tick of `/proc/PID/stat`; Linux shows user space 100 ticks a second on every machine.
const TICK_MICROS: u64 = 10_000;

/// A process, as `/proc/PID/stat` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    parent: u32,
    /// It has ended, and its parent has not asked how.
    ended: bool,
    /// Of itself, and of the children that it has waited for.
    ticks: u64,
}

/// All descendants of the process `root`, whether they run or have ended and were not asked how.
pub(super) fn descendants(root: u32) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A process that ends between the two reads is no longer there to be counted.
    let stats = pids.filter_map(|pid| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?));
    below(root, &stats.collect::<Vec<_>>())
}

/// Those of [`descendants`] that run.
pub(super) fn alive(root: u32) -> Vec<Process> {
    descendants(root).into_iter().filter(|process| !process.ended).collect()
}

/// Processor time that `processes` have used until now, in microseconds.
pub(super) fn cpu_micros(processes: &[Process]) -> u64 {
    processes.iter().map(|process| process.ticks * TICK_MICROS).sum()
}

/// Memory of `processes`, in bytes. What several share is divided among them, where the kernel tells it; where it
/// does not, it counts for each.
pub(super) fn memory_bytes(processes: &[Process]) -> u64 {
    let of = |pid: u32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let proportional = read("smaps_rollup").and_then(|text| kibibytes(&text, "Pss:"));
        proportional.or_else(|| kibibytes(&read("status")?, "VmRSS:"))
    };
    processes.iter().filter_map(|process| of(process.pid)).sum::<u64>() * 1024
}

/// Processor time of the whole machine until now, in microseconds: what was worked, and all that there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) busy_micros: u64,
    pub(super) all_micros: u64,
}

/// Reads what the whole machine worked until now.
pub(super) fn machine() -> Option<Machine> {
    parse_machine(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq and steal.
fn parse_machine(stat: &str) -> Option<Machine> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|tick| tick.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(Machine { busy_micros: (all - idle) * TICK_MICROS, all_micros: all * TICK_MICROS })
}

/// Reads `/proc/PID/stat`, whose second field, the name, may hold spaces and parentheses.
fn parse(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X"),
        // utime, stime, cutime, cstime: fields 14 to 17 of the whole line
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

/// The processes below `root`, without itself, parents before their children.
fn below(root: u32, all: &[Process]) -> Vec<Process> {
    let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
    for &process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let these = children.remove(&parent).unwrap_or_default();
        parents.extend(these.iter().map(|process| process.pid));
        found.extend(these);
    }
    found
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, ticks: u64) -> Process {
        Process { pid, parent, ended: false, ticks }
    }

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "42 (ray::a) b) S 7 42 42 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 9 0 12345 1000 200";
        assert_eq!(parse(stat), Some(process(42, 7, 315)));
        let ended = "42 (python) Z 7 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 9 0 12345 1000 200";
        assert_eq!(parse(ended), Some(Process { ended: true, ..process(42, 7, 3) }));
        assert_eq!(parse("42 (cut) S 1"), None);
    }

    #[test]
    fn the_tree_has_all_generations_and_no_strangers() {
        let all =
            [process(1, 0, 1), process(10, 1, 2), process(30, 20, 4), process(20, 10, 8), process(99, 1, 16)];
        let found = below(10, &all);
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [20, 30]);
        assert_eq!(cpu_micros(&found), 120_000);
        assert_eq!(below(30, &all), []);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        assert_eq!(below(1, &[process(1, 2, 0), process(2, 1, 0)]).len(), 2);
    }

    #[test]
    fn the_machine_is_busy_when_it_neither_idles_nor_waits() {
        let stat = "cpu  10 1 5 70 4 1 1 8 99 99\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_machine(stat), Some(Machine { busy_micros: 260_000, all_micros: 1_000_000 }));
        assert_eq!(parse_machine("cpu0 1 2 3 4 5 6 7 8\n"), None);
    }

    #[test]
    fn memory_is_one_line_of_many() {
        let rollup =
            "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:      4096 kB\nPss_Anon: 1 kB\n";
        assert_eq!(kibibytes(rollup, "Pss:"), Some(4096));
        assert_eq!(kibibytes("VmHWM: 9 kB\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(kibibytes(rollup, "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_is_found_with_its_memory() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found: Vec<Process> =
            alive(std::process::id()).into_iter().filter(|process| process.pid == child.id()).collect();
        assert_eq!(found.len(), 1);
        assert!(memory_bytes(&found) > 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
