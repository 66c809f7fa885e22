//! Holds what a configuration says of ragged batches (`allow_ragged_batch`, `batch_input`, `batch_output`) against
//! itself and the graph. What it means is in `ragged.rs` of this crate.

use proto::v2::batch_input::Kind;
use proto::v2::{BatchInput, BatchOutput, DataType as ConfigDataType, ModelConfig, ModelInput, batch_output};

use super::check::{find, once};
use super::{datatype, datatype_name, datatype_number};
use crate::backend::{Signature, TensorSignature};

/// The data types of batch inputs; INT64 is no data type of them in Triton.
const COUNTS: [ConfigDataType; 3] =
    [ConfigDataType::TypeInt32, ConfigDataType::TypeInt64, ConfigDataType::TypeFp32];

/// # Errors
/// The first contradiction, with the field, its value, and what to do.
pub(super) fn check(config: &ModelConfig, signature: &Signature) -> Result<(), String> {
    let ragged = || config.input.iter().filter(|input| input.allow_ragged_batch);
    if config.max_batch_size == 0 {
        let field = match ragged().next() {
            Some(input) => format!("input {:?} has allow_ragged_batch", input.name),
            None if !config.batch_input.is_empty() => "there is a batch_input".to_owned(),
            None if !config.batch_output.is_empty() => "there is a batch_output".to_owned(),
            None => return Ok(()),
        };
        return Err(format!(
            "{field}, but max_batch_size is 0, with which requests have no batch dimension and never run together; \
             set max_batch_size to 1 or more"
        ));
    }
    ragged().try_for_each(|input| flat(input, find("input", &input.name, &signature.inputs)?))?;
    config.batch_input.iter().try_for_each(|written| batch_input(written, config, signature))?;
    once("batch_input target_name", config.batch_input.iter().flat_map(|each| names(&each.target_name)))?;
    config.batch_output.iter().try_for_each(|written| batch_output(written, config))?;
    once("batch_output target_name", config.batch_output.iter().flat_map(|each| names(&each.target_name)))
}

/// Whether the server fills the graph's input `name`.
pub(super) fn fills(config: &ModelConfig, name: &str) -> bool {
    config.batch_input.iter().any(|written| written.target_name.iter().any(|target| target == name))
}

/// Whether the output `name` is cut by the shape of an input, so that the graph may give it in any shape.
pub(super) fn scatters(config: &ModelConfig, name: &str) -> bool {
    config.batch_output.iter().any(|written| written.target_name.iter().any(|target| target == name))
}

/// A ragged input comes to the graph as one line of elements.
fn flat(input: &ModelInput, tensor: &TensorSignature) -> Result<(), String> {
    let name = &input.name;
    if input.optional {
        return Err(format!(
            "input {name:?} has allow_ragged_batch and optional, which contradict each other; leave out one of them"
        ));
    }
    if *tensor.dims == [-1] {
        return Ok(());
    }
    Err(format!(
        "input {name:?} has allow_ragged_batch, with which the elements of all requests come in one dimension, so the \
         model's shape must be [-1], but is {}; leave out allow_ragged_batch, or export the model with a flat input",
        tensor.dims
    ))
}

fn batch_input(written: &BatchInput, config: &ModelConfig, signature: &Signature) -> Result<(), String> {
    let Some(first) = written.target_name.first() else {
        return Err("a batch_input has no target_name; name the model's input that it fills".to_owned());
    };
    let what = format!("batch_input {first:?}");
    let kind = Kind::try_from(written.kind)
        .map_err(|_| format!("{what} has kind {}, which is none", written.kind))?;
    let source = source(&what, &written.source_input, config)?;
    if source.optional {
        return Err(format!(
            "{what} has source_input {:?}, which is optional, so there may be nothing to tell of; leave out optional",
            source.name
        ));
    }
    if !COUNTS.iter().any(|datatype| *datatype as i32 == written.data_type) {
        let names = COUNTS.map(|datatype| datatype.as_str_name());
        return Err(format!(
            "{what} has data_type {}, but must be one of {}",
            datatype_name(written.data_type),
            names.join(", ")
        ));
    }
    for name in &written.target_name {
        let tensor = find("batch_input", name, &signature.inputs)?;
        if config.input.iter().any(|input| input.name == *name) {
            return Err(format!(
                "batch_input {name:?} is written as 'input' too, but clients do not send what the server fills; leave \
                 out one of them"
            ));
        }
        if datatype(written.data_type) != Some(tensor.datatype) {
            return Err(format!(
                "batch_input {name:?} is {}, but the model's is {}; correct data_type",
                datatype_name(written.data_type),
                datatype_name(datatype_number(tensor.datatype)),
            ));
        }
        takes(name, kind, rank(source), tensor)?;
    }
    Ok(())
}

/// Whether the graph takes what a batch input of `kind` is made as.
fn takes(name: &str, kind: Kind, source_rank: usize, tensor: &TensorSignature) -> Result<(), String> {
    let kind_name = kind.as_str_name();
    let shape = if kind == Kind::BatchItemShape { format!("[-1,{source_rank}]") } else { "[-1]".to_owned() };
    let fits = match (kind, &tensor.dims[..]) {
        (Kind::BatchItemShape, [-1, -1]) => true,
        (Kind::BatchItemShape, [-1, rank]) => usize::try_from(*rank) == Ok(source_rank),
        (Kind::BatchItemShape, _) => false,
        (_, dims) => dims == [-1],
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "batch_input {name:?} of kind {kind_name} has shape {shape}, but the model's is {}",
        tensor.dims
    ))
}

fn batch_output(written: &BatchOutput, config: &ModelConfig) -> Result<(), String> {
    let Some(first) = written.target_name.first() else {
        return Err("a batch_output has no target_name; name the output that it is about".to_owned());
    };
    let what = format!("batch_output {first:?}");
    if batch_output::Kind::try_from(written.kind).is_err() {
        return Err(format!("{what} has kind {}, which is none", written.kind));
    }
    let source = source(&what, &written.source_input, config)?;
    if source.optional {
        return Err(format!(
            "{what} has source_input {:?}, which is optional, so there may be no shape to cut by; leave out optional",
            source.name
        ));
    }
    for name in &written.target_name {
        let Some(output) = config.output.iter().find(|output| output.name == *name) else {
            let known: Vec<_> = config.output.iter().map(|output| format!("{:?}", output.name)).collect();
            return Err(format!(
                "batch_output {name:?} is none of the outputs, which are {}",
                known.join(", ")
            ));
        };
        let dims = output.reshape.as_ref().map_or(&output.dims, |reshape| &reshape.shape);
        if dims.iter().skip(rank(source)).any(|dim| *dim == -1) {
            return Err(format!(
                "batch_output {name:?} takes each dimension that is -1 from its source_input {:?}, which has fewer \
                 dimensions than the output; correct the dims of one of them",
                source.name
            ));
        }
    }
    Ok(())
}

/// Dimensions without the batch.
fn rank(input: &ModelInput) -> usize {
    input.reshape.as_ref().map_or(&input.dims, |reshape| &reshape.shape).len()
}

/// The only one of `sources`.
fn source<'a>(what: &str, sources: &[String], config: &'a ModelConfig) -> Result<&'a ModelInput, String> {
    let [name] = sources else {
        return Err(format!("{what} has {} source_input, but goes by one; name one", sources.len()));
    };
    config.input.iter().find(|input| input.name == *name).ok_or_else(|| {
        let known: Vec<_> = config.input.iter().map(|input| format!("{:?}", input.name)).collect();
        format!(
            "{what} has source_input {name:?}, which is none of the inputs, which are {}",
            known.join(", ")
        )
    })
}

fn names(names: &[String]) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use model::{DataType, Dims};

    use super::*;

    fn run(text: &str) -> Result<(), String> {
        let tensor = |name: &str, datatype, dims: &[i64]| TensorSignature {
            name: name.into(),
            datatype,
            dims: Dims::new(dims),
        };
        let signature = Signature {
            inputs: vec![
                tensor("x", DataType::Fp32, &[-1]),
                tensor("n", DataType::Int32, &[-1]),
                tensor("items", DataType::Int64, &[-1, 2]),
            ],
            outputs: vec![tensor("y", DataType::Fp32, &[-1]), tensor("z", DataType::Fp32, &[-1, 1])],
        };
        let config = proto::config_text::parse(text, "config.pbtxt").unwrap();
        super::super::check(&config, &signature)
    }

    const X: &str = r#"input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] allow_ragged_batch: true }"#;
    const N: &str = r#"batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_INT32 source_input: "x" }"#;
    const ITEMS: &str = r#"batch_input { kind: BATCH_ITEM_SHAPE target_name: "items" data_type: TYPE_INT64 source_input: "x" }"#;
    const Y: &str = r#"output { name: "y" data_type: TYPE_FP32 dims: [ -1, 2 ] }"#;
    const CUT: &str =
        r#"batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" }"#;

    /// The whole configuration with `from` replaced by `to`.
    #[track_caller]
    fn refused(from: &str, to: &str, words: &str) {
        let whole = format!("max_batch_size: 8 {X} {N} {ITEMS} {Y} {CUT}");
        run(&whole).unwrap();
        assert!(whole.contains(from), "{from}");
        let error = run(&whole.replace(from, to)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn without_a_batch_dimension_nothing_is_ragged() {
        refused("max_batch_size: 8", "", r#"input "x" has allow_ragged_batch, but max_batch_size is 0"#);
        let flat = r#"input { name: "x" data_type: TYPE_FP32 dims: -1 }"#;
        let other = r#"input { name: "items" data_type: TYPE_INT64 dims: [ -1, 2 ] }"#;
        let all = format!(r#"{other} input {{ name: "n" data_type: TYPE_INT32 dims: -1 }}"#);
        let y = Y.replace("[ -1, 2 ]", "-1");
        let error = run(&format!("{flat} {N} {other} {y}")).unwrap_err();
        assert!(error.contains("there is a batch_input, but max_batch_size is 0"), "{error}");
        let error = run(&format!("{flat} {all} {y} {CUT}")).unwrap_err();
        assert!(error.contains("there is a batch_output, but max_batch_size is 0"), "{error}");
        run(&format!("{flat} {all} {y}")).unwrap();
    }

    #[test]
    fn a_ragged_input_is_flat_in_the_graph_and_always_there() {
        refused(
            "allow_ragged_batch: true",
            "allow_ragged_batch: true optional: true",
            "contradict each other",
        );
        refused("allow_ragged_batch: true", "", r#"input "x" has shape [-1,-1,2], but the model's is [-1]"#);
        let items = r#"input { name: "items" data_type: TYPE_INT64 dims: 2 allow_ragged_batch: true }"#;
        refused(ITEMS, items, "so the model's shape must be [-1], but is [-1,2]");
    }

    #[test]
    fn a_batch_input_fills_an_input_of_the_graph_from_an_input_of_the_request() {
        refused(r#"target_name: "n""#, "", "a batch_input has no target_name");
        refused(r#"target_name: "n""#, r#"target_name: "w""#, r#"batch_input "w" is not in the model"#);
        refused(r#"target_name: "n""#, r#"target_name: [ "n", "n" ]"#, r#"target_name "n" is written twice"#);
        refused(r#"target_name: "n""#, r#"target_name: "x""#, r#"batch_input "x" is written as 'input' too"#);
        refused(ITEMS, "", r#"the model's input "items" (INT64 [-1,2]) is not written"#);
        let to = |to: &str| N.replace(r#"source_input: "x""#, to);
        refused(N, &to(""), r#"batch_input "n" has 0 source_input"#);
        refused(N, &to(r#"source_input: [ "x", "x" ]"#), r#"batch_input "n" has 2 source_input"#);
        refused(
            N,
            &to(r#"source_input: "w""#),
            r#"source_input "w", which is none of the inputs, which are "x""#,
        );
    }

    #[test]
    fn nothing_goes_by_an_input_that_may_not_be_there() {
        let optional = r#"input { name: "x" data_type: TYPE_FP32 dims: 1 reshape { } optional: true }"#;
        refused(X, optional, r#"batch_input "n" has source_input "x", which is optional"#);
        let error = run(&format!("max_batch_size: 8 {optional} {Y} {CUT}")).unwrap_err();
        assert!(error.contains(r#"batch_output "y" has source_input "x", which is optional"#), "{error}");
    }

    #[test]
    fn a_batch_input_is_made_as_the_graph_takes_it() {
        let n = |to: &str| N.replace("data_type: TYPE_INT32", to);
        refused(
            N,
            &n("data_type: TYPE_INT8"),
            "data_type TYPE_INT8, but must be one of TYPE_INT32, TYPE_INT64,",
        );
        refused(N, &n(""), "has data_type TYPE_INVALID");
        refused(N, &n("data_type: TYPE_FP32"), r#""n" is TYPE_FP32, but the model's is TYPE_INT32"#);
        refused(
            "BATCH_ITEM_SHAPE ",
            "BATCH_ITEM_SHAPE_FLATTEN ",
            "BATCH_ITEM_SHAPE_FLATTEN has shape [-1], but the model's is [-1,2]",
        );
        refused(
            "TYPE_FP32 dims: [ -1, 2 ] allow",
            "TYPE_FP32 dims: [ -1, 2, 1 ] allow",
            "BATCH_ITEM_SHAPE has shape [-1,3], but the model's is [-1,2]",
        );
        refused(
            "BATCH_ELEMENT_COUNT",
            "BATCH_ITEM_SHAPE",
            r#"BATCH_ITEM_SHAPE has shape [-1,2], but the model's is [-1]"#,
        );
    }

    #[test]
    fn a_batch_output_is_an_output_cut_by_an_input_of_the_request() {
        let cut = |from: &str, to: &str| CUT.replace(from, to);
        refused(CUT, "", r#"output "y" has shape [-1,-1,2], but the model's is [-1]"#);
        refused(CUT, &cut(r#"target_name: "y""#, ""), "a batch_output has no target_name");
        refused(CUT, &cut(r#""y""#, r#""z""#), r#"batch_output "z" is none of the outputs, which are "y""#);
        refused(
            CUT,
            &format!("{CUT} {}", cut(r#""y""#, r#""w""#)),
            r#""w" is none of the outputs, which are "y""#,
        );
        refused(CUT, &format!("{CUT} {CUT}"), r#"batch_output target_name "y" is written twice"#);
        refused(CUT, &cut(r#""x""#, r#""w""#), r#"batch_output "y" has source_input "w""#);
        refused(CUT, &cut(r#"source_input: "x""#, ""), r#"batch_output "y" has 0 source_input"#);
        refused(Y, &Y.replace("[ -1, 2 ]", "[ -1, 2, -1 ]"), "which has fewer dimensions than the output");
    }
}
