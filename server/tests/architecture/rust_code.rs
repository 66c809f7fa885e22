//! Rust source as a list of words: enough of the grammar to tell code from what it says about itself.

/// `source` with a space for each character of a comment or of a literal; the lines stay where they are.
pub(crate) fn without_comments_and_literals(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let blank = if in_word { 0 } else { raw_string(rest) }.max(comment(rest)).max(quoted(rest));
        let (taken, after) = rest.split_at(blank.max(first.len_utf8()));
        if blank > 0 {
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(first);
        }
        in_word = blank == 0 && is_word(first);
        rest = after;
    }
    code
}

/// True when `path`, such as `ort::`, occurs in `code` as a path of its own and not as the end of a longer word.
pub(crate) fn mentions(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| !code[..at].ends_with(is_word))
}

/// The identifiers and keywords in `code`.
pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// What `code` takes from `path`, such as `v2::`: a name, `*`, or a whole group in braces.
pub(crate) fn taken_from<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(path).filter(|(at, _)| !code[..*at].ends_with(is_word)).map(move |(at, _)| {
        let rest = &code[at + path.len()..];
        let end = match rest.strip_prefix('{') {
            Some(_) => rest.find(';'),
            None => rest.find(|c| c != '*' && !is_word(c)),
        };
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the comment that `rest` starts with, or 0.
fn comment(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if !rest.starts_with("/*") {
        return 0;
    }
    let (mut depth, mut at) = (0_u32, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of the raw string that `rest` starts with, or 0.
fn raw_string(rest: &str) -> usize {
    let Some(start) = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix)) else { return 0 };
    let hashes = start.len() - start.trim_start_matches('#').len();
    let Some(body) = start[hashes..].strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    let before = rest.len() - body.len();
    body.find(&end).map_or(rest.len(), |at| before + at + end.len())
}

/// Length of the string or character that `rest` starts with, or 0; a lifetime is neither.
fn quoted(rest: &str) -> usize {
    let mut chars = rest.char_indices();
    let Some((_, quote @ ('"' | '\''))) = chars.next() else { return 0 };
    if quote == '\'' && !rest.starts_with("'\\") && rest.chars().nth(2) != Some('\'') {
        return 0;
    }
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn only_code_is_left() {
    let source = r####"
        let a = "ort::x \" ort::y"; // ort::z
        /* ort::a /* ort::b */ ort::c */ let b = 'o'; let c = '\''; let d = b"ort::d";
        let e = r#"ort::e " "#; fn f<'a>(x: &'a str) {} let g = '"'; keep::this();
    "####;
    let code = without_comments_and_literals(source);
    assert!(!code.contains("ort::"), "{code}");
    assert!(code.contains("keep::this();") && code.contains("<'a>(x: &'a str)"), "{code}");
    assert_eq!(code.lines().count(), source.lines().count());
    for cut in ["\"", "r#\"x", "/* /* */", "'\\", "'", "\"é\\"] {
        let _ = without_comments_and_literals(cut);
    }
}

#[test]
fn a_path_is_not_the_end_of_a_word() {
    assert!(mentions("use ort::Session;", "ort::"));
    assert!(!mentions("use port::Session; import::x()", "ort::"));
}

#[test]
fn names_are_found_alone_and_in_groups() {
    let code = "use proto::v2::{ModelConfig, a::B}; let x: v2::C = v2::*; let y = av2::D;";
    let taken: Vec<&str> = taken_from(code, "v2::").collect();
    assert_eq!(taken, ["{ModelConfig, a::B}", "C", "*"]);
}
