//! What the threads of one run saw as one [`Run`].

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::errors::Errors;
use crate::measurement::{Latency, Load, Run, Second};
use crate::pace::Pace;
use crate::recorder::{OfModel, Piece, Tally, histogram};
use crate::slo::{Facts, Objectives};

/// Seconds of a run put together from what each thread saw.
#[derive(Debug)]
pub(crate) struct Timeline {
    threads: usize,
    total: Histogram<u64>,
    /// Those that some threads have not handed over yet.
    open: BTreeMap<usize, (usize, Piece)>,
    done: BTreeMap<usize, Second>,
}

impl Timeline {
    pub(crate) fn new(threads: usize) -> Timeline {
        Timeline { threads, total: histogram(), open: BTreeMap::new(), done: BTreeMap::new() }
    }

    /// Adds what one thread saw in one second. Gives that second when all threads have told of it.
    pub(crate) fn add(&mut self, piece: Piece) -> Option<&Second> {
        self.total += &piece.latency;
        let index = piece.index;
        let (told, sum) = match self.open.remove(&index) {
            None => (1, piece),
            Some((told, mut sum)) => {
                sum.latency += &piece.latency;
                sum.requests += piece.requests;
                sum.errors += piece.errors;
                (told + 1, sum)
            }
        };
        if told < self.threads {
            self.open.insert(index, (told, sum));
            return None;
        }
        self.done.insert(index, second(&sum));
        self.done.get(&index)
    }

    /// All latencies, and the seconds in which something happened or would have.
    fn finish(mut self, seconds: f64) -> (Histogram<u64>, Vec<Second>) {
        for (index, (_, piece)) in std::mem::take(&mut self.open) {
            self.done.insert(index, second(&piece));
        }
        let within = |second: &Second| second.at + 0.001 < seconds || second.requests > 0;
        (self.total, self.done.into_values().filter(within).collect())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a run has fewer than 2^53 seconds")]
fn second(piece: &Piece) -> Second {
    let at = |percentile| micros(piece.latency.value_at_percentile(percentile));
    let (p50_micros, p99_micros) = if piece.latency.is_empty() { (0.0, 0.0) } else { (at(50.0), at(99.0)) };
    Second { at: piece.index as f64, requests: piece.requests, errors: piece.errors, p50_micros, p99_micros }
}

/// What was measured of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Time measured, without the warm-up.
    pub(crate) seconds: f64,
    /// Time of load before.
    pub(crate) warmup: f64,
    /// Whether it ended when it was to, and not early.
    pub(crate) whole: bool,
    /// Whether a number of requests ended it, and no time.
    pub(crate) counted: bool,
}

/// The threads of one run put together.
pub(crate) fn run(
    (load, repeat): (Load, usize),
    tallies: &[Tally],
    timeline: Timeline,
    window: Window,
    objectives: Option<&Objectives>,
) -> Run {
    let seconds = window.seconds;
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    let (latency, timeline) = timeline.finish(seconds);
    let mut send_lag = histogram();
    let mut errors = Errors::default();
    for tally in tallies {
        send_lag += &tally.send_lag;
        errors.merge(&tally.errors);
    }
    let per_second = |count: u64| if seconds > 0.0 { precise(count) / seconds } else { 0.0 };
    let most = |share: fn(&Tally) -> Option<f64>| tallies.iter().filter_map(share).max_by(f64::total_cmp);
    let ended = sum(|tally| tally.ended_in_window);
    let mut run = Run {
        load,
        repeat,
        seconds,
        requests: sum(|tally| tally.requests),
        items: sum(|tally| tally.items),
        unanswered: sum(|tally| tally.unanswered),
        errors: errors.told(),
        wrong_answers: sum(|tally| tally.wrong_answers),
        wrong_example: tallies.iter().find_map(|tally| tally.example.clone()),
        requests_per_second: per_second(sum(|tally| tally.answered_in_window)),
        items_per_second: per_second(sum(|tally| tally.items_in_window)),
        latency: Latency::of(&latency),
        send_lag: Latency::of(&send_lag),
        generator_cpu_micros: micros(sum(|tally| tally.thread.used)) / precise(ended.max(1)),
        generator_busy: most(|tally| tally.thread.busy()),
        generator_waiting: most(|tally| tally.thread.waiting()),
        timeline,
        server: None,
        silent_models: BTreeMap::new(),
        objectives: Vec::new(),
    };
    // A part of a run is not what the objectives are on.
    if let Some(objectives) = objectives.filter(|_| window.whole) {
        let facts =
            Facts { latency: &latency, errors: error_share(&run), throughput: run.requests_per_second };
        run.objectives = objectives.judge(&facts);
        run.objectives.extend(
            pace(&run, window, (ended, latency.value_at_quantile(0.25))).and_then(|pace| pace.missed()),
        );
    }
    run
}

/// The models of a mix of which no request was answered well, and what happened to the first of each.
pub(crate) fn silent_models(tallies: &[Tally], names: &[&str]) -> BTreeMap<String, String> {
    let silent = |(model, name): (usize, &&str)| {
        let of_model: Vec<&OfModel> = tallies.iter().filter_map(|tally| tally.models.get(model)).collect();
        let error = of_model.iter().find_map(|of_model| of_model.first_error.clone())?;
        (of_model.iter().all(|of_model| of_model.answered == 0)).then(|| ((*name).to_owned(), error))
    };
    names.iter().enumerate().filter(|_| names.len() > 1).filter_map(silent).collect()
}

/// The pace of an open loop that was not cut short, of whose requests `ended` ended in the measured time, and a quarter
/// within `low` nanoseconds.
fn pace(run: &Run, window: Window, (ended, low): (u64, u64)) -> Option<Pace> {
    let Load::Open { rate, .. } = &run.load else { return None };
    let due = precise(run.requests + run.unanswered);
    // A run that a number of requests ends lasts until the last answer: it should have lasted as long as they were due.
    let seconds = if window.counted { due / rate } else { window.seconds };
    let share = if window.counted { (seconds / window.seconds).min(1.0) } else { 1.0 };
    let low_latency = precise(low) / 1e9;
    let pace = Pace { due, ended: precise(ended) * share, seconds, warmup: window.warmup, low_latency };
    window.whole.then_some(pace)
}

/// The share of requests that failed or were not answered.
pub(crate) fn error_share(run: &Run) -> f64 {
    let all = run.requests + run.unanswered;
    precise(run.failed() + run.unanswered) / precise(all.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn precise(count: u64) -> f64 {
    count as f64
}

fn micros(nanos: u64) -> f64 {
    precise(nanos) / 1e3
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::recorder::{Problem, Recorder, Sent, Window};
    use crate::transport::Failure;

    const SECOND: u64 = 1_000_000_000;

    /// Two threads, each with a request of 1 ms in each of two seconds, and one error.
    fn two_threads(objectives: &str) -> Run {
        let (out, pieces) = channel();
        let window = Window { open: 0, close: 2 * SECOND };
        let tallies: Vec<Tally> = (0..2)
            .map(|thread| {
                let mut recorder = Recorder::new(window, true, out.clone());
                for second in 0..2 {
                    let due = second * SECOND;
                    let sent = Sent { due, free: 0, at: due + 5_000, items: 2, model: 0 };
                    recorder.ended(&sent, due + 1_000_000, Ok(()));
                }
                let late = Sent { due: SECOND, free: 0, at: SECOND, items: 2, model: 1 };
                let failure = Failure::Failed(format!("status 50{thread}"));
                recorder.ended(&late, SECOND + 1, Err(Problem::Failure(failure)));
                recorder.finish()
            })
            .collect();
        drop(out);
        let mut timeline = Timeline::new(2);
        let complete = pieces.iter().filter(|_| true).map(|piece| timeline.add(piece).is_some());
        assert_eq!(complete.collect::<Vec<_>>(), [false, false, true, true]);
        let load = Load::Open { rate: 2.0, arrivals: crate::measurement::Arrivals::Constant };
        let window = super::Window { seconds: 2.0, warmup: 0.0, whole: true, counted: false };
        run((load, 0), &tallies, timeline, window, Some(&objectives.parse().unwrap()))
    }

    #[test]
    fn a_model_of_a_mix_that_answers_nothing_is_told() {
        let tally = |models: [(u64, Option<&str>); 2]| {
            let (out, _) = channel();
            let mut tally = Recorder::new(Window { open: 0, close: SECOND }, true, out).finish();
            tally.models = models
                .map(|(answered, error)| OfModel { answered, first_error: error.map(str::to_owned) })
                .to_vec();
            tally
        };
        let tallies = [tally([(3, Some("timeout")), (0, None)]), tally([(0, None), (0, Some("status 503"))])];
        let told = silent_models(&tallies, &["a", "b"]);
        assert_eq!(told, BTreeMap::from([("b".to_owned(), "status 503".to_owned())]));
        // Alone it is an error of its own, and one that was never asked is none.
        assert_eq!(silent_models(&tallies[1..], &["a"]), BTreeMap::new());
        assert_eq!(silent_models(&tallies[..1], &["a", "b"]), BTreeMap::new());
        let answered = [tally([(0, None), (0, Some("timeout"))]), tally([(0, None), (1, None)])];
        assert_eq!(silent_models(&answered, &["a", "b"]), BTreeMap::new());
    }

    #[test]
    fn threads_add_up() {
        let run = two_threads("p99<2ms,errors<30%,throughput>=2/s");
        assert_eq!((run.requests, run.items, run.latency.count), (6, 8, 4));
        assert!((run.requests_per_second - 2.0).abs() < 1e-9 && (run.items_per_second - 4.0).abs() < 1e-9);
        assert_eq!(run.errors.len(), 2);
        let seconds: Vec<_> = run.timeline.iter().map(|second| (second.requests, second.errors)).collect();
        assert_eq!(seconds, [(2, 0), (4, 2)]);
        assert!((run.send_lag.max - 5.0).abs() < 0.1);
        let met: Vec<_> = run.objectives.iter().map(|judged| judged.met).collect();
        assert_eq!(met, [true, false, true]);
    }
}
