//! ModelStreamInfer: one stream for each request in flight. Its answers come in the order of its requests, so the
//! next answer is that of the request just sent.

use std::rc::Rc;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use volley_client::{ClientError, EncodedReply, InferResponse};

use super::Failure;
use super::grpc::{Channel, Messages, failed, opened, status};
use super::http1::broken;

/// One stream.
#[derive(Debug)]
pub(crate) struct GrpcStream {
    channel: Rc<Channel>,
    /// Absent before the first request, after an error, and during an exchange.
    stream: Option<Open>,
    message: Bytes,
}

#[derive(Debug)]
struct Open {
    outgoing: SendStream<Bytes>,
    incoming: Incoming,
    messages: Messages,
}

/// The server's half, whose head may come with its first answer only.
#[derive(Debug)]
enum Incoming {
    Awaited(ResponseFuture),
    Flowing(RecvStream),
}

impl GrpcStream {
    pub(super) fn new(channel: Rc<Channel>) -> GrpcStream {
        GrpcStream { channel, stream: None, message: Bytes::new() }
    }

    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        Ok(())
    }

    async fn open(&self) -> Result<Open, Failure> {
        let sender = self.channel.sender().await?;
        let mut sender = sender.ready().await.map_err(|error| failed(&error))?;
        let head = self.channel.call("ModelStreamInfer")?;
        let (response, outgoing) = sender.send_request(head, false).map_err(|error| failed(&error))?;
        Ok(Open { outgoing, incoming: Incoming::Awaited(response), messages: Messages::default() })
    }

    pub(super) async fn exchange(&mut self, message: &Bytes, keep: bool) -> Result<(), Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open().await?,
        };
        stream.outgoing.send_data(message.clone(), false).map_err(|error| failed(&error))?;
        let answer = stream.answer().await?;
        self.stream = Some(stream);
        let reply = EncodedReply::from_stream(&answer).map_err(|error| match error {
            ClientError::InStream { message, .. } => Failure::Failed(format!("error_message: {message}")),
            error => broken(error.to_string()),
        })?;
        if keep {
            self.message = reply.message;
        }
        Ok(())
    }

    pub(super) fn answer(&self) -> Result<InferResponse, ClientError> {
        EncodedReply { message: self.message.clone() }.decode()
    }
}

impl Open {
    /// The next message of the server.
    async fn answer(&mut self) -> Result<Bytes, Failure> {
        let incoming = match &mut self.incoming {
            Incoming::Flowing(incoming) => incoming,
            Incoming::Awaited(response) => {
                let response = response.await.map_err(|error| failed(&error))?;
                self.incoming = Incoming::Flowing(opened(response)?);
                let Incoming::Flowing(incoming) = &mut self.incoming else {
                    return Err(broken("the stream did not open"));
                };
                incoming
            }
        };
        loop {
            if let Some(message) = self.messages.next()? {
                return Ok(message);
            }
            if !self.messages.more(incoming).await? {
                let trailers = incoming.trailers().await.map_err(|error| failed(&error))?;
                status(trailers.as_ref())?;
                return Err(broken("the server ended the stream"));
            }
        }
    }
}
