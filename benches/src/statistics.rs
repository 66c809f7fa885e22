//! What does it cost to count a request that was answered, and to read the counts?

use std::time::{Duration, Instant};

use inference::statistics::{Answered, Moments, Statistics};

use crate::HotPath;

/// Requests of a batch that is recorded.
const BATCH: usize = 32;

/// A record of one request and of a batch in a model that has seen many batch sizes, and the copy that an export
/// takes.
pub fn paths() -> Vec<HotPath> {
    let record = |count: usize| {
        let (statistics, start) = (seen(), Instant::now());
        move || record(&statistics, start, &vec![1; count])
    };
    vec![
        HotPath::new("statistics/record_one", move || record(1)),
        HotPath::new(format!("statistics/record_batch_of_{BATCH}"), move || record(BATCH)),
        HotPath::new("statistics/snapshot", || {
            let statistics = seen();
            move || statistics.snapshot()
        }),
    ]
}

fn seen() -> Statistics {
    let statistics = Statistics::default();
    (1..=32).for_each(|rows| record(&statistics, Instant::now(), &[rows]));
    statistics
}

/// An execution that answers a request of each of `rows`.
fn record(statistics: &Statistics, arrived: Instant, rows: &[u64]) {
    let after = |micros| arrived + Duration::from_micros(micros);
    let moments = Moments {
        taken: after(20),
        inputs_ready: after(22),
        inferred: after(400),
        outputs_ready: after(405),
    };
    let answered = |rows: &u64| Answered { rows: *rows, arrived, queued: after(2) };
    statistics.record_execution(&moments, rows.iter().map(answered));
}
