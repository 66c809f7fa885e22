//! How far counts lie from what was expected, without the cancellation of large terms.
//!
//! Written with lnΓ alone, the probability of 1,000,000 failures among 10^9 requests is a difference of numbers of
//! 10^10, in which a double loses six digits. Catherine Loader's "Fast and Accurate Computation of Binomial
//! Probabilities" (2000) takes Stirling's leading terms together: what remains is as small as the result.

use std::f64::consts::TAU;

use statrs::function::gamma::ln_gamma;

/// `x ln(x/expected) + expected - x`: 0 where `x` is as expected, else above. Both have to be above 0, or `x` 0.
pub(crate) fn deviance(x: f64, expected: f64) -> f64 {
    if x == 0.0 {
        return expected;
    }
    let (difference, sum) = (x - expected, x + expected);
    if difference.abs() >= 0.1 * sum {
        return x * (x / expected).ln() - difference;
    }
    // The series of ln((1+v)/(1-v)); each term is at most a hundredth of the one before.
    let v = difference / sum;
    let (mut power, mut total) = (2.0 * x * v, difference * v);
    for odd in (3..).step_by(2) {
        power *= v * v;
        let longer = total + power / f64::from(odd);
        if longer == total {
            break;
        }
        total = longer;
    }
    total
}

/// `lnΓ(z) - ((z - 1/2) ln z - z + ln(2π)/2)`, what Stirling's formula lacks, for `z` above 0.
pub(crate) fn stirling_error(z: f64) -> f64 {
    if z < 12.0 {
        return ln_gamma(z) - ((z - 0.5) * z.ln() - z + 0.5 * TAU.ln());
    }
    // B(2k) / (2k (2k-1) z^(2k-1)); the first term left out is below 1e-16.
    let square = 1.0 / (z * z);
    let tail = 1.0 / 1188.0 - square * (691.0 / 360_360.0 - square / 156.0);
    (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square * tail))))
        / z
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_meets_the_formula() {
        for (x, expected) in [(11.0, 10.0), (1e6, 1.1e6), (0.5, 0.55), (3.0, 3.5)] {
            let plain = x * f64::ln(x / expected) + expected - x;
            assert!((deviance(x, expected) / plain - 1.0).abs() < 1e-9, "{x} for {expected}");
        }
        assert_eq!((deviance(0.0, 3.0), deviance(3.0, 3.0)), (3.0, 0.0));
        // x = expected (1 + e), where the deviance is expected e²/2 - expected e³/6.
        let tiny = deviance(1e9 + 1.0, 1e9);
        assert!((tiny - 5e-10).abs() < 1e-18, "{tiny}");
    }

    #[test]
    fn stirlings_error_is_that_of_ln_gamma() {
        // From 30 digits of mpmath; statrs has 13 of them.
        for (z, error) in [
            (0.5, 0.153_426_409_720_027_35),
            (1.0, 0.081_061_466_795_327_26),
            (11.999, 0.006_943_418_458_517_719),
            (12.0, 0.006_942_840_107_209_53),
            (20.0, 0.004_166_319_691_996_922),
            (1e9, 8.333_333_333_333_333e-11),
        ] {
            assert!((stirling_error(z) - error).abs() < 1e-13, "{z}: {} for {error}", stirling_error(z));
        }
    }
}
