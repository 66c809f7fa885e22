//! The rules one by one, and the laws that hold whatever comes in whatever order.

use proptest::prelude::*;

use super::*;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn policy(max_batch_size: u64) -> BatchPolicy {
    BatchPolicy {
        max_batch_size,
        merges: true,
        pads: false,
        preferred: Vec::new(),
        max_delay: Duration::ZERO,
        adaptive_delay: true,
        levels: vec![QueuePolicy::default()],
    }
}

/// A batcher and a clock that the test moves.
struct Bench {
    batcher: Batcher<u32>,
    now: Instant,
    next_id: u32,
    /// By id.
    tickets: Vec<Ticket>,
}

impl Bench {
    fn new(policy: BatchPolicy) -> Bench {
        Bench { batcher: Batcher::new(policy), now: Instant::now(), next_id: 0, tickets: Vec::new() }
    }

    /// Whatever the arrivals are like, the whole delay is waited for.
    fn patient(policy: BatchPolicy) -> Bench {
        Bench::new(BatchPolicy { adaptive_delay: false, ..policy })
    }

    fn push_at(&mut self, level: usize, rows: u64, shape: i64, timeout: Option<Duration>) -> u32 {
        self.push_sized(level, rows, 1, shape, timeout)
    }

    fn push_sized(
        &mut self,
        level: usize,
        rows: u64,
        size: u64,
        shape: i64,
        timeout: Option<Duration>,
    ) -> u32 {
        let deadline = self.batcher.policy.levels[level].deadline(self.now, timeout);
        let id = self.next_id;
        let shape = [shape].into_iter().collect();
        let waiting = Waiting { rows, size, shape, level, queued: self.now, deadline, request: id };
        self.tickets.push(self.batcher.push(waiting, self.now).unwrap());
        self.next_id += 1;
        id
    }

    fn push_each(&mut self, rows: &[u64]) {
        for rows in rows {
            self.push(*rows);
        }
    }

    /// What comes out, if anything does.
    fn next(&mut self) -> (Next, Vec<u32>) {
        let mut batch = Vec::new();
        let next = self.batcher.next(self.now, false, &mut batch);
        (next, batch)
    }

    fn expire(&mut self) -> Vec<u32> {
        let mut expired = Vec::new();
        self.batcher.expire(self.now, &mut expired);
        expired
    }

    fn push(&mut self, rows: u64) -> u32 {
        self.push_at(0, rows, 0, None)
    }

    #[track_caller]
    fn executes(&mut self, expected: &[u32]) {
        assert_eq!(self.next(), (Next::Execute, expected.to_vec()));
        self.batcher.answered(expected.len(), self.now);
    }

    #[track_caller]
    fn waits_for(&mut self, delay: Duration) {
        let (next, batch) = self.next();
        let Next::Wait { until, .. } = next else { panic!("{next:?} {batch:?}") };
        assert_eq!(until - self.now, delay);
    }
}

#[test]
fn without_a_delay_what_waits_runs_at_once_up_to_the_maximum() {
    let mut bench = Bench::patient(policy(8));
    assert_eq!(bench.next(), (Next::WaitForRequest, vec![]));
    bench.push_each(&[3; 3]);
    bench.executes(&[0, 1]);
    bench.executes(&[2]);
    bench.push(8);
    bench.push(1);
    bench.executes(&[3]);
    bench.executes(&[4]);
}

#[test]
fn requests_that_may_not_be_merged_run_alone() {
    let mut bench = Bench::patient(BatchPolicy { merges: false, max_delay: millis(5), ..policy(8) });
    bench.push(1);
    bench.push(1);
    bench.executes(&[0]);
    bench.executes(&[1]);
}

#[test]
fn another_shape_ends_the_batch_and_its_wait() {
    let mut bench = Bench::patient(BatchPolicy { max_delay: millis(5), ..policy(8) });
    bench.push_at(0, 1, 7, None);
    bench.push_at(0, 1, 7, None);
    bench.waits_for(millis(5));
    bench.push_at(0, 1, 9, None);
    bench.executes(&[0, 1]);
    bench.waits_for(millis(5));
}

#[test]
fn a_preferred_size_is_sent_exactly_and_the_rest_waits() {
    let preferred = BatchPolicy { preferred: vec![4, 6], max_delay: millis(5), ..policy(8) };
    let mut bench = Bench::patient(preferred);
    bench.push_each(&[1; 5]);
    bench.executes(&[0, 1, 2, 3]);
    bench.waits_for(millis(5));
    bench.now += millis(5);
    bench.executes(&[4]);
    bench.push_each(&[1; 7]);
    bench.executes(&[5, 6, 7, 8, 9, 10]);
    bench.now += millis(5);
    bench.executes(&[11]);
    bench.push(3);
    bench.push(4);
    bench.executes(&[12, 13]); // no prefix has a preferred size, and the largest is passed
}

#[test]
fn the_delay_counts_from_the_oldest_and_ends_when_the_batch_is_full() {
    let mut bench = Bench::patient(BatchPolicy { max_delay: millis(5), ..policy(4) });
    bench.push(1);
    bench.now += millis(2);
    bench.push(1);
    bench.waits_for(millis(3));
    bench.push(2);
    bench.executes(&[0, 1, 2]);
    bench.push(1);
    bench.now += millis(5);
    bench.executes(&[3]);
}

#[test]
fn a_lone_client_never_pays_the_delay() {
    let mut bench = Bench::new(BatchPolicy { max_delay: millis(500), ..policy(8) });
    for _ in 0..100 {
        let id = bench.push(1);
        bench.now += Duration::from_micros(80);
        bench.executes(&[id]);
        bench.now += Duration::from_micros(20);
    }
}

#[test]
fn higher_priorities_run_first_and_share_a_batch_with_lower_ones() {
    let levels = vec![QueuePolicy::default(); 3];
    let mut bench = Bench::new(BatchPolicy { levels, ..policy(3) });
    for level in [2, 1, 0, 1, 0] {
        bench.push_at(level, 1, 0, None);
    }
    bench.executes(&[2, 4, 1]);
    bench.executes(&[3, 0]);
}

#[test]
fn a_level_that_is_full_takes_no_more() {
    let levels =
        vec![QueuePolicy { max_queue_size: Some(1), ..QueuePolicy::default() }, QueuePolicy::default()];
    let mut bench = Bench::new(BatchPolicy { levels, ..policy(8) });
    bench.push_at(0, 1, 0, None);
    bench.push_at(1, 1, 0, None);
    let shape = [0].into_iter().collect();
    let waiting =
        Waiting { rows: 1, size: 1, shape, level: 0, queued: bench.now, deadline: None, request: 99 };
    assert_eq!(bench.batcher.push(waiting, bench.now), Err(LevelFull { capacity: 1 }));
    bench.executes(&[0, 1]);
}

#[test]
fn what_has_waited_for_too_long_is_refused_or_served_last() {
    let timed = |timeout_action| QueuePolicy {
        default_timeout: Some(millis(10)),
        allow_timeout_override: true,
        timeout_action,
        ..QueuePolicy::default()
    };
    let levels = vec![timed(TimeoutAction::Delay), timed(TimeoutAction::Reject)];
    let mut bench = Bench::new(BatchPolicy { levels, ..policy(2) });
    let delayed = bench.push_at(0, 1, 0, Some(millis(3)));
    let rejected = bench.push_at(1, 1, 0, Some(millis(3)));
    let patient = bench.push_at(1, 1, 0, Some(millis(99))); // may only be shortened
    bench.now += millis(2);
    assert_eq!(bench.expire(), [0_u32; 0]);
    bench.now += millis(1);
    assert_eq!(bench.expire(), [rejected]);
    let fresh = bench.push_at(0, 1, 0, None);
    bench.executes(&[fresh, patient]);
    bench.executes(&[delayed]);
    let late = bench.push_at(1, 1, 0, None);
    bench.now += millis(10);
    assert_eq!(bench.expire(), [late]);
}

#[test]
fn a_timeout_may_only_shorten_one_that_is_there() {
    let now = Instant::now();
    let policy = |default_timeout, allow_timeout_override| QueuePolicy {
        default_timeout,
        allow_timeout_override,
        ..QueuePolicy::default()
    };
    assert_eq!(policy(None, true).deadline(now, Some(millis(1))), None);
    assert_eq!(policy(Some(millis(5)), false).deadline(now, Some(millis(1))), Some(now + millis(5)));
    assert_eq!(policy(Some(millis(5)), true).deadline(now, Some(millis(1))), Some(now + millis(1)));
    assert_eq!(policy(Some(millis(5)), true).deadline(now, Some(millis(9))), Some(now + millis(5)));
}

#[test]
fn a_removed_request_is_gone_and_leaves_its_place_to_others() {
    let mut bench = Bench::new(policy(2));
    bench.push_each(&[1; 4]);
    let [first, second] = [bench.tickets[0], bench.tickets[2]];
    assert_eq!(bench.batcher.remove(second, bench.now), Some(2));
    assert_eq!(bench.batcher.remove(first, bench.now), Some(0));
    assert_eq!(bench.batcher.remove(first, bench.now), None);
    bench.executes(&[1, 3]);
    assert_eq!(bench.batcher.remove(bench.tickets[1], bench.now), None, "it runs");
    assert!(bench.batcher.is_empty());
}

#[test]
fn a_hurry_waits_for_nobody() {
    let mut bench = Bench::patient(BatchPolicy { max_delay: millis(5), ..policy(8) });
    bench.push(1);
    bench.waits_for(millis(5));
    let mut batch = Vec::new();
    assert_eq!(bench.batcher.next(bench.now, true, &mut batch), Next::Execute);
    assert_eq!(batch, [0]);
}

#[test]
fn limits_bound_a_batch_and_its_wait() {
    let mut bench = Bench::patient(policy(8));
    bench.batcher.limit(Limits { work: 3, delay: millis(2) });
    bench.push_each(&[1; 4]);
    bench.executes(&[0, 1, 2]);
    bench.waits_for(millis(2));
    bench.batcher.limit(Limits { work: 99, delay: Duration::ZERO });
    bench.push_each(&[1; 9]);
    bench.executes(&[3, 4, 5, 6, 7, 8, 9, 10]);
}

/// Thirty-two clients that come again when they are answered share their batches, and wait no longer than it takes
/// all of them to come.
#[test]
fn a_closed_loop_fills_its_batches_and_does_not_wait_for_nobody() {
    let mut bench = Bench::new(BatchPolicy { max_delay: millis(100), ..policy(64) });
    let mut sizes = Vec::new();
    for _ in 0..20 {
        for client in 0..32 {
            bench.push(1);
            bench.now += Duration::from_micros(4);
            if client < 31 && sizes.len() > 2 {
                let (next, batch) = bench.next();
                assert!(matches!(next, Next::Wait { .. }), "{client}: {batch:?}");
            }
        }
        while let (Next::Execute, batch) = bench.next() {
            bench.now += Duration::from_micros(100);
            bench.batcher.answered(batch.len(), bench.now);
            sizes.push(batch.len());
        }
        assert!(bench.batcher.is_empty(), "nobody is left to come");
    }
    assert_eq!(sizes, [32; 20]);
}

/// Something that happens to a batcher.
fn padding(policy: BatchPolicy) -> Bench {
    let mut bench = Bench::new(BatchPolicy { pads: true, ..policy });
    bench.batcher.learned(RunCost { base: 1.0, work: 1e-3, ..RunCost::default() });
    bench
}

#[test]
fn a_lower_priority_of_the_fitting_size_takes_no_higher_ones_place() {
    let levels = vec![QueuePolicy::default(); 2];
    let mut bench = padding(BatchPolicy { levels, ..policy(2) });
    let high = [10, 20].map(|size| bench.push_sized(0, 1, size, 0, None));
    let low = bench.push_sized(1, 1, 10, 0, None);
    assert_eq!(bench.next(), (Next::Execute, high.to_vec()));
    let next = bench.push_sized(0, 1, 10, 0, None);
    assert_eq!(bench.next(), (Next::Execute, vec![next, low]), "it fills what room is left");
}

/// Those that had waited for too long were chosen and not found, so that a batch was smaller than thought.
#[test]
fn what_has_waited_for_too_long_runs_together_padded_too() {
    let late = QueuePolicy {
        default_timeout: Some(millis(1)),
        timeout_action: TimeoutAction::Delay,
        ..QueuePolicy::default()
    };
    let mut bench = padding(BatchPolicy { levels: vec![late], ..policy(3) });
    let delayed = [10, 11].map(|size| bench.push_sized(0, 1, size, 0, None));
    bench.now += millis(2);
    bench.expire();
    let in_time = bench.push_sized(0, 1, 10, 0, None);
    assert_eq!(bench.next(), (Next::Execute, vec![in_time, delayed[0]]), "one that is longer is no filling");
    let gone = bench.tickets[delayed[1] as usize];
    assert_eq!(bench.batcher.remove(gone, bench.now), Some(delayed[1]), "its client may leave");
    assert!(bench.batcher.is_empty());
}

#[test]
fn one_of_another_size_may_not_join() {
    let bench = {
        let mut bench = Bench::new(BatchPolicy { pads: true, max_delay: millis(500), ..policy(8) });
        bench.push_sized(0, 1, 10, 0, None);
        bench
    };
    let of = |size| Waiting {
        rows: 1,
        size,
        shape: [0].into_iter().collect(),
        level: 0,
        queued: bench.now,
        deadline: None,
        request: 9,
    };
    assert_eq!([10, 50].map(|size| bench.batcher.joins_the_next(&of(size))), [true, false]);
}

#[derive(Clone, Debug)]
enum Event {
    Push { level: usize, rows: u64, size: u64, shape: i64, timeout_ms: Option<u64> },
    Pass { micros: u64 },
    Ask,
    Leave { one_in: u32 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..2_usize, 1..6_u64, 1..40_u64, 0..2_i64, proptest::option::of(0..4_u64)).prop_map(
            |(level, rows, size, shape, timeout_ms)| Event::Push { level, rows, size, shape, timeout_ms }
        ),
        2 => (0..3000_u64).prop_map(|micros| Event::Pass { micros }),
        3 => Just(Event::Ask),
        1 => (2..5_u32).prop_map(|one_in| Event::Leave { one_in }),
    ];
    proptest::collection::vec(event, 0..120)
}

fn policies() -> impl Strategy<Value = BatchPolicy> {
    let level = (any::<bool>(), proptest::option::of(1..4_u64)).prop_map(|(reject, timeout)| QueuePolicy {
        max_queue_size: None,
        default_timeout: timeout.map(millis),
        allow_timeout_override: true,
        timeout_action: if reject { TimeoutAction::Reject } else { TimeoutAction::Delay },
    });
    (
        1..9_u64,
        proptest::collection::vec(1..9_u64, 0..3),
        0..3_u64,
        [level.clone(), level],
        [any::<bool>(), any::<bool>(), any::<bool>()],
    )
        .prop_map(|(max_batch_size, mut preferred, delay, levels, [merges, pads, adaptive_delay])| {
            preferred.retain(|size| *size <= max_batch_size);
            preferred.sort_unstable();
            preferred.dedup();
            let max_delay = millis(delay);
            BatchPolicy {
                max_batch_size,
                merges,
                pads,
                preferred,
                max_delay,
                adaptive_delay,
                levels: levels.to_vec(),
            }
        })
}

proptest! {
    /// Nothing is lost, nothing comes out twice, no batch is over the limit or of two shapes, the next to run is in it,
    /// what is of one level (and, where requests are padded, of one shape and size) and did not expire keeps its order,
    /// and nobody waits beyond the delay while an instance asks.
    #[test]
    fn the_laws_hold(policy in policies(), known: bool, events in events()) {
        let max = policy.max_batch_size;
        let (merges, pads, max_delay) = (policy.merges, policy.pads, policy.max_delay);
        let mut bench = Bench::new(policy);
        if known {
            bench.batcher.learned(RunCost { base: 1e-3, work: 1e-4, ..RunCost::default() });
        }
        let mut pushed: Vec<(usize, u64, i64, u64)> = Vec::new();
        let mut out: Vec<u32> = Vec::new();
        let mut last_in_time = std::collections::HashMap::new();
        let mut was_late = Vec::new();
        for event in events {
            match event {
                Event::Push { level, rows, size, shape, timeout_ms } => {
                    let rows = rows.min(max);
                    bench.push_sized(level, rows, size, shape, timeout_ms.map(millis));
                    pushed.push((level, rows, shape, size));
                    was_late.push(false);
                }
                Event::Pass { micros } => bench.now += Duration::from_micros(micros),
                Event::Leave { one_in } => {
                    let leaving = bench.tickets.iter().step_by(one_in as usize);
                    out.extend(leaving.filter_map(|ticket| bench.batcher.remove(*ticket, bench.now)));
                }
                Event::Ask => {
                    out.extend(bench.expire());
                    for level in &bench.batcher.levels {
                        level.delayed().for_each(|(_, late)| was_late[late.request as usize] = true);
                    }
                    let first = bench.batcher.in_order().next().map(|(_, next)| next.request);
                    let peeked = bench.batcher.peek(bench.now, false);
                    let (next, batch) = bench.next();
                    prop_assert_eq!(peeked, next);
                    match next {
                        Next::WaitForRequest => prop_assert!(bench.batcher.is_empty()),
                        Next::Wait { until, missing_rows, .. } => {
                            prop_assert!(until > bench.now && missing_rows > 0);
                            for (_, waiting) in bench.batcher.in_order() {
                                prop_assert!(bench.now < waiting.queued + max_delay);
                            }
                        }
                        Next::Execute => {
                            prop_assert_eq!(batch.first().copied(), first);
                            prop_assert!(merges || batch.len() == 1);
                            let of = |id: &u32| pushed[*id as usize];
                            prop_assert!(batch.iter().map(|id| of(id).1).sum::<u64>() <= max);
                            prop_assert!(batch.iter().all(|id| of(id).2 == of(&batch[0]).2));
                            for id in batch.iter().filter(|id| !was_late[**id as usize]) {
                                let (level, _, shape, size) = of(id);
                                let alike = if pads { (shape, size) } else { (0, 1) };
                                let last = last_in_time.insert((level, alike), *id);
                                prop_assert!(last.is_none_or(|last| last < *id), "{:?} before {}", last, id);
                            }
                            bench.batcher.answered(batch.len(), bench.now);
                            out.extend(batch);
                        }
                    }
                }
            }
        }
        let rows: u64 = bench.batcher.levels.iter().flat_map(Level::waiting).map(|(_, waiting)| waiting.rows).sum();
        prop_assert_eq!(bench.batcher.ahead(1).rows, rows);
        out.extend(bench.batcher.take_all(bench.now));
        out.sort_unstable();
        prop_assert_eq!(out, (0..u32::try_from(pushed.len()).unwrap()).collect::<Vec<_>>());
    }
}
