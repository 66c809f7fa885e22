//! An answer as text for people.

use std::fmt::Write;

use volley_client::input::shape_text;
use volley_client::{DataType, InferResponse, Tensor, TensorError, Value};

use super::table::{printable, table};

/// Elements of a row that are shown; of a longer row, the first ones and the last.
const SHOWN_IN_A_ROW: usize = 10;
/// Rows that are shown.
const SHOWN_ROWS: usize = 10;
/// Characters of a string that are shown.
const SHOWN_OF_A_STRING: usize = 60;

/// How the outputs were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// As they are.
    Values,
    /// With their highest values only, as `value:index[:label]`.
    Classes,
}

/// `response` as text.
pub(super) fn text(response: &InferResponse, asked: Asked) -> Result<String, TensorError> {
    let mut text = printable(&response.model_name);
    if let Some(version) = &response.model_version {
        write!(text, ", version {}", printable(version)).expect(INFALLIBLE);
    }
    text.push('\n');
    for output in &response.outputs {
        let (name, datatype) = (printable(&output.name), output.datatype);
        writeln!(text, "\n{name}  {datatype} {}", shape_text(&output.shape)).expect(INFALLIBLE);
        let classes = match asked {
            Asked::Classes => classes(output)?,
            Asked::Values => None,
        };
        text.push_str(&classes.map_or_else(|| values(output), Ok)?);
    }
    Ok(text)
}

const INFALLIBLE: &str = "writing to a string cannot fail";

/// A table of the classes in `output`; `None` when it holds something else.
fn classes(output: &Tensor) -> Result<Option<String>, TensorError> {
    if output.datatype != DataType::Bytes {
        return Ok(None);
    }
    let classes: Option<Vec<_>> = output.byte_strings()?.into_iter().map(class).collect();
    let Some(classes) = classes else { return Ok(None) };
    let row_length = row_length(output).max(1);
    let rows = classes.len().div_ceil(row_length);
    let mut text = String::new();
    for (index, row) in classes.chunks(row_length).enumerate().take(SHOWN_ROWS) {
        let mut lines = vec![["value", "index", "label"].map(str::to_owned).to_vec()];
        lines.extend(row.iter().cloned());
        if rows > 1 {
            writeln!(text, "  row {index}").expect(INFALLIBLE);
        }
        text.push_str(&table("  ", &lines));
    }
    text.push_str(&left_out(rows));
    Ok(Some(text))
}

/// The value, index and label of `value:index[:label]`.
fn class(bytes: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.splitn(3, ':').map(str::to_owned);
    let class = vec![parts.next()?, parts.next()?, parts.next().unwrap_or_default()];
    let numbers = class[0].parse::<f64>().is_ok() && class[1].parse::<u64>().is_ok();
    numbers.then_some(class)
}

/// The elements of `output`, a line for each row of its innermost dimension.
fn values(output: &Tensor) -> Result<String, TensorError> {
    let length = row_length(output);
    let count = output.element_count()?;
    if count == 0 {
        return Ok("  (no elements)\n".to_owned());
    }
    let rows = count.div_ceil(length.max(1));
    let outer = &output.shape[..output.shape.len().saturating_sub(1)];
    let mut elements = output.values()?;
    let mut text = String::new();
    for row in 0..rows.min(SHOWN_ROWS) {
        let row_text = self::row(elements.by_ref().take(length), length);
        let index = if rows > 1 { format!("{}  ", index_text(row, outer)) } else { String::new() };
        writeln!(text, "  {index}{row_text}").expect(INFALLIBLE);
    }
    text.push_str(&left_out(rows));
    Ok(text)
}

fn row<'a>(elements: impl Iterator<Item = Value<'a>>, length: usize) -> String {
    let mut text = String::new();
    for (index, element) in elements.enumerate() {
        if length > SHOWN_IN_A_ROW && (SHOWN_IN_A_ROW - 2..length - 1).contains(&index) {
            if index == SHOWN_IN_A_ROW - 2 {
                text.push_str("… ");
            }
            continue;
        }
        text.push_str(&abbreviated(element));
        text.push(' ');
    }
    if length > SHOWN_IN_A_ROW {
        write!(text, "({length} elements)").expect(INFALLIBLE);
    }
    text.trim_end().to_owned()
}

fn abbreviated(element: Value<'_>) -> String {
    let text = element.to_string();
    match text.char_indices().nth(SHOWN_OF_A_STRING) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn left_out(rows: usize) -> String {
    match rows.saturating_sub(SHOWN_ROWS) {
        0 => String::new(),
        1 => "  … and 1 more row\n".to_owned(),
        more => format!("  … and {more} more rows\n"),
    }
}

/// How many elements the innermost dimension has; 1 for a scalar.
fn row_length(output: &Tensor) -> usize {
    output.shape.last().map_or(1, |dim| usize::try_from(*dim).unwrap_or_default())
}

/// Where row number `row` is among the `outer` dimensions, such as `[0,2]`.
fn index_text(mut row: usize, outer: &[i64]) -> String {
    let mut index = vec![0; outer.len()];
    for (at, dim) in index.iter_mut().zip(outer).rev() {
        let dim = usize::try_from(*dim).unwrap_or(1).max(1);
        *at = i64::try_from(row % dim).unwrap_or_default();
        row /= dim;
    }
    shape_text(&index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: Asked, outputs: Vec<Tensor>, expected: &str) {
        let response = InferResponse {
            model_name: "digits".to_owned(),
            model_version: Some("2".to_owned()),
            outputs,
            ..InferResponse::default()
        };
        assert_eq!(text(&response, asked).unwrap(), expected);
    }

    #[test]
    fn values_are_shown_row_by_row() {
        check(
            Asked::Values,
            vec![
                Tensor::from_slice("label", &[1], &[7_i64]).unwrap(),
                Tensor::from_slice("score", &[2, 1, 2], &[0.5_f32, 1e-9, 2.0, 0.25]).unwrap(),
                Tensor::from_strings("name", &[2], &["sev\nen", &"x".repeat(99)]).unwrap(),
                Tensor::from_slice("scalar", &[], &[true]).unwrap(),
                Tensor::from_slice::<u8>("empty", &[0, 4], &[]).unwrap(),
            ],
            &format!(
                "digits, version 2\n\
                 \nlabel  INT64 [1]\n  7\n\
                 \nscore  FP32 [2,1,2]\n  [0,0]  0.5 1e-9\n  [1,0]  2.0 0.25\n\
                 \nname  BYTES [2]\n  \"sev\\nen\" \"{}…\n\
                 \nscalar  BOOL []\n  true\n\
                 \nempty  UINT8 [0,4]\n  (no elements)\n",
                "x".repeat(59)
            ),
        );
    }

    #[test]
    fn long_tensors_are_cut_in_both_directions() {
        let numbers: Vec<u16> = (0..144).collect();
        check(
            Asked::Values,
            vec![Tensor::from_slice("y", &[12, 12], &numbers).unwrap()],
            &format!(
                "digits, version 2\n\ny  UINT16 [12,12]\n{}  … and 2 more rows\n",
                (0..10)
                    .map(|row| {
                        let first: Vec<_> = (0..8).map(|at| (row * 12 + at).to_string()).collect();
                        format!("  [{row}]  {} … {} (12 elements)\n", first.join(" "), row * 12 + 11)
                    })
                    .collect::<String>()
            ),
        );
    }

    #[test]
    fn classes_are_a_table() {
        let strings = ["0.998000:7:seven", "0.001000:1:one"];
        check(
            Asked::Classes,
            vec![
                Tensor::from_strings("p", &[1, 2], &strings).unwrap(),
                Tensor::from_slice("label", &[1], &[7_i64]).unwrap(),
            ],
            "digits, version 2\n\
             \np  BYTES [1,2]\n  value     index  label\n  0.998000  7      seven\n  0.001000  1      one\n\
             \nlabel  INT64 [1]\n  7\n",
        );
        check(
            Asked::Classes,
            vec![Tensor::from_strings("p", &[2, 1], &["3:1", "4:0"]).unwrap()],
            "digits, version 2\n\
             \np  BYTES [2,1]\n  row 0\n  value  index  label\n  3      1\n  row 1\n  value  index  label\n  4      0\n",
        );
    }

    #[test]
    fn strings_that_are_no_classes_are_values() {
        check(
            Asked::Classes,
            vec![Tensor::from_strings("s", &[1], &["a:b"]).unwrap()],
            "digits, version 2\n\ns  BYTES [1]\n  \"a:b\"\n",
        );
    }
}
