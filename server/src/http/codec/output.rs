//! One element of a request's `outputs`: which output, and how it is to come back.

use model::{InferError, RequestedOutput};
use smol_str::SmolStr;

use super::reader::Reader;

/// An output that a client asked for, and the form it wants it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// What was asked for.
    pub output: RequestedOutput,
    /// As binary data or as JSON; `None` leaves it to the request's default.
    pub binary: Option<bool>,
}

/// What the `parameters` of an output say.
#[derive(Debug, Default)]
struct Form {
    binary: Option<bool>,
    classification: Option<u32>,
    shared_memory: bool,
}

/// Reads the object that is next as the output at `index`.
pub(super) fn read_output(reader: &mut Reader, index: usize) -> Result<OutputSpec, InferError> {
    let mut name = None;
    let mut form = Form::default();
    reader.begin_object()?;
    while let Some(key) = reader.next_key()? {
        match &*key {
            "name" => {
                if name.replace(SmolStr::new(reader.string()?)).is_some() {
                    return Err(InferError::invalid(format!("output {index} has the key 'name' twice")));
                }
            }
            "parameters" if reader.null()? => {}
            "parameters" => form = read_form(reader, index)?,
            _ => reader.skip_value()?,
        }
    }
    let Some(name) = name else {
        return Err(InferError::invalid(format!("output {index} has no 'name'")));
    };
    refuse_shared_memory(&name, &form)?;
    Ok(OutputSpec {
        output: RequestedOutput { name, classification: form.classification },
        binary: form.binary,
    })
}

fn read_form(reader: &mut Reader, index: usize) -> Result<Form, InferError> {
    let mut form = Form::default();
    reader.begin_object()?;
    while let Some(key) = reader.next_key()? {
        match &*key {
            "binary_data" => form.binary = Some(reader.boolean()?),
            "classification" => form.classification = read_classification(reader, index)?,
            "shared_memory_region" => {
                reader.string()?;
                form.shared_memory = true;
            }
            _ => reader.skip_value()?,
        }
    }
    Ok(form)
}

/// The number of classes wanted; 0 asks for none, as leaving it out does.
fn read_classification(reader: &mut Reader, index: usize) -> Result<Option<u32>, InferError> {
    let number = reader.number()?;
    match number.to_integer().map(u32::try_from) {
        Some(Ok(count)) => Ok(Some(count).filter(|count| *count > 0)),
        _ => {
            let text = String::from_utf8_lossy(number.text);
            Err(InferError::invalid(format!(
                "output {index} asks for a classification of {text:.40}; it is the number of classes wanted"
            )))
        }
    }
}

fn refuse_shared_memory(name: &str, form: &Form) -> Result<(), InferError> {
    if !form.shared_memory {
        return Ok(());
    }
    let other = match form {
        Form { classification: Some(_), .. } => "classification",
        Form { binary: Some(true), .. } => "binary_data",
        _ => {
            return Err(InferError::unsupported(format!(
                "output '{name}' is wanted in a shared memory region, and shared memory regions are not \
                 available on this server; let it come back in the response"
            )));
        }
    };
    Err(InferError::invalid(format!(
        "output '{name}' asks for {other} and for a shared memory region; they exclude each other"
    )))
}
