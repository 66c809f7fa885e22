//! What the gates say of what was counted.

use std::fmt::Write as _;

use statistics::interval;
use statistics::verdict::Verdict;
use statistics::{Alpha, BaselineTest, Counts, LatencyTest, Rate, RateGate};

use crate::counts::{Arms, Sums};
use crate::gate::{Against, Gate, Measure, percent};

/// What one gate says, or all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// There is evidence that the new version is too bad.
    Fail,
    /// There is evidence that it is good enough.
    Pass,
    /// There is evidence of neither.
    Inconclusive {
        /// About how many more of its requests it takes, if all goes on as before; `None` when that cannot be told.
        more: Option<u64>,
    },
}

/// What one gate says, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The gate, in words.
    pub gate: String,
    /// What it says.
    pub ruling: Ruling,
    /// The evidence, in words.
    pub evidence: String,
}

/// What all gates say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analysis {
    /// In the order of the plan.
    pub findings: Vec<Finding>,
}

/// Errors of two arms that were counted while traffic was divided in one way. What was counted before is in
/// `ln_before`: the evidence of each part adds up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    /// The canary's share of the requests of both.
    pub(crate) share: f64,
    /// Failures of the canary since.
    pub(crate) canary: u64,
    /// Failures of the other since.
    pub(crate) other: u64,
    /// The logarithm of the evidence from before.
    pub(crate) ln_before: f64,
}

impl Comparison {
    /// The logarithm of the evidence that the canary fails more often.
    pub(crate) fn ln_evidence(&self) -> f64 {
        let now = Rate::new(self.share)
            .map_or(0.0, |share| BaselineTest::new(share).ln_evidence(self.canary, self.other));
        self.ln_before + now
    }
}

/// What an analysis is made of.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) gates: &'a [Gate],
    pub(crate) arms: &'a Arms,
    /// For each gate; only those that compare errors have one.
    pub(crate) comparisons: &'a [Option<Comparison>],
    /// How often it was asked before whether all pass. Each time is another chance to pass by mistake, so each takes half
    /// as much of it as the one before.
    pub(crate) looks: u32,
    /// Whether that is asked now, and not only whether any fails.
    pub(crate) concludes: bool,
}

impl Analysis {
    /// What `evidence` says.
    pub(crate) fn of(evidence: &Evidence<'_>) -> Analysis {
        let find = |(index, gate): (usize, &Gate)| {
            let (ruling, words) = evidence.judge(index, gate);
            Finding { gate: gate.measure.to_string(), ruling, evidence: words }
        };
        Analysis { findings: evidence.gates.iter().enumerate().map(find).collect() }
    }

    /// What all say together: one that fails fails all, and all must pass.
    pub fn ruling(&self) -> Ruling {
        let rulings = || self.findings.iter().map(|finding| finding.ruling);
        if rulings().any(|ruling| ruling == Ruling::Fail) {
            return Ruling::Fail;
        }
        let lacking: Vec<_> = rulings()
            .filter_map(|ruling| match ruling {
                Ruling::Inconclusive { more } => Some(more),
                Ruling::Fail | Ruling::Pass => None,
            })
            .collect();
        if lacking.is_empty() {
            return Ruling::Pass;
        }
        // Nobody knows when one of them does not.
        Ruling::Inconclusive {
            more: lacking.into_iter().collect::<Option<Vec<_>>>().and_then(|more| more.into_iter().max()),
        }
    }

    /// What failed, in one sentence each; what is lacking, where nothing did.
    pub fn words(&self) -> String {
        let fails = self.ruling() == Ruling::Fail;
        let is_told = |finding: &&Finding| match fails {
            true => finding.ruling == Ruling::Fail,
            false => finding.ruling != Ruling::Pass,
        };
        let mut words = String::new();
        for finding in self.findings.iter().filter(is_told) {
            if !words.is_empty() {
                words.push_str("; ");
            }
            let _ = write!(words, "{}: {}", finding.gate, finding.evidence); // a string takes all
        }
        words
    }
}

impl Evidence<'_> {
    fn judge(&self, index: usize, gate: &Gate) -> (Ruling, String) {
        let canary = &self.arms.canary;
        match gate.measure {
            Measure::ErrorRate { limit } => self.judge_rate(gate, limit, canary.errors(), "failed"),
            Measure::Latency { quantile, .. } => {
                let limit = Rate::new(1.0 - quantile.get()).unwrap_or(quantile);
                self.judge_rate(gate, limit, canary.slower(index), "took longer")
            }
            Measure::ErrorsAgainst { whom, margin } => self.judge_errors(index, gate, whom, margin),
            Measure::LatencyAgainst { quantile, whom, tolerance } => {
                let test = LatencyTest::new(tolerance, gate.alpha);
                let verdict = test.quantile(quantile, &canary.latencies, &self.other(whom).latencies);
                let quantiles = *verdict.evidence();
                let shown = |between: statistics::latency::Between| match between.most {
                    Some(most) => format!("{} to {} us", between.least, most),
                    None => format!("{} us or more", between.least),
                };
                let words = format!("{} against {}", shown(quantiles.canary), shown(quantiles.baseline));
                (self.ruling(&verdict), words)
            }
        }
    }

    fn judge_rate(&self, gate: &Gate, limit: Rate, counts: Counts, verb: &str) -> (Ruling, String) {
        let rate_gate = RateGate::with_alphas(limit, gate.alpha, self.pass_alpha(gate));
        let verdict = if self.concludes { rate_gate.conclude(counts) } else { rate_gate.watch(counts) };
        let evidence = verdict.evidence();
        let mut words = format!("{} of {} {verb}", counts.failures(), counts.total());
        let _ = match verdict {
            Verdict::Fail(_) => write!(
                words,
                ", {:.0} times likelier above {} % than at it",
                evidence.ln_e.exp(),
                percent(limit.get())
            ),
            _ => write!(words, ", so fewer than {} % do", percent((evidence.upper * 1e4).ceil() / 1e4)),
        }; // a string takes all
        let ruling = match self.ruling(&verdict) {
            Ruling::Inconclusive { .. } => {
                Ruling::Inconclusive { more: interval::more_needed(counts, limit, self.next_alpha(gate)) }
            }
            ruling => ruling,
        };
        (ruling, words)
    }

    fn judge_errors(&self, index: usize, gate: &Gate, whom: Against, margin: Rate) -> (Ruling, String) {
        let (canary, other) = (self.arms.canary.drawn_errors(), self.other(whom).drawn_errors());
        let words = format!(
            "{} of {} failed, and {} of {} of the {whom}",
            canary.failures(),
            canary.total(),
            other.failures(),
            other.total()
        );
        let ln_evidence =
            self.comparisons.get(index).copied().flatten().map_or(0.0, |comparison| comparison.ln_evidence());
        if ln_evidence >= -gate.alpha.get().ln() {
            return (Ruling::Fail, words);
        }
        // Both bounds have to hold.
        let lacking = |alpha: Alpha| {
            let allowed = Rate::new(interval::lower(other, alpha.halved()) + margin.get()).unwrap_or(margin);
            interval::more_needed(canary, allowed, alpha.halved())
        };
        if self.concludes && lacking(self.pass_alpha(gate)) == Some(0) {
            return (Ruling::Pass, words);
        }
        (Ruling::Inconclusive { more: lacking(self.next_alpha(gate)) }, words)
    }

    fn other(&self, whom: Against) -> &Sums {
        match whom {
            Against::Baseline => &self.arms.baseline,
            Against::Stable => &self.arms.stable,
        }
    }

    /// How often a gate may pass by mistake now.
    fn pass_alpha(&self, gate: &Gate) -> Alpha {
        (0..self.looks).fold(gate.alpha, |alpha, _| alpha.halved())
    }

    /// And the next time that it is asked whether it passes.
    fn next_alpha(&self, gate: &Gate) -> Alpha {
        let alpha = self.pass_alpha(gate);
        if self.concludes { alpha.halved() } else { alpha }
    }

    /// Nothing passes while it is only watched.
    fn ruling<E>(&self, verdict: &Verdict<E>) -> Ruling {
        match verdict {
            Verdict::Fail(_) => Ruling::Fail,
            Verdict::Pass(_) if self.concludes => Ruling::Pass,
            Verdict::Pass(_) => Ruling::Inconclusive { more: Some(0) },
            Verdict::Inconclusive { more, .. } => Ruling::Inconclusive { more: *more },
        }
    }
}
