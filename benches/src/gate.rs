//! What does it cost to judge a canary after each of its requests?

use ::statistics::{Counts, Rate, RateGate, RateTest};

use crate::HotPath;

/// Requests whose updates are measured together; divide by it for one.
const REQUESTS: u64 = 1_000;
/// One error in a thousand is allowed.
const ERRORS: f64 = 0.001;
/// Five answers in a hundred may take longer than p95.
const SLOW: f64 = 0.05;

/// The updates of a gate, an evaluation each of what it is asked for, and what a status shows.
pub fn paths() -> Vec<HotPath> {
    vec![
        updates("gate/1000_updates_healthy", ERRORS, 2_000),
        updates("gate/1000_updates_near_p95", SLOW, 19),
        updates("gate/1000_updates_that_all_fail_at_half", 0.5, 2),
        evaluation("gate/ln_e_early", ERRORS, Counts::new(3, 40)),
        evaluation("gate/ln_e_healthy", ERRORS, Counts::new(9, 18_000)),
        evaluation("gate/ln_e_bad", ERRORS, Counts::new(60, 18_000)),
        evaluation("gate/ln_e_p95_of_a_million", SLOW, Counts::new(50_100, 1_000_000)),
        evaluation("gate/ln_e_slowest", SLOW, Counts::new(470, 9_400)),
        HotPath::new("gate/verdict", || {
            let gate = RateGate::new(rate(ERRORS));
            move || gate.watch(Counts::new(9, 18_000))
        }),
        HotPath::new("gate/boundary", || {
            let test = test(ERRORS);
            move || test.boundary(18_000)
        }),
    ]
}

/// Each request is counted, and the test is asked after each failure: one in `period` requests.
fn updates(name: &str, limit: f64, period: u64) -> HotPath {
    HotPath::new(name, move || {
        let test = test(limit);
        let (mut failures, mut total) = (0_u64, 0_u64);
        move || {
            let mut rejected = false;
            for _ in 0..REQUESTS {
                total += 1;
                if total.is_multiple_of(period) {
                    failures += 1;
                    rejected |= test.rejects(Counts::new(failures, total));
                }
            }
            rejected
        }
    })
}

fn evaluation(name: &str, limit: f64, counts: Counts) -> HotPath {
    HotPath::new(name, move || {
        let test = test(limit);
        move || test.ln_e(counts)
    })
}

fn test(limit: f64) -> RateTest {
    *RateGate::new(rate(limit)).test()
}

fn rate(rate: f64) -> Rate {
    Rate::new(rate).expect("the limits above are rates")
}
