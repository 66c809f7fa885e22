//! Holds a request against the model's configuration before it may wait for an instance.
//!
//! Texts begin as Triton's do, since clients match on them.

use std::collections::BTreeMap;
use std::fmt::Display;

use model::{DataType, Dims, InferError, InferRequest, ModelName, RequestedOutput, Tensor, element_count};
use proto::ModelConfig;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::backend::{InstanceInput, InstanceOutput, Signature};
use crate::batch::Inputs;
use crate::batcher::ShapeKey;
use crate::classification::Labels;
use crate::config::datatype;
use crate::padding::Padding;
use crate::version::TensorMetadata;

/// What requests for one version must look like.
#[derive(Debug)]
pub(crate) struct RequestCheck {
    model: ModelName,
    /// 0 when requests carry no batch dimension.
    max_batch_size: i64,
    inputs: Vec<InputSpec>,
    outputs: Vec<OutputSpec>,
    /// Requests may differ in what keeps them from running together: shapes, or the inputs they have.
    vary: bool,
    /// How requests of different length run together, if they may.
    padding: Option<Padding>,
}

#[derive(Debug)]
struct InputSpec {
    name: SmolStr,
    /// Index in the graph's signature.
    index: usize,
    datatype: DataType,
    /// Without the batch dimension; -1 is any size.
    dims: Dims,
    /// The shape the graph wants instead of `dims`.
    reshape: Option<Dims>,
    /// The whole shape in the graph, where it fixes what the configuration leaves open.
    fixed: Option<Dims>,
    optional: bool,
    /// Requests of different shapes run together: as they are, or padded.
    ragged: bool,
    padded: bool,
}

/// An output as the configuration promises it.
#[derive(Debug)]
pub(crate) struct OutputSpec {
    name: SmolStr,
    /// Index in the graph's signature.
    pub(crate) index: usize,
    datatype: DataType,
    dims: Dims,
    /// The shape the graph gives instead of `dims`.
    reshape: Option<Dims>,
    pub(crate) labels: Option<Labels>,
}

/// A request that fits the model.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    pub(crate) inputs: Inputs,
    pub(crate) outputs: SmallVec<[CheckedOutput<'a>; 2]>,
    pub(crate) rows: u64,
    /// What it shares with requests that it may run together with.
    pub(crate) shape: ShapeKey,
    /// Elements of each row in the inputs whose shape is open; 1 where none is.
    pub(crate) size: u64,
}

#[derive(Debug)]
pub(crate) struct CheckedOutput<'a> {
    pub(crate) spec: &'a OutputSpec,
    pub(crate) classification: Option<u32>,
}

impl RequestCheck {
    /// `config` has been completed from and checked against `signature`.
    pub(crate) fn new(
        model: &ModelName,
        config: &ModelConfig,
        signature: &Signature,
        mut labels: BTreeMap<String, Labels>,
        padding: Option<Padding>,
    ) -> RequestCheck {
        let is_padded = |index| {
            padding.as_ref().is_some_and(|padding| padding.inputs.iter().any(|padded| padded.index == index))
        };
        let input = |input: &proto::v2::ModelInput| {
            let index = signature.inputs.iter().position(|tensor| tensor.name == input.name)?;
            let (dims, graph) = (Dims::new(&input.dims), &signature.inputs[index].dims);
            let reshape = input.reshape.as_ref().map(|reshape| Dims::new(&reshape.shape));
            // From the end, since the graph's shape has the batch dimension in front.
            let mut sizes = reshape.as_ref().unwrap_or(&dims).iter().rev().zip(graph.iter().rev());
            let wider = sizes.any(|(written, graph)| *written == -1 && *graph != -1);
            Some(InputSpec {
                name: input.name.as_str().into(),
                index,
                datatype: datatype(input.data_type)?,
                dims,
                reshape,
                // What is padded comes to the graph in its own size.
                fixed: (wider && !is_padded(index)).then(|| graph.clone()),
                padded: is_padded(index),
                optional: input.optional,
                ragged: input.allow_ragged_batch,
            })
        };
        let output = |output: &proto::v2::ModelOutput| {
            Some(OutputSpec {
                name: output.name.as_str().into(),
                index: signature.outputs.iter().position(|tensor| tensor.name == output.name)?,
                datatype: datatype(output.data_type)?,
                dims: Dims::new(&output.dims),
                reshape: output.reshape.as_ref().map(|reshape| Dims::new(&reshape.shape)),
                labels: labels.remove(&output.name),
            })
        };
        let inputs: Vec<InputSpec> = config.input.iter().filter_map(input).collect();
        RequestCheck {
            model: model.clone(),
            max_batch_size: i64::from(config.max_batch_size),
            vary: inputs.iter().any(|input| input.optional || input.varies()),
            inputs,
            outputs: config.output.iter().filter_map(output).collect(),
            padding,
        }
    }

    /// How requests of different length run together, if they may.
    pub(crate) fn padding(&self) -> Option<&Padding> {
        self.padding.as_ref()
    }

    /// Whether all requests have the same shapes and ask for the same output.
    pub(crate) fn requests_are_alike(&self) -> bool {
        let differs = |input: &InputSpec| {
            input.optional || input.varies() || input.datatype == DataType::Bytes // of any length
        };
        !self.inputs.iter().any(differs) && self.outputs.len() == 1
    }

    /// # Errors
    /// When an input is missing, unknown, given twice, or of another type or shape than the model's; when
    /// the batch is too large; when an output is unknown or asked for twice.
    pub(crate) fn check(&self, request: &InferRequest) -> Result<Checked<'_>, InferError> {
        self.fit(request).map_err(|reason| {
            let id = if request.id.is_empty() { "<id_unknown>" } else { request.id.as_str() };
            InferError::invalid(format!("[request id: {id:.128}] {reason}"))
        })
    }

    /// As [`RequestCheck::check`], but for the request of a sample, which no client has sent: the error is the reason
    /// alone.
    pub(crate) fn fit(&self, request: &InferRequest) -> Result<Checked<'_>, String> {
        let (inputs, rows) = self.inputs(request)?;
        self.padding.iter().try_for_each(|padding| padding.check(&inputs))?;
        let (shape, size) = (self.shape(&inputs), self.size(&inputs));
        Ok(Checked { outputs: self.outputs(request)?, inputs, rows, shape, size })
    }

    /// Whether what the model made of the output at `index` of the signature is what the configuration
    /// promises.
    ///
    /// # Errors
    /// When a declared reshape has other elements.
    pub(crate) fn output_fits(&self, index: usize, raw: &InstanceOutput) -> Result<(), String> {
        let spec = self.outputs.iter().find(|spec| spec.index == index && spec.reshape.is_some());
        let Some(spec) = spec else { return Ok(()) };
        let promised = spec.shape(&raw.shape, self.max_batch_size > 0);
        let count = |shape: &Dims| element_count(shape).ok();
        if count(&promised) == count(&raw.shape) {
            return Ok(());
        }
        Err(format!(
            "output '{}' came in shape {}, whose elements the configured shape {promised} cannot hold; correct \
             its dims or reshape in config.pbtxt",
            spec.name, raw.shape
        ))
    }

    pub(crate) fn input_metadata(&self) -> Vec<TensorMetadata> {
        let metadata = |input: &InputSpec| self.metadata(&input.name, input.datatype, &input.dims);
        self.inputs.iter().map(metadata).collect()
    }

    pub(crate) fn output_metadata(&self) -> Vec<TensorMetadata> {
        let metadata = |output: &OutputSpec| self.metadata(&output.name, output.datatype, &output.dims);
        self.outputs.iter().map(metadata).collect()
    }

    fn metadata(&self, name: &SmolStr, datatype: DataType, dims: &Dims) -> TensorMetadata {
        TensorMetadata { name: name.clone(), datatype, shape: self.full_shape(dims) }
    }

    /// `dims` with the batch dimension in front when requests carry one.
    fn full_shape(&self, dims: &Dims) -> Dims {
        if self.max_batch_size > 0 { dims.with_outer(-1) } else { dims.clone() }
    }

    /// For each input in the model's order: the sizes that it leaves open, unless it is ragged, and whether an
    /// optional one is there.
    fn shape(&self, inputs: &Inputs) -> ShapeKey {
        let mut key = ShapeKey::new();
        if !self.vary {
            return key;
        }
        for spec in self.inputs.iter().filter(|spec| spec.optional || spec.varies()) {
            match inputs.iter().find(|input| input.index == spec.index) {
                None => key.push(-1),
                Some(_) if spec.padded => key.push(1),
                Some(input) if spec.varies() => {
                    key.extend_from_slice(input.tensor.shape.get(1..).unwrap_or(&[]))
                }
                Some(_) => key.push(1),
            }
        }
        key
    }

    fn size(&self, inputs: &Inputs) -> u64 {
        if let Some(padding) = &self.padding {
            return padding.size(inputs);
        }
        if !self.vary {
            return 1;
        }
        let batch_dims = usize::from(self.max_batch_size > 0);
        let open = self.inputs.iter().filter(|spec| spec.varies());
        let given = open.filter_map(|spec| inputs.iter().find(|input| input.index == spec.index));
        let sizes = given.map(|input| {
            let row = input.tensor.shape.iter().skip(batch_dims);
            row.fold(1_u64, |size, dim| size.saturating_mul(dim.unsigned_abs()))
        });
        sizes.fold(0_u64, u64::saturating_add).max(1)
    }

    fn inputs(&self, request: &InferRequest) -> Result<(Inputs, u64), String> {
        let model = &self.model;
        self.all_given(request)?;
        let mut inputs = Inputs::with_capacity(request.inputs.len());
        let mut rows = None;
        for tensor in &request.inputs {
            let spec = self.inputs.iter().find(|spec| spec.name == tensor.name).ok_or_else(|| {
                let known = list(self.inputs.iter().map(|spec| &spec.name));
                format!(
                    "unexpected inference input '{}' for model '{model}'; its inputs are {known}",
                    tensor.name
                )
            })?;
            if inputs.iter().any(|input: &InstanceInput| input.index == spec.index) {
                return Err(format!("input '{}' is given twice for model '{model}'", tensor.name));
            }
            let input_rows = self.fits(spec, tensor)?;
            if *rows.get_or_insert(input_rows) != input_rows {
                return Err(format!(
                    "input '{}' batch size does not match other inputs for '{model}': {input_rows}, but {} before",
                    tensor.name,
                    rows.unwrap_or_default()
                ));
            }
            let tensor = spec.for_graph(tensor, self.max_batch_size > 0);
            self.fits_the_graph(spec, &tensor)?;
            inputs.push(InstanceInput { index: spec.index, tensor });
        }
        Ok((inputs, rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(1)))
    }

    fn all_given(&self, request: &InferRequest) -> Result<(), String> {
        let given = |spec: &InputSpec| request.inputs.iter().any(|tensor| tensor.name == spec.name);
        if self.inputs.iter().all(|spec| spec.optional || given(spec)) {
            return Ok(());
        }
        let required = self.inputs.iter().filter(|spec| !spec.optional);
        Err(format!(
            "expected {} inputs but got {} inputs for model '{}'. Got input(s) [{}], but missing required \
             input(s) [{}]. Please provide all required input(s).",
            self.inputs.len(),
            request.inputs.len(),
            self.model,
            list(request.inputs.iter().map(|tensor| &tensor.name)),
            list(required.filter(|spec| !given(spec)).map(|spec| &spec.name)),
        ))
    }

    /// Checks type and shape; returns the batch size, 1 when the model takes no batches.
    fn fits(&self, spec: &InputSpec, tensor: &Tensor) -> Result<i64, String> {
        let (model, name) = (&self.model, &tensor.name);
        if tensor.datatype != spec.datatype {
            return Err(format!(
                "inference input '{name}' data-type is '{}', but model '{model}' expects '{}'",
                tensor.datatype, spec.datatype
            ));
        }
        let (rows, dims) = match tensor.shape.split_first() {
            Some((rows, dims)) if self.max_batch_size > 0 => (Some(*rows), dims),
            _ => (None, &*tensor.shape),
        };
        let same = |(wanted, given): (&i64, &i64)| *wanted == -1 || wanted == given;
        let batch_dim_missing = self.max_batch_size > 0 && rows.is_none();
        if batch_dim_missing || dims.len() != spec.dims.len() || !spec.dims.iter().zip(dims).all(same) {
            return Err(format!(
                "unexpected shape for input '{name}' for model '{model}'. Expected {}, got {}. {}",
                self.full_shape(&spec.dims),
                tensor.shape,
                if self.max_batch_size > 0 { "NOTE: the first dimension is the batch size" } else { "" },
            )
            .trim_end()
            .to_owned());
        }
        match rows {
            Some(rows) if rows > self.max_batch_size => Err(format!(
                "inference request batch-size must be <= {} for '{model}', got {rows}",
                self.max_batch_size
            )),
            Some(rows) if rows < 1 => Err(format!(
                "inference request batch-size must be >= 1 for '{model}', but input '{name}' has {rows}"
            )),
            rows => Ok(rows.unwrap_or(1)),
        }
    }

    /// Checks the sizes that the graph fixes and the configuration leaves open.
    fn fits_the_graph(&self, spec: &InputSpec, tensor: &Tensor) -> Result<(), String> {
        let Some(fixed) = &spec.fixed else { return Ok(()) };
        let same = |(fixed, given): (&i64, &i64)| *fixed == -1 || fixed == given;
        if fixed.iter().zip(tensor.shape.iter()).all(same) {
            return Ok(());
        }
        let reshaped = if spec.reshape.is_some() { " (after its reshape)" } else { "" };
        Err(format!(
            "unexpected shape for input '{}' for model '{}'. Expected {fixed}, got {}{reshaped}. NOTE: the \
             configuration leaves open what the model itself fixes",
            spec.name, self.model, tensor.shape,
        ))
    }

    fn outputs(&self, request: &InferRequest) -> Result<SmallVec<[CheckedOutput<'_>; 2]>, String> {
        if request.outputs.is_empty() {
            return Ok(self
                .outputs
                .iter()
                .map(|spec| CheckedOutput { spec, classification: None })
                .collect());
        }
        let mut outputs: SmallVec<[CheckedOutput<'_>; 2]> = SmallVec::with_capacity(request.outputs.len());
        for RequestedOutput { name, classification } in &request.outputs {
            let spec = self.outputs.iter().find(|spec| spec.name == *name).ok_or_else(|| {
                let known = list(self.outputs.iter().map(|spec| &spec.name));
                format!(
                    "unexpected inference output '{name}' for model '{}'; its outputs are {known}",
                    self.model
                )
            })?;
            if outputs.iter().any(|output| output.spec.index == spec.index) {
                return Err(format!("output '{name}' is requested twice of model '{}'", self.model));
            }
            if classification.is_some() && spec.datatype == DataType::Bytes {
                return Err(format!(
                    "output '{name}' is BYTES, which has no order to classify by; request it without 'classification'"
                ));
            }
            outputs.push(CheckedOutput { spec, classification: *classification });
        }
        Ok(outputs)
    }
}

impl InputSpec {
    /// Whether requests that differ in its shape cannot run together.
    fn varies(&self) -> bool {
        !self.ragged && self.reshape.as_ref().unwrap_or(&self.dims).contains(&-1)
    }

    /// The same bytes in the shape the graph wants.
    fn for_graph(&self, tensor: &Tensor, batched: bool) -> Tensor {
        let mut tensor = tensor.clone();
        if let Some(reshape) = &self.reshape {
            tensor.shape = reshaped(&tensor.shape, &self.dims, reshape, batched);
        }
        tensor
    }
}

impl OutputSpec {
    /// `raw` as the output the configuration promises.
    pub(crate) fn tensor(&self, raw: InstanceOutput, batched: bool) -> Tensor {
        let shape = self.shape(&raw.shape, batched);
        Tensor { name: self.name.clone(), datatype: self.datatype, shape, data: raw.data }
    }

    /// What the configuration calls the shape that the model gave.
    fn shape(&self, raw: &Dims, batched: bool) -> Dims {
        match &self.reshape {
            Some(reshape) => reshaped(raw, reshape, &self.dims, batched),
            None => raw.clone(),
        }
    }
}

/// `shape`, which follows the pattern `from`, in the pattern `to`: the open dimensions (-1) keep their
/// order, as does the batch dimension. A shape that does not follow `from` is left as it is.
fn reshaped(shape: &Dims, from: &Dims, to: &Dims, batched: bool) -> Dims {
    let (batch, inner) = shape.split_at(usize::from(batched).min(shape.len()));
    if inner.len() != from.len() {
        return shape.clone();
    }
    let mut open = inner.iter().zip(from.iter()).filter(|(_, pattern)| **pattern == -1).map(|(dim, _)| *dim);
    let filled = to.iter().map(|dim| if *dim == -1 { open.next().unwrap_or(1) } else { *dim });
    batch.iter().copied().chain(filled).collect()
}

fn list<T: Display>(names: impl Iterator<Item = T>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::backend::TensorSignature;

    fn signature(inputs: &[(&str, DataType, &[i64])], outputs: &[(&str, DataType, &[i64])]) -> Signature {
        let tensors = |tensors: &[(&str, DataType, &[i64])]| {
            let one = |&(name, datatype, dims): &(&str, DataType, &[i64])| TensorSignature {
                name: name.into(),
                datatype,
                dims: Dims::new(dims),
            };
            tensors.iter().map(one).collect()
        };
        Signature { inputs: tensors(inputs), outputs: tensors(outputs) }
    }

    fn simple() -> RequestCheck {
        let int32 = DataType::Int32;
        let signature = signature(
            &[("INPUT0", int32, &[-1, 16]), ("INPUT1", int32, &[-1, 16])],
            &[("OUTPUT0", int32, &[-1, 16]), ("OUTPUT1", int32, &[-1, 16])],
        );
        let text = r#"max_batch_size: 8
            input [{ name: "INPUT0" data_type: TYPE_INT32 dims: 16 }, { name: "INPUT1" data_type: TYPE_INT32 dims: 16 }]
            output [{ name: "OUTPUT0" data_type: TYPE_INT32 dims: 16 }, { name: "OUTPUT1" data_type: TYPE_INT32 dims: 16 }]"#;
        let config = proto::config_text::parse(text, "config.pbtxt").unwrap();
        RequestCheck::new(&ModelName::parse("simple").unwrap(), &config, &signature, BTreeMap::new(), None)
    }

    fn request(inputs: &[(&str, DataType, &[i64])], outputs: &[&str]) -> InferRequest {
        InferRequest {
            id: SmolStr::default(),
            model: ModelName::parse("simple").unwrap(),
            version: None,
            parameters: model::Parameters::default(),
            inputs: inputs
                .iter()
                .map(|&(name, datatype, shape)| Tensor {
                    name: name.into(),
                    datatype,
                    shape: Dims::new(shape),
                    data: Bytes::new(),
                })
                .collect(),
            outputs: outputs
                .iter()
                .map(|name| RequestedOutput { name: (*name).into(), classification: None })
                .collect(),
            deadline: None,
        }
    }

    #[track_caller]
    fn refused(inputs: &[(&str, DataType, &[i64])], outputs: &[&str], text: &str) {
        let error = simple().check(&request(inputs, outputs)).unwrap_err();
        assert_eq!(error.to_string(), format!("[request id: <id_unknown>] {text}"));
    }

    const INT32: DataType = DataType::Int32;
    const GOOD: [(&str, DataType, &[i64]); 2] = [("INPUT1", INT32, &[3, 16]), ("INPUT0", INT32, &[3, 16])];

    #[test]
    fn inputs_may_come_in_any_order_and_outputs_leave_in_the_order_asked_for() {
        let simple = simple();
        let request = request(&GOOD, &["OUTPUT1", "OUTPUT0"]);
        let checked = simple.check(&request).unwrap();
        assert_eq!(checked.rows, 3);
        assert_eq!(checked.inputs.iter().map(|input| input.index).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(checked.outputs.iter().map(|output| output.spec.index).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn what_the_configuration_leaves_open_is_held_against_the_graph() {
        let signature = signature(&[("x", INT32, &[-1, 3, -1])], &[("y", INT32, &[-1])]);
        let check = |written: &str, shape: &[i64]| {
            let text = format!(
                r#"max_batch_size: 8 input {{ name: "x" data_type: TYPE_INT32 {written} }}
                   output {{ name: "y" data_type: TYPE_INT32 dims: 1 reshape {{ }} }}"#
            );
            let config = proto::config_text::parse(&text, "config.pbtxt").unwrap();
            let name = ModelName::parse("open").unwrap();
            let check = RequestCheck::new(&name, &config, &signature, BTreeMap::new(), None);
            check.check(&request(&[("x", INT32, shape)], &[])).map(|_| ()).map_err(|error| error.to_string())
        };
        let open = "dims: [-1, -1]";
        check(open, &[2, 3, 5]).unwrap();
        let refused = check(open, &[2, 4, 5]).unwrap_err();
        assert!(refused.contains("'x' for model 'open'. Expected [-1,3,-1], got [2,4,5]."), "{refused}");
        let reshaped = "dims: [-1, -1, 1] reshape { shape: [-1, -1] }";
        check(reshaped, &[2, 3, 5, 1]).unwrap();
        let refused = check(reshaped, &[2, 4, 5, 1]).unwrap_err();
        assert!(refused.contains("Expected [-1,3,-1], got [2,4,5] (after its reshape)"), "{refused}");
    }

    #[test]
    fn no_outputs_means_all_of_them() {
        assert_eq!(simple().check(&request(&GOOD, &[])).unwrap().outputs.len(), 2);
    }

    #[test]
    fn inputs_that_do_not_fit_are_named_with_both_values() {
        refused(
            &GOOD[1..],
            &[],
            "expected 2 inputs but got 1 inputs for model 'simple'. Got input(s) ['INPUT0'], but missing \
             required input(s) ['INPUT1']. Please provide all required input(s).",
        );
        refused(
            &[GOOD[0], GOOD[1], ("INPUT2", INT32, &[3, 16])],
            &[],
            "unexpected inference input 'INPUT2' for model 'simple'; its inputs are 'INPUT0','INPUT1'",
        );
        refused(&[GOOD[0], GOOD[1], GOOD[0]], &[], "input 'INPUT1' is given twice for model 'simple'");
        refused(
            &[GOOD[0], ("INPUT0", DataType::Fp32, &[3, 16])],
            &[],
            "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'",
        );
        for shape in [&[3_i64, 15] as &[i64], &[16], &[3, 16, 1], &[]] {
            refused(
                &[GOOD[0], ("INPUT0", INT32, shape)],
                &[],
                &format!(
                    "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got {}. NOTE: \
                     the first dimension is the batch size",
                    Dims::new(shape)
                ),
            );
        }
    }

    #[test]
    fn batches_are_between_one_and_the_maximum_and_the_same_for_every_input() {
        let both = |rows: &'static [i64]| [("INPUT0", INT32, rows), ("INPUT1", INT32, rows)];
        assert_eq!(simple().check(&request(&both(&[8, 16]), &[])).unwrap().rows, 8);
        refused(&both(&[9, 16]), &[], "inference request batch-size must be <= 8 for 'simple', got 9");
        refused(
            &both(&[0, 16]),
            &[],
            "inference request batch-size must be >= 1 for 'simple', but input 'INPUT0' has 0",
        );
        refused(
            &[("INPUT0", INT32, &[2, 16]), ("INPUT1", INT32, &[3, 16])],
            &[],
            "input 'INPUT1' batch size does not match other inputs for 'simple': 3, but 2 before",
        );
    }

    #[test]
    fn outputs_that_are_not_there_are_named() {
        refused(
            &GOOD,
            &["OUTPUT9"],
            "unexpected inference output 'OUTPUT9' for model 'simple'; its outputs are 'OUTPUT0','OUTPUT1'",
        );
        refused(&GOOD, &["OUTPUT0", "OUTPUT0"], "output 'OUTPUT0' is requested twice of model 'simple'");
    }

    #[test]
    fn reshaping_keeps_the_batch_and_the_open_dimensions() {
        let dims = |dims: &[i64]| Dims::new(dims);
        assert_eq!(reshaped(&dims(&[4, 1]), &dims(&[1]), &dims(&[]), true), dims(&[4]));
        assert_eq!(reshaped(&dims(&[4]), &dims(&[]), &dims(&[1]), true), dims(&[4, 1]));
        assert_eq!(
            reshaped(&dims(&[5, 2, 7]), &dims(&[2, -1]), &dims(&[-1, 1, 2]), true),
            dims(&[5, 7, 1, 2])
        );
        assert_eq!(reshaped(&dims(&[2, 7]), &dims(&[2, -1]), &dims(&[-1, 2]), false), dims(&[7, 2]));
    }

    #[test]
    fn an_output_that_a_reshape_cannot_hold_is_told() {
        let signature = signature(&[("x", DataType::Fp32, &[-1, 2])], &[("y", DataType::Fp32, &[-1, -1])]);
        let text = r#"max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 2 }
            output { name: "y" data_type: TYPE_FP32 dims: [2, 3] reshape { shape: 6 } }"#;
        let config = proto::config_text::parse(text, "config.pbtxt").unwrap();
        let check =
            RequestCheck::new(&ModelName::parse("m").unwrap(), &config, &signature, BTreeMap::new(), None);
        let raw = |shape: &[i64]| InstanceOutput { shape: Dims::new(shape), data: Bytes::new() };
        assert_eq!(check.output_fits(0, &raw(&[4, 6])), Ok(()));
        let reason = check.output_fits(0, &raw(&[4, 5])).unwrap_err();
        assert!(reason.contains("output 'y' came in shape [4,5]") && reason.contains("[4,2,3]"), "{reason}");
    }
}
