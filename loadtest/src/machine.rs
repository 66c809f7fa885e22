//! The machine that sends the load.

use std::fs;

use crate::measurement::Machine;

/// This machine, of which `threads` send; what it does not tell is left empty.
pub(crate) fn this(threads: usize) -> Machine {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let kilobytes = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kilobytes = kilobytes.trim_end_matches(" kB").parse::<u64>().unwrap_or_default();
    let system = rustix::system::uname();
    Machine {
        cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kilobytes * 1024,
        system: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
        generator: env!("CARGO_PKG_VERSION").to_owned(),
        threads: Some(threads),
    }
}
