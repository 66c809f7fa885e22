//! The parameters of a request.

use std::borrow::Cow;

use model::{InferError, Parameter, Parameters};

use super::reader::Reader;
use crate::request_rules::check_parameter;

/// Reads the object that is next as the parameters of a request.
pub(super) fn read(reader: &mut Reader) -> Result<Parameters, InferError> {
    let mut parameters = Parameters::default();
    reader.begin_object()?;
    while let Some(name) = reader.next_key()? {
        if parameters.get(&name).is_some() {
            return Err(InferError::invalid(format!("parameter '{name}' occurs twice")));
        }
        Parameters::check_count(parameters.len() + 1)?;
        let value = read_value(reader, &name)?;
        check_parameter(&name, &value)?;
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
