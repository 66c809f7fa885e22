//! A JSON file that holds the elements of one tensor.

use anyhow::{Context, bail};
use serde_json::Value;

use super::Wanted;
use crate::Tensor;

/// The tensor for `wanted` whose elements `text` holds; its nesting is its shape.
pub(super) fn tensor(text: &str, wanted: Wanted<'_>) -> anyhow::Result<Tensor> {
    let elements: Value = serde_json::from_str(text).context("it is not JSON")?;
    if elements.is_object() {
        bail!("it is a JSON object, but {wanted}; write the elements as an array");
    }
    let mut shape = Vec::new();
    shape_of(&elements, 0, &mut shape)?;
    let shape = wanted.fit(&shape)?;
    // From the text and not from `elements`, so that no number is rounded twice.
    Ok(Tensor::from_json(&wanted.input.name, wanted.datatype()?, &shape, text)?)
}

/// Finds the length of every dimension from `depth` on. serde_json has bounded the depth.
fn shape_of(elements: &Value, depth: usize, shape: &mut Vec<i64>) -> anyhow::Result<()> {
    let Value::Array(rows) = elements else {
        if depth < shape.len() {
            bail!("its arrays differ in depth: {elements} stands where an array of {} should", shape[depth]);
        }
        return Ok(());
    };
    let length = i64::try_from(rows.len()).context("an array is too long")?;
    match shape.get(depth) {
        None => shape.push(length),
        Some(other) if *other == length => {}
        Some(other) => {
            bail!("its arrays differ in length: {other} and {length} elements in dimension {depth}")
        }
    }
    for (index, row) in rows.iter().enumerate() {
        if index > 0 && row.is_array() && shape.len() == depth + 1 {
            bail!("its arrays differ in depth: {row} stands beside {}", rows[0]);
        }
        shape_of(row, depth + 1, shape)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorMetadata;

    fn tensor_of(shape: &[i64], datatype: &str, text: &str) -> Result<Tensor, String> {
        let input =
            TensorMetadata { name: "x".to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() };
        tensor(text, Wanted { model: "m", input: &input }).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn nesting_is_shape() {
        let tensor = tensor_of(&[-1, 2], "FP32", "[[0.1, 2], [3, 4]]").unwrap();
        assert_eq!(tensor, Tensor::from_slice("x", &[2, 2], &[0.1_f32, 2.0, 3.0, 4.0]).unwrap());
        let tensor = tensor_of(&[-1, 2], "BYTES", r#"["a", "b"]"#).unwrap();
        assert_eq!(tensor, Tensor::from_strings("x", &[1, 2], &["a", "b"]).unwrap());
        let tensor = tensor_of(&[1], "INT64", "9223372036854775807").unwrap();
        assert_eq!(tensor, Tensor::from_slice("x", &[1], &[i64::MAX]).unwrap());
    }

    #[track_caller]
    fn refused(text: &str, reason: &str) {
        let error = tensor_of(&[-1, 2], "INT8", text).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn what_is_no_tensor_is_refused_with_its_values() {
        refused("[1,2", "it is not JSON: EOF");
        refused("[[1,2],[3]]", "its arrays differ in length: 2 and 1 elements in dimension 1");
        refused("[[1,2],3]", "its arrays differ in depth: 3 stands where an array of 2 should");
        refused("[1,[2]]", "its arrays differ in depth: [2] stands beside 1");
        refused("[1,2,3]", "its shape is [3], but input \"x\" of model \"m\" takes INT8 [-1,2]");
        refused("[1,300]", "300 is not of type INT8");
        refused(r#"{"data":[1,2]}"#, "write the elements as an array");
        refused(&"[".repeat(100_000), "recursion limit");
    }
}
