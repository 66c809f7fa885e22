//! Who runs, who waits, and what is kept. Futures are polled by hand, so that each step happens when the test
//! says so.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use model::{DataType, Dims, Parameters, Tensor};
use smallvec::smallvec;
use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::backend::InstanceInput;
use crate::batch::Inputs;

struct Fixture {
    cache: Arc<ResponseCache>,
    version: VersionCache,
    statistics: Statistics,
}

fn fixture(limit: u64) -> Fixture {
    let cache = Arc::new(ResponseCache::new(limit));
    let version = VersionCache::new(&cache, true, 4);
    Fixture { cache, version, statistics: Statistics::default() }
}

fn tensor(data: impl Into<Bytes>) -> Tensor {
    let data = data.into();
    let shape = Dims::new(&[i64::try_from(data.len()).unwrap()]);
    Tensor { name: "x".into(), datatype: DataType::Uint8, shape, data }
}

fn answer(data: &[u8]) -> Tensors {
    smallvec![tensor(data.to_vec())]
}

impl Fixture {
    /// Asks for the answer to `question`.
    async fn ask(&self, question: &[u8]) -> Result<Found<'_>, Refused> {
        self.ask_until(question, None).await
    }

    async fn ask_until(&self, question: &[u8], expires: Option<Instant>) -> Result<Found<'_>, Refused> {
        let inputs: Inputs = smallvec![InstanceInput { index: 0, tensor: tensor(question.to_vec()) }];
        let parameters = Parameters::default();
        let asked = Asked { inputs: &inputs, outputs: &[(0, None)], parameters: &parameters };
        self.version.look_up(asked, &self.statistics, Instant::now(), expires).await
    }

    /// Asks when nobody else does, and runs.
    fn miss(&self, question: &[u8]) -> Miss<'_> {
        match poll(pin!(self.ask(question))) {
            Some(Ok(Found::Miss(miss))) => miss,
            _ => panic!("{question:?} was found or is waited for"),
        }
    }

    fn hits_and_misses(&self) -> (u64, u64) {
        let totals = self.statistics.snapshot();
        (totals.cache_hit.count, totals.cache_miss.count)
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[track_caller]
fn check_hit(found: Option<Result<Found<'_>, Refused>>, expected: &[u8]) {
    match found {
        Some(Ok(Found::Hit(outputs))) => assert_eq!(outputs[0].data, expected),
        Some(Ok(Found::Miss(_))) => panic!("a miss"),
        Some(Err(refused)) => panic!("{refused:?}"),
        None => panic!("it waits"),
    }
}

#[test]
fn an_answer_is_found_again_and_only_by_what_asks_the_same() {
    let fixture = fixture(1 << 20);
    fixture.miss(b"one").keep(&answer(b"1"));
    check_hit(poll(pin!(fixture.ask(b"one"))), b"1");
    drop(fixture.miss(b"two"));
    fixture.miss(b"two").keep(&answer(b"2"));
    check_hit(poll(pin!(fixture.ask(b"two"))), b"2");
    check_hit(poll(pin!(fixture.ask(b"one"))), b"1");
    assert_eq!(fixture.hits_and_misses(), (3, 3));
    assert_eq!(fixture.cache.entries(), 2);
}

#[test]
fn whoever_asks_the_same_meanwhile_waits_and_gets_the_one_answer() {
    let fixture = fixture(1 << 20);
    let runs = fixture.miss(b"q");
    let (mut one, mut other) = (pin!(fixture.ask(b"q")), pin!(fixture.ask(b"q")));
    assert!(poll(one.as_mut()).is_none() && poll(other.as_mut()).is_none());
    assert_eq!(fixture.version.waiting(), 2);
    fixture.miss(b"something else").keep(&answer(b"e"));
    assert!(poll(one.as_mut()).is_none());
    runs.keep(&answer(b"a"));
    check_hit(poll(one), b"a");
    check_hit(poll(other), b"a");
    assert_eq!(fixture.hits_and_misses(), (2, 2));
    assert_eq!(fixture.version.waiting(), 0);
}

#[test]
fn when_the_one_that_runs_fails_the_next_runs_and_the_others_go_on_waiting() {
    let fixture = fixture(1 << 20);
    let runs = fixture.miss(b"q");
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(fixture.ask(b"q"))).collect();
    assert!(waiting.iter_mut().all(|waiter| poll(waiter.as_mut()).is_none()));
    drop(runs);
    let mut next = None;
    waiting.retain_mut(|waiter| match poll(waiter.as_mut()) {
        None => true,
        Some(Ok(Found::Miss(miss))) => {
            assert!(next.replace(miss).is_none(), "two run");
            false
        }
        Some(_) => panic!("there is no answer"),
    });
    assert_eq!(waiting.len(), 2);
    next.expect("one runs").keep(&answer(b"a"));
    waiting.iter_mut().for_each(|waiter| check_hit(poll(waiter.as_mut()), b"a"));
    assert_eq!(fixture.hits_and_misses(), (2, 2));
}

#[test]
fn a_client_that_leaves_takes_nobody_with_it() {
    let fixture = fixture(1 << 20);
    let runs = fixture.miss(b"q");
    let mut stays = pin!(fixture.ask(b"q"));
    {
        let mut leaves = pin!(fixture.ask(b"q"));
        assert!(poll(leaves.as_mut()).is_none() && poll(stays.as_mut()).is_none());
    }
    assert_eq!((fixture.version.waiting(), poll(stays.as_mut()).is_none()), (1, true));
    let failures = fixture.statistics.snapshot().failures;
    assert_eq!((failures[Failure::Canceled as usize], failures.iter().sum::<u64>()), (1, 1));
    // Nor does one that leaves when it is its turn to run, and does not know it yet.
    let mut also_leaves = Box::pin(fixture.ask(b"q"));
    assert!(poll(also_leaves.as_mut()).is_none());
    drop(runs);
    drop(also_leaves);
    match poll(stays.as_mut()) {
        Some(Ok(Found::Miss(miss))) => miss.keep(&answer(b"a")),
        _ => panic!("it is its turn"),
    }
    check_hit(poll(pin!(fixture.ask(b"q"))), b"a");
    assert_eq!(fixture.statistics.snapshot().failures[Failure::Canceled as usize], 2);
}

#[test]
fn no_more_wait_than_may_and_none_for_too_long() {
    let fixture = fixture(1 << 20);
    let runs = fixture.miss(b"q");
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(fixture.ask(b"q"))).collect();
    assert!(waiting.iter_mut().all(|waiter| poll(waiter.as_mut()).is_none()));
    assert!(matches!(poll(pin!(fixture.ask(b"q"))), Some(Err(Refused::Full { capacity: 4 }))));
    drop(waiting);
    assert_eq!(fixture.version.waiting(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let late = runtime.block_on(fixture.ask_until(b"q", Some(Instant::now())));
    assert!(matches!(late, Err(Refused::Expired)));
    assert_eq!(fixture.statistics.snapshot().failures[Failure::Rejected as usize], 2);
    runs.keep(&answer(b"a"));
    // What is there is given, however late.
    check_hit(Some(runtime.block_on(fixture.ask_until(b"q", Some(Instant::now())))), b"a");
}

#[test]
fn where_answers_have_an_order_each_request_runs_until_there_is_an_answer() {
    let mut fixture = fixture(1 << 20);
    fixture.version = VersionCache::new(&fixture.cache, false, 4);
    let (one, other) = (fixture.miss(b"q"), fixture.miss(b"q"));
    one.keep(&answer(b"a"));
    check_hit(poll(pin!(fixture.ask(b"q"))), b"a");
    other.keep(&answer(b"a"));
    assert_eq!((fixture.cache.entries(), fixture.hits_and_misses()), (1, (1, 2)));
}

#[test]
fn the_bytes_of_all_entries_stay_within_the_limit() {
    let fixture = fixture(100_000);
    for number in 0..1000_u32 {
        let size = usize::try_from(number % 300 * 10).unwrap();
        fixture.miss(&number.to_le_bytes()).keep(&answer(&vec![7; size]));
        assert!(fixture.cache.bytes() <= 100_000, "{}", fixture.cache.bytes());
    }
    assert!(fixture.cache.bytes() > 80_000, "{}", fixture.cache.bytes());
    assert_eq!(fixture.cache.limit(), 100_000);
    let (before, entries) = (fixture.cache.bytes(), fixture.cache.entries());
    let runs = fixture.miss(b"large");
    let mut waits = pin!(fixture.ask(b"large"));
    assert!(poll(waits.as_mut()).is_none());
    runs.keep(&answer(&vec![7; 100_001]));
    check_hit(poll(waits), &[7; 100_001]);
    assert_eq!((fixture.cache.bytes(), fixture.cache.entries()), (before, entries));
    drop(fixture.miss(b"large"));
}

#[test]
fn an_entry_weighs_what_it_holds_and_holds_no_byte_of_others() {
    let fixture = fixture(1 << 20);
    let batch = Bytes::from(vec![1; 100_000]);
    fixture.miss(&[0; 5000]).keep(&smallvec![tensor(batch.slice(10..1010))]);
    assert!((6000..7000).contains(&fixture.cache.bytes()), "{}", fixture.cache.bytes());
    let Some(Ok(Found::Hit(outputs))) = poll(pin!(fixture.ask(&[0; 5000]))) else { panic!("no hit") };
    assert_eq!(outputs[0].data, vec![1; 1000]);
    assert!(!batch.as_ptr_range().contains(&outputs[0].data.as_ptr()));
    assert!(batch.is_unique(), "nobody holds the batch");
}

#[test]
fn a_version_finds_its_own_answers_alone_and_leaves_none_behind() {
    let mut fixture = fixture(1 << 20);
    fixture.miss(b"q").keep(&answer(b"old"));
    let other = VersionCache::new(&fixture.cache, true, 4);
    let old = std::mem::replace(&mut fixture.version, other);
    fixture.miss(b"q").keep(&answer(b"new"));
    check_hit(poll(pin!(fixture.ask(b"q"))), b"new");
    assert_eq!(fixture.cache.entries(), 2);
    drop(old);
    assert_eq!(fixture.cache.entries(), 1);
    check_hit(poll(pin!(fixture.ask(b"q"))), b"new");
}

#[test]
fn only_models_whose_answers_depend_on_the_request_alone_are_kept() {
    let check = |text: &str| asked_for(&proto::config_text::parse(text, "config.pbtxt").unwrap());
    assert!(check("response_cache { enable: true }"));
    assert!(check("response_cache { enable: true } dynamic_batching { }"));
    assert!(!check(""));
    assert!(!check("response_cache { enable: false }"));
    assert!(!check("response_cache { enable: true } sequence_batching { }"));
    assert!(!check("response_cache { enable: true } model_transaction_policy { decoupled: true }"));
}

struct Runs<'a>(&'a AtomicBool);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Many threads ask a few things; some of those that run fail, and some that wait leave. Each of the rest gets the
/// answer to what it asked, and never do two run for the same.
#[test]
fn under_load_no_two_run_the_same_and_nobody_is_forgotten() {
    const ASKING: u8 = 200;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let mut fixture = fixture(1 << 20);
    fixture.version = VersionCache::new(&fixture.cache, true, 10_000);
    let shared = Arc::new((fixture, [const { AtomicBool::new(false) }; 3]));
    for round in 0..50_u8 {
        let mut asking = JoinSet::new();
        for number in 0..ASKING {
            let shared = Arc::clone(&shared);
            let ask = async move {
                let (fixture, running) = &*shared;
                let what = usize::from(number % 3);
                match fixture.ask(&[round, number % 3]).await {
                    Ok(Found::Hit(outputs)) => assert_eq!(outputs[0].data, vec![round, number % 3]),
                    Err(refused) => panic!("{refused:?}"),
                    Ok(Found::Miss(miss)) => {
                        assert!(!running[what].swap(true, Ordering::SeqCst), "two run the same");
                        let runs = Runs(&running[what]); // dropped before the miss is
                        yield_now().await;
                        drop(runs);
                        // The first few that run fail.
                        if number % 8 != 0 {
                            miss.keep(&answer(&[round, number % 3]));
                        }
                    }
                }
            };
            let handle = asking.spawn_on(ask, runtime.handle());
            if number % 50 == 49 {
                handle.abort();
            }
        }
        runtime.block_on(async {
            while let Some(ended) =
                tokio::time::timeout(Duration::from_secs(60), asking.join_next()).await.unwrap()
            {
                assert!(ended.as_ref().map_or_else(|error| error.is_cancelled(), |()| true), "{ended:?}");
            }
        });
    }
    let (fixture, running) = &*shared;
    assert_eq!(fixture.version.waiting(), 0);
    assert_eq!(fixture.cache.entries(), 150);
    assert!(running.iter().all(|running| !running.load(Ordering::SeqCst)));
}
