//! The tables and the plot of `docs/rollout-statistics.md`.

use std::fmt::Write as _;

use statistics::interval::is_below;
use statistics::{Alpha, Counts, Rate, RateGate};

use crate::hour::REQUESTS;
use crate::plot;
use crate::rules::Rule;
use crate::trial::{RUNS, Trial};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

/// The rules that are compared, by their names.
pub(crate) fn rules() -> [(&'static str, Rule); 4] {
    [
        ("rate since the start, each minute", Rule::Cumulative),
        ("Argo style: 1 minute, failureLimit 3", Rule::Windows { allowed: 3 }),
        ("Flagger style: 1 minute, threshold 10", Rule::Windows { allowed: 9 }),
        ("this gate, at each request", Rule::gate()),
    ]
}

/// How often and how soon each rule rolls back.
fn compared() -> String {
    let mut table = format!(
        "| {RUNS} hours, 5 requests/s | 0.05 % (healthy): rolled back | 0.2 % | 0.5 % | 1 % | 5 % |\n|{}\n",
        "---|".repeat(6)
    );
    for (name, rule) in rules() {
        let healthy = percent(Trial::of(0.0005, &rule).rolled_back());
        write!(table, "| {name} | {healthy} |").unwrap();
        for rate in [0.002, 0.005, 0.01, 0.05] {
            let trial = Trial::of(rate, &rule);
            let after = trial.median().map_or("less than half".to_owned(), seconds);
            let rolled_back = trial.rolled_back();
            let most = if rolled_back < 1.0 { format!(" ({})", percent(rolled_back)) } else { String::new() };
            write!(table, " {after}{most} |").unwrap();
        }
        table.push('\n');
    }
    table
}

/// What the gate says after an hour.
fn verdicts() -> String {
    let mut table = "| true error rate | 5 requests/s: FAIL | INCONCLUSIVE | PASS | 50 requests/s: FAIL | \
                     INCONCLUSIVE | PASS |\n"
        .to_owned();
    writeln!(table, "|{}", "---|".repeat(7)).unwrap();
    for rate in [0.0002, 0.0005, 0.0008, 0.001, 0.0015, 0.002, 0.003] {
        write!(table, "| {} % |", (rate * 1e6_f64).round() / 1e4).unwrap();
        for requests in [REQUESTS, 10 * REQUESTS] {
            let trial = Trial::at(requests, rate, &Rule::gate());
            let (fail, pass) = (trial.rolled_back(), trial.promoted);
            write!(table, " {} | {} | {} |", percent(fail), percent(1.0 - fail - pass), percent(pass))
                .unwrap();
        }
        table.push('\n');
    }
    table
}

/// How many requests it takes to pass.
fn needed() -> String {
    let failures = [0, 1, 3, 10, 100];
    let mut table = "| limit | no failure |".to_owned();
    failures[1..].iter().for_each(|failures| write!(table, " {failures} |").unwrap());
    writeln!(table, "\n|{}", "---|".repeat(failures.len() + 1)).unwrap();
    for (name, limit) in [("0.1 % errors", 0.001), ("1 % errors, or p99", 0.01), ("p95", 0.05), ("p90", 0.1)]
    {
        write!(table, "| {name} |").unwrap();
        for failures in failures {
            write!(table, " {} |", grouped(least_total(failures, Rate::new(limit).unwrap()))).unwrap();
        }
        table.push('\n');
    }
    table
}

/// The least number of requests among which `failures` are few enough to pass.
fn least_total(failures: u64, limit: Rate) -> u64 {
    let alpha = Alpha::new(RateGate::PASS_ALPHA).unwrap();
    let (mut few, mut many) = (failures, 1_000_000);
    while many - few > 1 {
        let middle = few + (many - few) / 2;
        if is_below(Counts::new(failures, middle), limit, alpha) { many = middle } else { few = middle }
    }
    many
}

fn percent(share: f64) -> String {
    let percent = (share * 1e3).round() / 10.0;
    // -0 where rounding leaves a little less than nothing.
    format!("{} %", percent + 0.0)
}

fn seconds(seconds: f64) -> String {
    format!("{} s", seconds.round())
}

/// 10,750 for 10750.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `page` with what lies between the marks `name` replaced.
fn filled(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: simulated -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&begin).expect("the page has each mark");
    let (_, after) = rest.split_once(&end).expect("each mark has an end");
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn the_page_in_the_repository_is_what_comes_of_the_simulation() {
    let path = format!("{DOCS}/rollout-statistics.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let mut page = written.clone();
    for (name, table) in [("rules", compared()), ("verdicts", verdicts()), ("requests", needed())] {
        page = filled(&page, name, &table);
    }
    let picture = format!("{DOCS}/rollout-statistics/rules.svg");
    let svg = plot::svg();
    if std::env::var_os("VOLLEY_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(format!("{DOCS}/rollout-statistics")).unwrap();
        std::fs::write(&picture, &svg).unwrap();
        std::fs::write(&path, &page).unwrap();
        return;
    }
    assert!(svg.len() < 200_000, "{} bytes", svg.len());
    let current = std::fs::read_to_string(&picture).unwrap_or_default() == svg && written == page;
    assert!(current, "docs/rollout-statistics.md is not current; run this test with VOLLEY_UPDATE_DOCS=1");
}
