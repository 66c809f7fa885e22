//! What a configuration says of warm-up: `model_warmup`, and the key `warmup_require_finite` of `parameters`. What it
//! means is in `warmup.rs` of this crate.

use model::{DataType, Dims, bytes_tensor, element_count};
use proto::ModelConfig;
use proto::v2::ModelWarmup;
use proto::v2::model_warmup::{Input, input::InputDataType};

use super::{datatype, datatype_name};

/// A key of `parameters`: "true" fails the load of a version that gives NaN or infinity in warm-up.
pub(crate) const REQUIRE_FINITE: &str = "warmup_require_finite";

/// Bytes that one input of a sample may take, in all requests of its batch.
pub(crate) const MOST_BYTES: usize = 2 << 30;

/// Characters that a random string has at most.
pub(crate) const MOST_CHARACTERS: u8 = 3;

/// What `model_warmup` asks for, resolved.
#[derive(Debug, PartialEq)]
pub(crate) struct WarmupPlan {
    /// Those that run, in their order.
    pub(crate) samples: Vec<Sample>,
    /// Whether an output that holds NaN or infinity fails the load.
    pub(crate) require_finite: bool,
}

/// A batch of equal requests, each of one item.
#[derive(Debug, PartialEq)]
pub(crate) struct Sample {
    /// Its name, or which it is when it has none.
    pub(crate) name: String,
    /// Requests in the batch, at least 1.
    pub(crate) requests: u32,
    /// How often it runs on each instance, at least 1.
    pub(crate) count: u32,
    /// By name.
    pub(crate) inputs: Vec<SampleInput>,
}

/// One input of each request of a sample.
#[derive(Debug, PartialEq)]
pub(crate) struct SampleInput {
    pub(crate) name: String,
    pub(crate) datatype: DataType,
    /// Without the batch dimension.
    pub(crate) dims: Dims,
    pub(crate) source: Source,
}

/// Where the elements of an input come from.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    Zero,
    Random,
    /// A file of the model's directory `warmup`.
    File(String),
}

/// Resolves `config`, which has been completed from and checked against the graph.
///
/// # Errors
/// The first contradiction, with the field, its value, and what to do.
pub(crate) fn warmup(config: &ModelConfig) -> Result<WarmupPlan, String> {
    let runs = config.model_warmup.iter().enumerate().filter(|(_, written)| written.batch_size > 0);
    let samples = runs
        .map(|(index, written)| {
            let name = match written.name.as_str() {
                "" => format!("sample {index}"),
                name => name.to_owned(),
            };
            sample(config, written)
                .map(|(requests, inputs)| Sample {
                    name: name.clone(),
                    requests,
                    count: written.count.max(1),
                    inputs,
                })
                .map_err(|reason| format!("model_warmup {name:?}: {reason}"))
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(WarmupPlan { require_finite: require_finite(config, &samples)?, samples })
}

/// How many requests it has, and their inputs.
fn sample(config: &ModelConfig, written: &ModelWarmup) -> Result<(u32, Vec<SampleInput>), String> {
    let requests = requests(config, written.batch_size)?;
    let mut names: Vec<&String> = written.inputs.keys().collect();
    names.sort(); // so that the first problem is the same each time
    let given = |name: &str| written.inputs.contains_key(name);
    if let Some(unknown) = names.iter().find(|name| !config.input.iter().any(|input| input.name == ***name)) {
        let known: Vec<_> = config.input.iter().map(|input| format!("{:?}", input.name)).collect();
        return Err(format!(
            "inputs has {unknown:?}, which is none of the model's, {}; correct the key",
            known.join(", ")
        ));
    }
    if let Some(missing) = config.input.iter().find(|input| !input.optional && !given(&input.name)) {
        return Err(format!(
            "inputs lacks {:?}, which every request for the model has; add inputs {{ key: {0:?} value {{ … }} }}",
            missing.name
        ));
    }
    let inputs = config.input.iter().filter_map(|model| Some((model, written.inputs.get(&model.name)?)));
    let inputs = inputs.map(|(model, input)| {
        resolve(model, input, requests).map_err(|reason| format!("inputs[{:?}]{reason}", model.name))
    });
    Ok((requests, inputs.collect::<Result<_, _>>()?))
}

fn requests(config: &ModelConfig, batch_size: u32) -> Result<u32, String> {
    let most = u32::try_from(config.max_batch_size).unwrap_or_default();
    match most {
        0 if batch_size > 1 => Err(format!(
            "batch_size is {batch_size}, but max_batch_size is 0, with which requests never run together; set \
             batch_size to 1"
        )),
        1.. if batch_size > most => {
            Err(format!("batch_size is {batch_size}, but max_batch_size is {most}; correct one of them"))
        }
        _ => Ok(batch_size),
    }
}

/// # Errors
/// What is wrong with `input`, which its caller has named.
fn resolve(model: &proto::v2::ModelInput, input: &Input, requests: u32) -> Result<SampleInput, String> {
    let wanted = Dims::new(&model.dims);
    let dims = Dims::new(&input.dims);
    let datatype =
        datatype(input.data_type).filter(|_| input.data_type == model.data_type).ok_or_else(|| {
            format!(
                ".data_type is {}, but the model's is {}; correct it",
                datatype_name(input.data_type),
                datatype_name(model.data_type)
            )
        })?;
    if dims.iter().any(|dim| *dim < 0) {
        return Err(format!(
            ".dims is {dims}, but a sample has a size in each dimension; the model's is {wanted}"
        ));
    }
    let same = |(wanted, given): (&i64, &i64)| *wanted == -1 || wanted == given;
    if dims.len() != wanted.len() || !wanted.iter().zip(dims.iter()).all(same) {
        return Err(format!(
            ".dims is {dims}, but the model's is {wanted}; correct it (the batch dimension is not written)"
        ));
    }
    fits_in_memory(datatype, &dims, requests)?;
    Ok(SampleInput { name: model.name.clone(), datatype, dims, source: source(input)? })
}

/// What is written by mistake is not allocated.
fn fits_in_memory(datatype: DataType, dims: &Dims, requests: u32) -> Result<(), String> {
    let element = datatype.element_size().unwrap_or(bytes_tensor::LENGTH_SIZE + usize::from(MOST_CHARACTERS));
    let elements = element_count(dims).map_err(|error| format!(".dims is {dims}, but {error}"))?;
    let bytes = elements.checked_mul(element).and_then(|bytes| bytes.checked_mul(requests as usize));
    match bytes {
        Some(bytes) if bytes <= MOST_BYTES => Ok(()),
        _ => Err(format!(
            ".dims is {dims}, which takes more than {} GiB in a batch of {requests}; correct one of them",
            MOST_BYTES >> 30
        )),
    }
}

fn source(input: &Input) -> Result<Source, String> {
    const OTHERS: &str = "write one of zero_data: true, random_data: true and input_data_file: \"FILE\"";
    match &input.input_data_type {
        Some(InputDataType::ZeroData(true)) => Ok(Source::Zero),
        Some(InputDataType::RandomData(true)) => Ok(Source::Random),
        Some(InputDataType::InputDataFile(file)) => Ok(Source::File(file.clone())),
        Some(InputDataType::ZeroData(false)) => Err(format!(".zero_data is false; {OTHERS}")),
        Some(InputDataType::RandomData(false)) => Err(format!(".random_data is false; {OTHERS}")),
        None => Err(format!(" has no data; {OTHERS}")),
    }
}

fn require_finite(config: &ModelConfig, samples: &[Sample]) -> Result<bool, String> {
    let floats = [DataType::Fp16, DataType::Bf16, DataType::Fp32, DataType::Fp64];
    let has_floats = || {
        let mut datatypes = config.output.iter().filter_map(|output| datatype(output.data_type));
        datatypes.any(|datatype| floats.contains(&datatype))
    };
    let problem = match config.parameters.get(REQUIRE_FINITE).map(|value| value.string_value.as_str()) {
        None | Some("false") => return Ok(false),
        Some("true") if samples.is_empty() => {
            "but without a sample in model_warmup (of batch_size 1 or more) no output is looked at; add one, or leave \
             it out"
        }
        Some("true") if !has_floats() => {
            "but no output is TYPE_FP16, TYPE_BF16, TYPE_FP32 or TYPE_FP64, and others are always finite; leave it out"
        }
        Some("true") => return Ok(true),
        Some(_) => "but must be \"true\" or \"false\"",
    };
    let written = &config.parameters[REQUIRE_FINITE].string_value;
    Err(format!("parameters[\"{REQUIRE_FINITE}\"] is {written:?}, {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = r#"max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [2, -1] } input { name: "n" data_type: TYPE_INT64 dims: 1 }
        input { name: "o" data_type: TYPE_STRING dims: 1 optional: true }
        output { name: "y" data_type: TYPE_FP32 dims: 1 }"#;

    const X: &str = r#"inputs { key: "x" value { data_type: TYPE_FP32 dims: [2, 3] random_data: true } }"#;
    const N: &str = r#"inputs { key: "n" value { data_type: TYPE_INT64 dims: 1 zero_data: true } }"#;

    fn of(more: &str) -> Result<WarmupPlan, String> {
        warmup(&proto::config_text::parse(&format!("{MODEL} {more}"), "config.pbtxt").unwrap())
    }

    #[track_caller]
    fn refused(sample: &str, reason: &str) {
        let error = of(&format!("model_warmup {{ name: \"w\" {sample} }}")).unwrap_err();
        assert_eq!(error, format!("model_warmup \"w\": {reason}"));
    }

    /// A sample whose input `x` is `value`.
    #[track_caller]
    fn refused_input(value: &str, reason: &str) {
        refused(
            &format!("batch_size: 8 inputs {{ key: \"x\" value {{ {value} }} }} {N}"),
            &format!("inputs[\"x\"]{reason}"),
        );
    }

    #[test]
    fn every_field_is_taken_over() {
        let file = r#"inputs { key: "o" value { data_type: TYPE_STRING dims: 1 input_data_file: "o.bin" } }"#;
        let plan = of(&format!(
            "model_warmup {{ name: \"w\" batch_size: 8 count: 3 {X} {N} {file} }}
             model_warmup {{ batch_size: 1 {N} {X} }}"
        ))
        .unwrap();
        let input = |name: &str, datatype, dims: &[i64], source| SampleInput {
            name: name.to_owned(),
            datatype,
            dims: Dims::new(dims),
            source,
        };
        let x = || input("x", DataType::Fp32, &[2, 3], Source::Random);
        let n = || input("n", DataType::Int64, &[1], Source::Zero);
        let o = input("o", DataType::Bytes, &[1], Source::File("o.bin".to_owned()));
        let first = Sample { name: "w".to_owned(), requests: 8, count: 3, inputs: vec![x(), n(), o] };
        let second = Sample { name: "sample 1".to_owned(), requests: 1, count: 1, inputs: vec![x(), n()] };
        assert_eq!(plan, WarmupPlan { samples: vec![first, second], require_finite: false });
    }

    #[test]
    fn a_sample_of_batch_size_0_is_skipped_whatever_it_says() {
        let plan = of("model_warmup { name: \"off\" } model_warmup { batch_size: 0 inputs { key: \"z\" } }");
        assert_eq!(plan.unwrap().samples, []);
    }

    #[test]
    fn a_batch_is_one_that_may_run() {
        refused(
            &format!("batch_size: 9 {X} {N}"),
            "batch_size is 9, but max_batch_size is 8; correct one of them",
        );
        let unbatched = r#"input { name: "n" data_type: TYPE_INT64 dims: 1 }"#;
        let of = |size: u32| {
            let text = format!("{unbatched} model_warmup {{ name: \"w\" batch_size: {size} {N} }}");
            warmup(&proto::config_text::parse(&text, "config.pbtxt").unwrap())
        };
        of(1).unwrap();
        let reason = "batch_size is 2, but max_batch_size is 0, with which requests never run together; set batch_size \
                      to 1";
        assert_eq!(of(2).unwrap_err(), format!("model_warmup \"w\": {reason}"));
    }

    #[test]
    fn the_inputs_are_those_of_the_model() {
        refused(
            &format!("batch_size: 1 {X}"),
            "inputs lacks \"n\", which every request for the model has; add inputs { key: \"n\" value { … } }",
        );
        refused(
            &format!("batch_size: 1 {X} {N} inputs {{ key: \"q\" value {{ }} }}"),
            "inputs has \"q\", which is none of the model's, \"x\", \"n\", \"o\"; correct the key",
        );
    }

    #[test]
    fn an_input_that_contradicts_the_model_is_told_with_both_values() {
        refused_input(
            "data_type: TYPE_FP16 dims: [2, 3] zero_data: true",
            ".data_type is TYPE_FP16, but the model's is TYPE_FP32; correct it",
        );
        refused_input(
            "dims: [2, 3] zero_data: true",
            ".data_type is TYPE_INVALID, but the model's is TYPE_FP32; correct it",
        );
        for dims in ["3,3", "2", "1,2,3", ""] {
            refused_input(
                &format!("data_type: TYPE_FP32 dims: [{dims}] zero_data: true"),
                &format!(
                    ".dims is [{dims}], but the model's is [2,-1]; correct it (the batch dimension is not written)"
                ),
            );
        }
        refused_input(
            "data_type: TYPE_FP32 dims: [2, -1] zero_data: true",
            ".dims is [2,-1], but a sample has a size in each dimension; the model's is [2,-1]",
        );
    }

    #[test]
    fn what_no_memory_holds_is_refused() {
        for dim in ["33554433", "9223372036854775807"] {
            let error = of(&format!(
                "model_warmup {{ batch_size: 8 {N} inputs {{ key: \"x\" value {{ data_type: TYPE_FP32 dims: [2, {dim}] \
                 zero_data: true }} }} }}"
            ))
            .unwrap_err();
            assert!(error.contains(&format!("inputs[\"x\"].dims is [2,{dim}]")), "{error}");
        }
    }

    #[test]
    fn an_input_has_its_data_from_one_place() {
        let others = "write one of zero_data: true, random_data: true and input_data_file: \"FILE\"";
        let x = "data_type: TYPE_FP32 dims: [2, 0]";
        refused_input(x, &format!(" has no data; {others}"));
        refused_input(&format!("{x} zero_data: false"), &format!(".zero_data is false; {others}"));
        refused_input(&format!("{x} random_data: false"), &format!(".random_data is false; {others}"));
    }

    #[test]
    fn finite_outputs_are_required_where_there_are_any_to_look_at() {
        let key = |value: &str| {
            format!("parameters {{ key: \"{REQUIRE_FINITE}\" value {{ string_value: \"{value}\" }} }}")
        };
        let sample = format!("model_warmup {{ batch_size: 1 {X} {N} }}");
        assert!(of(&format!("{sample} {}", key("true"))).unwrap().require_finite);
        assert!(!of(&format!("{sample} {}", key("false"))).unwrap().require_finite);
        assert!(!of(&key("false")).unwrap().require_finite);
        let refused = |more: &str, words: &str| {
            let error = of(more).unwrap_err();
            assert!(
                error.starts_with("parameters[\"warmup_require_finite\"] is ") && error.contains(words),
                "{error}"
            );
        };
        refused(&format!("{sample} {}", key("yes")), "\"yes\", but must be \"true\" or \"false\"");
        refused(&key("true"), "\"true\", but without a sample in model_warmup");
        refused(&format!("model_warmup {{ }} {}", key("true")), "(of batch_size 1 or more)");
        let text = format!(
            "output {{ name: \"y\" data_type: TYPE_INT32 dims: 1 }} model_warmup {{ batch_size: 1 }} {}",
            key("true")
        );
        let error = warmup(&proto::config_text::parse(&text, "config.pbtxt").unwrap()).unwrap_err();
        assert!(error.contains("no output is TYPE_FP16, TYPE_BF16, TYPE_FP32 or TYPE_FP64"), "{error}");
    }
}
