//! An ONNX file as protobuf fields: no message of it is made, so that a large one is read once and not copied.

use prost::encoding::{WireType, decode_key, decode_varint};

/// The text of field `number` of `message`; empty when it is not there.
pub(crate) fn text(message: &[u8], number: u32) -> Result<&str, String> {
    for field in fields(message) {
        let field = field?;
        if field.number == number && field.is_message {
            return utf8(field.payload);
        }
    }
    Ok("")
}

/// A name in a graph.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a name in the graph is not UTF-8".to_owned())
}

/// One field of a protobuf message.
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    /// Key, length and payload.
    pub(crate) whole: &'a [u8],
    /// What follows the key, and the length when there is one.
    pub(crate) payload: &'a [u8],
    /// True for what has a length: messages, strings, bytes, packed numbers.
    pub(crate) is_message: bool,
}

/// The fields of `message`, in order; ends after the first error.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, String>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field.ok_or_else(|| "the file is not a valid ONNX model".to_owned()))
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let start = *rest;
    let mut at = *rest;
    let (number, wire_type) = decode_key(&mut at).ok()?;
    let length = match wire_type {
        WireType::LengthDelimited => usize::try_from(decode_varint(&mut at).ok()?).ok()?,
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::Varint => {
            let before = at.len();
            let mut end = at;
            decode_varint(&mut end).ok()?;
            before - end.len()
        }
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let payload = at.get(..length)?;
    *rest = &at[length..];
    let whole = &start[..start.len() - rest.len()];
    Some(Field { number, whole, payload, is_message: wire_type == WireType::LengthDelimited })
}
