//! What a run costs, learned from every run: time(rows, size) of one model version.
//!
//! The time of a run is taken to be `base + work · a + work · size · b`, where the size of a row is the number of
//! its elements in inputs whose shape is open (1 where none is), and the work is rows times size. The base is what a
//! run costs however small it is (weights that are read, layers that are started), the second term what grows with
//! the input, the third what grows with its square, as attention does. Three numbers are few enough to be known
//! after some ten runs, and follow a machine that gets slower.
//!
//! They are found by recursive least squares of the relative error, with forgetting; see L. Ljung, System
//! Identification, §11.2.

use std::time::Duration;

use crate::batcher::{Load, RunCost};

/// How much a run still weighs after the next one: half after some 140 runs.
const MEMORY: f64 = 0.995;

/// Runs before anything is said.
const FIRST_RUNS: u64 = 16;

/// A run that takes this many times what was expected was interrupted; it counts as this many times at most.
const LARGEST_SURPRISE: f64 = 4.0;

/// How uncertain the numbers are at first and at most: their variance, in squares of the first run's time.
const FIRST_UNCERTAINTY: f64 = 100.0;

type Terms = [f64; 3];

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct CostModel {
    /// What the first run's terms were; all terms are divided by it, so that they are near 1.
    scale: Option<Terms>,
    /// The size of its rows.
    first_size: u64,
    /// Rows had another size than 1; else the third term is the second, and is left out.
    sized: bool,
    /// How long it took.
    seconds_of_first: f64,
    /// Seconds for each scaled term.
    weights: Terms,
    covariance: [Terms; 3],
    runs: u64,
    /// Mean of |expected - seen| / seen, of late.
    error: f64,
    /// The shortest run; half of it is the least that is ever expected.
    shortest: f64,
}

/// What was learned, to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LearnedCost {
    /// Runs that it was learned from.
    pub runs: u64,
    /// Expected time of a run of one row of the size that was seen first, in seconds; 0 before it is known.
    pub one_row: f64,
    /// Time of each row more, in seconds.
    pub per_row: f64,
    /// Mean of |expected - seen| / seen, of late.
    pub error: f64,
}

impl Default for CostModel {
    fn default() -> CostModel {
        CostModel {
            scale: None,
            first_size: 1,
            sized: false,
            seconds_of_first: 0.0,
            weights: [0.0; 3],
            covariance: [[0.0; 3]; 3],
            runs: 0,
            error: 0.0,
            shortest: f64::MAX,
        }
    }
}

impl CostModel {
    /// A run of `rows` rows of `size` each took `took`.
    pub(crate) fn saw(&mut self, rows: u64, size: u64, took: Duration) {
        let mut seconds = took.as_secs_f64().max(1e-9);
        let raw = terms(rows, size);
        let scale = *self.scale.get_or_insert(raw);
        if self.runs == 0 {
            self.first_size = size;
            self.seconds_of_first = seconds;
            self.covariance = diagonal(seconds * seconds * FIRST_UNCERTAINTY);
            // All of the first run is taken for base, until others show what grows.
            self.weights = [seconds, 0.0, 0.0];
        }
        if self.runs >= FIRST_RUNS {
            let expected = self.seconds(rows, size);
            self.error += ((expected - seconds).abs() / seconds - self.error) * (1.0 - MEMORY);
            seconds = seconds.min(expected * LARGEST_SURPRISE);
        }
        self.runs += 1;
        self.sized |= size != 1;
        self.shortest = self.shortest.min(seconds);
        let mut terms = divided(raw, scale);
        if !self.sized {
            terms[2] = 0.0;
        }
        self.learn(terms, seconds);
    }

    /// One step of least squares, weighted by 1 / seconds², so that relative errors count.
    fn learn(&mut self, terms: Terms, seconds: f64) {
        let terms = terms.map(|term| term / seconds);
        let projected: Terms = std::array::from_fn(|row| dot(self.covariance[row], terms));
        let gain = projected.map(|value| value / (MEMORY + dot(terms, projected)));
        let surprise = 1.0 - dot(self.weights, terms);
        for ((weight, row), gain) in self.weights.iter_mut().zip(&mut self.covariance).zip(gain) {
            *weight += gain * surprise;
            row.iter_mut()
                .zip(projected)
                .for_each(|(value, known)| *value = (*value - gain * known) / MEMORY);
        }
        self.bound();
    }

    /// What the runs tell nothing of gets less certain without end: bounded here, by scaling row and column, which
    /// keeps the matrix one of covariances. Rounding is taken out of it, too.
    fn bound(&mut self) {
        let most = self.seconds_of_first * self.seconds_of_first * FIRST_UNCERTAINTY;
        let shrink: Terms = std::array::from_fn(|index| {
            let variance = self.covariance[index][index];
            if variance > most { (most / variance).sqrt() } else { 1.0 }
        });
        let covariance = self.covariance;
        for (row, values) in self.covariance.iter_mut().enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                let even = f64::midpoint(covariance[row][column], covariance[column][row]);
                *value = even * shrink[row] * shrink[column];
            }
        }
        let finite =
            self.weights.iter().chain(self.covariance.iter().flatten()).all(|value| value.is_finite());
        let definite = (0..3).all(|index| self.covariance[index][index] >= 0.0);
        if !finite || !definite {
            self.covariance = diagonal(most);
            self.weights = self.weights.map(|weight| if weight.is_finite() { weight } else { 0.0 });
        }
    }

    /// How long a run of `rows` rows of `size` each is likely to take; `None` while too few were seen.
    pub(crate) fn expected(&self, rows: u64, size: u64) -> Option<Duration> {
        if self.runs < FIRST_RUNS {
            return None;
        }
        Duration::try_from_secs_f64(self.seconds(rows, size)).ok()
    }

    /// The cost of runs as a formula; `None` while too few were seen.
    pub(crate) fn run_cost(&self) -> Option<RunCost> {
        if self.runs < FIRST_RUNS {
            return None;
        }
        let [base, work, square] = divided(self.weights, self.scale.unwrap_or([1.0; 3]));
        let square = if self.sized { square } else { 0.0 };
        Some(RunCost { base, work, square, least: self.shortest / 2.0 })
    }

    /// How long `instances` take at least for `load` in so many `runs` together; `None` while too few runs were seen.
    /// What runs already is left out: it may be done any moment.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn least(&self, runs: u64, load: Load, instances: usize) -> Option<Duration> {
        if self.runs < FIRST_RUNS {
            return None;
        }
        let scale = self.scale.unwrap_or([1.0; 3]);
        let square = if self.sized { load.square as f64 } else { 0.0 };
        // The part of the load that does not fill a run joins the request that asks.
        let terms = divided([runs as f64, load.work as f64, square], scale);
        let seconds = dot(self.weights, terms).max(runs as f64 * self.shortest / 2.0);
        let full = if runs == 0 { 0.0 } else { seconds };
        let surely = full * (1.0 - self.error.min(0.9)) / instances.max(1) as f64;
        Duration::try_from_secs_f64(surely).ok()
    }

    /// The most rows of `size`, at least 1 and `most` at most, that are likely to run within `time`; `None` while too
    /// few runs were seen.
    pub(crate) fn rows_within(&self, time: Duration, size: u64, most: u64) -> Option<u64> {
        let fits = |rows| Some(self.expected(rows, size)? <= time);
        let (mut enough, mut too_many) = (1, most + 1);
        while too_many - enough > 1 {
            let middle = enough + (too_many - enough) / 2;
            if fits(middle)? { enough = middle } else { too_many = middle }
        }
        fits(enough).map(|_| enough)
    }

    /// What was learned.
    pub(crate) fn learned(&self) -> LearnedCost {
        if self.runs < FIRST_RUNS {
            return LearnedCost { runs: self.runs, ..LearnedCost::default() };
        }
        let (one, two) = (self.seconds(1, self.first_size), self.seconds(2, self.first_size));
        LearnedCost { runs: self.runs, one_row: one, per_row: two - one, error: self.error }
    }

    fn seconds(&self, rows: u64, size: u64) -> f64 {
        let mut terms = divided(terms(rows, size), self.scale.unwrap_or([1.0; 3]));
        if !self.sized {
            terms[2] = 0.0;
        }
        dot(self.weights, terms).max(self.shortest / 2.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn terms(rows: u64, size: u64) -> Terms {
    let (rows, size) = (rows as f64, size as f64);
    [1.0, rows * size, rows * size * size]
}

fn diagonal(value: f64) -> [Terms; 3] {
    std::array::from_fn(|row| std::array::from_fn(|column| if row == column { value } else { 0.0 }))
}

fn divided(terms: Terms, scale: Terms) -> Terms {
    std::array::from_fn(|index| terms[index] / scale[index])
}

fn dot(a: Terms, b: Terms) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of changing rows and sizes at the times that `cost` says, each off by up to a tenth.
    fn learned(runs: usize, sizes: &[u64], cost: impl Fn(u64, u64) -> f64) -> CostModel {
        let mut model = CostModel::default();
        let mut random = 1_u64;
        for run in 0..runs {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (rows, size) = (1 + (random >> 33) % 32, sizes[run % sizes.len()]);
            let noise = 1.0 + f64::from(u8::try_from(random >> 56).unwrap()) / 2550.0;
            model.saw(rows, size, Duration::from_secs_f64(cost(rows, size) * noise));
        }
        model
    }

    #[track_caller]
    fn close(model: &CostModel, rows: u64, size: u64, expected: f64) {
        let got = model.expected(rows, size).unwrap().as_secs_f64();
        assert!((got / expected - 1.0).abs() < 0.2, "{rows} of {size}: {got} instead of {expected}");
    }

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        let cost = |_, _| 1e-3;
        assert_eq!(learned(15, &[1], cost).expected(1, 1), None);
        assert!(learned(16, &[1], cost).expected(1, 1).is_some());
    }

    #[test]
    fn the_cost_of_rows_is_learned() {
        let cost = |rows: u64, _| 50e-6 + 2e-6 * rows as f64;
        let model = learned(100, &[1], cost);
        [1, 8, 32].into_iter().for_each(|rows| close(&model, rows, 1, cost(rows, 1)));
        let shown = model.learned();
        assert!((1.6e-6..2.6e-6).contains(&shown.per_row), "{shown:?}");
        assert!(shown.error < 0.1, "{shown:?}");
    }

    /// As measured of MiniLM on two threads: 4 ms, 30 µs a token, and a little that grows with its square.
    #[test]
    fn the_cost_of_lengths_is_learned() {
        let cost = |rows: u64, size: u64| {
            let tokens = (rows * size) as f64;
            2e-3 + 70e-6 * tokens + 0.2e-6 * tokens * size as f64
        };
        let model = learned(300, &[4, 16, 30, 64, 128], cost);
        for (rows, size) in [(1, 4), (1, 128), (8, 30), (32, 16), (4, 100)] {
            close(&model, rows, size, cost(rows, size));
        }
    }

    #[test]
    fn the_formula_says_what_the_model_expects() {
        assert_eq!(learned(15, &[8], |_, _| 1e-3).run_cost(), None);
        // A request of size 1, whoever sends it first, must not hide what grows with the square.
        for sizes in [&[1][..], &[4, 16, 30, 64], &[1, 16, 64, 256]] {
            let cost = |rows: u64, size: u64| {
                4e-3 + (rows * size) as f64 * (if size == 1 { 5e-6 } else { 5e-6 + 3e-7 * size as f64 })
            };
            let model = learned(400, sizes, cost);
            let formula = model.run_cost().unwrap();
            for (rows, size) in
                [1, 9, 30].into_iter().flat_map(|rows| sizes.iter().map(move |size| (rows, *size)))
            {
                let expected = model.expected(rows, size).unwrap().as_secs_f64();
                assert!((formula.seconds(rows, size) / expected - 1.0).abs() < 1e-6, "{formula:?}");
                close(&model, rows, size, cost(rows, size));
            }
        }
    }

    #[test]
    fn an_interruption_is_forgiven_and_a_slower_machine_noticed() {
        let mut model = learned(200, &[1], |rows, _| 1e-3 + 1e-4 * rows as f64);
        model.saw(8, 1, Duration::from_secs(5));
        close(&model, 8, 1, 1.8e-3);
        for _ in 0..600 {
            model.saw(8, 1, Duration::from_secs_f64(3.6e-3));
        }
        close(&model, 8, 1, 3.6e-3);
    }

    #[test]
    fn the_least_wait_is_what_full_runs_ahead_take_on_all_instances() {
        let model = learned(400, &[10, 40], |rows, size| 1e-3 + 1e-4 * (rows * size) as f64);
        let load = |rows: u64, size: u64| Load {
            requests: rows,
            rows,
            work: u128::from(rows * size),
            square: u128::from(rows * size * size),
        };
        let close = |runs, load, instances, millis: f64| {
            let wait = model.least(runs, load, instances).unwrap().as_secs_f64() * 1e3;
            assert!((0.75 * millis..=1.06 * millis).contains(&wait), "{wait} ms instead of {millis}");
        };
        assert_eq!(model.least(0, load(7, 10), 1), Some(Duration::ZERO), "it joins them");
        close(10, load(80, 10), 1, 90.0);
        close(10, load(80, 10), 2, 45.0);
        close(10, load(40, 10).plus(load(40, 40)), 1, 210.0);
        assert_eq!(CostModel::default().least(10, load(80, 10), 1), None);
    }

    #[test]
    fn as_many_rows_fit_as_their_time_says() {
        let model = learned(100, &[1], |rows, _| 1e-3 + 1e-3 * rows as f64);
        let rows = |millis, most| model.rows_within(Duration::from_millis(millis), 1, most);
        assert_eq!(rows(0, 32), Some(1), "one must run, however long it takes");
        assert!((8..=10).contains(&rows(10, 32).unwrap()), "{:?}", rows(10, 32));
        assert_eq!((rows(1000, 32), rows(10, 4)), (Some(32), Some(4)));
        assert_eq!(CostModel::default().rows_within(Duration::from_secs(1), 1, 8), None);
    }

    /// The same batch again and again teaches one number; the others must neither run away nor become what is no
    /// number, and what comes after is learned.
    #[test]
    fn a_million_runs_of_one_size_keep_the_numbers_sound() {
        for size in [1, 30] {
            let mut model = CostModel::default();
            let mut random = 1_u64;
            let mut noise = || {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                1.0 + f64::from(u8::try_from(random >> 56).unwrap()) / 2550.0
            };
            for _ in 0..1_000_000 {
                model.saw(8, size, Duration::from_secs_f64(2e-3 * noise()));
            }
            close(&model, 8, size, 2.1e-3);
            let other = model.expected(16, size).unwrap();
            assert!(other < Duration::from_millis(20), "{other:?}");
            for run in 0..1000 {
                let rows = 1 + run % 16;
                model.saw(rows, size, Duration::from_secs_f64((1e-3 + 1e-4 * rows as f64) * noise()));
            }
            close(&model, 16, size, 2.6e-3 * 1.05);
        }
    }
}
