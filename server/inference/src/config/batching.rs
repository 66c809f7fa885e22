//! How a configuration lets requests wait, and which may run together.

use std::time::Duration;

use proto::v2::model_queue_policy::TimeoutAction as ConfigTimeoutAction;
use proto::v2::{ModelConfig, ModelDynamicBatching, ModelQueuePolicy, model_config::SchedulingChoice};

use super::padding::{PAD_BATCH, PAD_TO_SIZES};
use crate::batcher::{BatchPolicy, QueuePolicy, TimeoutAction};
use crate::latency_objective::LatencyObjective;

/// More levels than anyone can tell apart; each has a queue.
const MAX_PRIORITY_LEVELS: u64 = 1000;

/// A key of `parameters`: "false" makes batches wait for the whole `max_queue_delay_microseconds`, as in Triton.
pub(crate) const ADAPTIVE_QUEUE_DELAY: &str = "adaptive_queue_delay";

/// A key of `parameters`: milliseconds in which requests are to be answered; sizes and delays of batches follow.
pub(crate) const LATENCY_OBJECTIVE: &str = "latency_objective_ms";

/// The keys of `parameters` that say how requests wait and run together.
pub(crate) const PARAMETERS: &[&str] = &[ADAPTIVE_QUEUE_DELAY, LATENCY_OBJECTIVE, PAD_BATCH, PAD_TO_SIZES];

/// What `dynamic_batching` asks for, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// When requests run, and which together.
    pub policy: BatchPolicy,
    /// Answers leave in the order of the requests.
    pub preserve_ordering: bool,
    /// What the sizes and delays of batches are chosen for, if anything.
    pub objective: Option<LatencyObjective>,
    /// The level of requests that name none, when there are levels to be named.
    default_level: Option<usize>,
}

impl Batching {
    /// The level of a request of `priority`, where 0 is none.
    ///
    /// # Errors
    /// When there are levels, and it is beyond the last.
    pub fn level(&self, priority: u64) -> Result<usize, String> {
        let levels = self.policy.levels.len();
        match (self.default_level, usize::try_from(priority)) {
            // Where there are no levels, a priority means nothing, as in Triton.
            (None, _) => Ok(0),
            (Some(default), Ok(0)) => Ok(default),
            (Some(_), Ok(priority)) if priority <= levels => Ok(priority - 1),
            (Some(_), _) => {
                Err(format!("priority {priority} is none of the levels, which are 1 to {levels}"))
            }
        }
    }
}

/// Resolves `config`, which has been completed.
///
/// # Errors
/// The first contradiction, with the field, its value, and what to do.
pub fn batching(config: &ModelConfig) -> Result<Batching, String> {
    let Some(SchedulingChoice::DynamicBatching(dynamic)) = &config.scheduling_choice else {
        return Ok(Batching {
            policy: BatchPolicy {
                max_batch_size: 1,
                merges: false,
                pads: false,
                preferred: Vec::new(),
                max_delay: Duration::ZERO,
                adaptive_delay: true,
                levels: vec![QueuePolicy::default()],
            },
            preserve_ordering: false,
            objective: no_objective(config)?,
            default_level: None,
        });
    };
    let max_batch_size = u64::try_from(config.max_batch_size).unwrap_or_default();
    let objective = objective(config, dynamic, max_batch_size)?;
    let pads = config.parameters.contains_key(PAD_BATCH);
    let policy = BatchPolicy {
        max_batch_size: max_batch_size.max(1),
        merges: max_batch_size > 1,
        pads,
        preferred: match objective {
            None if !pads => preferred(dynamic, max_batch_size)?,
            _ => Vec::new(),
        },
        max_delay: max_delay(dynamic, max_batch_size)?,
        adaptive_delay: adaptive_delay(config)?,
        levels: levels(dynamic)?,
    };
    ordering(dynamic, &policy.levels)?;
    Ok(Batching {
        policy,
        preserve_ordering: dynamic.preserve_ordering,
        objective,
        default_level: default_level(dynamic)?,
    })
}

fn no_objective(config: &ModelConfig) -> Result<Option<LatencyObjective>, String> {
    match config.parameters.contains_key(LATENCY_OBJECTIVE) {
        false => Ok(None),
        true => Err(format!(
            "parameters[\"{LATENCY_OBJECTIVE}\"] is set, but without dynamic_batching there are no batches to be \
             chosen; add dynamic_batching {{ }}"
        )),
    }
}

fn objective(
    config: &ModelConfig,
    dynamic: &ModelDynamicBatching,
    max_batch_size: u64,
) -> Result<Option<LatencyObjective>, String> {
    let Some(value) = config.parameters.get(LATENCY_OBJECTIVE) else { return Ok(None) };
    let text = value.string_value.as_str();
    let millis = text.parse::<f64>().ok().filter(|millis| *millis > 0.0);
    let time = millis.and_then(|millis| Duration::try_from_secs_f64(millis / 1e3).ok()).ok_or_else(|| {
        format!(
            "parameters[\"{LATENCY_OBJECTIVE}\"] is {text:?}, but must be a number of milliseconds above 0"
        )
    })?;
    // Completion writes the largest size where none is preferred.
    let preferred =
        dynamic.preferred_batch_size.iter().any(|size| i64::from(*size) != i64::from(config.max_batch_size));
    let contradiction = if max_batch_size < 2 {
        "max_batch_size below 2"
    } else if dynamic.max_queue_delay_microseconds > 0 {
        "max_queue_delay_microseconds"
    } else if preferred {
        "preferred_batch_size"
    } else {
        return Ok(Some(LatencyObjective { time, max_batch_size }));
    };
    Err(format!(
        "parameters[\"{LATENCY_OBJECTIVE}\"] chooses the sizes and delays of batches, which contradicts \
         {contradiction}; leave out one of them"
    ))
}

fn preferred(dynamic: &ModelDynamicBatching, max_batch_size: u64) -> Result<Vec<u64>, String> {
    let possible = |size: &i32| u64::try_from(*size).ok().filter(|size| (1..=max_batch_size).contains(size));
    let mut sizes = Vec::new();
    for size in &dynamic.preferred_batch_size {
        sizes.push(possible(size).ok_or_else(|| {
            format!(
                "dynamic_batching.preferred_batch_size has {size}, but sizes are 1 to max_batch_size ({max_batch_size})"
            )
        })?);
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

fn max_delay(dynamic: &ModelDynamicBatching, max_batch_size: u64) -> Result<Duration, String> {
    let micros = dynamic.max_queue_delay_microseconds;
    if micros > 0 && max_batch_size == 0 {
        return Err(format!(
            "dynamic_batching.max_queue_delay_microseconds is {micros}, but with max_batch_size 0 no request waits \
             for another; set max_batch_size, or leave out the delay"
        ));
    }
    Ok(Duration::from_micros(micros))
}

fn adaptive_delay(config: &ModelConfig) -> Result<bool, String> {
    match config.parameters.get(ADAPTIVE_QUEUE_DELAY).map(|value| value.string_value.as_str()) {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(format!(
            "parameters[\"{ADAPTIVE_QUEUE_DELAY}\"] is {other:?}, but must be \"true\" or \"false\""
        )),
    }
}

/// The policy of each level, the highest priority first.
fn levels(dynamic: &ModelDynamicBatching) -> Result<Vec<QueuePolicy>, String> {
    let count = dynamic.priority_levels;
    if count > MAX_PRIORITY_LEVELS {
        return Err(format!(
            "dynamic_batching.priority_levels is {count}, but may be {MAX_PRIORITY_LEVELS} at most"
        ));
    }
    // Triton takes no notice of these where there are no levels.
    let own = if count == 0 { &Default::default() } else { &dynamic.priority_queue_policy };
    let mut named: Vec<_> = own.keys().copied().collect();
    named.sort_unstable();
    if let Some(level) = named.into_iter().find(|level| *level < 1 || *level > count) {
        return Err(format!(
            "dynamic_batching.priority_queue_policy has level {level}, but levels are 1 to priority_levels ({count})"
        ));
    }
    let default = queue_policy(dynamic.default_queue_policy.as_ref());
    let of = |level| {
        dynamic
            .priority_queue_policy
            .get(&level)
            .map_or_else(|| default.clone(), |own| queue_policy(Some(own)))
    };
    Ok(if count == 0 { vec![default] } else { (1..=count).map(of).collect() })
}

fn queue_policy(policy: Option<&ModelQueuePolicy>) -> QueuePolicy {
    let Some(policy) = policy else { return QueuePolicy::default() };
    let timeout = policy.default_timeout_microseconds;
    QueuePolicy {
        max_queue_size: (policy.max_queue_size > 0).then_some(policy.max_queue_size as usize),
        default_timeout: (timeout > 0).then(|| Duration::from_micros(timeout)),
        allow_timeout_override: policy.allow_timeout_override,
        timeout_action: match policy.timeout_action() {
            ConfigTimeoutAction::Reject => TimeoutAction::Reject,
            ConfigTimeoutAction::Delay => TimeoutAction::Delay,
        },
    }
}

fn default_level(dynamic: &ModelDynamicBatching) -> Result<Option<usize>, String> {
    let (count, default) = (dynamic.priority_levels, dynamic.default_priority_level);
    match default {
        // Triton takes no notice of it where there are no levels.
        _ if count == 0 => Ok(None),
        1.. if default <= count => Ok(usize::try_from(default - 1).ok()),
        _ => Err(format!(
            "dynamic_batching.default_priority_level is {default}, but must be one of the levels, 1 to \
             priority_levels ({count})"
        )),
    }
}

/// An order of arrival contradicts what lets a request overtake another.
fn ordering(dynamic: &ModelDynamicBatching, levels: &[QueuePolicy]) -> Result<(), String> {
    let contradiction = if levels.len() > 1 {
        "priority_levels above 1"
    } else if levels
        .iter()
        .any(|level| level.timeout_action == TimeoutAction::Delay && level.default_timeout.is_some())
    {
        "timeout_action DELAY"
    } else {
        return Ok(());
    };
    if !dynamic.preserve_ordering {
        return Ok(());
    }
    Err(format!("dynamic_batching.preserve_ordering contradicts {contradiction}; leave out one of them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Batching, String> {
        batching(&proto::config_text::parse(text, "config.pbtxt").unwrap())
    }

    #[track_caller]
    fn refused(dynamic: &str, reason: &str) {
        let error = of(&format!("max_batch_size: 8 dynamic_batching {{ {dynamic} }}")).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn without_dynamic_batching_each_request_runs_alone() {
        let batching = of("max_batch_size: 8").unwrap();
        assert!(!batching.policy.merges);
        assert_eq!(batching.level(7), Ok(0));
        assert!(!of("dynamic_batching { }").unwrap().policy.merges, "there is no batch dimension");
    }

    #[test]
    fn every_field_is_taken_over() {
        let batching = of(r#"max_batch_size: 8 dynamic_batching {
            preferred_batch_size: [ 8, 4, 4 ] max_queue_delay_microseconds: 500 priority_levels: 3 default_priority_level: 2
            default_queue_policy { max_queue_size: 10 default_timeout_microseconds: 1000 }
            priority_queue_policy { key: 1 value { timeout_action: DELAY allow_timeout_override: true } } }
            parameters { key: "adaptive_queue_delay" value { string_value: "false" } }"#)
        .unwrap();
        let policy = &batching.policy;
        assert_eq!((policy.max_batch_size, policy.merges, &policy.preferred[..]), (8, true, &[4, 8][..]));
        assert_eq!((policy.max_delay, policy.adaptive_delay), (Duration::from_micros(500), false));
        let first = QueuePolicy {
            timeout_action: TimeoutAction::Delay,
            allow_timeout_override: true,
            ..QueuePolicy::default()
        };
        let other = QueuePolicy {
            max_queue_size: Some(10),
            default_timeout: Some(Duration::from_millis(1)),
            ..QueuePolicy::default()
        };
        assert_eq!(policy.levels, [first, other.clone(), other]);
        assert_eq!([0, 1, 3].map(|priority| batching.level(priority)), [Ok(1), Ok(0), Ok(2)]);
        assert_eq!(batching.level(4).unwrap_err(), "priority 4 is none of the levels, which are 1 to 3");
        assert!(batching.level(u64::MAX).is_err());
    }

    #[test]
    fn contradictions_name_the_field_and_its_value() {
        refused(
            "preferred_batch_size: [ 4, 9 ]",
            "preferred_batch_size has 9, but sizes are 1 to max_batch_size (8)",
        );
        refused("preferred_batch_size: 0", "preferred_batch_size has 0");
        refused("preferred_batch_size: -1", "preferred_batch_size has -1");
        refused("priority_levels: 2", "default_priority_level is 0, but must be one of the levels, 1 to");
        refused("priority_levels: 2 default_priority_level: 3", "default_priority_level is 3");
        refused("priority_levels: 1001 default_priority_level: 1", "may be 1000 at most");
        refused(
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value { } }",
            "priority_queue_policy has level 3",
        );
        refused(
            "preserve_ordering: true priority_levels: 2 default_priority_level: 1",
            "preserve_ordering contradicts priority_levels above 1",
        );
        refused(
            "preserve_ordering: true default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1 }",
            "preserve_ordering contradicts timeout_action DELAY",
        );
        for taken in [
            "default_priority_level: 1 priority_queue_policy { key: 3 value { } }",
            "preserve_ordering: true default_queue_policy { timeout_action: DELAY }",
        ] {
            of(&format!("max_batch_size: 8 dynamic_batching {{ {taken} }}")).unwrap();
        }
        let error = of("dynamic_batching { max_queue_delay_microseconds: 5 }").unwrap_err();
        assert!(error.contains("max_queue_delay_microseconds is 5, but with max_batch_size 0"), "{error}");
        let error = of(
            r#"max_batch_size: 2 dynamic_batching { } parameters { key: "adaptive_queue_delay" value { string_value: "no" } }"#,
        );
        assert!(error.unwrap_err().contains(r#"is "no", but must be "true" or "false""#));
    }
}
