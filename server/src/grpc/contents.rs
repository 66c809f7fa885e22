//! Typed tensor contents (`InferTensorContents`), packed as raw contents are.

use bytes::Bytes;
use model::{DataType, Dims, InferError, Tensor, bytes_tensor};
use proto::v2::InferTensorContents;
use smol_str::SmolStr;

use crate::tensor_bytes::{element_count, packed_tensor};

/// An input whose elements are in the field of `contents` that suits its type.
///
/// # Errors
/// When another field is used, too, a value does not fit the type, or their number is not the shape's.
pub(super) fn tensor(
    name: SmolStr,
    datatype: DataType,
    shape: Dims,
    contents: &InferTensorContents,
) -> Result<Tensor, InferError> {
    let fields = Fields::new(contents);
    let wanted = field(datatype).ok_or_else(|| {
        InferError::invalid(format!(
            "input '{name}' is {datatype}, which has no typed contents; use raw_input_contents"
        ))
    })?;
    if let Some((other, _)) = fields.0.iter().find(|(field, count)| *field != wanted && *count > 0) {
        return Err(InferError::invalid(format!(
            "input '{name}' is {datatype}, so its contents belong in {wanted}, but {other} is used"
        )));
    }
    let expected = element_count(&name, &shape)?;
    let got = fields.count(wanted);
    if got != expected {
        return Err(InferError::WrongElementCount {
            input: name.to_string(),
            datatype,
            shape,
            got: got.to_string(),
            expected,
        });
    }
    let data = pack(&name, datatype, contents)?;
    packed_tensor(name, datatype, shape, data)
}

/// Bytes that `contents` holds, but for those that BYTES elements only refer to.
pub(super) fn size(contents: &InferTensorContents) -> usize {
    size_of_val(&*contents.bool_contents)
        + size_of_val(&*contents.int_contents)
        + size_of_val(&*contents.int64_contents)
        + size_of_val(&*contents.uint_contents)
        + size_of_val(&*contents.uint64_contents)
        + size_of_val(&*contents.fp32_contents)
        + size_of_val(&*contents.fp64_contents)
        + size_of_val(&*contents.bytes_contents)
}

/// How many elements each field holds.
struct Fields([(&'static str, usize); 8]);

impl Fields {
    fn new(contents: &InferTensorContents) -> Fields {
        Fields([
            ("bool_contents", contents.bool_contents.len()),
            ("int_contents", contents.int_contents.len()),
            ("int64_contents", contents.int64_contents.len()),
            ("uint_contents", contents.uint_contents.len()),
            ("uint64_contents", contents.uint64_contents.len()),
            ("fp32_contents", contents.fp32_contents.len()),
            ("fp64_contents", contents.fp64_contents.len()),
            ("bytes_contents", contents.bytes_contents.len()),
        ])
    }

    fn count(&self, field: &str) -> usize {
        self.0.iter().find(|(name, _)| *name == field).map_or(0, |(_, count)| *count)
    }
}

/// The protocol's table of types and fields; FP16 and BF16 have none.
fn field(datatype: DataType) -> Option<&'static str> {
    match datatype {
        DataType::Bool => Some("bool_contents"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some("int_contents"),
        DataType::Int64 => Some("int64_contents"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => Some("uint_contents"),
        DataType::Uint64 => Some("uint64_contents"),
        DataType::Fp32 => Some("fp32_contents"),
        DataType::Fp64 => Some("fp64_contents"),
        DataType::Bytes => Some("bytes_contents"),
        DataType::Fp16 | DataType::Bf16 => None,
    }
}

fn pack(name: &str, datatype: DataType, contents: &InferTensorContents) -> Result<Bytes, InferError> {
    let mut data = Vec::new();
    match datatype {
        DataType::Bool => data.extend(contents.bool_contents.iter().map(|value| u8::from(*value))),
        DataType::Int8 => narrow(name, datatype, &contents.int_contents, i8::to_le_bytes, &mut data)?,
        DataType::Int16 => narrow(name, datatype, &contents.int_contents, i16::to_le_bytes, &mut data)?,
        DataType::Uint8 => narrow(name, datatype, &contents.uint_contents, u8::to_le_bytes, &mut data)?,
        DataType::Uint16 => narrow(name, datatype, &contents.uint_contents, u16::to_le_bytes, &mut data)?,
        DataType::Int32 => data.extend(contents.int_contents.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Int64 => data.extend(contents.int64_contents.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Uint32 => data.extend(contents.uint_contents.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Uint64 => {
            data.extend(contents.uint64_contents.iter().flat_map(|value| value.to_le_bytes()))
        }
        DataType::Fp32 => data.extend(contents.fp32_contents.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Fp64 => data.extend(contents.fp64_contents.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Bytes => {
            contents.bytes_contents.iter().for_each(|value| bytes_tensor::push(&mut data, value))
        }
        DataType::Fp16 | DataType::Bf16 => {}
    }
    Ok(data.into())
}

/// Packs `wide` values into a smaller type, which each must fit.
fn narrow<Wide, Narrow, const SIZE: usize>(
    name: &str,
    datatype: DataType,
    wide: &[Wide],
    bytes: fn(Narrow) -> [u8; SIZE],
    data: &mut Vec<u8>,
) -> Result<(), InferError>
where
    Wide: Copy + std::fmt::Display,
    Narrow: TryFrom<Wide>,
{
    for value in wide {
        let narrow = Narrow::try_from(*value).map_err(|_| {
            InferError::invalid(format!(
                "input '{name}' has the value {value}, which is out of range for {datatype}"
            ))
        })?;
        data.extend_from_slice(&bytes(narrow));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(datatype: DataType, contents: InferTensorContents, expected: &[u8]) {
        let tensor = tensor("x".into(), datatype, Dims::new(&[2]), &contents).unwrap();
        assert_eq!(tensor.data, expected, "{datatype}");
    }

    #[test]
    fn every_type_with_a_field_is_packed() {
        let none = InferTensorContents::default;
        let int = || InferTensorContents { int_contents: vec![-1, 2], ..none() };
        let uint = || InferTensorContents { uint_contents: vec![1, 2], ..none() };
        check(DataType::Bool, InferTensorContents { bool_contents: vec![true, false], ..none() }, &[1, 0]);
        check(DataType::Int8, int(), &[0xff, 2]);
        check(DataType::Int16, int(), &[0xff, 0xff, 2, 0]);
        check(DataType::Int32, int(), &[0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0]);
        check(DataType::Uint8, uint(), &[1, 2]);
        check(DataType::Uint16, uint(), &[1, 0, 2, 0]);
        check(DataType::Uint32, uint(), &[1, 0, 0, 0, 2, 0, 0, 0]);
        let fp32 = InferTensorContents { fp32_contents: vec![1.0, 0.0], ..none() };
        check(DataType::Fp32, fp32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0]);
        let bytes = InferTensorContents { bytes_contents: vec!["a".into(), "".into()], ..none() };
        check(DataType::Bytes, bytes, &[1, 0, 0, 0, b'a', 0, 0, 0, 0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |datatype, contents| {
            tensor("x".into(), datatype, Dims::new(&[2]), &contents).unwrap_err().to_string()
        };
        let int =
            |values: &[i32]| InferTensorContents { int_contents: values.to_vec(), ..Default::default() };
        assert!(
            refused(DataType::Int8, int(&[1, 128])).contains("value 128, which is out of range for INT8")
        );
        assert!(
            refused(DataType::Fp32, int(&[1, 2]))
                .contains("belong in fp32_contents, but int_contents is used")
        );
        assert!(refused(DataType::Int32, int(&[1])).contains("has 1 elements of data"));
        assert!(refused(DataType::Fp16, int(&[])).contains("raw_input_contents"));
    }
}
