//! HTTP/1.1 over one connection that is kept open: a request prepared in full is written at once, and of the
//! answer no more is looked at than its end requires. Nothing is allocated for an answer that nobody reads.

mod head;

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use volley_client::{ClientError, EncodedResponse, InferResponse};

use self::head::{Head, Length};
use super::{Endpoint, Failure};

/// What a read asks for; an answer of a small model fits.
const BUFFER: usize = 16 * 1024;
/// What is kept of the body of an error, for its words.
const MAX_REFUSAL: usize = 64 * 1024;
/// Longer heads are no answer of an inference server.
const MAX_HEAD: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    endpoint: Rc<Endpoint>,
    /// Absent before the first request, after the server closed it, and during an exchange: one that is dropped
    /// halfway drops it, too.
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    /// How much of the buffer came from the connection.
    filled: usize,
    /// Where in the buffer the next byte to look at is.
    at: usize,
    body: Vec<u8>,
    json_length: Option<usize>,
}

/// How an exchange ended without an answer.
enum Lost {
    /// The server had closed the connection before it saw the request: it may be sent again.
    Idle,
    /// Anything else.
    Failure(Failure),
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Lost {
        Lost::Failure(failure)
    }
}

impl Http1 {
    pub(super) fn new(endpoint: Rc<Endpoint>) -> Http1 {
        let buffer = vec![0; BUFFER];
        Http1 { endpoint, stream: None, buffer, filled: 0, at: 0, body: Vec::new(), json_length: None }
    }

    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        if self.stream.is_none() {
            self.stream = Some(connected(&self.endpoint).await?);
        }
        Ok(())
    }

    pub(super) async fn exchange(&mut self, request: &[u8], keep: bool) -> Result<(), Failure> {
        let kept = self.stream.take();
        let was_open = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => connected(&self.endpoint).await?,
        };
        let mut outcome = self.attempt(&mut stream, request, keep).await;
        if matches!(outcome, Err(Lost::Idle)) && was_open {
            stream = connected(&self.endpoint).await?;
            outcome = self.attempt(&mut stream, request, keep).await;
        }
        let head = outcome.map_err(|lost| match lost {
            Lost::Failure(failure) => failure,
            Lost::Idle => Failure::Broken("the connection was closed without an answer".to_owned()),
        })?;
        if !head.close {
            self.stream = Some(stream);
        }
        match head.status {
            200..=299 => Ok(()),
            status => Err(self.refusal(status)),
        }
    }

    pub(super) fn answer(&self) -> Result<InferResponse, ClientError> {
        EncodedResponse::new(Bytes::copy_from_slice(&self.body), self.json_length).decode()
    }

    fn refusal(&self, status: u16) -> Failure {
        let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = format!("status {status}: {}", volley_client::refusal(code, &self.body));
        // Overload and time pass; what is wrong with the request does not.
        let passes = matches!(status, 408 | 425 | 429 | 499..);
        if passes { Failure::Failed(text) } else { Failure::Refused(text) }
    }

    async fn attempt(&mut self, stream: &mut TcpStream, request: &[u8], keep: bool) -> Result<Head, Lost> {
        (self.filled, self.at) = (0, 0);
        self.body.clear();
        // A server that refuses early may answer and close before it has read everything.
        let written = stream.write_all(request).await;
        let head = match self.head(stream).await {
            Err(Lost::Failure(Failure::Broken(_))) if written.is_err() && self.filled == 0 => {
                return Err(Lost::Idle);
            }
            head => head?,
        };
        let limit = match (keep, head.status) {
            (_, 300..) => MAX_REFUSAL,
            (true, _) => usize::MAX,
            (false, _) => 0,
        };
        self.json_length = head.json_length;
        let mut head = head;
        match head.length {
            Length::Known(length) => self.take(stream, length, limit).await?,
            Length::Chunked => self.chunks(stream, limit).await?,
            Length::UntilClose => {
                head.close = true;
                while self.at < self.filled || self.more(stream).await? {
                    self.consume(usize::MAX, limit);
                }
            }
        }
        // Bytes that nobody asked for make what follows unreadable.
        head.close |= self.at < self.filled || written.is_err();
        Ok(head)
    }

    /// Reads the head of the answer, and passes over interim ones.
    async fn head(&mut self, stream: &mut TcpStream) -> Result<Head, Lost> {
        loop {
            let parsed = head::parse(&self.buffer[self.at..self.filled]).map_err(broken)?;
            if let Some(head) = parsed {
                self.at += head.bytes;
                if head.status >= 200 {
                    return Ok(head);
                }
                continue;
            }
            if self.filled - self.at > MAX_HEAD {
                return Err(broken("the head of the answer has more than 64 KiB").into());
            }
            let began = self.filled > 0;
            if !self.more(stream).await? {
                if began {
                    return Err(broken("the connection was closed in the middle of an answer").into());
                }
                return Err(Lost::Idle);
            }
        }
    }

    /// Takes `length` bytes of the body, and keeps them up to a body of `limit`.
    async fn take(&mut self, stream: &mut TcpStream, length: u64, limit: usize) -> Result<(), Failure> {
        let mut left = length;
        loop {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            left -= self.consume(most, limit) as u64;
            if left == 0 {
                return Ok(());
            }
            self.some(stream).await?;
        }
    }

    async fn chunks(&mut self, stream: &mut TcpStream, limit: usize) -> Result<(), Failure> {
        loop {
            match httparse::parse_chunk_size(&self.buffer[self.at..self.filled]) {
                Ok(httparse::Status::Partial) => self.some(stream).await?,
                Err(_) => return Err(broken("the answer has a chunk without a size")),
                Ok(httparse::Status::Complete((line, size))) => {
                    self.at += line;
                    if size == 0 {
                        return self.trailers(stream).await;
                    }
                    self.take(stream, size, limit).await?;
                    // The line break after the chunk is none of the body.
                    self.take(stream, 2, 0).await?;
                }
            }
        }
    }

    /// Passes over what may follow the last chunk: lines up to an empty one.
    async fn trailers(&mut self, stream: &mut TcpStream) -> Result<(), Failure> {
        loop {
            let rest = &self.buffer[self.at..self.filled];
            if let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
                self.at += end + 2;
                if end == 0 {
                    return Ok(());
                }
            } else {
                self.some(stream).await?;
            }
        }
    }

    /// Takes at most `most` bytes that are in the buffer, and keeps them up to a body of `limit`.
    fn consume(&mut self, most: usize, limit: usize) -> usize {
        let length = most.min(self.filled - self.at);
        let keep = length.min(limit.saturating_sub(self.body.len()));
        if keep > 0 {
            self.body.extend_from_slice(&self.buffer[self.at..self.at + keep]);
        }
        self.at += length;
        length
    }

    /// Reads what comes next; a connection that ends here is broken.
    async fn some(&mut self, stream: &mut TcpStream) -> Result<(), Failure> {
        if self.more(stream).await? {
            return Ok(());
        }
        Err(broken("the connection was closed in the middle of an answer"))
    }

    /// Reads what comes next; false when nothing does.
    async fn more(&mut self, stream: &mut TcpStream) -> Result<bool, Failure> {
        if self.at == self.filled {
            // What was looked at is needed no more. `filled` stays above 0, to tell that an answer began.
            if self.at > 0 {
                (self.at, self.filled) = (1, 1);
            }
        } else if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match stream.read(&mut self.buffer[self.filled..]).await {
            Ok(read) => {
                self.filled += read;
                Ok(read > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && self.filled == 0 => Ok(false),
            Err(error) => Err(broken(format!("the connection broke: {}", cause(&error)))),
        }
    }
}

/// A new connection.
pub(super) async fn connected(endpoint: &Endpoint) -> Result<TcpStream, Failure> {
    let unreachable = |error: io::Error| Failure::Unreachable(format!("cannot connect: {}", cause(&error)));
    let stream = TcpStream::connect(&endpoint.addresses[..]).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

pub(super) fn broken(text: impl Into<String>) -> Failure {
    Failure::Broken(text.into())
}

/// What the system says, without its number: the same text for the same cause.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
