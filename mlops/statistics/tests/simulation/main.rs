//! Canaries of which the true error rate is known, judged by the gate: how often it is right, and how soon.
//!
//! Hours at five requests a second, drawn with a fixed seed, with a limit of one error in a thousand. What comes of it
//! is told in `docs/rollout-statistics.md`: `VOLLEY_UPDATE_DOCS=1 cargo test -p statistics --test simulation` writes
//! the tables and the plot there.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod hour;
mod page;
mod plot;
mod rules;
mod trial;

use fastrand::Rng;
use statistics::latency::latencies;
use statistics::{Alpha, BaselineTest, Counts, LatencyTest, Rate, RateGate};

use hour::Hour;
use rules::{LIMIT, Rule};
use trial::{RUNS, SEED, Trial};

fn of_the_gate(rate: f64) -> Trial {
    Trial::of(rate, &Rule::gate())
}

#[test]
fn a_healthy_canary_is_left_alone() {
    let healthy = of_the_gate(0.0005);
    assert!(healthy.rolled_back() <= 0.01, "{}", healthy.rolled_back());
}

#[test]
fn a_bad_canary_is_soon_gone() {
    for (rate, seconds) in [(0.01, 90.0), (0.05, 15.0)] {
        let trial = of_the_gate(rate);
        assert!(trial.median().is_some_and(|median| median <= seconds), "{rate}: {:?}", trial.median());
        assert_eq!(trial.rolled_back(), 1.0, "at {rate}");
    }
}

#[test]
fn nothing_at_twice_the_limit_is_promoted() {
    assert_eq!(of_the_gate(0.002).promoted, 0.0);
}

#[test]
fn a_canary_that_always_fails_is_gone_after_three_requests() {
    let gate = RateGate::new(Rate::new(LIMIT).unwrap());
    let rejected = (1..=5).find(|requests| gate.test().rejects(Counts::new(*requests, *requests)));
    assert_eq!(rejected, Some(3));
}

#[test]
fn a_canary_at_the_limit_is_rolled_back_no_more_often_than_promised_however_long() {
    let mut random = Rng::with_seed(SEED);
    let ten_hours = |random: &mut Rng| Hour::of(180_000, LIMIT, random);
    let rejected = (0..RUNS).filter(|_| Rule::gate().rolls_back(&ten_hours(&mut random)).is_some()).count();
    assert!(rejected as f64 <= RateGate::FAIL_ALPHA * RUNS as f64, "{rejected} of {RUNS}");
}

/// After how many requests of each a canary with errors at `canary` is told from a baseline with errors at `baseline`,
/// where both depend on the number of the request.
fn told_apart(canary: impl Fn(u32) -> f64, baseline: impl Fn(u32) -> f64, random: &mut Rng) -> Option<u32> {
    let test = BaselineTest::new(Rate::new(0.5).unwrap());
    let alpha = Alpha::new(0.05).unwrap();
    let (mut canary_errors, mut baseline_errors) = (0, 0);
    (0..18_000).find(|number| {
        let failed = random.f64() < canary(*number);
        canary_errors += u64::from(failed);
        baseline_errors += u64::from(random.f64() < baseline(*number));
        failed && test.rejects(canary_errors, baseline_errors, alpha)
    })
}

#[test]
fn a_canary_like_its_baseline_is_left_alone_though_the_rate_swings() {
    let swinging = |number: u32| if (number / 3_000).is_multiple_of(2) { 0.001 } else { 0.005 };
    let mut random = Rng::with_seed(SEED);
    let rejected = (0..400).filter(|_| told_apart(swinging, swinging, &mut random).is_some()).count();
    assert!(rejected <= 20, "{rejected} of 400");
}

#[test]
fn a_canary_worse_than_its_baseline_is_found() {
    let mut random = Rng::with_seed(SEED);
    for (canary, baseline, seconds) in [(0.01, 0.001, 240.0), (0.1, 0.02, 40.0)] {
        let mut found: Vec<f64> = (0..401)
            .map(|_| told_apart(|_| canary, |_| baseline, &mut random).map_or(f64::INFINITY, f64::from))
            .collect();
        found.sort_by(f64::total_cmp);
        let median = found[200] / 5.0;
        assert!(median <= seconds, "{canary} for {baseline}: {median} s");
    }
}

#[test]
fn a_canary_as_fast_as_its_baseline_is_never_called_slower_and_a_slower_one_is() {
    let test = LatencyTest::new(0.0, Alpha::new(0.05).unwrap());
    let mut random = Rng::with_seed(SEED);
    let p95 = Rate::new(0.95).unwrap();
    // Exponential, with a mean of 10 ms; looked at after every hundred.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some milliseconds")]
    let mut latency = |scale: f64| (-(1.0 - random.f64()).ln() * 10_000.0 * scale) as u64 + 1_000;
    let (mut canary, mut baseline, mut slower) = (latencies(), latencies(), latencies());
    let mut found = None;
    for number in 1..=20_000 {
        canary.saturating_record(latency(1.0));
        baseline.saturating_record(latency(1.0));
        slower.saturating_record(latency(1.5));
        if number % 100 == 0 {
            let told = test.dominance(&canary, &baseline).unwrap();
            assert!(!told.is_slower() && !test.quantile(p95, &canary, &baseline).is_fail(), "{told:?}");
            if test.dominance(&slower, &baseline).unwrap().is_slower() {
                found = found.or(Some(number));
            }
        }
    }
    assert!(found.is_some_and(|number| number <= 3_000), "{found:?}");
    assert!(test.quantile(p95, &slower, &baseline).is_fail());
}
