//! The shape of a random input: as the model's metadata say, its open dimensions as the user says.

use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use volley_client::TensorMetadata;
use volley_client::input::{Wanted, shape_text};

use super::Sources;

/// One `--shape INPUT=1,128`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) input: String,
    pub(crate) dims: Vec<i64>,
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Shape> {
        let (input, dims) = text.split_once('=').context("write it as INPUT=1,128")?;
        let dims = dims.split([',', 'x']).map(|dim| dim.trim().parse().ok().filter(|dim| *dim >= 0));
        let dims = dims.collect::<Option<Vec<i64>>>().context("write its dimensions as 1,128")?;
        ensure!(!input.is_empty(), "write it as INPUT=1,128");
        Ok(Shape { input: input.to_owned(), dims })
    }
}

/// The shape of `input`: that given, else that of the metadata with `batch` (or 1) for the batch dimension.
///
/// # Errors
/// When what is given does not fit or is too large, or a dimension is left open, which [`check_open`] tells better.
pub(super) fn resolved(
    model: &str,
    input: &TensorMetadata,
    given: Option<&[i64]>,
    batch: Option<i64>,
) -> anyhow::Result<Vec<i64>> {
    let wanted = Wanted { model, input };
    let takes = &input.shape;
    let mut shape = match given {
        Some(dims) => wanted.fit(dims).with_context(|| format!("--shape {}", input.name))?,
        None => sized(takes, batch),
    };
    match (takes.first(), batch) {
        (Some(-1), Some(batch)) => shape[0] = batch,
        (first, Some(batch)) if first != Some(&batch) && batch != 1 => {
            bail!("{wanted}, which has no batch dimension for --batch {batch}")
        }
        _ => {}
    }
    ensure!(!shape.contains(&-1), "{wanted}, whose open dimensions have no size");
    let elements = shape.iter().try_fold(1_i64, |product, dim| product.checked_mul(*dim));
    ensure!(
        elements.is_some_and(|elements| elements <= 1 << 30),
        "{wanted}: a shape of {} is too large to send; give a smaller one with --shape {}=DIMENSIONS",
        shape_text(&shape),
        input.name
    );
    Ok(shape)
}

/// Checks that no dimension of an input is left open that only `--shape` gives: all inputs that need one are told at once.
///
/// # Errors
/// When there are such inputs.
pub(crate) fn check_open(
    inputs: &[TensorMetadata],
    Sources { shapes, batch, .. }: &Sources,
) -> anyhow::Result<()> {
    let given = |input: &TensorMetadata| shapes.iter().any(|shape| shape.input == input.name);
    let mut open: Vec<&TensorMetadata> = Vec::new();
    for input in inputs.iter().filter(|input| !given(input) && sized(&input.shape, *batch).contains(&-1)) {
        // Models that are asked together may have inputs of the same name.
        if open.iter().all(|other| other.name != input.name) {
            open.push(input);
        }
    }
    let takes = |input: &&TensorMetadata| format!("{:?} takes {}", input.name, shape_text(&input.shape));
    let option = |input: &&TensorMetadata| {
        let dims = sized(&input.shape, *batch).into_iter().map(|dim| if dim == -1 { 128 } else { dim });
        format!("--shape {}={}", input.name, dims.map(|dim| dim.to_string()).collect::<Vec<_>>().join(","))
    };
    let listed = |words: Vec<String>, between: &str| words.join(between);
    ensure!(
        open.is_empty(),
        "{} {}, whose open dimensions have no size: give {} (or what the model likes)",
        if open.len() == 1 { "input" } else { "inputs" },
        listed(open.iter().map(takes).collect(), ", "),
        listed(open.iter().map(option).collect(), " ")
    );
    Ok(())
}

/// `dims` with the batch dimension, where it is open.
fn sized(dims: &[i64], batch: Option<i64>) -> Vec<i64> {
    let mut dims = dims.to_vec();
    if let Some(first @ -1) = dims.first_mut() {
        *first = batch.unwrap_or(1);
    }
    dims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(takes: &[i64], given: Option<&[i64]>, batch: Option<i64>) -> Result<Vec<i64>, String> {
        let input = TensorMetadata { name: "x".into(), datatype: "FP32".into(), shape: takes.to_vec() };
        resolved("m", &input, given, batch).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_shape_is_the_models_with_what_it_leaves_open() {
        assert_eq!(shape(&[-1, 64], None, None), Ok(vec![1, 64]));
        assert_eq!(shape(&[-1, 64], None, Some(8)), Ok(vec![8, 64]));
        assert_eq!(shape(&[3, 4], None, None), Ok(vec![3, 4]));
        assert_eq!(shape(&[-1, -1], Some(&[2, 128]), None), Ok(vec![2, 128]));
        assert_eq!(shape(&[-1, -1], Some(&[128]), None), Ok(vec![1, 128]));
        assert_eq!(shape(&[-1, -1], Some(&[128]), Some(4)), Ok(vec![4, 128]));
        assert_eq!(shape(&[], None, None), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_is_told_with_what_could() {
        assert!(shape(&[-1, 64], Some(&[1, 65]), None).unwrap_err().contains("its shape is [1,65]"));
        assert!(shape(&[3, 64], None, Some(8)).unwrap_err().contains("no batch dimension for --batch 8"));
        assert!(shape(&[-1, 1 << 40], None, None).unwrap_err().contains("too large"));
    }

    #[test]
    fn every_input_that_needs_a_shape_is_told_at_once() {
        let input = |name: &str, shape: &[i64]| TensorMetadata {
            name: name.into(),
            datatype: "INT64".into(),
            shape: shape.to_vec(),
        };
        let inputs = [
            input("ids", &[-1, -1]),
            input("mask", &[-1, -1]),
            input("pixels", &[-1, 3]),
            input("ids", &[-1, -1]),
            input("free", &[2, -1]),
        ];
        let check = |shapes: &[&str], batch| {
            let shapes = shapes.iter().map(|shape| shape.parse().unwrap()).collect();
            check_open(&inputs, &Sources { shapes, batch, ..Sources::default() })
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            check(&[], None).unwrap_err(),
            "inputs \"ids\" takes [-1,-1], \"mask\" takes [-1,-1], \"free\" takes [2,-1], whose open dimensions have no \
             size: give --shape ids=1,128 --shape mask=1,128 --shape free=2,128 (or what the model likes)"
        );
        let one = check(&["ids=1,7", "mask=1,7"], Some(4)).unwrap_err();
        assert!(
            one.starts_with("input \"free\" takes [2,-1], whose")
                && one.contains("give --shape free=2,128 (")
        );
        assert!(check(&["ids=1,7", "free=2,1"], Some(4)).unwrap_err().contains("--shape mask=4,128"));
        assert_eq!(check(&["ids=1,7", "mask=1,7", "free=2,7"], None), Ok(()));
    }

    #[test]
    fn the_option_has_a_name_and_dimensions() {
        assert_eq!("ids=1,128".parse::<Shape>().unwrap(), Shape { input: "ids".into(), dims: vec![1, 128] });
        for bad in ["", "ids", "=1", "ids=", "ids=-1", "ids=a"] {
            assert!(bad.parse::<Shape>().is_err(), "{bad:?}");
        }
    }
}
