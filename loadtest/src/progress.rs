//! What is seen while a load runs: a line that changes on a terminal, else a line for each run.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::measurement::{Load, Run, Second};
use crate::outcome::error_share;
use crate::report::units;

/// Characters of a remark.
const LONGEST_REMARK: usize = 2000;

/// With more, it is told how many connections are open, so often.
const MANY_CONNECTIONS: usize = 10_000;
const BETWEEN_COUNTS: Duration = Duration::from_secs(1);

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
    quiet: bool,
    /// Connections that the load needs.
    connections: usize,
    /// When it was told last how many there are.
    told: Instant,
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
        let connections = match load {
            Load::Closed { concurrency } => *concurrency,
            Load::Open { .. } => 0,
        };
        let began = Instant::now();
        RunProgress { line, name, errors: 0, began, quiet: self.quiet, connections, told: began }
    }

    /// A run ended; without a terminal this is all that is said of it.
    pub(crate) fn ended(&self, run: &Run) {
        if self.quiet || self.terminal {
            return;
        }
        let latency = &run.latency;
        tell(&format!(
            "{}: {} req/s in {:.1} s, p50 {}, p99 {}, errors {}",
            units::load(&run.load),
            units::number(run.requests_per_second),
            run.seconds,
            units::duration(latency.p50),
            units::duration(latency.p99),
            units::percent(error_share(run)),
        ));
    }

    /// Something to know before the measurement goes on.
    pub(crate) fn remark(&self, text: &str) {
        if !self.quiet {
            // It may have a server's words.
            tell(&units::plain(text, LONGEST_REMARK));
        }
    }
}

/// Writes a line. The terminal may be gone, and the measurement goes on without it.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl RunProgress {
    /// So many connections are open. A load of many thousands takes seconds to begin, which looks like a hang.
    pub(crate) fn connecting(&mut self, connected: usize) {
        if self.quiet || self.connections <= MANY_CONNECTIONS || self.told.elapsed() < BETWEEN_COUNTS {
            return;
        }
        self.told = Instant::now();
        let (connected, all) = (units::count(connected as u64), units::count(self.connections as u64));
        let message = format!("{}: {connected} of {all} connections are open", self.name);
        if self.line.is_hidden() {
            tell(&message);
        } else {
            self.line.set_message(message);
        }
    }

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
