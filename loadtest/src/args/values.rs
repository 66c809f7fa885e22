//! What options take, read from the words that are typed: models, spans, times, shares.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::expect::Tolerance;

/// `NAME[:VERSION][=WEIGHT]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) weight: f64,
}

impl fmt::Display for Model {
    /// `NAME`, or `NAME:VERSION` where one is asked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, ":{version}"))
    }
}

impl FromStr for Model {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Model> {
        let (model, weight) = text.rsplit_once('=').unwrap_or((text, "1"));
        let (name, version) = match model.rsplit_once(':') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (model, None),
        };
        let weight = weight.parse().ok().filter(|weight: &f64| weight.is_finite() && *weight > 0.0);
        let weight = weight.context("its weight must be a number above 0, as in digits=3")?;
        ensure!(!name.is_empty() && version.as_deref() != Some(""), "write it as NAME, or NAME:VERSION");
        Ok(Model { name: name.to_owned(), version, weight })
    }
}

/// Numbers between colons: `LOW:HIGH`, or `START:END:STEP`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span(pub(crate) Vec<f64>);

impl FromStr for Span {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Span> {
        let number = |text: &str| {
            text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
        };
        let numbers: Option<Vec<f64>> = text.split(':').map(number).collect();
        numbers.map(Span).context("write it as numbers between colons")
    }
}

/// How an open loop spaces its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Spacing {
    Constant,
    Poisson,
}

/// A time such as `10s`, `500ms`, `2m`; a number alone is seconds.
pub(crate) fn duration(text: &str) -> anyhow::Result<Duration> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match seconds.or_else(|| humantime::parse_duration(text).ok()) {
        Some(duration) if duration <= Duration::from_secs(30 * 86_400) => Ok(duration),
        _ => bail!("write a time such as 10s, 500ms or 2m"),
    }
}

pub(super) fn percent(text: &str) -> anyhow::Result<f64> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    let share = number.map(|number| number / 100.0).filter(|share| (0.001..=0.5).contains(share));
    share.context("write a percentage from 0.1% to 50%")
}

pub(super) fn tolerance(text: &str) -> anyhow::Result<Tolerance> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number >= 0.0);
    let (absolute, relative) = text.split_once(',').unwrap_or((text, "0"));
    let numbers = number(absolute).zip(number(relative));
    let (absolute, relative) = numbers.context("write numbers from 0 up, such as 1e-5,1e-4")?;
    Ok(Tolerance { absolute, relative })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_a_version_and_a_weight() {
        let model = |name: &str, version: Option<&str>, weight| Model {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            weight,
        };
        assert_eq!("digits".parse::<Model>().unwrap(), model("digits", None, 1.0));
        assert_eq!("digits:2".parse::<Model>().unwrap(), model("digits", Some("2"), 1.0));
        assert_eq!("a:1=2.5".parse::<Model>().unwrap(), model("a", Some("1"), 2.5));
        for bad in ["", "=1", "a=0", "a=x", "a:", "a=-1"] {
            assert!(bad.parse::<Model>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_and_shares_have_units() {
        assert_eq!(duration("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert!(duration("-1").is_err() && duration("x").is_err() && duration("1y").is_err());
        assert!((percent("5%").unwrap() - 0.05).abs() < 1e-12);
        assert!(percent("0").is_err() && percent("90%").is_err());
        assert_eq!(tolerance("1e-3").unwrap(), Tolerance { absolute: 1e-3, relative: 0.0 });
        assert!(tolerance("-1").is_err() && tolerance("NaN").is_err());
    }
}
