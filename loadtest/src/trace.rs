//! A file of times at which requests once came, to be sent at those times again.

use anyhow::{Context, bail, ensure};

/// Seconds of a trace, as of any other run.
const LONGEST: f64 = 30.0 * 86_400.0;

/// The times in `text`, one a line, in nanoseconds from the earliest; `speed` 2 plays them twice as fast.
///
/// A line is a number of seconds, alone or as the first field of CSV, or a JSON object with a `timestamp`. A first
/// line without a number is a heading.
///
/// # Errors
/// When a line has no time, or no line has.
pub(crate) fn read(text: &str, speed: f64) -> anyhow::Result<Vec<u64>> {
    ensure!(speed.is_finite() && speed > 0.0, "a speed of {speed} plays nothing; give a positive number");
    let mut times = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match seconds(line) {
            Some(at) => times.push(at),
            None if number == 0 && !line.starts_with('{') => {}
            None => bail!("line {} is {line:?}; write one time in seconds on each line", number + 1),
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    let first = *times.first().context("it holds no time; write one time in seconds on each line")?;
    let last = times.last().copied().unwrap_or(first);
    ensure!(
        (last - first) / speed <= LONGEST,
        "its times span more than 30 days; are they seconds? --trace-speed 1000 plays milliseconds"
    );
    Ok(times.iter().map(|at| nanos((at - first) / speed)).collect())
}

fn seconds(line: &str) -> Option<f64> {
    let at = if line.starts_with('{') {
        let object: serde_json::Value = serde_json::from_str(line).ok()?;
        ["timestamp", "time", "at"].iter().find_map(|key| object.get(key)?.as_f64())
    } else {
        line.split([',', ';', '\t']).next()?.trim().trim_matches('"').parse().ok()
    };
    at.filter(|at| at.is_finite())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, as wanted here")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_forms_people_have() {
        let millis = |text| read(text, 1.0).unwrap().iter().map(|at| at / 1_000_000).collect::<Vec<_>>();
        assert_eq!(millis("0.5\n1\n\n1.25\n"), [0, 500, 750]);
        assert_eq!(millis("time,user\n10.5,a\n10,b\n"), [0, 500], "sorted, from the earliest");
        assert_eq!(millis("{\"timestamp\":1700000000.0}\n{\"timestamp\":1700000002.0}"), [0, 2000]);
        assert_eq!(read("0\n3", 2.0).unwrap(), [0, 1_500_000_000]);
    }

    #[test]
    fn a_file_without_times_is_refused() {
        for (text, words) in [
            ("", "it holds no time"),
            ("a\nb", "line 2 is \"b\""),
            ("1\ninf", "line 2"),
            ("{\"x\":1}", "line 1"),
        ] {
            let error = read(text, 1.0).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        assert!(read("1", 0.0).is_err());
    }
}
