//! What a configuration says of padding: the keys `pad_batch` and `pad_to_sizes` of `parameters`. What it means is in
//! `padding.rs` of this crate.

use model::DataType;
use proto::ModelConfig;
use proto::v2::model_config::SchedulingChoice;
use proto::v2::{ModelInput, ModelOutput};
use smallvec::SmallVec;

use super::check::find;
use super::{datatype, ragged};
use crate::backend::Signature;
use crate::padding::{CutOutput, PaddedInput, Padding};

/// A key of `parameters`: the inputs that are padded and with what, and the outputs that are cut back, such as
/// `tokens=0, mask=0, embeddings=cut`.
pub(crate) const PAD_BATCH: &str = "pad_batch";

/// A key of `parameters`: the only lengths that the model runs at, such as `32, 64, 128`.
pub(crate) const PAD_TO_SIZES: &str = "pad_to_sizes";

/// Bytes that one input of a full batch may take at the largest size.
const MOST_BYTES: i64 = 2 << 30;

/// What stands in place of a value for an output.
const CUT: &str = "cut";

/// Resolves `config`, which has been completed from and checked against `signature`; `None` when nothing is padded.
///
/// # Errors
/// The first contradiction, with the field, its value, and what to do.
pub fn padding(config: &ModelConfig, signature: &Signature) -> Result<Option<Padding>, String> {
    let parameter = |key| config.parameters.get(key).map(|value| value.string_value.as_str());
    let sizes = parameter(PAD_TO_SIZES).map(sizes).transpose()?.unwrap_or_default();
    let Some(text) = parameter(PAD_BATCH) else {
        return match sizes.is_empty() {
            true => Ok(None),
            false => Err(format!(
                "parameters[\"{PAD_TO_SIZES}\"] is set, but no input says what it is padded with; add \
                 parameters[\"{PAD_BATCH}\"]"
            )),
        };
    };
    together(config, &sizes)?;
    let written = pairs(text)?;
    let (inputs, outputs): (Vec<_>, Vec<_>) = written.into_iter().partition(|(_, value)| *value != CUT);
    let inputs = inputs
        .into_iter()
        .map(|(name, value)| {
            padded(config.input.iter().find(|input| input.name == name), name, value, signature, &sizes)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let outputs =
        outputs.into_iter().map(|(name, _)| cut(config, name, signature)).collect::<Result<Vec<_>, _>>()?;
    if inputs.is_empty() {
        return Err(format!("parameters[\"{PAD_BATCH}\"] names no input; add INPUT=VALUE, or leave it out"));
    }
    if let Some(largest) = sizes.last() {
        inputs.iter().try_for_each(|input| fits_in_memory(config, input, *largest))?;
    }
    every_open_input_is_padded(config, &inputs, signature)?;
    no_output_is_cut_by_a_padded_input(config, &inputs)?;
    every_open_output_is_cut(config, &outputs, signature)?;
    Ok(Some(Padding { inputs, outputs, sizes }))
}

fn sizes(text: &str) -> Result<Vec<i64>, String> {
    let size = |size: &str| size.trim().parse::<i64>().ok().filter(|size| *size > 0);
    let sizes: Option<Vec<i64>> = text.split(',').map(size).collect();
    match sizes {
        Some(sizes) if sizes.is_sorted_by(|a, b| a < b) => Ok(sizes),
        _ => Err(format!(
            "parameters[\"{PAD_TO_SIZES}\"] is {text:?}, but must be lengths of 1 or more, ascending, such as \"32, 64\""
        )),
    }
}

/// `name=value, name=value`.
fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let pair =
        |pair: &'_ str| pair.split_once('=').map(|(name, value)| (name.trim().len(), value.trim().len()));
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for each in text.split(',').map(str::trim) {
        let whole = pair(each).filter(|(name, value)| *name > 0 && *value > 0);
        let Some((name, value)) = whole.and_then(|_| each.split_once('=')) else {
            return Err(format!(
                "parameters[\"{PAD_BATCH}\"] has {each:?}, but must be a list of INPUT=VALUE and OUTPUT={CUT}, such as \
                 \"tokens=0, mask=0, embeddings={CUT}\""
            ));
        };
        let (name, value) = (name.trim(), value.trim());
        if pairs.iter().any(|(other, _)| *other == name) {
            return Err(format!("parameters[\"{PAD_BATCH}\"] has {name:?} twice; leave out one of them"));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Whether requests run together at all.
fn together(config: &ModelConfig, sizes: &[i64]) -> Result<(), String> {
    let dynamic = match &config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(dynamic)) => Some(dynamic),
        _ => None,
    };
    let reason = if config.max_batch_size == 0 {
        "max_batch_size is 0, with which requests have no batch dimension; set max_batch_size to 2 or more"
    } else if config.max_batch_size == 1 && sizes.is_empty() {
        "max_batch_size is 1, with which requests never run together; set it to 2 or more"
    } else if dynamic.is_none() && sizes.is_empty() {
        "without dynamic_batching requests never run together; add dynamic_batching { }"
    } else if dynamic
        .is_some_and(|dynamic| dynamic.preferred_batch_size.iter().any(|size| *size != config.max_batch_size))
    {
        "dynamic_batching.preferred_batch_size fixes what is chosen by length and cost; leave out one of them"
    } else {
        return Ok(());
    };
    Err(format!("parameters[\"{PAD_BATCH}\"] is set, but {reason}"))
}

fn padded(
    input: Option<&ModelInput>,
    name: &str,
    value: &str,
    signature: &Signature,
    sizes: &[i64],
) -> Result<PaddedInput, String> {
    let what = format!("parameters[\"{PAD_BATCH}\"] has {name:?}");
    let input = input.ok_or_else(|| {
        let hint = if signature.outputs.iter().any(|output| output.name == name) {
            format!("an output is written {name}={CUT}")
        } else {
            "correct the name".to_owned()
        };
        format!("{what}, which is none of the inputs; {hint}")
    })?;
    if input.allow_ragged_batch {
        return Err(format!(
            "{what}, which has allow_ragged_batch, so nothing is padded; leave out one of them"
        ));
    }
    if input.reshape.is_some() {
        return Err(format!(
            "{what}, which has a reshape, so what is its length is not known; leave out the reshape or {PAD_BATCH}"
        ));
    }
    if datatype(input.data_type) == Some(DataType::Bytes) {
        return Err(format!(
            "{what}, which is TYPE_STRING, and strings are not padded; leave out {PAD_BATCH}"
        ));
    }
    let axis = only_open(&input.dims).ok_or_else(|| {
        format!(
            "{what}, whose dims {:?} must have exactly one -1, the length; leave it out of {PAD_BATCH}, or write an \
             'input' with such dims",
            input.dims
        )
    })?;
    let index = signature.inputs.iter().position(|tensor| tensor.name == name).unwrap_or_default();
    let tensor = find("input", name, &signature.inputs)?;
    match tensor.dims.get(axis) {
        Some(fixed) if *fixed != -1 && sizes != [*fixed] => {
            return Err(format!(
                "{what}, whose length the model fixes at {fixed}; set parameters[\"{PAD_TO_SIZES}\"] to \"{fixed}\""
            ));
        }
        _ => {}
    }
    let value = element(tensor.datatype, value).ok_or_else(|| {
        format!("{what} padded with {value:?}, which is no element of {}; correct it", tensor.datatype)
    })?;
    Ok(PaddedInput { index, name: name.into(), axis, value })
}

/// A size is allocated whatever a request has of it, for each item of a batch.
fn fits_in_memory(config: &ModelConfig, padded: &PaddedInput, largest: i64) -> Result<(), String> {
    let dims =
        config.input.iter().find(|input| padded.name == input.name).map_or(&[][..], |input| &input.dims);
    let row = dims.iter().map(|dim| if *dim == -1 { largest } else { *dim });
    let element = i64::try_from(padded.value.len()).ok();
    let bytes = row.chain([config.max_batch_size.into()]).fold(element, |bytes, dim| bytes?.checked_mul(dim));
    match bytes {
        Some(bytes) if bytes <= MOST_BYTES => Ok(()),
        _ => Err(format!(
            "parameters[\"{PAD_TO_SIZES}\"] has {largest}, at which input {:?} takes more than {} GiB in a batch of \
             {}; correct the size",
            padded.name,
            MOST_BYTES >> 30,
            config.max_batch_size
        )),
    }
}

/// The one dimension of `dims` that is open, the batch counted.
fn only_open(dims: &[i64]) -> Option<usize> {
    let mut open = open(dims);
    open.next().filter(|_| open.next().is_none())
}

/// The dimensions of `dims` that are open, the batch counted.
fn open(dims: &[i64]) -> impl Iterator<Item = usize> {
    dims.iter().enumerate().filter(|(_, dim)| **dim == -1).map(|(axis, _)| axis + 1)
}

/// The bytes of an element, as tensors hold it.
fn element(datatype: DataType, text: &str) -> Option<SmallVec<[u8; 8]>> {
    macro_rules! bytes {
        ($type:ty) => {
            text.parse::<$type>().ok().map(|value| SmallVec::from_slice(&value.to_le_bytes()))
        };
    }
    match datatype {
        DataType::Bool => match text {
            "0" | "false" => Some(SmallVec::from_slice(&[0])),
            "1" | "true" => Some(SmallVec::from_slice(&[1])),
            _ => None,
        },
        DataType::Uint8 => bytes!(u8),
        DataType::Uint16 => bytes!(u16),
        DataType::Uint32 => bytes!(u32),
        DataType::Uint64 => bytes!(u64),
        DataType::Int8 => bytes!(i8),
        DataType::Int16 => bytes!(i16),
        DataType::Int32 => bytes!(i32),
        DataType::Int64 => bytes!(i64),
        DataType::Fp16 => bytes!(half::f16),
        DataType::Bf16 => bytes!(half::bf16),
        DataType::Fp32 => bytes!(f32),
        DataType::Fp64 => bytes!(f64),
        DataType::Bytes => None,
    }
}

fn cut(config: &ModelConfig, name: &str, signature: &Signature) -> Result<CutOutput, String> {
    let what = format!("parameters[\"{PAD_BATCH}\"] has {name:?} to be cut");
    let Some(output) = config.output.iter().find(|output| output.name == name) else {
        return Err(format!("{what}, which is none of the outputs; an input is written {name}=VALUE"));
    };
    let axes: SmallVec<[usize; 2]> = open(&output.dims).collect();
    let reason = if axes.is_empty() {
        format!("whose dims {:?} have no -1, so there is nothing to cut; leave it out", output.dims)
    } else if output.reshape.is_some() {
        format!(
            "which has a reshape, so what is its length is not known; leave out the reshape or {PAD_BATCH}"
        )
    } else if ragged::scatters(config, name) {
        "which a batch_output cuts; leave out one of them".to_owned()
    } else if datatype(output.data_type) == Some(DataType::Bytes) {
        "whose elements are strings, which cannot be cut; leave out parameters[\"pad_batch\"]".to_owned()
    } else {
        let index = signature.outputs.iter().position(|tensor| tensor.name == name).unwrap_or_default();
        return Ok(CutOutput { index, axes });
    };
    Err(format!("{what}, {reason}"))
}

fn every_open_input_is_padded(
    config: &ModelConfig,
    padded: &[PaddedInput],
    signature: &Signature,
) -> Result<(), String> {
    let is_padded =
        |input: &&ModelInput| padded.iter().any(|padded| signature.inputs[padded.index].name == input.name);
    let open_ones =
        config.input.iter().filter(|input| open(&input.dims).next().is_some() && !input.allow_ragged_batch);
    if let Some(input) = open_ones.clone().find(|input| !is_padded(input)) {
        return Err(format!(
            "parameters[\"{PAD_BATCH}\"] has no value for input {:?}, whose dims {:?} are open, so requests of \
             different length could not run together; add \"{}=VALUE\"",
            input.name, input.dims, input.name
        ));
    }
    if config.input.iter().filter(is_padded).all(|input| input.optional) {
        return Err(format!(
            "parameters[\"{PAD_BATCH}\"] has only optional inputs, without which a request has no length; leave out \
             'optional' of one"
        ));
    }
    Ok(())
}

/// Such an output would be cut by the lengths that requests had, and the model has made it of others.
fn no_output_is_cut_by_a_padded_input(config: &ModelConfig, padded: &[PaddedInput]) -> Result<(), String> {
    let is_padded = |name: &String| padded.iter().any(|padded| padded.name == *name);
    let sources = config.batch_output.iter().flat_map(|written| &written.source_input);
    match sources.into_iter().find(|name| is_padded(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "batch_output has source_input {name:?}, which parameters[\"{PAD_BATCH}\"] pads; leave out one of them"
        )),
    }
}

fn every_open_output_is_cut(
    config: &ModelConfig,
    cut: &[CutOutput],
    signature: &Signature,
) -> Result<(), String> {
    let is_cut =
        |output: &ModelOutput| cut.iter().any(|cut| signature.outputs[cut.index].name == output.name);
    let open_ones = config
        .output
        .iter()
        .filter(|output| open(&output.dims).next().is_some() && !ragged::scatters(config, &output.name));
    match open_ones.into_iter().find(|output| !is_cut(output)) {
        None => Ok(()),
        Some(output) => Err(format!(
            "parameters[\"{PAD_BATCH}\"] does not say whether output {:?}, whose dims {:?} are open, is as long as the \
             inputs; add \"{}={CUT}\" if it is, and leave out {PAD_BATCH} if it is not",
            output.name, output.dims, output.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use model::Dims;

    use super::*;
    use crate::backend::TensorSignature;

    fn signature() -> Signature {
        let tensor = |name: &str, datatype, dims: &[i64]| TensorSignature {
            name: name.into(),
            datatype,
            dims: Dims::new(dims),
        };
        Signature {
            inputs: vec![
                tensor("ids", DataType::Int64, &[-1, -1]),
                tensor("mask", DataType::Fp16, &[-1, 2, -1]),
                tensor("static", DataType::Bool, &[-1, 8]),
            ],
            outputs: vec![
                tensor("hidden", DataType::Fp32, &[-1, -1, 4]),
                tensor("pooled", DataType::Fp32, &[-1, 4]),
                tensor("names", DataType::Bytes, &[-1, -1]),
            ],
        }
    }

    const WHOLE: &str = r#"max_batch_size: 8 dynamic_batching { }
        input { name: "ids" data_type: TYPE_INT64 dims: -1 }
        input { name: "mask" data_type: TYPE_FP16 dims: [ 2, -1 ] }
        output { name: "hidden" data_type: TYPE_FP32 dims: [ -1, 4 ] }
        output { name: "pooled" data_type: TYPE_FP32 dims: 4 }
        parameters { key: "pad_batch" value { string_value: "ids=-1, mask=0.5 ,hidden=cut" } }
        "#;

    fn run(text: &str) -> Result<Option<Padding>, String> {
        padding(&proto::config_text::parse(text, "config.pbtxt").unwrap(), &signature())
    }

    #[track_caller]
    fn refused(from: &str, to: &str, words: &str) {
        assert!(WHOLE.contains(from), "{from}");
        let error = run(&WHOLE.replace(from, to)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn what_is_written_is_resolved() {
        assert!(run("max_batch_size: 8").unwrap().is_none());
        let padding = run(WHOLE).unwrap().unwrap();
        let inputs: Vec<_> =
            padding.inputs.iter().map(|each| (each.index, each.axis, &each.value[..])).collect();
        assert_eq!(
            inputs,
            [(0, 1, &(-1_i64).to_le_bytes()[..]), (1, 2, &half::f16::from_f32(0.5).to_le_bytes())]
        );
        assert_eq!((padding.outputs[0].index, &padding.outputs[0].axes[..]), (0, &[1][..]));
        assert!(padding.sizes.is_empty());
        let sizes = r#"parameters { key: "pad_to_sizes" value { string_value: "4,8, 16" } }"#;
        assert_eq!(run(&format!("{WHOLE}{sizes}")).unwrap().unwrap().sizes, [4, 8, 16]);
    }

    #[test]
    fn a_model_of_one_length_takes_what_is_padded_to_it() {
        let text = |sizes: &str| {
            format!(
                r#"max_batch_size: 1 input {{ name: "static" data_type: TYPE_BOOL dims: -1 }}
                output {{ name: "pooled" data_type: TYPE_FP32 dims: 4 }}
                parameters {{ key: "pad_batch" value {{ string_value: "static=false" }} }}
                parameters {{ key: "pad_to_sizes" value {{ string_value: "{sizes}" }} }}"#
            )
        };
        assert_eq!(run(&text("8")).unwrap().unwrap().sizes, [8]);
        let error = run(&text("4, 8")).unwrap_err();
        assert!(error.contains(r#"the model fixes at 8; set parameters["pad_to_sizes"] to "8""#), "{error}");
    }

    #[test]
    fn every_open_tensor_must_be_spoken_of() {
        refused("ids=-1, ", "", r#"has no value for input "ids", whose dims [-1] are open"#);
        refused(
            "ids=-1, mask=0.5 ,hidden=cut",
            "ids=0, mask=0",
            r#"whether output "hidden", whose dims [-1, 4]"#,
        );
        refused("mask=0.5", "mask=cut", r#"has "mask" to be cut, which is none of the outputs"#);
        refused("hidden=cut", "hidden=0", r#"which is none of the inputs; an output is written hidden=cut"#);
        refused(
            "hidden=cut",
            "hidden=cut, other=0",
            r#"has "other", which is none of the inputs; correct the name"#,
        );
        refused("hidden=cut", "hidden=cut, pooled=cut", "have no -1, so there is nothing to cut");
    }

    #[test]
    fn a_value_is_an_element_of_its_input() {
        refused("ids=-1", "ids=0.5", r#"has "ids" padded with "0.5", which is no element of INT64"#);
        refused("ids=-1", "ids=9223372036854775808", "which is no element of INT64");
        for (datatype, text, bytes) in [
            (DataType::Bool, "true", Some(&[1][..])),
            (DataType::Bool, "2", None),
            (DataType::Uint8, "255", Some(&[255])),
            (DataType::Uint8, "256", None),
            (DataType::Int32, "-2", Some(&[254, 255, 255, 255])),
            (DataType::Fp32, "-inf", Some(&[0, 0, 128, 255])),
            (DataType::Bf16, "1", Some(&[128, 63])),
            (DataType::Bytes, "x", None),
        ] {
            assert_eq!(element(datatype, text).as_deref(), bytes, "{datatype} {text}");
        }
    }

    /// A request for such a model ended the process.
    #[test]
    fn a_size_that_no_memory_holds_is_refused() {
        let huge = r#"parameters { key: "pad_to_sizes" value { string_value: "4, 99999999999999" } }"#;
        let error = run(&format!("{WHOLE}{huge}")).unwrap_err();
        assert!(
            error.contains(r#"has 99999999999999, at which input "ids" takes more than 2 GiB"#),
            "{error}"
        );
        let most = r#"parameters { key: "pad_to_sizes" value { string_value: "33554432" } }"#;
        run(&format!("{WHOLE}{most}")).unwrap();
        run(&format!("{WHOLE}{}", most.replace("432", "433"))).unwrap_err();
    }

    #[test]
    fn contradictions_name_the_field_and_what_to_do() {
        refused("max_batch_size: 8", "", "max_batch_size is 0");
        refused(
            "max_batch_size: 8",
            "max_batch_size: 1",
            "max_batch_size is 1, with which requests never run together",
        );
        refused("dynamic_batching { }", "", "add dynamic_batching { }");
        refused(
            "dynamic_batching { }",
            "dynamic_batching { preferred_batch_size: 4 }",
            "preferred_batch_size",
        );
        refused("dims: [ 2, -1 ]", "dims: [ -1, -1 ]", "must have exactly one -1");
        refused(
            "dims: [ 2, -1 ]",
            "dims: [ 2, -1 ] reshape { shape: [ -1, 2 ] }",
            r#""mask", which has a reshape"#,
        );
        refused(
            "dims: [ 2, -1 ]",
            "dims: [ 2, -1 ] allow_ragged_batch: true",
            "which has allow_ragged_batch",
        );
        refused("dims: [ -1, 4 ]", "dims: [ -1, 4 ] reshape { shape: [ -1, 2, 2 ] }", "which has a reshape");
        refused("ids=-1", "ids=-1, ids=0", r#"has "ids" twice"#);
        for wrong in ["ids", "ids=", "=0", ""] {
            refused("ids=-1", wrong, "must be a list of INPUT=VALUE and OUTPUT=cut");
        }
        refused("ids=-1, mask=0.5 ,hidden=cut", "hidden=cut", "names no input");
        let source = r#"batch_output { target_name: "pooled" source_input: "ids" }"#;
        let error = run(&format!("{WHOLE}{source}")).unwrap_err();
        assert!(error.contains(r#"batch_output has source_input "ids", which"#), "{error}");
        let optional = WHOLE.replace("dims: -1 }", "dims: -1 optional: true }");
        run(&optional).unwrap();
        let error = run(&optional.replace("dims: [ 2, -1 ]", "dims: [ 2, -1 ] optional: true")).unwrap_err();
        assert!(error.contains("only optional inputs"), "{error}");
        let strings = r#"output { name: "names" data_type: TYPE_STRING dims: -1 }"#;
        let error =
            run(&format!("{strings}{}", WHOLE.replace("hidden=cut", "hidden=cut, names=cut"))).unwrap_err();
        assert!(error.contains("whose elements are strings"), "{error}");
        let cut = r#"batch_output { target_name: "hidden" source_input: "ids" }"#;
        assert!(run(&format!("{WHOLE}{cut}")).unwrap_err().contains("which a batch_output cuts"));
        for wrong in ["", "0", "8,4", "4,4", "a", "4,"] {
            let sizes =
                format!(r#"parameters {{ key: "pad_to_sizes" value {{ string_value: "{wrong}" }} }}"#);
            let error = run(&format!("{WHOLE}{sizes}")).unwrap_err();
            assert!(error.contains("must be lengths of 1 or more, ascending"), "{error}");
            let alone =
                run(&format!("max_batch_size: 8 {}", sizes.replace(&format!("\"{wrong}\""), "\"4\"")))
                    .unwrap_err();
            assert!(alone.contains("no input says what it is padded with"), "{alone}");
        }
    }
}
