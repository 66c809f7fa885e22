//! What a reader should know before believing the figures.

use std::collections::BTreeSet;

use super::{generator, units};
use crate::measurement::{FoundRate, Measurement, Run};
use crate::slo::Objectives;

/// Everything worth a remark, a sentence each.
pub(crate) fn of(measurement: &Measurement) -> Vec<String> {
    let mut remarks: Vec<String> = generator::remarks(measurement).collect();
    remarks.extend(miscounted(&measurement.runs));
    remarks.extend(few(measurement));
    remarks.extend(late(&measurement.runs));
    remarks.extend(silent(&measurement.runs));
    if let Some(reason) = &measurement.interrupted {
        let judged = measurement.command.iter().any(|word| word.starts_with("--slo"));
        let judged = if judged { ", and then is not judged by its objectives" } else { "" };
        remarks.push(format!(
            "The measurement ended early ({}); its last run may be partial{judged}.",
            units::plain(reason, 200)
        ));
    }
    remarks
}

/// When runs have too few answers for the percentiles they are judged by.
fn few(measurement: &Measurement) -> Option<String> {
    let needed = |run: &Run| {
        let texts = run.objectives.iter().map(|judged| judged.objective.as_str());
        texts.filter_map(|text| text.parse::<Objectives>().ok()).map(|objective| objective.samples()).max()
    };
    let few = measurement.runs.iter().filter(|run| needed(run) > Some(run.latency.count));
    let fewest = few.clone().min_by_key(|run| run.latency.count)?;
    let (needed, has) = (needed(fewest).unwrap_or_default(), fewest.latency.count);
    let (needed, has, fewest) = (units::count(needed), units::count(has), run_name(fewest));
    let why = "than the percentiles of the objectives need";
    Some(match few.count() {
        1 => format!(
            "{fewest} has fewer answers {why}: {has}, not {needed} (ten beyond the percentile). Its figures may be \
             chance; measure longer with --duration."
        ),
        count => format!(
            "{count} of {} runs have fewer answers {why}, which is {needed} (ten beyond the percentile): {fewest} has \
             {has}. Their figures may be chance; measure longer with --duration.",
            measurement.runs.len(),
        ),
    })
}

/// When runs have right answers, and all of them came after the measured time.
fn late(runs: &[Run]) -> Option<String> {
    let late = |run: &&Run| run.requests_per_second <= 0.0 && run.requests > run.failed();
    let late: Vec<&Run> = runs.iter().filter(late).collect();
    (!late.is_empty()).then(|| {
        format!(
            "{}: nothing was answered within the measured time, only after it; measure longer with --duration.",
            names(&late, runs)
        )
    })
}

/// The models of a mix that answered no request well, each once.
fn silent(runs: &[Run]) -> Vec<String> {
    let models: BTreeSet<&String> = runs.iter().flat_map(|run| run.silent_models.keys()).collect();
    let remark = |name: &String| {
        let silent: Vec<&Run> = runs.iter().filter(|run| run.silent_models.contains_key(name)).collect();
        let error = silent.first().map_or("", |run| &run.silent_models[name]);
        format!(
            "{}: no request of {} was answered well; the first: {}.",
            names(&silent, runs),
            units::plain(name, 100),
            units::plain(error, 200)
        )
    };
    models.into_iter().map(remark).collect()
}

/// When the server counted far fewer requests than were answered: another server answered them.
fn miscounted(runs: &[Run]) -> Option<String> {
    let miscounted: Vec<&Run> = runs.iter().filter(|run| counts(run).is_some_and(few_counted)).collect();
    let counts: Vec<(u64, u64)> = miscounted.iter().filter_map(|run| counts(run)).collect();
    let sum = |of: fn(&(u64, u64)) -> u64| units::count(counts.iter().map(of).sum());
    (!miscounted.is_empty()).then(|| {
        format!(
            "{}: {} requests were answered, but the server's statistics count {}: several servers may share the \
             address, and then the server's figures are those of one of them.",
            names(&miscounted, runs),
            sum(|(answered, _)| *answered),
            sum(|(_, counted)| *counted),
        )
    })
}

/// Requests that were answered in the measured time, and those that the server counted in it, when it tells.
fn counts(run: &Run) -> Option<(u64, u64)> {
    let models = &run.server.as_ref()?.models;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
    let answered = (run.requests_per_second * run.seconds).round() as u64;
    let counted = models.values().map(|model| model.requests + model.failures).sum();
    (!models.is_empty()).then_some((answered, counted))
}

fn few_counted((answered, counted): (u64, u64)) -> bool {
    units::share(counted, answered) < 0.9 && answered >= 100
}

/// The runs concerned, of all: the name of the only one, else how many, and at which loads.
pub(super) fn names(concerned: &[&Run], all: &[Run]) -> String {
    match concerned {
        [only] => run_name(only),
        _ => {
            let mut names: Vec<String> = concerned.iter().map(|run| units::load(&run.load)).collect();
            // Repeats follow each other.
            names.dedup();
            let which = if concerned.len() == all.len() { "all" } else { &format!("{} of", concerned.len()) };
            format!("{which} {} runs ({})", all.len(), units::some_of(&names))
        }
    }
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
    if found.cut_off {
        let met =
            found.rate.map_or_else(|| "no rate met it yet".to_owned(), |met| format!("{} met it", rate(met)));
        let missed =
            found.missed_at.map(|missed| format!(", {} missed it", rate(missed))).unwrap_or_default();
        return format!("{objective}: {met}{missed}; the search was cut off before it was done.");
    }
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
        assert!(
            text.starts_with("8 in flight has fewer answers") && text.contains("need: 9,999, not 10,000")
        );
        measurement.runs[0].latency.count = 9_000;
        let text = few(&measurement).unwrap();
        assert!(text.starts_with("2 of 2 runs have fewer answers") && text.contains("1 in flight has 9,000"));
    }

    #[test]
    fn answers_that_all_come_late_are_told() {
        let mut runs = sample::sweep(&[4, 8]).runs;
        assert_eq!(late(&runs), None);
        runs[1].requests_per_second = 0.0;
        let text = late(&runs).unwrap();
        assert!(text.starts_with("8 in flight: nothing was answered within the measured time"), "{text}");
        // It has no answers at all, which is an error of its own.
        assert_eq!(late(&sample::errors_only().runs), None);
    }

    #[test]
    fn a_model_that_answers_nothing_is_told_once() {
        let mut runs = sample::sweep(&[4, 8]).runs;
        assert_eq!(silent(&runs), [] as [String; 0]);
        for run in &mut runs {
            run.silent_models.insert("simple".to_owned(), "status 503: not ready".to_owned());
        }
        let text = "all 2 runs (4 in flight and 8 in flight): no request of simple was answered well; the first: \
                    status 503: not ready.";
        assert_eq!(silent(&runs), [text]);
    }

    #[test]
    fn a_server_that_counts_too_little_is_told_once() {
        let mut runs = sample::sweep(&[4, 8, 16]).runs;
        assert_eq!(miscounted(&runs), None);
        for run in &mut runs[1..] {
            run.server.as_mut().unwrap().models.values_mut().for_each(|model| model.requests /= 2);
        }
        let text = miscounted(&runs).unwrap();
        assert!(text.starts_with("2 of 3 runs (8 in flight and 16 in flight): "), "{text}");
        assert!(miscounted(&runs[1..2]).unwrap().starts_with("8 in flight: 116,863 requests were answered"));
    }

    #[test]
    fn a_found_rate_says_between_what_the_limit_lies() {
        let mut rate = FoundRate {
            objective: "p99 < 10ms".to_owned(),
            rate: Some(850.0),
            missed_at: Some(900.0),
            repeats: 3,
            cut_off: false,
        };
        let text = "p99 < 10ms holds up to 850/s, and not at 900/s (the majority of 3 runs at each rate).";
        assert_eq!(found(&rate), text);
        rate.rate = None;
        assert!(found(&rate).contains("does not hold even at 900/s"));
        rate.cut_off = true;
        let text =
            "p99 < 10ms: no rate met it yet, 900/s missed it; the search was cut off before it was done.";
        assert_eq!(found(&rate), text);
        (rate.rate, rate.missed_at) = (Some(100.0), None);
        assert!(found(&rate).starts_with("p99 < 10ms: 100/s met it; the search was cut off"));
    }
}
