//! How far a distribution may lie from what was seen of it, at all values and at all times at once.

use std::f64::consts::E;

use crate::probability::Alpha;

/// What the true share below any value differs from the seen one by at most, after `total` values: in all but `alpha`
/// of all cases this holds for all values and after every number of them.
///
/// Howard and Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm
/// identification" (Bernoulli 28, 2022), with the factor 0.85.
pub fn radius(total: u64, alpha: Alpha) -> f64 {
    if total == 0 {
        return 1.0;
    }
    let total = total as f64;
    let inside = ((E * total).ln().ln() + 0.8 * (1612.0 / alpha.get()).ln()) / total;
    (0.85 * inside.sqrt()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_say_nothing_and_many_say_much() {
        let alpha = Alpha::new(0.05).unwrap();
        assert_eq!((radius(0, alpha), radius(1, alpha)), (1.0, 1.0));
        let at = |total| radius(total, alpha);
        assert!(at(100) > at(1000) && at(1_000_000) < 0.003, "{}", at(1_000_000));
        assert!(at(u64::MAX) > 0.0);
    }
}
