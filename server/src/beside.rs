//! What is beside the versions of a model: its configuration, labels and data.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The configuration file of a model.
pub(crate) const CONFIG: &str = "config.pbtxt";

/// Shows what is beside the versions in `from` in `directory`, too: labels and data; the configuration unless another takes
/// its place.
pub(crate) fn show(from: &Path, directory: &Path, other_config: bool) -> io::Result<()> {
    let from = fs::canonicalize(from)?;
    for entry in fs::read_dir(&from)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        let is_version = text.bytes().all(|byte| byte.is_ascii_digit());
        let is_replaced = other_config && text == CONFIG;
        if !(is_version || is_replaced || text.starts_with('.')) {
            symlink(from.join(&name), directory.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_the_versions_is_shown_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        for directory in ["1", "22", "warmup", ".volley-push-1-0"] {
            fs::create_dir_all(from.join(directory)).unwrap();
        }
        fs::write(from.join(CONFIG), "").unwrap();
        for (other_config, expected) in [(false, &["config.pbtxt", "warmup"][..]), (true, &["warmup"][..])] {
            fs::create_dir(&to).unwrap();
            show(&from, &to, other_config).unwrap();
            let mut names: Vec<_> = fs::read_dir(&to)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, expected);
            fs::remove_dir_all(&to).unwrap();
        }
    }
}
