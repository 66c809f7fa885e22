//! Two measurements that have no load in common: what each has, and how to measure what can be compared.

use anyhow::anyhow;

use super::page::Side;
use crate::measurement::{Arrivals, Load, Measurement};
use crate::report::loads::by_load;
use crate::report::units;

/// Why nothing can be compared, and what to do.
pub(super) fn error([a, b]: [&Side<'_>; 2]) -> anyhow::Error {
    let has = |side: &Side<'_>| {
        let loads: Vec<String> =
            by_load(&side.measurement.runs).iter().map(|runs| units::load(runs.load)).collect();
        format!("{} has {}", side.name, units::some_of(&loads))
    };
    let both = [a.measurement, b.measurement];
    anyhow!("no load in common: {}, {}; {}", has(a), has(b), advice(both))
}

fn advice([before, after]: [&Measurement; 2]) -> String {
    if let Some(found) = [before, after].into_iter().filter_map(|side| side.found.as_ref()).next() {
        let rate = found.rate.or(found.missed_at).map_or_else(|| "R".to_owned(), |rate| format!("{rate:.0}"));
        return format!("a search tries rates of its own, so measure both with --rate {rate}");
    }
    match option(before) {
        Some(option) => format!("measure the second again with {option}"),
        None => "measure both with the same loads".to_owned(),
    }
}

/// What was typed for the loads of `measurement`, where one option gives them all and is short.
fn option(measurement: &Measurement) -> Option<String> {
    let loads = by_load(&measurement.runs);
    let numbers = |number: fn(&Load) -> Option<String>| {
        let numbers: Option<Vec<String>> = loads.iter().map(|runs| number(runs.load)).collect();
        numbers.filter(|numbers| (1..=8).contains(&numbers.len())).map(|numbers| numbers.join(","))
    };
    let in_flight = numbers(|load| match load {
        Load::Closed { concurrency } => Some(concurrency.to_string()),
        Load::Open { .. } => None,
    });
    let constant = numbers(|load| match load {
        Load::Open { rate, arrivals: Arrivals::Constant } => Some(rate.to_string()),
        _ => None,
    });
    let poisson = numbers(|load| match load {
        Load::Open { rate, arrivals: Arrivals::Poisson } => Some(rate.to_string()),
        _ => None,
    });
    let in_flight = in_flight.map(|numbers| format!("--concurrency {numbers}"));
    let constant = constant.map(|numbers| format!("--rate {numbers}"));
    in_flight.or(constant).or(poisson.map(|numbers| format!("--rate {numbers} --arrivals poisson")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::FoundRate;
    use crate::report::sample;

    fn text(before: &Measurement, after: &Measurement) -> String {
        let side = |name: &str, measurement| Side { name: name.to_owned(), measurement };
        let text = error([&side("a", before), &side("b", after)]).to_string();
        assert!(text.chars().count() < 250, "{} characters: {text}", text.chars().count());
        text
    }

    fn open(rates: &[f64], arrivals: &Arrivals) -> Measurement {
        let load = |rate: &f64| Load::Open { rate: *rate, arrivals: arrivals.clone() };
        sample::of(&rates.iter().map(load).collect::<Vec<_>>(), 1)
    }

    #[test]
    fn each_says_what_it_has_and_the_second_what_it_lacks() {
        assert_eq!(
            text(&sample::sweep(&[1, 8]), &sample::sweep(&[64])),
            "no load in common: a has 1 in flight and 8 in flight, b has 64 in flight; measure the second again with \
             --concurrency 1,8"
        );
        let rates = open(&[100.0, 2.5], &Arrivals::Poisson);
        assert!(text(&rates, &sample::sweep(&[1])).ends_with("with --rate 100,2.5 --arrivals poisson"));
        assert!(text(&open(&[100.0], &Arrivals::Constant), &rates).ends_with("with --rate 100"));
    }

    #[test]
    fn many_loads_and_loads_of_no_one_option_stay_short() {
        let many: Vec<f64> = (1..=500).map(|step| f64::from(step) * 12_345.25).collect();
        let many = open(&many, &Arrivals::Constant);
        let text = text(&many, &sample::sweep(&(1..300).collect::<Vec<_>>()));
        assert!(
            text.contains("and 497 more, b has 1 in flight, 2 in flight, 3 in flight and 296 more"),
            "{text}"
        );
        assert!(text.ends_with("; measure both with the same loads"), "{text}");
    }

    #[test]
    fn searches_are_told_to_measure_a_rate() {
        let mut before = open(&[100.0, 200.0], &Arrivals::Constant);
        before.found = Some(FoundRate {
            cut_off: false,
            objective: "p99<1s".to_owned(),
            rate: Some(150.4),
            missed_at: None,
            repeats: 1,
        });
        assert!(text(&before, &sample::sweep(&[1])).ends_with("so measure both with --rate 150"));
    }
}
