//! Every formula against values from other programs.
//!
//! `xtask/python/statistics_oracle.py` writes the files, and `cargo xtask test rust` holds them against it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use csv::StringRecord;
use statistics::{Alpha, Counts, Rate, RateTest, ShareTest, band, interval};

/// What a result may be off by.
const TOLERANCE: f64 = 1e-9;

/// What a result is off by: of itself.
fn relative(found: f64, wanted: f64) -> f64 {
    if found == wanted { 0.0 } else { (found / wanted - 1.0).abs() }
}

/// What a logarithm is off by: of itself, or of what it is the logarithm of where that is less than e.
fn logarithmic(found: f64, wanted: f64) -> f64 {
    (found - wanted).abs() / wanted.abs().max(1.0)
}

/// Holds each row of `file` against what `off` says the results for it are off by.
#[track_caller]
fn check(file: &str, off: impl Fn(&StringRecord) -> f64) {
    let path = format!("{}/tests/oracle/{file}.csv", env!("CARGO_MANIFEST_DIR"));
    let rows: Vec<StringRecord> =
        csv::Reader::from_path(path).unwrap().records().map(Result::unwrap).collect();
    let off: Vec<f64> = rows.iter().map(off).collect();
    let wrong: Vec<_> =
        rows.iter().zip(off).filter(|(_, off)| off.is_nan() || *off > TOLERANCE).take(20).collect();
    assert!(wrong.is_empty(), "{file}: {wrong:#?}");
    assert!(rows.len() > 20, "{file} has {} rows", rows.len());
}

fn number(row: &StringRecord, column: usize) -> f64 {
    row[column].parse().unwrap()
}

fn counts(row: &StringRecord, column: usize) -> Counts {
    Counts::new(row[column].parse().unwrap(), row[column + 1].parse().unwrap())
}

#[test]
fn the_evidence_against_a_limit() {
    check("ln_e", |row| {
        let test = RateTest::new(Rate::new(number(row, 0)).unwrap(), Alpha::new(0.01).unwrap());
        logarithmic(test.ln_e(counts(row, 1)), number(row, 3))
    });
}

#[test]
fn the_bounds_of_a_rate() {
    check("bounds", |row| {
        let (counts, alpha) = (counts(row, 0), Alpha::new(number(row, 2)).unwrap());
        let lower = relative(interval::lower(counts, alpha), number(row, 3));
        lower.max(relative(interval::upper(counts, alpha), number(row, 4)))
    });
}

#[test]
fn the_evidence_against_shares() {
    check("ln_bayes_factor", |row| {
        let shares: Vec<f64> = row[0].split(' ').map(|share| share.parse().unwrap()).collect();
        let counts: Vec<u64> = row[2].split(' ').map(|count| count.parse().unwrap()).collect();
        let test = ShareTest::new(&shares, number(row, 1)).unwrap();
        logarithmic(test.ln_bayes_factor(&counts), number(row, 3))
    });
}

#[test]
fn the_band_of_a_distribution() {
    check("band", |row| {
        let alpha = Alpha::new(number(row, 1)).unwrap();
        relative(band::radius(row[0].parse().unwrap(), alpha), number(row, 2).min(1.0))
    });
}
