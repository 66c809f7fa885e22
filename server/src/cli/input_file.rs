//! A file named on the command line as an input.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{anyhow, bail};
use volley_client::TensorMetadata;
use volley_client::input::Content;

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

impl InputFile {
    /// Reads the file; its name says what it holds.
    pub(super) fn read(&self) -> anyhow::Result<Content> {
        Content::read(&self.path)
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
}
