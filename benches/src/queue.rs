//! What does a queue cost a request when few or many wait, and when it is full?

use inference::queue::{Queue, Refused};

use crate::HotPath;

/// How many wait.
const WAITING: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// What stands for a queued request: as large as one, so that it costs as much to move.
type Item = [u64; 32];

/// One in and one out at every length, and one turned away by a full queue. Whatever takes more than one
/// item at a time belongs here, too, at the same lengths.
pub fn paths() -> Vec<HotPath> {
    let of = |waiting: usize| {
        [
            HotPath::new(format!("queue/push_pop/{waiting}"), move || {
                let queue = filled(waiting, waiting + 1);
                move || {
                    queue.push([1; 32]).expect("there is room for one more");
                    queue.pop()
                }
            }),
            HotPath::new(format!("queue/refuse/{waiting}"), move || {
                let queue = filled(waiting, waiting);
                move || {
                    let refused = queue.push_or_purge([1; 32], |item| item[0] == 1);
                    assert_eq!(refused, Err(Refused::Full));
                }
            }),
        ]
    };
    WAITING.into_iter().flat_map(of).collect()
}

fn filled(waiting: usize, capacity: usize) -> Queue<Item> {
    let queue = Queue::new(capacity);
    (0..waiting).for_each(|_| queue.push([0; 32]).expect("it holds as many"));
    queue
}
