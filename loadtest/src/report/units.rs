//! Numbers and loads in words that people read: three digits that count, with a unit.

use crate::measurement::{Arrivals, Load};

/// A duration given in microseconds: `850 µs`, `1.24 ms`, `2.10 s`.
pub(crate) fn duration(micros: f64) -> String {
    match micros {
        micros if micros < 999.5 => format!("{} µs", number(micros)),
        micros if micros < 999_500.0 => format!("{} ms", number(micros / 1e3)),
        micros => format!("{} s", number(micros / 1e6)),
    }
}

/// Three digits that count, and all of those before the decimal point: `0.123`, `1.24`, `12.4`, `1,240`.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.000_5 => format!("{value:.1e}"),
        size if size < 0.999_5 => format!("{value:.3}"),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// As [`number`], without zeros at the end of the fraction: for the labels of an axis.
pub(crate) fn short(value: f64) -> String {
    let text = number(value);
    if !text.contains('.') || text.contains('e') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A whole number: `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn grouped(value: f64) -> String {
    let text = format!("{:.0}", value.abs());
    let sign = if value < 0.0 { "-" } else { "" };
    // Above 2^64, which no measurement reaches, digits stay ungrouped.
    format!("{sign}{}", text.parse().map_or(text, count))
}

/// An amount of memory: `1.20 GiB`.
pub(crate) fn bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1023.5 {
            return format!("{} {unit}", if unit == "B" { format!("{value:.0}") } else { number(value) });
        }
        value /= 1024.0;
    }
    format!("{} GiB", number(value))
}

/// A share as percent: `0.012 %`, `1.24 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", short(share * 100.0))
}

/// `part` of `whole`; nothing of nothing is 0.
#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A load: `8 in flight`, `500/s poisson`.
pub(crate) fn load(load: &Load) -> String {
    match load {
        Load::Closed { concurrency } => format!("{concurrency} in flight"),
        Load::Open { rate, arrivals: Arrivals::Ramp { from } } => {
            format!("{} to {}/s", short(*from), short(*rate))
        }
        Load::Open { rate, arrivals } => format!("{}/s {}", short(*rate), arrivals_name(arrivals)),
    }
}

/// The one number of a load that differs between the runs of a sweep.
pub(crate) fn load_number(load: &Load) -> String {
    match load {
        Load::Closed { concurrency } => concurrency.to_string(),
        Load::Open { rate, .. } => short(*rate),
    }
}

/// Names in a list that stays short: `a, b, c and 4 more`.
pub(crate) fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 4;
    match names {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first @ .., last] if names.len() <= SHOWN => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..SHOWN - 1].join(", "), names.len() - (SHOWN - 1)),
    }
}

/// When requests are due, in a word.
pub(crate) fn arrivals_name(arrivals: &Arrivals) -> &'static str {
    match arrivals {
        Arrivals::Constant => "constant",
        Arrivals::Poisson => "poisson",
        Arrivals::Ramp { .. } => "ramp",
        Arrivals::Trace => "trace",
    }
}

/// Text from outside on one line of a terminal: no control characters, which could move the cursor or change
/// colours, none that change the direction of text, and not longer than `limit` characters.
pub(crate) fn plain(text: &str, limit: usize) -> String {
    let turns =
        |char| matches!(char, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |char: char| if char.is_control() || turns(char) { ' ' } else { char };
    let mut plain: String = text.chars().map(shown).take(limit + 1).collect();
    if let Some((end, _)) = plain.char_indices().nth(limit) {
        plain.truncate(end);
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_that_count() {
        let cases = [
            (0.0, "0 µs"),
            (0.25, "0.250 µs"),
            (87.25, "87.2 µs"),
            (999.4, "999 µs"),
            (999.9, "1.00 ms"),
            (12_345.0, "12.3 ms"),
            (999_900.0, "1.00 s"),
            (3.6e9, "3,600 s"),
        ];
        for (micros, text) in cases {
            assert_eq!(duration(micros), text, "{micros}");
        }
    }

    #[test]
    fn numbers_are_grouped_and_short_ones_end_in_no_zero() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(-1_234.0), "-1,234");
        assert_eq!(number(f64::NAN), "–");
        assert_eq!(short(0.5), "0.5");
        assert_eq!(short(20.0), "20");
        assert_eq!(short(200.0), "200");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1.5 * 1024.0 * 1024.0), "1.50 MiB");
        assert_eq!(percent(share(1, 8)), "12.5 %");
    }

    #[test]
    fn loads_are_told_in_a_few_words() {
        assert_eq!(load(&Load::Closed { concurrency: 8 }), "8 in flight");
        assert_eq!(load(&Load::Open { rate: 1500.0, arrivals: Arrivals::Poisson }), "1,500/s poisson");
        let ramp = Load::Open { rate: 90.0, arrivals: Arrivals::Ramp { from: 10.0 } };
        assert_eq!(load(&ramp), "10 to 90/s");
    }

    #[test]
    fn a_list_of_names_stays_short() {
        let list = |count: u8| {
            some_of(&(b'a'..b'a' + count).map(|name| char::from(name).to_string()).collect::<Vec<_>>())
        };
        assert_eq!([0, 1, 2, 4].map(list), ["none", "a", "a and b", "a, b, c and d"]);
        assert_eq!([5, 20].map(list), ["a, b, c and 2 more", "a, b, c and 17 more"]);
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(plain("a\u{202e}b\u{9b}c", 80), "a b c");
        assert_eq!(plain("ééé", 2), "éé…");
    }
}
