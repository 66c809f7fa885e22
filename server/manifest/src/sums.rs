//! A manifest's text: the SHA-256 of each file of a version.
//!
//! It is what `sha256sum` writes: lines of `HEX  PATH` or `HEX *PATH`, paths relative to the manifest's directory.
//! Blank lines and lines that begin with `#` are passed over.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use ring::digest::{Context, SHA256};

use crate::file_name;

/// The name of a manifest in its directory.
pub const MANIFEST: &str = "SHA256SUMS";

/// A manifest of more bytes is a mistake.
pub const MAX_MANIFEST: u64 = 16 << 20;

/// The SHA-256 of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    fn parse(hex: &str) -> Option<Sha256> {
        let digits = hex.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Sha256(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads a manifest: the sum of each path, which is relative to the manifest.
///
/// # Errors
/// With the number of the line that is wrong, and why.
pub fn parse(text: &str) -> Result<BTreeMap<String, Sha256>, String> {
    let mut sums = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |reason: &str| format!("line {number}: {reason}");
        let (hex, path) = line
            .split_once(' ')
            .and_then(|(hex, path)| Some((hex, path.strip_prefix([' ', '*'])?)))
            .ok_or_else(|| wrong("it is not \"HEX  PATH\""))?;
        let sum = Sha256::parse(hex).ok_or_else(|| wrong("it does not begin with 64 hexadecimal digits"))?;
        let path = path.strip_prefix("./").unwrap_or(path);
        if let Some(reason) = file_name::refusal(path) {
            return Err(wrong(&format!("{path:?} is no path of a file here: {reason}")));
        }
        if sums.insert(path.to_owned(), sum).is_some_and(|before| before != sum) {
            return Err(wrong(&format!("{path:?} has another sum above")));
        }
    }
    Ok(sums)
}

/// The SHA-256 of the file at `path`.
///
/// # Errors
/// The operating system's.
pub fn sum(path: &Path) -> io::Result<Sha256> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => context.update(&buffer[..read]),
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Ok(Sha256(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ring::digest::digest;

    use super::*;

    #[test]
    fn the_sum_of_a_file_is_that_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(sum(file.path()).unwrap().to_string(), SUM);
        let bytes = vec![7; 3_000_000];
        fs::write(file.path(), &bytes).unwrap();
        assert_eq!(sum(file.path()).unwrap().0, digest(&SHA256, &bytes).as_ref());
    }

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_sha256sum_writes_is_read() {
        let text = format!(
            "# made by hand\n\n{SUM}  model.onnx\n{SUM} *./data/a b.bin\r\n{}  c",
            SUM.to_uppercase()
        );
        let sums = parse(&text).unwrap();
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["c", "data/a b.bin", "model.onnx"]);
        assert!(sums.values().all(|sum| sum.to_string() == SUM));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, words) in [
            ("abc".to_owned(), "line 1: it is not"),
            (format!("\n{SUM} model.onnx"), "line 2: it is not"),
            ("12  model.onnx".to_owned(), "64 hexadecimal digits"),
            (format!("{}  model.onnx", "+".repeat(64)), "64 hexadecimal digits"),
            (format!("{SUM}  ../model.onnx"), "would leave"),
            (format!("{SUM}  /etc/passwd"), "absolute"),
            (format!("{SUM}  a\n{}  a", SUM.replace('e', "f")), "line 2: \"a\" has another sum"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([0-9a-f]{60,66}| |\\*|\n|.){0,8}") {
            let _ = parse(&text);
        }
    }
}
