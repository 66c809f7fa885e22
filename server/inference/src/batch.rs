//! Many requests as one: inputs put together, outputs taken apart.

use bytes::BytesMut;
use model::bytes_tensor::{self, InvalidPacking};
use model::{DataType, Dims, Tensor, element_count};
use smallvec::SmallVec;

use crate::backend::{InstanceInput, InstanceOutput};
use crate::padding::Target;

/// The inputs of an execution.
pub type Inputs = SmallVec<[InstanceInput; 2]>;

/// Memory of an input that is kept however little of it a batch has used.
const KEPT: usize = 1 << 20;

/// Puts inputs together, again and again in the same memory.
#[derive(Debug, Default)]
pub struct Gather {
    /// One for each input, in the order of the first request's.
    buffers: Vec<BytesMut>,
}

impl Gather {
    /// The inputs of all of `requests`, one after the other along the first dimension. Each has the same ones, in
    /// any order. Their shapes differ in the first dimension alone; where they do not, the shape is not theirs to
    /// say (`ragged.rs` does).
    ///
    /// # Errors
    /// When a request lacks an input that the first one has.
    pub fn gather<'a>(
        &mut self,
        requests: impl Iterator<Item = &'a Inputs> + Clone,
    ) -> Result<Inputs, String> {
        self.gather_padded(requests, None)
    }

    /// As [`Gather::gather`], with the inputs that have a length padded to that of `target`.
    pub(crate) fn gather_padded<'a>(
        &mut self,
        requests: impl Iterator<Item = &'a Inputs> + Clone,
        target: Option<Target<'_>>,
    ) -> Result<Inputs, String> {
        let Some(first) = requests.clone().next() else { return Ok(Inputs::new()) };
        self.buffers.resize_with(first.len().max(self.buffers.len()), BytesMut::new);
        let mut gathered = Inputs::with_capacity(first.len());
        for (position, (input, buffer)) in first.iter().zip(&mut self.buffers).enumerate() {
            let parts = requests.clone().map(|inputs| find(inputs, position, input.index));
            let mut length = 0;
            let mut rows = 0;
            for part in parts.clone() {
                let part =
                    part.ok_or_else(|| format!("a request of the batch lacks input {}", input.index))?;
                length += part.data.len();
                rows += part.shape.first().copied().unwrap_or(1);
            }
            let mut shape = input.tensor.shape.clone();
            shape[0] = rows;
            let padded = target.and_then(|target| Some((target.input(input.index)?, target.length)));
            match padded {
                None => {
                    buffer.reserve(length);
                    parts.flatten().for_each(|part| buffer.extend_from_slice(&part.data));
                }
                Some((padded, length)) => {
                    shape[padded.axis] = length;
                    let elements = element_count(&shape).map_err(|error| error.to_string())?;
                    buffer.reserve(elements.saturating_mul(padded.value.len()));
                    parts.flatten().for_each(|part| padded.append(part, length, buffer));
                }
            }
            let data = buffer.split().freeze();
            gathered.push(InstanceInput {
                index: input.index,
                tensor: Tensor {
                    name: input.tensor.name.clone(),
                    datatype: input.tensor.datatype,
                    shape,
                    data,
                },
            });
        }
        Ok(gathered)
    }

    /// Takes the memory of inputs that have been used, for the next ones.
    pub fn reuse(&mut self, inputs: Inputs) {
        for (buffer, input) in self.buffers.iter_mut().zip(inputs) {
            // Someone who still holds it may keep it.
            let length = input.tensor.data.len();
            if let Ok(mut memory) = input.tensor.data.try_into_mut() {
                memory.clear();
                // What one large batch took is not kept for small ones.
                let small = memory.capacity() <= KEPT || memory.capacity() / 4 <= length;
                *buffer = if small { memory } else { BytesMut::new() };
            }
        }
    }
}

/// The input `index`, which is mostly at `position`.
pub(crate) fn find(inputs: &Inputs, position: usize, index: usize) -> Option<&Tensor> {
    let there = inputs.get(position).filter(|input| input.index == index);
    there.or_else(|| inputs.iter().find(|input| input.index == index)).map(|input| &input.tensor)
}

/// Cuts `output` along its first dimension into parts of so many `rows` each, without copying.
///
/// # Errors
/// When its first dimension is not the sum of them: then nobody can say what belongs to whom.
pub fn scatter(
    output: &InstanceOutput,
    datatype: DataType,
    rows: impl Iterator<Item = u64> + Clone,
) -> Result<Vec<InstanceOutput>, String> {
    let total: u64 = rows.clone().sum();
    if output.shape.first().and_then(|dim| u64::try_from(*dim).ok()) != Some(total) {
        return Err(format!(
            "came in shape {}, whose first dimension is not the batch of {total}",
            output.shape
        ));
    }
    let part = |rows: u64| {
        let mut shape = output.shape.clone();
        shape[0] = rows.cast_signed();
        shape
    };
    cut(output, datatype, rows.map(part))
}

/// Cuts `output` into parts of these `shapes`, one after the other, without copying.
///
/// # Errors
/// When it has fewer elements than they.
pub(crate) fn cut(
    output: &InstanceOutput,
    datatype: DataType,
    shapes: impl Iterator<Item = Dims>,
) -> Result<Vec<InstanceOutput>, String> {
    let mut strings = bytes_tensor::elements(&output.data);
    let mut start = 0;
    shapes
        .map(|shape| {
            let count = element_count(&shape).map_err(|error| error.to_string())?;
            let length = match datatype.element_size() {
                Some(size) => count.checked_mul(size),
                None => Some(length_of_strings(&mut strings, count)?),
            };
            let end = length.and_then(|length| length.checked_add(start));
            let end = end
                .filter(|end| *end <= output.data.len())
                .ok_or("has fewer elements than its shape says")?;
            let data = output.data.slice(start..end);
            start = end;
            Ok(InstanceOutput { shape, data })
        })
        .collect()
}

/// How many bytes the next `count` of `strings` take, which have a length each.
fn length_of_strings<'a>(
    strings: &mut impl Iterator<Item = Result<&'a [u8], InvalidPacking>>,
    count: usize,
) -> Result<usize, String> {
    let mut length = 0;
    for _ in 0..count {
        let string = strings.next().ok_or("has fewer strings than its shape says")?;
        length +=
            bytes_tensor::LENGTH_SIZE + string.map_err(|error| format!("is not well packed: {error}"))?.len();
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn input(index: usize, shape: &[i64], data: &[u8]) -> InstanceInput {
        let data = Bytes::copy_from_slice(data);
        let tensor = Tensor { name: "x".into(), datatype: DataType::Uint8, shape: Dims::new(shape), data };
        InstanceInput { index, tensor }
    }

    fn output(shape: &[i64], data: &[u8]) -> InstanceOutput {
        InstanceOutput { shape: Dims::new(shape), data: Bytes::copy_from_slice(data) }
    }

    #[test]
    fn inputs_are_put_together_by_their_index() {
        let requests: [Inputs; 2] = [
            [input(0, &[1, 2], &[1, 2]), input(1, &[1, 1], &[3])].into_iter().collect(),
            [input(1, &[2, 1], &[4, 5]), input(0, &[2, 2], &[6, 7, 8, 9])].into_iter().collect(),
        ];
        let mut gather = Gather::default();
        let gathered = gather.gather(requests.iter()).unwrap();
        let seen: Vec<_> =
            gathered.iter().map(|input| (input.index, &*input.tensor.shape, &*input.tensor.data)).collect();
        assert_eq!(seen, [(0, &[3, 2][..], &[1, 2, 6, 7, 8, 9][..]), (1, &[3, 1], &[3, 4, 5])]);
        let missing: [Inputs; 2] = [requests[0].clone(), requests[1][..1].iter().cloned().collect()];
        assert_eq!(gather.gather(missing.iter()).unwrap_err(), "a request of the batch lacks input 0");
    }

    #[test]
    fn the_memory_is_used_again() {
        let requests: [Inputs; 2] = [0, 1].map(|n| [input(0, &[1, 64], &[n; 64])].into_iter().collect());
        let mut gather = Gather::default();
        let first = gather.gather(requests.iter()).unwrap();
        let address = first[0].tensor.data.as_ptr();
        gather.reuse(first);
        let second = gather.gather(requests.iter()).unwrap();
        assert_eq!(second[0].tensor.data.as_ptr(), address);
        let kept = second[0].tensor.data.clone();
        gather.reuse(second);
        let third = gather.gather(requests.iter()).unwrap();
        assert_ne!(third[0].tensor.data.as_ptr(), kept.as_ptr(), "what somebody holds is not written to");
    }

    #[test]
    fn an_output_of_another_size_than_the_batch_belongs_to_nobody() {
        for shape in [&[2, 2][..], &[4], &[]] {
            let error = scatter(&output(shape, &[0; 4]), DataType::Uint8, [1, 2].into_iter()).unwrap_err();
            assert!(error.contains("is not the batch of 3"), "{error}");
        }
        let error = scatter(&output(&[2], b"\x01\0\0\0a"), DataType::Bytes, [1, 1].into_iter()).unwrap_err();
        assert_eq!(error, "has fewer strings than its shape says");
    }

    proptest! {
        /// Whatever was put together comes apart again.
        #[test]
        fn parts_are_what_they_were(rows in proptest::collection::vec(1..5_usize, 1..6), width in 0..4_usize, strings: bool) {
            let parts: Vec<Vec<u8>> = rows.iter().enumerate().map(|(request, rows)| {
                let mut packed = Vec::new();
                for element in 0..rows * width {
                    let byte = u8::try_from(request * 16 + element).unwrap();
                    if strings { bytes_tensor::push(&mut packed, &vec![byte; element % 3]) } else { packed.push(byte) }
                }
                packed
            }).collect();
            let shape = |rows: usize| [i64::try_from(rows).unwrap(), i64::try_from(width).unwrap()];
            let requests: Vec<Inputs> = rows.iter().zip(&parts)
                .map(|(rows, part)| [input(0, &shape(*rows), part)].into_iter().collect()).collect();
            let gathered = Gather::default().gather(requests.iter()).unwrap().remove(0).tensor;
            let datatype = if strings { DataType::Bytes } else { DataType::Uint8 };
            let whole = InstanceOutput { shape: gathered.shape, data: gathered.data };
            let cut = scatter(&whole, datatype, rows.iter().map(|rows| *rows as u64)).unwrap();
            for ((cut, part), rows) in cut.iter().zip(&parts).zip(&rows) {
                prop_assert_eq!(&cut.data[..], &part[..]);
                prop_assert_eq!(&cut.shape[..], &shape(*rows)[..]);
            }
        }
    }
}
