//! What does it cost to count a request that was answered, and to read the counts?

use std::time::{Duration, Instant};

use inference::statistics::{Moments, Statistics};

use crate::HotPath;

/// A record in a model that has seen many batch sizes, and the copy that an export takes.
pub fn paths() -> Vec<HotPath> {
    vec![
        HotPath::new("statistics/record_success", || {
            let (statistics, moments) = (seen(), moments());
            move || statistics.record_success(8, &moments)
        }),
        HotPath::new("statistics/snapshot", || {
            let statistics = seen();
            move || statistics.snapshot()
        }),
    ]
}

fn seen() -> Statistics {
    let statistics = Statistics::default();
    (1..=32).for_each(|rows| statistics.record_success(rows, &moments()));
    statistics
}

fn moments() -> Moments {
    let arrived = Instant::now();
    let after = |micros| arrived + Duration::from_micros(micros);
    Moments {
        arrived,
        queued: after(2),
        taken: after(20),
        inputs_ready: after(22),
        inferred: after(400),
        outputs_ready: after(405),
    }
}
