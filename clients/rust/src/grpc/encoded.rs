//! Messages that stay bytes: a request encoded once is sent many times as it is, an answer is read when asked.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::EncodedReply;
use crate::ClientError;

/// The field of a message of a stream that holds its refusal.
const ERROR_MESSAGE: u32 = 1;
/// The field that holds its answer.
const INFER_RESPONSE: u32 = 2;

/// The answer inside one message of a stream, as [`EncodedReply::from_stream`] says.
pub(super) fn streamed(message: &Bytes) -> Result<EncodedReply, ClientError> {
    let unreadable = |error: prost::DecodeError| {
        ClientError::protocol(format!("a message of its stream cannot be read: {error}"))
    };
    let (mut rest, mut answer) = (message.clone(), Bytes::new());
    while rest.has_remaining() {
        let (field, wire) = decode_key(&mut rest).map_err(unreadable)?;
        if wire != WireType::LengthDelimited || !matches!(field, ERROR_MESSAGE | INFER_RESPONSE) {
            skip_field(wire, field, &mut rest, DecodeContext::default()).map_err(unreadable)?;
            continue;
        }
        let length = decode_varint(&mut rest).map_err(unreadable)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let length = length.ok_or_else(|| ClientError::protocol("a message of its stream is cut short"))?;
        let value = rest.split_to(length);
        if field == INFER_RESPONSE {
            answer = value;
        } else if !value.is_empty() {
            let message = String::from_utf8_lossy(&value).into_owned();
            return Err(ClientError::InStream { id: String::new(), message });
        }
    }
    Ok(EncodedReply { message: answer })
}

/// Encoded messages in, encoded messages out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EncodedCodec;

impl Codec for EncodedCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = EncodedCodec;
    type Decoder = EncodedCodec;

    fn encoder(&mut self) -> EncodedCodec {
        EncodedCodec
    }

    fn decoder(&mut self) -> EncodedCodec {
        EncodedCodec
    }
}

impl Encoder for EncodedCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for EncodedCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use proto::v2;

    use super::*;

    #[test]
    fn a_streams_message_is_an_answer_or_a_refusal() {
        let answer = v2::ModelInferResponse { model_name: "m".to_owned(), ..Default::default() };
        let message = |error: &str| v2::ModelStreamInferResponse {
            error_message: error.to_owned(),
            infer_response: Some(answer.clone()),
        };
        let reply = streamed(&message("").encode_to_vec().into()).unwrap();
        assert_eq!(reply.message, answer.encode_to_vec());
        assert_eq!(reply.decode().unwrap().model_name, "m");
        let refusal = streamed(&message("full").encode_to_vec().into()).unwrap_err();
        assert!(matches!(refusal, ClientError::InStream { message, .. } if message == "full"));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(bytes: Vec<u8>) {
            let _ = streamed(&bytes.into());
        }
    }
}
