//! What the protocol says of a request, whichever way it came.

use model::{InferError, Parameter};
use smallvec::SmallVec;

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
