//! Names what a configuration asks for and this server does not do yet, so that nothing is silently ignored.

use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use proto::ModelConfig;
use proto::v2::model_instance_group::Kind;

/// Fields that are acted on, as dotted paths from `ModelConfig`; a path stands for all below it.
/// `parameters` are the backend's: [`unacted`] is told which it acts on.
const ACTED: &[&str] = &[
    "name",
    "platform",
    "backend",
    "version_policy",
    "max_batch_size",
    "input.name",
    "input.data_type",
    "input.dims",
    "input.reshape",
    "input.optional",
    "input.allow_ragged_batch",
    "output.name",
    "output.data_type",
    "output.dims",
    "output.reshape",
    "output.label_filename",
    "batch_input",
    "batch_output",
    "instance_group.name",
    "instance_group.kind",
    "instance_group.count",
    "instance_group.passive",
    "instance_group.rate_limiter",
    "default_model_filename",
    "metric_tags",
    "optimization.graph.level",
    "model_transaction_policy.decoupled",
    "dynamic_batching",
    "response_cache",
    "model_warmup",
];

/// The dotted names of the fields that `config`, as written, sets and nothing acts on; each once, in the
/// order of the field numbers. `acts_on_parameter` says which keys of `parameters` the backend knows.
pub fn unacted(config: &ModelConfig, acts_on_parameter: impl Fn(&str) -> bool) -> Vec<String> {
    let mut dynamic = DynamicMessage::new(proto::model_config_descriptor());
    // The message is one of the pool's own, so its bytes decode.
    if dynamic.merge(config.encode_to_vec().as_slice()).is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    walk(&dynamic, "", &mut found);
    let mut parameters: Vec<_> = config.parameters.keys().filter(|key| !acts_on_parameter(key)).collect();
    parameters.sort();
    if config.instance_group.iter().any(|group| group.kind() == Kind::Model) {
        found.push("instance_group.kind KIND_MODEL (it runs on the CPU, as with KIND_CPU)".to_owned());
    }
    found.extend(parameters.into_iter().map(|key| format!("parameters[{key:?}]")));
    found
}

fn walk(message: &DynamicMessage, prefix: &str, found: &mut Vec<String>) {
    for (field, value) in message.fields() {
        let path =
            if prefix.is_empty() { field.name().to_owned() } else { format!("{prefix}.{}", field.name()) };
        if path == "parameters" || ACTED.contains(&path.as_str()) {
            continue;
        }
        let below = format!("{path}.");
        let partly_acted = ACTED.iter().any(|acted| acted.starts_with(&below));
        match value {
            Value::Message(inner) if partly_acted || is_plain(&path) => visit(inner, &path, found),
            Value::List(items) if partly_acted => {
                items.iter().filter_map(Value::as_message).for_each(|inner| walk(inner, &path, found));
            }
            _ => note(path, found),
        }
    }
}

/// A message without fields asks for its defaults, which is something by itself.
fn visit(inner: &DynamicMessage, path: &str, found: &mut Vec<String>) {
    if inner.fields().next().is_none() {
        note(path.to_owned(), found);
    } else {
        walk(inner, path, found);
    }
}

/// Messages whose fields are worth naming one by one.
fn is_plain(path: &str) -> bool {
    matches!(path, "optimization" | "optimization.graph")
}

fn note(path: String, found: &mut Vec<String>) {
    if !found.contains(&path) {
        found.push(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let config = proto::config_text::parse(text, "config.pbtxt").unwrap();
        assert_eq!(unacted(&config, |key| key == "intra_op_thread_count"), expected, "{text}");
    }

    #[test]
    fn what_is_acted_on_is_not_named() {
        check("", &[]);
        check(
            r#"name: "a" platform: "p" max_batch_size: 4
               input { name: "x" data_type: TYPE_FP32 dims: 4 allow_ragged_batch: true }
               batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_INT32 source_input: "x" }
               batch_output { target_name: "y" source_input: "x" }
               version_policy { all { } } optimization { graph { level: 1 } } metric_tags { key: "a" value: "b" }
               parameters { key: "intra_op_thread_count" value { string_value: "2" } }"#,
            &[],
        );
    }

    #[test]
    fn every_other_field_is_named_once() {
        check(
            "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } } \
             response_cache { enable: true }",
            &[],
        );
        check(
            r#"input { name: "x" format: FORMAT_NCHW } input { name: "y" format: FORMAT_NCHW }
               model_warmup { name: "w" } model_operations { op_library_filename: "lib.so" }
               parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "lib.so" } }"#,
            &["input.format", "model_operations", r#"parameters["TRITON_BATCH_STRATEGY_PATH"]"#],
        );
        check(
            r#"optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } cuda { graphs: true } }"#,
            &["optimization.cuda", "optimization.execution_accelerators"],
        );
        check(
            "instance_group { kind: KIND_MODEL } instance_group { kind: KIND_MODEL }",
            &["instance_group.kind KIND_MODEL (it runs on the CPU, as with KIND_CPU)"],
        );
        check(
            "instance_group { count: 2 host_policy: \"numa\" rate_limiter { priority: 1 } }",
            &["instance_group.host_policy"],
        );
    }
}
