//! How an event becomes a line of text or of JSON.

use std::fmt::{self, Write};
use std::time::SystemTime;

use time::OffsetDateTime;
use tracing::Level;

/// The form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Triton's: `I1124 02:25:53.123456 4711 target] text`, in UTC.
    Default,
    /// Triton's other: `2026-11-24T02:25:53Z I 4711 target] text`.
    Iso8601,
    /// One JSON object.
    Json,
}

impl LogFormat {
    /// The format called `name`.
    pub fn parse(name: &str) -> Option<LogFormat> {
        [LogFormat::Default, LogFormat::Iso8601, LogFormat::Json]
            .into_iter()
            .find(|format| format.name() == name)
    }

    /// The name by which it is set.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Default => "default",
            LogFormat::Iso8601 => "ISO8601",
            LogFormat::Json => "json",
        }
    }
}

/// An event, ready to be written.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) process: u32,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(super) request_id: Option<&'a str>,
    pub(super) fields: &'a [(&'static str, Value)],
}

/// The value of a field.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
}

impl Line<'_> {
    /// The line, with its end.
    pub(super) fn format(&self, format: LogFormat) -> String {
        let mut line = String::with_capacity(256);
        let written = match format {
            LogFormat::Default | LogFormat::Iso8601 => self.write_text(&mut line, format),
            LogFormat::Json => self.write_json(&mut line),
        };
        written.expect("writing to a String does not fail");
        line.push('\n');
        line
    }

    fn write_text(&self, out: &mut String, format: LogFormat) -> fmt::Result {
        let (time, letter, process) = (OffsetDateTime::from(self.time), letter(self.level), self.process);
        let (month, day) = (u8::from(time.month()), time.day());
        let (hour, minute, second) = time.to_hms();
        if format == LogFormat::Iso8601 {
            let year = time.year();
            write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z {letter} ")?;
        } else {
            let micros = time.microsecond();
            write!(out, "{letter}{month:02}{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06} ")?;
        }
        write!(out, "{process} {}]", self.target)?;
        if !self.message.is_empty() {
            out.push(' ');
            escape(out, self.message);
        }
        for (name, value) in self.fields {
            write!(out, " {name}=")?;
            write_value(out, value)?;
        }
        if let Some(id) = self.request_id {
            out.push_str(" request_id=");
            write_quoted(out, id);
        }
        Ok(())
    }

    fn write_json(&self, out: &mut String) -> fmt::Result {
        let time = OffsetDateTime::from(self.time);
        let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
        let (hour, minute, second, micros) = time.to_hms_micro();
        write!(
            out,
            "{{\"time\":\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z\""
        )?;
        write!(out, ",\"level\":\"{}\",\"pid\":{},\"target\":", self.level, self.process)?;
        write_json_string(out, self.target)?;
        if !self.message.is_empty() {
            out.push_str(",\"message\":");
            write_json_string(out, self.message)?;
        }
        if let Some(id) = self.request_id {
            out.push_str(",\"request_id\":");
            write_json_string(out, id)?;
        }
        for (name, value) in self.fields {
            write!(out, ",\"{name}\":")?;
            match value {
                Value::Text(text) => write_json_string(out, text)?,
                Value::Double(number) if !number.is_finite() => write!(out, "\"{number}\"")?,
                number => write_value(out, number)?,
            }
        }
        out.push('}');
        Ok(())
    }
}

/// Triton has three letters; its verbose lines are informative ones.
fn letter(level: Level) -> char {
    match level {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        _ => 'I',
    }
}

fn write_value(out: &mut String, value: &Value) -> fmt::Result {
    match value {
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Uint(value) => write!(out, "{value}"),
        Value::Double(value) => write!(out, "{value}"),
        Value::Text(text) => {
            write_quoted(out, text);
            Ok(())
        }
    }
}

/// Writes a value so that its end can be told: quoted, unless it is one plain word.
fn write_quoted(out: &mut String, text: &str) {
    let plain = !text.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '=') || is_unsafe(c));
    if plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    for piece in text.split_inclusive('"') {
        match piece.strip_suffix('"') {
            Some(piece) => {
                escape(out, piece);
                out.push_str("\\\"");
            }
            None => escape(out, piece),
        }
    }
    out.push('"');
}

/// Writes `text` so that it stays on its line and shows what it holds.
fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        if character == '\\' || is_unsafe(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
}

/// True for what would end a line, drive a terminal, or hide or reorder text.
fn is_unsafe(character: char) -> bool {
    let reorders =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || reorders || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn write_json_string(out: &mut String, text: &str) -> fmt::Result {
    out.push_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// 24 November 2026, 02:25:53.123456 UTC.
    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_487_153_123_456)
    }

    fn line<'a>(
        message: &'a str,
        request_id: Option<&'a str>,
        fields: &'a [(&'static str, Value)],
    ) -> Line<'a> {
        Line {
            time: clock(),
            level: Level::INFO,
            process: 4711,
            target: "volley::http",
            message,
            request_id,
            fields,
        }
    }

    #[track_caller]
    fn check(line: &Line<'_>, format: LogFormat, expected: &str) {
        assert_eq!(line.format(format), format!("{expected}\n"));
    }

    #[test]
    fn the_three_forms() {
        let fields = [
            ("port", Value::Uint(8000)),
            ("took", Value::Double(0.5)),
            ("left", Value::Int(-1)),
            ("ok", Value::Bool(true)),
            ("model", Value::Text("a b".into())),
        ];
        let line = line("serving HTTP", Some("r-1"), &fields);
        check(
            &line,
            LogFormat::Default,
            "I1124 02:25:53.123456 4711 volley::http] serving HTTP port=8000 took=0.5 left=-1 ok=true \
             model=\"a b\" request_id=r-1",
        );
        check(
            &line,
            LogFormat::Iso8601,
            "2026-11-24T02:25:53Z I 4711 volley::http] serving HTTP port=8000 took=0.5 left=-1 ok=true \
             model=\"a b\" request_id=r-1",
        );
        check(
            &line,
            LogFormat::Json,
            "{\"time\":\"2026-11-24T02:25:53.123456Z\",\"level\":\"INFO\",\"pid\":4711,\
             \"target\":\"volley::http\",\"message\":\"serving HTTP\",\"request_id\":\"r-1\",\"port\":8000,\
             \"took\":0.5,\"left\":-1,\"ok\":true,\"model\":\"a b\"}",
        );
    }

    #[test]
    fn levels_have_tritons_letters() {
        let letters: String =
            [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE].map(letter).iter().collect();
        assert_eq!(letters, "EWIII");
    }

    #[test]
    fn what_a_user_sent_stays_on_its_line() {
        let prefix = "I1124 02:25:53.123456 4711 volley::http]";
        let forged = "x\nE1124 02:25:53.123456 1 volley] fire";
        check(
            &line(forged, Some("a\"b\\\r"), &[]),
            LogFormat::Default,
            &format!("{prefix} x\\nE1124 02:25:53.123456 1 volley] fire request_id=\"a\\\"b\\\\\\r\""),
        );
        let fields =
            [("name", Value::Text("\u{1b}[31m\u{202e}é ग्".into())), ("empty", Value::Text(String::new()))];
        check(
            &line("", None, &fields),
            LogFormat::Default,
            &format!("{prefix} name=\"\\u{{1b}}[31m\\u{{202e}}é ग्\" empty=\"\""),
        );
    }

    #[test]
    fn numbers_that_json_lacks_are_text() {
        let fields = [("ratio", Value::Double(f64::NAN))];
        assert!(line("", None, &fields).format(LogFormat::Json).ends_with(",\"ratio\":\"NaN\"}\n"));
    }

    #[test]
    fn a_format_is_set_by_its_exact_name() {
        for format in [LogFormat::Default, LogFormat::Iso8601, LogFormat::Json] {
            assert_eq!(LogFormat::parse(format.name()), Some(format));
        }
        assert_eq!(LogFormat::parse("iso8601"), None);
    }

    proptest! {
        #[test]
        fn an_event_is_one_line(message: String, id: String, text: String) {
            let fields = [("field", Value::Text(text.clone()))];
            let line = line(&message, Some(&id), &fields);
            for format in [LogFormat::Default, LogFormat::Iso8601] {
                let written = line.format(format);
                prop_assert_eq!(written.chars().filter(|c| is_unsafe(*c)).count(), 1);
            }
            let json = line.format(LogFormat::Json);
            prop_assert_eq!(json.matches('\n').count(), 1);
            let back: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&back["request_id"], &id);
            prop_assert_eq!(&back["field"], &text);
        }
    }
}
