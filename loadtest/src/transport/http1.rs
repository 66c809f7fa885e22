//! HTTP/1.1 over one connection that is kept open: a request prepared in full is written at once, and of the
//! answer no more is looked at than its end requires. Nothing is allocated for an answer that nobody reads.

mod head;
mod incoming;

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use volley_client::{ClientError, EncodedResponse, InferResponse};

use self::incoming::{Incoming, Lost};
use super::{Endpoint, Failure, MAX_ANSWER};

/// One connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    endpoint: Rc<Endpoint>,
    /// Absent before the first request, after the server closed it, and during an exchange: one that is dropped
    /// halfway drops it, too.
    stream: Option<TcpStream>,
    incoming: Incoming,
    json_length: Option<usize>,
}

impl Http1 {
    pub(super) fn new(endpoint: Rc<Endpoint>) -> Http1 {
        Http1 { endpoint, stream: None, incoming: Incoming::new(), json_length: None }
    }

    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        if self.stream.is_none() {
            self.stream = Some(connected(&self.endpoint).await?);
        }
        Ok(())
    }

    /// A server may close a connection between two requests; then another is opened. Once a byte of the request was
    /// written, the server may have seen it, and a connection that ends without an answer is an error.
    pub(super) async fn exchange(&mut self, request: &[u8], keep: bool) -> Result<(), Failure> {
        let kept = self.stream.take().filter(idle);
        let was_open = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => connected(&self.endpoint).await?,
        };
        let mut written = stream.write(request).await;
        if was_open && written.is_err() {
            stream = connected(&self.endpoint).await?;
            written = stream.write(request).await;
        }
        let written = match written {
            Ok(written) if written < request.len() => stream.write_all(&request[written..]).await,
            written => written.map(drop),
        };
        // A server that refuses early may answer and close before it has read everything.
        let limit = keep.then_some(MAX_ANSWER);
        let head = self.incoming.answer(&mut stream, limit).await.map_err(|lost| match lost {
            Lost::Failure(failure) => failure,
            Lost::Unanswered => broken("the connection was closed without an answer"),
        })?;
        self.json_length = head.json_length;
        if !head.close && written.is_ok() {
            self.stream = Some(stream);
        }
        match head.status {
            200..=299 => Ok(()),
            status => Err(self.refusal(status)),
        }
    }

    pub(super) fn answer(&self) -> Result<InferResponse, ClientError> {
        EncodedResponse::new(Bytes::copy_from_slice(self.incoming.body()), self.json_length).decode()
    }

    fn refusal(&self, status: u16) -> Failure {
        let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = format!("status {status}: {}", volley_client::refusal(code, self.incoming.body()));
        // Overload and time pass; what is wrong with the request does not.
        let passes = matches!(status, 408 | 425 | 429 | 499..);
        if passes { Failure::Failed(text) } else { Failure::Refused(text) }
    }
}

/// Whether nothing came over a connection on which nothing is due: neither its end nor bytes that no request asked
/// for. Asks the system only when it has said that there is something.
fn idle(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream as Accepted};
    use std::thread;

    use super::*;
    use crate::transport::Protocol;

    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";

    /// A connection to a server that does `serve` with each connection in turn, and gives how many there were when
    /// `serve` says that it was the last.
    fn server(
        serve: impl Fn(usize, Accepted) -> bool + Send + 'static,
    ) -> (Http1, thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint {
            protocol: Protocol::HttpJson,
            authority: address.to_string(),
            addresses: vec![address],
            connections: 1,
        };
        let serving = thread::spawn(move || {
            let accepted = listener.incoming().enumerate();
            1 + accepted.map(|(at, stream)| serve(at, stream.unwrap())).position(|last| last).unwrap()
        });
        (Http1::new(Rc::new(endpoint)), serving)
    }

    fn read_and_answer(stream: &mut Accepted) {
        stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    }

    /// The server answers and closes without a word; the next request comes after that is known.
    #[tokio::test]
    async fn a_connection_that_was_closed_while_idle_is_replaced() {
        let (mut http, serving) = server(|at, mut stream| {
            read_and_answer(&mut stream);
            at == 1
        });
        http.exchange(REQUEST, false).await.unwrap();
        http.stream.as_ref().unwrap().readable().await.unwrap();
        http.exchange(REQUEST, false).await.unwrap();
        assert_eq!(serving.join().unwrap(), 2);
    }

    /// A request that the server took and did not answer is not sent again behind the user's back.
    #[tokio::test]
    async fn a_connection_that_ends_after_a_request_is_an_error() {
        let (mut http, serving) = server(|_, mut stream| {
            read_and_answer(&mut stream);
            stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
            true
        });
        http.exchange(REQUEST, false).await.unwrap();
        let error = http.exchange(REQUEST, false).await.unwrap_err();
        assert_eq!(error, broken("the connection was closed without an answer"));
        assert_eq!(serving.join().unwrap(), 1, "it was not sent again");
    }
}
