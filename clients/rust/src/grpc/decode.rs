//! gRPC messages as plain values.

use proto::v2;
use proto::v2::infer_parameter::ParameterChoice;
use proto::v2::model_infer_response::InferOutputTensor;

use crate::{
    BatchStatistics, ClientError, DataType, InferResponse, InferStatistics, ModelMetadata, ModelState,
    ModelStatistics, Parameter, StatisticDuration, Tensor, TensorMetadata,
};

/// Reads an answer. Servers write its outputs raw (Triton, Volley) or typed (MLServer).
pub(super) fn response(message: v2::ModelInferResponse) -> Result<InferResponse, ClientError> {
    let (outputs, raw) = (&message.outputs, &message.raw_output_contents);
    if !raw.is_empty() && raw.len() != outputs.len() {
        let reason = format!("{} raw contents came for {} outputs", raw.len(), outputs.len());
        return Err(ClientError::protocol(reason));
    }
    let outputs = outputs.iter().enumerate().map(|(index, output)| {
        let datatype = DataType::parse(&output.datatype).ok_or_else(|| {
            let (name, datatype) = (&output.name, &output.datatype);
            ClientError::protocol(format!("output {name:?} has the unknown datatype {datatype:?}"))
        })?;
        match raw.get(index) {
            Some(raw) => Ok(Tensor::new(&output.name, datatype, &output.shape, raw.clone())?),
            None => typed(output, datatype),
        }
    });
    let outputs = outputs.collect::<Result<_, ClientError>>()?;
    let plain = |(name, value): (String, v2::InferParameter)| Some((name, parameter(value)?));
    Ok(InferResponse {
        model_name: message.model_name,
        model_version: Some(message.model_version).filter(|version| !version.is_empty()),
        id: Some(message.id).filter(|id| !id.is_empty()),
        parameters: message.parameters.into_iter().filter_map(plain).collect(),
        outputs,
    })
}

fn typed(output: &InferOutputTensor, datatype: DataType) -> Result<Tensor, ClientError> {
    let (name, shape) = (&output.name, &output.shape[..]);
    let contents = output.contents.clone().unwrap_or_default();
    let tensor = match datatype {
        DataType::Bool => Tensor::from_slice(name, shape, &contents.bool_contents),
        DataType::Uint8 => {
            Tensor::from_slice(name, shape, &narrow::<_, u8>(output, &contents.uint_contents)?)
        }
        DataType::Uint16 => {
            Tensor::from_slice(name, shape, &narrow::<_, u16>(output, &contents.uint_contents)?)
        }
        DataType::Uint32 => Tensor::from_slice(name, shape, &contents.uint_contents),
        DataType::Uint64 => Tensor::from_slice(name, shape, &contents.uint64_contents),
        DataType::Int8 => Tensor::from_slice(name, shape, &narrow::<_, i8>(output, &contents.int_contents)?),
        DataType::Int16 => {
            Tensor::from_slice(name, shape, &narrow::<_, i16>(output, &contents.int_contents)?)
        }
        DataType::Int32 => Tensor::from_slice(name, shape, &contents.int_contents),
        DataType::Int64 => Tensor::from_slice(name, shape, &contents.int64_contents),
        DataType::Fp32 => Tensor::from_slice(name, shape, &contents.fp32_contents),
        DataType::Fp64 => Tensor::from_slice(name, shape, &contents.fp64_contents),
        DataType::Bytes => Tensor::from_strings(name, shape, &contents.bytes_contents),
        DataType::Fp16 | DataType::Bf16 => Tensor::new(name, datatype, shape, Vec::new()),
    };
    Ok(tensor?)
}

/// Elements that the message holds in a wider type than the tensor has.
fn narrow<W: Copy + Into<i64>, N: TryFrom<W>>(
    output: &InferOutputTensor,
    wide: &[W],
) -> Result<Vec<N>, ClientError> {
    let fit = |value: &W| {
        N::try_from(*value).map_err(|_| {
            let value: i64 = (*value).into();
            let (name, datatype) = (&output.name, &output.datatype);
            ClientError::protocol(format!("output {name:?} holds {value}, which is not of type {datatype}"))
        })
    };
    wide.iter().map(fit).collect()
}

fn parameter(value: v2::InferParameter) -> Option<Parameter> {
    Some(match value.parameter_choice? {
        ParameterChoice::BoolParam(value) => Parameter::Bool(value),
        ParameterChoice::Int64Param(value) => Parameter::Int(value),
        ParameterChoice::Uint64Param(value) => Parameter::Uint(value),
        ParameterChoice::DoubleParam(value) => Parameter::Double(value),
        ParameterChoice::StringParam(value) => Parameter::String(value),
    })
}

/// Reads one answer of a stream.
pub(super) fn streamed(message: v2::ModelStreamInferResponse) -> Result<InferResponse, ClientError> {
    let answer = message.infer_response.unwrap_or_default();
    if message.error_message.is_empty() {
        return response(answer);
    }
    Err(ClientError::InStream { id: answer.id, message: message.error_message })
}

/// Reads what a server says of a model.
pub(super) fn metadata(message: v2::ModelMetadataResponse) -> ModelMetadata {
    let tensors = |tensors: Vec<v2::model_metadata_response::TensorMetadata>| {
        let plain = |tensor: v2::model_metadata_response::TensorMetadata| TensorMetadata {
            name: tensor.name,
            datatype: tensor.datatype,
            shape: tensor.shape,
        };
        tensors.into_iter().map(plain).collect()
    };
    ModelMetadata {
        name: message.name,
        versions: message.versions,
        platform: message.platform,
        inputs: tensors(message.inputs),
        outputs: tensors(message.outputs),
    }
}

/// Reads one line of the repository index.
pub(super) fn state(model: v2::repository_index_response::ModelIndex) -> ModelState {
    ModelState { name: model.name, version: model.version, state: model.state, reason: model.reason }
}

/// Reads the statistics of one model version.
pub(super) fn statistics(model: v2::ModelStatistics) -> ModelStatistics {
    let phases = model.inference_stats.unwrap_or_default();
    ModelStatistics {
        name: model.name,
        version: model.version,
        last_inference: model.last_inference,
        inference_count: model.inference_count,
        execution_count: model.execution_count,
        inference_stats: InferStatistics {
            success: duration(phases.success),
            fail: duration(phases.fail),
            queue: duration(phases.queue),
            compute_input: duration(phases.compute_input),
            compute_infer: duration(phases.compute_infer),
            compute_output: duration(phases.compute_output),
            cache_hit: duration(phases.cache_hit),
            cache_miss: duration(phases.cache_miss),
        },
        batch_stats: model.batch_stats.into_iter().map(batch).collect(),
    }
}

fn batch(batch: v2::InferBatchStatistics) -> BatchStatistics {
    BatchStatistics {
        batch_size: batch.batch_size,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    }
}

fn duration(duration: Option<v2::StatisticDuration>) -> StatisticDuration {
    duration.map_or_else(StatisticDuration::default, |duration| StatisticDuration {
        count: duration.count,
        ns: duration.ns,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answer(datatype: &str, contents: v2::InferTensorContents, raw: Vec<Bytes>) -> v2::ModelInferResponse {
        let output = InferOutputTensor {
            name: "y".to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![2],
            contents: Some(contents),
            ..InferOutputTensor::default()
        };
        v2::ModelInferResponse { outputs: vec![output], raw_output_contents: raw, ..Default::default() }
    }

    #[test]
    fn raw_and_typed_contents_give_the_same_tensor() {
        let typed = v2::InferTensorContents { int_contents: vec![1, -2], ..Default::default() };
        let typed = response(answer("INT8", typed, vec![])).unwrap();
        let raw = response(answer("INT8", Default::default(), vec![vec![1, 0xfe].into()])).unwrap();
        assert_eq!(typed, raw);
        let strings = vec![Bytes::from_static(b"a"), Bytes::new()];
        let typed = v2::InferTensorContents { bytes_contents: strings, ..Default::default() };
        let typed = response(answer("BYTES", typed, vec![])).unwrap();
        assert_eq!(typed.outputs[0].strings().unwrap(), ["a", ""]);
    }

    #[track_caller]
    fn refused(message: v2::ModelInferResponse, text: &str) {
        let error = response(message).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_told_with_its_values() {
        let typed = v2::InferTensorContents { int_contents: vec![1, 300], ..Default::default() };
        refused(answer("INT8", typed, vec![]), r#"output "y" holds 300, which is not of type INT8"#);
        refused(
            answer("INT8", Default::default(), vec![Bytes::new(); 2]),
            "2 raw contents came for 1 outputs",
        );
        refused(answer("INT8", Default::default(), vec![]), "0 elements, but shape [2] has 2");
        refused(answer("FP16", Default::default(), vec![]), "0 bytes of data, but FP16 of shape [2] takes 4");
        refused(answer("FP8", Default::default(), vec![]), r#"unknown datatype "FP8""#);
    }

    #[test]
    fn an_error_in_a_stream_names_its_request() {
        let infer_response = Some(v2::ModelInferResponse { id: "7".to_owned(), ..Default::default() });
        let message = v2::ModelStreamInferResponse { error_message: "no".to_owned(), infer_response };
        let text = streamed(message).unwrap_err().to_string();
        assert_eq!(text, r#"the server refused request "7" of the stream: no"#);
    }
}
