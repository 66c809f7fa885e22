//! The command line, as it is typed.

mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use volley_client::input::Scale;

pub(crate) use self::values::{Model, Spacing, Span, duration};
use self::values::{percent, tolerance};
use crate::compare::CompareArgs;
use crate::expect::Tolerance;
use crate::input::{File, Range, Shape, StringLength};
use crate::server_side::ProbeArgs;
use crate::slo::Objectives;
use crate::transport::Protocol;

/// Send load to a V2 inference server (Volley, Triton, MLServer, KServe), and say what came of it
///
/// Closed loop: --concurrency requests in flight, the next sent when one is answered. Open loop: --rate requests each
/// second, sent when they are due whatever the server does; latency counts from when they were due.
#[derive(Debug, Parser)]
#[command(name = "volley-load", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

const EXAMPLES: &str = "\
Examples:
  volley-load --model digits --concurrency 1,8,32,128
  volley-load --model digits --rate 1000 --arrivals poisson --slo 'p99<20ms,errors<0.1%'
  volley-load --model digits --find-rate --slo 'p99<20ms' --html report.html
  volley-load --model resnet --input images/ --scale 1/255 --protocol grpc

Exit status: 0 done; 1 a run failed; 2 bad usage; 3 an objective was missed.";

/// What else it does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what changed between two measurements
    Compare(CompareArgs),
}

/// A measurement.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    #[command(flatten)]
    pub(crate) extent: ExtentArgs,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) check: CheckArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Who is asked.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct TargetArgs {
    /// Model to ask, with its version and its share of the requests; may be repeated
    #[arg(long, value_name = "NAME[:VERSION][=WEIGHT]", required = true)]
    pub(crate) model: Vec<Model>,
    /// Address of the server [default: http://localhost:8000, or :8001 for gRPC]
    #[arg(long, short, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How to speak to it
    #[arg(long, short, value_enum, default_value_t = Protocol::HttpJson, hide_possible_values = true,
          value_name = "http-json|http-binary|grpc|grpc-stream")]
    pub(crate) protocol: Protocol,
    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
}

/// How requests are sent.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load (one of them; --concurrency 1 when none is given)")]
pub(crate) struct ShapeArgs {
    /// Closed loop: requests in flight, a run for each number
    #[arg(long, short, value_name = "N,...", value_delimiter = ',', group = "load")]
    pub(crate) concurrency: Vec<usize>,
    /// Open loop: requests each second, a run for each number
    #[arg(long, short, value_name = "R,...", value_delimiter = ',', group = "load")]
    pub(crate) rate: Vec<f64>,
    /// Open loop: a run for each rate from START to END
    #[arg(long, value_name = "START:END:STEP", group = "load")]
    pub(crate) rate_range: Option<Span>,
    /// Open loop: a rate that rises or falls over the run
    #[arg(long, value_name = "FROM:TO", group = "load")]
    pub(crate) ramp: Option<Span>,
    /// Open loop: at the times in a file, seconds on each line
    #[arg(long, value_name = "FILE", group = "load")]
    pub(crate) trace: Option<PathBuf>,
    /// Open loop: find the highest rate that meets --slo
    #[arg(long, value_name = "LOW:HIGH", group = "load", requires = "slo", num_args = 0..=1)]
    pub(crate) find_rate: Option<Option<Span>>,
    /// Distances of requests in an open loop: constant, or poisson as independent users come
    #[arg(long, value_enum, default_value_t = Spacing::Constant, hide_possible_values = true,
          value_name = "constant|poisson", conflicts_with_all = ["concurrency", "ramp", "trace"])]
    pub(crate) arrivals: Spacing,
    /// Play the trace this many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "trace")]
    pub(crate) trace_speed: f64,
    /// How near --find-rate comes
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent, requires = "find_rate")]
    pub(crate) precision: f64,
}

/// How long, how often, with what.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Runs")]
pub(crate) struct ExtentArgs {
    /// Time measured in each run [default: 10s, or until --requests or the trace end it]
    #[arg(long, short, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Time before it that is not recorded
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// End a run after so many requests
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,
    /// Runs of each load
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) repeats: u16,
    /// Time that one request may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Threads that send
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Requests in flight that an open loop may have
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..),
          conflicts_with = "concurrency")]
    pub(crate) max_connections: u32,
    /// TCP connections that gRPC spreads over, for each thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections: u16,
    /// Makes random inputs, arrivals and choices of models the same again
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What requests hold.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Inputs")]
pub(crate) struct InputArgs {
    /// random, or a file: V2 request (.json, .jsonl), array (.npy, .npz), image or folder of images
    #[arg(long, short, value_name = "[NAME=]FILE", default_value = "random")]
    pub(crate) input: Vec<File>,
    /// Items in each request, where the model has a batch dimension
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) batch: Option<i64>,
    /// Shape of a random input whose dimensions are open
    #[arg(long, value_name = "INPUT=1,128")]
    pub(crate) shape: Vec<Shape>,
    /// Values of a random input [default: 0:1 for floats, 0:100 for whole numbers]
    #[arg(long, value_name = "INPUT=LOW:HIGH", allow_hyphen_values = true)]
    pub(crate) range: Vec<Range>,
    /// Characters of a random string [default: 16]
    #[arg(long, value_name = "INPUT=N")]
    pub(crate) string_length: Vec<StringLength>,
    /// Random requests that differ, so that caches do not lie [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) distinct: Option<u32>,
    /// What the pixels of images, 0 to 255, are multiplied by [default: 1]
    #[arg(long, value_name = "FACTOR")]
    pub(crate) scale: Option<Scale>,
}

impl InputArgs {
    /// Whether no file gives the requests.
    pub(crate) fn is_random(&self) -> bool {
        self.input.iter().all(File::is_random)
    }

    /// Whether a file is an image or a folder of them.
    pub(crate) fn has_images(&self) -> bool {
        self.input.iter().any(File::is_images)
    }
}

/// What should come of it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Checks")]
pub(crate) struct CheckArgs {
    /// What each run must meet: pNN, mean, max, errors or throughput, as in p99<20ms,errors<0.1%,throughput>900/s
    #[arg(long, value_name = "OBJECTIVES")]
    pub(crate) slo: Option<Objectives>,
    /// The right answers: V2 answers (.json, .jsonl) or arrays (.npy), the n-th for the n-th request
    #[arg(long, value_name = "[OUTPUT=]FILE")]
    pub(crate) expect: Vec<File>,
    /// How far floats may be from them: ABSOLUTE or ABSOLUTE,RELATIVE
    #[arg(long, value_name = "A[,R]", default_value = "1e-5,1e-4", value_parser = tolerance,
          requires = "expect")]
    pub(crate) tolerance: Tolerance,
}

/// Where results go, beside the table on standard output.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Results")]
pub(crate) struct OutputArgs {
    /// Everything, for programs and for `volley-load compare`
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// One line a run, for spreadsheets
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// A page with charts, for people
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_two_screens() {
        let lines = Cli::command().render_help().to_string().lines().count();
        assert!(lines <= 110, "{lines} lines");
    }

    #[test]
    fn loads_exclude_each_other() {
        let parse = |text: &str| Cli::try_parse_from(format!("x --model m {text}").split_whitespace());
        assert!(parse("--concurrency 1,8").is_ok());
        assert!(parse("--rate 10 --concurrency 1").is_err());
        assert!(parse("--find-rate").is_err(), "it needs an objective");
        assert!(parse("--find-rate --slo p99<1ms").is_ok());
        assert!(parse("--find-rate 10:20 --slo p99<1ms").is_ok());
        assert!(parse("compare a b").is_err());
    }

    /// What would have no effect is refused: whoever typed it expects one.
    #[test]
    fn options_belong_to_a_load() {
        let parse = |text: &str| Cli::try_parse_from(format!("x --model m {text}").split_whitespace());
        for text in [
            "-c 1 --arrivals poisson",
            "--ramp 1:2 --arrivals poisson",
            "-c 1 --max-connections 8",
            "--rate 1 --precision 1%",
            "--tolerance 1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in [
            "--rate 1 --arrivals poisson --max-connections 8",
            "--find-rate --slo p99<1s --precision 1% --arrivals poisson",
            "--expect a.json --tolerance 1",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }
}
