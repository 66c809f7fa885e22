//! The shape of a random input: as the model's metadata say, its open dimensions as the user says.

use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use volley_client::TensorMetadata;
use volley_client::input::{Wanted, shape_text};

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
/// When what is given does not fit, or a dimension is left open.
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
        None => takes.clone(),
    };
    match (takes.first(), batch) {
        (Some(-1), Some(batch)) => shape[0] = batch,
        (Some(-1), None) if given.is_none() => shape[0] = 1,
        (first, Some(batch)) if first != Some(&batch) && batch != 1 => {
            bail!("{wanted}, which has no batch dimension for --batch {batch}")
        }
        _ => {}
    }
    if shape.contains(&-1) {
        let example: Vec<String> =
            shape.iter().map(|dim| if *dim == -1 { "128".to_owned() } else { dim.to_string() }).collect();
        bail!(
            "{wanted}, whose open dimensions have no size: give --shape {}={} (or what the model likes)",
            input.name,
            example.join(",")
        );
    }
    let elements = shape.iter().try_fold(1_i64, |product, dim| product.checked_mul(*dim));
    ensure!(
        elements.is_some_and(|elements| elements <= 1 << 30),
        "{wanted}: a shape of {} is too large to send; give a smaller one with --shape {}=DIMENSIONS",
        shape_text(&shape),
        input.name
    );
    Ok(shape)
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
        assert!(shape(&[-1, -1], None, None).unwrap_err().contains("give --shape x=1,128"));
        assert!(shape(&[-1, 64], Some(&[1, 65]), None).unwrap_err().contains("its shape is [1,65]"));
        assert!(shape(&[3, 64], None, Some(8)).unwrap_err().contains("no batch dimension for --batch 8"));
        assert!(shape(&[-1, 1 << 40], None, None).unwrap_err().contains("too large"));
    }

    #[test]
    fn the_option_has_a_name_and_dimensions() {
        assert_eq!("ids=1,128".parse::<Shape>().unwrap(), Shape { input: "ids".into(), dims: vec![1, 128] });
        for bad in ["", "ids", "=1", "ids=", "ids=-1", "ids=a"] {
            assert!(bad.parse::<Shape>().is_err(), "{bad:?}");
        }
    }
}
