//! From `tracing` to lines: which request an event is about, its fields, and the write.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::LogSettings;
use super::filter::REQUEST_ID;
use super::format::{Line, Value};

/// The span of a request: every event inside it carries `id`.
///
/// It is an error's span, so that it is there whenever anything is logged at all.
pub fn request_span(id: &str) -> Span {
    tracing::error_span!(target: "volley", "request", request_id = id)
}

/// Writes the events that its settings enable.
pub(super) struct LogLayer {
    settings: LogSettings,
    /// Held for one write of one line; the output is a buffer that does not wait.
    output: Mutex<Box<dyn Write + Send>>,
    now: fn() -> SystemTime,
    process: u32,
}

impl LogLayer {
    pub(super) fn new(
        settings: LogSettings,
        output: Box<dyn Write + Send>,
        now: fn() -> SystemTime,
    ) -> LogLayer {
        LogLayer { settings, output: Mutex::new(output), now, process: std::process::id() }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.settings.filter().enables(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.settings.filter().enables(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.settings.filter().max_level())
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        remember(fields.request_id, id, &context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        remember(fields.request_id, id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.request_id.is_none() {
            let mut spans = context.event_scope(event).into_iter().flatten();
            fields.request_id =
                spans.find_map(|span| span.extensions().get::<RequestId>().map(|id| id.0.clone()));
        }
        let line = Line {
            time: (self.now)(),
            level: *event.metadata().level(),
            process: self.process,
            target: event.metadata().target(),
            message: &fields.message,
            request_id: fields.request_id.as_deref(),
            fields: &fields.others,
        }
        .format(self.settings.format());
        // There is nowhere left to tell that the log cannot be written.
        let _ = self.output.lock().write_all(line.as_bytes());
    }
}

/// The id of the request that a span is about.
struct RequestId(String);

fn remember<S>(request_id: Option<String>, span: &Id, context: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if let (Some(request_id), Some(span)) = (request_id, context.span(span)) {
        span.extensions_mut().replace(RequestId(request_id));
    }
}

/// The fields of an event or span.
#[derive(Default)]
struct Fields {
    message: String,
    request_id: Option<String>,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            REQUEST_ID => self.request_id = Some(text),
            name => self.others.push((name, Value::Text(text))),
        }
    }

    fn value(&mut self, field: &Field, value: Value) {
        self.others.push((field.name(), value));
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, Value::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, Value::Uint(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, Value::Double(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, bounded(&value));
    }

    fn record_error(&mut self, field: &Field, mut error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        while let Some(cause) = error.source() {
            let _ = write!(text, ": {cause}");
            error = cause;
        }
        self.text(field, bounded(&text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, bounded(&format_args!("{value:?}")));
    }
}

/// Longest text of a field, in bytes. What is longer was not written to be read in a log.
const MAX_TEXT: usize = 4096;

/// `value` as text, cut after [`MAX_TEXT`] bytes.
fn bounded(value: &dyn fmt::Display) -> String {
    let mut text = Bounded(String::new());
    match write!(text, "{value}") {
        Ok(()) => text.0,
        Err(fmt::Error) => text.0 + "…",
    }
}

/// Text that takes no more than [`MAX_TEXT`] bytes.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = MAX_TEXT - self.0.len();
        if part.len() <= room {
            self.0.push_str(part);
            return Ok(());
        }
        self.0.push_str(&part[..part.floor_char_boundary(room)]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt;

    use super::super::{AccessLog, LogConfig, LogFormat};
    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_487_153_123_456)
    }

    /// What `events` write to a log that starts with `format` and the usual switches.
    fn logged(format: LogFormat, access: bool, events: impl FnOnce(&LogSettings)) -> String {
        let config =
            LogConfig { file: None, format, info: true, warning: true, error: true, verbose: 0, access };
        let settings = LogSettings::new(&config, None);
        let buffer = Buffer::default();
        let mut layer = LogLayer::new(settings.clone(), Box::new(buffer.clone()), clock);
        layer.process = 4711;
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || events(&settings));
        let bytes = buffer.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_line_inside_the_span_of_a_request_carries_its_id() {
        let text = logged(LogFormat::Default, false, |_| {
            tracing::info!(target: "volley", "before");
            let outer = request_span("r 1");
            let _outer = outer.enter();
            tracing::warn!(target: "inference", model = "digits", rows = 3, "late");
            tracing::error_span!("elsewhere", request_id = 7).in_scope(|| {
                tracing::error!(target: "hyper", error = %"gone", "closed");
            });
            request_span("r2").in_scope(|| tracing::info!(target: "volley", "inner"));
        });
        assert_eq!(
            text,
            "I1124 02:25:53.123456 4711 volley] before\n\
             W1124 02:25:53.123456 4711 inference] late model=digits rows=3 request_id=\"r 1\"\n\
             E1124 02:25:53.123456 4711 hyper] closed error=gone request_id=\"r 1\"\n\
             I1124 02:25:53.123456 4711 volley] inner request_id=r2\n"
        );
    }

    #[test]
    fn a_json_line_has_the_id_beside_the_message() {
        let text = logged(LogFormat::Json, false, |_| {
            request_span("r-1").in_scope(|| tracing::info!(target: "volley", n = 1, "hello \"you\""));
        });
        assert_eq!(
            text,
            "{\"time\":\"2026-11-24T02:25:53.123456Z\",\"level\":\"INFO\",\"pid\":4711,\"target\":\"volley\",\
             \"message\":\"hello \\\"you\\\"\",\"request_id\":\"r-1\",\"n\":1}\n"
        );
    }

    #[test]
    fn an_access_line_is_written_when_asked_for() {
        let access = || {
            AccessLog {
                protocol: "http",
                method: "POST",
                route: "/v2/models/{model}/infer",
                status: 200,
                model: Some("digits"),
                version: None,
                bytes_in: 10,
                bytes_out: 20,
                took: Duration::from_micros(321),
                request_id: "r-1",
                peer: Some("127.0.0.1:5000".parse().unwrap()),
            }
            .write();
        };
        assert_eq!(logged(LogFormat::Default, false, |_| access()), "");
        assert_eq!(
            logged(LogFormat::Default, true, |_| access()),
            "I1124 02:25:53.123456 4711 access] protocol=http method=POST route=/v2/models/{model}/infer \
             status=200 model=digits bytes_in=10 bytes_out=20 microseconds=321 peer=127.0.0.1:5000 \
             request_id=r-1\n"
        );
        logged(LogFormat::Default, true, |_| assert!(AccessLog::wanted()));
        logged(LogFormat::Default, false, |_| assert!(!AccessLog::wanted()));
    }

    #[test]
    fn a_change_at_run_time_reaches_events_that_were_seen_before() {
        let event = || {
            tracing::info!(target: "volley", "told");
            tracing::debug!(target: "volley", "detail");
        };
        let text = logged(LogFormat::Default, false, |settings| {
            event();
            let mut changes = model::Parameters::default();
            changes.insert("log_info", model::Parameter::Bool(false));
            changes.insert("log_verbose_level", model::Parameter::Int(1));
            changes.insert("log_format", model::Parameter::String("ISO8601".into()));
            settings.update(&changes).unwrap();
            event();
        });
        assert_eq!(
            text,
            "I1124 02:25:53.123456 4711 volley] told\n2026-11-24T02:25:53Z I 4711 volley] detail\n"
        );
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(bounded(&"é".repeat(MAX_TEXT)).len(), MAX_TEXT + "…".len());
        assert_eq!(bounded(&format!("x{}", "é".repeat(MAX_TEXT))).len(), MAX_TEXT - 1 + "…".len());
        assert_eq!(bounded(&"short"), "short");
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let text = logged(LogFormat::Default, false, |_| {
            let cause = std::io::Error::other("disk is full");
            let error = super::super::LogError::File { path: "v.log".into(), reason: cause };
            tracing::error!(target: "volley", error = &error as &dyn std::error::Error, "stopped");
        });
        assert!(text.contains("stopped error=\"cannot append to the log file v.log: disk is full"), "{text}");
    }
}
