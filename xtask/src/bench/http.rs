//! HTTP JSON inference of a small model, beside a bare echo of the same body.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::figure::{Figure, Unit};
use super::server::Server;
use super::wrk::{self, Load, Measured};
use super::{Args, directory, median, require};
use crate::workspace::Workspace;
use crate::{child, models};

const MODEL: &str = "mlp";
const FEATURES: u32 = 64;
const REPEATS: usize = 3;

/// Both servers under the same load.
#[derive(Debug)]
struct Row {
    connections: u32,
    floor: Measured,
    volley: Measured,
    /// What is compared with a baseline.
    figures: Vec<Figure>,
}

/// Measures, prints a table and writes `target/bench/http.json`.
pub(super) fn run(workspace: &Workspace, args: &Args) -> Result<Vec<Figure>> {
    require("wrk")?;
    let packages = ["build", "--release", "--package", "volley", "--package", "benches"];
    child::run(workspace.cargo(&packages).args(["--bin", "volley", "--bin", "http_floor"]))?;
    let repository = directory(workspace).join("models");
    models::generate(workspace, "models.py", &repository, &[MODEL.to_owned()])?;

    let floor = Server::floor(workspace)?;
    let volley = Server::volley(workspace, &repository)?;
    let script = directory(workspace).join("post.lua");
    wrk::write_script(&script, &body(&volley)?)?;

    let path = format!("/v2/models/{MODEL}/infer");
    let load = |connections, seconds| Load { path: &path, script: &script, connections, seconds };
    for server in [&floor, &volley] {
        wrk::drive(server, &load(8, 1)).context("warming up")?;
    }
    let repeats = args.repeats.map_or(REPEATS, Into::into);
    println!("{}", heading());
    let mut rows = Vec::new();
    for &connections in &args.connections {
        let load = load(connections.get(), args.seconds.get());
        let row = compare(&floor, &volley, &load, repeats)?;
        println!("{row}");
        rows.push(row);
    }
    write(workspace, args, repeats, &rows)?;
    Ok(rows.into_iter().flat_map(|row| row.figures).collect())
}

/// Loads the two servers in turn, so that whatever else the machine does meets both.
fn compare(floor: &Server, volley: &Server, load: &Load<'_>, repeats: usize) -> Result<Row> {
    let (mut floors, mut volleys) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        floors.push(wrk::drive(floor, load).context("the floor")?);
        volleys.push(wrk::drive(volley, load).context("volley")?);
    }
    let figures = figures(load.connections, &floors, &volleys);
    Ok(Row { connections: load.connections, floor: middle(&floors), volley: middle(&volleys), figures })
}

/// The share of the floor that volley reaches varies least: what else the machine does meets both. The p99 is left
/// out: wrk adds answers that were never sent for each that is slow, so that one hiccup of the machine is all of it.
fn figures(connections: u32, floors: &[Measured], volleys: &[Measured]) -> Vec<Figure> {
    let figure =
        |case: &str, unit, values: Vec<f64>| Figure::of(format!("http/{connections}/{case}"), unit, &values);
    let pairs = floors.iter().zip(volleys);
    vec![
        figure("throughput", Unit::PerSecond, volleys.iter().map(|run| run.per_second).collect()),
        figure(
            "of_floor",
            Unit::OfFloor,
            pairs.map(|(floor, run)| run.per_second / floor.per_second).collect(),
        ),
        figure("cpu", Unit::Microseconds, volleys.iter().map(|run| run.cpu_micros).collect()),
    ]
}

/// The median of each figure by itself.
fn middle(runs: &[Measured]) -> Measured {
    let of = |figure: fn(&Measured) -> f64| median(runs.iter().map(figure));
    Measured {
        per_second: of(|run| run.per_second),
        p50_micros: of(|run| run.p50_micros),
        p99_micros: of(|run| run.p99_micros),
        cpu_micros: of(|run| run.cpu_micros),
    }
}

/// A request for the model, whose input is called what the server says.
fn body(volley: &Server) -> Result<String> {
    let metadata: Value = serde_json::from_str(&volley.get(&format!("/v2/models/{MODEL}"))?)?;
    let input = metadata["inputs"][0]["name"].as_str().context("the model's metadata names no input")?;
    let data: Vec<Value> = (0..FEATURES).map(feature).collect();
    let input = json!({ "name": input, "shape": [1, FEATURES], "datatype": "FP32", "data": data });
    Ok(json!({ "inputs": [input] }).to_string())
}

/// A number of as many digits as measured features have, the same on every machine.
fn feature(index: u32) -> Value {
    let number = f64::from(index.wrapping_mul(2_654_435_769) >> 8) / f64::from(1 << 23) - 1.0;
    json!((number * 1e6).round() / 1e6)
}

fn heading() -> String {
    format!(
        "wrk, one thread; its p99 is corrected with answers that were never sent, so no baseline has it\n\n{:>11} | {:>9} {:>9} {:>5} | {:>17} | {:>17} | {:>13}\n{:>11} | {:>9} {:>9} {:>5} | {:>8} {:>8} | {:>8} {:>8} | {:>6} {:>6}",
        "",
        "req/s",
        "",
        "",
        "p50 µs",
        "p99 µs",
        "CPU µs/req",
        "connections",
        "floor",
        "volley",
        "ratio",
        "floor",
        "volley",
        "floor",
        "volley",
        "floor",
        "volley"
    )
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { connections, floor, volley, figures: _ } = self;
        write!(
            f,
            "{connections:>11} | {:>9.0} {:>9.0} {:>5.2} | {:>8.0} {:>8.0} | {:>8.0} {:>8.0} | {:>6.1} {:>6.1}",
            floor.per_second,
            volley.per_second,
            volley.per_second / floor.per_second,
            floor.p50_micros,
            volley.p50_micros,
            floor.p99_micros,
            volley.p99_micros,
            floor.cpu_micros,
            volley.cpu_micros,
        )
    }
}

fn write(workspace: &Workspace, args: &Args, repeats: usize, rows: &[Row]) -> Result<()> {
    let figures = |measured: &Measured| {
        json!({
            "requests_per_second": measured.per_second,
            "p50_micros": measured.p50_micros,
            "p99_micros": measured.p99_micros,
            "cpu_micros_per_request": measured.cpu_micros,
        })
    };
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({ "connections": row.connections, "floor": figures(&row.floor), "volley": figures(&row.volley) })
        })
        .collect();
    let cores = std::thread::available_parallelism()?.get();
    let report = json!({
        "model": MODEL, "cores": cores, "seconds": args.seconds, "repeats": repeats, "rows": rows,
    });
    let path = directory(workspace).join("http.json");
    fs::write(&path, format!("{report:#}\n"))?;
    println!("written to {}", workspace.relative(&path).display());
    Ok(())
}
