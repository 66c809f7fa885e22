//! The Prometheus text format, as far as samples go: names, labels and values.

/// One line of the text: `name{label="value"} 1.5`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// All samples of `text`. Comments and lines that are not samples are passed over.
pub(super) fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter_map(|line| sample(line.trim())).collect()
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|char: char| char == '{' || char.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // A timestamp may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels with their values, and what follows the brace that ends them.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        labels.push((name.trim().to_owned(), value));
        rest = after;
    }
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(parse(line), [Sample { name: name.to_owned(), labels, value }], "{line}");
    }

    #[test]
    fn samples_are_read_as_the_format_allows_them() {
        check("up 1", "up", &[], 1.0);
        check("up{} 1 1700000000000", "up", &[], 1.0);
        check(r#"a{b="c",d="e",} 2.5e3"#, "a", &[("b", "c"), ("d", "e")], 2500.0);
        check(r#"  a { b = "c" }   7"#, "a", &[("b", "c")], 7.0);
        check(r#"a{b="x\"y\\z\n{}=,"} +Inf"#, "a", &[("b", "x\"y\\z\n{}=,")], f64::INFINITY);
    }

    #[test]
    fn what_is_no_sample_is_passed_over() {
        for line in
            ["", "# HELP a b", "# TYPE a counter", "a", "a{", "a{b} 1", "a{b=\"c} 1", "a x", "<html> <p>"]
        {
            assert_eq!(parse(line), [], "{line}");
        }
    }
}
