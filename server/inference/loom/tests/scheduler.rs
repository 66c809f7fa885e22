//! Whatever order the threads run in: no request is lost, none is handed out twice, and nobody sleeps while there is
//! work for him.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use interleavings::batcher::{BatchPolicy, Batcher, QueuePolicy, ShapeKey, Ticket, Waiting};
use interleavings::scheduler::{Batch, Refused, Scheduler};
use loom::sync::Arc;
use loom::thread;

type Numbers = Scheduler<u64>;

fn scheduler(max_batch_size: u64, delay: Duration, held_until: usize) -> Arc<Numbers> {
    Arc::new(Scheduler::new(Batcher::new(policy(max_batch_size, delay)), 8, held_until))
}

fn policy(max_batch_size: u64, delay: Duration) -> BatchPolicy {
    BatchPolicy {
        max_batch_size,
        merges: true,
        pads: false,
        preferred: Vec::new(),
        max_delay: delay,
        adaptive_delay: false,
        levels: vec![QueuePolicy::default()],
    }
}

/// Every order in which no thread is interrupted more than so often, where it could have gone on.
fn every_order(interruptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions);
    model.check(test);
}

/// As a request does that leaves the wake to its own thread.
fn push(scheduler: &Numbers, number: u64) -> Result<Ticket, Refused> {
    push_sized(scheduler, number, 1)
}

fn waiting(number: u64, size: u64) -> Waiting<u64> {
    let (queued, shape) = (Instant::now(), ShapeKey::new());
    Waiting { rows: 1, size, shape, level: 0, queued, deadline: None, request: number }
}

fn push_sized(scheduler: &Numbers, number: u64, size: u64) -> Result<Ticket, Refused> {
    let (ticket, tell) = scheduler.push(waiting(number, size))?;
    if tell {
        scheduler.tell();
    }
    Ok(ticket)
}

/// As an instance does, until the scheduler is closed and empty.
fn serve(scheduler: &Numbers) -> Vec<u64> {
    let mut all = Vec::new();
    let mut batch = Batch::default();
    while scheduler.wait() {
        if scheduler.take(&mut batch) {
            scheduler.answered(batch.requests.len());
            all.append(&mut batch.requests);
        }
    }
    all
}

/// As an instance does, for one batch.
fn take_one(scheduler: &Numbers) -> Vec<u64> {
    let mut batch = Batch::default();
    while batch.requests.is_empty() {
        assert!(scheduler.wait());
        scheduler.take(&mut batch);
    }
    batch.requests
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn who_pushes_wakes_an_instance() {
    every_order(3, || {
        let scheduler = scheduler(1, Duration::ZERO, 0);
        let instance = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || {
                let mut batch = Batch::default();
                while batch.requests.len() < 2 {
                    assert!(scheduler.wait());
                    scheduler.take(&mut batch);
                }
                batch.requests
            })
        };
        let client = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || push(&scheduler, 1).unwrap())
        };
        push(&scheduler, 2).unwrap();
        client.join().unwrap();
        assert_eq!(sorted(instance.join().unwrap()), [1, 2]);
    });
}

#[test]
fn two_instances_share_what_comes_and_a_close_ends_both() {
    every_order(2, || {
        let scheduler = scheduler(2, Duration::ZERO, 0);
        let instances = [0, 1].map(|_| {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || serve(&scheduler))
        });
        push(&scheduler, 1).unwrap();
        push(&scheduler, 2).unwrap();
        scheduler.close();
        let all = instances.map(|instance| instance.join().unwrap()).concat();
        assert_eq!(sorted(all), [1, 2]);
    });
}

#[test]
fn a_push_and_a_close_at_once_lose_nothing() {
    every_order(3, || {
        let scheduler = scheduler(2, Duration::ZERO, 0);
        let instance = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || serve(&scheduler))
        };
        let client = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || push(&scheduler, 1))
        };
        scheduler.close();
        let expected = match client.join().unwrap() {
            Ok(_) => vec![1],
            Err(refused) => {
                assert_eq!(refused, Refused::Closed);
                vec![]
            }
        };
        assert_eq!(instance.join().unwrap(), expected);
    });
}

#[test]
fn who_leaves_is_taken_out_or_handed_out_and_never_both() {
    every_order(3, || {
        let scheduler = scheduler(2, Duration::ZERO, 0);
        let instance = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || serve(&scheduler))
        };
        let ticket = push(&scheduler, 1).unwrap();
        push(&scheduler, 2).unwrap();
        let left = scheduler.remove(ticket);
        scheduler.close();
        let served = instance.join().unwrap();
        assert_eq!(sorted(served.into_iter().chain(left).collect()), [1, 2]);
    });
}

/// The delay is as good as endless: who waits for company must be woken by the one that makes the batch full.
#[test]
fn the_last_of_a_batch_wakes_the_instance_that_waits_for_it() {
    every_order(3, || {
        let scheduler = scheduler(2, Duration::from_secs(1_000_000), 0);
        let instance = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || take_one(&scheduler))
        };
        let client = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || push(&scheduler, 1).unwrap())
        };
        push(&scheduler, 2).unwrap();
        client.join().unwrap();
        assert_eq!(sorted(instance.join().unwrap()), [1, 2]);
    });
}

/// One that needs too much padding to join slept beside an idle instance until the delay of the first was over.
#[test]
fn one_that_does_not_join_ends_the_wait_for_company() {
    every_order(3, || {
        let policy = BatchPolicy { pads: true, ..policy(2, Duration::from_secs(1_000_000)) };
        let scheduler = Arc::new(Scheduler::new(Batcher::new(policy), 8, 0));
        let instance = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || take_one(&scheduler))
        };
        push_sized(&scheduler, 1, 10).unwrap();
        push_sized(&scheduler, 2, 50).unwrap();
        assert_eq!(instance.join().unwrap(), [1]);
    });
}

#[test]
fn a_held_scheduler_starts_with_the_last_that_it_is_held_for() {
    every_order(3, || {
        let scheduler = scheduler(1, Duration::ZERO, 2);
        let instances = [0, 1].map(|_| {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || take_one(&scheduler))
        });
        push(&scheduler, 1).unwrap();
        push(&scheduler, 2).unwrap();
        let all = instances.map(|instance| instance.join().unwrap()).concat();
        assert_eq!(sorted(all), [1, 2]);
    });
}

/// As a thread does that runs itself, up to `runs` times, what it brings. Others see to what they bring meanwhile, and
/// this thread to what is left then and nobody else sees to.
fn bring_and_run(scheduler: &Numbers, number: u64, runs: usize) -> Vec<u64> {
    let (_, tell) = scheduler.push(waiting(number, 1)).expect("there is room");
    let mut batch = Batch::default();
    if tell {
        scheduler.told();
        for _ in 0..runs {
            scheduler.take(&mut batch);
        }
        scheduler.answered(batch.requests.len());
        scheduler.tell_if_nobody_will();
    }
    batch.requests
}

#[test]
fn what_threads_that_run_here_leave_is_told_to_an_instance() {
    every_order(3, || {
        let scheduler = scheduler(1, Duration::ZERO, 0);
        let instance = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || serve(&scheduler))
        };
        let bringer = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || bring_and_run(&scheduler, 1, 1))
        };
        push(&scheduler, 2).unwrap();
        let here = [bring_and_run(&scheduler, 3, 0), bringer.join().unwrap()].concat();
        while !scheduler.is_empty() {
            thread::yield_now(); // for ever, if the instance sleeps: loom gives up then
        }
        scheduler.close();
        let served = instance.join().unwrap();
        assert_eq!(sorted(served.into_iter().chain(here).collect()), [1, 2, 3]);
    });
}
