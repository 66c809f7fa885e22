//! Requests of any shape as one batch: inputs laid flat, tensors that tell the model of the batch, and outputs
//! cut by the shape of an input.
//!
//! Pure: from the shapes of the requests' inputs. The rules are Triton's: whatever is counted is counted once for
//! each *request*, all its items together; only shapes are told once for each *item*.

use std::iter;

use bytes::Bytes;
use model::{DataType, Dims, Tensor, element_count};
use proto::ModelConfig;
use proto::v2::batch_input::Kind;
use smol_str::SmolStr;

use crate::backend::{InstanceInput, InstanceOutput, Signature};
use crate::batch::{Inputs, cut, find};
use crate::config::datatype;

/// Counts up to here are exact as FP32.
const MAX_FP32_COUNT: i32 = 1 << 24;

/// What a model asks for whose requests may run together although their shapes differ.
#[derive(Debug)]
pub(crate) struct Ragged {
    /// Inputs of the signature that take all elements of a batch in one dimension.
    flat: Vec<usize>,
    batch_inputs: Vec<BatchInput>,
    batch_outputs: Vec<BatchOutput>,
}

/// A tensor that no client sends.
#[derive(Debug)]
struct BatchInput {
    kind: Kind,
    datatype: DataType,
    /// The input of the signature that it tells of.
    source: usize,
    /// The inputs of the signature that are filled with it, and their names.
    targets: Vec<(usize, SmolStr)>,
}

/// An output that is cut by the shape of an input.
#[derive(Debug)]
struct BatchOutput {
    /// Its index in the signature.
    target: usize,
    /// The input of the signature whose shape counts.
    source: usize,
    /// Of one request, the batch dimension first; -1 where it is the source's.
    shape: Dims,
}

impl Ragged {
    /// `None` for a model without any of it, as most are. `config` has been completed from and checked against
    /// `signature`.
    pub(crate) fn new(config: &ModelConfig, signature: &Signature) -> Option<Ragged> {
        let input = |name: &str| signature.inputs.iter().position(|tensor| tensor.name == name);
        let flat = config.input.iter().filter(|input| input.allow_ragged_batch);
        let batch_input = |written: &proto::v2::BatchInput| {
            let target = |name: &String| Some((input(name)?, name.as_str().into()));
            Some(BatchInput {
                kind: written.kind(),
                datatype: datatype(written.data_type)?,
                source: input(written.source_input.first()?)?,
                targets: written.target_name.iter().filter_map(target).collect(),
            })
        };
        let batch_output = |(name, source): (&String, &String)| {
            let output = config.output.iter().find(|output| output.name == *name)?;
            let inner = output.reshape.as_ref().map_or(&output.dims, |reshape| &reshape.shape);
            Some(BatchOutput {
                target: signature.outputs.iter().position(|tensor| tensor.name == *name)?,
                source: input(source)?,
                shape: Dims::new(inner).with_outer(-1),
            })
        };
        let scattered = config
            .batch_output
            .iter()
            .flat_map(|written| written.target_name.iter().zip(iter::repeat(written)));
        let ragged = Ragged {
            flat: flat.filter_map(|written| input(&written.name)).collect(),
            batch_inputs: config.batch_input.iter().filter_map(batch_input).collect(),
            batch_outputs: scattered
                .filter_map(|(name, written)| batch_output((name, written.source_input.first()?)))
                .collect(),
        };
        let nothing =
            ragged.flat.is_empty() && ragged.batch_inputs.is_empty() && ragged.batch_outputs.is_empty();
        (!nothing).then_some(ragged)
    }

    /// Makes what the model wants of `inputs`, which are those of `requests` put together: lays flat those that it
    /// takes flat, and adds the tensors that tell of the batch.
    ///
    /// # Errors
    /// When a count is larger than the data type that is to hold it.
    pub(crate) fn complete<'a>(
        &self,
        inputs: &mut Inputs,
        requests: impl Iterator<Item = &'a Inputs> + Clone,
    ) -> Result<(), String> {
        for input in inputs.iter_mut().filter(|input| self.flat.contains(&input.index)) {
            let total = shapes(requests.clone(), input.index).map(count).fold(0, i64::saturating_add);
            input.tensor.shape = Dims::new(&[total]);
        }
        for BatchInput { kind, datatype, source, targets } in &self.batch_inputs {
            let (shape, values) = tell(*kind, shapes(requests.clone(), *source));
            let data = packed(&values, *datatype);
            for (index, name) in targets {
                let data = data.clone().map_err(|value| {
                    format!(
                        "batch_input '{name}' would hold {value}, which {datatype} cannot; send less at once"
                    )
                })?;
                let (name, datatype, shape) = (name.clone(), *datatype, shape.clone());
                inputs.push(InstanceInput { index: *index, tensor: Tensor { name, datatype, shape, data } });
            }
        }
        Ok(())
    }

    /// Whether the output at `index` of the signature is cut by [`Ragged::scatter`].
    pub(crate) fn scatters(&self, index: usize) -> bool {
        self.batch_outputs.iter().any(|output| output.target == index)
    }

    /// Cuts `output`, whose index in the signature is `index`, into the parts of `requests`; `None` when it is cut
    /// by their rows, as other outputs are.
    pub(crate) fn scatter<'a>(
        &self,
        index: usize,
        output: &InstanceOutput,
        datatype: DataType,
        requests: impl Iterator<Item = &'a Inputs> + Clone,
    ) -> Option<Result<Vec<InstanceOutput>, String>> {
        let batch_output = self.batch_outputs.iter().find(|output| output.target == index)?;
        let parts = shapes(requests, batch_output.source).map(|source| batch_output.part(source));
        let wanted = parts.clone().map(|part| count(&part)).fold(0, i64::saturating_add);
        if wanted != count(&output.shape) {
            return Some(Err(format!(
                "came in shape {}, but the shapes of its batch_output's source_input ask for {wanted} elements",
                output.shape
            )));
        }
        Some(cut(output, datatype, parts))
    }
}

impl BatchOutput {
    /// The shape of the part of a request whose source has the shape `source`.
    fn part(&self, source: &Dims) -> Dims {
        let sizes = self.shape.iter().zip(source.iter().map(Some).chain(iter::repeat(None)));
        sizes.map(|(own, source)| if *own == -1 { source.copied().unwrap_or(1) } else { *own }).collect()
    }
}

/// The shape that each of `requests` has for input `index`.
fn shapes<'a>(
    requests: impl Iterator<Item = &'a Inputs> + Clone,
    index: usize,
) -> impl Iterator<Item = &'a Dims> + Clone {
    requests.filter_map(move |inputs| find(inputs, 0, index)).map(|tensor| &tensor.shape)
}

/// Elements of a shape, which was checked when its tensor was made.
fn count(shape: &Dims) -> i64 {
    element_count(shape).ok().and_then(|count| i64::try_from(count).ok()).unwrap_or(i64::MAX)
}

/// What a batch input of `kind` tells of a source that has these `shapes`, one for each request: its own shape, and
/// its elements.
fn tell<'a>(kind: Kind, shapes: impl Iterator<Item = &'a Dims> + Clone) -> (Dims, Vec<i64>) {
    let counts = shapes.clone().map(count);
    let accumulated = counts.clone().scan(0_i64, |sum, count| {
        *sum = sum.saturating_add(count);
        Some(*sum)
    });
    let items = || {
        let item = |shape: &'a Dims| {
            let (rows, inner) = shape.split_first().map_or((0, &[][..]), |(rows, inner)| (*rows, inner));
            iter::repeat_n(inner, usize::try_from(rows).unwrap_or_default()).flatten().copied()
        };
        shapes.clone().flat_map(item).collect::<Vec<i64>>()
    };
    let values = match kind {
        Kind::BatchElementCount => counts.collect(),
        Kind::BatchAccumulatedElementCount => accumulated.collect(),
        Kind::BatchAccumulatedElementCountWithZero => iter::once(0).chain(accumulated).collect(),
        // Its shape is all that it tells.
        Kind::BatchMaxElementCountAsShape => {
            vec![0; counts.max().and_then(|count| usize::try_from(count).ok()).unwrap_or_default()]
        }
        Kind::BatchItemShape | Kind::BatchItemShapeFlatten => items(),
    };
    let shape = match kind {
        Kind::BatchItemShape => {
            let rows = shapes.clone().filter_map(|shape| shape.first()).sum();
            let rank = shapes.clone().next().map_or(0, |shape| shape.len().saturating_sub(1));
            Dims::new(&[rows, i64::try_from(rank).unwrap_or(i64::MAX)])
        }
        _ => Dims::new(&[i64::try_from(values.len()).unwrap_or(i64::MAX)]),
    };
    (shape, values)
}

/// `values` as elements of `datatype`.
///
/// # Errors
/// The first value that it cannot hold exactly.
fn packed(values: &[i64], datatype: DataType) -> Result<Bytes, i64> {
    fn each<const SIZE: usize>(
        values: &[i64],
        bytes: impl Fn(i64) -> Option<[u8; SIZE]>,
    ) -> Result<Bytes, i64> {
        let mut packed = Vec::with_capacity(values.len() * SIZE);
        for value in values {
            packed.extend_from_slice(&bytes(*value).ok_or(*value)?);
        }
        Ok(packed.into())
    }
    let narrow = |value: i64| i32::try_from(value).ok();
    match datatype {
        DataType::Int32 => each(values, |value| narrow(value).map(i32::to_le_bytes)),
        DataType::Fp32 => each(values, |value| {
            let exact = narrow(value).filter(|value| *value <= MAX_FP32_COUNT);
            exact.map(|value| (value as f32).to_le_bytes())
        }),
        // The check of the configuration lets no other pass.
        _ => each(values, |value| Some(value.to_le_bytes())),
    }
}

#[cfg(test)]
mod tests;
