//! What is seen while a load runs: a line that changes on a terminal, else a line for each run.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::measurement::{Load, Run, Second};
use crate::outcome::error_share;
use crate::report::units;

/// Characters of a remark.
const LONGEST_REMARK: usize = 2000;

/// Shows how a measurement goes on.
#[derive(Debug)]
pub(crate) struct Progress {
    quiet: bool,
    terminal: bool,
}

/// One run while it runs.
#[derive(Debug)]
pub(crate) struct RunProgress {
    line: ProgressBar,
    name: String,
    errors: u64,
    began: Instant,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Progress {
        Progress { quiet, terminal: std::io::stderr().is_terminal() }
    }

    /// A run of `load` begins.
    pub(crate) fn begin(&self, load: &Load) -> RunProgress {
        let shown = self.terminal && !self.quiet;
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let line = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4}  {wide_msg}") {
            line.set_style(style);
        }
        let name = units::load(load);
        line.set_message(format!("{name}: connecting and warming up"));
        if shown {
            line.enable_steady_tick(Duration::from_millis(100));
        }
        RunProgress { line, name, errors: 0, began: Instant::now() }
    }

    /// A run ended; without a terminal this is all that is said of it.
    pub(crate) fn ended(&self, run: &Run) {
        if self.quiet || self.terminal {
            return;
        }
        let latency = &run.latency;
        eprintln!(
            "{}: {} req/s in {:.1} s, p50 {}, p99 {}, errors {}",
            units::load(&run.load),
            units::number(run.requests_per_second),
            run.seconds,
            units::duration(latency.p50),
            units::duration(latency.p99),
            units::percent(error_share(run)),
        );
    }

    /// Something to know before the measurement goes on.
    pub(crate) fn remark(&self, text: &str) {
        if !self.quiet {
            // It may have a server's words.
            eprintln!("{}", units::plain(text, LONGEST_REMARK));
        }
    }
}

impl RunProgress {
    /// A second is over.
    pub(crate) fn second(&mut self, second: &Second) {
        self.errors += second.errors;
        self.line.set_message(format!(
            "{}: {} req/s, p50 {}, p99 {}, errors {}",
            self.name,
            units::count(second.requests),
            units::duration(second.p50_micros),
            units::duration(second.p99_micros),
            units::count(self.errors),
        ));
    }

    /// The run is over.
    pub(crate) fn finish(self) -> Duration {
        self.line.finish_and_clear();
        self.began.elapsed()
    }
}
