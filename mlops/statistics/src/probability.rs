//! The probabilities that everything here is asked with: a limit, and how often a test may err.

use thiserror::Error;

/// A rate strictly between none and all, such as the limit of an error rate: 0.001 is one in a thousand.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

/// How often a test may say what is not so: 0.01 is once in a hundred rollouts.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Alpha(f64);

/// A number that is no probability that can be judged by.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
#[error("{value} is no {what}; it has to be from {least} to {most}")]
pub struct InvalidProbability {
    what: &'static str,
    value: f64,
    least: f64,
    most: f64,
}

impl Rate {
    /// From one in a thousand million to all but one: beyond, no number of requests would tell.
    ///
    /// # Errors
    /// For what is outside, and for NaN.
    pub fn new(value: f64) -> Result<Rate, InvalidProbability> {
        let (least, most) = (1e-9, 1.0 - 1e-9);
        within(value, least, most).then_some(Rate(value)).ok_or(InvalidProbability {
            what: "rate to judge by",
            value,
            least,
            most,
        })
    }

    /// As a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Alpha {
    /// At most an even chance.
    ///
    /// # Errors
    /// For what is outside, and for NaN.
    pub fn new(value: f64) -> Result<Alpha, InvalidProbability> {
        let (least, most) = (1e-15, 0.5);
        within(value, least, most).then_some(Alpha(value)).ok_or(InvalidProbability {
            what: "level of error",
            value,
            least,
            most,
        })
    }

    /// As a number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Half of it, for each of two statements that have to hold together.
    #[must_use]
    pub fn halved(self) -> Alpha {
        Alpha(self.0 / 2.0)
    }
}

/// False for NaN.
fn within(value: f64, least: f64, most: f64) -> bool {
    (least..=most).contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_probability_is_refused_with_the_range() {
        for value in [0.0, 1.0, -0.1, 1e-10, f64::NAN, f64::INFINITY] {
            assert!(Rate::new(value).is_err(), "{value}");
        }
        assert!(Alpha::new(0.6).is_err() && Alpha::new(0.0).is_err() && Alpha::new(f64::NAN).is_err());
        let told = Rate::new(5.0).unwrap_err().to_string();
        assert_eq!(told, "5 is no rate to judge by; it has to be from 0.000000001 to 0.999999999");
        assert_eq!(Rate::new(0.001).unwrap().get(), 0.001);
    }
}
