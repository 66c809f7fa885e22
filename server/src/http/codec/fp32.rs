//! The shortest text of an FP32 of everyday size, found with exact integers.
//!
//! What an answer in JSON costs is mostly this. Between 2^-14 and 2^23 a number is an integer of 24 bits over a power
//! of two up to 2^37, and 10^12 times that integer fits in 64 bits: the decimal nearest to the number needs neither
//! an approximation nor a table of long products. What is outside, and the powers of two, whose neighbours are not
//! equally far from them, is left to the library, which takes half as long again.

/// The most fraction digits that one of these numbers takes.
const FRACTION_DIGITS: u32 = 12;

/// One, in units of 10^-[`FRACTION_DIGITS`].
const ONE: u64 = 10_u64.pow(FRACTION_DIGITS);

/// The fewest and the most bits after the point.
const LEAST_SHIFT: u32 = 1;
const MOST_SHIFT: u32 = 37;

const SIGNIFICAND_BITS: u32 = f32::MANTISSA_DIGITS - 1;

/// The biased exponent of a number of which no bit is after the point.
const INTEGER_EXPONENT: u32 = 127 + SIGNIFICAND_BITS;

/// What depends on the bits after the point alone.
#[derive(Clone, Copy)]
struct Scale {
    /// The least power of ten that is at least 2^shift: in its units, the distance of one number to the next is from
    /// 1 to 10.
    power: u64,
    /// 10^[`FRACTION_DIGITS`] / `power`.
    padding: u64,
}

const SCALES: [Scale; MOST_SHIFT as usize + 1] = {
    let mut scales = [Scale { power: 1, padding: 1 }; MOST_SHIFT as usize + 1];
    let mut shift = 0;
    while shift < scales.len() {
        let mut power = 1;
        while power < 1 << shift {
            power *= 10;
        }
        scales[shift] = Scale { power, padding: ONE / power };
        shift += 1;
    }
    scales
};

/// A number as decimal: its integer part, and its fraction in units of 10^-[`FRACTION_DIGITS`].
#[derive(Debug, PartialEq)]
struct Fixed {
    integer: u64,
    fraction: u64,
}

/// Bytes of which [`write`] may overwrite each, however short the text: a sign, seven digits, a point and twelve digits are
/// the most there can be.
pub(super) const PLACE: usize = 24;

/// Writes the shortest text that reads back as `value` at the start of `place`, and how long it is; `None`, with
/// nothing written, when `value` is none of the numbers that this module is for.
///
/// It is written in pieces of a length that the compiler knows, each over what the one before left beyond its digits.
#[inline(always)]
pub(super) fn write(place: &mut [u8; PLACE], value: f32) -> Option<usize> {
    let Fixed { integer, fraction } = shortest(value.abs())?;
    let mut at = usize::from(value.is_sign_negative());
    place[0] = b'-';
    if integer < 10 {
        place[at] = (u64::from(b'0') + integer).to_le_bytes()[0];
        at += 1;
    } else {
        let digits = eight_digits(integer);
        let zeros = digits.trailing_zeros() / 8;
        put(place, at, (digits | ASCII_ZEROS) >> (8 * zeros));
        at += (8 - zeros) as usize;
    }
    let (first, last) = (fraction / 100_000_000, fraction % 100_000_000);
    let first = four_digits(first);
    put(place, at, u64::from(b'.') | (first | ASCII_ZEROS) << 8);
    if last == 0 {
        // At least one: a number without a fraction ends in `.0`.
        return Some(at + 2 + (63 - (first | 1).leading_zeros()) as usize / 8);
    }
    let last = eight_digits(last);
    put(place, at + 5, last | ASCII_ZEROS);
    Some(at + 13 - last.leading_zeros() as usize / 8)
}

const ASCII_ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);

#[inline(always)]
fn put(place: &mut [u8; PLACE], at: usize, bytes: u64) {
    place[at..at + 8].copy_from_slice(&bytes.to_le_bytes());
}

/// The decimal with the fewest digits that rounds to `magnitude`, and of those the nearest to it.
#[inline(always)]
fn shortest(magnitude: f32) -> Option<Fixed> {
    let bits = magnitude.to_bits();
    let shift = INTEGER_EXPONENT.wrapping_sub(bits >> SIGNIFICAND_BITS);
    let stored = bits & ((1 << SIGNIFICAND_BITS) - 1);
    if !(LEAST_SHIFT..=MOST_SHIFT).contains(&shift) || stored == 0 {
        return (bits == 0).then_some(Fixed { integer: 0, fraction: 0 });
    }
    let significand = u64::from(stored | 1 << SIGNIFICAND_BITS);
    let Scale { power, padding } = SCALES[shift as usize];

    // The number in units of 1/power, of which the last `shift` bits are a fraction. The texts that read back as it
    // are at most half its distance to the next number away; the middle belongs to the even significand.
    let scaled = significand * power;
    let reach = power / 2 - (significand & 1);
    let tens = (scaled >> shift) / 10;
    let above = scaled - ((10 * tens) << shift);
    let below = (10 << shift) - above;
    // No two multiples of ten are within reach. One that is takes a digit less than any other text. Which one it is
    // comes at random, so that is no branch.
    let (down, up) = (above <= reach, below <= reach);
    let rounded = if down | up {
        10 * (tens + u64::from(up))
    } else {
        let (units, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
        units + u64::from(2 * rest + (units & 1) > 1 << shift)
    };

    let integer = significand >> shift;
    let fraction = (rounded - integer * power) * padding;
    Some(if fraction < ONE {
        Fixed { integer, fraction }
    } else {
        Fixed { integer: integer + 1, fraction: 0 }
    })
}

/// The digits of a number below 10^4, a byte each, the first in the lowest.
#[inline(always)]
fn four_digits(number: u64) -> u64 {
    let hundreds = (number * 10_486) >> 20;
    let twos = hundreds | (number - 100 * hundreds) << 16;
    let tens = (twos * 103) >> 10 & 0x000f_000f;
    tens | (twos - 10 * tens) << 8
}

/// The digits of a number below 10^8, a byte each, the first in the lowest: halves it three times, both halves in one
/// register.
#[inline(always)]
fn eight_digits(number: u64) -> u64 {
    // x / 100 and x / 10 as products, which are exact below 10^4 and 100.
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = (fours * 10_486) >> 20 & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - 100 * hundreds) << 16;
    let tens = (twos * 103) >> 10 & 0x000f_000f_000f_000f;
    tens | (twos - 10 * tens) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: f32) -> Option<String> {
        let mut place = [b'#'; PLACE];
        let length = write(&mut place, value)?;
        Some(String::from_utf8(place[..length].to_vec()).unwrap())
    }

    #[track_caller]
    fn check(bits: u32) {
        let value = f32::from_bits(bits);
        let expected = |value: f32| Some(zmij::Buffer::new().format_finite(value).to_owned());
        assert_eq!(text(value), expected(value), "{bits:#x}");
        assert_eq!(text(-value), expected(-value), "-{bits:#x}");
    }

    /// Of each exponent that is known, as bits of the number with the least significand.
    fn exponents() -> impl Iterator<Item = u32> {
        (LEAST_SHIFT..=MOST_SHIFT).map(|shift| (INTEGER_EXPONENT - shift) << SIGNIFICAND_BITS)
    }

    #[test]
    fn everyday_numbers_are_written_as_people_write_them() {
        for (value, expected) in [
            (0.1, "0.1"),
            (-0.1234, "-0.1234"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (3.0, "3.0"),
            (9.5, "9.5"),
            (-255.0, "-255.0"),
            (123_456.7, "123456.7"),
            (8_388_607.5, "8388607.5"),
            (0.999_999_94, "0.99999994"),
            (6.103_516e-5, "0.00006103516"),
        ] {
            assert_eq!(text(value).as_deref(), Some(expected));
        }
    }

    #[test]
    fn others_are_left_alone() {
        for value in
            [1.0, 0.5, 8_388_608.0, 6.103_515_6e-5, 1e-5, 1e9, f32::MIN_POSITIVE, f32::NAN, f32::INFINITY]
        {
            assert_eq!(text(value), None, "{value}");
            assert_eq!(text(-value), None, "-{value}");
        }
    }

    #[test]
    fn each_exponent_is_written_as_the_library_writes_it() {
        for least in exponents() {
            let last = (1 << SIGNIFICAND_BITS) - 1;
            for significand in (1..64).chain((1..last).step_by(4_099)).chain(last - 64..=last) {
                check(least + significand);
            }
        }
    }

    /// Takes half a minute with optimisation; to be run after a change here:
    /// `cargo test --release -p volley --lib fp32 -- --ignored`.
    #[test]
    #[ignore = "checks 310 million numbers"]
    fn all_are_written_as_the_library_writes_them() {
        let mut place = [0; PLACE];
        let mut buffer = zmij::Buffer::new();
        for least in exponents() {
            for significand in 1..1 << SIGNIFICAND_BITS {
                let value = f32::from_bits(least + significand);
                let length = write(&mut place, value).unwrap();
                assert_eq!(&place[..length], buffer.format_finite(value).as_bytes(), "{value}");
            }
        }
    }
}
