//! The parameters of a request, and which values the reserved ones take.

use std::borrow::Cow;

use model::{InferError, Parameter, Parameters};

use super::reader::Reader;

/// More than any client has use for; keeps the search for a name that occurs twice short.
const MAX_PARAMETERS: usize = 256;

/// The one parameter with the reserved prefix that a client may set.
const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// Checks what the protocol says of the parameter `name` of a request.
///
/// # Errors
/// When the name is reserved, or has a meaning and `value` is not of its type.
pub fn check(name: &str, value: &Parameter) -> Result<(), InferError> {
    let (fits, takes) = match name {
        "sequence_id" => {
            (is_unsigned(value) || matches!(value, Parameter::String(_)), "an unsigned integer or a string")
        }
        "priority" | "timeout" => (is_unsigned(value), "an unsigned integer"),
        "sequence_start" | "sequence_end" | "binary_data_output" | EMPTY_FINAL_RESPONSE => {
            (matches!(value, Parameter::Bool(_)), "true or false")
        }
        _ if name.starts_with("triton_") => {
            return Err(InferError::invalid(format!(
                "parameter '{name}' is reserved: names that begin with 'triton_' are the server's own; choose \
                 another"
            )));
        }
        _ => return Ok(()),
    };
    if fits {
        return Ok(());
    }
    Err(InferError::invalid(format!("parameter '{name}' is {}, but takes {takes}", shown(value))))
}

fn is_unsigned(value: &Parameter) -> bool {
    matches!(value, Parameter::Int(0..) | Parameter::Uint(_))
}

fn shown(value: &Parameter) -> String {
    match value {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int(value) => value.to_string(),
        Parameter::Uint(value) => value.to_string(),
        Parameter::Double(value) => value.to_string(),
        Parameter::String(value) => format!("{:?}", value.chars().take(40).collect::<String>()),
    }
}

/// Reads the object that is next as the parameters of a request.
pub(super) fn read(reader: &mut Reader) -> Result<Parameters, InferError> {
    let mut parameters = Parameters::default();
    reader.begin_object()?;
    while let Some(name) = reader.next_key()? {
        if parameters.get(&name).is_some() {
            return Err(InferError::invalid(format!("parameter '{name}' occurs twice")));
        }
        if parameters.len() == MAX_PARAMETERS {
            return Err(InferError::invalid(format!(
                "the request has more than {MAX_PARAMETERS} parameters"
            )));
        }
        let value = read_value(reader, &name)?;
        check(&name, &value)?;
        parameters.insert(name, value);
    }
    Ok(parameters)
}

fn read_value(reader: &mut Reader, name: &str) -> Result<Parameter, InferError> {
    match reader.peek() {
        Some(b'"') => Ok(Parameter::String(reader.string()?.into_owned())),
        Some(b't' | b'f') => Ok(Parameter::Bool(reader.boolean()?)),
        Some(b'-' | b'0'..=b'9') => read_number(reader, name),
        _ => {
            reader.skip_value()?;
            Err(InferError::invalid(format!(
                "parameter '{name}' is null, an array or an object, but takes a string, a number, true or false"
            )))
        }
    }
}

fn read_number(reader: &mut Reader, name: &str) -> Result<Parameter, InferError> {
    let number = reader.number()?;
    if let Some(integer) = number.to_integer() {
        if let Ok(integer) = i64::try_from(integer) {
            return Ok(Parameter::Int(integer));
        }
        if let Ok(integer) = u64::try_from(integer) {
            return Ok(Parameter::Uint(integer));
        }
    }
    let double = number.to_f64();
    if number.is_integer() || double.is_infinite() {
        let text: Cow<str> = String::from_utf8_lossy(number.text);
        return Err(InferError::invalid(format!(
            "parameter '{name}' is {text:.40}, which is beyond the range of 64-bit numbers"
        )));
    }
    Ok(Parameter::Double(double))
}
