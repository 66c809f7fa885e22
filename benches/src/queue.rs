//! What do queueing and forming a batch cost a request when few or many wait, and when the queue is full?

use std::time::{Duration, Instant};

use inference::batcher::{BatchPolicy, Batcher, QueuePolicy, ShapeKey, Waiting};
use inference::scheduler::{Batch, Refused, Scheduler};

use crate::HotPath;

/// How many wait.
const WAITING: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// Requests that run together at most.
const BATCH: usize = 32;

/// What stands for a queued request: as large as one, so that it costs as much to move.
type Item = [u64; 32];

/// At every length: one in and one out, a batch in and out, one that leaves from the middle, and one turned away.
pub fn paths() -> Vec<HotPath> {
    let of = |waiting: usize| {
        [
            HotPath::new(format!("queue/push_pop/{waiting}"), move || {
                let scheduler = filled(waiting, waiting + 1, 1);
                let mut batch = Batch::default();
                move || exchange(&scheduler, &mut batch, 1)
            }),
            HotPath::new(format!("queue/batch_of_{BATCH}/{waiting}"), move || {
                let scheduler = filled(waiting, waiting + BATCH, BATCH);
                let mut batch = Batch::default();
                move || exchange(&scheduler, &mut batch, BATCH)
            }),
            HotPath::new(format!("queue/leave/{waiting}"), move || {
                let scheduler = filled(waiting, waiting + 1, 1);
                move || {
                    let (ticket, _) = scheduler.push(request()).expect("there is room for one more");
                    scheduler.remove(ticket)
                }
            }),
            HotPath::new(format!("queue/refuse/{waiting}"), move || {
                let scheduler = filled(waiting, waiting, 1);
                move || {
                    assert_eq!(scheduler.push(request()).err(), Some(Refused::Full { capacity: waiting }));
                }
            }),
        ]
    };
    WAITING.into_iter().flat_map(of).collect()
}

/// Pushes `count` requests and takes out the next batch.
fn exchange(scheduler: &Scheduler<Item>, batch: &mut Batch<Item>, count: usize) {
    for _ in 0..count {
        scheduler.push(request()).expect("there is room for as many");
    }
    scheduler.answered(batch.requests.len());
    batch.requests.clear();
    scheduler.take(batch);
}

fn filled(waiting: usize, capacity: usize, max_batch_size: usize) -> Scheduler<Item> {
    let policy = BatchPolicy {
        max_batch_size: max_batch_size as u64,
        merges: max_batch_size > 1,
        pads: false,
        preferred: vec![max_batch_size as u64],
        max_delay: Duration::ZERO,
        adaptive_delay: true,
        levels: vec![QueuePolicy::default()],
    };
    let scheduler = Scheduler::new(Batcher::new(policy), capacity, 0);
    for _ in 0..waiting {
        scheduler.push(request()).expect("it holds as many");
    }
    scheduler
}

fn request() -> Waiting<Item> {
    let queued = Instant::now();
    Waiting { rows: 1, size: 1, shape: ShapeKey::new(), level: 0, queued, deadline: None, request: [0; 32] }
}
