//! `GET /v2/repository/events`: what happens to versions, as server-sent events.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use inference::repository::Event;
use model::InferError;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::server::Exchange;
use crate::app::App;
use crate::describe::rfc_3339;
use crate::readiness::Stage;
use crate::request_rules::shortened;

/// What a browser sends when it comes back: the last event it has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Names this life of the server: a client that comes back sees by it that events are counted anew.
const SERVER_RUN: HeaderName = HeaderName::from_static("x-server-run");

static RUN: LazyLock<HeaderValue> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let run = format!("{:x}-{:x}", now.as_nanos(), std::process::id());
    HeaderValue::from_str(&run).expect("hexadecimal digits are a header's value")
});

/// A line without meaning is sent so often when nothing happens, so that proxies keep the connection, and the death of
/// the client is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Answers with the events that come from now on, or after the one that the client has seen; ends when the server stops.
///
/// # Errors
/// When the query is not understood.
pub(super) fn follow(app: &App, exchange: &Exchange) -> Result<Answer, InferError> {
    let asked = Asked::of(exchange)?;
    let events = app.repository.events();
    let after = first_after(asked.after, events.count());
    let (before, coming) = events.follow(after);
    let missed = missed(after, before.first().map(|event| event.id));
    let following = Following {
        after,
        before: before.into_iter(),
        coming,
        model: asked.model,
        readiness: app.readiness.watch(),
        missed,
        opened: false,
    };
    let mut answer = answer::stream(Box::pin(frames(following)), "text/event-stream");
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer.headers_mut().insert(SERVER_RUN, RUN.clone());
    Ok(answer)
}

/// After which event a client begins that has `asked` for those after one, when there are so many.
fn first_after(asked: Option<u64>, count: u64) -> u64 {
    match asked {
        None => count,
        // It was counted by an earlier life of the server: to this client all of this one is new.
        Some(seen) if seen > count => 0,
        Some(seen) => seen,
    }
}

/// Events after `after` that are not kept any more when the `first` that is has this number. Who begins with what is kept
/// misses nothing.
fn missed(after: u64, first: Option<u64>) -> u64 {
    first.filter(|_| after > 0).map_or(0, |first| first.saturating_sub(after + 1))
}

/// What a client wants to see.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// Events of this model alone.
    model: Option<String>,
    /// Events after this one.
    after: Option<u64>,
}

impl Asked {
    fn of(exchange: &Exchange) -> Result<Asked, InferError> {
        let mut asked = Asked::read(exchange.request.uri().query().unwrap_or_default())?;
        if let Some(seen) = exchange.header(&LAST_EVENT_ID) {
            asked.after = Some(number("the header Last-Event-ID", seen)?);
        }
        Ok(asked)
    }

    fn read(query: &str) -> Result<Asked, InferError> {
        let mut asked = Asked::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            match key {
                "model" => asked.model = Some(value.into_owned()),
                "after" => asked.after = Some(number("the parameter 'after'", &value)?),
                _ => {
                    return Err(InferError::invalid(format!(
                        "the query has '{}', but takes 'model', a model's name, and 'after', the number of an event",
                        shortened(key)
                    )));
                }
            }
        }
        Ok(asked)
    }
}

fn number(what: &str, text: &str) -> Result<u64, InferError> {
    text.parse().map_err(|_| {
        InferError::invalid(format!("{what} is '{}', but takes the number of an event", shortened(text)))
    })
}

/// Who follows, and how far it is.
struct Following {
    /// After which event it begins, so that a client that has seen none can come back, too.
    after: u64,
    before: std::vec::IntoIter<Arc<Event>>,
    /// Events between the two that are not kept any more.
    missed: u64,
    coming: Receiver<Arc<Event>>,
    model: Option<String>,
    readiness: watch::Receiver<Stage>,
    opened: bool,
}

fn frames(following: Following) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    unfold(following, async |mut following| {
        if !std::mem::replace(&mut following.opened, true) {
            let opening = format!("retry: 1000\nid: {}\n\n", following.after);
            return Some((Ok(Bytes::from(opening)), following));
        }
        let frame = following.next().await?;
        Some((Ok(frame), following))
    })
}

impl Following {
    /// The next frame; `None` when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            return Some(lagged(missed));
        }
        // Events that this client does not want to see tell it nothing.
        let mut heartbeat = pin!(tokio::time::sleep(HEARTBEAT));
        loop {
            let model = self.model.as_deref();
            let wants = |event: &Event| model.is_none_or(|model| model == event.model.as_str());
            if let Some(event) = self.before.find(|event| wants(event)) {
                return Some(frame(&event));
            }
            let stopping = self.readiness.wait_for(|stage| *stage == Stage::Stopping);
            tokio::select! {
                biased;
                event = self.coming.recv() => match event {
                    Ok(event) if wants(&event) => return Some(frame(&event)),
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => return Some(lagged(missed)),
                    Err(RecvError::Closed) => return None,
                },
                _ = stopping => return None,
                () = heartbeat.as_mut() => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }
}

fn frame(event: &Event) -> Bytes {
    let data = json!({
        "id": event.id,
        "time": rfc_3339(event.time),
        "model": event.model.as_str(),
        "version": event.version.map(|version| version.to_string()),
        "state": event.state.name(),
        "reason": event.reason,
    });
    Bytes::from(format!("id: {}\nevent: version\ndata: {data}\n\n", event.id))
}

/// The client was so slow that events were let go before it read them.
fn lagged(missed: u64) -> Bytes {
    Bytes::from(format!("event: missed\ndata: {}\n\n", json!({ "missed": missed })))
}

#[cfg(test)]
mod tests {
    use inference::repository::State;
    use model::{ModelName, ModelVersion};

    use super::*;
    use crate::readiness::Readiness;

    #[test]
    fn a_query_names_a_model_and_an_event() {
        let read = |query| Asked::read(query).map_err(|error| error.to_string());
        assert_eq!(read(""), Ok(Asked::default()));
        let asked = Asked { model: Some("my model".to_owned()), after: Some(7) };
        assert_eq!(read("model=my%20model&after=7"), Ok(asked));
        assert!(read("after=x").unwrap_err().contains("'after' is 'x'"));
        assert!(read("modle=m").unwrap_err().contains("has 'modle'"));
    }

    #[test]
    fn who_comes_back_goes_on_and_an_earlier_life_of_the_server_does_not_count() {
        assert_eq!(first_after(None, 5), 5);
        assert_eq!(first_after(Some(3), 5), 3);
        assert_eq!(first_after(Some(5), 5), 5);
        assert_eq!(first_after(Some(6), 5), 0);
    }

    /// A client that was away for long was not told that it had missed any.
    #[tokio::test]
    async fn who_comes_back_too_late_is_told_how_many_events_are_gone() {
        assert_eq!(
            [missed(0, Some(9)), missed(3, None), missed(3, Some(4)), missed(3, Some(9))],
            [0, 0, 0, 5]
        );
        let readiness = Readiness::default();
        let mut following = following(None, tokio::sync::broadcast::channel(1).1, &readiness);
        (following.before, following.missed) = (vec![Arc::new(event("m"))].into_iter(), 5);
        assert!(following.next().await.unwrap().starts_with(b"event: missed\ndata: {\"missed\":5}"));
        assert!(following.next().await.unwrap().starts_with(b"id: 3\n"));
    }

    /// Each event of another model put the next line off, so that proxies gave the connection up.
    #[tokio::test(start_paused = true)]
    async fn events_of_other_models_do_not_put_off_what_keeps_the_connection() {
        let (sender, coming) = tokio::sync::broadcast::channel(4);
        let readiness = Readiness::default();
        let mut following = following(Some("mine"), coming, &readiness);
        let others = async {
            loop {
                tokio::time::sleep(HEARTBEAT / 3).await;
                sender.send(Arc::new(event("other"))).unwrap();
            }
        };
        let began = tokio::time::Instant::now();
        let next = tokio::select! {
            next = following.next() => next,
            () = others => unreachable!("it goes on for ever"),
            () = tokio::time::sleep(2 * HEARTBEAT) => None,
        };
        assert_eq!(next.expect("a heartbeat"), ":\n\n");
        assert_eq!(began.elapsed().as_secs(), HEARTBEAT.as_secs());
    }

    fn following(model: Option<&str>, coming: Receiver<Arc<Event>>, readiness: &Readiness) -> Following {
        Following {
            after: 0,
            before: Vec::new().into_iter(),
            coming,
            model: model.map(str::to_owned),
            readiness: readiness.watch(),
            missed: 0,
            opened: true,
        }
    }

    fn event(model: &str) -> Event {
        Event {
            id: 3,
            time: SystemTime::UNIX_EPOCH,
            model: ModelName::parse(model).unwrap(),
            version: ModelVersion::new(2),
            state: State::Unavailable,
            reason: "two\nlines".to_owned(),
        }
    }

    #[test]
    fn an_event_is_one_frame_whatever_its_reason_says() {
        let text = String::from_utf8(frame(&event("m")).to_vec()).unwrap();
        let data = r#"{"id":3,"time":"1970-01-01T00:00:00Z","model":"m","version":"2","state":"UNAVAILABLE","reason":"two\nlines"}"#;
        assert_eq!(text, format!("id: 3\nevent: version\ndata: {data}\n\n"));
    }
}
