//! An array as requests: a whole tensor when the model takes it so, else one request for each batch of its rows.

use anyhow::{Context, bail, ensure};
use volley_client::input::{Array, Wanted, shape_text};
use volley_client::{DataType, Tensor, TensorMetadata};

/// Requests that one array makes.
const MAX_ROWS: usize = 1 << 20;

/// The tensors called `name` that `array` is, each of `batch` rows (1 when not given).
///
/// `input` is what the model takes, when that is known. Without it, rows are in the array's first dimension.
///
/// # Errors
/// When the array is of another type or shape than the model takes, or its rows do not make whole batches.
pub(super) fn tensors(
    array: &Array,
    name: &str,
    (model, input): (&str, Option<&TensorMetadata>),
    batch: Option<i64>,
) -> anyhow::Result<Vec<Tensor>> {
    // An array without elements may say that it has any number of rows.
    ensure!(
        !array.shape.contains(&0),
        "its shape is {}: without elements there is nothing to send",
        shape_text(&array.shape)
    );
    let whole = Tensor::new(name, array.datatype, &array.shape, array.data.clone())?;
    let Some(input) = input else {
        return cut(&whole, batch.unwrap_or(1), true);
    };
    let wanted = Wanted { model, input };
    if input.datatype != array.datatype.name() || array.shape.len() < input.shape.len() {
        // A single item without its batch dimension, or what it says is wrong.
        return Ok(vec![array.tensor(wanted)?]);
    }
    if array.shape.len() == input.shape.len() + 1 {
        ensure!(batch.unwrap_or(1) == 1, "{wanted}, which has no batch dimension for --batch");
        wanted.fit(&array.shape[1..]).context("its rows do not fit")?;
        return cut(&whole, 1, false);
    }
    wanted.fit(&array.shape)?;
    if input.shape.first() == Some(&-1) { cut(&whole, batch.unwrap_or(1), true) } else { Ok(vec![whole]) }
}

/// Pieces of `batch` rows; with `batched` false, of one row without its first dimension.
fn cut(whole: &Tensor, batch: i64, batched: bool) -> anyhow::Result<Vec<Tensor>> {
    let Some((rows, item)) = whole.shape.split_first() else { return Ok(vec![whole.clone()]) };
    ensure!(batch > 0, "a batch of {batch} holds nothing");
    if *rows == 0 || rows % batch != 0 {
        bail!("its shape is {}, whose {rows} rows make no batches of {batch}", shape_text(&whole.shape));
    }
    let shape = if batched { [&[batch], item].concat() } else { item.to_vec() };
    let pieces = usize::try_from(rows / batch).ok().filter(|pieces| *pieces <= MAX_ROWS);
    let pieces = pieces.with_context(|| {
        format!(
            "it makes {} requests, and at most {MAX_ROWS} are taken: leave some out, or give a --batch",
            rows / batch
        )
    })?;
    let piece = |number: usize, count: usize, data| {
        Tensor::new(&whole.name, whole.datatype, &shape, data)
            .with_context(|| format!("its rows {} and on", number * count))
    };
    if whole.datatype != DataType::Bytes {
        let size = whole.data.len() / pieces;
        return (0..pieces)
            .map(|number| piece(number, size, whole.data.slice(number * size..(number + 1) * size)))
            .collect();
    }
    let strings = whole.byte_strings()?;
    let count = strings.len() / pieces;
    let packed = |number: usize| {
        Tensor::from_strings("", &[i64::try_from(count)?], &strings[number * count..(number + 1) * count])
            .map_err(anyhow::Error::from)
    };
    (0..pieces).map(|number| piece(number, count, packed(number)?.data)).collect()
}

/// Tensors of one row each as one tensor of as many rows.
///
/// # Errors
/// When they differ in anything but their elements, or have no batch dimension.
pub(super) fn stacked(tensors: &[Tensor]) -> anyhow::Result<Tensor> {
    let first = tensors.first().context("nothing makes no batch")?;
    let mut shape = first.shape.clone();
    ensure!(
        tensors.len() == 1 || shape.first() == Some(&1),
        "{:?} has shape {} and no batch dimension",
        first.name,
        shape_text(&shape)
    );
    if let Some(other) = tensors.iter().find(|tensor| tensor.shape != first.shape) {
        bail!("a batch holds shapes {} and {}", shape_text(&shape), shape_text(&other.shape));
    }
    if let Some(dim) = shape.first_mut().filter(|_| tensors.len() > 1) {
        *dim = i64::try_from(tensors.len())?;
    }
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.data.iter().copied()).collect();
    Ok(Tensor::new(&first.name, first.datatype, &shape, data)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[i64]) -> Array {
        let data: Vec<u8> = (0..u8::try_from(shape.iter().product::<i64>()).unwrap()).collect();
        Array { datatype: DataType::Uint8, shape: shape.to_vec(), data }
    }

    fn shapes(takes: Option<&[i64]>, shape: &[i64], batch: Option<i64>) -> Result<Vec<Vec<i64>>, String> {
        let input = takes.map(|takes| TensorMetadata {
            name: "x".into(),
            datatype: "UINT8".into(),
            shape: takes.to_vec(),
        });
        let tensors = tensors(&array(shape), "x", ("m", input.as_ref()), batch);
        let tensors = tensors.map_err(|error| format!("{error:#}"))?;
        let joined: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.data.to_vec()).collect();
        assert_eq!(joined, array(shape).data, "every row is in one request");
        Ok(tensors.into_iter().map(|tensor| tensor.shape).collect())
    }

    #[test]
    fn rows_become_requests() {
        assert_eq!(shapes(None, &[3, 2], None), Ok(vec![vec![1, 2]; 3]));
        assert_eq!(shapes(None, &[4, 2], Some(2)), Ok(vec![vec![2, 2]; 2]));
        assert_eq!(shapes(Some(&[-1, 2]), &[4, 2], Some(4)), Ok(vec![vec![4, 2]]));
        assert_eq!(shapes(Some(&[-1, 2]), &[2], None), Ok(vec![vec![1, 2]]));
        assert_eq!(shapes(Some(&[4, 2]), &[4, 2], None), Ok(vec![vec![4, 2]]), "the model takes it whole");
        assert_eq!(shapes(Some(&[4, 2]), &[3, 4, 2], None), Ok(vec![vec![4, 2]; 3]));
        assert!(shapes(None, &[3, 2], Some(2)).unwrap_err().contains("3 rows make no batches of 2"));
        assert!(shapes(Some(&[-1, 2]), &[3, 5], None).unwrap_err().contains("takes UINT8 [-1,2]"));
        assert!(shapes(Some(&[4, 2]), &[3, 4, 5], None).unwrap_err().contains("its rows do not fit"));
    }

    #[test]
    fn rows_are_bounded() {
        let array = |shape: &[i64], bytes| Array {
            datatype: DataType::Uint8,
            shape: shape.to_vec(),
            data: vec![0; bytes],
        };
        let error = |array: &Array| format!("{:#}", tensors(array, "x", ("m", None), None).unwrap_err());
        assert!(error(&array(&[1 << 40, 0], 0)).contains("without elements"));
        assert!(error(&array(&[MAX_ROWS as i64 + 1], MAX_ROWS + 1)).contains("at most 1048576"));
    }

    #[test]
    fn strings_are_cut_between_elements() {
        let whole = Tensor::from_strings("x", &[2, 2], &["a", "bb", "ccc", ""]).unwrap();
        let array = Array { datatype: DataType::Bytes, shape: vec![2, 2], data: whole.data.to_vec() };
        let cut = tensors(&array, "x", ("m", None), None).unwrap();
        assert_eq!(cut[1].strings().unwrap(), ["ccc", ""]);
        assert_eq!(stacked(&cut).unwrap(), whole);
    }

    #[test]
    fn what_makes_no_batch_is_refused() {
        let tensor = |shape: &[i64]| Tensor::new("x", DataType::Uint8, shape, vec![0; 6]).unwrap();
        assert!(stacked(&[tensor(&[1, 6]), tensor(&[1, 2, 3])]).is_err());
        assert!(stacked(&[tensor(&[6]), tensor(&[6])]).is_err());
        assert_eq!(stacked(&[tensor(&[6])]).unwrap().shape, [6]);
    }
}
