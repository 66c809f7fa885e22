//! Which processes make up a server. Pure: a decision over a list of processes.

use std::collections::BTreeSet;

/// A process, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) name: String,
    /// When it started, in ticks since the machine did: a number that was used before starts later.
    pub(super) started: u64,
    /// Processor time, its own and that of children it waited for, in ticks.
    pub(super) ticks: u64,
    pub(super) resident_bytes: u64,
}

/// Programs that start servers and are no part of them.
const STARTERS: [&str; 10] =
    ["sh", "bash", "dash", "zsh", "fish", "ksh", "busybox", "systemd", "init", "containerd-shim"];

/// Where a server with workers begins: a process that listens may be a child of the one that was started, beside
/// others that compute. Climbs from `listener` through its process group, but not to a shell or to what also
/// started this program (`me`).
pub(super) fn origin(entries: &[Entry], listener: i32, me: i32) -> i32 {
    let find = |pid| entries.iter().find(|entry| entry.pid == pid);
    let mine = ancestors(entries, me);
    let mut seen = BTreeSet::new();
    let mut at = listener;
    while seen.insert(at) {
        let Some(entry) = find(at) else { break };
        let Some(parent) = find(entry.parent) else { break };
        let foreign = parent.group != entry.group || mine.contains(&parent.pid);
        if foreign || STARTERS.contains(&parent.name.as_str()) {
            break;
        }
        at = parent.pid;
    }
    at
}

/// `pid` and its parents, up to the first.
fn ancestors(entries: &[Entry], pid: i32) -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    let mut at = pid;
    // A list read while processes end may have a circle.
    while all.insert(at) {
        match entries.iter().find(|entry| entry.pid == at) {
            Some(entry) => at = entry.parent,
            None => break,
        }
    }
    all
}

/// `roots` and all that descends from them.
pub(super) fn descendants<'a>(entries: &'a [Entry], roots: &[i32]) -> Vec<&'a Entry> {
    let mut pids: BTreeSet<i32> = roots.iter().copied().collect();
    loop {
        let before = pids.len();
        pids.extend(
            entries
                .iter()
                .filter(|entry| pids.contains(&entry.parent))
                .map(|entry| entry.pid)
                .collect::<Vec<_>>(),
        );
        if pids.len() == before {
            return entries.iter().filter(|entry| pids.contains(&entry.pid)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32, group: i32, name: &str) -> Entry {
        let name = name.to_owned();
        Entry { pid, parent, group, name, started: 0, ticks: 0, resident_bytes: 0 }
    }

    /// A shell (10) runs a server of two workers (20, with 21 that listens and 22 that computes); another shell
    /// (30) runs this program (31).
    fn machine() -> Vec<Entry> {
        vec![
            entry(1, 0, 1, "init"),
            entry(10, 1, 10, "bash"),
            entry(20, 10, 20, "python3"),
            entry(21, 20, 20, "mosec"),
            entry(22, 20, 20, "python3"),
            entry(30, 1, 30, "bash"),
            entry(31, 30, 31, "volley-load"),
        ]
    }

    fn tree(entries: &[Entry], roots: &[i32]) -> Vec<i32> {
        descendants(entries, roots).into_iter().map(|entry| entry.pid).collect()
    }

    #[test]
    fn workers_beside_the_one_that_listens_belong_to_the_server() {
        let machine = machine();
        assert_eq!(origin(&machine, 21, 31), 20);
        assert_eq!(tree(&machine, &[20]), [20, 21, 22]);
    }

    #[test]
    fn a_script_that_started_both_is_no_part_of_the_server() {
        let mut machine = machine();
        // A Python program runs the server and this program, all in one group.
        machine.push(entry(40, 10, 40, "python3"));
        machine.push(entry(41, 40, 40, "volley"));
        machine.push(entry(42, 40, 40, "volley-load"));
        assert_eq!(origin(&machine, 41, 42), 41);
        // A shell script in whose group the server runs.
        machine.push(entry(50, 10, 50, "sh"));
        machine.push(entry(51, 50, 50, "volley"));
        assert_eq!(origin(&machine, 51, 31), 51);
    }

    #[test]
    fn circles_and_gaps_end() {
        let entries = [entry(1, 2, 1, "a"), entry(2, 1, 1, "b"), entry(5, 4, 1, "c")];
        assert_eq!(ancestors(&entries, 1), BTreeSet::from([1, 2]));
        assert_eq!(origin(&entries, 5, 99), 5);
        assert_eq!(tree(&entries, &[1]), [1, 2]);
        assert_eq!(tree(&entries, &[77]), [] as [i32; 0]);
    }
}
