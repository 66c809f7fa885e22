//! Holds a completed configuration against the graph it is about.
//!
//! A configuration may be narrower than the graph (a size where the graph leaves a dimension open), and it may
//! be wider (-1 where the graph has a size), as configurations made for Triton are: then a request is held
//! against the graph's size too (`request_check.rs`). Only the batch dimension must be open in the graph. Ragged
//! tensors have other shapes there than for clients: `ragged.rs`.

use model::Dims;
use proto::v2::{DataType as ConfigDataType, ModelConfig};

use super::{datatype, datatype_name, datatype_number, ragged};
use crate::backend::{Signature, TensorSignature};

/// # Errors
/// The first contradiction between `config` and `signature`, with the field, both values, and what to do.
pub fn check(config: &ModelConfig, signature: &Signature) -> Result<(), String> {
    ragged::check(config, signature)?;
    for input in &config.input {
        let tensor = find("input", &input.name, &signature.inputs)?;
        let written = Written {
            role: "input",
            name: &input.name,
            data_type: input.data_type,
            dims: &input.dims,
            reshape: input.reshape.as_ref().map(|reshape| reshape.shape.as_slice()),
        };
        written.check(tensor)?;
        if !input.allow_ragged_batch {
            written.fits(tensor, config.max_batch_size)?;
        }
    }
    for output in &config.output {
        let tensor = find("output", &output.name, &signature.outputs)?;
        let written = Written {
            role: "output",
            name: &output.name,
            data_type: output.data_type,
            dims: &output.dims,
            reshape: output.reshape.as_ref().map(|reshape| reshape.shape.as_slice()),
        };
        written.check(tensor)?;
        if !ragged::scatters(config, &output.name) {
            written.fits(tensor, config.max_batch_size)?;
        }
    }
    once("input", config.input.iter().map(|input| input.name.as_str()))?;
    once("output", config.output.iter().map(|output| output.name.as_str()))?;
    every_input_is_written(config, signature)?;
    if config.output.is_empty() {
        return Err(
            "no output is written; add at least one 'output', or leave out both 'input' and 'output'".into(),
        );
    }
    Ok(())
}

/// One input or output as the configuration has it.
struct Written<'a> {
    role: &'a str,
    name: &'a str,
    data_type: i32,
    dims: &'a [i64],
    reshape: Option<&'a [i64]>,
}

impl Written<'_> {
    /// All but the shape.
    fn check(&self, tensor: &TensorSignature) -> Result<(), String> {
        let Written { role, name, .. } = self;
        if self.data_type == ConfigDataType::TypeInvalid as i32 {
            return Err(format!(
                "{role} {name:?} has no data_type; the model's is {}",
                datatype_name(datatype_number(tensor.datatype)),
            ));
        }
        if datatype(self.data_type) != Some(tensor.datatype) {
            return Err(format!(
                "{role} {name:?} is {}, but the model's is {}; correct data_type",
                datatype_name(self.data_type),
                datatype_name(datatype_number(tensor.datatype)),
            ));
        }
        if self.dims.is_empty() {
            return Err(format!("{role} {name:?} has no dims; the model's shape is {}", tensor.dims));
        }
        if let Some(dim) =
            self.dims.iter().chain(self.reshape.unwrap_or_default()).find(|dim| **dim < -1 || **dim == 0)
        {
            return Err(format!(
                "{role} {name:?} has dimension {dim}; a dimension is positive, or -1 for any size"
            ));
        }
        self.reshape_keeps_elements()
    }

    /// The shape.
    fn fits(&self, tensor: &TensorSignature, max_batch_size: i32) -> Result<(), String> {
        let Written { role, name, .. } = self;
        let batched = max_batch_size > 0;
        let shape: Dims = self.reshape.unwrap_or(self.dims).iter().copied().collect();
        let full = if batched { shape.with_outer(-1) } else { shape };
        let fits = |(written, graph): (&i64, &i64)| *graph == -1 || *written == -1 || written == graph;
        let batch_is_open = !batched || tensor.dims.first() == Some(&-1);
        if batch_is_open && full.len() == tensor.dims.len() && full.iter().zip(tensor.dims.iter()).all(fits) {
            return Ok(());
        }
        let why = if batched && tensor.dims.first() != Some(&-1) {
            format!(
                "; max_batch_size is {max_batch_size}, but the model's first dimension is not open, so set \
                 max_batch_size to 0"
            )
        } else if batched {
            format!(
                "; with max_batch_size {max_batch_size} the first dimension (-1) is the batch and is not written in dims"
            )
        } else {
            "; with max_batch_size 0 dims holds every dimension".to_owned()
        };
        Err(format!("{role} {name:?} has shape {full}, but the model's is {}{why}", tensor.dims))
    }

    fn reshape_keeps_elements(&self) -> Result<(), String> {
        let Some(reshape) = self.reshape else { return Ok(()) };
        let open = |dims: &[i64]| dims.iter().filter(|dim| **dim == -1).count();
        let fixed = |dims: &[i64]| {
            dims.iter().filter(|dim| **dim != -1).try_fold(1_i64, |product, dim| product.checked_mul(*dim))
        };
        if open(reshape) == open(self.dims) && fixed(reshape) == fixed(self.dims) {
            return Ok(());
        }
        let (dims, reshape) = (Dims::new(self.dims), Dims::new(reshape));
        Err(format!(
            "{} {:?} has dims {dims}, but reshape {reshape} has other elements",
            self.role, self.name
        ))
    }
}

pub(super) fn find<'a>(
    role: &str,
    name: &str,
    tensors: &'a [TensorSignature],
) -> Result<&'a TensorSignature, String> {
    tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| {
        let names: Vec<_> = tensors.iter().map(|tensor| format!("{:?}", tensor.name)).collect();
        format!("{role} {name:?} is not in the model; its {role}s are {}", names.join(", "))
    })
}

pub(super) fn once<'a>(role: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = Vec::new();
    for name in names {
        if seen.contains(&name) {
            return Err(format!("{role} {name:?} is written twice"));
        }
        seen.push(name);
    }
    Ok(())
}

fn every_input_is_written(config: &ModelConfig, signature: &Signature) -> Result<(), String> {
    let missing = |tensor: &&TensorSignature| {
        !config.input.iter().any(|input| tensor.name == input.name) && !ragged::fills(config, &tensor.name)
    };
    match signature.inputs.iter().find(missing) {
        None => Ok(()),
        Some(tensor) => Err(format!(
            "the model's input {:?} ({} {}) is not written; add it, or leave out 'input' to take all from the model",
            tensor.name, tensor.datatype, tensor.dims
        )),
    }
}

#[cfg(test)]
mod tests {
    use model::DataType;

    use super::*;

    fn signature() -> Signature {
        let tensor = |name: &str, datatype, dims: &[i64]| TensorSignature {
            name: name.into(),
            datatype,
            dims: Dims::new(dims),
        };
        Signature {
            inputs: vec![tensor("x", DataType::Fp32, &[-1, 3, -1]), tensor("n", DataType::Int64, &[-1])],
            outputs: vec![tensor("y", DataType::Bytes, &[-1, 10]), tensor("z", DataType::Bf16, &[-1, 1])],
        }
    }

    const N: &str = r#"input { name: "n" data_type: TYPE_INT64 dims: 1 reshape { } }"#;
    const X: &str = r#"input { name: "x" data_type: TYPE_FP32 dims: [3, -1] }"#;
    const Y: &str = r#"output { name: "y" data_type: TYPE_STRING dims: 10 }"#;

    fn run(text: &str) -> Result<(), String> {
        check(&proto::config_text::parse(text, "config.pbtxt").unwrap(), &signature())
    }

    #[track_caller]
    fn refused(text: &str, words: &str) {
        let error = run(text).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_configuration_that_agrees_passes() {
        run(&format!("max_batch_size: 8 {N} {X} {Y}")).unwrap();
        let narrower = X.replace("[3, -1]", "[3, 224]");
        run(&format!("max_batch_size: 8 {N} {narrower} {Y}")).unwrap();
        let whole = r#"input { name: "n" data_type: TYPE_INT64 dims: -1 }
            input { name: "x" data_type: TYPE_FP32 dims: [2, 3, 4] } output { name: "y" data_type: TYPE_STRING dims: [-1, 10] }"#;
        run(whole).unwrap();
    }

    /// Triton loads these; a request is held against the graph's own size.
    #[test]
    fn a_dimension_that_the_graph_fixes_may_be_left_open() {
        let open = X.replace("[3, -1]", "[-1, -1]");
        run(&format!("max_batch_size: 8 {N} {open} {}", Y.replace("10", "-1"))).unwrap();
        let fixed = TensorSignature { dims: Dims::new(&[4, 3]), ..signature().inputs[0].clone() };
        let signature = Signature { inputs: vec![fixed], ..signature() };
        let batched = r#"max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 3 }"#;
        let config = proto::config_text::parse(&format!("{batched} {Y}"), "config.pbtxt").unwrap();
        let error = check(&config, &signature).unwrap_err();
        assert!(error.contains("the model's first dimension is not open"), "{error}");
    }

    #[test]
    fn contradictions_name_the_tensor_and_both_values() {
        let batched = |tensors: &str| format!("max_batch_size: 8 {tensors}");
        refused(
            &batched(&format!("{N} {X} {}", Y.replace("STRING", "FP32"))),
            r#"output "y" is TYPE_FP32, but the model's is TYPE_STRING"#,
        );
        refused(
            &batched(&format!("{N} {} {Y}", X.replace("[3, -1]", "[4, -1]"))),
            r#"input "x" has shape [-1,4,-1], but the model's is [-1,3,-1]"#,
        );
        refused(
            &batched(&format!("{N} {} {Y}", X.replace("[3, -1]", "[-1, 3, -1]"))),
            "the first dimension (-1) is the batch",
        );
        refused(
            &batched(&format!("{N} {} {Y}", X.replace('x', "w"))),
            r#"input "w" is not in the model; its inputs are "x", "n""#,
        );
        refused(&batched(&format!("{N} {Y}")), r#"the model's input "x" (FP32 [-1,3,-1]) is not written"#);
        refused(
            &batched(&format!("{N} {} {Y}", X.replace("data_type: TYPE_FP32", ""))),
            r#"input "x" has no data_type; the model's is TYPE_FP32"#,
        );
        refused(&batched(&format!("{N} {X}")), "no output is written");
        refused(&batched(&format!("{N} {X} {X} {Y}")), r#"input "x" is written twice"#);
        refused(&batched(&format!("{N} {} {Y}", X.replace("[3, -1]", "[3, 0]"))), "dimension 0");
        refused(&batched(&format!("{N} {} {Y}", X.replace("dims: [3, -1]", ""))), "has no dims");
        let reshape = X.replace("dims: [3, -1]", "dims: [2, -1] reshape { shape: [3, -1] }");
        refused(&batched(&format!("{N} {reshape} {Y}")), "dims [2,-1], but reshape [3,-1]");
        refused(&format!("{N} {X} {Y}"), "with max_batch_size 0 dims holds every dimension");
    }
}
