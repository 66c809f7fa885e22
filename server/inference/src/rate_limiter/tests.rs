//! Instances on threads: what they hold together is never more than there is, and none sleeps through its turn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;

fn claim(resources: &[(&str, u64)]) -> Claim {
    let resource = |(name, count): &(&str, u64)| (Resource { name: (*name).into(), device: Some(0) }, *count);
    Claim { group: "g".into(), resources: resources.iter().map(resource).collect(), priority: 1 }
}

fn limiter(totals: &[(&str, u32)]) -> Arc<RateLimiter> {
    let total =
        |(name, count): &(&str, u32)| ResourceTotal { name: (*name).into(), count: *count, device: None };
    Arc::new(RateLimiter::new(totals.iter().map(total).collect()))
}

fn used(limiter: &RateLimiter) -> Vec<(String, u64, u64)> {
    let used = limiter.resources().into_iter();
    used.map(|used| (used.resource.name.to_string(), used.total, used.used)).collect()
}

#[test]
fn who_takes_nothing_is_not_limited() {
    let limiter = limiter(&[]);
    assert!(limiter.admit("m", vec![claim(&[]), claim(&[])]).unwrap().is_none());
    assert!(limiter.admit("m", vec![claim(&[]), claim(&[("r", 1)])]).unwrap().is_some());
    assert_eq!(limiter.resources(), [], "it was dropped");
}

#[test]
fn a_turn_ends_when_it_is_dropped_even_by_a_panic() {
    let limiter = limiter(&[]);
    let contenders = limiter.admit("m", vec![claim(&[("r", 2)]); 2]).unwrap().unwrap();
    thread::scope(|scope| {
        let panicked = scope.spawn(|| {
            let turn = contenders.ask(0);
            assert!(turn.has_come());
            panic!("while it runs");
        });
        assert!(panicked.join().is_err());
    });
    assert_eq!(used(&limiter), [("r".to_owned(), 2, 0)]);
    let first = contenders.ask(1);
    assert!(first.has_come() && !contenders.ask(0).has_come());
    assert_eq!(used(&limiter), [("r".to_owned(), 2, 2)]);
    drop(first);
    drop(contenders);
    assert_eq!(used(&limiter), []);
}

#[test]
fn who_waits_is_woken_when_its_turn_comes_and_when_there_is_nothing_to_do() {
    let limiter = limiter(&[]);
    let contenders = limiter.admit("m", vec![claim(&[("r", 1)]); 2]).unwrap().unwrap();
    let others = limiter.admit("n", vec![claim(&[("r", 1)])]).unwrap().unwrap();
    thread::scope(|scope| {
        let holding = others.ask(0);
        let waiting = scope.spawn(|| contenders.ask(0).wait());
        while contenders.waiting() == 0 {
            thread::yield_now();
        }
        drop(holding);
        assert!(waiting.join().unwrap());
        let holding = others.ask(0);
        let waiting = [0, 1].map(|index| {
            scope.spawn({
                let contenders = &contenders;
                move || contenders.ask(index).wait()
            })
        });
        while contenders.waiting() < 2 {
            thread::yield_now();
        }
        contenders.withdraw();
        assert_eq!(waiting.map(|waiting| waiting.join().unwrap()), [false, false]);
        assert_eq!(contenders.waiting(), 0);
        assert!(holding.has_come());
    });
}

/// Its turn comes with what there is more of, since another takes that much.
#[test]
fn who_waits_is_woken_when_there_is_more() {
    let limiter = limiter(&[]);
    let contenders = limiter.admit("m", vec![claim(&[("r", 1)]); 2]).unwrap().unwrap();
    let holding = contenders.ask(0);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| contenders.ask(1).wait());
        while contenders.waiting() == 0 {
            thread::yield_now();
        }
        let more = limiter.admit("n", vec![claim(&[("r", 2)])]).unwrap();
        assert!(waiting.join().unwrap());
        assert!(holding.has_come());
        drop(more);
    });
}

#[test]
fn one_that_retires_is_waited_for_by_nobody() {
    let limiter = limiter(&[]);
    let contenders = limiter.admit("m", vec![claim(&[("r", 1)]), claim(&[("r", 5)])]).unwrap().unwrap();
    assert_eq!(used(&limiter), [("r".to_owned(), 5, 0)]);
    contenders.retire(1);
    assert_eq!(used(&limiter), [("r".to_owned(), 1, 0)]);
    assert!(contenders.ask(0).has_come());
}

/// Some take one resource and some two, some give up, and some come and go.
#[test]
fn threads_never_hold_more_than_there_is() {
    const ROUNDS: usize = 2_000;
    let totals = [("a", 3_u32), ("b", 2)];
    let limiter = limiter(&totals);
    let held: [AtomicU64; 2] = Default::default();
    let claims: [&[(&str, u64)]; 6] =
        [&[("a", 1)], &[("a", 3)], &[("b", 1)], &[("a", 2), ("b", 1)], &[("b", 2)], &[("a", 1), ("b", 2)]];
    let hold = |claim: &[(&str, u64)]| {
        for (name, count) in claim {
            let index = totals.iter().position(|(total, _)| total == name).unwrap();
            let now = held[index].fetch_add(*count, Ordering::SeqCst) + count;
            assert!(now <= u64::from(totals[index].1), "{now} of {name} are held");
        }
        thread::yield_now();
        for (name, count) in claim {
            let index = totals.iter().position(|(total, _)| total == name).unwrap();
            held[index].fetch_sub(*count, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        for takes in claims {
            let (limiter, hold) = (&limiter, &hold);
            scope.spawn(move || {
                let mut contenders = limiter.admit("m", vec![claim(takes)]).unwrap().unwrap();
                for round in 0..ROUNDS {
                    let mut turn = contenders.ask(0);
                    for _ in 0..round % 4 {
                        if !turn.has_come() {
                            assert!(turn.wait());
                        }
                        hold(takes);
                        turn.ran = true;
                        turn.again();
                    }
                    drop(turn);
                    if round % 100 == 0 {
                        drop(contenders);
                        contenders = limiter.admit("m", vec![claim(takes)]).unwrap().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(limiter.resources(), []);
}
