//! What a model version has done: counts and times, exact at any moment.
//!
//! One record of each execution feeds the statistics endpoint and the metrics alike, so they cannot
//! disagree. It is written before the answer is sent: whoever has the answer finds it counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

pub use crate::execution::Moments;

/// The statistics of one model version.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Held to add one record or to copy all; never across a wait. One lock rather than many atomics, so
    /// that a snapshot is consistent.
    totals: Mutex<Totals>,
    in_flight: AtomicU64,
}

/// How often something happened and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

impl Tally {
    fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.ns += nanos(duration);
    }
}

/// Everything counted, as of one moment. Field names follow Triton's statistics extension.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Milliseconds since the epoch of the last inference, 0 before the first.
    pub last_inference_ms: u64,
    /// The same of the last answer, be it from the cache.
    pub last_use_ms: u64,
    /// Items inferred: a request with a batch of 8 counts 8.
    pub inference_count: u64,
    /// Executions of the model.
    pub execution_count: u64,
    /// Requests answered, from the cache too, and their time from arrival to answer.
    pub success: Tally,
    /// Requests not answered, and their time.
    pub fail: Tally,
    /// Time spent waiting for an instance. As with Triton, an answer from the cache counts, and took none.
    pub queue: Tally,
    /// Time spent bringing inputs to the model.
    pub compute_input: Tally,
    /// Time spent in the model.
    pub compute_infer: Tally,
    /// Time spent taking outputs from the model.
    pub compute_output: Tally,
    /// Requests whose answer was in the cache, and the time until it was found there.
    pub cache_hit: Tally,
    /// Requests whose answer was not, and the time to look for it and to put it there.
    pub cache_miss: Tally,
    /// Elements of the inputs that are padded, as executions ran them.
    pub padded_inputs: u64,
    /// Elements of padding among them.
    pub padding: u64,
    /// Executions by batch size.
    pub batches: BTreeMap<u64, BatchTally>,
    /// Failed requests by reason.
    pub failures: [u64; Failure::ALL.len()],
    /// Time from arrival to answer of each successful request.
    pub request_duration: Histogram,
    /// Time in the queue of each successful request.
    pub queue_duration: Histogram,
    /// Time in the model of each execution.
    pub compute_duration: Histogram,
}

/// Executions of one batch size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchTally {
    /// See [`Totals::compute_input`].
    pub compute_input: Tally,
    /// See [`Totals::compute_infer`].
    pub compute_infer: Tally,
    /// See [`Totals::compute_output`].
    pub compute_output: Tally,
}

/// Why a request failed, as the `reason` label of `nv_inference_request_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The queue was full or closed.
    Rejected,
    /// The client went away.
    Canceled,
    /// The model failed.
    Backend,
    /// Anything else: a request that contradicts the model, an answer that could not be made.
    Other,
}

impl Failure {
    /// Every reason, in the order of [`Totals::failures`].
    pub const ALL: [Failure; 4] = [Failure::Rejected, Failure::Canceled, Failure::Backend, Failure::Other];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Failure::Rejected => "REJECTED",
            Failure::Canceled => "CANCELED",
            Failure::Backend => "BACKEND",
            Failure::Other => "OTHER",
        }
    }
}

/// A request that an execution answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Items in it.
    pub rows: u64,
    /// When it arrived.
    pub arrived: Instant,
    /// When it began to wait for an instance.
    pub queued: Instant,
}

impl Statistics {
    /// Counts one execution and the requests that it answered; without any, nothing.
    pub fn record_execution(&self, moments: &Moments, answered: impl Iterator<Item = Answered>) {
        let input = moments.inputs_ready.duration_since(moments.taken);
        let infer = moments.inferred.duration_since(moments.inputs_ready);
        let output = moments.outputs_ready.duration_since(moments.inferred);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);

        let mut totals = self.totals.lock();
        let mut items = 0;
        for Answered { rows, arrived, queued } in answered {
            let queue = moments.taken.duration_since(queued);
            let request = moments.outputs_ready.duration_since(arrived);
            items += rows;
            totals.success.add(request);
            totals.queue.add(queue);
            totals.compute_input.add(input);
            totals.compute_infer.add(infer);
            totals.compute_output.add(output);
            totals.request_duration.observe(request);
            totals.queue_duration.observe(queue);
        }
        if items == 0 {
            return;
        }
        (totals.last_inference_ms, totals.last_use_ms) = (now_ms, now_ms);
        totals.inference_count += items;
        totals.execution_count += 1;
        totals.compute_duration.observe(infer);
        let batch = totals.batches.entry(items).or_default();
        batch.compute_input.add(input);
        batch.compute_infer.add(infer);
        batch.compute_output.add(output);
    }

    /// Counts an execution whose inputs that are padded had so many `elements`, of which some were `padding`.
    pub fn record_padding(&self, elements: u64, padding: u64) {
        let mut totals = self.totals.lock();
        totals.padded_inputs += elements;
        totals.padding += padding;
    }

    /// Counts one request that the cache answered `took` after its arrival, of which it spent `looked_up` there.
    pub fn record_cache_hit(&self, looked_up: Duration, took: Duration) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        let mut totals = self.totals.lock();
        totals.last_use_ms = now_ms;
        totals.success.add(took);
        totals.queue.add(Duration::ZERO);
        totals.cache_hit.add(looked_up);
        totals.request_duration.observe(took);
    }

    /// Counts one request that spent `spent` to look for an answer in the cache and, if it was answered, to put
    /// that there.
    pub fn record_cache_miss(&self, spent: Duration) {
        self.totals.lock().cache_miss.add(spent);
    }

    /// Counts one request that was not answered.
    pub fn record_failure(&self, failure: Failure, took: Duration) {
        let mut totals = self.totals.lock();
        totals.fail.add(took);
        totals.failures[failure as usize] += 1;
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn in_flight_guard(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Requests in flight: admitted and not yet answered.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests answered so far, well or badly.
    pub fn answered(&self) -> u64 {
        let totals = self.totals.lock();
        totals.success.count + totals.fail.count
    }

    /// Everything counted so far.
    pub fn snapshot(&self) -> Totals {
        self.totals.lock().clone()
    }
}

/// See [`Statistics::in_flight_guard`].
#[derive(Debug)]
pub struct InFlight<'a>(&'a Statistics);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts of durations by upper bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Observations up to and including each of [`Histogram::BOUNDS_NS`], not cumulated; the last one is
    /// for those above all bounds.
    pub counts: [u64; Histogram::BOUNDS_NS.len() + 1],
    /// Nanoseconds in all.
    pub sum_ns: u64,
}

impl Histogram {
    /// Upper bounds, 10 µs to 10 s: a small model answers in tens of microseconds, a large one in seconds.
    pub const BOUNDS_NS: [u64; 19] = [
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        10_000_000_000,
    ];

    fn observe(&mut self, duration: Duration) {
        let ns = nanos(duration);
        self.counts[Self::BOUNDS_NS.partition_point(|bound| *bound < ns)] += 1;
        self.sum_ns += ns;
    }
}

/// 584 years fit in 64 bits of nanoseconds.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An execution of requests of so many `rows`, all of which came at the same moment.
    fn record(statistics: &Statistics, rows: &[u64]) {
        let start = Instant::now();
        let after = |micros| start + Duration::from_micros(micros);
        let moments = Moments {
            taken: after(11),
            inputs_ready: after(13),
            inferred: after(113),
            outputs_ready: after(118),
        };
        let answered = |rows: &u64| Answered { rows: *rows, arrived: start, queued: after(1) };
        statistics.record_execution(&moments, rows.iter().map(answered));
    }

    #[test]
    fn an_execution_is_counted_once_in_every_place() {
        let statistics = Statistics::default();
        record(&statistics, &[3]);
        record(&statistics, &[1, 2]);
        record(&statistics, &[1]);
        record(&statistics, &[]);
        let totals = statistics.snapshot();
        assert_eq!((totals.inference_count, totals.execution_count), (7, 3));
        assert_eq!(totals.success, Tally { count: 4, ns: 4 * 118_000 });
        assert_eq!(totals.queue, Tally { count: 4, ns: 4 * 10_000 });
        assert_eq!(totals.compute_infer, Tally { count: 4, ns: 4 * 100_000 }, "each waits for all");
        assert_eq!(totals.batches[&3].compute_output, Tally { count: 2, ns: 2 * 5_000 });
        assert_eq!(totals.batches.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(totals.request_duration.counts.iter().sum::<u64>(), 4);
        assert_eq!(totals.compute_duration.counts.iter().sum::<u64>(), 3);
        assert!(totals.last_inference_ms > 0);
    }

    #[test]
    fn failures_are_counted_by_reason() {
        let statistics = Statistics::default();
        for failure in Failure::ALL {
            statistics.record_failure(failure, Duration::from_millis(1));
        }
        statistics.record_failure(Failure::Rejected, Duration::ZERO);
        let totals = statistics.snapshot();
        assert_eq!(totals.failures, [2, 1, 1, 1]);
        assert_eq!(totals.fail, Tally { count: 5, ns: 4_000_000 });
    }

    #[test]
    fn what_the_cache_answers_is_a_success_without_an_execution() {
        let statistics = Statistics::default();
        statistics.record_cache_miss(Duration::from_micros(5));
        record(&statistics, &[1]);
        statistics.record_cache_hit(Duration::from_micros(2), Duration::from_micros(20));
        let totals = statistics.snapshot();
        assert_eq!(
            (totals.cache_hit, totals.cache_miss),
            (Tally { count: 1, ns: 2_000 }, Tally { count: 1, ns: 5_000 })
        );
        assert_eq!(totals.success, Tally { count: 2, ns: 118_000 + 20_000 });
        assert_eq!((totals.queue.count, totals.compute_infer.count), (2, 1));
        assert_eq!((totals.inference_count, totals.execution_count), (1, 1));
        let observed = |histogram: &Histogram| histogram.counts.iter().sum::<u64>();
        assert_eq!((observed(&totals.request_duration), observed(&totals.queue_duration)), (2, 1));
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let mut histogram = Histogram::default();
        for ns in [0, 10_000, 10_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe(Duration::from_nanos(ns));
        }
        assert_eq!((histogram.counts[0], histogram.counts[1]), (2, 1));
        assert_eq!((histogram.counts[18], histogram.counts[19]), (1, 1));
    }

    #[test]
    fn what_is_in_flight_is_given_back() {
        let statistics = Statistics::default();
        let guards = [statistics.in_flight_guard(), statistics.in_flight_guard()];
        assert_eq!(statistics.in_flight(), 2);
        drop(guards);
        assert_eq!(statistics.in_flight(), 0);
    }
}
