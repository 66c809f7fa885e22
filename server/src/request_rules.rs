//! What the protocol says of a request, whichever way it came.

use std::fmt::Display;

use model::{InferError, ModelVersion, Parameter};
use smallvec::SmallVec;

/// Most inputs, and most outputs, of a request. No model has as many; what a request makes the server hold
/// grows with them.
const MAX_TENSORS: usize = 1024;

/// Most dimensions of a shape: more than any runtime has; numpy stops at 64.
const MAX_DIMENSIONS: usize = 64;

/// # Errors
/// When `count` of `what` are more than a request may have.
pub fn check_tensor_count(what: &str, count: usize) -> Result<(), InferError> {
    if count <= MAX_TENSORS {
        return Ok(());
    }
    Err(InferError::invalid(format!("the request has more than {MAX_TENSORS} {what}")))
}

/// # Errors
/// When the shape of `tensor` has more dimensions than a shape may have.
pub fn check_dimensions(tensor: &impl Display, count: usize) -> Result<(), InferError> {
    if count <= MAX_DIMENSIONS {
        return Ok(());
    }
    Err(InferError::invalid(format!("{tensor} has a shape of more than {MAX_DIMENSIONS} dimensions")))
}

/// The version that `text` names; empty names none. Leading zeros are passed over.
///
/// # Errors
/// When it is no positive integer, or beyond 64 bits.
pub fn parse_version(text: &str) -> Result<Option<ModelVersion>, InferError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.trim_start_matches('0').parse().map(Some).map_err(|_| {
        let text: String = text.chars().take(40).collect();
        InferError::invalid(format!(
            "failed to get model version from specified version string '{text}': a version is an integer from 1 \
             to {}",
            u64::MAX
        ))
    })
}

/// Refuses tensors of the same name; by sorting, for a client may send any number of names.
///
/// # Errors
/// When a name occurs twice; the error names it.
pub fn refuse_duplicates<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), InferError> {
    let mut names: SmallVec<[&str; 8]> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(InferError::invalid(format!("{what} '{}' occurs twice in the request", pair[0]))),
        None => Ok(()),
    }
}

/// The one parameter with the reserved prefix that a client may set.
const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// Checks what the protocol says of the parameter `name` of a request.
///
/// # Errors
/// When the name is reserved, or has a meaning and `value` is not of its type.
pub fn check_parameter(name: &str, value: &Parameter) -> Result<(), InferError> {
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

/// So much of a name as an error shows.
pub fn shortened(name: &str) -> String {
    name.chars().take(80).collect()
}

/// The refusal of a parameter `name` that no load takes.
pub fn unknown_load_parameter(name: &str) -> InferError {
    InferError::invalid(format!(
        "the parameter '{}' is not one of a load: it takes 'config', and 'file:PATH' for each file",
        shortened(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_positive_integers_of_64_bits() {
        let version = |text| parse_version(text).map(|version| version.map(ModelVersion::get));
        assert_eq!(version(""), Ok(None));
        assert_eq!(version("17"), Ok(Some(17)));
        assert_eq!(version("0017"), Ok(Some(17)));
        assert_eq!(version("18446744073709551615"), Ok(Some(u64::MAX)));
        for bad in ["0", "000", "-1", "+1", "1.0", "one", " 1", "18446744073709551616"] {
            let told = version(bad).unwrap_err().to_string();
            assert!(told.contains(&format!("'{bad}'")), "{told}");
        }
    }
}
