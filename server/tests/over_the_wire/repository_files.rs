//! Model repositories made for one test, of the sample models and of garbage.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::onnx_file;

/// A directory that is a model repository, and is gone after the test.
#[derive(Debug)]
pub(crate) struct Repository(TempDir);

/// The sample models of the checkout.
pub(crate) fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("model_repository")
}

impl Repository {
    pub(crate) fn empty() -> Repository {
        Repository(tempfile::tempdir().unwrap())
    }

    /// Copies of sample models.
    pub(crate) fn of(models: &[&str]) -> Repository {
        let repository = Repository::empty();
        for model in models {
            copy(&samples().join(model), &repository.path().join(model));
        }
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, replacing what was there.
    pub(crate) fn write(&self, file: &str, contents: impl AsRef<[u8]>) -> &Repository {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    /// Copies a directory of the sample models, as `digits/1`.
    pub(crate) fn copy(&self, sample: &str, place: &str) -> &Repository {
        copy(&samples().join(sample), &self.path().join(place));
        self
    }

    /// The model `work`, with one instance, which takes as long as it is told to (see [`onnx_file::work`]).
    pub(crate) fn with_work(self) -> Repository {
        self.write("work/1/model.onnx", onnx_file::work());
        let one_thread = r#"parameters { key: "intra_op_thread_count" value { string_value: "1" } }"#;
        let one_instance = "instance_group { count: 1 kind: KIND_CPU }";
        self.write("work/config.pbtxt", format!("{one_instance} {one_thread}"));
        self
    }
}

/// A request that keeps the model `work` busy: its time grows with the cube of `size`.
pub(crate) fn work(size: usize) -> String {
    format!(r#"{{"inputs":[{{"name":"size","datatype":"INT64","shape":[2],"data":[{size},{size}]}}]}}"#)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
