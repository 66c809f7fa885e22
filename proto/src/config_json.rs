//! [`ModelConfig`] as JSON: field names as in the .proto file, enums by name, 64-bit integers as numbers.

use prost_reflect::DynamicMessage;
use serde_json::Value;

use crate::{ModelConfig, config_text::MAX_BYTES, message_json, model_config_descriptor};

/// Prints a configuration with every default, as Triton does.
///
/// Empty lists and maps are printed; messages and members of a `oneof` that are not set are left out.
pub fn to_json(config: &ModelConfig) -> Value {
    message_json::to_json("inference.ModelConfig", config)
}

/// Reads a configuration. Names may be as in the .proto file or in camel case, integers may be strings.
pub fn from_json(text: &str) -> Result<ModelConfig, String> {
    if text.len() > MAX_BYTES {
        let bytes = text.len();
        return Err(format!(
            "the configuration has {bytes} bytes, but a model configuration may have {MAX_BYTES} at most"
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(model_config_descriptor(), &mut deserializer)
        .and_then(|message| deserializer.end().map(|()| message))
        .map_err(|error| format!("the configuration is not a ModelConfig in JSON: {error}"))?;
    Ok(message.transcode_to().expect("a message of ModelConfig's descriptor is a ModelConfig"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_text;
    use serde_json::json;

    fn config(text: &str) -> ModelConfig {
        config_text::parse(text, "config.pbtxt").unwrap()
    }

    #[test]
    fn prints_every_default_and_leaves_out_what_is_not_set() {
        let printed = to_json(&ModelConfig::default());
        assert_eq!(
            printed,
            json!({
                "name": "", "platform": "", "backend": "", "runtime": "", "default_model_filename": "",
                "max_batch_size": 0,
                "input": [], "output": [], "batch_input": [], "batch_output": [],
                "instance_group": [], "model_warmup": [],
                "cc_model_filenames": {}, "metric_tags": {}, "parameters": {},
            })
        );
    }

    #[test]
    fn prints_enums_by_name_and_integers_and_floats_as_written() {
        let printed = to_json(&config(
            "input { name: 'x' data_type: TYPE_FP16 dims: [ -1, 9007199254740993 ] }
             dynamic_batching { priority_queue_policy { key: 7 value { timeout_action: DELAY } } }
             version_policy { specific { versions: 3 } }",
        ));
        assert_eq!(printed["input"][0]["data_type"], "TYPE_FP16");
        assert_eq!(printed["input"][0]["format"], "FORMAT_NONE");
        assert_eq!(printed["input"][0]["dims"], json!([-1, 9_007_199_254_740_993_i64]));
        assert_eq!(printed["dynamic_batching"]["max_queue_delay_microseconds"], 0);
        assert_eq!(printed["dynamic_batching"]["priority_queue_policy"]["7"]["timeout_action"], "DELAY");
        assert_eq!(printed["version_policy"], json!({ "specific": { "versions": [3] } }));
        assert!(printed.get("sequence_batching").is_none());

        let printed = to_json(&config("sequence_batching { direct { minimum_slot_utilization: 0.1 } }"));
        assert_eq!(printed["sequence_batching"]["direct"]["minimum_slot_utilization"].to_string(), "0.1");
    }

    #[test]
    fn reads_back_what_it_prints() {
        let config = config(include_str!("../tests/every_form.pbtxt"));
        assert_eq!(from_json(&to_json(&config).to_string()), Ok(config));
    }

    #[test]
    fn reads_camel_case_and_integers_in_strings() {
        let read =
            from_json(r#"{"maxBatchSize": 8, "input": [{"dims": ["3", 4], "dataType": 11}]}"#).unwrap();
        assert_eq!(read, config("max_batch_size: 8 input { dims: [3, 4] data_type: TYPE_FP32 }"));
    }

    #[test]
    fn refuses_what_is_not_a_configuration() {
        let refused = |text: &str| from_json(text).unwrap_err();
        assert!(refused(r#"{"max_batchsize": 8}"#).contains("max_batchsize"));
        assert!(refused(r#"{"name": "a"} trailing"#).contains("trailing"));
        assert!(refused(r#"{"max_batch_size": 3000000000}"#).contains("line 1"));
        assert!(refused(&"[".repeat(100_000)).contains("ModelConfig"));
        assert!(refused(&r#"{"input":["#.repeat(100_000)).contains("ModelConfig"));
        assert!(refused(&" ".repeat(MAX_BYTES + 1)).contains("1048577 bytes"));
    }
}
