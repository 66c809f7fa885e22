//! Whether the packed bytes of a tensor hold what its shape says, for every protocol that carries them raw.

use bytes::Bytes;
use model::{DataType, Dims, InferError, Tensor, bytes_tensor};
use smol_str::SmolStr;

/// An input tensor whose elements arrived packed, as [`Tensor::data`] has them; nothing is copied.
///
/// # Errors
/// When the shape is impossible, or `data` is not what it and `datatype` take.
pub fn packed_tensor(
    name: SmolStr,
    datatype: DataType,
    shape: Dims,
    data: Bytes,
) -> Result<Tensor, InferError> {
    let elements = element_count(&name, &shape)?;
    match datatype.element_size() {
        Some(size) => check_size(&name, datatype, &shape, (data.len(), elements.saturating_mul(size)))?,
        None => check_packing(&name, &shape, &data, elements)?,
    }
    Ok(Tensor { name, datatype, shape, data })
}

/// The number of elements of input `name`.
///
/// # Errors
/// When a dimension is negative or the number does not fit; the error names the input.
pub fn element_count(name: &str, dims: &Dims) -> Result<usize, InferError> {
    model::element_count(dims)
        .map_err(|error| InferError::invalid(format!("input '{name}' has shape {dims}, but {error}")))
}

fn check_size(
    name: &str,
    datatype: DataType,
    shape: &Dims,
    (got, expected): (usize, usize),
) -> Result<(), InferError> {
    if got == expected {
        return Ok(());
    }
    Err(InferError::WrongByteSize { input: name.to_owned(), datatype, shape: shape.clone(), got, expected })
}

fn check_packing(name: &str, shape: &Dims, data: &[u8], expected: usize) -> Result<(), InferError> {
    let got = bytes_tensor::count(data)
        .map_err(|error| InferError::invalid(format!("the BYTES data of input '{name}' is cut: {error}")))?;
    if got == expected {
        return Ok(());
    }
    Err(InferError::WrongElementCount {
        input: name.to_owned(),
        datatype: DataType::Bytes,
        shape: shape.clone(),
        got: got.to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: DataType, shape: &[i64], data: &'static [u8]) -> Result<Tensor, String> {
        packed_tensor("x".into(), datatype, Dims::new(shape), Bytes::from_static(data))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bytes_that_fit_the_shape_are_taken_as_they_are() {
        assert_eq!(tensor(DataType::Fp32, &[2], &[0; 8]).unwrap().data.len(), 8);
        assert_eq!(tensor(DataType::Int64, &[], &[0; 8]).unwrap().data.len(), 8);
        assert_eq!(tensor(DataType::Fp16, &[3, 0], &[]).unwrap().data.len(), 0);
        assert_eq!(tensor(DataType::Bytes, &[2], &[0, 0, 0, 0, 1, 0, 0, 0, b'a']).unwrap().data.len(), 9);
    }

    #[test]
    fn bytes_that_do_not_fit_are_told_with_both_values() {
        for (datatype, shape, data, told) in [
            (
                DataType::Fp32,
                &[1, 2][..],
                &[0; 7][..],
                "input 'x' has 7 bytes of data, but FP32 of shape [1,2] takes 8 bytes",
            ),
            (
                DataType::Fp64,
                &[i64::MAX],
                &[],
                "input 'x' has 0 bytes of data, but FP64 of shape [9223372036854775807] takes \
                 18446744073709551615 bytes",
            ),
            (DataType::Int8, &[2, -1], &[0], "input 'x' has shape [2,-1], but dimension -1 is negative"),
            (
                DataType::Int8,
                &[i64::MAX, 3],
                &[0],
                "input 'x' has shape [9223372036854775807,3], but it has more elements than a 64-bit size can \
                 count",
            ),
            (
                DataType::Bytes,
                &[2],
                &[0; 4],
                "input 'x' has 1 elements of data, but BYTES of shape [2] takes 2 elements",
            ),
            (
                DataType::Bytes,
                &[1],
                &[9, 0, 0, 0, 1],
                "the BYTES data of input 'x' is cut: the element at offset 0 says it has 9 bytes, but 1 are \
                 left",
            ),
        ] {
            assert_eq!(tensor(datatype, shape, data).unwrap_err(), told);
        }
    }
}
