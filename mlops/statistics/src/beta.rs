//! The Beta distribution's two sides, in logarithms, however small a side is and however large the parameters.
//!
//! statrs has the regularized incomplete beta function, but not its logarithm, takes one side as 1 less the other,
//! and stops after 140 terms, which is too early where both parameters are large.

use std::f64::consts::{LN_2, TAU};

use crate::deviance::{deviance, stirling_error};
use crate::quadrature::integral;

/// Where a distribution is asked: `x`, and `y = 1 - x`, so that neither is lost next to 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

impl Point {
    pub(crate) fn new(x: f64) -> Point {
        Point { x, y: 1.0 - x }
    }

    pub(crate) fn swapped(self) -> Point {
        Point { x: self.y, y: self.x }
    }
}

/// A Beta distribution; both parameters are above 0 and finite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beta {
    pub(crate) a: f64,
    pub(crate) b: f64,
}

/// The logarithms of the probabilities below and above a point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LnSides {
    pub(crate) below: f64,
    pub(crate) above: f64,
}

impl Beta {
    /// Both sides of `at`; the smaller one is exact to some 1e-13 of itself.
    pub(crate) fn ln_sides(self, at: Point) -> LnSides {
        let kernel = self.ln_kernel(at);
        if self.mean_is_above(at) {
            let below = (kernel + self.tail(at).ln()).min(0.0);
            LnSides { below, above: ln_rest(below) }
        } else {
            let above = (kernel + self.swapped().tail(at.swapped()).ln()).min(0.0);
            LnSides { below: ln_rest(above), above }
        }
    }

    /// `ln(x^a y^b / B(a, b))`, in Loader's form.
    pub(crate) fn ln_kernel(self, at: Point) -> f64 {
        let Beta { a, b } = self;
        let n = a + b;
        let errors = stirling_error(n) - stirling_error(a) - stirling_error(b);
        // The quotient first: a b overflows for no parameter that n does not.
        0.5 * (a / n * b / TAU).ln() + errors - deviance(a, n * at.x) - deviance(b, n * at.y)
    }

    /// The probability below `at` over its kernel, that is `∫ t^(a-1) (1-t)^(b-1) dt` from 0 to x, over `x^a y^b`,
    /// for a point that is not above the mean.
    pub(crate) fn tail(self, at: Point) -> f64 {
        if self.a.min(self.b) > MANY { self.tail_by_quadrature(at) } else { self.tail_by_fraction(at) }
    }

    /// True when `tail` may be asked at this point, and otherwise of the other side.
    pub(crate) fn mean_is_above(self, at: Point) -> bool {
        self.a * at.y >= self.b * at.x
    }

    pub(crate) fn swapped(self) -> Beta {
        Beta { a: self.b, b: self.a }
    }

    /// The continued fraction of DiDonato and Morris (ACM TOMS 708, 1992, BFRAC) by Lentz's method. Below the mean
    /// it takes some √min(a, b) steps.
    fn tail_by_fraction(self, Point { x, y }: Point) -> f64 {
        let Beta { a, b } = self;
        let lambda = a * y - b * x;
        let mut reciprocal = 1.0 / (a + 1.0);
        let mut c = a * (lambda + 1.0) * reciprocal;
        let mut d = 0.0;
        let mut fraction = c;
        for step in 1..MOST_STEPS {
            let n = f64::from(step);
            let part = n * (b - n) * x * reciprocal;
            let alpha = (a + n - 1.0) * (a + b + n - 1.0) * x * reciprocal * part;
            reciprocal = 1.0 / (a + 2.0 * n + 1.0);
            let beta = n + part + (a + n) * (lambda + 1.0 + n * (1.0 + y)) * reciprocal;
            d = 1.0 / (beta + alpha * d);
            c = beta + alpha / c;
            let factor = c * d;
            fraction *= factor;
            if (factor - 1.0).abs() < 1e-15 {
                break;
            }
        }
        1.0 / fraction
    }

    /// The integral itself, with t = x (1 - u): its integrand falls from u = 0 on, as e^-u or e^-u² where both
    /// parameters are large.
    fn tail_by_quadrature(self, Point { x, y }: Point) -> f64 {
        let (left, right, odds) = (self.a - 1.0, self.b - 1.0, x / y);
        let exponent = |u: f64| left * (-u).ln_1p() + right * (u * odds).ln_1p();
        let slope = (left - right * odds).max(0.0);
        let bend = left + right * odds * odds;
        // Where a parabola with this slope and bend has fallen by 40; the exponent itself falls more slowly.
        let mut end = 80.0 / (slope + (slope * slope + 80.0 * bend).sqrt());
        while end < 1.0 && exponent(end) > -38.0 {
            end *= 1.1;
        }
        integral(end.min(1.0), |u| exponent(u).exp()) / y
    }
}

/// From here on the continued fraction takes longer than the integral.
const MANY: f64 = 500.0;
/// More than the fraction takes for the parameters that it is asked for.
const MOST_STEPS: u32 = 5_000;

/// `ln(1 - e^ln_part)`.
pub(crate) fn ln_rest(ln_part: f64) -> f64 {
    if ln_part > -LN_2 { (-ln_part.exp_m1()).ln() } else { (-ln_part.exp()).ln_1p() }
}

#[cfg(test)]
mod tests {
    use statrs::function::beta::beta_reg;

    use super::*;

    #[test]
    fn it_says_what_statrs_says_where_that_can() {
        for a in [0.5, 1.0, 2.5, 7.0, 40.0, 300.0] {
            for b in [0.5, 1.0, 3.0, 12.5, 90.0, 400.0] {
                for x in [1e-6, 0.001, 0.1, 0.3, 0.5, 0.7, 0.95] {
                    let sides = Beta { a, b }.ln_sides(Point::new(x));
                    let below = beta_reg(a, b, x);
                    if below > 1e-300 {
                        assert!(
                            (sides.below - below.ln()).abs() < 1e-10,
                            "I_{x}({a}, {b}) {sides:?} {}",
                            below.ln()
                        );
                    }
                    assert!((sides.below.exp() + sides.above.exp() - 1.0).abs() < 1e-14, "{sides:?}");
                }
            }
        }
    }
}
