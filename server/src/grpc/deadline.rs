//! `grpc-timeout`: how long the client waits for an answer.

use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

/// When the client of a call that came at `arrived` stops waiting, if it said so. What is no timeout is none.
pub(super) fn deadline(metadata: &MetadataMap, arrived: Instant) -> Option<Instant> {
    arrived.checked_add(timeout(metadata.get("grpc-timeout")?.to_str().ok()?)?)
}

/// At most eight digits and a unit, as the gRPC specification has it ("Timeout" of PROTOCOL-HTTP2).
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_understood() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("4S", Duration::from_secs(4)),
            ("5m", Duration::from_millis(5)),
            ("6u", Duration::from_micros(6)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(timeout(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_timeout_is_none() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1é"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
