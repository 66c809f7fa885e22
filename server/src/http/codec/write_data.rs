//! The packed bytes of a tensor as a flat JSON array.

use std::str::Utf8Error;

use half::{bf16, f16};
use model::DataType;
use model::bytes_tensor::{self, InvalidPacking};

use super::fp32;
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
        // And the room in which the last of them are written.
        DataType::Fp32 => elements(4) * 13 + elements(4).min(FP32_AT_ONCE) * (fp32::PLACE - 13),
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
        DataType::Fp16 => write_floats(json, data, |bytes| {
            let value = f16::from_le_bytes(bytes);
            if value.is_finite() { shortest(value) } else { value.to_f64() }
        }),
        DataType::Fp32 => write_fp32(json, data),
        DataType::Fp64 => write_floats(json, data, f64::from_le_bytes),
        DataType::Bytes => write_strings(json, data)?,
        DataType::Bf16 => write_floats(json, data, |bytes| {
            let value = bf16::from_le_bytes(bytes);
            if value.is_finite() { shortest(value) } else { value.to_f64() }
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

/// FP32 for which room is made at once.
const FP32_AT_ONCE: usize = 64;

/// Appends each element and a comma. The texts of a few are written into room made for all of them at once.
fn write_fp32(json: &mut Vec<u8>, data: &[u8]) {
    let (elements, _) = data.as_chunks();
    for elements in elements.chunks(FP32_AT_ONCE) {
        let start = json.len();
        json.resize(start + elements.len() * fp32::PLACE, 0);
        let mut at = start;
        for element in elements {
            at += write_one(&mut json[at..], f32::from_le_bytes(*element));
        }
        json.truncate(at);
    }
}

/// Writes a number and a comma at the start of `room`, and returns how long they are.
#[inline(always)]
fn write_one(room: &mut [u8], value: f32) -> usize {
    let length = room.first_chunk_mut().and_then(|place| fp32::write(place, value)).unwrap_or_else(|| {
        let mut buffer = zmij::Buffer::new();
        let text = float_text(&mut buffer, value);
        room[..text.len()].copy_from_slice(text);
        text.len()
    });
    room[length] = b',';
    length + 1
}

/// Appends each element and a comma, as `value` reads them.
#[inline]
fn write_floats<const SIZE: usize, F: zmij::Float + Into<f64> + Copy>(
    json: &mut Vec<u8>,
    data: &[u8],
    value: impl Fn([u8; SIZE]) -> F,
) {
    write_elements(json, data, |json, element| {
        write_short(json, float_text(&mut zmij::Buffer::new(), value(element)));
        json.push(b',');
    });
}

/// Appends a text of a few bytes. A copy whose length the compiler does not know is a call that costs as much as
/// finding the digits does, so sixteen bytes are always written, and those that are too many cut off.
#[inline(always)]
fn write_short(json: &mut Vec<u8>, text: &[u8]) {
    let Some(sixteen) = sixteen(text) else { return json.extend_from_slice(text) };
    let length = json.len() + text.len();
    json.extend_from_slice(&sixteen.to_le_bytes());
    json.truncate(length);
}

/// A text of 4 to 16 bytes as the lowest bytes of an integer.
#[inline(always)]
fn sixteen(text: &[u8]) -> Option<u128> {
    let length = text.len();
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let shift = 8 * (length - 8);
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        return (length <= 16).then(|| u128::from(first) | u128::from(last) << shift);
    }
    let (first, last) = (text.first_chunk()?, text.last_chunk()?);
    let shift = 8 * (length - 4);
    let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
    Some(u128::from(u64::from(first) | u64::from(last) << shift))
}

/// Appends the shortest text that reads back as `value`.
#[inline]
pub(super) fn write_float<F: zmij::Float + Into<f64> + Copy>(json: &mut Vec<u8>, value: F) {
    json.extend_from_slice(float_text(&mut zmij::Buffer::new(), value));
}

#[inline]
fn float_text<F: zmij::Float + Into<f64> + Copy>(buffer: &mut zmij::Buffer, value: F) -> &[u8] {
    if value.into().is_finite() { buffer.format_finite(value).as_bytes() } else { non_finite(value.into()) }
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
