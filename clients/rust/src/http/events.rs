//! What happens to versions in a server's repository, as it happens.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::{Request, Response};
use serde::{Deserialize, Serialize};

use super::frames::{Frame, Frames};
use super::{HttpClient, refusal};
use crate::ClientError;
use crate::address::segment;
use crate::error::root_cause;

/// What a client that comes back sends: the last event that it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// Names a server's life: events are counted anew in the next.
const SERVER_RUN: &str = "x-server-run";

/// Volley says something every 15 seconds; a server that is silent for so long is gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(45);

/// One change of the state of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepositoryEvent {
    /// Counts from 1 since the server started.
    pub id: u64,
    /// When it happened, as RFC 3339 has it.
    pub time: String,
    /// The model.
    pub model: String,
    /// The version; none when it is about the model before its versions are known.
    pub version: Option<String>,
    /// LOADING, READY, UNLOADING or UNAVAILABLE.
    pub state: String,
    /// Why; empty when there is nothing to say.
    pub reason: String,
}

/// What a server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something has happened.
    Event(RepositoryEvent),
    /// So many events were let go of before this client read them.
    Missed(u64),
}

/// The events of a server, as they come.
#[derive(Debug)]
pub struct EventStream {
    address: String,
    run: Option<String>,
    body: Incoming,
    frames: Frames,
    last: Option<u64>,
    silence: Duration,
}

impl HttpClient {
    /// Follows what happens to versions of `model`, or of all: what comes from now on, or what came after the event
    /// number `after`. A call that Volley has, and other servers do not.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn follow_events(
        &self,
        model: Option<&str>,
        after: Option<u64>,
    ) -> Result<EventStream, ClientError> {
        let query = model.map(|model| format!("?model={}", segment(model))).unwrap_or_default();
        let uri = self.address.uri(&format!("/v2/repository/events{query}"))?;
        let mut request = Request::get(uri).header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header(LAST_EVENT_ID, after);
        }
        let request = request
            .body(Full::default())
            .map_err(|error| ClientError::InvalidRequest { reason: error.to_string() })?;
        let response = self.within_time(self.begin(request)).await?;
        if !response.status().is_success() {
            let (head, body) = self.within_time(self.whole(response)).await?.into_parts();
            let message = refusal(head.status, &body);
            return Err(ClientError::Status { status: head.status.as_u16(), message });
        }
        Ok(self.opened(response))
    }

    fn opened(&self, response: Response<Incoming>) -> EventStream {
        let run = response.headers().get(SERVER_RUN).and_then(|run| run.to_str().ok()).map(str::to_owned);
        EventStream {
            address: self.address(),
            run,
            body: response.into_body(),
            frames: Frames::default(),
            last: None,
            silence: self.options.timeout.max(LONGEST_SILENCE),
        }
    }
}

impl EventStream {
    /// What names the server's life, where it says so: when it is another than before, the server has started anew, and
    /// counts its events from 1 again.
    pub fn server_run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// The number of the last event that has come, or after which the server began, for the next connection.
    pub fn last_event(&self) -> Option<u64> {
        self.last
    }

    /// What comes next; `None` when the server ends it in good order. Nothing is lost when it is dropped before it is done.
    ///
    /// # Errors
    /// When the connection breaks, is silent for too long, or what comes is no event.
    pub async fn next(&mut self) -> Result<Option<Told>, ClientError> {
        loop {
            while let Some(frame) = self.frames.next() {
                if let Some(told) = self.told(&frame)? {
                    return Ok(Some(told));
                }
            }
            let piece = tokio::time::timeout(self.silence, self.body.frame()).await;
            let timeout = |_| ClientError::Timeout { address: self.address.clone(), after: self.silence };
            let Some(piece) = piece.map_err(timeout)? else { return Ok(None) };
            let piece = piece.map_err(|error| ClientError::Disconnected {
                address: self.address.clone(),
                reason: root_cause(&error),
            })?;
            if let Some(bytes) = piece.data_ref() {
                self.frames.push(bytes)?;
            }
        }
    }

    fn told(&mut self, frame: &Frame) -> Result<Option<Told>, ClientError> {
        if let Some(id) = frame.id.as_deref().and_then(|id| id.parse().ok()) {
            self.last = Some(id);
        }
        if frame.data.is_empty() {
            return Ok(None);
        }
        let unreadable =
            |error| ClientError::protocol(format!("an event of the repository cannot be read: {error}"));
        match frame.event.as_str() {
            "version" => Ok(Some(Told::Event(serde_json::from_str(&frame.data).map_err(unreadable)?))),
            "missed" => {
                #[derive(Deserialize)]
                struct Missed {
                    missed: u64,
                }
                let Missed { missed } = serde_json::from_str(&frame.data).map_err(unreadable)?;
                Ok(Some(Told::Missed(missed)))
            }
            _ => Ok(None), // of a later server
        }
    }
}
