//! Objectives: what a run must meet, such as `p99<20ms,errors<0.1%,throughput>900/s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use hdrhistogram::Histogram;

use crate::measurement::Judged;
use crate::report::units;

/// Objectives that are all to be met.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Objectives {
    text: String,
    all: Vec<Objective>,
}

/// One bound on one measure.
#[derive(Clone, Debug, PartialEq)]
struct Objective {
    text: String,
    measure: Measure,
    bound: Bound,
    /// Nanoseconds, a share of 1, or requests each second, as the measure has it.
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    /// A percentile of the latency.
    Percentile(f64),
    /// The mean latency.
    Mean,
    /// The highest latency.
    Max,
    /// The share of requests that failed or were not answered.
    Errors,
    /// Requests answered well, each second.
    Throughput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// What a run has to be judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// Nanoseconds.
    pub(crate) latency: &'a Histogram<u64>,
    /// The share of requests that failed or were not answered, from 0 to 1.
    pub(crate) errors: f64,
    /// Requests answered well, each second.
    pub(crate) throughput: f64,
}

impl Objectives {
    /// Answers that a run should have, so that ten are beyond each percentile: fewer, and it is one chance event.
    pub(crate) fn samples(&self) -> u64 {
        self.all.iter().filter_map(|objective| objective.measure.samples()).max().unwrap_or_default()
    }

    /// Judges a run, objective by objective. A run without any latency meets no bound on latency.
    pub(crate) fn judge(&self, facts: &Facts<'_>) -> Vec<Judged> {
        self.all.iter().map(|objective| objective.judge(facts)).collect()
    }
}

impl fmt::Display for Objectives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Objectives {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Objectives> {
        let all = text.split(',').map(str::parse).collect::<anyhow::Result<_>>()?;
        Ok(Objectives { text: text.to_owned(), all })
    }
}

impl FromStr for Objective {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Objective> {
        let text = text.trim();
        let at = text.find(['<', '>']).ok_or_else(|| {
            anyhow!("{text:?} is no objective: write a measure, < or >, and a limit, as in p99<20ms")
        })?;
        let (measure, rest) = text.split_at(at);
        let (bound, limit) = match (rest.strip_prefix("<="), rest.strip_prefix(">=")) {
            (Some(limit), _) => (Bound::AtMost, limit),
            (_, Some(limit)) => (Bound::AtLeast, limit),
            _ if rest.starts_with('<') => (Bound::Below, &rest[1..]),
            _ => (Bound::Above, &rest[1..]),
        };
        let measure: Measure = measure.trim().parse()?;
        let limit = measure.limit(limit.trim())?;
        Ok(Objective { text: text.to_owned(), measure, bound, limit })
    }
}

impl FromStr for Measure {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Measure> {
        match text {
            "mean" => return Ok(Measure::Mean),
            "max" => return Ok(Measure::Max),
            "errors" => return Ok(Measure::Errors),
            "throughput" => return Ok(Measure::Throughput),
            _ => {}
        }
        let percentile =
            text.strip_prefix('p').filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
        let percentile = percentile.and_then(|digits| digits.parse::<f64>().ok());
        match percentile.filter(|percentile| (0.0..=100.0).contains(percentile)) {
            Some(percentile) => Ok(Measure::Percentile(percentile)),
            None => bail!(
                "{text:?} is no measure: there are p50, p99.9 (any percentile), mean, max, errors and throughput"
            ),
        }
    }
}

impl Measure {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, as wanted here"
    )]
    fn samples(self) -> Option<u64> {
        match self {
            // The highest of all has none beyond it.
            Measure::Percentile(percentile) if percentile < 100.0 => {
                Some((10.0 / (1.0 - percentile / 100.0) - 1e-6).ceil() as u64)
            }
            _ => None,
        }
    }

    fn limit(self, text: &str) -> anyhow::Result<f64> {
        let number = |digits: &str| {
            digits.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
        };
        match self {
            Measure::Percentile(_) | Measure::Mean | Measure::Max => {
                let limit = humantime::parse_duration(text).ok().or_else(|| fractional(text));
                limit.map(|limit| limit.as_secs_f64() * 1e9).ok_or_else(|| {
                    anyhow!("{text:?} is no duration: write a number with ns, us, ms, s or m, such as 20ms")
                })
            }
            Measure::Errors => {
                let share = match text.strip_suffix('%') {
                    Some(percent) => number(percent).map(|percent| percent / 100.0),
                    None => number(text),
                };
                share.filter(|share| *share <= 1.0).ok_or_else(|| {
                    anyhow!("{text:?} is no share of the requests: write a percentage, such as 0.1%")
                })
            }
            Measure::Throughput => number(text.strip_suffix("/s").unwrap_or(text))
                .ok_or_else(|| anyhow!("{text:?} is no rate: write requests each second, such as 900/s")),
        }
    }
}

/// A duration with a fraction, such as `1.5ms`.
fn fractional(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (digits, unit) = text.split_at(unit);
    let scale = match unit.trim() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * scale).ok()
}

impl Objective {
    #[expect(clippy::cast_precision_loss, reason = "durations below 104 days are exact")]
    fn judge(&self, facts: &Facts<'_>) -> Judged {
        let latency = match self.measure {
            Measure::Percentile(percentile) => facts.latency.value_at_percentile(percentile) as f64,
            Measure::Mean => facts.latency.mean(),
            Measure::Max => facts.latency.max() as f64,
            Measure::Errors => return self.judged(facts.errors, units::percent(facts.errors)),
            Measure::Throughput => {
                return self.judged(facts.throughput, format!("{}/s", units::number(facts.throughput)));
            }
        };
        if facts.latency.is_empty() {
            return Judged { objective: self.text.clone(), found: "no answer".to_owned(), met: false };
        }
        self.judged(latency, units::duration(latency / 1e3))
    }

    fn judged(&self, value: f64, found: String) -> Judged {
        let met = match self.bound {
            Bound::Below => value < self.limit,
            Bound::AtMost => value <= self.limit,
            Bound::Above => value > self.limit,
            Bound::AtLeast => value >= self.limit,
        };
        Judged { objective: self.text.clone(), found, met }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Latencies of 1 to 100 ms, one of each.
    fn latency() -> Histogram<u64> {
        let mut latency = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        (1..=100_u64).for_each(|millis| latency.record(millis * 1_000_000).unwrap());
        latency
    }

    #[track_caller]
    fn met(text: &str) -> Vec<bool> {
        let latency = latency();
        let facts = Facts { latency: &latency, errors: 0.01, throughput: 900.0 };
        let objectives: Objectives = text.parse().unwrap();
        objectives.judge(&facts).into_iter().map(|judged| judged.met).collect()
    }

    #[test]
    fn each_measure_is_held_to_its_bound() {
        assert_eq!(met("p99<100ms,p99<98ms"), [true, false]);
        assert_eq!(met("p50<=51ms , p50 > 49ms"), [true, true]);
        assert_eq!(met("p0.5<2ms,p100<0.09s,max<=0.11s"), [true, false, true]);
        assert_eq!(met("mean<51000us,mean<50000000ns"), [true, false]);
        assert_eq!(met("errors<1%,errors<=1%,errors<0.02"), [false, true, true]);
        assert_eq!(met("throughput>900/s,throughput>=900,throughput>899.5/s"), [false, true, true]);
    }

    /// As in the table beside it.
    #[test]
    fn what_was_found_has_the_units_of_the_table() {
        let latency = latency();
        let facts = Facts { latency: &latency, errors: 0.000_123, throughput: 12_345.6 };
        let objectives: Objectives = "p50<1s,errors<1%,throughput>9/s".parse().unwrap();
        let found: Vec<_> = objectives.judge(&facts).into_iter().map(|judged| judged.found).collect();
        assert_eq!(found, ["50.0 ms", "0.012 %", "12,346/s"]);
    }

    #[test]
    fn a_percentile_needs_ten_answers_beyond_it() {
        let samples = |text: &str| text.parse::<Objectives>().unwrap().samples();
        assert_eq!(samples("p50<1s"), 20);
        assert_eq!(samples("p99<1s"), 1_000);
        assert_eq!(samples("p99.9<1s,p50<1ms,errors<1%"), 10_000);
        assert_eq!(samples("p100<1s,max<1s,mean<1s,throughput>1/s"), 0);
    }

    #[test]
    fn durations_have_any_unit() {
        for text in ["20ms", "0.02s", "20000us", "20000µs", "20000000ns", "20.0ms"] {
            let objective: Objective = format!("p99<{text}").parse().unwrap();
            assert!((objective.limit - 2e7).abs() < 1.0, "{text}: {}", objective.limit);
        }
    }

    #[test]
    fn a_run_without_an_answer_meets_no_latency() {
        let empty = Histogram::new_with_bounds(1, 1_000, 3).unwrap();
        let facts = Facts { latency: &empty, errors: 1.0, throughput: 0.0 };
        let judged = "p99<1s".parse::<Objectives>().unwrap().judge(&facts);
        assert_eq!((judged[0].met, judged[0].found.as_str()), (false, "no answer"));
    }

    #[test]
    fn what_is_no_objective_is_refused_with_what_would_be() {
        for (text, words) in [
            ("", "is no objective"),
            ("p99", "write a measure, < or >"),
            ("p99=20ms", "is no objective"),
            ("p101<1ms", "\"p101\" is no measure"),
            ("p-1<1ms", "is no measure"),
            ("pinf<1ms", "is no measure"),
            ("latency<1ms", "is no measure"),
            ("p99<20", "\"20\" is no duration"),
            ("p99<ms", "is no duration"),
            ("p99<-1ms", "is no duration"),
            ("errors<200%", "is no share"),
            ("errors<x", "is no share"),
            ("throughput>fast", "is no rate"),
            ("throughput>NaN", "is no rate"),
            ("p99<1ms,", "is no objective"),
        ] {
            let error = text.parse::<Objectives>().unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = text.parse::<Objectives>();
            let _ = format!("p99<{text}").parse::<Objectives>();
        }

        #[test]
        fn below_and_at_least_are_opposites(limit in 0.0_f64..2000.0) {
            prop_assert_ne!(
                met(&format!("throughput<{limit}"))[0],
                met(&format!("throughput>={limit}"))[0]
            );
        }
    }
}
