//! What is to happen: the steps, the gates, and who is who.

mod raw;

use std::time::Duration;

use smol_str::SmolStr;
use statistics::{Alpha, Rate};
use traffic::{Hash, KeySource, Match, Pattern, SLOTS};

use crate::gate::{Against, Gate, Measure};
use raw::{RawErrorRate, RawGate, RawKey, RawLatency, RawMatch, RawMirror, RawPlan, RawRouting, RawStep};

/// How long the version before stays loaded, if nothing is said of it.
const ROLLBACK_WINDOW: Duration = Duration::from_secs(30 * 60);

/// How long an analysis waits for the requests that it lacks, if nothing is said of it.
const EXTEND_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The share of the callers that a new version begins with, in percent, how long it keeps it, and what it must keep to:
/// the flow that most teams write down.
const USUAL_WEIGHT: f64 = 5.0;
const USUAL_PAUSE: Duration = Duration::from_secs(60 * 60);
const USUAL_ERROR_RATE: f64 = 0.001;
const USUAL_QUANTILE: f64 = 0.95;
const USUAL_LATENCY: Duration = Duration::from_millis(100);

/// What is not worth a rollback, where nothing is said of it: errors in a thousand requests, and a tenth of the latency.
const USUAL_MARGIN: f64 = 0.001;
const USUAL_TOLERANCE: f64 = 0.1;

/// More are a mistake, and each is looked at for every request.
const MOST_GATES: usize = 16;
const MOST_STEPS: usize = 256;
const MOST_CONDITIONS: usize = 16;

/// A plan that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// It is not what a plan is written in.
    #[error("it cannot be read as a rollout: {0}")]
    Unreadable(String),
    /// A value that means nothing.
    #[error("{field}: {reason}")]
    Field {
        /// Where it stands, such as `steps[2].set_weight`.
        field: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

/// What is to happen, in force: everything has a value.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In their order. The last is an analysis wherever there are gates.
    pub steps: Vec<Step>,
    /// All must pass, and none may fail.
    pub gates: Vec<Gate>,
    /// Who is who.
    pub routing: Routing,
    /// How long the version before stays loaded once another took its place.
    pub rollback_window: Duration,
    /// How long an analysis waits for the requests that it lacks before it asks an operator.
    pub extend_for: Duration,
    /// Whether the stable version answers those whom the new one fails.
    pub retry_on_canary_error: bool,
    written: RawPlan,
}

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// The new version gets so many of [`SLOTS`] of the callers.
    SetWeight(u16),
    /// Nothing changes for so long; until an operator promotes it where there is no time.
    Pause(Option<Duration>),
    /// All gates must pass.
    Analysis,
    /// Requests that fit go to the new version from here on, whoever asks; none do where nothing is to fit.
    HeaderRoute(HeaderRoute),
    /// The new version also runs so many of [`SLOTS`] of the requests that others answer.
    Mirror(u16),
}

/// Requests that go to the new version.
#[derive(Clone, Debug)]
pub struct HeaderRoute {
    /// By which a later step replaces it.
    pub name: SmolStr,
    /// All must fit.
    pub all: Vec<Match>,
}

/// Who is who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Where a caller's key stands.
    pub keys: Vec<KeySource>,
    /// What sets this division of callers apart; the model's name and the new version, if nothing is said of it.
    pub salt: Option<String>,
    /// How a key becomes a slot.
    pub hash: Hash,
}

impl Plan {
    /// The plan in a `rollout.toml`; an empty one is the usual flow.
    ///
    /// # Errors
    /// When it is no TOML, has a field that plans do not have, or a value that means nothing.
    pub fn from_toml(text: &str) -> Result<Plan, InvalidPlan> {
        let raw: RawPlan = toml::from_str(text)
            .map_err(|error| InvalidPlan::Unreadable(error.to_string().trim_end().to_owned()))?;
        Plan::resolve(raw)
    }

    /// The plan as it was written, as TOML: what is stored.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.written).expect("tables of numbers and texts are TOML")
    }

    /// The usual flow: 5 % for an hour, and promoted when p95 < 100 ms and the error rate < 0.1 %.
    pub fn usual() -> Plan {
        Plan::resolve(RawPlan::default()).expect("the usual plan can be followed")
    }

    /// Whether it compares with as many callers of the stable version.
    pub fn has_baseline(&self) -> bool {
        self.gates.iter().any(|gate| gate.measure.wants_baseline())
    }

    fn resolve(raw: RawPlan) -> Result<Plan, InvalidPlan> {
        let written = raw.clone();
        let gates = match raw.gates {
            Some(gates) => {
                at_most("gates", gates.len(), MOST_GATES)?;
                gates
                    .into_iter()
                    .enumerate()
                    .map(|(at, gate)| resolve_gate(at, gate))
                    .collect::<Result<_, _>>()?
            }
            None => usual_gates(),
        };
        let mut steps: Vec<Step> = match raw.steps {
            Some(steps) => {
                at_most("steps", steps.len(), MOST_STEPS)?;
                steps
                    .into_iter()
                    .enumerate()
                    .map(|(at, step)| resolve_step(at, step))
                    .collect::<Result<_, _>>()?
            }
            None => vec![Step::SetWeight(slots(USUAL_WEIGHT)), Step::Pause(Some(USUAL_PAUSE))],
        };
        if !gates.is_empty() && !matches!(steps.last(), Some(Step::Analysis)) {
            steps.push(Step::Analysis); // what nobody judged is not promoted
        }
        Ok(Plan {
            steps,
            gates,
            routing: resolve_routing(raw.routing)?,
            rollback_window: raw.rollback_window.map_or(ROLLBACK_WINDOW, |span| span.0),
            extend_for: raw.extend_for.map_or(EXTEND_FOR, |span| span.0),
            retry_on_canary_error: raw.retry_on_canary_error.unwrap_or(false),
            written,
        })
    }
}

fn usual_gates() -> Vec<Gate> {
    let error_rate = RawErrorRate { below: Some(USUAL_ERROR_RATE), ..Default::default() };
    let latency = RawLatency { below: Some(raw::Span(USUAL_LATENCY)), ..Default::default() };
    let gates = [RawGate::ErrorRate(error_rate), RawGate::Latency(latency)];
    gates
        .into_iter()
        .enumerate()
        .map(|(at, gate)| resolve_gate(at, gate).expect("the usual gates are gates"))
        .collect()
}

fn resolve_step(at: usize, step: RawStep) -> Result<Step, InvalidPlan> {
    let percent = |field: &str, percent: f64| match percent {
        percent if (0.0..=100.0).contains(&percent) => Ok(slots(percent)),
        _ => Err(wrong(format!("steps[{at}].{field}"), format!("{percent} is no percentage from 0 to 100"))),
    };
    Ok(match step {
        RawStep::SetWeight(weight) => Step::SetWeight(percent("set_weight", weight)?),
        RawStep::Pause(pause) => Step::Pause(pause.duration.map(|span| span.0)),
        RawStep::Analysis(_) => Step::Analysis,
        RawStep::Mirror(RawMirror { percent: share }) => Step::Mirror(percent("mirror.percent", share)?),
        RawStep::HeaderRoute(route) => {
            at_most(&format!("steps[{at}].header_route.match"), route.all.len(), MOST_CONDITIONS)?;
            let condition =
                |(index, each)| condition(&format!("steps[{at}].header_route.match[{index}]"), each);
            let all = route.all.into_iter().enumerate().map(condition).collect::<Result<_, _>>()?;
            Step::HeaderRoute(HeaderRoute { name: route.name.into(), all })
        }
    })
}

/// Hundredths of a percent.
fn slots(percent: f64) -> u16 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percentage of ten thousand fits"
    )]
    let slots = (percent * f64::from(SLOTS) / 100.0).round() as u16;
    slots
}

fn condition(field: &str, raw: RawMatch) -> Result<Match, InvalidPlan> {
    let source = match (raw.header, raw.parameter) {
        (Some(header), None) => KeySource::Header(header.to_ascii_lowercase().into()),
        (None, Some(parameter)) => KeySource::Parameter(parameter.into()),
        _ => return Err(wrong(field, "it names either a header or a parameter")),
    };
    let pattern = match (raw.exact, raw.prefix, raw.regex) {
        (Some(exact), None, None) => Pattern::Exact(exact.into()),
        (None, Some(prefix), None) => Pattern::Prefix(prefix.into()),
        (None, None, Some(regex)) => {
            Pattern::regex(&regex).map_err(|error| wrong(field, error.to_string()))?
        }
        _ => return Err(wrong(field, "it has one of exact, prefix and regex")),
    };
    Ok(Match { source, pattern })
}

fn resolve_routing(raw: RawRouting) -> Result<Routing, InvalidPlan> {
    at_most("routing.key", raw.key.len(), MOST_CONDITIONS)?;
    let hash = match raw.hash {
        None => Hash::default(),
        Some(name) => Hash::parse(&name).ok_or_else(|| {
            wrong("routing.hash", format!("{name:?} is no hash; there are xxh3 and md5-100"))
        })?,
    };
    let source = |key| match key {
        RawKey::Header(name) => KeySource::Header(name.to_ascii_lowercase().into()),
        RawKey::Parameter(name) => KeySource::Parameter(name.into()),
    };
    Ok(Routing { keys: raw.key.into_iter().map(source).collect(), salt: raw.salt, hash })
}

fn resolve_gate(at: usize, raw: RawGate) -> Result<Gate, InvalidPlan> {
    match raw {
        RawGate::ErrorRate(raw) => {
            let field = |name: &str| format!("gates[{at}].error_rate.{name}");
            let alpha = alpha(field("alpha"), raw.alpha)?;
            let measure = match (raw.below, raw.against, raw.margin) {
                (Some(below), None, None) => Measure::ErrorRate { limit: rate(field("below"), below)? },
                (None, Some(whom), margin) => Measure::ErrorsAgainst {
                    whom: against(field("against"), &whom)?,
                    margin: rate(field("margin"), margin.unwrap_or(USUAL_MARGIN))?,
                },
                _ => {
                    let reason = "there is either below, such as 0.001, or against, with a margin";
                    return Err(wrong(field("below"), reason));
                }
            };
            Ok(Gate { measure, alpha })
        }
        RawGate::Latency(raw) => {
            let field = |name: &str| format!("gates[{at}].latency.{name}");
            let alpha = alpha(field("alpha"), raw.alpha)?;
            let quantile = rate(field("quantile"), raw.quantile.unwrap_or(USUAL_QUANTILE))?;
            let measure = match (raw.below, raw.against, raw.tolerance) {
                (Some(limit), None, None) if !limit.0.is_zero() => {
                    Measure::Latency { quantile, limit: limit.0 }
                }
                (None, Some(whom), tolerance) => {
                    let tolerance = tolerance.unwrap_or(USUAL_TOLERANCE);
                    if !(0.0..=100.0).contains(&tolerance) {
                        return Err(wrong(
                            field("tolerance"),
                            "it is a share from 0, such as 0.1 for a tenth",
                        ));
                    }
                    Measure::LatencyAgainst { quantile, whom: against(field("against"), &whom)?, tolerance }
                }
                _ => {
                    let reason = "there is either below, such as \"100ms\", or against with a tolerance";
                    return Err(wrong(field("below"), reason));
                }
            };
            Ok(Gate { measure, alpha })
        }
    }
}

fn rate(field: String, value: f64) -> Result<Rate, InvalidPlan> {
    Rate::new(value).map_err(|error| wrong(field, error.to_string()))
}

fn alpha(field: String, value: Option<f64>) -> Result<Alpha, InvalidPlan> {
    Alpha::new(value.unwrap_or(statistics::RateGate::FAIL_ALPHA))
        .map_err(|error| wrong(field, error.to_string()))
}

fn against(field: String, whom: &str) -> Result<Against, InvalidPlan> {
    match whom {
        "baseline" => Ok(Against::Baseline),
        "stable" => Ok(Against::Stable),
        other => {
            Err(wrong(field, format!("{other:?} is nobody to compare with; there are baseline and stable")))
        }
    }
}

fn at_most(field: &str, count: usize, most: usize) -> Result<(), InvalidPlan> {
    if count <= most {
        Ok(())
    } else {
        Err(wrong(field, format!("there are {count}, and at most {most} are looked at")))
    }
}

fn wrong(field: impl Into<String>, reason: impl Into<String>) -> InvalidPlan {
    InvalidPlan::Field { field: field.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
