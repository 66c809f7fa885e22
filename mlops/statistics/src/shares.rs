//! Do counts fall as the traffic is divided? A test that may be asked at any time.
//!
//! The Bayes factor of a Dirichlet-multinomial distribution against given shares (Lindon and Malek, "Anytime-valid
//! inference for multinomial count data", 2020, arXiv 2011.03567). Under the given shares it reaches `1/alpha` at any
//! time with a probability of at most `alpha`. With the errors of a canary and of its baseline it tells whether one
//! has more errors than its share of the requests, whatever the rate is and however it swings; with the users of an
//! experiment's variants it is the test for a sample ratio mismatch.

use std::f64::consts::TAU;

use thiserror::Error;

use crate::deviance::{deviance, stirling_error};
use crate::probability::Alpha;

/// Rejects that counts are divided by given shares.
#[derive(Clone, Debug)]
pub struct ShareTest {
    shares: Vec<f64>,
    alphas: Vec<f64>,
    ln_prior: f64,
}

/// Shares that cannot be tested.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum InvalidShares {
    /// One arm has all there is.
    #[error("{0} shares cannot be told apart; at least two are needed")]
    TooFew(usize),
    /// An arm without traffic, or a NaN.
    #[error("a share is {0}; each has to be above 0 and finite")]
    NoShare(f64),
    /// A prior that is none.
    #[error("the concentration is {0}; it has to be above 0 and finite")]
    NoConcentration(f64),
}

impl ShareTest {
    /// The test against `shares`, which need not add up to 1. `concentration` is how near to them the test looks: 1
    /// finds large differences soon, 10,000 finds those of a tenth of a percent after some hundred thousand counts.
    ///
    /// # Errors
    /// When there are fewer than two shares, or a number is not above 0 and finite.
    pub fn new(shares: &[f64], concentration: f64) -> Result<ShareTest, InvalidShares> {
        let usable = |value: f64| value > 0.0 && value.is_finite();
        if shares.len() < 2 {
            return Err(InvalidShares::TooFew(shares.len()));
        }
        if !usable(concentration) {
            return Err(InvalidShares::NoConcentration(concentration));
        }
        let sum: f64 = shares.iter().sum();
        let shares: Vec<f64> = shares.iter().map(|share| share / sum).collect();
        if let Some(share) = shares.iter().find(|share| !usable(**share)) {
            return Err(InvalidShares::NoShare(*share));
        }
        let alphas: Vec<f64> = shares.iter().map(|share| concentration * share).collect();
        let ln_prior = ln_dirichlet(&alphas, &shares);
        Ok(ShareTest { shares, alphas, ln_prior })
    }

    /// The logarithm of the evidence that `counts`, in the order of the shares, are divided otherwise. An arm without
    /// a count has none yet.
    pub fn ln_bayes_factor(&self, counts: &[u64]) -> f64 {
        let counts = counts.iter().chain(std::iter::repeat(&0));
        let posterior: Vec<f64> =
            self.alphas.iter().zip(counts).map(|(alpha, count)| alpha + *count as f64).collect();
        ln_dirichlet(&posterior, &self.shares) - self.ln_prior
    }
}

/// The logarithm of `Π Γ(zᵢ) / Γ(Σz) / Π shareᵢ^zᵢ`, in Loader's form: see [`crate::deviance`].
fn ln_dirichlet(z: &[f64], shares: &[f64]) -> f64 {
    let whole: f64 = z.iter().sum();
    let arm =
        |(z, share): (&f64, &f64)| deviance(*z, whole * share) + stirling_error(*z) - 0.5 * (z / TAU).ln();
    z.iter().zip(shares).map(arm).sum::<f64>() + 0.5 * (whole / TAU).ln() - stirling_error(whole)
}

/// The p-value of a test that is looked at again and again: the least that any look gave, and valid at all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct SequentialP {
    greatest_ln_evidence: f64,
}

impl SequentialP {
    /// Takes a look: the logarithm of a Bayes factor, or of an e-value.
    pub fn observe(&mut self, ln_evidence: f64) {
        self.greatest_ln_evidence = self.greatest_ln_evidence.max(ln_evidence);
    }

    /// The p-value so far; 1 before there is evidence.
    pub fn get(self) -> f64 {
        (-self.greatest_ln_evidence).exp()
    }

    /// True when it is at most `alpha`.
    pub fn rejects(self, alpha: Alpha) -> bool {
        self.greatest_ln_evidence >= -alpha.get().ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_are_none_are_refused() {
        let told =
            |shares: &[f64], concentration| ShareTest::new(shares, concentration).unwrap_err().to_string();
        assert!(told(&[1.0], 1.0).starts_with("1 shares cannot be told apart"));
        assert!(told(&[1.0, 0.0], 1.0).starts_with("a share is 0;"));
        assert!(told(&[1.0, f64::NAN], 1.0).starts_with("a share is NaN;"));
        assert!(told(&[1.0, f64::INFINITY], 1.0).starts_with("a share is 0;"));
        assert!(told(&[1.0, 1.0], 0.0).starts_with("the concentration is 0;"));
    }

    #[test]
    fn even_counts_are_no_evidence_and_uneven_ones_are() {
        let test = ShareTest::new(&[2.0, 2.0], 100.0).unwrap();
        assert!(test.ln_bayes_factor(&[0, 0]).abs() < 1e-12);
        assert!(test.ln_bayes_factor(&[5000, 5000]) < 0.0);
        assert!(test.ln_bayes_factor(&[5400, 4600]) > 10.0);
        assert_eq!(
            test.ln_bayes_factor(&[7]),
            test.ln_bayes_factor(&[7, 0, 9]),
            "no third arm, and none seen"
        );
    }

    #[test]
    fn a_p_value_never_rises() {
        let mut p = SequentialP::default();
        let alpha = Alpha::new(0.05).unwrap();
        assert_eq!((p.get(), p.rejects(alpha)), (1.0, false));
        for (ln_evidence, least) in [(-3.0, 1.0), (2.0, 0.135), (1.0, 0.135), (4.0, 0.018), (-9.0, 0.018)] {
            p.observe(ln_evidence);
            assert!((p.get() - least).abs() < 1e-3, "{} after {ln_evidence}", p.get());
        }
        p.observe(f64::NAN);
        assert!(p.rejects(alpha) && p.get() > 0.0);
    }
}
