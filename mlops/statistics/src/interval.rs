//! Is the rate of failures below a limit? And how many requests it takes to know.
//!
//! The bounds of Clopper and Pearson (Biometrika 26, 1934), which hold for every rate and number of requests. Unlike
//! [`crate::rate`] they hold for one look: a rollout looks when its time is over. Each further look after an extension
//! may err as often as the first.

use crate::beta::{Beta, LnSides, Point};
use crate::counts::Counts;
use crate::probability::{Alpha, Rate};

/// The rate that the true one is below, but for one time in `1/alpha`.
pub fn upper(counts: Counts, alpha: Alpha) -> f64 {
    let (failures, successes) = counts.split();
    let ln_alpha = alpha.get().ln();
    match (failures, successes) {
        (_, 0.0) => 1.0,
        (0.0, _) => -(ln_alpha / successes).exp_m1(),
        _ => quantile(Beta { a: failures + 1.0, b: successes }, ln_alpha, Side::Above),
    }
}

/// The rate that the true one is above, but for one time in `1/alpha`.
pub fn lower(counts: Counts, alpha: Alpha) -> f64 {
    let (failures, successes) = counts.split();
    let ln_alpha = alpha.get().ln();
    match (failures, successes) {
        (0.0, _) => 0.0,
        (_, 0.0) => (ln_alpha / failures).exp(),
        _ => quantile(Beta { a: failures, b: successes + 1.0 }, ln_alpha, Side::Below),
    }
}

/// True when [`upper`] is below `limit`: with a rate at the limit, so few failures would be seen less often than
/// `alpha`.
pub fn is_below(counts: Counts, limit: Rate, alpha: Alpha) -> bool {
    let (failures, _) = counts.split();
    counts.total() > counts.failures() && is_rare(failures, counts.total() as f64, limit, alpha)
}

/// About how many more requests it takes until [`is_below`], if they fail at the rate of those so far; `None` when
/// this is the limit or above, so that no number would do.
pub fn more_needed(counts: Counts, limit: Rate, alpha: Alpha) -> Option<u64> {
    if is_below(counts, limit, alpha) {
        return Some(0);
    }
    let rate = counts.rate();
    if rate >= limit.get() {
        return None;
    }
    let suffice = |total: u64| is_rare(rate * total as f64, total as f64, limit, alpha);
    let (mut too_few, mut enough) = (counts.total(), counts.total().max(1));
    while !suffice(enough) {
        too_few = enough;
        // A rate so close to the limit is not told from it in the life of a server.
        enough = enough.checked_mul(2).filter(|total| *total < MOST)?;
    }
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if suffice(middle) { enough = middle } else { too_few = middle }
    }
    Some(enough - counts.total())
}

/// A million requests a second for a century.
const MOST: u64 = 1 << 52;

/// Whether at most so many failures have less than `alpha`'s probability at the limit. Failures may be a fraction:
/// what is expected.
fn is_rare(failures: f64, total: f64, limit: Rate, alpha: Alpha) -> bool {
    let distribution = Beta { a: failures + 1.0, b: total - failures };
    distribution.ln_sides(Point::new(limit.get())).above < alpha.get().ln()
}

/// The part of a distribution that a quantile cuts off.
#[derive(Clone, Copy, Debug)]
enum Side {
    Below,
    Above,
}

impl Side {
    fn of(self, sides: LnSides) -> f64 {
        match self {
            Side::Below => sides.below,
            Side::Above => sides.above,
        }
    }

    /// Whether more is cut off further to the right.
    fn sign(self) -> f64 {
        match self {
            Side::Below => 1.0,
            Side::Above => -1.0,
        }
    }
}

/// Where `side` has the probability `e^ln_part`: Newton's method on the logarithms of both, in which the sides of a
/// Beta distribution are concave, so that each step comes nearer after the first. A bracket catches what leaves [0, 1].
fn quantile(distribution: Beta, ln_part: f64, side: Side) -> f64 {
    let mut x = distribution.a / (distribution.a + distribution.b);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..MOST_STEPS {
        let at = Point::new(x);
        let ln_side = side.of(distribution.ln_sides(at));
        let surplus = (ln_side - ln_part) * side.sign();
        if surplus > 0.0 {
            high = x
        } else {
            low = x
        }
        // Over the slope d ln(side) / d ln(x).
        let ln_density = distribution.ln_kernel(at) - at.y.ln();
        let mut next = x * (-surplus * (ln_side - ln_density).exp()).exp();
        if !(low < next && next < high) {
            next = 0.5 * (low + high);
        }
        let step = (next - x).abs();
        x = next;
        if step <= 1e-14 * x {
            break;
        }
    }
    x
}

/// Newton takes fewer than 20, and bisection in doubles no more.
const MOST_STEPS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn more(failures: u64, total: u64, limit: f64) -> Option<u64> {
        more_needed(Counts::new(failures, total), Rate::new(limit).unwrap(), Alpha::new(0.05).unwrap())
    }

    #[test]
    fn it_tells_how_many_requests_a_limit_takes() {
        assert_eq!(more(0, 0, 0.001), Some(2995));
        assert_eq!(more(0, 2994, 0.001), Some(1));
        assert_eq!(more(0, 2995, 0.001), Some(0));
        assert_eq!(more(0, 0, 0.05), Some(59));
        assert_eq!(more(0, 0, 0.01), Some(299));
        // From scipy: where 1 - betainc(0.0005 n + 1, n - 0.0005 n, 0.001) falls below 0.05, and so on.
        assert_eq!(more(1, 2000, 0.001), Some(11_529 - 2000));
        assert_eq!(more(8, 10_000, 0.001), Some(69_587 - 10_000));
        assert_eq!(more(2, 100, 0.05), Some(157 - 100));
    }

    #[test]
    fn no_number_suffices_at_the_limit_or_above() {
        assert_eq!(more(1, 1000, 0.001), None);
        assert_eq!(more(1, 1, 0.001), None);
        assert_eq!(more(u64::MAX, u64::MAX, 0.5), None);
        assert_eq!(more(999_999_999_999, 1_000_000_000_000_000, 0.001), None, "as good as the limit");
    }

    #[test]
    fn the_promise_is_kept_to_within_one_request() {
        for (failures, total, limit) in [(1, 2000, 0.001), (3, 100, 0.05), (0, 3, 0.5), (90, 100_000, 0.001)]
        {
            let needed = total + more(failures, total, limit).unwrap();
            let rate = failures as f64 / total as f64;
            let (limit, alpha) = (Rate::new(limit).unwrap(), Alpha::new(0.05).unwrap());
            assert!(is_rare(rate * needed as f64, needed as f64, limit, alpha));
            assert!(!is_rare(rate * (needed - 1) as f64, (needed - 1) as f64, limit, alpha));
        }
    }

    #[test]
    fn the_bound_and_the_question_agree() {
        let alpha = Alpha::new(0.05).unwrap();
        for (failures, total) in [(0, 1), (0, 59), (3, 100), (99, 100), (7, 18_000), (500_000, 1_000_000)] {
            let counts = Counts::new(failures, total);
            let bound = upper(counts, alpha);
            for (limit, below) in [(bound * (1.0 + 1e-9), true), (bound * (1.0 - 1e-9), false)] {
                if let Ok(limit) = Rate::new(limit) {
                    assert_eq!(is_below(counts, limit, alpha), below, "{counts:?} for {limit:?}");
                }
            }
        }
        assert_eq!((upper(Counts::default(), alpha), lower(Counts::default(), alpha)), (1.0, 0.0));
        assert!(!is_below(Counts::default(), Rate::new(0.999).unwrap(), alpha));
    }
}
