//! Ports for the servers that are measured: free, and such as the system gives to no client.
//!
//! Of the ports that clients get, one may stay taken for a minute after a server has let go of it: by a closed
//! connection of a generator that was given the same number.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

/// The first that is taken where the system leaves them free.
const FIRST: u16 = 20_000;
/// Fewer would soon be used twice.
const ENOUGH: usize = 1000;
/// Linux's own setting.
const CLIENTS: RangeInclusive<u16> = 32_768..=60_999;

/// How many were looked at: the next search goes on behind them, so that servers in turn have other ports.
static SEEN: AtomicU32 = AtomicU32::new(0);

/// `N` different ports that nobody listens on.
///
/// # Errors
/// When there are not so many.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let range = servers(&clients());
    let length = u32::from(range.end() - range.start()) + 1;
    let mut found = BTreeSet::new();
    for _ in 0..length {
        // Two of these programs at a time do not look at the same first.
        let place = SEEN.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id()) % length;
        let port = range.start() + u16::try_from(place)?;
        if found.len() < N && is_free(port) {
            found.insert(port);
        }
        if found.len() == N {
            break;
        }
    }
    ensure!(found.len() == N, "of the ports {} to {} fewer than {N} are free", range.start(), range.end());
    let mut ports = [0; N];
    ports.iter_mut().zip(found).for_each(|(port, free)| *port = free);
    Ok(ports)
}

/// Whether a server could listen on `port`.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The ports that the system gives to clients.
fn clients() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    text.and_then(|text| parse(&text)).unwrap_or(CLIENTS)
}

fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some(numbers.next()??..=numbers.next()??)
}

/// Ports for servers where `clients` has those of clients: below, or above, or among them when they have all.
fn servers(clients: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let below = clients.start().saturating_sub(1);
    let above = clients.end().saturating_add(1);
    let ranges = [FIRST..=below, 1024..=below, above..=u16::MAX];
    ranges.into_iter().find(|range| range.len() >= ENOUGH).unwrap_or(FIRST..=32_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_other_ports_than_clients() {
        assert_eq!(servers(&CLIENTS), 20_000..=32_767);
        assert_eq!(servers(&(15_000..=65_000)), 1024..=14_999);
        assert_eq!(servers(&(1024..=60_999)), 61_000..=65_535);
        assert_eq!(servers(&(1..=65_535)), 20_000..=32_000, "clients have all");
        assert_eq!(parse("32768\t60999\n"), Some(CLIENTS));
        assert_eq!(parse("32768"), None);
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }

    #[test]
    fn no_port_is_given_twice_in_a_row() {
        let first = free::<3>().unwrap();
        let second = free::<3>().unwrap();
        let all: BTreeSet<u16> = first.into_iter().chain(second).collect();
        assert_eq!(all.len(), 6);
    }
}
