//! What a configuration means before the graph is known: defaults filled in, contradictions refused.

use model::ModelName;
use proto::v2::{
    ModelConfig, ModelInstanceGroup, ModelOptimizationPolicy, ModelVersionPolicy,
    model_config::SchedulingChoice, model_instance_group::Kind,
    model_optimization_policy::PinnedMemoryBuffer, model_version_policy,
};

/// Instances of a group on the CPU when its configuration gives no count, as Triton's ONNX Runtime backend
/// asks for.
const DEFAULT_CPU_INSTANCES: i32 = 2;

/// How many instances of a version run, and with how many threads each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Instances that take requests.
    pub instances: usize,
    /// Threads of each: the cores divided among the instances, at least one.
    pub threads_per_instance: usize,
}

/// Fills in names and defaults, and says how the model is to be placed on `cores` CPU cores.
///
/// # Errors
/// A sentence that names the field and both values, when the configuration contradicts the directory or
/// asks for what this server does not do.
pub fn normalise(config: &mut ModelConfig, name: &ModelName, cores: usize) -> Result<Placement, String> {
    if config.name.is_empty() {
        config.name = name.to_string();
    } else if config.name != name.as_str() {
        return Err(format!(
            "name is {:?}, but the model's directory is {:?}; make them equal",
            config.name, name
        ));
    }
    if config.max_batch_size < 0 {
        return Err(format!(
            "max_batch_size is {}, but must be 0 (no batching) or more",
            config.max_batch_size
        ));
    }
    backend(config)?;
    scheduling(config)?;
    let latest = model_version_policy::Latest { num_versions: 1 };
    let policy = config.version_policy.get_or_insert_with(ModelVersionPolicy::default);
    policy.policy_choice.get_or_insert(model_version_policy::PolicyChoice::Latest(latest));
    let optimization = config.optimization.get_or_insert_with(ModelOptimizationPolicy::default);
    optimization.input_pinned_memory.get_or_insert(PinnedMemoryBuffer { enable: true });
    optimization.output_pinned_memory.get_or_insert(PinnedMemoryBuffer { enable: true });
    instance_groups(config, cores)
}

fn backend(config: &mut ModelConfig) -> Result<(), String> {
    const BACKEND: &str = "onnxruntime";
    const PLATFORM: &str = "onnxruntime_onnx";
    if !config.backend.is_empty() && config.backend != BACKEND {
        return Err(format!("backend is {:?}, but this server runs {BACKEND:?} only", config.backend));
    }
    if !config.platform.is_empty() && config.platform != PLATFORM {
        return Err(format!("platform is {:?}, but this server runs {PLATFORM:?} only", config.platform));
    }
    config.backend = BACKEND.to_owned();
    config.platform = PLATFORM.to_owned();
    if config.default_model_filename.is_empty() {
        config.default_model_filename = "model.onnx".to_owned();
    }
    Ok(())
}

/// Without their scheduler these models would answer wrongly, so they are not loaded at all.
fn scheduling(config: &ModelConfig) -> Result<(), String> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::SequenceBatching(_)) => {
            Err("sequence_batching is not served yet: its requests would lose their state".to_owned())
        }
        Some(SchedulingChoice::EnsembleScheduling(_)) => {
            Err("ensemble_scheduling is not served yet".to_owned())
        }
        Some(SchedulingChoice::DynamicBatching(_)) | None => {
            let decoupled = config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled);
            if decoupled {
                return Err(
                    "model_transaction_policy.decoupled is true, but an ONNX model gives one answer".into()
                );
            }
            Ok(())
        }
    }
}

fn instance_groups(config: &mut ModelConfig, cores: usize) -> Result<Placement, String> {
    if config.instance_group.is_empty() {
        config.instance_group.push(ModelInstanceGroup::default());
    }
    let mut instances = 0_usize;
    for (index, group) in config.instance_group.iter_mut().enumerate() {
        if group.name.is_empty() {
            group.name = format!("{}_{index}", config.name);
        }
        if group.kind() == Kind::Gpu {
            return Err(format!(
                "instance_group {:?} is KIND_GPU, but this server runs on the CPU; use KIND_CPU or KIND_AUTO",
                group.name
            ));
        }
        // KIND_MODEL leaves the device to the model, which has the CPU alone here (`unacted` says so).
        if group.kind() == Kind::Auto {
            group.set_kind(Kind::Cpu);
        }
        let count = if group.count == 0 { DEFAULT_CPU_INSTANCES } else { group.count };
        group.count = count;
        let count = usize::try_from(count).ok().filter(|count| *count <= MAX_INSTANCES).ok_or_else(|| {
            format!(
                "instance_group {:?} has count {count}, but 1 to {MAX_INSTANCES} are possible",
                group.name
            )
        })?;
        if !group.passive {
            instances += count;
        }
    }
    if instances == 0 {
        return Err("every instance_group is passive, so no instance would take requests".to_owned());
    }
    if instances > MAX_INSTANCES {
        return Err(format!(
            "the instance groups have {instances} instances, but at most {MAX_INSTANCES} are possible"
        ));
    }
    Ok(Placement { instances, threads_per_instance: (cores / instances).max(1) })
}

/// Each instance is a thread.
const MAX_INSTANCES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, cores: usize) -> Result<(ModelConfig, Placement), String> {
        let mut config = proto::config_text::parse(text, "config.pbtxt").unwrap();
        let placement = normalise(&mut config, &ModelName::parse("digits").unwrap(), cores)?;
        Ok((config, placement))
    }

    #[test]
    fn an_empty_configuration_gets_tritons_defaults() {
        let (config, placement) = run("", 16).unwrap();
        assert_eq!((config.name.as_str(), config.backend.as_str()), ("digits", "onnxruntime"));
        assert_eq!(config.platform, "onnxruntime_onnx");
        assert_eq!((config.instance_group[0].name.as_str(), config.instance_group[0].count), ("digits_0", 2));
        assert_eq!(config.instance_group[0].kind(), Kind::Cpu);
        assert_eq!(placement, Placement { instances: 2, threads_per_instance: 8 });
    }

    #[test]
    fn the_kind_that_was_written_is_kept_and_auto_is_the_cpu() {
        let kind = |text: &str| run(text, 2).unwrap().0.instance_group[0].kind();
        assert_eq!(kind("instance_group { kind: KIND_MODEL }"), Kind::Model);
        assert_eq!(kind("instance_group { kind: KIND_AUTO }"), Kind::Cpu);
    }

    #[test]
    fn cores_are_divided_among_the_instances_that_take_requests() {
        let groups =
            "instance_group { count: 3 } instance_group { count: 2 passive: true } instance_group { }";
        assert_eq!(run(groups, 2).unwrap().1, Placement { instances: 5, threads_per_instance: 1 });
        assert_eq!(run(groups, 10).unwrap().1, Placement { instances: 5, threads_per_instance: 2 });
    }

    #[track_caller]
    fn refused(text: &str, words: &str) {
        let error = run(text, 2).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        refused(r#"name: "other""#, r#"name is "other", but the model's directory is "digits""#);
        refused("max_batch_size: -1", "max_batch_size is -1");
        refused(r#"backend: "python""#, r#"backend is "python""#);
        refused(r#"platform: "tensorrt_plan""#, r#"platform is "tensorrt_plan""#);
        refused("sequence_batching { }", "sequence_batching");
        refused("ensemble_scheduling { }", "ensemble_scheduling");
        refused("model_transaction_policy { decoupled: true }", "decoupled");
        refused("instance_group { kind: KIND_GPU }", "KIND_GPU");
        refused("instance_group { count: -2 }", "count -2");
        refused("instance_group { count: 100000 }", "count 100000");
        refused("instance_group { passive: true }", "passive");
    }
}
