//! The time of each hot path, as Criterion measured it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Args;
use super::figure::{Figure, Unit};
use crate::child;
use crate::workspace::Workspace;

/// Runs the benches of `benches/benches/time.rs` and reads what they wrote.
pub(super) fn run(workspace: &Workspace, args: &Args) -> Result<Vec<Figure>> {
    let results = workspace.target.join("criterion");
    if results.exists() {
        fs::remove_dir_all(&results)?; // what is no longer measured would be read, too
    }
    let mut bench = workspace.cargo(&["bench", "--package", "benches", "--bench", "time", "--"]);
    bench.args(["--noplot", "--quiet"]);
    if !args.only.is_empty() {
        bench.arg(&args.only);
    }
    child::run(&mut bench)?;
    let mut figures = Vec::new();
    for bench in fs::read_dir(&results).with_context(|| format!("cannot read {}", results.display()))? {
        let bench = bench?.path().join("new");
        if bench.is_dir() {
            let figure = figure(&json(&bench.join("benchmark.json"))?, &json(&bench.join("estimates.json"))?);
            figures.push(figure.with_context(|| format!("{} has no estimates", bench.display()))?);
        }
    }
    ensure!(!figures.is_empty(), "no hot path's name holds {:?}", args.only);
    figures.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(figures)
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// The median of the samples; twice their median deviation holds most of them.
fn figure(bench: &Value, estimates: &Value) -> Option<Figure> {
    let estimate = |name: &str| estimates[name]["point_estimate"].as_f64();
    let name = format!("criterion/{}", bench["full_id"].as_str()?);
    Some(Figure::spread(name, Unit::Nanoseconds, estimate("median")?, 2.0 * estimate("median_abs_dev")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn criterions_estimates_are_read() {
        let bench = json!({ "group_id": "decode/json", "full_id": "decode/json" });
        let estimates = json!({
            "mean": { "point_estimate": 110.0 },
            "median": { "point_estimate": 100.0, "standard_error": 1.0 },
            "median_abs_dev": { "point_estimate": 10.0 },
        });
        let figure = figure(&bench, &estimates).unwrap();
        assert_eq!((&*figure.name, figure.value, figure.noise), ("criterion/decode/json", 100.0, 0.2));
        assert_eq!(super::figure(&bench, &json!({})), None);
    }
}
