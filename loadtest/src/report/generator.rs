//! Whether the generator, and not the server, may be what was measured: one remark over all runs concerned.

use super::remarks::{names, run_name};
use super::units;
use crate::measurement::{Measurement, Run};

/// Latenesses below this, in microseconds, are the timer's and not worth a remark.
const NOTABLE_LAG_MICROS: f64 = 200.0;
/// The share of a latency that the generator may add before that is worth a remark.
const NOTABLE_LAG_SHARE: f64 = 0.1;
/// The share of the time that a thread of the generator may be busy, or wait for a processor, before that is worth one.
const NOTABLE_BUSY: f64 = 0.8;
const NOTABLE_WAITING: f64 = 0.1;
/// A machine with less than this left, in cores, has none for another thread.
const SPARE_CORES: f64 = 0.5;

/// What is worth a remark, a sentence or two each.
pub(super) fn remarks(measurement: &Measurement) -> impl Iterator<Item = String> {
    [late(&measurement.runs), busy(measurement)].into_iter().flatten()
}

/// When the generator, not the server, made requests wait.
fn late(runs: &[Run]) -> Option<String> {
    let notable = |run: &&Run| {
        run.send_lag.p99 > NOTABLE_LAG_MICROS && run.send_lag.p99 > NOTABLE_LAG_SHARE * run.latency.p99
    };
    let late: Vec<&Run> = runs.iter().filter(notable).collect();
    let worst = *late.iter().max_by(|a, b| a.send_lag.p99.total_cmp(&b.send_lag.p99))?;
    let (lag, latency) = (&worst.send_lag, &worst.latency);
    let of_which = if late.len() > 1 { format!("at {}, ", run_name(worst)) } else { String::new() };
    Some(format!(
        "{}: requests left up to {} late ({of_which}99th percentile; at most {}), which is {} of the p99 latency: the \
         generator was short of processor time, and its figures say less about the server.",
        names(&late, runs),
        units::duration(lag.p99),
        units::duration(lag.max),
        if latency.p99 > 0.0 { units::percent(lag.p99 / latency.p99) } else { "all".to_owned() },
    ))
}

/// When the generator had no time left, or waited for a processor that something else had.
fn busy(measurement: &Measurement) -> Option<String> {
    let most = |runs: &[&Run], share: fn(&Run) -> Option<f64>, limit: f64| {
        let most = runs.iter().filter_map(|run| share(run)).max_by(f64::total_cmp);
        most.filter(|share| *share > limit)
    };
    let of = |runs: &[&Run]| {
        (
            most(runs, |run| run.generator_busy, NOTABLE_BUSY),
            most(runs, |run| run.generator_waiting, NOTABLE_WAITING),
        )
    };
    let concerned: Vec<&Run> = measurement.runs.iter().filter(|run| of(&[run]) != (None, None)).collect();
    let what = match of(&concerned) {
        (None, None) => return None,
        (Some(busy), None) => format!("was busy {} of the time", units::percent(busy)),
        (None, Some(waiting)) => {
            format!("waited {} of the time for a processor that others had", units::percent(waiting))
        }
        (Some(busy), Some(waiting)) => format!(
            "was busy {} of the time, and waited {} for a processor that others had",
            units::percent(busy),
            units::percent(waiting)
        ),
    };
    let up_to = if concerned.len() > 1 { ", in the worst of them" } else { "" };
    Some(format!(
        "{}: a thread of the generator {what}{up_to}: the rate may be the generator's limit, and latency has its waits. {}",
        names(&concerned, &measurement.runs),
        advice(measurement, &concerned)
    ))
}

/// Another thread helps where a core is left for it; where none is, only what leaves more of them.
fn advice(measurement: &Measurement, concerned: &[&Run]) -> String {
    let cores = measurement.machine.cores;
    let waited = concerned.iter().any(|run| run.generator_waiting > Some(NOTABLE_WAITING));
    #[expect(clippy::cast_precision_loss, reason = "there are few cores")]
    let full = concerned.iter().any(|run| cores_used(run) > cores as f64 - SPARE_CORES);
    let unthreaded = measurement.machine.threads.is_none_or(|threads| threads < cores);
    if !waited && !full && unthreaded {
        let threads = measurement.machine.threads.map_or_else(String::new, |threads| {
            format!(": {threads} of {cores} cores {} used", if threads == 1 { "is" } else { "are" })
        });
        return format!("Give it more --threads{threads}.");
    }
    let machine = if cores == 1 { "the one core".to_owned() } else { format!("all {cores} cores") };
    format!(
        "This machine has no core left ({machine} had work): send from another one, or run less on this one."
    )
}

/// Cores that the generator and a server on the same machine used, as far as they are known.
fn cores_used(run: &Run) -> f64 {
    let server = run.server.as_ref().and_then(|server| server.cpu_micros_per_request).unwrap_or(0.0);
    run.requests_per_second * (server + run.generator_cpu_micros) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn lateness_is_worth_a_remark_when_it_could_change_the_picture() {
        let mut run = sample::run(&sample::closed(8), 1);
        let mut late = |latency, lag| {
            (run.latency.p99, run.send_lag.p99) = (latency, lag);
            late(std::slice::from_ref(&run))
        };
        assert_eq!(late(5_000.0, 400.0), None, "8 % of the latency");
        assert!(
            late(5_000.0, 600.0).unwrap().starts_with("8 in flight: requests left up to 600 µs late (99th")
        );
        assert_eq!(late(500.0, 100.0), None, "a timer's lateness");
    }

    #[test]
    fn many_late_runs_are_one_remark() {
        let mut measurement = sample::sweep(&[1, 2, 4]);
        for (run, lag) in measurement.runs.iter_mut().zip([0.0, 9e4, 8e4]) {
            run.send_lag.p99 = lag;
        }
        let text = late(&measurement.runs).unwrap();
        assert!(text.starts_with(
            "2 of 3 runs (2 in flight and 4 in flight): requests left up to 90.0 ms late (at 2 in"
        ));
    }

    /// A measurement of runs with these shares, on a machine of so many cores.
    fn measured(shares: &[(f64, f64)], (threads, cores): (usize, usize)) -> Measurement {
        let mut measurement = sample::of(&vec![sample::closed(8); shares.len()], 1);
        (measurement.machine.threads, measurement.machine.cores) = (Some(threads), cores);
        for (run, (busy, waiting)) in measurement.runs.iter_mut().zip(shares) {
            (run.generator_busy, run.generator_waiting) = (Some(*busy), Some(*waiting));
        }
        measurement
    }

    #[test]
    fn a_generator_without_time_is_told_once() {
        assert_eq!(busy(&measured(&[(0.79, 0.1)], (1, 8))), None);
        let text = busy(&measured(&[(0.97, 0.01)], (1, 8))).unwrap();
        assert!(
            text.starts_with(
                "8 in flight: a thread of the generator was busy 97 % of the time: the rate may"
            )
        );
        assert!(text.ends_with("Give it more --threads: 1 of 8 cores is used."), "{text}");
        let text = busy(&measured(&[(0.97, 0.01), (0.5, 0.01), (0.85, 0.25)], (1, 8))).unwrap();
        assert!(text.starts_with("2 of 3 runs (8 in flight): a thread of the generator was busy 97 % of"));
        assert!(
            text.contains("and waited 25 % for a processor that others had, in the worst of them: "),
            "{text}"
        );
    }

    #[test]
    fn more_threads_are_advised_where_cores_are_left() {
        let advice = |measurement: &Measurement| busy(measurement).unwrap();
        let none_left = "This machine has no core left";
        assert!(advice(&measured(&[(0.9, 0.2)], (1, 8))).contains(none_left), "it waited for one");
        assert!(
            advice(&measured(&[(0.9, 0.0)], (8, 8))).contains("(all 8 cores had work)"),
            "it has them all"
        );
        assert!(advice(&measured(&[(0.9, 0.0)], (1, 1))).contains("the one core had work"));
        let mut beside_the_server = measured(&[(0.9, 0.0)], (1, 2));
        assert!(advice(&beside_the_server).contains("--threads: 1 of 2 cores"));
        let run = &mut beside_the_server.runs[0];
        let server = run.server.as_mut().unwrap();
        server.cpu_micros_per_request = Some(1e6 / run.requests_per_second);
        run.generator_cpu_micros = 0.9e6 / run.requests_per_second;
        assert!(advice(&beside_the_server).contains(none_left), "the server has the other");
        beside_the_server.machine.threads = None;
        beside_the_server.runs[0].server = None;
        assert!(
            advice(&beside_the_server).ends_with("Give it more --threads."),
            "an older file does not tell"
        );
    }
}
