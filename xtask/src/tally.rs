//! How many tests passed and failed, as the runners themselves count.

use std::fmt;
use std::ops::AddAssign;

/// Counts of tests; a check that is not made of tests counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// One check.
    pub(crate) fn of(passed: bool) -> Tally {
        Tally { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    /// Adds the counts in `line` if it is a summary of `cargo test` or `cargo nextest`, which look like
    /// `test result: FAILED. 5 passed; 1 failed; 0 ignored` and
    /// `Summary [ 0.1s] 7 tests run: 5 passed (1 slow), 1 failed, 1 timed out, 0 skipped`.
    pub(crate) fn read_rust(&mut self, line: &str) {
        let line = without_colours(line);
        // Nextest shows the output of a failed test indented, and that has a result of its own.
        let counts = match line.strip_prefix("test result:") {
            Some(counts) => counts,
            None if line.trim_start().starts_with("Summary [") => line.rsplit(':').next().unwrap_or_default(),
            None => return,
        };
        for count in counts.split([',', ';', '.']) {
            let Some((number, verdict)) = count.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match verdict {
                _ if verdict.starts_with("passed") => self.passed += number,
                "failed" | "exec failed" | "timed out" => self.failed += number,
                _ => {}
            }
        }
    }

    /// The counts in a JUnit report as pytest writes it; skipped tests count as neither.
    pub(crate) fn from_junit(report: &str) -> Option<Tally> {
        let suite = report.split("<testsuite ").nth(1)?.split('>').next()?;
        let attribute = |name: &str| -> Option<u64> {
            let (_, rest) = suite.split_once(&format!("{name}=\""))?;
            rest.split('"').next()?.parse().ok()
        };
        let failed = attribute("failures")? + attribute("errors")?;
        let passed = attribute("tests")?.checked_sub(failed + attribute("skipped")?)?;
        Some(Tally { passed, failed })
    }

    /// True when nothing was tested.
    pub(crate) fn is_empty(self) -> bool {
        self == Tally::default()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// `line` without the escape sequences that colour it.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let plain = parts.next().unwrap_or_default().to_owned();
    parts.fold(plain, |plain, part| plain + part.split_once('m').map_or("", |(_, text)| text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lines: &[&str]) -> (u64, u64) {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.read_rust(line));
        (tally.passed, tally.failed)
    }

    #[test]
    fn cargo_test_counts_each_binary() {
        let ok =
            "test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.04s";
        let bad = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.00s\n";
        assert_eq!(counted(&[ok, "running 7 tests", bad]), (8, 2));
    }

    #[test]
    fn nextest_counts_once_in_its_summary() {
        assert_eq!(
            counted(&["     Summary [   0.005s] 9 tests run: 9 passed (1 slow), 4 skipped\n"]),
            (9, 0)
        );
        let coloured = "\u{1b}[31;1m     Summary\u{1b}[0m [   1.5s] \u{1b}[1m9\u{1b}[0m/12 tests run: \
                        \u{1b}[1m5\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m3\u{1b}[0m \
                        \u{1b}[31;1mfailed\u{1b}[0m, 1 timed out, 1 exec failed, 0 skipped";
        assert_eq!(counted(&[coloured]), (5, 5));
    }

    #[test]
    fn a_failed_test_shown_by_nextest_is_not_counted_twice() {
        let shown = "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 13 filtered out";
        let summary = "     Summary [   8.211s] 162 tests run: 159 passed, 1 failed, 2 skipped";
        assert_eq!(counted(&[shown, summary]), (159, 1));
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(
            counted(&["", "9 passed", "test a ... ok", "error: 3 failed", "Summary of it: 5 passed"]),
            (0, 0)
        );
    }

    #[test]
    fn pytest_counts_in_its_report() {
        let report = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="0.5"><testcase name="a"/></testsuite></testsuites>"#;
        assert_eq!(Tally::from_junit(report), Some(Tally { passed: 4, failed: 3 }));
        assert_eq!(Tally::from_junit("<testsuite tests=\"x\">"), None);
        assert_eq!(Tally::from_junit(""), None);
    }

    #[test]
    fn the_last_line_is_the_total() {
        let mut total = Tally::of(true);
        total += Tally::of(false);
        total += Tally { passed: 40, failed: 0 };
        assert_eq!(total.to_string(), "41 passed, 1 failed");
    }
}
