//! A decimal number as JSON writes it, and the integer or IEEE 754 number nearest to it.

use std::cmp::Ordering;

/// The powers of ten that an FP64 holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Digits that always fit in 64 bits.
const MAX_DIGITS: usize = 19;

/// Integers up to this one are exact as FP64.
const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;

/// The FP64 nearest to each of 10^-22 to 10^22.
const SCALES: [f64; 2 * POWERS_OF_TEN.len() - 1] = {
    let mut scales = [1.0; 2 * POWERS_OF_TEN.len() - 1];
    let middle = POWERS_OF_TEN.len() - 1;
    let mut power = 1;
    while power <= middle {
        scales[middle + power] = POWERS_OF_TEN[power];
        scales[middle - power] = 1.0 / POWERS_OF_TEN[power];
        power += 1;
    }
    scales
};

/// Bounds the relative error of [`Decimal::approximate`] and of one multiplication after it, which round four times,
/// by at most half of [`f64::EPSILON`] each time.
const ERROR: f64 = 2.5 * f64::EPSILON;

/// A number: its text, and what was learned of it while scanning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal<'a> {
    /// The whole number as it stands.
    pub(super) text: &'a [u8],
    pub(super) negative: bool,
    /// All digits as one integer; meaningless when `!fits`.
    significand: u64,
    /// The power of ten that the significand is multiplied with.
    exponent: i64,
    /// Whether the digits fit in the significand.
    fits: bool,
    /// Whether it is written without fraction and exponent.
    integral: bool,
}

/// A binary floating-point type that rounds to nearest, ties to even.
pub(super) trait Float: Copy + PartialEq {
    /// The number nearest to a value that is not negative.
    fn round(value: f64) -> Self;
    /// The number nearest to the absolute value of `decimal`, whatever it takes to find it.
    fn round_exactly(decimal: &Decimal) -> Self;
    /// Its negative where `negative`, without a branch: signs come at random, and a wrong guess is dear.
    fn negate_if(self, negative: bool) -> Self;
}

impl<'a> Decimal<'a> {
    /// Scans the number at the start of `json`; when there is none, the length of what could have begun one.
    #[inline(always)]
    pub(super) fn scan(json: &'a [u8]) -> Result<Decimal<'a>, usize> {
        let negative = json.first() == Some(&b'-');
        let start = usize::from(negative);
        let (mut significand, mut at) = digits(json, start, 0);
        let mut count = at - start;
        if count == 0 {
            return Err(at);
        }
        if json[start] == b'0' && count > 1 {
            return Err(start + 1);
        }
        let mut exponent = 0;
        let mut integral = true;
        if json.get(at) == Some(&b'.') {
            integral = false;
            let point = at + 1;
            (significand, at) = digits(json, point, significand);
            if at == point {
                return Err(at);
            }
            count += at - point;
            exponent = -i64::try_from(at - point).expect("a slice is shorter than 2^63");
        }
        if matches!(json.get(at), Some(b'e' | b'E')) {
            integral = false;
            let (power, end) = scan_exponent(json, at + 1)?;
            exponent = exponent.saturating_add(power);
            at = end;
        }
        let text = &json[..at];
        let fits = count <= MAX_DIGITS || significant_digits(text) <= MAX_DIGITS;
        Ok(Decimal { text, negative, significand, exponent, fits, integral })
    }

    /// Whether it is written as an integer: without fraction and exponent.
    pub(super) fn is_integer(&self) -> bool {
        self.integral
    }

    /// Its value when it is written as an integer and fits.
    #[inline(always)]
    pub(super) fn to_integer(self) -> Option<i128> {
        if !self.integral {
            return None;
        }
        if !self.fits {
            return std::str::from_utf8(self.text).ok()?.parse().ok();
        }
        let magnitude = i128::from(self.significand);
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The FP64 nearest to it; infinite beyond the range.
    #[inline(always)]
    pub(super) fn to_f64(self) -> f64 {
        let magnitude = self.in_one_operation().unwrap_or_else(|| self.parse());
        f64::from_bits(magnitude.to_bits() ^ u64::from(self.negative) << 63)
    }

    /// The `F` nearest to it; infinite beyond the range.
    #[inline(always)]
    pub(super) fn to<F: Float>(self) -> F {
        let magnitude = self.between().unwrap_or_else(|| F::round_exactly(&self));
        magnitude.negate_if(self.negative)
    }

    /// When both ends of the approximation's interval round to one number, so does all that lies between.
    #[inline(always)]
    fn between<F: Float>(&self) -> Option<F> {
        let value = self.approximate()?;
        let least = F::round(value * (1.0 - ERROR));
        (least == F::round(value * (1.0 + ERROR))).then_some(least)
    }

    /// How its absolute value compares with `nearest`, the FP64 nearest to it; `None` when that takes more than
    /// one operation. The error of a correctly rounded product or quotient is an FP64 itself, and a fused
    /// multiplication and addition yields it.
    pub(super) fn compare_with_nearest(&self, nearest: f64) -> Option<Ordering> {
        let power = self.power().filter(|_| self.fits && self.significand <= EXACT)?;
        let significand = self.significand as f64;
        let error = if self.exponent < 0 {
            nearest.mul_add(-power, significand)
        } else {
            significand.mul_add(power, -nearest)
        };
        error.partial_cmp(&0.0)
    }

    /// Its absolute value as the standard algorithm finds it from the text.
    pub(super) fn parse<F: fast_float2::FastFloat>(&self) -> F {
        let magnitude = &self.text[usize::from(self.negative)..];
        fast_float2::parse(magnitude).expect("JSON's numbers are a subset of those it reads")
    }

    /// The FP64 nearest to its absolute value, when both operands of the one operation that yields it are exact, so
    /// that it rounds correctly (Clinger's fast path).
    #[inline(always)]
    fn in_one_operation(&self) -> Option<f64> {
        let power = self.power().filter(|_| self.fits && self.significand <= EXACT)?;
        let significand = self.significand as f64;
        Some(if self.exponent < 0 { significand / power } else { significand * power })
    }

    /// Its absolute value, near enough that [`ERROR`] bounds what is missing: the significand, the power of ten and
    /// their product may each be rounded. Multiplies with a negative power, too, since a division takes three times
    /// as long.
    #[inline(always)]
    fn approximate(&self) -> Option<f64> {
        if !self.fits {
            return None;
        }
        let zero = SCALES.len().cast_signed() / 2;
        let scale = SCALES.get(usize::try_from(self.exponent.wrapping_add(zero as i64)).ok()?)?;
        Some(self.significand as f64 * scale)
    }

    /// 10^|exponent|, when an FP64 holds it exactly.
    #[inline(always)]
    fn power(&self) -> Option<f64> {
        POWERS_OF_TEN.get(usize::try_from(self.exponent.unsigned_abs()).ok()?).copied()
    }
}

impl Float for f32 {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "`as` rounds to nearest, ties to even")]
    fn round(value: f64) -> f32 {
        value as f32
    }

    #[cold]
    fn round_exactly(decimal: &Decimal) -> f32 {
        decimal.parse()
    }

    #[inline(always)]
    fn negate_if(self, negative: bool) -> f32 {
        f32::from_bits(self.to_bits() ^ u32::from(negative) << 31)
    }
}

/// `significand` × 10^`exponent`, correctly rounded; the significand is an integer below 2^53.
pub(super) fn power_of_ten_times(significand: f64, exponent: i32) -> f64 {
    let power = usize::try_from(exponent.unsigned_abs()).ok().and_then(|index| POWERS_OF_TEN.get(index));
    match power {
        Some(power) if exponent < 0 => significand / power,
        Some(power) => significand * power,
        None => format!("{significand}e{exponent}").parse().expect("an integer and an exponent"),
    }
}

/// Appends the digits from `at` on to `significand`, wrapping; the result and where they end.
#[inline(always)]
fn digits(json: &[u8], mut at: usize, mut significand: u64) -> (u64, usize) {
    while let Some(digit @ 0..=9) = json.get(at).map(|byte| byte.wrapping_sub(b'0')) {
        significand = significand.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    (significand, at)
}

/// Reads what follows the `e`: the exponent and where it ends, or where a digit is missing.
fn scan_exponent(json: &[u8], mut at: usize) -> Result<(i64, usize), usize> {
    let negative = json.get(at) == Some(&b'-');
    if matches!(json.get(at), Some(b'+' | b'-')) {
        at += 1;
    }
    let start = at;
    let mut power = 0_i64;
    while let Some(digit @ 0..=9) = json.get(at).map(|byte| byte.wrapping_sub(b'0')) {
        power = power.saturating_mul(10).saturating_add(i64::from(digit));
        at += 1;
    }
    if at == start {
        return Err(at);
    }
    Ok((if negative { -power } else { power }, at))
}

/// Digits of a number's significand from the first that is not zero.
#[cold]
fn significant_digits(text: &[u8]) -> usize {
    let significand = text.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
    significand.filter(|byte| byte.is_ascii_digit()).skip_while(|digit| **digit == b'0').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str) -> Decimal<'_> {
        let decimal = Decimal::scan(text.as_bytes()).unwrap();
        assert_eq!(decimal.text, text.as_bytes());
        decimal
    }

    #[test]
    fn only_jsons_numbers_are_numbers() {
        for good in ["0", "-0", "10", "-1.5", "0.001", "1e5", "1E+5", "1.25e-300", "-0.0e0"] {
            scan(good);
        }
        // The length read before the fault.
        let bad = [
            ("", 0),
            ("-", 1),
            ("+1", 0),
            (".5", 0),
            ("1.", 2),
            ("1.e5", 2),
            ("1e", 2),
            ("1e+", 3),
            ("01", 1),
            ("-00", 2),
        ];
        for (text, length) in bad {
            assert_eq!(Decimal::scan(text.as_bytes()).err(), Some(length), "{text:?}");
        }
        assert_eq!(Decimal::scan(b"12,3").unwrap().text, b"12");
    }

    #[test]
    fn integers_are_exact_and_written_as_such() {
        for integer in [0, 1, -1, 255, i128::from(i64::MIN), i128::from(u64::MAX), i128::MAX] {
            assert_eq!(scan(&integer.to_string()).to_integer(), Some(integer));
        }
        assert_eq!(scan("-0").to_integer(), Some(0));
        for other in ["1.0", "1e3", "-0.0", "170141183460469231731687303715884105728"] {
            assert_eq!(scan(other).to_integer(), None, "{other}");
        }
    }

    #[track_caller]
    fn check_nearest(text: &str) {
        assert_eq!(scan(text).to_f64().to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text} as f64");
        assert_eq!(scan(text).to::<f32>().to_bits(), text.parse::<f32>().unwrap().to_bits(), "{text} as f32");
    }

    #[test]
    fn hard_cases_round_as_the_standard_library_rounds_them() {
        for text in [
            "0",
            "-0.0",
            "0e400",
            "1e400",
            "-1e-400",
            "3.4028235677973366e38",
            "3.4028235677973365e38",
            "16777217",
            "16777217.0000000000000000001",
            "16777216.9999999999999999",
            "9007199254740993",
            "9007199254740993.00000000000000000000001",
            "18446744073709551615",
            "99999999999999999999",
            "1.17549435e-38",
            "1e-45",
            "7.006492321624085e-46",
            "7.0064923216240853e-46",
            "2.2250738585072011e-308",
            "0.10000000149011612",
            "0.00000000000000000000000000000012345",
            "1e22",
            "1e23",
            "1e99999999999999999999",
            "-1e-99999999999999999999",
            "0e99999999999999999999",
        ] {
            check_nearest(text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_decimal_rounds_as_the_standard_library_rounds_it(
            text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?"
        ) {
            check_nearest(&text);
        }

        #[test]
        fn what_any_float_prints_as_comes_back(float: f64, single: f32) {
            check_nearest(&format!("{float:e}"));
            check_nearest(&format!("{single:e}"));
            check_nearest(&format!("{:e}", f64::from(single)));
        }

        #[test]
        fn what_lies_halfway_between_two_floats_goes_to_the_even_one(bits in 0_u32..0x7f00_0000) {
            let halfway = f64::midpoint(f32::from_bits(bits).into(), f32::from_bits(bits + 1).into());
            check_nearest(&format!("{halfway:.170}"));
            check_nearest(&format!("{halfway}"));
        }
    }
}
