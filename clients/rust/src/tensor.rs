//! A named tensor: its bytes as they travel, made from slices and read back into them.

mod json;

use std::fmt;

use bytes::Bytes;
use half::{bf16, f16};
use serde::{Serialize, Serializer, ser};

use crate::{DataType, Element};

/// A named tensor. `data` holds the elements little-endian, packed, row-major; an element of
/// [`DataType::Bytes`] is a 4-byte little-endian length and as many bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The input's or output's name in the model.
    pub name: String,
    /// The type of each element.
    pub datatype: DataType,
    /// Every dimension, the batch dimension included.
    pub shape: Vec<i64>,
    /// The elements.
    pub data: Bytes,
}

/// Why a tensor cannot be made, read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the texts name each field")]
pub enum TensorError {
    /// A dimension is negative, or their product overflows.
    #[error("tensor {name:?} cannot have shape {shape:?}: {reason}")]
    InvalidShape { name: String, shape: Vec<i64>, reason: &'static str },
    /// The bytes are not as many as the shape takes.
    #[error("tensor {name:?} has {got} bytes of data, but {datatype} of shape {shape:?} takes {expected}")]
    WrongByteSize { name: String, datatype: DataType, shape: Vec<i64>, got: usize, expected: usize },
    /// The elements are not as many as the shape says.
    #[error("tensor {name:?} has {got} elements, but shape {shape:?} has {expected}")]
    WrongElementCount { name: String, shape: Vec<i64>, got: usize, expected: usize },
    /// The tensor is read as another type than it has.
    #[error("tensor {name:?} holds {datatype}; it cannot be read as {asked}")]
    WrongType { name: String, datatype: DataType, asked: DataType },
    /// A length inside a BYTES tensor lies.
    #[error("tensor {name:?}: the element at byte {offset} says it has {length} bytes, but {left} are left")]
    InvalidPacking { name: String, offset: usize, length: usize, left: usize },
    /// A string is not text.
    #[error("tensor {name:?}: element {index} is not UTF-8; read it with `byte_strings`")]
    NotText { name: String, index: usize },
    /// The JSON is not elements of the tensor's type.
    #[error("tensor {name:?}: its JSON data is not {datatype}: {reason}")]
    InvalidJson { name: String, datatype: DataType, reason: String },
}

impl Tensor {
    /// A tensor of bytes already packed as the protocol packs them.
    ///
    /// # Errors
    /// When `data` is not what `datatype` and `shape` take.
    pub fn new(
        name: impl Into<String>,
        datatype: DataType,
        shape: &[i64],
        data: impl Into<Bytes>,
    ) -> Result<Tensor, TensorError> {
        let tensor = Tensor { name: name.into(), datatype, shape: shape.to_vec(), data: data.into() };
        tensor.check()?;
        Ok(tensor)
    }

    /// A tensor of numbers or booleans.
    ///
    /// # Errors
    /// When `elements` are not as many as `shape` says.
    pub fn from_slice<T: Element>(
        name: impl Into<String>,
        shape: &[i64],
        elements: &[T],
    ) -> Result<Tensor, TensorError> {
        let mut data = Vec::with_capacity(size_of_val(elements));
        for element in elements {
            element.append(&mut data);
        }
        Tensor::with_count(name.into(), T::DATATYPE, shape, elements.len(), data)
    }

    /// A BYTES tensor of strings, which need not be text.
    ///
    /// # Errors
    /// When `strings` are not as many as `shape` says.
    pub fn from_strings<S: AsRef<[u8]>>(
        name: impl Into<String>,
        shape: &[i64],
        strings: &[S],
    ) -> Result<Tensor, TensorError> {
        let mut data = Vec::new();
        for string in strings {
            append_string(&mut data, string.as_ref());
        }
        Tensor::with_count(name.into(), DataType::Bytes, shape, strings.len(), data)
    }

    fn with_count(
        name: String,
        datatype: DataType,
        shape: &[i64],
        got: usize,
        data: Vec<u8>,
    ) -> Result<Tensor, TensorError> {
        let tensor = Tensor { name, datatype, shape: shape.to_vec(), data: data.into() };
        tensor.check_count(got)?;
        Ok(tensor)
    }

    /// How many elements the shape says there are.
    ///
    /// # Errors
    /// When a dimension is negative or the product overflows.
    pub fn element_count(&self) -> Result<usize, TensorError> {
        let invalid =
            |reason| TensorError::InvalidShape { name: self.name.clone(), shape: self.shape.clone(), reason };
        if self.shape.iter().any(|dim| *dim < 0) {
            return Err(invalid("a dimension is negative"));
        }
        if self.shape.contains(&0) {
            return Ok(0);
        }
        let product = self.shape.iter().try_fold(1_i64, |product, dim| product.checked_mul(*dim));
        product
            .and_then(|count| usize::try_from(count).ok())
            .ok_or_else(|| invalid("it is too large to count"))
    }

    /// The elements as a vector of `T`.
    ///
    /// # Errors
    /// When the tensor holds another type, or not as much data as its shape says.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        let size = T::DATATYPE.element_size().filter(|_| T::DATATYPE == self.datatype);
        let size = size.ok_or_else(|| self.wrong_type(T::DATATYPE))?;
        self.check()?;
        Ok(self.data.chunks_exact(size).map(T::read).collect())
    }

    /// The elements of an FP32 tensor; short for `to_vec::<f32>()`.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    pub fn as_f32(&self) -> Result<Vec<f32>, TensorError> {
        self.to_vec()
    }

    /// The elements of a BYTES tensor.
    ///
    /// # Errors
    /// When the tensor holds another type, or a length inside lies.
    pub fn byte_strings(&self) -> Result<Vec<&[u8]>, TensorError> {
        if self.datatype != DataType::Bytes {
            return Err(self.wrong_type(DataType::Bytes));
        }
        let strings = self.unpacked()?;
        self.check_count(strings.len())?;
        Ok(strings)
    }

    /// The elements of a BYTES tensor, as text.
    ///
    /// # Errors
    /// As [`Tensor::byte_strings`], and when an element is not UTF-8.
    pub fn strings(&self) -> Result<Vec<&str>, TensorError> {
        let text = |(index, bytes)| {
            std::str::from_utf8(bytes).map_err(|_| TensorError::NotText { name: self.name.clone(), index })
        };
        self.byte_strings()?.into_iter().enumerate().map(text).collect()
    }

    /// Every element, whatever the type.
    ///
    /// # Errors
    /// When there is not as much data as the shape says.
    pub fn values(&self) -> Result<impl Iterator<Item = Value<'_>> + Clone, TensorError> {
        self.check()?;
        let strings = if self.datatype == DataType::Bytes { self.unpacked()? } else { Vec::new() };
        let size = self.datatype.element_size().unwrap_or(usize::MAX);
        let fixed = if strings.is_empty() { &self.data[..] } else { &[] };
        let datatype = self.datatype;
        Ok(fixed
            .chunks_exact(size)
            .map(move |bytes| Value::read(datatype, bytes))
            .chain(strings.into_iter().map(Value::Bytes)))
    }

    /// Checks that the data are what the type and the shape say.
    fn check(&self) -> Result<(), TensorError> {
        let Some(size) = self.datatype.element_size() else {
            return self.check_count(self.unpacked()?.len());
        };
        let expected = self.element_count()?.saturating_mul(size);
        if expected == self.data.len() {
            return Ok(());
        }
        Err(TensorError::WrongByteSize {
            name: self.name.clone(),
            datatype: self.datatype,
            shape: self.shape.clone(),
            got: self.data.len(),
            expected,
        })
    }

    fn check_count(&self, got: usize) -> Result<(), TensorError> {
        let expected = self.element_count()?;
        if got == expected {
            return Ok(());
        }
        let (name, shape) = (self.name.clone(), self.shape.clone());
        Err(TensorError::WrongElementCount { name, shape, got, expected })
    }

    fn wrong_type(&self, asked: DataType) -> TensorError {
        TensorError::WrongType { name: self.name.clone(), datatype: self.datatype, asked }
    }

    fn unpacked(&self) -> Result<Vec<&[u8]>, TensorError> {
        let mut strings = Vec::new();
        let mut rest = &self.data[..];
        while !rest.is_empty() {
            let offset = self.data.len() - rest.len();
            let lie =
                |length, left| TensorError::InvalidPacking { name: self.name.clone(), offset, length, left };
            let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(|| lie(4, rest.len()))?;
            let length = u32::from_le_bytes(*length) as usize;
            let (string, tail) = tail.split_at_checked(length).ok_or_else(|| lie(length, tail.len()))?;
            strings.push(string);
            rest = tail;
        }
        Ok(strings)
    }
}

/// Appends one element of a BYTES tensor. Elements of 4 GiB and more do not exist on this wire.
pub(crate) fn append_string(data: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).expect("an element of a BYTES tensor is shorter than 4 GiB");
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(string);
}

/// One element of a tensor. Its `Display` is for people; its `Serialize` is the protocol's JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// BOOL.
    Bool(bool),
    /// A signed integer of any width.
    Int(i64),
    /// An unsigned integer of any width.
    Uint(u64),
    /// FP16, BF16 and FP32, which print as short as an FP32 can.
    Fp32(f32),
    /// FP64.
    Fp64(f64),
    /// BYTES.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    fn read(datatype: DataType, bytes: &[u8]) -> Value<'_> {
        match datatype {
            DataType::Bool => Value::Bool(bool::read(bytes)),
            DataType::Uint8 => Value::Uint(u8::read(bytes).into()),
            DataType::Uint16 => Value::Uint(u16::read(bytes).into()),
            DataType::Uint32 => Value::Uint(u32::read(bytes).into()),
            DataType::Uint64 => Value::Uint(u64::read(bytes)),
            DataType::Int8 => Value::Int(i8::read(bytes).into()),
            DataType::Int16 => Value::Int(i16::read(bytes).into()),
            DataType::Int32 => Value::Int(i32::read(bytes).into()),
            DataType::Int64 => Value::Int(i64::read(bytes)),
            DataType::Fp16 => Value::Fp32(f16::read(bytes).into()),
            DataType::Bf16 => Value::Fp32(bf16::read(bytes).into()),
            DataType::Fp32 => Value::Fp32(f32::read(bytes)),
            DataType::Fp64 => Value::Fp64(f64::read(bytes)),
            DataType::Bytes => Value::Bytes(bytes),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Uint(value) => value.fmt(f),
            // `Debug` of a float turns to an exponent where digits would run on: 1e-7, 3e38.
            Value::Fp32(value) => fmt::Debug::fmt(value, f),
            Value::Fp64(value) => fmt::Debug::fmt(value, f),
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => fmt::Debug::fmt(text, f),
                Err(_) => write!(f, "\"{}\"", bytes.escape_ascii()),
            },
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Value::Bool(value) => serializer.serialize_bool(value),
            Value::Int(value) => serializer.serialize_i64(value),
            Value::Uint(value) => serializer.serialize_u64(value),
            Value::Fp32(value) if value.is_finite() => serializer.serialize_f32(value),
            Value::Fp64(value) if value.is_finite() => serializer.serialize_f64(value),
            Value::Fp32(_) | Value::Fp64(_) => {
                Err(ser::Error::custom(format!("{self} has no JSON form; send the tensor as binary")))
            }
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => Err(ser::Error::custom(format!(
                    "{self} is not UTF-8 and has no JSON form; send the tensor as binary"
                ))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(elements: Vec<i32>, floats: Vec<f64>) {
            let tensor = Tensor::from_slice("x", &[i64::try_from(elements.len()).unwrap()], &elements).unwrap();
            prop_assert_eq!(tensor.to_vec::<i32>().unwrap(), elements);
            let tensor = Tensor::from_slice("x", &[i64::try_from(floats.len()).unwrap()], &floats).unwrap();
            prop_assert_eq!(tensor.to_vec::<f64>().unwrap(), floats);
        }

        #[test]
        fn strings_come_back(strings: Vec<String>) {
            let tensor = Tensor::from_strings("s", &[i64::try_from(strings.len()).unwrap()], &strings).unwrap();
            prop_assert_eq!(tensor.strings().unwrap(), strings.iter().map(String::as_str).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_a_reader_panic(data: Vec<u8>, dim: i64) {
            for datatype in DataType::ALL {
                let tensor = Tensor { name: "x".into(), datatype, shape: vec![dim, 2], data: data.clone().into() };
                let _ = tensor.values().map(Iterator::count);
                let _ = tensor.strings();
                let _ = tensor.as_f32();
            }
        }
    }

    #[track_caller]
    fn refused(tensor: Result<Tensor, TensorError>, text: &str) {
        assert_eq!(tensor.unwrap_err().to_string(), text);
    }

    #[test]
    fn what_does_not_fit_its_shape_is_refused_with_both_values() {
        refused(
            Tensor::from_slice("x", &[2, 2], &[1_u8; 3]),
            r#"tensor "x" has 3 elements, but shape [2, 2] has 4"#,
        );
        refused(
            Tensor::new("x", DataType::Fp32, &[3], vec![0; 8]),
            r#"tensor "x" has 8 bytes of data, but FP32 of shape [3] takes 12"#,
        );
        refused(
            Tensor::new("x", DataType::Bytes, &[1], vec![9, 0, 0, 0, b'a']),
            r#"tensor "x": the element at byte 0 says it has 9 bytes, but 1 are left"#,
        );
        refused(
            Tensor::new("x", DataType::Int8, &[-1], vec![]),
            r#"tensor "x" cannot have shape [-1]: a dimension is negative"#,
        );
        refused(
            Tensor::new("x", DataType::Int8, &[i64::MAX, 2], vec![]),
            r#"tensor "x" cannot have shape [9223372036854775807, 2]: it is too large to count"#,
        );
    }

    #[test]
    fn a_tensor_is_read_only_as_what_it_is() {
        let tensor = Tensor::from_slice("x", &[1], &[1_i64]).unwrap();
        let error = tensor.as_f32().unwrap_err().to_string();
        assert_eq!(error, r#"tensor "x" holds INT64; it cannot be read as FP32"#);
        let text = Tensor::from_strings("s", &[1], &[[0xff_u8]]).unwrap();
        assert!(matches!(text.strings(), Err(TensorError::NotText { index: 0, .. })));
        assert_eq!(text.byte_strings().unwrap(), [&[0xff][..]]);
    }

    #[test]
    fn values_print_short() {
        let print =
            |tensor: Tensor| tensor.values().unwrap().map(|value| value.to_string()).collect::<Vec<_>>();
        let floats = [0.1_f32, 1e-9, f32::NAN, f32::NEG_INFINITY];
        assert_eq!(print(Tensor::from_slice("x", &[4], &floats).unwrap()), ["0.1", "1e-9", "NaN", "-inf"]);
        assert_eq!(print(Tensor::from_slice("x", &[2], &[true, false]).unwrap()), ["true", "false"]);
        assert_eq!(print(Tensor::from_slice("x", &[1], &[f16::from_f32(0.5)]).unwrap()), ["0.5"]);
        assert_eq!(print(Tensor::from_strings("x", &[2], &["a\n", ""]).unwrap()), [r#""a\n""#, r#""""#]);
    }
}
