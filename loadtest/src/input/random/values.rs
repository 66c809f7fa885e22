//! Random values of every type, between the bounds that the user or the type gives.

use std::str::FromStr;

use anyhow::{Context, ensure};
use half::{bf16, f16};
use volley_client::{DataType, Element};

/// One `--range INPUT=LOW:HIGH`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) input: String,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl FromStr for Range {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Range> {
        let (input, bounds) = text.rsplit_once('=').context("write it as INPUT=LOW:HIGH")?;
        let (low, high) = bounds.split_once(':').context("write it as INPUT=LOW:HIGH")?;
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let (low, high) =
            number(low).zip(number(high)).context("its bounds must be numbers, as in x=0:255")?;
        ensure!(low <= high, "its lower bound {low} is above its upper bound {high}");
        Ok(Range { input: input.to_owned(), low, high })
    }
}

/// One `--string-length INPUT=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StringLength {
    pub(crate) input: String,
    pub(crate) length: usize,
}

impl FromStr for StringLength {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<StringLength> {
        let (input, length) = text.rsplit_once('=').context("write it as INPUT=N")?;
        let length = length.parse().ok().filter(|length| *length <= 1 << 20);
        Ok(StringLength { input: input.to_owned(), length: length.context("N is a number up to 1048576")? })
    }
}

/// A number between the bounds, whole when the type is.
pub(super) fn drawn(datatype: DataType, low: f64, high: f64, random: &mut fastrand::Rng) -> f64 {
    if datatype.is_float() {
        return low + random.f64() * (high - low);
    }
    (low + (random.f64() * (high - low + 1.0)).floor()).min(high)
}

/// Letters and digits; or, when there is a range, a number of it.
pub(super) fn string(range: Option<(f64, f64)>, length: usize, random: &mut fastrand::Rng) -> String {
    match range {
        Some((low, high)) => format!("{}", drawn(DataType::Int64, low, high, random)),
        None => std::iter::repeat_with(|| random.alphanumeric()).take(length).collect(),
    }
}

/// Whether the type holds the bounds.
pub(super) fn fits(datatype: DataType, low: f64, high: f64) -> anyhow::Result<()> {
    let (least, most) = match datatype {
        DataType::Bool => (0.0, 1.0),
        DataType::Uint8 => (0.0, f64::from(u8::MAX)),
        DataType::Uint16 => (0.0, f64::from(u16::MAX)),
        DataType::Uint32 => (0.0, f64::from(u32::MAX)),
        DataType::Uint64 => (0.0, 1e15),
        DataType::Int8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        DataType::Int16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        DataType::Int32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        // Beyond that not every whole number can be drawn.
        DataType::Int64 | DataType::Bytes => (-1e15, 1e15),
        DataType::Fp16 => (-65504.0, 65504.0),
        DataType::Bf16 | DataType::Fp32 => (f64::from(f32::MIN), f64::from(f32::MAX)),
        DataType::Fp64 => (-1e300, 1e300),
    };
    ensure!(low >= least && high <= most, "{datatype} takes {least} to {most}");
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`fits` has been asked")]
pub(super) fn append(datatype: DataType, value: f64, data: &mut Vec<u8>) {
    match datatype {
        DataType::Bool => (value.rem_euclid(2.0) >= 1.0).append(data),
        DataType::Uint8 => (value as u8).append(data),
        DataType::Uint16 => (value as u16).append(data),
        DataType::Uint32 => (value as u32).append(data),
        DataType::Uint64 => (value as u64).append(data),
        DataType::Int8 => (value as i8).append(data),
        DataType::Int16 => (value as i16).append(data),
        DataType::Int32 => (value as i32).append(data),
        DataType::Int64 | DataType::Bytes => (value as i64).append(data),
        DataType::Fp16 => f16::from_f64(value).append(data),
        DataType::Bf16 => bf16::from_f64(value).append(data),
        DataType::Fp32 => (value as f32).append(data),
        DataType::Fp64 => value.append(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_a_name_and_a_value() {
        let range: Range = "x=-1:0.5".parse().unwrap();
        assert_eq!(range, Range { input: "x".into(), low: -1.0, high: 0.5 });
        for bad in ["x", "x=1", "x=2:1", "x=a:b", "x=0:inf"] {
            assert!(bad.parse::<Range>().is_err(), "{bad:?}");
        }
        assert_eq!("x=5".parse::<StringLength>().unwrap().length, 5);
        assert!("x=-5".parse::<StringLength>().is_err());
    }
}
