//! A file named on the command line as an input, and the tensor it becomes.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use volley_client::{DataType, Tensor, TensorMetadata};

use super::{json_input, npy, picture};

/// `FILE` or `NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InputFile {
    /// The input it is for; may be left out when the model has only one.
    pub(super) input: Option<String>,
    /// Where it is.
    pub(super) path: PathBuf,
}

impl FromStr for InputFile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<InputFile> {
        let (input, path) = match text.split_once('=') {
            Some((name, path)) => (Some(name.to_owned()), path),
            None => (None, text),
        };
        if path.is_empty() || input.as_deref() == Some("") {
            bail!("write it as FILE or NAME=FILE");
        }
        Ok(InputFile { input, path: path.into() })
    }
}

/// What a file holds.
pub(super) enum Content {
    /// A JSON document.
    Json(String),
    /// A NumPy array.
    Npy(npy::Array),
    /// An image.
    Picture(image::DynamicImage),
}

/// An input of a model, as its metadata describe it.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) model: &'a str,
    pub(super) input: &'a TensorMetadata,
}

impl InputFile {
    /// Reads the file; its name says what it holds.
    pub(super) fn read(&self) -> anyhow::Result<Content> {
        let path = &self.path;
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

    /// The input this file is for.
    pub(super) fn wanted<'a>(
        &self,
        model: &str,
        inputs: &'a [TensorMetadata],
    ) -> anyhow::Result<&'a TensorMetadata> {
        let names: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
        let Some(name) = &self.input else {
            let [only] = inputs else {
                bail!(
                    "model {model:?} has {} inputs ({}): say which of them {2} is for, as NAME={2}",
                    inputs.len(),
                    names.join(", "),
                    self.path.display(),
                );
            };
            return Ok(only);
        };
        inputs.iter().find(|input| input.name == *name).ok_or_else(|| {
            let path = self.path.display();
            anyhow!("{name}={path}: model {model:?} has no input {name:?}; it has {}", names.join(", "))
        })
    }
}

impl Content {
    /// The tensor that `wanted` takes.
    pub(super) fn tensor(
        &self,
        file: &Path,
        wanted: Wanted<'_>,
        scale: picture::Scale,
    ) -> anyhow::Result<Tensor> {
        let tensor = match self {
            Content::Json(text) => json_input::tensor(text, wanted),
            Content::Npy(array) => array.tensor(wanted),
            Content::Picture(picture) => picture::tensor(picture, wanted, scale),
        };
        tensor.with_context(|| format!("{} does not fit", file.display()))
    }
}

impl Wanted<'_> {
    /// The type the input takes.
    pub(super) fn datatype(&self) -> anyhow::Result<DataType> {
        DataType::parse(&self.input.datatype)
            .ok_or_else(|| anyhow!("{self} is of a type that this client does not know"))
    }

    /// `shape` as the input takes it: with a batch dimension of 1 in front when the input has one dimension more.
    pub(super) fn fit(&self, shape: &[i64]) -> anyhow::Result<Vec<i64>> {
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

impl std::fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TensorMetadata { name, datatype, shape } = self.input;
        write!(f, "input {name:?} of model {:?} takes {datatype} {}", self.model, shape_text(shape))
    }
}

/// A shape as Triton writes it: `[1,64]`.
pub(super) fn shape_text(shape: &[i64]) -> String {
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
    fn a_name_may_stand_before_the_file() {
        let parse = |text: &str| text.parse::<InputFile>().unwrap();
        assert_eq!(parse("a.npy"), InputFile { input: None, path: "a.npy".into() });
        assert_eq!(parse("x=a=b.npy"), InputFile { input: Some("x".to_owned()), path: "a=b.npy".into() });
        for bad in ["", "=", "x=", "=a.npy"] {
            assert!(bad.parse::<InputFile>().is_err(), "{bad:?}");
        }
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
    fn a_file_finds_its_input() {
        let inputs = [input("a", &[1]), input("b", &[1])];
        let wanted = |text: &str, inputs: &[TensorMetadata]| {
            let file: InputFile = text.parse().unwrap();
            file.wanted("m", inputs).map(|input| input.name.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(wanted("b=x.npy", &inputs), Ok("b".to_owned()));
        assert_eq!(wanted("x.npy", &inputs[..1]), Ok("a".to_owned()));
        assert_eq!(
            wanted("x.npy", &inputs),
            Err(r#"model "m" has 2 inputs (a, b): say which of them x.npy is for, as NAME=x.npy"#.to_owned())
        );
        assert_eq!(
            wanted("c=x.npy", &inputs),
            Err(r#"c=x.npy: model "m" has no input "c"; it has a, b"#.to_owned())
        );
    }

    #[test]
    fn a_file_of_another_kind_or_missing_is_named() {
        let error = |text: &str| {
            let file: InputFile = text.parse().unwrap();
            file.read().err().unwrap().to_string()
        };
        assert!(error("a.txt").starts_with("a.txt is of no kind that can be sent"));
        assert_eq!(error("no/such.npy"), "cannot read no/such.npy");
    }
}
