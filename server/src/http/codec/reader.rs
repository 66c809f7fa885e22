//! A pull reader over JSON text: the whole grammar, a bounded depth, no tree.

use std::borrow::Cow;

use model::InferError;

use super::decimal::Decimal;

/// How deep arrays and objects may nest.
pub const MAX_DEPTH: u32 = 100;

/// Text that is not JSON. Boxed, so that the results of the hot functions stay small.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed {
    reason: String,
    offset: usize,
}

pub(super) type Result<T> = std::result::Result<T, Box<Malformed>>;

impl From<Box<Malformed>> for InferError {
    fn from(malformed: Box<Malformed>) -> InferError {
        InferError::MalformedJson { reason: malformed.reason, offset: malformed.offset }
    }
}

/// Reads values in the order in which they stand; the caller says which kind it expects next.
///
/// A copy is a bookmark: reading from it starts again where it was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// Whether the innermost array or object has no member yet.
    fresh: bool,
    /// Where the key that was read last stands, for errors.
    key: (usize, usize),
}

/// Whether `NaN`, `Infinity` and `-Infinity` count as values.
#[derive(Clone, Copy, PartialEq)]
enum BareWords {
    Refused,
    Allowed,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Reader<'a> {
        Reader { text, at: 0, depth: 0, fresh: false, key: (0, 0) }
    }

    #[inline(always)]
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// Bytes not yet read.
    pub(super) fn remaining(&self) -> usize {
        self.text.len() - self.at
    }

    /// Arrays and objects open around the next value.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Where the next byte stands in the text.
    #[inline(always)]
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// A bookmark at `position`, between which and here nothing has opened or closed an array or object. A loop
    /// over elements that keeps a position takes no copy of the whole reader each time: that loads in one piece
    /// what was just stored in several, which halts the processor for some 15 cycles.
    pub(super) fn back_at(&self, position: usize) -> Reader<'a> {
        Reader { at: position, ..*self }
    }

    /// The text read since `start`, a bookmark taken earlier.
    pub(super) fn since(&self, start: &Reader<'a>) -> &'a [u8] {
        &self.bytes()[start.at..self.at]
    }

    /// The first byte of the next token; `None` at the end.
    #[inline(always)]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    pub(super) fn begin_object(&mut self) -> Result<()> {
        self.open(b'{', "expected an object")
    }

    /// The next key of the object that is open, with its colon read; `None` when the object ends.
    #[inline]
    pub(super) fn next_key(&mut self) -> Result<Option<Cow<'a, str>>> {
        if !self.next_member(b'}', "expected ',' or '}'")? {
            return Ok(None);
        }
        let start = self.at;
        let key = self.string()?;
        self.key = (start, self.at);
        match self.peek() {
            Some(b':') => self.at += 1,
            _ => return Err(self.unexpected("expected ':'")),
        }
        Ok(Some(key))
    }

    pub(super) fn begin_array(&mut self) -> Result<()> {
        self.open(b'[', "expected an array")
    }

    /// Whether the array that is open has another element, which is then next; ends the array when not.
    #[inline(always)]
    pub(super) fn next_element(&mut self) -> Result<bool> {
        self.next_member(b']', "expected ',' or ']'")
    }

    /// Checks that nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("expected the end of the JSON")),
        }
    }

    /// Reads a string.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>> {
        let (text, escaped) = self.quoted()?;
        if !escaped {
            return Ok(Cow::Borrowed(text));
        }
        let mut plain = Vec::with_capacity(text.len());
        self.unescape(text, &mut plain)?;
        Ok(Cow::Owned(String::from_utf8(plain).expect("unescaping UTF-8 yields UTF-8")))
    }

    /// Reads a string and appends its bytes to `plain`.
    pub(super) fn string_into(&mut self, plain: &mut Vec<u8>) -> Result<()> {
        let (text, escaped) = self.quoted()?;
        if escaped {
            return self.unescape(text, plain);
        }
        plain.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool> {
        match self.peek() {
            Some(b't') => self.word("true").map(|()| true),
            Some(b'f') => self.word("false").map(|()| false),
            _ => Err(self.unexpected("expected true or false")),
        }
    }

    /// Reads `null` if that is next: some programs write members without a value so, instead of leaving them out.
    pub(super) fn null(&mut self) -> Result<bool> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.word("null").map(|()| true)
    }

    /// Reads a number.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Result<Decimal<'a>> {
        if self.peek().is_none() {
            return Err(self.unexpected("expected a number"));
        }
        match Decimal::scan(&self.bytes()[self.at..]) {
            Ok(decimal) => {
                self.at += decimal.text.len();
                Ok(decimal)
            }
            Err(length) => {
                self.at += length;
                Err(self.unexpected("expected a digit"))
            }
        }
    }

    /// Reads `NaN`, `Infinity` or `-Infinity`, bare or as a string; `None`, with nothing read, for any other
    /// value.
    pub(super) fn non_finite(&mut self) -> Result<Option<f64>> {
        let start = *self;
        let value = match self.peek() {
            Some(b'"') => match &*self.string()? {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            Some(b'N') => self.word("NaN").map(|()| Some(f64::NAN))?,
            Some(b'I') => self.word("Infinity").map(|()| Some(f64::INFINITY))?,
            Some(b'-') => self.word("-Infinity").map(|()| Some(f64::NEG_INFINITY))?,
            _ => None,
        };
        if value.is_none() {
            *self = start;
        }
        Ok(value)
    }

    /// Whether a number is next. A minus sign alone does not make one: it may begin `-Infinity`.
    ///
    /// Asks what follows a sign, and not whether there is one: every other number may have one, and each time the
    /// processor guesses wrong costs as much as reading the number.
    #[inline(always)]
    pub(super) fn at_number(&mut self) -> bool {
        let sign = usize::from(self.peek() == Some(b'-'));
        match self.bytes().get(self.at + sign) {
            Some(b'0'..=b'9') => true,
            Some(b'I') => false,
            _ => sign == 1,
        }
    }

    /// Reads any one value and forgets it.
    pub(super) fn skip_value(&mut self) -> Result<()> {
        self.skip(BareWords::Refused)
    }

    /// Reads any one value of a tensor's data and forgets it.
    pub(super) fn skip_data(&mut self) -> Result<()> {
        self.skip(BareWords::Allowed)
    }

    fn skip(&mut self, bare: BareWords) -> Result<()> {
        let outside = self.depth;
        // One bit for each open container, the innermost lowest: 1 for an object. MAX_DEPTH bits suffice.
        let mut objects = 0_u128;
        self.skip_start(bare, &mut objects)?;
        while self.depth > outside {
            let more = if objects & 1 == 1 { self.next_key()?.is_some() } else { self.next_element()? };
            if more {
                self.skip_start(bare, &mut objects)?;
            } else {
                objects >>= 1;
            }
        }
        Ok(())
    }

    /// Skips a scalar, or enters an array or object.
    fn skip_start(&mut self, bare: BareWords, objects: &mut u128) -> Result<()> {
        match self.peek() {
            Some(b'{') => {
                *objects = *objects << 1 | 1;
                self.begin_object()
            }
            Some(b'[') => {
                *objects <<= 1;
                self.begin_array()
            }
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'N' | b'I') if bare == BareWords::Allowed && !self.at_number() => {
                self.non_finite().map(drop)
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => Err(self.unexpected("expected a value")),
        }
    }

    fn open(&mut self, bracket: u8, expected: &str) -> Result<()> {
        if self.peek() != Some(bracket) {
            return Err(self.unexpected(expected));
        }
        if self.depth == MAX_DEPTH {
            return Err(self.malformed(format!("arrays and objects nest deeper than {MAX_DEPTH} levels")));
        }
        self.at += 1;
        self.depth += 1;
        self.fresh = true;
        Ok(())
    }

    #[inline(always)]
    fn next_member(&mut self, bracket: u8, expected: &str) -> Result<bool> {
        let next = self.peek();
        if next == Some(b',') && !self.fresh {
            self.at += 1;
            self.peek();
            return Ok(true);
        }
        if next == Some(bracket) {
            self.at += 1;
            self.depth -= 1;
            self.fresh = false;
            return Ok(false);
        }
        if self.fresh && next.is_some() {
            self.fresh = false;
            return Ok(true);
        }
        Err(self.unexpected(expected))
    }

    fn word(&mut self, word: &str) -> Result<()> {
        if !self.bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.unexpected("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads a string as it stands between its quotes, and says whether it has escapes.
    #[inline]
    fn quoted(&mut self) -> Result<(&'a str, bool)> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("expected a string"));
        }
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            self.at += plain_length(&self.bytes()[self.at..]);
            match self.bytes().get(self.at) {
                Some(b'"') => break,
                Some(b'\\') if self.remaining() > 2 => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..0x20) => return Err(self.unexpected("a string has an unescaped control character")),
                _ => {
                    self.at = self.text.len();
                    return Err(self.unexpected("a string does not end"));
                }
            }
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Ok((text, escaped))
    }

    /// Appends `text`, which was just read, to `plain` with its escapes resolved.
    #[cold]
    fn unescape(self, text: &str, plain: &mut Vec<u8>) -> Result<()> {
        let mut rest = text;
        while let Some((before, escape)) = rest.split_once('\\') {
            plain.extend_from_slice(before.as_bytes());
            let Some((character, length)) = unescaped(escape) else {
                // The closing quote, which is read, stands after `escape`.
                let offset = self.at - 1 - escape.len() - 1;
                return Err(Box::new(Malformed {
                    reason: "a string has an invalid escape".to_owned(),
                    offset,
                }));
            };
            plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &escape[length..];
        }
        plain.extend_from_slice(rest.as_bytes());
        Ok(())
    }

    #[cold]
    fn unexpected(self, expected: &str) -> Box<Malformed> {
        let found = match self.bytes().get(self.at) {
            Some(&byte @ 0x21..0x7f) => format!("'{}'", char::from(byte)),
            Some(byte) => format!("the byte 0x{byte:02x}"),
            None => "the end".to_owned(),
        };
        let key = String::from_utf8_lossy(&self.bytes()[self.key.0..self.key.1]);
        match key.trim_matches([' ', '\n', '\r', '\t', '"']) {
            "" => self.malformed(format!("{expected}, found {found}")),
            key => {
                let key: String = key.chars().take(64).collect();
                self.malformed(format!("{expected} after the key '{key}', found {found}"))
            }
        }
    }

    #[cold]
    fn malformed(self, reason: String) -> Box<Malformed> {
        Box::new(Malformed { reason, offset: self.at })
    }
}

/// Bytes before the first that ends or interrupts a string: a quote, a backslash or a control character.
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let mut plain = 0;
    while let Some(word) = bytes[plain..].first_chunk() {
        match interruption(u64::from_le_bytes(*word)) {
            Some(at) => return plain + at,
            None => plain += size_of::<u64>(),
        }
    }
    let interrupts = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    plain + bytes[plain..].iter().position(interrupts).unwrap_or(bytes.len() - plain)
}

/// Which of the 8 bytes of `word` is the first quote, backslash or control character, if one is
/// (Mycroft's "has a byte less than n", with the other two tests as "has a zero byte" after an XOR).
#[inline]
fn interruption(word: u64) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // A borrow marks bytes only after one that is less than n, so the first that is marked is one.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    let marked = (below(word, 0x20) | quote | backslash) & HIGHS;
    (marked != 0).then(|| marked.trailing_zeros() as usize / 8)
}

/// The character that the escape at the start of `text` (after its backslash) means, and its length there.
fn unescaped(text: &str) -> Option<(char, usize)> {
    let character = match text.as_bytes().first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unescaped_unicode(text),
        _ => return None,
    };
    Some((character, 1))
}

/// As [`unescaped`], for `uXXXX`, or `uXXXX\uXXXX` where two surrogates make one character.
fn unescaped_unicode(text: &str) -> Option<(char, usize)> {
    let unit = |text: &str| {
        let digits = text.strip_prefix('u')?.get(..4)?;
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        hexadecimal.then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let first = unit(text)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Some((character, 5));
    }
    let second = unit(text[5..].strip_prefix('\\')?)?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, 11))
}
