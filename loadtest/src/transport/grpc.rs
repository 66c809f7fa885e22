//! gRPC calls over HTTP/2, many at once on one connection. Messages are framed beforehand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Uri, Version};
use volley_client::{ClientError, EncodedReply, InferResponse};

use super::http1::{broken, connected};
use super::{Endpoint, Failure};

/// Bytes that may be on their way to us before we take them: room for large tensors.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Bytes in front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

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

impl Channel {
    pub(super) fn new(endpoint: Rc<Endpoint>) -> Channel {
        let (sender, generation) = (RefCell::new(None), Cell::new(0));
        Channel { endpoint, sender, connecting: tokio::sync::Mutex::new(()), generation }
    }

    /// Something to send calls with, on the connection that there is or a new one.
    pub(super) async fn sender(self: &Rc<Self>) -> Result<SendRequest<Bytes>, Failure> {
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
        self.channel.sender().await.map(drop)
    }

    pub(super) async fn exchange(&mut self, message: &Bytes, keep: bool) -> Result<(), Failure> {
        let head = match &self.head {
            Some(head) => head.clone(),
            None => self.head.insert(self.channel.call("ModelInfer")?).clone(),
        };
        let sender = self.channel.sender().await?;
        let mut sender = sender.ready().await.map_err(|error| failed(&error))?;
        let (response, mut body) = sender.send_request(head, false).map_err(|error| failed(&error))?;
        body.send_data(message.clone(), true).map_err(|error| failed(&error))?;
        let response = response.await.map_err(|error| failed(&error))?;
        let mut incoming = opened(response)?;
        let mut messages = Messages::default();
        while messages.more(&mut incoming).await? {}
        let trailers = incoming.trailers().await.map_err(|error| failed(&error))?;
        status(trailers.as_ref())?;
        let answer = messages.next()?.ok_or_else(|| broken("the call ended without an answer"))?;
        if keep {
            self.message = answer;
        }
        Ok(())
    }

    pub(super) fn answer(&self) -> Result<InferResponse, ClientError> {
        EncodedReply { message: self.message.clone() }.decode()
    }
}

/// The body of an answer, unless its head says that the call failed.
pub(super) fn opened(response: http::Response<RecvStream>) -> Result<RecvStream, Failure> {
    if response.status() != http::StatusCode::OK {
        return Err(Failure::Failed(format!("status {} instead of an answer of gRPC", response.status())));
    }
    if response.headers().contains_key("grpc-status") {
        status(Some(response.headers()))?;
    }
    Ok(response.into_body())
}

/// Messages as they come out of the pieces that HTTP/2 carries.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The usual case: the piece that holds a whole message, uncopied.
    piece: Bytes,
    /// Pieces put together.
    joined: BytesMut,
}

impl Messages {
    /// Takes what comes next; false when nothing does.
    pub(super) async fn more(&mut self, incoming: &mut RecvStream) -> Result<bool, Failure> {
        let Some(piece) = incoming.data().await else { return Ok(false) };
        let piece = piece.map_err(|error| failed(&error))?;
        // Takes no more than there is, so it cannot fail.
        let _ = incoming.flow_control().release_capacity(piece.len());
        if self.piece.is_empty() && self.joined.is_empty() {
            self.piece = piece;
        } else {
            self.joined.extend_from_slice(&std::mem::take(&mut self.piece));
            self.joined.extend_from_slice(&piece);
        }
        Ok(true)
    }

    /// The next message, if all of it has come.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let come: &[u8] = if self.joined.is_empty() { &self.piece } else { &self.joined };
        let Some([compressed, a, b, c, d]) = come.first_chunk::<PREFIX>().copied() else { return Ok(None) };
        if compressed != 0 {
            return Err(broken("the answer is compressed, which was not asked for"));
        }
        let end = PREFIX + u32::from_be_bytes([a, b, c, d]) as usize;
        if come.len() < end {
            return Ok(None);
        }
        let mut message = if self.joined.is_empty() {
            self.piece.split_to(end)
        } else {
            self.joined.split_to(end).freeze()
        };
        Ok(Some(message.split_off(PREFIX)))
    }
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

    #[test]
    fn messages_come_out_whole_however_they_were_cut() {
        let framed = b"\0\0\0\0\x03abc\0\0\0\0\x01d";
        for cut in 0..framed.len() {
            let (first, second) = framed.split_at(cut);
            let mut messages = Messages { piece: Bytes::from_static(first), joined: BytesMut::new() };
            let mut got = Vec::new();
            while let Some(message) = messages.next().unwrap() {
                got.push(message);
            }
            messages.joined.extend_from_slice(&std::mem::take(&mut messages.piece));
            messages.joined.extend_from_slice(second);
            while let Some(message) = messages.next().unwrap() {
                got.push(message);
            }
            assert_eq!(got, ["abc", "d"], "cut at {cut}");
        }
        let mut compressed = Messages { piece: Bytes::from_static(b"\x01\0\0\0\0"), ..Messages::default() };
        assert!(compressed.next().is_err());
    }
}
