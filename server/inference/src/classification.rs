//! The classification extension: the highest values of an output, as `value:index[:label]`.

use std::cmp::Ordering;
use std::fmt::Write;

use half::{bf16, f16};
use model::{DataType, Dims, InferError, Tensor, bytes_tensor, element_count};

/// An output may not have more elements than this to be classified (as in Triton).
const MAX_ELEMENTS: usize = 1_000_000;

/// The classes of an output by index, read from its `label_filename`: one label a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<String>);

impl Labels {
    /// The labels in `text`.
    pub fn parse(text: &str) -> Labels {
        Labels(text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect())
    }

    fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index).map(String::as_str).filter(|label| !label.is_empty())
    }
}

/// Replaces `tensor` by a BYTES tensor of shape `[batch,] min(count, n)`: for each item of the batch its
/// `count` highest values, highest first, equal ones by index, NaN last. Floats have six decimals.
///
/// # Errors
/// When the output holds byte strings or more than a million elements.
pub fn classify(
    tensor: &Tensor,
    count: u32,
    batched: bool,
    labels: Option<&Labels>,
) -> Result<Tensor, InferError> {
    let name = &tensor.name;
    let Some(size) = tensor.datatype.element_size() else {
        return Err(InferError::invalid(format!(
            "output '{name}' is BYTES, which has no order to classify by; request it without 'classification'"
        )));
    };
    let elements = element_count(&tensor.shape)
        .ok()
        .filter(|elements| *elements <= MAX_ELEMENTS && tensor.data.len() == elements * size)
        .ok_or_else(|| {
            InferError::invalid(format!(
                "output '{name}' of shape {} has too many elements to classify (at most {MAX_ELEMENTS})",
                tensor.shape
            ))
        })?;
    let batch = if batched { tensor.shape.first().copied().unwrap_or(1) } else { 1 };
    let items = usize::try_from(batch).unwrap_or(0);
    let per_item = elements.checked_div(items).unwrap_or(0);
    let kept = per_item.min(count as usize);

    let mut data = Vec::new();
    for item in 0..items {
        let bytes = &tensor.data[item * per_item * size..(item + 1) * per_item * size];
        for (index, value) in highest(tensor.datatype, bytes, size, kept) {
            bytes_tensor::push(&mut data, entry(value, index, labels).as_bytes());
        }
    }
    // `kept` is at most a million.
    let kept = i64::try_from(kept).unwrap_or(i64::MAX);
    let shape = if batched { Dims::new(&[batch, kept]) } else { Dims::new(&[kept]) };
    Ok(Tensor { name: name.clone(), datatype: DataType::Bytes, shape, data: data.into() })
}

/// A number of any type, compared without loss.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Integer(i128),
    Float(f64),
}

impl Value {
    /// Highest first, NaN last.
    fn descending(self, other: Value) -> Ordering {
        match (self, other) {
            (Value::Integer(a), Value::Integer(b)) => b.cmp(&a),
            (Value::Float(a), Value::Float(b)) => {
                b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
            // One tensor has values of one type.
            (Value::Integer(_), Value::Float(_)) | (Value::Float(_), Value::Integer(_)) => Ordering::Equal,
        }
    }
}

fn highest(datatype: DataType, bytes: &[u8], size: usize, kept: usize) -> Vec<(usize, Value)> {
    let order = |a: &(usize, Value), b: &(usize, Value)| a.1.descending(b.1).then(a.0.cmp(&b.0));
    let mut values: Vec<(usize, Value)> =
        bytes.chunks_exact(size).map(|element| value(datatype, element)).enumerate().collect();
    if kept > 0 && kept < values.len() {
        values.select_nth_unstable_by(kept - 1, order);
        values.truncate(kept);
    }
    values.sort_unstable_by(order);
    values
}

fn value(datatype: DataType, element: &[u8]) -> Value {
    let mut wide = [0_u8; 8];
    wide[..element.len()].copy_from_slice(element);
    let [a, b, c, d, ..] = wide;
    match datatype {
        DataType::Bool | DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => {
            Value::Integer(i128::from(u64::from_le_bytes(wide)))
        }
        DataType::Int8 => Value::Integer(i128::from(i8::from_le_bytes([a]))),
        DataType::Int16 => Value::Integer(i128::from(i16::from_le_bytes([a, b]))),
        DataType::Int32 => Value::Integer(i128::from(i32::from_le_bytes([a, b, c, d]))),
        DataType::Int64 => Value::Integer(i128::from(i64::from_le_bytes(wide))),
        DataType::Fp16 => Value::Float(f16::from_le_bytes([a, b]).to_f64()),
        DataType::Bf16 => Value::Float(bf16::from_le_bytes([a, b]).to_f64()),
        DataType::Fp32 => Value::Float(f64::from(f32::from_le_bytes([a, b, c, d]))),
        DataType::Fp64 => Value::Float(f64::from_le_bytes(wide)),
        DataType::Bytes => unreachable!("byte strings are refused before their values are read"),
    }
}

fn entry(value: Value, index: usize, labels: Option<&Labels>) -> String {
    let mut entry = match value {
        Value::Integer(value) => format!("{value}:{index}"),
        Value::Float(value) => format!("{value:.6}:{index}"),
    };
    if let Some(label) = labels.and_then(|labels| labels.get(index)) {
        // Writing to a String cannot fail.
        let _ = write!(entry, ":{label}");
    }
    entry
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tensor(datatype: DataType, shape: &[i64], data: Vec<u8>) -> Tensor {
        Tensor { name: "scores".into(), datatype, shape: Dims::new(shape), data: Bytes::from(data) }
    }

    fn fp32(shape: &[i64], values: &[f32]) -> Tensor {
        tensor(DataType::Fp32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    #[track_caller]
    fn check(
        tensor: &Tensor,
        count: u32,
        batched: bool,
        labels: Option<&Labels>,
        shape: &[i64],
        expected: &[&str],
    ) {
        let classes = classify(tensor, count, batched, labels).unwrap();
        assert_eq!((classes.datatype, &*classes.shape), (DataType::Bytes, shape));
        let entries: Vec<_> = bytes_tensor::elements(&classes.data)
            .map(|entry| std::str::from_utf8(entry.unwrap()).unwrap())
            .collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn the_highest_come_first_with_their_labels() {
        let labels = Labels::parse("cat\r\ndog\n\n");
        let scores = fp32(&[1, 4], &[0.1, 0.7, 0.15, 0.05]);
        check(&scores, 3, true, Some(&labels), &[1, 3], &["0.700000:1:dog", "0.150000:2", "0.100000:0:cat"]);
        check(&scores, 9, true, None, &[1, 4], &["0.700000:1", "0.150000:2", "0.100000:0", "0.050000:3"]);
    }

    #[test]
    fn each_item_of_a_batch_has_its_own_classes() {
        let scores = fp32(&[2, 2], &[1.0, 2.0, 4.0, 3.0]);
        check(&scores, 1, true, None, &[2, 1], &["2.000000:1", "4.000000:0"]);
        check(&scores, 1, false, None, &[1], &["4.000000:2"]);
        check(&fp32(&[0, 2], &[]), 1, true, None, &[0, 0], &[]);
    }

    #[test]
    fn equal_values_keep_their_order_and_nan_is_last() {
        check(
            &fp32(&[4], &[1.0, f32::NAN, 1.0, 2.0]),
            4,
            false,
            None,
            &[4],
            &["2.000000:3", "1.000000:0", "1.000000:2", "NaN:1"],
        );
    }

    #[test]
    fn every_number_type_can_be_classified() {
        for datatype in DataType::ALL.into_iter().filter(|datatype| *datatype != DataType::Bytes) {
            let size = datatype.element_size().unwrap();
            let classes = classify(&tensor(datatype, &[2], vec![0; 2 * size]), 1, false, None);
            assert!(classes.is_ok(), "{datatype}");
        }
        check(&tensor(DataType::Int8, &[2], vec![0xff, 1]), 2, false, None, &[2], &["1:1", "-1:0"]);
        let large = [u64::MAX, 3].iter().flat_map(|value| value.to_le_bytes()).collect();
        check(&tensor(DataType::Uint64, &[2], large), 1, false, None, &[1], &["18446744073709551615:0"]);
    }

    #[test]
    fn strings_and_huge_outputs_are_refused_by_name() {
        let strings = classify(&tensor(DataType::Bytes, &[0], vec![]), 1, false, None).unwrap_err();
        assert!(strings.to_string().contains("output 'scores' is BYTES"), "{strings}");
        let huge =
            classify(&tensor(DataType::Bool, &[1_000_001], vec![0; 1_000_001]), 1, false, None).unwrap_err();
        assert!(huge.to_string().contains("[1000001]"), "{huge}");
    }
}
