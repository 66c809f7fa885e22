//! The files that a load is given in place of those in the repository.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use serde_json::Value;

/// `PATH=FILE`: what shall be at a path of the model's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelFile {
    path: String,
    file: PathBuf,
}

impl FromStr for ModelFile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<ModelFile> {
        match text.split_once('=') {
            Some((path, file)) if !path.is_empty() && !file.is_empty() => {
                Ok(ModelFile { path: path.to_owned(), file: file.into() })
            }
            _ => bail!("write it as PATH=FILE, such as 1/model.onnx=new.onnx"),
        }
    }
}

impl ModelFile {
    /// The path and what is in the file.
    pub(super) fn read(&self) -> anyhow::Result<(String, Bytes)> {
        let content =
            std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        Ok((self.path.clone(), content.into()))
    }
}

/// The configuration in `file` as JSON, as a load takes it.
pub(super) fn configuration(file: &Path) -> anyhow::Result<String> {
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    json(&text, &shown)
}

/// `text` as JSON, whether it is that or the text of a config.pbtxt, which never begins with a brace.
fn json(text: &str, shown: &str) -> anyhow::Result<String> {
    if text.trim_start().starts_with('{') {
        // The server knows its fields; that it is JSON is said here, with the place.
        serde_json::from_str::<Value>(text).with_context(|| format!("{shown} is no JSON"))?;
        return Ok(text.to_owned());
    }
    let config = proto::config_text::parse(text, shown).map_err(|error| anyhow!(error))?;
    Ok(proto::config_json::to_json(&config).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_with_its_path() {
        let file: ModelFile = "1/model.onnx=a=b.onnx".parse().unwrap();
        assert_eq!(file, ModelFile { path: "1/model.onnx".to_owned(), file: "a=b.onnx".into() });
        for bad in ["", "model.onnx", "=model.onnx", "1/model.onnx="] {
            assert!(bad.parse::<ModelFile>().is_err(), "{bad:?}");
        }
        let error = ModelFile { path: "x".to_owned(), file: "no/such/file".into() }.read().unwrap_err();
        assert_eq!(error.to_string(), "cannot read no/such/file");
    }

    #[test]
    fn both_ways_to_write_a_configuration_are_read() {
        let text = json("max_batch_size: 8", "c").unwrap();
        let read = proto::config_json::from_json(&text).unwrap();
        assert_eq!(read.max_batch_size, 8);
        let given = "\n {\"max_batch_size\": 8}";
        assert_eq!(json(given, "c").unwrap(), given);
        assert!(format!("{:#}", json("{", "c.json").unwrap_err()).starts_with("c.json is no JSON: "));
        assert!(json("max_batch_sise: 8", "c.pbtxt").unwrap_err().to_string().contains("max_batch_sise"));
    }
}
