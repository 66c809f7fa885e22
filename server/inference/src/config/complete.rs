//! Fills in what a configuration leaves open from the model's own graph.

use model::Dims;
use proto::v2::{
    ModelConfig, ModelDynamicBatching, ModelInput, ModelOutput, ModelTensorReshape,
    model_config::SchedulingChoice,
};

use super::{datatype_number, ragged};
use crate::backend::{Signature, TensorSignature};

/// How configurations are completed.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// False leaves everything as written (`--disable-auto-complete-config`).
    pub enabled: bool,
    /// `max_batch_size` of a model that can take batches and whose configuration does not say; at least 1.
    pub default_max_batch_size: i32,
}

/// Completes `config` from `signature`, as Triton's ONNX Runtime backend does: nothing is added when both
/// inputs and outputs are written down; otherwise the missing ones are, and a model whose tensors all have
/// an open first dimension is given batches.
pub fn complete(config: &mut ModelConfig, signature: &Signature, completion: Completion) {
    if completion.enabled && (config.input.is_empty() || config.output.is_empty()) {
        if config.max_batch_size == 0
            && takes_batches(signature)
            && !config_has_full_shapes(config, signature)
        {
            config.max_batch_size = completion.default_max_batch_size;
            if completion.default_max_batch_size > 1 && config.scheduling_choice.is_none() {
                config.scheduling_choice =
                    Some(SchedulingChoice::DynamicBatching(ModelDynamicBatching::default()));
            }
        }
        add_missing(config, signature);
    }
    if let Some(SchedulingChoice::DynamicBatching(batching)) = &mut config.scheduling_choice
        && batching.preferred_batch_size.is_empty()
        && config.max_batch_size > 0
    {
        batching.preferred_batch_size.push(config.max_batch_size);
    }
}

/// True when every tensor of the graph has an open first dimension.
fn takes_batches(signature: &Signature) -> bool {
    let mut tensors = signature.inputs.iter().chain(&signature.outputs);
    tensors.all(|tensor| tensor.dims.first() == Some(&-1))
}

/// True when the tensors that are written down have as many dimensions as the graph's, so that their
/// author did not leave out a batch dimension.
fn config_has_full_shapes(config: &ModelConfig, signature: &Signature) -> bool {
    let rank = |tensors: &[TensorSignature], name: &str| {
        tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.dims.len())
    };
    let written = |dims: &[i64], rank: Option<usize>| !dims.is_empty() && rank == Some(dims.len());
    config.input.iter().any(|input| written(&input.dims, rank(&signature.inputs, &input.name)))
        || config.output.iter().any(|output| written(&output.dims, rank(&signature.outputs, &output.name)))
}

fn add_missing(config: &mut ModelConfig, signature: &Signature) {
    let batched = config.max_batch_size > 0;
    for tensor in &signature.inputs {
        let written = config.input.iter().any(|input| tensor.name == input.name);
        if !written && !ragged::fills(config, &tensor.name) {
            config.input.push(ModelInput { name: tensor.name.to_string(), ..Default::default() });
        }
    }
    for tensor in &signature.outputs {
        if !config.output.iter().any(|output| tensor.name == output.name) {
            config.output.push(ModelOutput { name: tensor.name.to_string(), ..Default::default() });
        }
    }
    let find =
        |tensors: &[TensorSignature], name: &str| tensors.iter().find(|tensor| tensor.name == name).cloned();
    // Their shape in the graph has no batch dimension to be left out.
    let scattered: Vec<bool> =
        config.output.iter().map(|output| ragged::scatters(config, &output.name)).collect();
    for input in &mut config.input {
        let batched = batched && !input.allow_ragged_batch;
        if let Some(tensor) = find(&signature.inputs, &input.name) {
            fill(&mut input.data_type, &mut input.dims, &mut input.reshape, &tensor, batched);
        }
    }
    for (output, scattered) in config.output.iter_mut().zip(scattered) {
        let batched = batched && !scattered;
        if let Some(tensor) = find(&signature.outputs, &output.name) {
            fill(&mut output.data_type, &mut output.dims, &mut output.reshape, &tensor, batched);
        }
    }
}

/// Fills in the type and the dimensions where they are not written. A tensor that has no dimension left is
/// written as `[1]` with an empty reshape, since a configuration cannot say "no dimensions".
fn fill(
    data_type: &mut i32,
    dims: &mut Vec<i64>,
    reshape: &mut Option<ModelTensorReshape>,
    tensor: &TensorSignature,
    batched: bool,
) {
    if *data_type == 0 {
        *data_type = datatype_number(tensor.datatype);
    }
    if dims.is_empty() {
        *dims = without_batch(&tensor.dims, batched).to_vec();
        if dims.is_empty() {
            dims.push(1);
            *reshape = Some(ModelTensorReshape { shape: Vec::new() });
        }
    }
}

fn without_batch(dims: &Dims, batched: bool) -> &[i64] {
    if batched { dims.get(1..).unwrap_or_default() } else { dims }
}

#[cfg(test)]
mod tests {
    use model::DataType;

    use super::*;

    const COMPLETION: Completion = Completion { enabled: true, default_max_batch_size: 4 };

    fn signature(input: &[i64], output: &[i64]) -> Signature {
        let tensor = |name: &str, dims| TensorSignature {
            name: name.into(),
            datatype: DataType::Fp32,
            dims: Dims::new(dims),
        };
        Signature { inputs: vec![tensor("x", input)], outputs: vec![tensor("y", output)] }
    }

    fn completed(text: &str, signature: &Signature, completion: Completion) -> ModelConfig {
        let mut config = proto::config_text::parse(text, "config.pbtxt").unwrap();
        complete(&mut config, signature, completion);
        config
    }

    #[test]
    fn a_graph_with_open_first_dimensions_takes_batches() {
        let config = completed("", &signature(&[-1, 64], &[-1, 10]), COMPLETION);
        assert_eq!(config.max_batch_size, 4);
        assert_eq!((&config.input[0].dims, &config.output[0].dims), (&vec![64], &vec![10]));
        assert_eq!(config.input[0].data_type, datatype_number(DataType::Fp32));
        let Some(SchedulingChoice::DynamicBatching(batching)) = config.scheduling_choice else {
            panic!("dynamic batching was not added");
        };
        assert_eq!(batching.preferred_batch_size, [4]);
    }

    #[test]
    fn a_default_of_one_adds_no_dynamic_batching() {
        let one = Completion { enabled: true, default_max_batch_size: 1 };
        let config = completed("", &signature(&[-1, 64], &[-1, 10]), one);
        assert_eq!((config.max_batch_size, config.scheduling_choice), (1, None));
    }

    #[test]
    fn a_graph_with_a_fixed_first_dimension_does_not() {
        let config = completed("", &signature(&[-1, 64], &[10]), COMPLETION);
        assert_eq!((config.max_batch_size, config.scheduling_choice), (0, None));
        assert_eq!(config.input[0].dims, [-1, 64]);
    }

    #[test]
    fn a_tensor_of_batch_only_is_reshaped() {
        let config = completed("", &signature(&[-1], &[-1, 2]), COMPLETION);
        assert_eq!(config.input[0].dims, [1]);
        assert_eq!(config.input[0].reshape, Some(ModelTensorReshape { shape: vec![] }));
    }

    #[test]
    fn what_is_written_stays() {
        let written = r#"max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: 64 }"#;
        let config = completed(written, &signature(&[-1, 64], &[-1, 10]), COMPLETION);
        assert_eq!((config.max_batch_size, config.input.len(), &config.output[0].dims), (2, 1, &vec![10]));
        let whole = format!(r#"{written} output {{ name: "y" data_type: TYPE_FP32 dims: 10 }}"#);
        let config = completed(&whole, &signature(&[-1, 64], &[-1, 10]), COMPLETION);
        assert_eq!((config.max_batch_size, config.output.len()), (2, 1));
    }

    #[test]
    fn what_the_server_fills_is_no_input_and_flat_tensors_have_no_batch_dimension() {
        let text = r#"max_batch_size: 2 input { name: "x" allow_ragged_batch: true } batch_output { target_name: "y" source_input: "x" }
            batch_input { target_name: "n" data_type: TYPE_INT32 source_input: "x" }"#;
        let mut signature = signature(&[-1], &[-1]);
        signature.inputs.push(TensorSignature { name: "n".into(), ..signature.inputs[0].clone() });
        let config = completed(text, &signature, COMPLETION);
        assert_eq!(config.input.iter().map(|input| &input.name[..]).collect::<Vec<_>>(), ["x"]);
        assert_eq!((&config.input[0].dims, &config.output[0].dims), (&vec![-1], &vec![-1]));
        assert_eq!((&config.input[0].reshape, &config.output[0].reshape), (&None, &None));
    }

    #[test]
    fn a_shape_written_in_full_means_no_batches() {
        let config =
            completed(r#"input { name: "x" dims: [-1, 64] }"#, &signature(&[-1, 64], &[-1, 10]), COMPLETION);
        assert_eq!((config.max_batch_size, &config.output[0].dims), (0, &vec![-1, 10]));
    }

    #[test]
    fn nothing_is_completed_when_that_is_switched_off() {
        let off = Completion { enabled: false, default_max_batch_size: 4 };
        assert!(completed("", &signature(&[-1, 64], &[-1, 10]), off).input.is_empty());
    }
}
