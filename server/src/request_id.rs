//! The id by which the log speaks of a request: the client's own, its `x-request-id`, or one made here.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use smol_str::SmolStr;

/// Name of the header, in HTTP and in gRPC metadata.
pub const HEADER: &str = "x-request-id";

/// Longer ids are cut, so that no client can fill the log.
const MAX_LEN: usize = 128;

/// See the module's first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(SmolStr);

impl RequestId {
    /// The client's `id`, else what its header says, else a new one, which no other request has.
    pub fn choose(id: &str, header: Option<&str>) -> RequestId {
        match (id, header) {
            ("", None | Some("")) => RequestId::make(),
            ("", Some(header)) => RequestId(cut(header)),
            (id, _) => RequestId(cut(id)),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sixteen hexadecimal digits: when this process made its first, and a count.
    fn make() -> RequestId {
        static START: LazyLock<u64> =
            LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        RequestId(hexadecimal(*START << 32 | next & 0xffff_ffff))
    }
}

/// All sixteen digits of `number`. Every request is given an id: the formatter's way costs ten times as much.
fn hexadecimal(number: u64) -> SmolStr {
    let mut digits = [0; 16];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        let value = usize::try_from(number >> (4 * place) & 0xf).expect("four bits fit");
        *digit = b"0123456789abcdef"[value];
    }
    SmolStr::new(std::str::from_utf8(&digits).expect("digits are ASCII"))
}

fn cut(id: &str) -> SmolStr {
    let mut end = id.len().min(MAX_LEN);
    while !id.is_char_boundary(end) {
        end -= 1;
    }
    SmolStr::new(&id[..end])
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_own_id_comes_first() {
        assert_eq!(RequestId::choose("a", Some("b")).as_str(), "a");
        assert_eq!(RequestId::choose("", Some("b")).as_str(), "b");
        let long = "é".repeat(100);
        assert_eq!(RequestId::choose(&long, None).as_str(), "é".repeat(64));
    }

    #[test]
    fn ids_made_here_differ() {
        let (one, two) = (RequestId::choose("", None), RequestId::choose("", Some("")));
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 16);
        for number in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(hexadecimal(number), format!("{number:016x}"));
        }
    }
}
