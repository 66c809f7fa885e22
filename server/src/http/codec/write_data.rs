//! The packed bytes of a tensor as a flat JSON array.

use std::str::Utf8Error;

use half::{bf16, f16};
use model::DataType;
use model::bytes_tensor::{self, InvalidPacking};

use super::reader::plain_length;
use super::short_float::shortest;

/// Why a tensor cannot be written as JSON. Only elements of BYTES can be at fault.
#[derive(Debug)]
pub(super) enum Unwritable {
    NotUtf8 { element: usize, error: Utf8Error },
    Packing(InvalidPacking),
}

/// Characters that an element takes, with its comma: a guess, so that the buffer seldom grows.
pub(super) fn usual_length(datatype: DataType, data: &[u8]) -> usize {
    let elements = |size: usize| data.len() / size;
    match datatype {
        DataType::Bool => elements(1) * 6,
        DataType::Uint8 | DataType::Int8 => elements(1) * 4,
        DataType::Uint16 | DataType::Int16 => elements(2) * 6,
        DataType::Fp16 | DataType::Bf16 => elements(2) * 9,
        DataType::Uint32 | DataType::Int32 => elements(4) * 8,
        DataType::Fp32 => elements(4) * 13,
        DataType::Uint64 | DataType::Int64 => elements(8) * 12,
        DataType::Fp64 => elements(8) * 21,
        DataType::Bytes => data.len() + data.len() / 8,
    }
}

/// Appends the elements of `data` as an array.
pub(super) fn write_data(json: &mut Vec<u8>, datatype: DataType, data: &[u8]) -> Result<(), Unwritable> {
    json.push(b'[');
    match datatype {
        DataType::Bool => write_elements(json, data, |json, [byte]| {
            json.extend_from_slice(if byte == 0 { b"false," } else { b"true," });
        }),
        DataType::Uint8 => write_elements(json, data, |json, bytes| integer(json, u8::from_le_bytes(bytes))),
        DataType::Uint16 => {
            write_elements(json, data, |json, bytes| integer(json, u16::from_le_bytes(bytes)))
        }
        DataType::Uint32 => {
            write_elements(json, data, |json, bytes| integer(json, u32::from_le_bytes(bytes)))
        }
        DataType::Uint64 => {
            write_elements(json, data, |json, bytes| integer(json, u64::from_le_bytes(bytes)))
        }
        DataType::Int8 => write_elements(json, data, |json, bytes| integer(json, i8::from_le_bytes(bytes))),
        DataType::Int16 => write_elements(json, data, |json, bytes| integer(json, i16::from_le_bytes(bytes))),
        DataType::Int32 => write_elements(json, data, |json, bytes| integer(json, i32::from_le_bytes(bytes))),
        DataType::Int64 => write_elements(json, data, |json, bytes| integer(json, i64::from_le_bytes(bytes))),
        DataType::Fp16 => write_elements(json, data, |json, bytes| {
            let value = f16::from_le_bytes(bytes);
            float(json, if value.is_finite() { shortest(value) } else { value.to_f64() });
        }),
        DataType::Fp32 => write_elements(json, data, |json, bytes| float(json, f32::from_le_bytes(bytes))),
        DataType::Fp64 => write_elements(json, data, |json, bytes| float(json, f64::from_le_bytes(bytes))),
        DataType::Bytes => write_strings(json, data)?,
        DataType::Bf16 => write_elements(json, data, |json, bytes| {
            let value = bf16::from_le_bytes(bytes);
            float(json, if value.is_finite() { shortest(value) } else { value.to_f64() });
        }),
    }
    if json.last() == Some(&b',') {
        json.pop();
    }
    json.push(b']');
    Ok(())
}

/// Has `write` append each element and a comma.
#[inline]
fn write_elements<const SIZE: usize>(
    json: &mut Vec<u8>,
    data: &[u8],
    write: impl Fn(&mut Vec<u8>, [u8; SIZE]),
) {
    let (elements, _) = data.as_chunks::<SIZE>();
    for element in elements {
        write(json, *element);
    }
}

fn write_strings(json: &mut Vec<u8>, data: &[u8]) -> Result<(), Unwritable> {
    for (element, string) in bytes_tensor::elements(data).enumerate() {
        let string = string.map_err(Unwritable::Packing)?;
        let string = std::str::from_utf8(string).map_err(|error| Unwritable::NotUtf8 { element, error })?;
        write_string(json, string);
        json.push(b',');
    }
    Ok(())
}

#[inline]
fn integer(json: &mut Vec<u8>, value: impl itoa::Integer) {
    json.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    json.push(b',');
}

#[inline]
fn float<F: zmij::Float + Into<f64> + Copy>(json: &mut Vec<u8>, value: F) {
    write_float(json, value);
    json.push(b',');
}

/// Appends the shortest text that reads back as `value`.
#[inline]
pub(super) fn write_float<F: zmij::Float + Into<f64> + Copy>(json: &mut Vec<u8>, value: F) {
    if value.into().is_finite() {
        json.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        json.extend_from_slice(non_finite(value.into()));
    }
}

#[cold]
fn non_finite(value: f64) -> &'static [u8] {
    if value.is_nan() {
        b"\"NaN\""
    } else if value > 0.0 {
        b"\"Infinity\""
    } else {
        b"\"-Infinity\""
    }
}

/// Appends `text` as a JSON string.
pub(super) fn write_string(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, after) = rest.split_at(plain_length(rest));
        json.extend_from_slice(plain);
        let Some((&byte, after)) = after.split_first() else { break };
        write_escape(json, byte);
        rest = after;
    }
    json.push(b'"');
}

fn write_escape(json: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => json.extend_from_slice(b"\\\""),
        b'\\' => json.extend_from_slice(b"\\\\"),
        b'\n' => json.extend_from_slice(b"\\n"),
        b'\r' => json.extend_from_slice(b"\\r"),
        b'\t' => json.extend_from_slice(b"\\t"),
        _ => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
    }
}
