//! gRPC calls over HTTP/2, many at once on one connection. Messages are framed beforehand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Uri, Version};
use volley_client::{ClientError, EncodedReply, InferResponse};

use super::grpc_messages::Messages;
use super::http1::{broken, connected};
use super::{Endpoint, Failure};

/// Bytes that may be on their way to us before we take them: room for large tensors.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A connection that calls share.
#[derive(Debug)]
pub(super) struct Channel {
    endpoint: Rc<Endpoint>,
    sender: RefCell<Option<SendRequest<Bytes>>>,
    /// Held while connecting, so that one of many waiting calls does it.
    connecting: tokio::sync::Mutex<()>,
    /// Which connection this is, so that the end of an older one does not close a newer one.
    generation: Cell<u64>,
}

/// A call that was begun, and on which connection.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) response: ResponseFuture,
    pub(super) outgoing: SendStream<Bytes>,
    pub(super) generation: u64,
}

/// How a call ended without a good answer.
#[derive(Debug)]
pub(super) enum Fault {
    Http2(h2::Error),
    Failure(Failure),
}

impl From<h2::Error> for Fault {
    fn from(error: h2::Error) -> Fault {
        Fault::Http2(error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        Fault::Failure(failure)
    }
}

impl Channel {
    pub(super) fn new(endpoint: Rc<Endpoint>) -> Channel {
        let (sender, generation) = (RefCell::new(None), Cell::new(0));
        Channel { endpoint, sender, connecting: tokio::sync::Mutex::new(()), generation }
    }

    /// Connects, unless there is a connection.
    pub(super) async fn connect(self: &Rc<Self>) -> Result<(), Failure> {
        self.sender().await.map(drop)
    }

    /// Begins a call. A connection that the server is about to end (GOAWAY) or has ended takes no more calls; nothing
    /// was sent then, and another connection is opened.
    pub(super) async fn begin(self: &Rc<Self>, head: &Request<()>) -> Result<Call, Failure> {
        let sender = self.sender().await?;
        let generation = self.generation.get();
        match begun(sender, head, generation).await {
            Err(error) if !error.is_reset() => self.forget(generation),
            call => return call.map_err(|error| failed(&error)),
        }
        let sender = self.sender().await?;
        let generation = self.generation.get();
        begun(sender, head, generation).await.map_err(|error| {
            self.forget(generation);
            failed(&error)
        })
    }

    /// Something to send calls with, on the connection that there is or a new one.
    async fn sender(self: &Rc<Self>) -> Result<SendRequest<Bytes>, Failure> {
        let open = || self.sender.borrow().clone();
        if let Some(sender) = open() {
            return Ok(sender);
        }
        let _one = self.connecting.lock().await;
        if let Some(sender) = open() {
            return Ok(sender);
        }
        let stream = connected(&self.endpoint).await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        builder.enable_push(false).max_send_buffer_size(16 << 20);
        let (sender, connection) = builder.handshake(stream).await.map_err(|error| failed(&error))?;
        let generation = self.generation.get() + 1;
        self.generation.set(generation);
        *self.sender.borrow_mut() = Some(sender.clone());
        let channel = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // The calls on it see its error themselves.
            let _ = connection.await;
            channel.forget(generation);
        });
        Ok(sender)
    }

    /// Lets the next call connect anew.
    fn forget(&self, generation: u64) {
        if self.generation.get() == generation {
            *self.sender.borrow_mut() = None;
        }
    }

    /// Why a call on a connection failed. One that ends the connection is not left for the next call to find: the
    /// connection may go on for calls that began earlier, and would fail every new one at once.
    pub(super) fn failure(&self, generation: u64, fault: Fault) -> Failure {
        match fault {
            Fault::Failure(failure) => failure,
            Fault::Http2(error) => {
                if error.is_go_away() || error.is_io() {
                    self.forget(generation);
                }
                failed(&error)
            }
        }
    }

    /// The head of a call of `method`.
    ///
    /// # Errors
    /// When the server's name is none.
    pub(super) fn call(&self, method: &str) -> Result<Request<()>, Failure> {
        let uri = Uri::builder().scheme("http").authority(self.endpoint.authority.as_str());
        let uri = uri.path_and_query(format!("/inference.GRPCInferenceService/{method}")).build();
        let uri = uri.map_err(|error| broken(format!("the server's name cannot be written: {error}")))?;
        let request = Request::builder().method(Method::POST).version(Version::HTTP_2).uri(uri);
        let request = request.header("te", "trailers").header("content-type", "application/grpc");
        request.body(()).map_err(|error| broken(error.to_string()))
    }
}

async fn begun(sender: SendRequest<Bytes>, head: &Request<()>, generation: u64) -> Result<Call, h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, outgoing) = sender.send_request(head.clone(), false)?;
    Ok(Call { response, outgoing, generation })
}

/// Unary calls, one at a time.
#[derive(Debug)]
pub(crate) struct Grpc {
    channel: Rc<Channel>,
    /// The head of every call, written once.
    head: Option<Request<()>>,
    message: Bytes,
}

impl Grpc {
    pub(super) fn new(channel: Rc<Channel>) -> Grpc {
        Grpc { channel, head: None, message: Bytes::new() }
    }

    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        self.channel.connect().await
    }

    pub(super) async fn exchange(&mut self, message: &Bytes, keep: bool) -> Result<(), Failure> {
        let head = match &self.head {
            Some(head) => head,
            None => self.head.insert(self.channel.call("ModelInfer")?),
        };
        let call = self.channel.begin(head).await?;
        let generation = call.generation;
        let answer = answered(call, message, keep).await;
        let answer = answer.map_err(|fault| self.channel.failure(generation, fault))?;
        if let Some(answer) = answer {
            self.message = answer;
        }
        Ok(())
    }

    pub(super) fn answer(&self) -> Result<InferResponse, ClientError> {
        EncodedReply { message: self.message.clone() }.decode()
    }
}

/// The answer to `message`, if it is to be kept.
async fn answered(call: Call, message: &Bytes, keep: bool) -> Result<Option<Bytes>, Fault> {
    let Call { response, mut outgoing, .. } = call;
    outgoing.send_data(message.clone(), true)?;
    let mut incoming = opened(response.await?)?;
    let mut messages = Messages::default();
    let mut answer = None;
    let come = if keep {
        answer = messages.following(&mut incoming).await?;
        answer.is_some()
    } else {
        messages.pass(&mut incoming).await?
    };
    while come && !messages.rest() && messages.more(&mut incoming).await? {}
    if messages.rest() {
        return Err(broken("the call has more than one answer").into());
    }
    status(incoming.trailers().await?.as_ref())?;
    if come { Ok(answer) } else { Err(broken("the call ended without an answer").into()) }
}

/// The body of an answer, unless its head says that the call failed.
pub(super) fn opened(response: http::Response<RecvStream>) -> Result<RecvStream, Failure> {
    if response.status() != http::StatusCode::OK {
        let text = format!("status {} instead of an answer of gRPC", response.status().as_u16());
        // Another service listens there, or something in front of the server is overloaded.
        let stays = response.status().is_client_error();
        return Err(if stays { Failure::Refused(text) } else { Failure::Failed(text) });
    }
    if response.headers().contains_key("grpc-status") {
        status(Some(response.headers()))?;
    }
    Ok(response.into_body())
}

/// What the trailers say came of a call.
pub(super) fn status(trailers: Option<&HeaderMap>) -> Result<(), Failure> {
    let missing = || broken("the call ended without a grpc-status");
    let text = |name| trailers.and_then(|trailers| trailers.get(name)?.to_str().ok());
    let code: i32 = text("grpc-status").and_then(|code| code.parse().ok()).ok_or_else(missing)?;
    if code == 0 {
        return Ok(());
    }
    let message = text("grpc-message").unwrap_or_default();
    let message = percent_encoding::percent_decode_str(message).decode_utf8_lossy();
    let text = format!("status {}: {message}", name(code));
    // INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, UNIMPLEMENTED, UNAUTHENTICATED stay as they are.
    let stays = matches!(code, 3 | 5 | 7 | 12 | 16);
    Err(if stays { Failure::Refused(text) } else { Failure::Failed(text) })
}

/// The name of a code of gRPC.
fn name(code: i32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let known = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    known.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

/// What HTTP/2 says.
pub(super) fn failed(error: &h2::Error) -> Failure {
    match error.reason() {
        Some(Reason::REFUSED_STREAM | Reason::ENHANCE_YOUR_CALM) => {
            Failure::Failed(format!("the server refused a stream: {error}"))
        }
        Some(_) => broken(format!("HTTP/2: {error}")),
        None => broken("the connection was closed in the middle of a call"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(code: &str, message: &str) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.parse().unwrap());
        trailers.insert("grpc-message", message.parse().unwrap());
        trailers
    }

    #[test]
    fn trailers_say_what_came_of_a_call() {
        assert_eq!(status(Some(&trailers("0", ""))), Ok(()));
        assert_eq!(
            status(Some(&trailers("5", "no model %22m%22"))),
            Err(Failure::Refused("status NOT_FOUND: no model \"m\"".to_owned()))
        );
        assert_eq!(
            status(Some(&trailers("14", "full"))),
            Err(Failure::Failed("status UNAVAILABLE: full".to_owned()))
        );
        assert!(
            matches!(status(Some(&trailers("99", ""))), Err(Failure::Failed(text)) if text == "status 99: ")
        );
        assert!(matches!(status(None), Err(Failure::Broken(_))));
    }
}
