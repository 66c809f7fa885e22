//! One pass over the text that makes it safe and palatable to the parser.
//!
//! The parser recurses, so depth must be known to be small beforehand. Its lexer may recurse over
//! comments that follow one another, so they become white space. It insists on the colon in
//! `input: [ … ]`, which Triton does not, so a missing one is written.

use std::iter;

/// The text as the parser wants it.
#[derive(Debug)]
pub(super) struct Scan {
    /// The text, with blanks for comments and a colon before each list that had none.
    pub(super) text: String,
    /// Where those colons are in `text`, rising.
    colons: Vec<usize>,
    /// Where, in the original, the innermost bracket stands that is never closed.
    pub(super) innermost_open: Option<usize>,
}

/// The bracket that goes deeper than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooDeep {
    pub(super) offset: usize,
}

/// What came last, comments and white space aside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// A word that may be the name of a field.
    Name,
    Colon,
    Other,
}

impl Last {
    /// After one more token, which begins with `byte`.
    fn then(self, byte: u8) -> Last {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b'\x0b' | b'\x0c' | b'#' => self,
            b':' => Last::Colon,
            _ if is_word(byte) && self != Last::Colon => Last::Name,
            _ => Last::Other,
        }
    }
}

impl Scan {
    pub(super) fn of(original: &str, max_depth: usize) -> Result<Scan, TooDeep> {
        let bytes = original.as_bytes();
        let mut scan =
            Scan { text: String::with_capacity(original.len()), colons: vec![], innermost_open: None };
        let mut open = Vec::new();
        let (mut last, mut at) = (Last::Other, 0);
        while at < bytes.len() {
            let token = &original[at..token_end(bytes, at)];
            match bytes[at] {
                b'{' | b'[' | b'<' if open.len() == max_depth => return Err(TooDeep { offset: at }),
                b'{' | b'[' | b'<' => open.push(at),
                b'}' | b']' | b'>' => drop(open.pop()),
                _ => {}
            }
            if token == "[" && last == Last::Name {
                scan.colons.push(scan.text.len());
                scan.text.push(':');
            }
            match bytes[at] {
                b'#' => scan.text.extend(iter::repeat_n(' ', token.len())),
                _ => scan.text.push_str(token),
            }
            last = last.then(bytes[at]);
            at += token.len();
        }
        scan.innermost_open = open.pop();
        Ok(scan)
    }

    /// Where a place in `text` is in the original.
    pub(super) fn original_offset(&self, offset: usize) -> usize {
        offset - self.colons.partition_point(|&colon| colon < offset)
    }
}

/// Where the token that begins at `start` ends.
///
/// A token is a comment, a string, a word, a run of characters that are not ASCII, or one other character.
fn token_end(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start + 1..];
    let length = match bytes[start] {
        b'#' => rest.iter().take_while(|&&byte| byte != b'\n').count(),
        quote @ (b'"' | b'\'') => string_length(rest, quote),
        byte if is_word(byte) => rest.iter().take_while(|&&byte| is_word(byte)).count(),
        byte if byte.is_ascii() => 0,
        _ => rest.iter().take_while(|&&byte| !byte.is_ascii()).count(),
    };
    start + 1 + length
}

/// Bytes up to and with the closing quote. A string never crosses a line; the parser complains if it does.
fn string_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\n' => return at,
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(text: &str) -> String {
        Scan::of(text, 8).unwrap().text
    }

    #[test]
    fn writes_the_colon_a_list_lacks() {
        assert_eq!(scanned("input [ ]"), "input :[ ]");
        assert_eq!(scanned("input[]"), "input:[]");
        assert_eq!(scanned("input # é[\n [ ]"), "input      \n :[ ]");
        assert_eq!(scanned("kind: KIND_CPU gpus [ 0 ]"), "kind: KIND_CPU gpus :[ 0 ]");
    }

    #[test]
    fn leaves_everything_else_alone() {
        for text in ["dims: [ 1 ]", "a: \"b [\" c: 'd ['", "a { b: 1 }", "a: \"\\\" [\"", "é [", "[a]"] {
            assert_eq!(scanned(text), text);
        }
    }

    #[test]
    fn maps_offsets_back() {
        let original = "a [ ] # é\n b [ ] c";
        let scan = Scan::of(original, 8).unwrap();
        for (at, byte) in scan.text.bytes().enumerate().filter(|&(_, byte)| byte.is_ascii_alphabetic()) {
            assert_eq!(original.as_bytes()[scan.original_offset(at)], byte);
        }
    }

    #[test]
    fn counts_nesting_outside_strings_and_comments() {
        assert_eq!(Scan::of("a{[<{", 3).unwrap_err(), TooDeep { offset: 4 });
        assert!(Scan::of("a: \"{{{{\" # {{{{\n { } { } { } [<", 3).is_ok());
        assert_eq!(Scan::of("a { b { } ", 3).unwrap().innermost_open, Some(2));
    }
}
