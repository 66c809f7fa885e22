//! Whatever order the threads run in: instances that share a resource never run at once, each has its turn, and none
//! waits for a turn that it has no use for.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use interleavings::batcher::{BatchPolicy, Batcher, QueuePolicy, ShapeKey, Ticket, Waiting};
use interleavings::rate_limiter::{Claim, Contenders, RateLimiter, Resource, Took};
use interleavings::scheduler::{Batch, Scheduler};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};

/// Every order in which no thread is interrupted more than so often, where it could have gone on.
fn every_order(interruptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions);
    model.check(test);
}

/// A version of a model: its requests, and its instances.
struct Version {
    scheduler: Scheduler<u64>,
    contenders: Contenders,
}

impl Version {
    /// With one instance for each resource of which it takes one.
    fn of(limiter: &std::sync::Arc<RateLimiter>, resources: &[&str]) -> Arc<Version> {
        let policy = BatchPolicy {
            max_batch_size: 1,
            merges: false,
            pads: false,
            preferred: Vec::new(),
            max_delay: Duration::ZERO,
            adaptive_delay: false,
            levels: vec![QueuePolicy::default()],
        };
        let claim = |name: &&str| {
            let resource = Resource { name: (*name).into(), device: None };
            Claim { group: "g".into(), resources: vec![(resource, 1)], priority: 1 }
        };
        let contenders = limiter.admit("m", resources.iter().map(claim).collect());
        let contenders = contenders.expect("it may run").expect("it takes something");
        Arc::new(Version { scheduler: Scheduler::new(Batcher::new(policy), 8, 0), contenders })
    }

    fn push(&self, number: u64) -> Ticket {
        let queued = Instant::now();
        let (rows, size, shape, level) = (1, 1, ShapeKey::new(), 0);
        let waiting = Waiting { rows, size, shape, level, queued, deadline: None, request: number };
        let (ticket, tell) = self.scheduler.push(waiting).expect("there is room");
        if tell {
            self.scheduler.tell();
        }
        ticket
    }

    fn remove(&self, ticket: Ticket) -> Option<u64> {
        let removed = self.scheduler.remove(ticket);
        self.contenders.recall(&self.scheduler);
        removed
    }

    fn close(&self) {
        self.scheduler.close();
        self.contenders.recall(&self.scheduler);
    }
}

/// Starts the instance `index`; what it has run once it ends. `during` is what it does in each run.
fn start(version: &Arc<Version>, index: usize, during: impl Fn() + 'static) -> JoinHandle<Vec<u64>> {
    let version = Arc::clone(version);
    thread::spawn(move || {
        let Version { scheduler, contenders } = &*version;
        let (mut all, mut batch) = (Vec::new(), Batch::default());
        contenders.serve(index, scheduler, || {
            if !scheduler.take(&mut batch) {
                return Took::Nothing;
            }
            contenders.recall(scheduler);
            during();
            scheduler.answered(batch.requests.len());
            all.append(&mut batch.requests);
            Took::ToRun
        });
        all
    })
}

fn limiter() -> std::sync::Arc<RateLimiter> {
    std::sync::Arc::new(RateLimiter::new(Vec::new()))
}

#[test]
fn models_that_share_a_resource_never_run_at_once_and_each_runs() {
    every_order(3, || {
        let limiter = limiter();
        let versions = [0; 2].map(|_| Version::of(&limiter, &["r"]));
        let held = Arc::new(AtomicBool::new(false));
        let instances = versions.clone().map(|version| {
            let held = Arc::clone(&held);
            start(&version, 0, move || {
                assert!(!held.swap(true, Ordering::SeqCst), "two run");
                held.store(false, Ordering::SeqCst);
            })
        });
        for version in &versions {
            version.push(1);
            version.close();
        }
        assert_eq!(instances.map(|instance| instance.join().unwrap()), [vec![1], vec![1]]);
        assert!(limiter.resources().iter().all(|resource| resource.used == 0));
    });
}

/// What goes on as long as there is work leaves others their turns.
#[test]
fn an_instance_that_goes_on_and_one_that_waits_both_end() {
    every_order(3, || {
        let limiter = limiter();
        let [busy, waits] = [0; 2].map(|_| Version::of(&limiter, &["r"]));
        busy.push(1);
        busy.push(2);
        waits.push(3);
        [&busy, &waits].iter().for_each(|version| version.close());
        let instances = [start(&busy, 0, || ()), start(&waits, 0, || ())];
        assert_eq!(instances.map(|instance| instance.join().unwrap()), [vec![1, 2], vec![3]]);
    });
}

/// A request may leave at any moment: before an instance asks for its turn, while it waits, or after.
#[test]
fn nobody_waits_for_a_turn_once_its_request_has_left() {
    every_order(3, || {
        let limiter = limiter();
        let [other, version] = [0; 2].map(|_| Version::of(&limiter, &["r"]));
        let holding = other.contenders.ask(0);
        let instance = start(&version, 0, || ());
        let ticket = version.push(1);
        assert_eq!(version.remove(ticket), Some(1));
        version.close();
        assert_eq!(instance.join().unwrap(), [0; 0], "it ends while the other holds what it takes");
        drop(holding);
    });
}

#[test]
fn what_waits_at_a_close_runs_when_its_turn_comes() {
    every_order(3, || {
        let limiter = limiter();
        let [other, version] = [0; 2].map(|_| Version::of(&limiter, &["r"]));
        let holding = other.contenders.ask(0);
        let instance = start(&version, 0, || ());
        version.push(1);
        version.close();
        drop(holding);
        assert_eq!(instance.join().unwrap(), [1]);
    });
}

/// Whichever instance is woken first.
#[test]
fn what_one_instance_must_wait_for_another_runs() {
    every_order(3, || {
        let limiter = limiter();
        let [other, version] = [&["r"][..], &["r", "s"]].map(|takes| Version::of(&limiter, takes));
        let holding = other.contenders.ask(0);
        let instances = [0, 1].map(|index| {
            let closing = Arc::clone(&version);
            start(&version, index, move || closing.close())
        });
        version.push(1);
        assert_eq!(instances.map(|instance| instance.join().unwrap()), [vec![], vec![1]]);
        drop(holding);
    });
}
