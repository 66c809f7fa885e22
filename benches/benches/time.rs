//! How long does each hot path take?
#![forbid(unsafe_code)]

use std::time::Duration;

use criterion::Criterion;

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
        .configure_from_args();
    for path in benches::all() {
        // Only what the filter lets through is made ready, and once, however often it is measured.
        let mut work = None;
        criterion.bench_function(&path.name, |bencher| {
            let work = work.get_or_insert_with(|| path.prepare());
            bencher.iter(work);
        });
    }
    criterion.final_summary();
}
