//! How far a rollout has come, and what it becomes.

use std::time::Duration;

use model::ModelVersion;
use serde::{Deserialize, Serialize};
use traffic::{InvalidSplit, Mirror, Rule, SLOTS, Salt, Split, SplitParts};

use crate::analysis::{Analysis, Comparison, Evidence, Ruling};
use crate::counts::{Arms, Sums};
use crate::gate::{Against, Gate, Measure};
use crate::plan::{HeaderRoute, Plan, Step};

/// An analysis that cannot tell how many more requests it takes looks again after so many more, at least.
const LEAST_MORE: u64 = 100;

/// What a rollout is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The new version is not ready yet.
    Waiting,
    /// Its steps are gone through.
    Progressing,
    /// It waits for an operator, with the share that it has.
    Paused,
    /// The new version is the stable one.
    Promoted,
    /// The version before answers everything, as it did.
    RolledBack,
}

impl Phase {
    /// Whether nothing more happens by itself.
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Promoted | Phase::RolledBack)
    }
}

/// How far a rollout has come. All of it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Counts up with each change.
    pub revision: u64,
    /// The version that is known to be good.
    #[serde(with = "version")]
    pub stable: ModelVersion,
    /// The version that is tried.
    #[serde(with = "version")]
    pub canary: ModelVersion,
    /// What it is at.
    pub phase: Phase,
    /// Why.
    pub reason: String,
    /// The step that it is at, counted from 0; the number of steps when all are done.
    pub step: usize,
    /// How long it has been at this step while the new version was ready and this process ran, in milliseconds.
    pub in_step_ms: u64,
    /// The new version's share, of 10,000.
    pub weight: u16,
    /// The share of the requests that it runs too, of 10,000.
    pub mirror: u16,
    /// The steps whose rules are in force.
    pub rules: Vec<usize>,
    /// How often the analysis of this step was asked whether all gates pass.
    looks: u32,
    /// It is asked again when the new version has answered so many.
    look_at: u64,
    /// For each gate that compares errors: what was counted before the share was changed for the last time.
    compared: Vec<Option<Before>>,
}

/// What was counted before the share was changed for the last time, and the evidence in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Before {
    canary_failed: u64,
    other_failed: u64,
    ln_evidence: f64,
}

/// What has happened since the state was looked at for the last time.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// By a clock that does not jump.
    pub elapsed: Duration,
    /// Whether the new version answers requests.
    pub canary_ready: bool,
    /// Why it never will, if that is known.
    pub canary_failed: bool,
}

/// What an operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Stay at this step.
    Pause,
    /// Go on.
    Resume,
    /// Go on from a pause that waits for this word; with `full`, do without all that is left.
    Promote {
        /// Whether nothing more is waited for or judged.
        full: bool,
    },
    /// Leave out what is left of this step.
    Skip,
    /// Roll back.
    Abort,
    /// Begin anew, without what was counted.
    Retry,
}

/// A state that another takes the place of.
#[derive(Clone, Debug)]
pub struct Change {
    /// What it becomes.
    pub state: State,
    /// What the gates say of it, where they were asked.
    pub analysis: Option<Analysis>,
}

/// A command that has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Somebody else was first.
    #[error(
        "the rollout is at revision {now}, and the command is for revision {asked}: look again before you decide"
    )]
    Outdated {
        /// What it is at.
        now: u64,
        /// What the command is for.
        asked: u64,
    },
    /// It is not at a point where that means anything.
    #[error("{command} means nothing while the rollout is {phase}")]
    Meaningless {
        /// The command.
        command: &'static str,
        /// What it is at.
        phase: &'static str,
    },
}

impl State {
    /// Begins to bring `canary` in the place of `stable`.
    pub fn begin(plan: &Plan, stable: ModelVersion, canary: ModelVersion) -> State {
        State {
            revision: 1,
            stable,
            canary,
            phase: Phase::Waiting,
            reason: "the new version is being loaded".to_owned(),
            step: 0,
            in_step_ms: 0,
            weight: 0,
            mirror: 0,
            rules: Vec::new(),
            looks: 0,
            look_at: 0,
            compared: plan.gates.iter().map(|gate| is_comparison(gate).then(Before::default)).collect(),
        }
    }

    /// What it becomes after `tick`, with what was counted in `arms` since it began; `None` while it stays what it is.
    pub fn advance(&mut self, plan: &Plan, arms: &Arms, tick: &Tick) -> Option<Change> {
        if self.phase.is_over() {
            return None;
        }
        if tick.canary_failed {
            return Some(
                self.rolled_back("the new version could not be loaded, or does not answer any more", None),
            );
        }
        if !tick.canary_ready {
            return None; // no request goes to it, and no time passes for it
        }
        if self.phase == Phase::Waiting {
            let mut next = self.next("the new version is ready");
            next.phase = Phase::Progressing;
            next.go_on(plan, arms);
            return Some(Change { state: next, analysis: None });
        }
        let watched = self.watch(plan, arms);
        if watched.ruling() == Ruling::Fail {
            return Some(self.rolled_back(&watched.words(), Some(watched)));
        }
        if self.phase == Phase::Paused {
            return None;
        }
        self.in_step_ms = self.in_step_ms.saturating_add(milliseconds(tick.elapsed));
        match plan.steps.get(self.step) {
            Some(Step::Pause(Some(duration))) if self.in_step_ms >= milliseconds(*duration) => {
                Some(Change { state: self.past(plan, arms, "the pause is over"), analysis: Some(watched) })
            }
            Some(Step::Analysis) => self.look(plan, arms),
            _ => None,
        }
    }

    /// What it becomes by the word of an operator who saw `revision`.
    ///
    /// # Errors
    /// When somebody else was first, or it means nothing now.
    pub fn command(
        &self,
        plan: &Plan,
        arms: &Arms,
        command: Command,
        revision: u64,
    ) -> Result<State, Refused> {
        if revision != self.revision {
            return Err(Refused::Outdated { now: self.revision, asked: revision });
        }
        let is_at_a_pause = matches!(plan.steps.get(self.step), Some(Step::Pause(_)));
        let next = match (command, self.phase) {
            (Command::Pause, Phase::Progressing) => self.paused("paused by an operator"),
            (Command::Resume, Phase::Paused) => {
                let mut next = self.next("resumed by an operator");
                next.phase = Phase::Progressing;
                (next.look_at, next.in_step_ms) = (0, if is_at_a_pause { self.in_step_ms } else { 0 });
                next
            }
            (Command::Promote { full: true }, Phase::Progressing | Phase::Paused) => {
                self.promoted("promoted by an operator, whatever was left")
            }
            (Command::Promote { full: false }, phase)
                if phase == Phase::Paused || (phase == Phase::Progressing && is_at_a_pause) =>
            {
                self.past(plan, arms, "promoted past this step by an operator")
            }
            (Command::Skip, Phase::Progressing | Phase::Paused) => {
                self.past(plan, arms, "a step was skipped by an operator")
            }
            (Command::Abort, Phase::Waiting | Phase::Progressing | Phase::Paused) => {
                self.rolled_back("aborted by an operator", None).state
            }
            (Command::Retry, Phase::RolledBack) => self.retried(plan),
            (command, phase) => {
                return Err(Refused::Meaningless { command: command.name(), phase: phase.name() });
            }
        };
        Ok(next)
    }

    /// What traffic has to look like; `None` once the rollout is over, when the stable version answers everything.
    ///
    /// # Errors
    /// When versions contradict each other.
    pub fn split(&self, plan: &Plan, model: &str) -> Result<Split, InvalidSplit> {
        let State { stable, canary, .. } = *self;
        let salt = || format!("{model}/{canary}");
        let salt = Salt::new(plan.routing.hash, &plan.routing.salt.clone().unwrap_or_else(salt));
        let keys = plan.routing.keys.clone();
        if self.phase.is_over() {
            let stable = if self.phase == Phase::Promoted { canary } else { stable };
            let parts = SplitParts {
                stable,
                canary: None,
                baseline: false,
                rules: Vec::new(),
                keys,
                salt,
                mirror: None,
            };
            return Split::new(parts);
        }
        let rule = |step: &usize| match plan.steps.get(*step) {
            Some(Step::HeaderRoute(HeaderRoute { name, all })) if !all.is_empty() => {
                Some(Rule { name: name.clone(), all: all.clone(), version: canary })
            }
            _ => None,
        };
        Split::new(SplitParts {
            stable,
            canary: Some((canary, self.weight)),
            baseline: plan.has_baseline(),
            rules: self.rules.iter().filter_map(rule).collect(),
            keys,
            salt,
            mirror: (self.mirror > 0).then_some(Mirror { version: canary, share: self.mirror }),
        })
    }

    /// What the gates say now, without asking whether they pass.
    pub fn watch(&self, plan: &Plan, arms: &Arms) -> Analysis {
        self.analyse(plan, arms, false)
    }

    fn analyse(&self, plan: &Plan, arms: &Arms, concludes: bool) -> Analysis {
        let comparisons: Vec<_> = plan
            .gates
            .iter()
            .zip(&self.compared)
            .map(|(gate, before)| before.map(|before| self.comparison(gate, before, arms)))
            .collect();
        let looks = self.looks;
        Analysis::of(&Evidence { gates: &plan.gates, arms, comparisons: &comparisons, looks, concludes })
    }

    fn comparison(&self, gate: &Gate, before: Before, arms: &Arms) -> Comparison {
        let (other, other_share) = self.other(gate, arms);
        let canary_share = f64::from(self.weight);
        Comparison {
            share: canary_share / (canary_share + other_share),
            canary: arms.canary.drawn_failed.saturating_sub(before.canary_failed),
            other: other.drawn_failed.saturating_sub(before.other_failed),
            ln_before: before.ln_evidence,
        }
    }

    /// Whom a gate compares with, and that one's share in slots.
    fn other<'a>(&self, gate: &Gate, arms: &'a Arms) -> (&'a Sums, f64) {
        let rest = SLOTS - self.weight;
        let baseline = f64::from(self.weight.min(rest));
        match gate.measure {
            Measure::ErrorsAgainst { whom: Against::Baseline, .. } => (&arms.baseline, baseline),
            _ => (&arms.stable, f64::from(rest)),
        }
    }

    /// Asks whether all gates pass, if it is time for that.
    fn look(&mut self, plan: &Plan, arms: &Arms) -> Option<Change> {
        let answered = arms.canary.answered;
        if answered < self.look_at || (self.looks > 0 && answered == 0) {
            return self.give_up_waiting(plan, arms);
        }
        let analysis = self.analyse(plan, arms, true);
        match analysis.ruling() {
            Ruling::Pass => {
                let state = self.past(plan, arms, "all gates pass");
                Some(Change { state, analysis: Some(analysis) })
            }
            Ruling::Fail => Some(self.rolled_back(&analysis.words(), Some(analysis))),
            Ruling::Inconclusive { more } => {
                let mut next = self.next(&format!("inconclusive: {}", analysis.words()));
                next.looks += 1;
                next.look_at = answered + more.unwrap_or(answered / 4).max(LEAST_MORE);
                Some(Change { state: next, analysis: Some(analysis) })
            }
        }
    }

    /// An operator has to decide where the requests do not come that an analysis lacks.
    fn give_up_waiting(&self, plan: &Plan, arms: &Arms) -> Option<Change> {
        if self.in_step_ms < milliseconds(plan.extend_for) {
            return None;
        }
        let analysis = self.watch(plan, arms);
        let reason = format!("still inconclusive, so an operator has to decide: {}", analysis.words());
        Some(Change { state: self.paused(&reason), analysis: Some(analysis) })
    }

    fn next(&self, reason: &str) -> State {
        State { revision: self.revision + 1, reason: reason.to_owned(), ..self.clone() }
    }

    fn paused(&self, reason: &str) -> State {
        State { phase: Phase::Paused, ..self.next(reason) }
    }

    fn promoted(&self, reason: &str) -> State {
        let nothing = State { weight: SLOTS, mirror: 0, rules: Vec::new(), ..self.next(reason) };
        State { phase: Phase::Promoted, in_step_ms: 0, ..nothing }
    }

    fn rolled_back(&self, reason: &str, analysis: Option<Analysis>) -> Change {
        let nothing = State { weight: 0, mirror: 0, rules: Vec::new(), ..self.next(reason) };
        Change { state: State { phase: Phase::RolledBack, in_step_ms: 0, ..nothing }, analysis }
    }

    fn retried(&self, plan: &Plan) -> State {
        let begun = State::begin(plan, self.stable, self.canary);
        State { revision: self.revision + 1, reason: "begun anew by an operator".to_owned(), ..begun }
    }

    /// Behind the step that it is at.
    fn past(&self, plan: &Plan, arms: &Arms, reason: &str) -> State {
        let mut next = self.next(reason);
        next.phase = Phase::Progressing;
        next.step += 1;
        next.go_on(plan, arms);
        next
    }

    /// Does all steps that take no time, up to one that does or to the end.
    fn go_on(&mut self, plan: &Plan, arms: &Arms) {
        (self.in_step_ms, self.looks, self.look_at) = (0, 0, 0);
        while let Some(step) = plan.steps.get(self.step) {
            match step {
                Step::Pause(_) | Step::Analysis => return,
                Step::SetWeight(weight) => self.reweigh(plan, arms, *weight),
                Step::Mirror(share) => self.mirror = *share,
                Step::HeaderRoute(route) => {
                    self.rules.retain(|step| match plan.steps.get(*step) {
                        Some(Step::HeaderRoute(before)) => before.name != route.name,
                        _ => false,
                    });
                    if !route.all.is_empty() {
                        self.rules.push(self.step);
                    }
                }
            }
            self.step += 1;
        }
        let State { reason, revision, .. } = self.clone();
        *self = State { revision, ..self.promoted(&reason) };
    }

    /// From here on errors are compared by another share.
    fn reweigh(&mut self, plan: &Plan, arms: &Arms, weight: u16) {
        if weight == self.weight {
            return;
        }
        for (index, gate) in plan.gates.iter().enumerate() {
            let Some(Some(before)) = self.compared.get(index).copied() else { continue };
            let ln_evidence = self.comparison(gate, before, arms).ln_evidence();
            let (other, _) = self.other(gate, arms);
            self.compared[index] = Some(Before {
                canary_failed: arms.canary.drawn_failed,
                other_failed: other.drawn_failed,
                ln_evidence,
            });
        }
        self.weight = weight;
    }
}

/// A version as its number.
mod version {
    use model::ModelVersion;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(version: &ModelVersion, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(version.get())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ModelVersion, D::Error> {
        let number = u64::deserialize(deserializer)?;
        ModelVersion::new(number).ok_or_else(|| D::Error::custom("a version is a positive number"))
    }
}

fn is_comparison(gate: &Gate) -> bool {
    matches!(gate.measure, Measure::ErrorsAgainst { .. })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Command::Pause => "pause",
            Command::Resume => "resume",
            Command::Promote { .. } => "promote",
            Command::Skip => "skip",
            Command::Abort => "abort",
            Command::Retry => "retry",
        }
    }
}

impl Phase {
    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting for the new version",
            Phase::Progressing => "in progress",
            Phase::Paused => "paused",
            Phase::Promoted => "promoted",
            Phase::RolledBack => "rolled back",
        }
    }
}

#[cfg(test)]
mod tests;
