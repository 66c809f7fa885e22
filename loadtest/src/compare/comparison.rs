//! Two measurements side by side: the loads that both have, and what else differs.

use super::figure::{Evidence, Figure, Metric, Verdict};
use crate::measurement::{Load, Measurement, Run};
use crate::report::loads::{LoadRuns, by_load};
use crate::report::{remarks, units};

/// Two measurements, load by load.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    pub(super) loads: Vec<LoadComparison<'a>>,
    /// Sentences on what a reader should know: differences beside the one that is compared, loads left out.
    pub(super) notes: Vec<String>,
}

/// The runs of both at one load.
#[derive(Debug)]
pub(super) struct LoadComparison<'a> {
    pub(super) load: &'a Load,
    pub(super) before: Vec<&'a Run>,
    pub(super) after: Vec<&'a Run>,
    /// Those that one of the two has, at least.
    pub(super) figures: Vec<Figure>,
}

impl<'a> Comparison<'a> {
    /// Compares `after` with `before`.
    pub(super) fn of(before: &'a Measurement, after: &'a Measurement) -> Comparison<'a> {
        let (a, b) = (by_load(&before.runs), by_load(&after.runs));
        let mut notes = differences(before, after);
        let mut loads = Vec::new();
        for runs in &a {
            if let Some(other) = b.iter().find(|other| other.load == runs.load) {
                loads.push(LoadComparison::of(runs, other));
            }
        }
        notes.extend(only_in("A", &a, &b));
        notes.extend(only_in("B", &b, &a));
        notes.extend(noise_note(&loads));
        notes.extend(unknown_note(&loads));
        for (side, measurement) in [("A", before), ("B", after)] {
            notes.extend(remarks::of(measurement).into_iter().map(|remark| format!("{side}: {remark}")));
        }
        Comparison { loads, notes }
    }
}

impl<'a> LoadComparison<'a> {
    fn of(before: &LoadRuns<'a>, after: &LoadRuns<'a>) -> LoadComparison<'a> {
        let (before, after, load) = (before.runs.clone(), after.runs.clone(), before.load);
        let figures = Metric::ALL.map(|metric| Figure::of(metric, &before, &after));
        let known = |figure: &Figure| figure.before.is_some() || figure.after.is_some();
        let figures = figures.into_iter().filter(known).collect();
        LoadComparison { load, before, after, figures }
    }
}

/// What differs beside the figures, and may explain them.
fn differences(before: &Measurement, after: &Measurement) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |what: &str, a: String, b: String| {
        if a != b {
            let (a, b) = (units::plain(&a, 120), units::plain(&b, 120));
            notes.push(format!(
                "Not only the server may explain a difference: {what} is {a} in A and {b} in B."
            ));
        }
    };
    let models = |measurement: &Measurement| {
        let each = measurement
            .target
            .models
            .iter()
            .map(|(name, share)| format!("{name} {}", units::percent(*share)));
        each.collect::<Vec<_>>().join(", ")
    };
    let machine = |measurement: &Measurement| {
        let machine = &measurement.machine;
        format!("{}, {} cores, {}", machine.cpu, machine.cores, machine.system)
    };
    let bytes = |measurement: &Measurement| units::bytes(measurement.target.request_bytes);
    note("the protocol", before.target.protocol.clone(), after.target.protocol.clone());
    note("what is asked", models(before), models(after));
    note("the size of a request", bytes(before), bytes(after));
    note("the generator's machine", machine(before), machine(after));
    let threads = |measurement: &Measurement| measurement.machine.threads;
    if let Some((a, b)) = threads(before).zip(threads(after)) {
        note("the number of the generator's threads", a.to_string(), b.to_string());
    }
    note("the generator's version", before.machine.generator.clone(), after.machine.generator.clone());
    notes
}

fn only_in(side: &str, these: &[LoadRuns<'_>], others: &[LoadRuns<'_>]) -> Option<String> {
    let alone = these.iter().filter(|runs| others.iter().all(|other| other.load != runs.load));
    let names: Vec<String> = alone.map(|runs| units::load(runs.load)).collect();
    (!names.is_empty()).then(|| format!("Only {side} has: {}.", units::some_of(&names)))
}

/// What the intervals were made from, and what that cannot show.
fn noise_note(loads: &[LoadComparison<'_>]) -> Option<String> {
    let changes = || loads.iter().flat_map(|load| &load.figures).filter_map(|figure| figure.change.as_ref());
    let some = |evidence| changes().any(|change| change.evidence == evidence);
    if some(Evidence::Seconds) {
        return Some(
            "A load was measured once on one side or both, so the noise was judged by how the seconds of a run \
             differ (in stretches of up to a tenth of it). What differs from one start of a server to the next \
             is not seen: repeat each load to be sure."
                .to_owned(),
        );
    }
    some(Evidence::Repeats).then(|| {
        "The noise was judged by how repeats of a load differ (Welch's method). With many figures, one of twenty \
         leaves its 95 % interval by chance."
            .to_owned()
    })
}

/// Why the noise of some figures is not known, and what would tell.
fn unknown_note(loads: &[LoadComparison<'_>]) -> Option<String> {
    let figures = loads.iter().flat_map(|load| &load.figures);
    let changed = figures.filter(|figure| figure.change.is_some());
    let unknown: Vec<_> = changed.filter(|figure| figure.verdict() == Verdict::Unknown).collect();
    let seconds = unknown.iter().any(|figure| figure.metric.has_seconds());
    let enough = if seconds {
        "req/s, p50 and p99 need 5 s with answers in each, or --repeats 2; what is not there for each second needs \
         --repeats 2"
    } else {
        "what is not there for each second needs --repeats 2"
    };
    (!unknown.is_empty()).then(|| {
        format!("Noise is unknown where nothing shows how a figure scatters: {enough}, on both sides.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn unknown_noise_is_explained() {
        let whole = sample::sweep(&[1]);
        let mut slower = whole.clone();
        slower.runs[0].latency.p99_9 *= 2.0;
        slower.runs[0].requests_per_second /= 2.0;
        let note = |a: &Measurement, b: &Measurement| unknown_note(&Comparison::of(a, b).loads);
        assert_eq!(note(&whole, &whole), None);
        assert!(
            note(&whole, &slower)
                .unwrap()
                .contains("scatters: what is not there for each second needs --repeats 2, on both")
        );
        slower.runs[0].timeline.truncate(4);
        assert!(note(&whole, &slower).unwrap().contains("need 5 s"));
        let often = sample::of(&[sample::closed(1)], 2);
        assert_eq!(note(&often, &often), None);
    }

    #[test]
    fn loads_are_matched_whatever_their_order() {
        let before = sample::sweep(&[1, 2, 8]);
        let after = sample::of(&[sample::closed(8), sample::closed(16), sample::closed(1)], 2);
        let found = Comparison::of(&before, &after);
        let loads: Vec<_> = found.loads.iter().map(|load| units::load(load.load)).collect();
        assert_eq!(loads, ["1 in flight", "8 in flight"]);
        assert_eq!((found.loads[0].before.len(), found.loads[0].after.len()), (1, 2));
        assert!(found.notes.contains(&"Only A has: 2 in flight.".to_owned()), "{:?}", found.notes);
        assert!(found.notes.contains(&"Only B has: 16 in flight.".to_owned()), "{:?}", found.notes);
    }

    #[test]
    fn what_else_differs_is_said() {
        let before = sample::sweep(&[1]);
        let mut after = before.clone();
        assert_eq!(differences(&before, &after), [] as [String; 0]);
        after.target.protocol = "grpc".to_owned();
        after.machine.cores = 2;
        let notes = differences(&before, &after);
        assert_eq!(notes.len(), 2);
        assert!(notes[0].contains("the protocol is http-binary in A and grpc in B"), "{notes:?}");
    }

    #[test]
    fn one_run_a_load_is_said_not_to_be_enough() {
        let once = sample::sweep(&[1]);
        let note = |a, b| noise_note(&Comparison::of(a, b).loads).unwrap();
        assert!(note(&once, &once).contains("repeat each load"));
        let often = sample::of(&[sample::closed(1)], 3);
        assert!(note(&often, &often).contains("Welch"));
    }
}
