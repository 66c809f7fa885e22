//! ModelStreamInfer: one stream for each request in flight. Its answers come in the order of its requests, so the
//! next answer is that of the request just sent.

use std::rc::Rc;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use volley_client::{ClientError, EncodedReply, InferResponse};

use super::Failure;
use super::grpc::{Call, Channel, Fault, opened, status};
use super::grpc_messages::Messages;
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
    generation: u64,
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
        let head = self.channel.call("ModelStreamInfer")?;
        let Call { response, outgoing, generation } = self.channel.begin(&head).await?;
        let incoming = Incoming::Awaited(response);
        Ok(Open { outgoing, incoming, messages: Messages::default(), generation })
    }

    pub(super) async fn exchange(&mut self, message: &Bytes, keep: bool) -> Result<(), Failure> {
        let kept = self.stream.take().and_then(|mut stream| {
            // One that was ended meanwhile takes nothing, so that nothing was sent.
            let taken = stream.outgoing.send_data(message.clone(), false);
            taken.is_ok().then_some(stream)
        });
        let mut stream = match kept {
            Some(stream) => stream,
            None => {
                let mut stream = self.open().await?;
                let taken = stream.outgoing.send_data(message.clone(), false);
                taken.map_err(|error| self.channel.failure(stream.generation, error.into()))?;
                stream
            }
        };
        let answer = stream.answer().await;
        let answer = answer.map_err(|fault| self.channel.failure(stream.generation, fault))?;
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
    async fn answer(&mut self) -> Result<Bytes, Fault> {
        let incoming = match &mut self.incoming {
            Incoming::Flowing(incoming) => incoming,
            Incoming::Awaited(response) => {
                let response = response.await?;
                self.incoming = Incoming::Flowing(opened(response)?);
                let Incoming::Flowing(incoming) = &mut self.incoming else {
                    return Err(broken("the stream did not open").into());
                };
                incoming
            }
        };
        if let Some(message) = self.messages.following(incoming).await? {
            return Ok(message);
        }
        status(incoming.trailers().await?.as_ref())?;
        Err(broken("the server ended the stream").into())
    }
}
