//! What a reader should know before believing the figures.

use super::units;
use crate::measurement::{FoundRate, Measurement, Run};
use crate::slo::Objectives;

/// Latenesses below this, in microseconds, are the timer's and not worth a remark.
const NOTABLE_LAG_MICROS: f64 = 200.0;
/// The share of a latency that the generator may add before that is worth a remark.
const NOTABLE_LAG_SHARE: f64 = 0.1;

/// The share of the time that a thread of the generator may be busy, or wait for a processor, before that is worth one.
const NOTABLE_BUSY: f64 = 0.8;
const NOTABLE_WAITING: f64 = 0.1;

/// Everything worth a remark, a sentence each.
pub(crate) fn of(measurement: &Measurement) -> Vec<String> {
    let mut remarks: Vec<String> = measurement.runs.iter().filter_map(late).collect();
    remarks.extend(measurement.runs.iter().filter_map(busy));
    remarks.extend(measurement.runs.iter().filter_map(miscounted));
    remarks.extend(few(measurement));
    if let Some(reason) = &measurement.interrupted {
        remarks.push(format!(
            "The measurement ended early ({}); its last run may be partial.",
            units::plain(reason, 200)
        ));
    }
    remarks
}

/// When the generator, not the server, made requests wait.
fn late(run: &Run) -> Option<String> {
    let (lag, latency) = (&run.send_lag, &run.latency);
    let notable = lag.p99 > NOTABLE_LAG_MICROS && lag.p99 > NOTABLE_LAG_SHARE * latency.p99;
    notable.then(|| {
        format!(
            "{}: requests left up to {} late (99th percentile; at most {}), which is {} of the p99 latency: the \
             generator was short of processor time, and its figures say less about the server.",
            run_name(run),
            units::duration(lag.p99),
            units::duration(lag.max),
            if latency.p99 > 0.0 { units::percent(lag.p99 / latency.p99) } else { "all".to_owned() },
        )
    })
}

/// When the generator had no time left, or waited for a processor that something else had.
fn busy(run: &Run) -> Option<String> {
    let above = |share: Option<f64>, limit| share.filter(|share| *share > limit).map(units::percent);
    let busy = above(run.generator_busy, NOTABLE_BUSY);
    let waiting = above(run.generator_waiting, NOTABLE_WAITING);
    let what = match (busy, waiting) {
        (None, None) => return None,
        (Some(busy), None) => format!("a thread of the generator was busy {busy} of the time"),
        (None, Some(waiting)) => {
            format!("a thread of the generator waited {waiting} of the time for a processor that others had")
        }
        (Some(busy), Some(waiting)) => format!(
            "a thread of the generator was busy {busy} of the time, and waited {waiting} for a processor that others \
             had"
        ),
    };
    Some(format!(
        "{}: {what}: the rate may be the generator's limit, and latency has its waits; give it more --threads, or \
         processors of its own.",
        run_name(run)
    ))
}

/// When runs have too few answers for the percentiles they are judged by.
fn few(measurement: &Measurement) -> Option<String> {
    let needed = |run: &Run| {
        let texts = run.objectives.iter().map(|judged| judged.objective.as_str());
        texts.filter_map(|text| text.parse::<Objectives>().ok()).map(|objective| objective.samples()).max()
    };
    let few = measurement.runs.iter().filter(|run| needed(run) > Some(run.latency.count));
    let fewest = few.clone().min_by_key(|run| run.latency.count)?;
    Some(format!(
        "{} of {} runs have fewer answers than the percentiles of the objectives need, which is {} (ten beyond the \
         percentile): {} has {}. Their figures may be chance; measure longer with --duration.",
        few.count(),
        measurement.runs.len(),
        units::count(needed(fewest).unwrap_or_default()),
        run_name(fewest),
        units::count(fewest.latency.count),
    ))
}

/// When the server counted far fewer requests than were answered: another server answered them.
fn miscounted(run: &Run) -> Option<String> {
    let models = &run.server.as_ref()?.models;
    let counted: u64 = models.values().map(|model| model.requests + model.failures).sum();
    // In the measured time, as the server's counters are read then.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
    let answered = (run.requests_per_second * run.seconds).round() as u64;
    let few = !models.is_empty() && units::share(counted, answered) < 0.9 && answered >= 100;
    few.then(|| {
        format!(
            "{}: {} requests were answered, but the server's statistics count {}: several servers may share the \
             address, and then the server's figures are those of one of them.",
            run_name(run),
            units::count(answered),
            units::count(counted),
        )
    })
}

/// A run's load, and its repeat when it is not the first.
pub(crate) fn run_name(run: &Run) -> String {
    match run.repeat {
        0 => units::load(&run.load),
        repeat => format!("{} (repeat {})", units::load(&run.load), repeat + 1),
    }
}

/// What a search found, in one sentence.
pub(crate) fn found(found: &FoundRate) -> String {
    let objective = units::plain(&found.objective, 100);
    let decided = match found.repeats {
        0 | 1 => "one run at each rate, up to three where one missed".to_owned(),
        repeats => format!("the majority of {repeats} runs at each rate"),
    };
    let rate = |rate| format!("{}/s", units::short(rate));
    match (found.rate, found.missed_at) {
        (Some(met), Some(missed)) => {
            format!("{objective} holds up to {}, and not at {} ({decided}).", rate(met), rate(missed))
        }
        (Some(met), None) => {
            format!("{objective} holds at {}, the highest rate that was tried ({decided}).", rate(met))
        }
        (None, Some(missed)) => {
            format!(
                "{objective} does not hold even at {}, the lowest rate that was tried ({decided}).",
                rate(missed)
            )
        }
        (None, None) => format!("{objective}: no rate was tried."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::Judged;
    use crate::report::sample;

    #[test]
    fn lateness_is_worth_a_remark_when_it_could_change_the_picture() {
        let mut run = sample::run(&sample::closed(8), 1);
        run.latency.p99 = 5_000.0;
        run.send_lag.p99 = 400.0;
        assert_eq!(late(&run), None, "8 % of the latency");
        run.send_lag.p99 = 600.0;
        assert!(late(&run).unwrap().starts_with("8 in flight: requests left up to 600 µs late"));
        (run.latency.p99, run.send_lag.p99) = (500.0, 100.0);
        assert_eq!(late(&run), None, "a timer's lateness");
    }

    #[test]
    fn a_generator_without_time_is_told() {
        let mut run = sample::run(&sample::closed(8), 1);
        (run.generator_busy, run.generator_waiting) = (Some(0.79), Some(0.1));
        assert_eq!(busy(&run), None);
        run.generator_busy = Some(0.97);
        assert!(busy(&run).unwrap().contains("busy 97 % of the time: the rate may be the generator's limit"));
        (run.generator_busy, run.generator_waiting) = (None, Some(0.25));
        assert!(busy(&run).unwrap().contains("waited 25 % of the time for a processor"));
    }

    #[test]
    fn runs_that_are_too_short_for_a_percentile_are_told() {
        let mut measurement = sample::sweep(&[1, 8]);
        for run in &mut measurement.runs {
            let judged =
                |objective: &str| Judged { objective: objective.to_owned(), found: String::new(), met: true };
            run.objectives = vec![judged("p99.9<1s"), judged("errors<1%"), judged("keeps up with the rate")];
            run.latency.count = 10_000;
        }
        assert_eq!(few(&measurement), None);
        measurement.runs[1].latency.count = 9_999;
        let text = few(&measurement).unwrap();
        assert!(text.starts_with("1 of 2 runs have fewer answers") && text.contains("8 in flight has 9,999"));
    }

    #[test]
    fn a_server_that_counts_too_little_is_told() {
        let mut run = sample::run(&sample::closed(8), 1);
        assert_eq!(miscounted(&run), None);
        for model in run.server.as_mut().unwrap().models.values_mut() {
            model.requests /= 2;
        }
        assert!(miscounted(&run).is_some());
    }

    #[test]
    fn a_found_rate_says_between_what_the_limit_lies() {
        let mut rate = FoundRate {
            objective: "p99 < 10ms".to_owned(),
            rate: Some(850.0),
            missed_at: Some(900.0),
            repeats: 3,
        };
        let text = "p99 < 10ms holds up to 850/s, and not at 900/s (the majority of 3 runs at each rate).";
        assert_eq!(found(&rate), text);
        rate.rate = None;
        assert!(found(&rate).contains("does not hold even at 900/s"));
    }
}
