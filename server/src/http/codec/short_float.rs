//! FP16 and BF16 as decimal text: the number nearest to a text, and the shortest text of a number.
//!
//! The step from decimal to 16 bits goes through wider types. Rounding twice is harmless when every step but
//! the last rounds to odd: an inexact result then never looks like a tie.

use std::cmp::Ordering;

use half::{bf16, f16};

use super::decimal::{Decimal, Float, power_of_ten_times};

impl Float for f16 {
    #[inline]
    fn round(value: f64) -> f16 {
        f16::from_f32(round_to_odd(value))
    }

    #[cold]
    fn round_exactly(decimal: &Decimal) -> f16 {
        f16::round(parse_to_odd(decimal))
    }

    fn negate_if(self, negative: bool) -> f16 {
        f16::from_bits(self.to_bits() ^ u16::from(negative) << 15)
    }
}

impl Float for bf16 {
    #[inline]
    fn round(value: f64) -> bf16 {
        bf16::from_f32(round_to_odd(value))
    }

    #[cold]
    fn round_exactly(decimal: &Decimal) -> bf16 {
        bf16::round(parse_to_odd(decimal))
    }

    fn negate_if(self, negative: bool) -> bf16 {
        bf16::from_bits(self.to_bits() ^ u16::from(negative) << 15)
    }
}

/// The FP64 nearest to the decimal with the fewest digits that rounds to `value`, which is finite. It prints
/// as that decimal.
pub(super) fn shortest<F: Float + Into<f64>>(value: F) -> f64 {
    /// Enough for either type: 1 + ⌈11 × log10(2)⌉.
    const MAX_DIGITS: i32 = 5;
    let exact: f64 = value.into();
    let magnitude = exact.abs();
    if magnitude == 0.0 {
        return exact;
    }
    let value = F::round(magnitude);
    #[expect(clippy::cast_possible_truncation, reason = "between -46 and 38")]
    let exponent = magnitude.log10().floor() as i32;
    for digits in 1..=MAX_DIGITS {
        let unit = exponent + 1 - digits;
        let scaled = power_of_ten_times(magnitude, -unit);
        // Where the exponent of the type changes, the nearer neighbour may be out and the farther one in.
        let near = scaled.round();
        let far = if near > scaled { near - 1.0 } else { near + 1.0 };
        for significand in [near, far] {
            let decimal = power_of_ten_times(significand, unit);
            if F::round(decimal) == value {
                return decimal.copysign(exact);
            }
        }
    }
    exact
}

/// The FP32 nearest to a value that is not negative, but when neither holds it, the odd neighbour.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "`as` rounds to nearest; what it loses is put right")]
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    if back < value { nearest.next_up() } else { nearest.next_down() }
}

/// As [`round_to_odd`], from a decimal's absolute value to FP64.
fn parse_to_odd(decimal: &Decimal) -> f64 {
    let nearest: f64 = decimal.parse();
    if nearest.is_infinite() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let order = decimal
        .compare_with_nearest(nearest)
        .unwrap_or_else(|| digits_of(decimal.text).cmp(&digits_of(exact_text(nearest).as_bytes())));
    match order {
        Ordering::Equal => nearest,
        Ordering::Greater => nearest.next_up(),
        Ordering::Less => nearest.next_down(),
    }
}

/// All the digits of `value`, or so many that what is left cannot matter: a tie between two 16-bit numbers
/// has fewer.
fn exact_text(value: f64) -> String {
    format!("{value:.160e}")
}

/// The position of a number's first digit that is not zero, as a power of ten, and the digits from there,
/// without zeros at the end. Ordered as the absolute values are; zero has no digits, and is the least.
fn digits_of(text: &[u8]) -> (i64, Vec<u8>) {
    let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let power = std::str::from_utf8(&text[(end + 1).min(text.len())..]).unwrap_or_default();
    let power: i64 = power.parse().unwrap_or(0);
    let significand = &text[..end];
    let point = significand.iter().position(|byte| *byte == b'.').unwrap_or(end);
    let whole = significand[..point].iter().filter(|byte| byte.is_ascii_digit()).count();
    let all = significand.iter().copied().filter(u8::is_ascii_digit);
    let leading_zeros = all.clone().take_while(|digit| *digit == b'0').count();
    let mut digits: Vec<u8> = all.skip(leading_zeros).collect();
    while digits.last() == Some(&b'0') {
        digits.pop();
    }
    if digits.is_empty() {
        return (i64::MIN, digits);
    }
    let position = |digits: usize| i64::try_from(digits).expect("a slice is shorter than 2^63");
    (power.saturating_add(position(whole) - position(leading_zeros)), digits)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn parse<F: Float>(text: &str) -> F {
        Decimal::scan(text.as_bytes()).unwrap().to()
    }

    /// Every finite number of a type that is not negative, in order.
    fn numbers<F>(from_bits: fn(u16) -> F, is_finite: fn(F) -> bool) -> Vec<F>
    where
        F: Copy,
    {
        (0..0x8000).map(from_bits).filter(|value| is_finite(*value)).collect()
    }

    fn f16s() -> Vec<f16> {
        numbers(f16::from_bits, f16::is_finite)
    }

    fn bf16s() -> Vec<bf16> {
        numbers(bf16::from_bits, bf16::is_finite)
    }

    /// Between each number and the next: what is nearer goes to the nearer, the middle to the even one.
    fn check_ties<F: Float + Into<f64> + Debug>(numbers: &[F]) {
        for (index, pair) in numbers.windows(2).enumerate() {
            let even = pair[index % 2];
            let middle = f64::midpoint(pair[0].into(), pair[1].into());
            let text = format!("{middle:.200}");
            assert_eq!(parse::<F>(&text), even, "{text}");
            assert_eq!(parse::<F>(&format!("{text}1")), pair[1], "{text}1");
            // Few digits, nearest to the middle as an FP64, but seldom equal to it.
            let short = format!("{middle:e}");
            let rounded = match digits_of(short.as_bytes()).cmp(&digits_of(text.as_bytes())) {
                Ordering::Less => pair[0],
                Ordering::Equal => even,
                Ordering::Greater => pair[1],
            };
            assert_eq!(parse::<F>(&short), rounded, "{short}");
            let below = format!("{:.200}", middle.next_down());
            assert_eq!(parse::<F>(&below), pair[0], "{below}");
            // Just below the middle, but nearest to it as an FP64.
            let (digits, last) = text.trim_end_matches('0').split_at(text.trim_end_matches('0').len() - 1);
            if let Ok(last @ 1..) = last.parse::<u8>() {
                let nearly = format!("{digits}{}{}", last - 1, "9".repeat(25));
                assert_eq!(parse::<F>(&nearly), pair[0], "{nearly}");
            }
        }
    }

    #[test]
    fn ties_go_to_the_even_number_and_all_else_to_the_nearest() {
        check_ties(&f16s());
        check_ties(&bf16s());
    }

    fn check_shortest<F: Float + Into<f64> + Debug>(numbers: &[F]) {
        for &value in numbers {
            let short = shortest(value);
            let text = zmij::Buffer::new().format_finite(short).to_owned();
            assert_eq!(parse::<F>(&text), value, "{text}");
            let (position, digits) = digits_of(text.as_bytes());
            if digits.len() < 2 {
                continue;
            }
            // No decimal with one digit less will do: neither the one below nor the one above.
            let shorter: u64 = std::str::from_utf8(&digits[..digits.len() - 1]).unwrap().parse().unwrap();
            let unit = position - i64::try_from(digits.len()).unwrap() + 1;
            for shorter in [shorter, shorter + 1] {
                assert_ne!(parse::<F>(&format!("{shorter}e{unit}")), value, "{shorter}e{unit}, {text}");
            }
        }
    }

    #[test]
    fn every_number_prints_with_the_fewest_digits_that_come_back() {
        check_shortest(&f16s());
        check_shortest(&bf16s());
        for (value, text) in [(0.1, "0.1"), (65504.0, "65500.0"), (-2049.0, "-2048.0"), (6e-8, "6e-8")] {
            let printed = zmij::Buffer::new().format_finite(shortest(f16::from_f64(value))).to_owned();
            assert_eq!(printed, text);
        }
        assert!(shortest(f16::NEG_ZERO).is_sign_negative());
    }

    #[test]
    fn what_is_beyond_the_range_becomes_infinite() {
        for (text, value) in [("65519.99999999999999999", f16::MAX), ("65520", f16::INFINITY)] {
            assert_eq!(parse::<f16>(text), value);
        }
        assert_eq!(parse::<f16>("-1e400"), f16::NEG_INFINITY);
        assert_eq!(parse::<bf16>("3.39617752923047e38"), bf16::INFINITY);
        assert_eq!(parse::<bf16>("3.3961e38"), bf16::MAX);
        assert_eq!(parse::<bf16>("3.4028235e38"), bf16::INFINITY);
        assert_eq!(parse::<f16>("1e-400"), f16::ZERO);
    }

    proptest! {
        #[test]
        fn digits_order_as_values_do(a in 0_u32..2000, b in 0_u32..2000, shift in 0_usize..4) {
            let text = |n: u32| format!("{}e{}", f64::from(n) / 10_f64.powi(i32::try_from(shift).unwrap()), shift);
            prop_assert_eq!(digits_of(text(a).as_bytes()).cmp(&digits_of(text(b).as_bytes())), a.cmp(&b));
        }
    }
}
