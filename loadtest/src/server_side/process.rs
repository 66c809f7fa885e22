//! Processor time and memory of a server on this machine, from Linux' /proc.

use std::net::{IpAddr, UdpSocket};

use super::process_tree::{Entry, descendants, origin};

/// The processes that make up a server, by their roots.
#[derive(Clone, Debug)]
pub(super) struct Found {
    roots: Vec<i32>,
}

/// The processes of a server at one time.
#[derive(Clone, Debug)]
pub(super) struct ProcessReading {
    /// The number of each root and when it started, which together no other process has.
    roots: Vec<(i32, u64)>,
    ticks: u64,
    resident_bytes: u64,
    ticks_per_second: f64,
}

impl Found {
    /// Reads all of the server's processes; `None` when it is gone.
    pub(super) fn read(&self) -> Option<ProcessReading> {
        ProcessReading::of(&procfs::entries(), &self.roots, procfs::ticks_per_second())
    }
}

impl ProcessReading {
    fn of(entries: &[Entry], roots: &[i32], ticks_per_second: f64) -> Option<ProcessReading> {
        let tree = descendants(entries, roots);
        let alive = tree.iter().filter(|entry| roots.contains(&entry.pid));
        let alive: Vec<_> = alive.map(|entry| (entry.pid, entry.started)).collect();
        (!alive.is_empty()).then(|| ProcessReading {
            roots: alive,
            ticks: tree.iter().map(|entry| entry.ticks).sum(),
            resident_bytes: tree.iter().map(|entry| entry.resident_bytes).sum(),
            ticks_per_second,
        })
    }

    /// Memory that all processes hold; what they share is counted in each.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// Processor time since `before`; `None` when the server was replaced in between.
    pub(super) fn cpu_seconds_since(&self, before: &ProcessReading) -> Option<f64> {
        if self.roots != before.roots {
            return None;
        }
        // A worker that ended and was not waited for takes its time with it.
        let ticks = self.ticks.checked_sub(before.ticks)?;
        #[expect(clippy::cast_precision_loss, reason = "ticks of a run are few")]
        let ticks = ticks as f64;
        Some(ticks / self.ticks_per_second)
    }
}

/// The process that the user named.
///
/// # Errors
/// When there is none, in a sentence.
pub(super) fn of_pid(pid: u32) -> Result<Found, String> {
    let found = i32::try_from(pid).ok().map(|pid| Found { roots: vec![pid] });
    let found = found.filter(|found| found.read().is_some());
    found.ok_or_else(|| {
        format!(
            "--server-pid: there is no process {pid} to read here; name one of this machine, or leave it out"
        )
    })
}

/// The processes that listen at an address of this machine; `None` for another machine's address.
///
/// # Errors
/// When the server is here but its process cannot be told, in a sentence.
pub(super) async fn listening(host: &str, port: u16) -> Result<Option<Found>, String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(addresses) = tokio::net::lookup_host((host, port)).await else { return Ok(None) };
    let addresses: Vec<IpAddr> = addresses.map(|address| address.ip()).filter(is_local).collect();
    if addresses.is_empty() {
        return Ok(None);
    }
    let listeners = procfs::listeners(port, &addresses);
    let entries = procfs::entries();
    let relay =
        entries.iter().find(|entry| listeners.contains(&entry.pid) && RELAYS.contains(&entry.name.as_str()));
    if let Some(relay) = relay {
        return Err(format!(
            "Port {port} belongs to {}, which passes connections on, so the server's processor time is left out; name its \
             process with --server-pid.",
            relay.name
        ));
    }
    if listeners.is_empty() {
        return Err(format!(
            "No process that listens on port {port} can be read (it may be another user's), so the server's processor time \
             is left out; name its process with --server-pid."
        ));
    }
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let mut roots: Vec<i32> = listeners.iter().map(|listener| origin(&entries, *listener, me)).collect();
    roots.sort_unstable();
    roots.dedup();
    Ok(Some(Found { roots }))
}

/// Programs that listen for a server in a container or on another machine.
const RELAYS: [&str; 4] = ["docker-proxy", "rootlesskit", "ssh", "kubectl"];

/// Whether an address is this machine's: only then a socket can be bound to it.
fn is_local(address: &IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((*address, 0)).is_ok()
}

/// What is read of /proc. On other systems there is none, and so no process is found.
#[cfg(target_os = "linux")]
mod procfs {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use ::procfs::net::TcpState;
    use ::procfs::process::{FDTarget, Process, all_processes};

    use super::Entry;

    /// All processes; those that end while they are read are left out.
    pub(super) fn entries() -> Vec<Entry> {
        processes().filter_map(|process| entry(&process)).collect()
    }

    fn processes() -> impl Iterator<Item = Process> {
        all_processes().into_iter().flatten().flatten()
    }

    fn entry(process: &Process) -> Option<Entry> {
        let stat = process.stat().ok()?;
        let waited_for = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
        Some(Entry {
            pid: stat.pid,
            parent: stat.ppid,
            group: stat.pgrp,
            name: stat.comm,
            started: stat.starttime,
            ticks: stat.utime + stat.stime + waited_for,
            resident_bytes: stat.rss * ::procfs::page_size(),
        })
    }

    /// The processes that hold a socket which listens on `port` at one of `addresses` or at all.
    pub(super) fn listeners(port: u16, addresses: &[IpAddr]) -> Vec<i32> {
        let sockets =
            ::procfs::net::tcp().into_iter().flatten().chain(::procfs::net::tcp6().into_iter().flatten());
        let inodes: BTreeSet<u64> = sockets
            .filter(|socket| {
                let ip = socket.local_address.ip();
                let here =
                    ip.is_unspecified() || addresses.iter().any(|at| at.to_canonical() == ip.to_canonical());
                socket.state == TcpState::Listen && socket.local_address.port() == port && here
            })
            .map(|socket| socket.inode)
            .collect();
        if inodes.is_empty() {
            return Vec::new();
        }
        processes().filter(|process| holds(process, &inodes)).map(|process| process.pid()).collect()
    }

    fn holds(process: &Process, inodes: &BTreeSet<u64>) -> bool {
        let files = process.fd().into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| matches!(file.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
    }

    #[expect(clippy::cast_precision_loss, reason = "it is 100 nearly everywhere")]
    pub(super) fn ticks_per_second() -> f64 {
        ::procfs::ticks_per_second() as f64
    }
}

#[cfg(not(target_os = "linux"))]
mod procfs {
    use std::net::IpAddr;

    use super::Entry;

    pub(super) fn entries() -> Vec<Entry> {
        Vec::new()
    }

    pub(super) fn listeners(_port: u16, _addresses: &[IpAddr]) -> Vec<i32> {
        Vec::new()
    }

    pub(super) fn ticks_per_second() -> f64 {
        1.0
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell whose child computes for a while; it then says so and waits for its input to end.
    fn busy_family() -> Child {
        let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; cat'; :";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn the_time_of_children_is_counted_while_they_live_and_after() {
        let mut family = busy_family();
        let found = of_pid(family.id()).unwrap();
        let start = found.read().unwrap();
        let mut line = String::new();
        BufReader::new(family.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
        let busy = found.read().unwrap();
        let seconds = busy.cpu_seconds_since(&start).unwrap();
        assert!((0.01..60.0).contains(&seconds), "{seconds} s");
        assert!(busy.resident_bytes() > 100_000);
        // The end of its input ends the child, then the shell.
        drop(family.stdin.take());
        family.wait().unwrap();
        assert!(found.read().is_none(), "the server is gone");
    }

    #[tokio::test]
    async fn the_process_that_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = listening("127.0.0.1", port).await.unwrap().unwrap();
        assert_eq!(found.roots, [i32::try_from(std::process::id()).unwrap()]);
        drop(listener);
        let remark = listening("localhost", port).await.unwrap_err();
        assert!(remark.contains("--server-pid"), "{remark}");
    }

    /// 192.0.2.0/24 is for documentation, and no machine's.
    #[tokio::test]
    async fn another_machine_has_no_process_here_and_that_is_no_remark() {
        assert!(listening("192.0.2.1", 80).await.unwrap().is_none());
    }

    #[test]
    fn a_server_that_was_replaced_has_no_difference() {
        let entry = |pid, started, ticks| Entry {
            pid,
            parent: 1,
            group: pid,
            name: "volley".to_owned(),
            started,
            ticks,
            resident_bytes: 1,
        };
        let reading = |started, ticks| ProcessReading::of(&[entry(7, started, ticks)], &[7], 100.0).unwrap();
        assert_eq!(reading(5, 350).cpu_seconds_since(&reading(5, 100)), Some(2.5));
        assert_eq!(reading(9, 350).cpu_seconds_since(&reading(5, 100)), None, "the number was used again");
        assert_eq!(reading(5, 1).cpu_seconds_since(&reading(5, 100)), None);
        assert!(ProcessReading::of(&[entry(7, 5, 1)], &[8], 100.0).is_none());
    }
}
