//! Measurements for tests, shaped as a batching server answers: made by formulas, the same each time.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made-up figures are small")]

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::measurement::{
    Latency, Load, Machine, Measurement, ModelSide, Run, SCHEMA, Second, ServerSide, Target,
};

const SECONDS: u64 = 20;

/// A closed loop.
pub(crate) fn closed(concurrency: usize) -> Load {
    Load::Closed { concurrency }
}

/// A closed loop at each concurrency.
pub(crate) fn sweep(concurrencies: &[usize]) -> Measurement {
    let loads: Vec<Load> = concurrencies.iter().map(|concurrency| closed(*concurrency)).collect();
    of(&loads, 1)
}

/// Each load, `repeats` times.
pub(crate) fn of(loads: &[Load], repeats: usize) -> Measurement {
    let mut runs = Vec::new();
    for load in loads {
        for repeat in 0..repeats {
            runs.push(Run { repeat, ..run(load, 1 + repeat as u64) });
        }
    }
    let words = ["volley-load", "http://localhost:8000", "--model", "digits"];
    Measurement {
        schema: SCHEMA.to_owned(),
        command: words.map(str::to_owned).to_vec(),
        started: "2026-03-04T05:06:07Z".to_owned(),
        machine: Machine {
            cpu: "Example CPU 3000".to_owned(),
            cores: 8,
            memory_bytes: 32 << 30,
            system: "Linux 6.1".to_owned(),
            generator: "0.1.0".to_owned(),
            threads: Some(1),
        },
        target: Target {
            url: "http://localhost:8000".to_owned(),
            protocol: "http-binary".to_owned(),
            server: Some("volley 0.1.0".to_owned()),
            models: BTreeMap::from([("digits".to_owned(), 1.0)]),
            request_bytes: 412.0,
        },
        runs,
        found: None,
        interrupted: None,
    }
}

/// One run in which no request was answered well.
pub(crate) fn errors_only() -> Measurement {
    let mut measurement = sweep(&[8]);
    let run = &mut measurement.runs[0];
    let failures = run.requests;
    run.errors = BTreeMap::from([("status 503: model \"digits\" is not ready".to_owned(), failures)]);
    run.latency = Latency::default();
    (run.requests_per_second, run.items_per_second) = (0.0, 0.0);
    for second in &mut run.timeline {
        *second = Second { at: second.at, errors: second.requests, ..Second::default() };
    }
    run.server = None;
    measurement
}

/// A run whose figures wander a little with `seed`.
pub(crate) fn run(load: &Load, seed: u64) -> Run {
    let level = match load {
        Load::Closed { concurrency } => *concurrency as f64,
        Load::Open { rate, .. } => rate / 250.0,
    };
    let mut random = Random(seed.wrapping_mul(7919) + level as u64);
    let batch = level.min(16.0);
    let service = 900.0 + 60.0 * batch;
    let capacity = 1e6 * batch / service;
    let rate = match load {
        Load::Closed { .. } => capacity,
        Load::Open { rate, .. } => rate.min(capacity),
    } * (0.99 + 0.02 * random.next());
    let queue = service * (level / batch - 1.0) + 0.2 * service;
    let mut nanos = Histogram::new(3).unwrap();
    for _ in 0..20_000 {
        let tail = 0.02 / (1.001 - random.next());
        nanos.record(((service + queue) * (0.8 + 0.4 * random.next() + tail) * 1e3) as u64).unwrap();
    }
    let requests = (rate * SECONDS as f64) as u64;
    let latency = Latency::of(&nanos);
    let timeline = (0..SECONDS).map(|at| second(at, rate, &latency, &mut random)).collect();
    Run {
        load: load.clone(),
        repeat: 0,
        seconds: SECONDS as f64,
        requests,
        items: requests,
        unanswered: 0,
        errors: BTreeMap::new(),
        wrong_answers: 0,
        wrong_example: None,
        requests_per_second: rate,
        items_per_second: rate,
        latency,
        send_lag: Latency { count: requests, p50: 4.0, p99: 40.0, max: 180.0, ..Latency::default() },
        generator_cpu_micros: 21.5,
        generator_busy: Some(0.4),
        generator_waiting: Some(0.01),
        timeline,
        server: Some(server(requests, batch, service, queue)),
        silent_models: BTreeMap::new(),
        objectives: Vec::new(),
    }
}

fn second(at: u64, rate: f64, latency: &Latency, random: &mut Random) -> Second {
    Second {
        at: at as f64,
        requests: (rate * (0.97 + 0.06 * random.next())) as u64,
        errors: 0,
        p50_micros: latency.p50 * (0.97 + 0.06 * random.next()),
        p99_micros: latency.p99 * (0.8 + 0.4 * random.next()),
    }
}

fn server(requests: u64, batch: f64, service: f64, queue: f64) -> ServerSide {
    let executions = (requests as f64 / batch) as u64;
    let full = batch as u64;
    let model = ModelSide {
        requests,
        failures: 0,
        inferences: requests,
        executions,
        request_micros: 0.9 * service + queue,
        queue_micros: queue,
        compute_input_micros: 0.03 * service,
        compute_infer_micros: 0.8 * service,
        compute_output_micros: 0.02 * service,
        batches: (1..=full).map(|size| (size, executions * size * size / (full * full) + 1)).collect(),
    };
    ServerSide {
        models: BTreeMap::from([("digits".to_owned(), model)]),
        cpu_micros_per_request: Some(95.0 + 300.0 / batch),
        resident_bytes: Some(180 << 20),
    }
}

/// A generator of numbers from 0 to 1 (Knuth's MMIX constants): tests need the same ones each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
