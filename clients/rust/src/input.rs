//! Files as inputs of a model: arrays, images and JSON, brought to the type and shape that the model takes.

mod json;
mod npy;
mod picture;

use std::fmt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};

pub use self::npy::{Array, read as read_npy};
pub use self::picture::Scale;
use crate::{DataType, Tensor, TensorMetadata};

/// What a file holds.
#[derive(Debug)]
pub enum Content {
    /// A JSON document.
    Json(String),
    /// A NumPy array.
    Npy(Array),
    /// An image.
    Picture(image::DynamicImage),
}

/// An input of a model, as its metadata describe it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The model, for the words of errors.
    pub model: &'a str,
    /// What it takes.
    pub input: &'a TensorMetadata,
}

impl Content {
    /// Reads the file; its name says what it holds.
    ///
    /// # Errors
    /// When it cannot be read, or is of no kind that can be sent.
    pub fn read(path: &Path) -> anyhow::Result<Content> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let read = || std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        match extension.to_ascii_lowercase().as_str() {
            "json" => {
                let text = String::from_utf8(read()?);
                Ok(Content::Json(text.with_context(|| format!("{} is not text", path.display()))?))
            }
            "npy" => {
                let array = npy::read(read()?);
                Ok(Content::Npy(array.with_context(|| format!("{} cannot be read", path.display()))?))
            }
            "png" | "jpg" | "jpeg" => {
                let picture = picture::decode(&read()?);
                Ok(Content::Picture(picture.with_context(|| format!("{} cannot be read", path.display()))?))
            }
            _ => bail!(
                "{} is of no kind that can be sent: its name must end in .json, .npy, .png, .jpg or .jpeg",
                path.display()
            ),
        }
    }

    /// The tensor that `wanted` takes. `file` is named when it does not fit; `scale` is for images.
    ///
    /// # Errors
    /// When what the file holds is of another type or shape.
    pub fn tensor(&self, file: &Path, wanted: Wanted<'_>, scale: Scale) -> anyhow::Result<Tensor> {
        let tensor = match self {
            Content::Json(text) => json::tensor(text, wanted),
            Content::Npy(array) => array.tensor(wanted),
            Content::Picture(picture) => picture::tensor(picture, wanted, scale),
        };
        tensor.with_context(|| format!("{} does not fit", file.display()))
    }
}

impl Wanted<'_> {
    /// The type the input takes.
    ///
    /// # Errors
    /// When it is a type that this client does not know.
    pub fn datatype(&self) -> anyhow::Result<DataType> {
        DataType::parse(&self.input.datatype)
            .ok_or_else(|| anyhow!("{self} is of a type that this client does not know"))
    }

    /// `shape` as the input takes it: with a batch dimension of 1 in front when the input has one dimension more.
    ///
    /// # Errors
    /// When it takes neither.
    pub fn fit(&self, shape: &[i64]) -> anyhow::Result<Vec<i64>> {
        let fits = |shape: &[i64]| {
            let takes = &self.input.shape;
            takes.len() == shape.len()
                && takes.iter().zip(shape).all(|(takes, dim)| *takes == -1 || takes == dim)
        };
        let batch = [&[1], shape].concat();
        if fits(shape) {
            Ok(shape.to_vec())
        } else if fits(&batch) {
            Ok(batch)
        } else {
            bail!("its shape is {}, but {self}; give it that shape", shape_text(shape))
        }
    }
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TensorMetadata { name, datatype, shape } = self.input;
        write!(f, "input {name:?} of model {:?} takes {datatype} {}", self.model, shape_text(shape))
    }
}

/// A shape as Triton writes it: `[1,64]`.
pub fn shape_text(shape: &[i64]) -> String {
    let dims: Vec<_> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, shape: &[i64]) -> TensorMetadata {
        TensorMetadata { name: name.to_owned(), datatype: "FP32".to_owned(), shape: shape.to_vec() }
    }

    #[test]
    fn a_batch_dimension_is_added_where_one_is_missing() {
        let check = |takes: &[i64], shape: &[i64]| {
            let input = input("x", takes);
            Wanted { model: "m", input: &input }.fit(shape).ok()
        };
        assert_eq!(check(&[-1, 64], &[5, 64]), Some(vec![5, 64]));
        assert_eq!(check(&[-1, 64], &[64]), Some(vec![1, 64]));
        assert_eq!(check(&[1, 64], &[64]), Some(vec![1, 64]));
        assert_eq!(check(&[2, 64], &[64]), None, "two rows cannot be made of one");
        assert_eq!(check(&[-1, 64], &[8, 8]), None);
        assert_eq!(check(&[-1, -1, 64], &[64]), None, "one dimension at most");
        assert_eq!(check(&[], &[]), Some(vec![]));
    }

    #[test]
    fn what_does_not_fit_is_told_with_both_shapes() {
        let input = input("image", &[-1, 64]);
        let error = Wanted { model: "digits", input: &input }.fit(&[8, 9]).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"its shape is [8,9], but input "image" of model "digits" takes FP32 [-1,64]; give it that shape"#
        );
    }

    #[test]
    fn a_file_of_another_kind_or_missing_is_named() {
        let error = |path: &str| Content::read(Path::new(path)).unwrap_err().to_string();
        assert!(error("a.txt").starts_with("a.txt is of no kind that can be sent"));
        assert_eq!(error("no/such.npy"), "cannot read no/such.npy");
    }
}
