//! `config.pbtxt`, the protobuf text format of [`ModelConfig`]: read with errors that point at the place, and written.
//!
//! Accepts what Triton accepts, including `input [ { … } ]` without a colon. It is lenient in one
//! respect: the colon may also be left out before a list of plain values.

use std::fmt;

use miette::Diagnostic;
use prost_reflect::{DynamicMessage, text_format::ParseError};

use crate::{ModelConfig, descriptors, model_config_descriptor};
use scan::Scan;

mod scan;

/// Longest configuration that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Deepest nesting of braces and brackets that is read. A valid configuration needs less than 20.
pub const MAX_DEPTH: usize = 64;

/// Longest name or sentence repeated in an error, in characters.
const MAX_QUOTED: usize = 200;

/// Why a configuration could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct ConfigTextError {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A field that the message does not have.
    #[error("{message} has no field {name:?}{}", Nearest(.nearest))]
    UnknownField {
        /// The unknown name.
        name: String,
        /// The message it was found in.
        message: String,
        /// The field of that message whose name is most alike; none if it has no fields.
        nearest: Option<String>,
    },
    /// An enum value that the enum does not have.
    #[error("{of} has no value {name:?}{}", Nearest(.nearest))]
    UnknownEnumValue {
        /// The unknown name.
        name: String,
        /// The enum.
        of: String,
        /// The value of that enum whose name is most alike.
        nearest: Option<String>,
    },
    /// More nesting than any configuration needs.
    #[error("nested more than {MAX_DEPTH} deep, which no model configuration needs; check the braces")]
    TooDeep,
    /// More text than any configuration needs.
    #[error("the file has {bytes} bytes, but a model configuration may have {MAX_BYTES} at most")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Anything else, as a sentence.
    #[error("{0}")]
    Syntax(String),
}

/// Reads a configuration. `file` is only used to name it in errors.
pub fn parse(text: &str, file: &str) -> Result<ModelConfig, ConfigTextError> {
    let error_at = |offset: usize, problem: Problem| {
        let (line, column) = line_and_column(text, offset);
        ConfigTextError { file: file.to_owned(), line, column, problem }
    };
    if text.len() > MAX_BYTES {
        return Err(error_at(0, Problem::TooLong { bytes: text.len() }));
    }
    let scan = Scan::of(text, MAX_DEPTH).map_err(|too_deep| error_at(too_deep.offset, Problem::TooDeep))?;
    let message =
        DynamicMessage::parse_text_format(model_config_descriptor(), &scan.text).map_err(|error| {
            let (offset, problem) = explain(&error, text, &scan);
            error_at(offset, problem)
        })?;
    Ok(message.transcode_to().expect("a message of ModelConfig's descriptor is a ModelConfig"))
}

/// Writes a configuration, so that [`parse`] reads it as it is.
pub fn print(config: &ModelConfig) -> String {
    let mut message = DynamicMessage::new(model_config_descriptor());
    message.transcode_from(config).expect("a ModelConfig is a message of its own descriptor");
    message.to_text_format()
}

/// Where in `text` the parser stopped, and why.
fn explain(error: &ParseError, text: &str, scan: &Scan) -> (usize, Problem) {
    let sentence = error.to_string();
    let Some(label) = error.labels().and_then(|mut labels| labels.next()) else {
        return (text.len(), Problem::Syntax(at_the_end(sentence, text, scan)));
    };
    let offset = scan.original_offset(label.offset());
    let found = scan.text.get(label.offset()..).unwrap_or_default();
    let problem = unknown_field(&sentence)
        .or_else(|| unknown_enum_value(&sentence))
        .unwrap_or_else(|| Problem::Syntax(syntax(&sentence, found)));
    (offset, problem)
}

/// The parser keeps the names to itself and gives a sentence; the names in it hold no quotes.
fn quoted<'a>(sentence: &'a str, before: &str, between: &str) -> Option<(&'a str, &'a str)> {
    sentence.strip_prefix(before)?.strip_suffix('\'')?.split_once(between)
}

fn unknown_field(sentence: &str) -> Option<Problem> {
    let (name, message) = quoted(sentence, "field '", "' not found for message '")?;
    let descriptor = descriptors().get_message_by_name(message)?;
    let fields = descriptor.fields().map(|field| field.name().to_owned());
    Some(Problem::UnknownField {
        name: shorten(name),
        message: without_package(message),
        nearest: nearest(name, fields),
    })
}

fn unknown_enum_value(sentence: &str) -> Option<Problem> {
    let (name, of) = quoted(sentence, "value '", "' was not found for enum '")?;
    let descriptor = descriptors().get_enum_by_name(of)?;
    let values = descriptor.values().map(|value| value.name().to_owned());
    Some(Problem::UnknownEnumValue {
        name: shorten(name),
        of: without_package(of),
        nearest: nearest(name, values),
    })
}

/// The parser does not repeat the characters it cannot read; `found` begins with them.
fn syntax(sentence: &str, found: &str) -> String {
    let characters = match sentence {
        "invalid token" | "invalid string character" => 1,
        "invalid string escape" => 2,
        _ => return shorten(sentence),
    };
    format!("{sentence} {:?}", found.chars().take(characters).collect::<String>())
}

/// A brace left open is only noticed at the end of the text: say where it was opened.
fn at_the_end(sentence: String, text: &str, scan: &Scan) -> String {
    match scan.innermost_open {
        Some(offset) => {
            let (line, column) = line_and_column(text, offset);
            let bracket = &text[offset..=offset];
            format!("{sentence}; the '{bracket}' at {line}:{column} is not closed")
        }
        None => sentence,
    }
}

fn without_package(full_name: &str) -> String {
    full_name.strip_prefix("inference.").unwrap_or(full_name).to_owned()
}

/// The candidate most alike, whatever the case of its letters.
fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let name = shorten(name).to_lowercase();
    let likeness =
        |candidate: &String| strsim::normalized_damerau_levenshtein(&name, &candidate.to_lowercase());
    candidates.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

struct Nearest<'a>(&'a Option<String>);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "; the nearest is {name:?}"),
            None => write!(f, "; it has none at all"),
        }
    }
}

#[cfg(test)]
mod tests;
