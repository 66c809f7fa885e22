//! Copies the files of a version to where it is got ready, with their checksums, down to the disk.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use ring::digest;
use rustix::io::Errno;

use super::source::{MANIFEST, Source, SourceFile};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Copies the files of `source` to the new directory `version`, and puts `sums` beside them where they are wanted. When it
/// returns, all of it is on the disk.
///
/// # Errors
/// When a file cannot be read or written, or is another than it was.
pub(super) fn files(source: &Source, version: &Path, sums: bool) -> anyhow::Result<()> {
    let bar = progress(source.size());
    let mut manifest = String::new();
    for file in &source.files {
        let target = version.join(&file.path);
        let sum = copy(file, &target, &bar)?;
        writeln!(manifest, "{sum}  {}", file.path).expect("writing to a string cannot fail");
    }
    if sums {
        write(&version.join(MANIFEST), manifest.as_bytes())?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Shows the files of `source` in the new directory `version` for a while, without a copy where the file system can.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn links(source: &Source, version: &Path) -> anyhow::Result<()> {
    for file in &source.files {
        let target = version.join(&file.path);
        let parent = target.parent().unwrap_or(version);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let from =
            fs::canonicalize(&file.from).with_context(|| format!("cannot read {}", file.from.display()))?;
        if fs::hard_link(&from, &target).is_err() {
            let copied = fs::copy(&from, &target);
            copied.with_context(|| format!("cannot copy {} to {}", from.display(), target.display()))?;
        }
    }
    Ok(())
}

/// Shown on a terminal's stderr, and nowhere else.
pub(super) fn progress(size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bytes} of {total_bytes} ({binary_bytes_per_sec}, {eta} left)");
    ProgressBar::new(size).with_style(style.expect("the template is one"))
}

/// Copies `file` to `target`; returns its SHA-256.
fn copy(file: &SourceFile, target: &Path, bar: &ProgressBar) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read {}", file.from.display());
    let unwritable = || format!("cannot write {}", target.display());
    let mut from = File::open(&file.from).with_context(unreadable)?;
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let mut to = File::create_new(target).with_context(unwritable)?;
    let mut sum = digest::Context::new(&digest::SHA256);
    let (mut piece, mut size) = (vec![0; PIECE], 0);
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).with_context(unreadable),
        };
        to.write_all(&piece[..read]).with_context(unwritable)?;
        sum.update(&piece[..read]);
        size += read as u64;
        bar.inc(read as u64);
    }
    ensure!(
        size == file.size,
        "{} had {} bytes and now {size}: something else writes to it; push it once that is done",
        file.from.display(),
        file.size
    );
    to.sync_all().with_context(unwritable)?;
    Ok(hexadecimal(sum.finish().as_ref()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// Writes the new file `target`, down to the disk.
pub(super) fn write(target: &Path, content: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file = File::create_new(target)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", target.display()))
}

/// Puts the names in `directory` and in all below it on the disk.
pub(super) fn sync_all_below(directory: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if entry.file_type().with_context(failed)?.is_dir() {
            sync_all_below(&entry.path())?;
        }
    }
    sync(directory)
}

/// Puts the names in `directory` on the disk.
pub(super) fn sync(directory: &Path) -> anyhow::Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    if let Err(error) = &synced
        && matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
    {
        return Ok(()); // some file systems of networks do it by themselves, and say that it cannot be asked for
    }
    synced.with_context(|| format!("cannot write {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_has_its_checksums_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let large = vec![7; 2 * PIECE + 1];
        fs::write(root.path().join("a"), "abc").unwrap();
        fs::write(root.path().join("b"), &large).unwrap();
        let file = |from: &str, path: &str| SourceFile {
            from: root.path().join(from),
            path: path.to_owned(),
            size: fs::metadata(root.path().join(from)).unwrap().len(),
        };
        let source = Source { files: vec![file("a", "model.onnx"), file("b", "sub/b c.bin")] };
        let version = root.path().join("1");
        files(&source, &version, true).unwrap();
        assert_eq!(fs::read(version.join("sub/b c.bin")).unwrap(), large);
        let manifest = fs::read_to_string(version.join(MANIFEST)).unwrap();
        let lines: Vec<_> = manifest.lines().collect();
        // FIPS 180-2, appendix B.1.
        assert_eq!(lines[0], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  model.onnx");
        assert!(lines[1].len() == 66 + "sub/b c.bin".len() && lines[1].ends_with("  sub/b c.bin"));
        files(&source, &root.path().join("2"), false).unwrap();
        assert!(!root.path().join("2").join(MANIFEST).exists());
    }

    #[test]
    fn a_file_that_grows_or_shrinks_meanwhile_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "abc").unwrap();
        let file = SourceFile { from: root.path().join("a"), path: "model.onnx".to_owned(), size: 4 };
        let error = files(&Source { files: vec![file] }, &root.path().join("1"), true).unwrap_err();
        assert!(error.to_string().contains("had 4 bytes and now 3"), "{error}");
    }
}
