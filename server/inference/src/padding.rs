//! Requests of different length as one batch: inputs padded to the length of the longest, outputs cut back to each
//! one's own.
//!
//! Pure: from the requests' inputs. A model has one length, which all of its padded inputs share: the one dimension
//! that each of them leaves open.

use bytes::{BufMut, Bytes, BytesMut};
use model::{DataType, Dims, Tensor, element_count};
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::backend::InstanceOutput;
use crate::batch::{Inputs, find};

/// What a configuration says of padding, resolved.
#[derive(Debug)]
pub struct Padding {
    /// At least one.
    pub(crate) inputs: Vec<PaddedInput>,
    pub(crate) outputs: Vec<CutOutput>,
    /// The lengths that the model runs at, ascending; any when it is empty.
    pub(crate) sizes: Vec<i64>,
}

/// An input that is padded.
#[derive(Debug)]
pub(crate) struct PaddedInput {
    /// Its index in the signature.
    pub(crate) index: usize,
    pub(crate) name: SmolStr,
    /// Which of its dimensions is the length, the batch counted.
    pub(crate) axis: usize,
    /// The bytes of an element of padding.
    pub(crate) value: SmallVec<[u8; 8]>,
}

/// An output that is cut back.
#[derive(Debug)]
pub(crate) struct CutOutput {
    /// Its index in the signature.
    pub(crate) index: usize,
    /// Which of its dimensions are the length, the batch counted.
    pub(crate) axes: SmallVec<[usize; 2]>,
}

/// The length that a batch runs at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    padding: &'a Padding,
    pub(crate) length: i64,
    /// Whether it is not that of each of its requests.
    pub(crate) pads: bool,
}

impl Padding {
    /// The length of a request of `inputs`.
    fn length(&self, inputs: &Inputs) -> Option<i64> {
        self.given(inputs).next().map(|(padded, tensor)| tensor.shape[padded.axis])
    }

    /// # Errors
    /// When the lengths of its inputs differ, or no length that the model runs at is as large.
    pub(crate) fn check(&self, inputs: &Inputs) -> Result<(), String> {
        let mut given = self.given(inputs).map(|(padded, tensor)| (&padded.name, tensor.shape[padded.axis]));
        let Some((first, length)) = given.next() else { return Ok(()) };
        if let Some((name, other)) = given.find(|(_, other)| *other != length) {
            return Err(format!(
                "input '{name}' has length {other}, but '{first}' has {length}: inputs that are padded together \
                 have one length"
            ));
        }
        match self.sizes.last() {
            Some(longest) if length > *longest => Err(format!(
                "input '{first}' has length {length}, but the model takes {longest} at most (its pad_to_sizes)"
            )),
            _ => Ok(()),
        }
    }

    /// Elements of each row of `inputs`, which have been checked, when nothing longer is in the batch.
    pub(crate) fn size(&self, inputs: &Inputs) -> u64 {
        let sizes = self.given(inputs).map(|(padded, tensor)| {
            let row = tensor.shape.iter().enumerate().skip(1).filter(|(axis, _)| *axis != padded.axis);
            let others = row.fold(1_u64, |size, (_, dim)| size.saturating_mul(dim.unsigned_abs()));
            others.saturating_mul(self.fitting(tensor.shape[padded.axis]).unsigned_abs())
        });
        sizes.fold(0_u64, u64::saturating_add).max(1)
    }

    /// Elements of those of `inputs` that are padded, for requests or as they run.
    pub(crate) fn elements(&self, inputs: &Inputs) -> u64 {
        let counts =
            self.given(inputs).map(|(_, tensor)| element_count(&tensor.shape).unwrap_or_default() as u64);
        counts.sum()
    }

    /// The length that `requests` run at together; `None` when none of their inputs has one.
    pub(crate) fn target<'a>(
        &self,
        requests: impl Iterator<Item = &'a Inputs> + Clone,
    ) -> Option<Target<'_>> {
        let lengths = requests.filter_map(|inputs| self.length(inputs));
        let length = self.fitting(lengths.clone().max()?);
        Some(Target { padding: self, length, pads: lengths.clone().any(|own| own != length) })
    }

    /// The length that the model runs at for requests of `length` at most.
    fn fitting(&self, length: i64) -> i64 {
        self.sizes.iter().copied().find(|size| *size >= length).unwrap_or(length)
    }

    fn given<'a>(&'a self, inputs: &'a Inputs) -> impl Iterator<Item = (&'a PaddedInput, &'a Tensor)> {
        let given =
            |(place, padded): (usize, &'a PaddedInput)| Some((padded, find(inputs, place, padded.index)?));
        self.inputs.iter().enumerate().filter_map(given)
    }
}

impl<'a> Target<'a> {
    /// How the input at `index` of the signature is padded, if it is.
    pub(crate) fn input(self, index: usize) -> Option<&'a PaddedInput> {
        self.padding.inputs.iter().find(|padded| padded.index == index)
    }

    /// Checks that the model made `output`, whose index in the signature is `index`, as long as its inputs were.
    ///
    /// # Errors
    /// When it did not: then nobody can say what of it would be padding.
    pub(crate) fn output_fits(&self, index: usize, output: &InstanceOutput) -> Result<(), String> {
        let other = self.axes(index).iter().find(|axis| output.shape.get(**axis) != Some(&self.length));
        match other {
            None => Ok(()),
            Some(axis) => Err(format!(
                "came in shape {}, whose dimension {axis} is not the length of the inputs, {}; it cannot be cut back, so \
                 leave out pad_batch",
                output.shape, self.length
            )),
        }
    }

    /// Cuts `part` of the output at `index` back to the length of `inputs`, which it was made of.
    pub(crate) fn cut(
        &self,
        index: usize,
        part: InstanceOutput,
        datatype: DataType,
        inputs: &Inputs,
    ) -> InstanceOutput {
        let (Some(length), Some(element)) = (self.padding.length(inputs), datatype.element_size()) else {
            return part;
        };
        self.axes(index).iter().fold(part, |part, axis| cut_axis(part, *axis, length, element))
    }

    fn axes(&self, index: usize) -> &[usize] {
        let output = self.padding.outputs.iter().find(|output| output.index == index);
        output.map_or(&[], |output| &output.axes)
    }
}

impl PaddedInput {
    /// Appends `part` to `buffer`, each of its rows padded to `length`.
    pub(crate) fn append(&self, part: &Tensor, length: i64, buffer: &mut BytesMut) {
        let own = part.shape[self.axis];
        if own == length {
            return buffer.extend_from_slice(&part.data);
        }
        let (outer, inner) = around(&part.shape, self.axis);
        let inner = inner * self.value.len();
        let filled = usize::try_from(own).unwrap_or_default() * inner;
        let missing = usize::try_from(length - own).unwrap_or_default() * inner;
        for row in 0..outer {
            buffer.extend_from_slice(&part.data[row * filled..(row + 1) * filled]);
            match &self.value[..] {
                value if value.iter().all(|byte| *byte == value[0]) => buffer.put_bytes(value[0], missing),
                value => (0..missing / value.len()).for_each(|_| buffer.extend_from_slice(value)),
            }
        }
    }
}

/// The first `length` of `part` along `axis`. What is in one piece is not copied.
fn cut_axis(part: InstanceOutput, axis: usize, length: i64, element: usize) -> InstanceOutput {
    let padded = part.shape[axis];
    if padded == length {
        return part;
    }
    let (outer, inner) = around(&part.shape, axis);
    let bytes = |dim: i64| usize::try_from(dim).unwrap_or_default() * inner * element;
    let (kept, whole) = (bytes(length), bytes(padded));
    let data = if outer == 1 {
        part.data.slice(..kept)
    } else {
        let mut data = Vec::with_capacity(outer * kept);
        (0..outer).for_each(|row| data.extend_from_slice(&part.data[row * whole..row * whole + kept]));
        Bytes::from(data)
    };
    let mut shape = part.shape;
    shape[axis] = length;
    InstanceOutput { shape, data }
}

/// How many elements `shape` has before and after `axis`.
fn around(shape: &Dims, axis: usize) -> (usize, usize) {
    let count = |dims: &[i64]| dims.iter().map(|dim| usize::try_from(*dim).unwrap_or_default()).product();
    (count(&shape[..axis]), count(&shape[axis + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::InstanceInput;
    use crate::batch::{Gather, scatter};

    fn padding(axis: usize, sizes: &[i64]) -> Padding {
        let input = |index| PaddedInput {
            index,
            name: format!("x{index}").into(),
            axis,
            value: [9].into_iter().collect(),
        };
        let output = CutOutput { index: 0, axes: [axis].into_iter().collect() };
        Padding { inputs: vec![input(0), input(1)], outputs: vec![output], sizes: sizes.to_vec() }
    }

    fn inputs(tensors: &[(usize, &[i64], &[u8])]) -> Inputs {
        let input = |&(index, shape, data): &(usize, &[i64], &[u8])| InstanceInput {
            index,
            tensor: Tensor {
                name: "x".into(),
                datatype: DataType::Uint8,
                shape: Dims::new(shape),
                data: Bytes::copy_from_slice(data),
            },
        };
        tensors.iter().map(input).collect()
    }

    #[test]
    fn shorter_requests_are_padded_and_cut_back() {
        let padding = padding(1, &[]);
        let requests = [inputs(&[(0, &[1, 1], &[1])]), inputs(&[(0, &[2, 3], &[2, 3, 4, 5, 6, 7])])];
        let target = padding.target(requests.iter()).unwrap();
        assert_eq!(target.length, 3);
        let gathered = Gather::default().gather_padded(requests.iter(), Some(target)).unwrap();
        assert_eq!(&gathered[0].tensor.shape[..], [3, 3]);
        assert_eq!(&gathered[0].tensor.data[..], [1, 9, 9, 2, 3, 4, 5, 6, 7]);
        let output =
            InstanceOutput { shape: Dims::new(&[1, 3, 2]), data: Bytes::from_static(&[1, 2, 3, 4, 5, 6]) };
        target.output_fits(0, &output).unwrap();
        let cut = target.cut(0, output.clone(), DataType::Uint8, &requests[0]);
        assert_eq!((&cut.shape[..], &cut.data[..]), (&[1, 1, 2][..], &[1, 2][..]));
        assert_eq!(cut.data.as_ptr(), output.data.as_ptr(), "one piece is not copied");
        let other = target.cut(1, output, DataType::Uint8, &requests[0]);
        assert_eq!(&other.shape[..], [1, 3, 2], "only what is said to be cut is");
    }

    #[test]
    fn an_output_of_another_length_belongs_to_nobody() {
        let padding = padding(1, &[]);
        let requests = [inputs(&[(0, &[1, 1], &[1])]), inputs(&[(0, &[1, 2], &[2, 3])])];
        let target = padding.target(requests.iter()).unwrap();
        for shape in [&[2, 4][..], &[2]] {
            let output = InstanceOutput { shape: Dims::new(shape), data: Bytes::from_static(&[0; 8]) };
            let error = target.output_fits(0, &output).unwrap_err();
            assert!(error.contains("dimension 1 is not the length of the inputs, 2"), "{error}");
        }
    }

    #[test]
    fn lengths_are_rounded_up_to_those_that_the_model_runs_at() {
        let rounded = padding(1, &[4, 8]);
        let of = |length: i64| {
            let elements = usize::try_from(length).unwrap();
            inputs(&[(0, &[1, length], &[0; 16][..elements])])
        };
        let target = |lengths: &[i64]| {
            let requests: Vec<Inputs> = lengths.iter().map(|length| of(*length)).collect();
            rounded.target(requests.iter()).map(|target| (target.length, target.pads))
        };
        assert_eq!(
            [target(&[3]), target(&[4]), target(&[5]), target(&[4, 8])],
            [Some((4, true)), Some((4, false)), Some((8, true)), Some((8, true))]
        );
        assert_eq!([rounded.size(&of(3)), rounded.size(&of(4)), rounded.size(&of(5))], [4, 4, 8]);
        let error = rounded.check(&of(9)).unwrap_err();
        assert_eq!(error, "input 'x0' has length 9, but the model takes 8 at most (its pad_to_sizes)");
        padding(1, &[]).check(&of(9)).unwrap();
    }

    #[test]
    fn a_request_has_one_length() {
        let padding = padding(1, &[]);
        let unequal = inputs(&[(0, &[1, 2], &[1, 2]), (1, &[1, 1], &[1])]);
        let error = padding.check(&unequal).unwrap_err();
        assert!(error.starts_with("input 'x1' has length 1, but 'x0' has 2"), "{error}");
        padding.check(&inputs(&[(2, &[1, 5], &[0; 5])])).unwrap();
        assert!(padding.target([inputs(&[])].iter()).is_none());
    }

    proptest! {
        /// A model that copies its input: whatever the shapes, each request gets its own back.
        #[test]
        fn what_was_padded_is_cut_back_to_what_it_was(
            requests in proptest::collection::vec((1..4_usize, 0..5_usize), 1..6),
            before in 1..3_usize, after in 0..3_usize, wide: bool,
        ) {
            let axis = 2;
            let mut padding = padding(axis, &[]);
            let (datatype, element) = if wide { (DataType::Int16, 2) } else { (DataType::Uint8, 1) };
            padding.inputs[0].value = [100, 101].into_iter().take(element).collect();
            let mut byte = 0_u8;
            let requests: Vec<Inputs> = requests.iter().map(|(rows, length)| {
                let shape = [*rows as i64, before as i64, *length as i64, after as i64];
                let data: Vec<u8> = (0..rows * before * length * after * element)
                    .map(|_| { byte = byte.wrapping_add(1); byte }).collect();
                inputs(&[(0, &shape, &data)])
            }).collect();
            let target = padding.target(requests.iter());
            let gathered = Gather::default().gather_padded(requests.iter(), target).unwrap().remove(0).tensor;
            let whole = InstanceOutput { shape: gathered.shape, data: gathered.data };
            let rows = requests.iter().map(|inputs| inputs[0].tensor.shape[0].cast_unsigned());
            for (part, inputs) in scatter(&whole, datatype, rows).unwrap().into_iter().zip(&requests) {
                let part = match target {
                    Some(target) => target.cut(0, part, datatype, inputs),
                    None => part,
                };
                prop_assert_eq!(&part.shape, &inputs[0].tensor.shape);
                prop_assert_eq!(&part.data, &inputs[0].tensor.data);
            }
        }
    }
}
