//! A JSON array of elements, nested or flat, into the packed bytes of a tensor.

use std::marker::PhantomData;

use bytes::Bytes;
use half::{bf16, f16};
use model::{DataType, Dims, InferError};

use super::decimal::{Decimal, Float};
use super::decode::Limits;
use super::reader::{Reader, Result};
use crate::tensor_bytes::element_count;

/// What a request says of an input besides its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared<'a> {
    pub(super) name: &'a str,
    pub(super) datatype: DataType,
    pub(super) shape: &'a Dims,
}

/// Reads the array that is next as the data of `input`.
pub(super) fn read_data(
    reader: &mut Reader,
    input: Declared,
    limits: &Limits,
) -> std::result::Result<Bytes, InferError> {
    let packed = match input.datatype {
        DataType::Bool => read_elements::<Boolean>(reader, input, limits),
        DataType::Uint8 => read_elements::<Integer<u8>>(reader, input, limits),
        DataType::Uint16 => read_elements::<Integer<u16>>(reader, input, limits),
        DataType::Uint32 => read_elements::<Integer<u32>>(reader, input, limits),
        DataType::Uint64 => read_elements::<Integer<u64>>(reader, input, limits),
        DataType::Int8 => read_elements::<Integer<i8>>(reader, input, limits),
        DataType::Int16 => read_elements::<Integer<i16>>(reader, input, limits),
        DataType::Int32 => read_elements::<Integer<i32>>(reader, input, limits),
        DataType::Int64 => read_elements::<Integer<i64>>(reader, input, limits),
        DataType::Fp16 => read_elements::<Floating<f16>>(reader, input, limits),
        DataType::Fp32 => read_elements::<Floating<f32>>(reader, input, limits),
        DataType::Fp64 => read_elements::<Floating<f64>>(reader, input, limits),
        DataType::Bytes => read_elements::<ByteString>(reader, input, limits),
        DataType::Bf16 => read_elements::<Floating<bf16>>(reader, input, limits),
    };
    packed.map(Bytes::from)
}

fn read_elements<E: Element>(
    reader: &mut Reader,
    input: Declared,
    limits: &Limits,
) -> std::result::Result<Vec<u8>, InferError> {
    let expected = element_count(input.name, input.shape)?;
    let least = expected.saturating_mul(E::LEAST_SIZE);
    if least > limits.max_tensor_bytes {
        return Err(too_large(input, least, limits));
    }
    // An element takes at least a character and a comma: a shape that lies reserves no more than the body
    // could fill.
    let mut packed = Vec::with_capacity(expected.min(reader.remaining() / 2 + 1) * E::LEAST_SIZE);
    let outside = reader.depth();
    let mut count = 0;
    reader.begin_array()?;
    while reader.depth() > outside {
        if !reader.next_element()? {
            continue;
        }
        if reader.peek() == Some(b'[') {
            reader.begin_array()?;
            continue;
        }
        if count == expected {
            return Err(wrong_count(input, expected, format!("more than {expected}")));
        }
        let start = reader.position();
        if !E::read(reader, &mut packed)? {
            return Err(refused(reader.back_at(start), input, count));
        }
        count += 1;
        if packed.len() > limits.max_tensor_bytes {
            return Err(too_large(input, packed.len(), limits));
        }
    }
    if count < expected {
        return Err(wrong_count(input, expected, count.to_string()));
    }
    Ok(packed)
}

/// One element: how it reads, and how it is packed.
trait Element {
    /// The least bytes that one takes, packed.
    const LEAST_SIZE: usize;

    /// Appends the element that is next; `false`, with nothing appended, when the type has no such element.
    fn read(reader: &mut Reader, packed: &mut Vec<u8>) -> Result<bool>;
}

struct Boolean;

impl Element for Boolean {
    const LEAST_SIZE: usize = 1;

    fn read(reader: &mut Reader, packed: &mut Vec<u8>) -> Result<bool> {
        let value = match reader.peek() {
            Some(b't' | b'f') => u8::from(reader.boolean()?),
            Some(b'0'..=b'9') => match reader.number()?.to_integer() {
                Some(0) => 0,
                Some(1) => 1,
                _ => return Ok(false),
            },
            _ => return Ok(false),
        };
        packed.push(value);
        Ok(true)
    }
}

struct Integer<I>(PhantomData<I>);

impl<I: Little + TryFrom<i128>> Element for Integer<I> {
    const LEAST_SIZE: usize = size_of::<I>();

    #[inline(always)]
    fn read(reader: &mut Reader, packed: &mut Vec<u8>) -> Result<bool> {
        if !reader.at_number() {
            return Ok(false);
        }
        let Some(integer) = reader.number()?.to_integer().and_then(|integer| I::try_from(integer).ok())
        else {
            return Ok(false);
        };
        integer.pack(packed);
        Ok(true)
    }
}

struct Floating<F>(PhantomData<F>);

impl<F: Little + FromJson> Element for Floating<F> {
    const LEAST_SIZE: usize = size_of::<F>();

    #[inline(always)]
    fn read(reader: &mut Reader, packed: &mut Vec<u8>) -> Result<bool> {
        let value = if reader.at_number() {
            Some(F::from_decimal(reader.number()?)).filter(|value| value.is_finite())
        } else {
            reader.non_finite()?.map(F::from_non_finite)
        };
        let Some(value) = value else { return Ok(false) };
        value.pack(packed);
        Ok(true)
    }
}

struct ByteString;

impl Element for ByteString {
    const LEAST_SIZE: usize = size_of::<u32>();

    fn read(reader: &mut Reader, packed: &mut Vec<u8>) -> Result<bool> {
        if reader.peek() != Some(b'"') {
            return Ok(false);
        }
        let start = packed.len();
        packed.extend_from_slice(&[0; 4]);
        reader.string_into(packed)?;
        let length = packed.len() - start - 4;
        let Ok(length) = u32::try_from(length) else { return Ok(false) };
        packed[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Ok(true)
    }
}

/// A number with a little-endian form.
trait Little: Copy {
    fn pack(self, packed: &mut Vec<u8>);
}

macro_rules! little {
    ($($number:ty)*) => {$(
        impl Little for $number {
            #[inline]
            fn pack(self, packed: &mut Vec<u8>) {
                packed.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

little!(u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64);

/// A floating-point number as `data` may have it.
trait FromJson {
    fn from_decimal(decimal: Decimal) -> Self;
    fn from_non_finite(value: f64) -> Self;
    fn is_finite(&self) -> bool;
}

impl FromJson for f64 {
    #[inline]
    fn from_decimal(decimal: Decimal) -> f64 {
        decimal.to_f64()
    }

    fn from_non_finite(value: f64) -> f64 {
        value
    }

    #[inline]
    fn is_finite(&self) -> bool {
        f64::is_finite(*self)
    }
}

macro_rules! narrower_than_f64 {
    ($($float:ty)*) => {$(
        impl FromJson for $float {
            #[inline]
            fn from_decimal(decimal: Decimal) -> $float {
                decimal.to()
            }

            fn from_non_finite(value: f64) -> $float {
                <$float as Float>::round(value)
            }

            #[inline]
            fn is_finite(&self) -> bool {
                <$float>::is_finite(*self)
            }
        }
    )*};
}

narrower_than_f64!(f16 bf16 f32);

/// The error for the element at `start`, which `input` cannot hold.
#[cold]
fn refused(start: Reader, input: Declared, index: usize) -> InferError {
    let mut after = start;
    if let Err(malformed) = after.skip_data() {
        return malformed.into();
    }
    let value = excerpt(after.since(&start));
    let Declared { name, datatype, .. } = input;
    let takes = takes(datatype);
    InferError::invalid(format!("element {index} of input '{name}' is {value}, but {datatype} takes {takes}"))
}

/// The beginning of a value's text, short enough to be shown.
fn excerpt(text: &[u8]) -> String {
    const LONGEST: usize = 40;
    let text = String::from_utf8_lossy(text);
    let text = text.trim_ascii_start();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn takes(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "true, false, 0 and 1",
        DataType::Uint8 => "integers from 0 to 255",
        DataType::Uint16 => "integers from 0 to 65535",
        DataType::Uint32 => "integers from 0 to 4294967295",
        DataType::Uint64 => "integers from 0 to 18446744073709551615",
        DataType::Int8 => "integers from -128 to 127",
        DataType::Int16 => "integers from -32768 to 32767",
        DataType::Int32 => "integers from -2147483648 to 2147483647",
        DataType::Int64 => "integers from -9223372036854775808 to 9223372036854775807",
        DataType::Fp16 => "numbers from -65504 to 65504, \"NaN\", \"Infinity\" and \"-Infinity\"",
        DataType::Bf16 => {
            "numbers from -3.3895314e38 to 3.3895314e38, \"NaN\", \"Infinity\" and \"-Infinity\""
        }
        DataType::Fp32 => {
            "numbers from -3.4028235e38 to 3.4028235e38, \"NaN\", \"Infinity\" and \"-Infinity\""
        }
        DataType::Fp64 => {
            "numbers from -1.7976931348623157e308 to 1.7976931348623157e308, \"NaN\", \"Infinity\" and \
             \"-Infinity\""
        }
        DataType::Bytes => "strings",
    }
}

#[cold]
fn wrong_count(input: Declared, expected: usize, got: String) -> InferError {
    let Declared { name, datatype, shape } = input;
    InferError::WrongElementCount { input: name.to_owned(), datatype, shape: shape.clone(), got, expected }
}

#[cold]
fn too_large(input: Declared, bytes: usize, limits: &Limits) -> InferError {
    let Declared { name, datatype, shape } = input;
    InferError::TooLarge {
        what: format!("the JSON data of input '{name}' ({datatype} of shape {shape}: {bytes} bytes or more)"),
        limit: limits.max_tensor_bytes,
        option: "--http-max-input-size",
    }
}
