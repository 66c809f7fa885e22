//! What was typed as what is done: every rule that spans several options.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::args::{ExtentArgs, LoadArgs, ShapeArgs, Spacing, Span};
use crate::arrivals::Pattern;
use crate::distinct::distinct;
use crate::load::{Mode, Spec};
use crate::measurement::{Arrivals, Load};
use crate::search::HIGHEST_RATE;
use crate::trace;

/// Without anything that ends a run.
const DURATION: Duration = Duration::from_secs(10);

/// A trace whose requests come all at once is measured for so long.
const SHORTEST_TRACE: Duration = Duration::from_millis(100);

/// What is run.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Each of these, `repeats` times.
    Runs(Vec<Planned>),
    /// Rates, until the highest that meets the objectives is found.
    Search { bounds: Option<(f64, f64)>, precision: f64 },
}

/// One load.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// As the results tell it.
    pub(crate) load: Load,
    /// As it is applied.
    pub(crate) spec: Spec,
}

impl Plan {
    /// # Errors
    /// When the options contradict each other or a trace cannot be read.
    pub(crate) fn new(args: &LoadArgs) -> anyhow::Result<Plan> {
        let (shape, extent) = (&args.shape, &args.extent);
        ensure!(extent.timeout > Duration::ZERO, "--timeout 0 leaves no time to answer");
        ensure!(extent.duration != Some(Duration::ZERO), "--duration 0 leaves nothing to measure");
        distinct_files(args)?;
        effective(args)?;
        if let Some(bounds) = &shape.find_rate {
            let bounds = bounds.as_ref().map(|span| pair(span, "--find-rate", "LOW:HIGH")).transpose()?;
            let rising = bounds.is_none_or(|(low, high)| 0.0 < low && low < high);
            ensure!(rising, "--find-rate: LOW must be above 0 and below HIGH");
            return Ok(Plan::Search { bounds, precision: shape.precision });
        }
        if let Some(path) = &shape.trace {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let times = trace::read(&text, shape.trace_speed).with_context(|| path.display().to_string())?;
            return Ok(Plan::Runs(vec![replay(times, extent)]));
        }
        if let Some(span) = &shape.ramp {
            let (from, to) = pair(span, "--ramp", "FROM:TO")?;
            ensure!(from > 0.0 || to > 0.0, "--ramp: a rate must be above 0");
            return Ok(Plan::Runs(vec![ramp(from, to, extent)]));
        }
        let rates = rates(shape)?;
        if let (Some(duration), Some(rate)) = (extent.duration, rates.iter().copied().reduce(f64::min)) {
            let seconds = duration.as_secs_f64();
            ensure!(
                rate * seconds > 1.0 - 1e-9,
                "no request is due in {seconds} s at {rate}/s; measure longer with --duration"
            );
        }
        if !rates.is_empty() {
            return Ok(Plan::Runs(rates.iter().map(|rate| open(*rate, shape.arrivals, extent)).collect()));
        }
        let concurrency = if shape.concurrency.is_empty() { &[1][..] } else { &shape.concurrency };
        for concurrency in concurrency {
            ensure!((1..=100_000).contains(concurrency), "--concurrency is a number from 1 to 100000");
        }
        Ok(Plan::Runs(concurrency.iter().map(|concurrency| closed(*concurrency, extent)).collect()))
    }
}

/// Options that would have no effect are refused: whoever typed one expects it.
fn effective(args: &LoadArgs) -> anyhow::Result<()> {
    let (input, protocol) = (&args.input, args.target.protocol);
    let random = [
        ("--shape", input.shape.is_empty()),
        ("--range", input.range.is_empty()),
        ("--string-length", input.string_length.is_empty()),
        ("--distinct", input.distinct.is_none()),
    ];
    let given = random.iter().find(|(_, absent)| !absent && !input.is_random());
    ensure!(
        given.is_none(),
        "{} is for random inputs, and --input gives a file",
        given.map_or("", |(name, _)| name)
    );
    ensure!(
        input.scale.is_none() || input.has_images(),
        "--scale is for images, and --input gives none (.png, .jpg, .jpeg, or a folder of them)"
    );
    // The command line's own rule does not hold beside another load.
    let plays = args.shape.trace.is_some() || args.shape.trace_speed.to_bits() == 1_f64.to_bits();
    ensure!(plays, "--trace-speed is for --trace");
    ensure!(
        args.extent.connections == 1 || !protocol.is_http(),
        "--connections is for gRPC; over HTTP each request in flight has its own connection"
    );
    Ok(())
}

/// Results that would overwrite each other, or what is read, are refused.
fn distinct_files(args: &LoadArgs) -> anyhow::Result<()> {
    let output = &args.output;
    let written = [("--json", &output.json), ("--csv", &output.csv), ("--html", &output.html)];
    let written: Vec<_> =
        written.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?))).collect();
    let inputs = args.input.input.iter().map(|file| ("--input", file.path.as_path()));
    let expected = args.check.expect.iter().map(|file| ("--expect", file.path.as_path()));
    let trace = args.shape.trace.iter().map(|path| ("--trace", path.as_path()));
    distinct(&written, &inputs.chain(expected).chain(trace).collect::<Vec<_>>())
}

/// An open loop at `rate`.
pub(crate) fn open(rate: f64, spacing: Spacing, extent: &ExtentArgs) -> Planned {
    let (pattern, arrivals) = match spacing {
        Spacing::Constant => (Pattern::Constant { rate }, Arrivals::Constant),
        Spacing::Poisson => (Pattern::Poisson { rate, seed: extent.seed }, Arrivals::Poisson),
    };
    Planned { load: Load::Open { rate, arrivals }, spec: spec(open_mode(pattern, extent), extent) }
}

fn closed(concurrency: usize, extent: &ExtentArgs) -> Planned {
    Planned { load: Load::Closed { concurrency }, spec: spec(Mode::Closed { concurrency }, extent) }
}

fn ramp(from: f64, to: f64, extent: &ExtentArgs) -> Planned {
    let duration = extent.duration.unwrap_or(DURATION);
    // Nothing is due while a ramp from 0 holds its first rate.
    let hold = if from > 0.0 { extent.warmup.as_secs_f64() } else { 0.0 };
    let pattern = Pattern::Ramp { from, to, hold, seconds: duration.as_secs_f64() };
    let warmup = if from > 0.0 { extent.warmup } else { Duration::ZERO };
    let spec = Spec { duration: Some(duration), warmup, ..spec(open_mode(pattern, extent), extent) };
    Planned { load: Load::Open { rate: to, arrivals: Arrivals::Ramp { from } }, spec }
}

fn replay(times: Vec<u64>, extent: &ExtentArgs) -> Planned {
    let last = times.last().copied().unwrap_or_default();
    // As long after the last as requests are apart, and never so short that a rate means nothing.
    let gap = last / u64::try_from(times.len().saturating_sub(1)).unwrap_or(1).max(1);
    let whole = Duration::from_nanos(last.saturating_add(gap)).max(SHORTEST_TRACE);
    let duration = extent.duration.map_or(whole, |duration| duration.min(whole));
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 requests")]
    let rate = times.len() as f64 / whole.as_secs_f64();
    let pattern = Pattern::Trace(Arc::from(times));
    // What came first in a trace belongs to it.
    let spec =
        Spec { duration: Some(duration), warmup: Duration::ZERO, ..spec(open_mode(pattern, extent), extent) };
    Planned { load: Load::Open { rate, arrivals: Arrivals::Trace }, spec }
}

fn open_mode(pattern: Pattern, extent: &ExtentArgs) -> Mode {
    Mode::Open { pattern, max_connections: extent.max_connections as usize }
}

fn spec(mode: Mode, extent: &ExtentArgs) -> Spec {
    Spec {
        mode,
        warmup: extent.warmup,
        duration: extent.duration.or_else(|| extent.requests.is_none().then_some(DURATION)),
        requests: extent.requests,
        timeout: extent.timeout,
        threads: extent.threads.into(),
        seed: extent.seed,
    }
}

/// The rates of `--rate` or `--rate-range`.
fn rates(shape: &ShapeArgs) -> anyhow::Result<Vec<f64>> {
    let rates = match &shape.rate_range {
        None => shape.rate.clone(),
        Some(Span(numbers)) => {
            let [start, end, step] = numbers[..] else {
                anyhow::bail!("--rate-range: write it as START:END:STEP, as in 100:1000:100");
            };
            ensure!(step > 0.0 && start <= end, "--rate-range: END must be above START, and STEP above 0");
            ensure!((end - start) / step <= 1000.0, "--rate-range: more than 1000 runs");
            // Counted, as a rate may be so large that a step changes nothing. A step that does not divide the range by
            // a hair's breadth still ends at its end.
            let runs = (0..=1000_u32).map(|run| start + f64::from(run) * step);
            runs.take_while(|rate| *rate <= end + step * 1e-6).collect()
        }
    };
    let right = rates.iter().all(|rate| rate.is_finite() && *rate > 0.0);
    ensure!(right, "--rate is a number of requests each second, above 0");
    ensure!(rates.iter().all(|rate| *rate <= HIGHEST_RATE), "--rate is at most {HIGHEST_RATE}");
    Ok(rates)
}

fn pair(span: &Span, option: &str, form: &str) -> anyhow::Result<(f64, f64)> {
    let [first, second] = span.0[..] else { anyhow::bail!("{option}: write it as {form}") };
    ensure!(first <= HIGHEST_RATE && second <= HIGHEST_RATE, "{option}: a rate is at most {HIGHEST_RATE}");
    Ok((first, second))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn plan(text: &str) -> Result<Plan, String> {
        let cli = Cli::try_parse_from(format!("x --model m {text}").split_whitespace()).unwrap();
        Plan::new(&cli.load).map_err(|error| format!("{error:#}"))
    }

    #[track_caller]
    fn runs(text: &str) -> Vec<Planned> {
        match plan(text).unwrap() {
            Plan::Runs(runs) => runs,
            Plan::Search { .. } => panic!("{text} is a search"),
        }
    }

    #[test]
    fn each_number_is_a_run() {
        let loads = |text| runs(text).into_iter().map(|run| run.load).collect::<Vec<_>>();
        assert_eq!(loads(""), [Load::Closed { concurrency: 1 }]);
        assert_eq!(loads("-c 1,8"), [Load::Closed { concurrency: 1 }, Load::Closed { concurrency: 8 }]);
        let open = |rate| Load::Open { rate, arrivals: Arrivals::Poisson };
        assert_eq!(loads("--rate 10,20 --arrivals poisson"), [open(10.0), open(20.0)]);
        assert_eq!(loads("--rate-range 10:30:10 --arrivals poisson"), [open(10.0), open(20.0), open(30.0)]);
        assert_eq!(loads("--rate-range 0.1:0.3:0.1").len(), 3);
    }

    #[test]
    fn a_run_ends_by_time_or_by_number() {
        assert_eq!(runs("")[0].spec.duration, Some(DURATION));
        assert_eq!(runs("-n 100")[0].spec.duration, None);
        assert_eq!(runs("-n 100 -d 2s")[0].spec.duration, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_trace_is_as_long_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "1\n3\n5\n").unwrap();
        let run = runs(&format!("--trace {} --trace-speed 2", file.path().display())).remove(0);
        // Two seconds, and one more until a fourth would have come.
        assert_eq!(run.spec.duration, Some(Duration::from_secs(3)));
        assert_eq!(run.spec.warmup, Duration::ZERO);
        assert!(
            matches!(run.load, Load::Open { rate, arrivals: Arrivals::Trace } if (rate - 1.0).abs() < 1e-6)
        );
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for (text, words) in [
            ("--rate 0", "--rate is a number"),
            ("--rate-range 1:2", "START:END:STEP"),
            ("--rate-range 1:2:0", "STEP above 0"),
            ("--rate-range 1:1e7:1", "more than 1000 runs"),
            ("--rate-range 1e17:1e17:1", "--rate is at most 100000000"),
            ("--rate 1e9", "--rate is at most 100000000"),
            ("--ramp 1:1e9", "--ramp: a rate is at most"),
            ("--find-rate 1:1e9 --slo p99<1s", "--find-rate: a rate is at most"),
            ("--ramp 0:0", "above 0"),
            ("--ramp 1:2:3", "FROM:TO"),
            ("--find-rate 20:10 --slo p99<1s", "below HIGH"),
            ("--concurrency 0", "from 1"),
            ("--timeout 0", "no time to answer"),
            ("--duration 0", "nothing to measure"),
            ("--input a.npy --shape x=1,2", "--shape is for random inputs"),
            ("--input a.npy --distinct 2", "--distinct is for random inputs"),
            ("--scale 1/255", "--scale is for images"),
            ("--input a.npy --scale 1/255", "--scale is for images"),
            ("--rate 1 --trace-speed 2", "--trace-speed is for --trace"),
            ("--connections 4", "--connections is for gRPC"),
            ("--rate 0.1 -d 1s", "no request is due in 1 s at 0.1/s"),
            ("--json a --html b --csv a", "--json and --csv are the same file, a"),
            ("--input x=a.npy --json ./a.npy", "--json and --input are the same file, ./a.npy"),
            ("--expect y=a.npy --html a.npy", "--html and --expect are the same file"),
            ("--trace t.csv --csv t.csv", "--csv and --trace are the same file"),
            ("--trace no/such", "cannot read no/such"),
        ] {
            let error = plan(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
