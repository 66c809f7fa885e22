//! Reads `ModelInferRequest` after a look at what it would become: a message of two bytes a tensor becomes
//! hundreds of times as large, and the limit of its length says nothing of that.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use model::{InferError, Parameters};
use prost_reflect::prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::prost::{DecodeError, Message};
use proto::v2::ModelInferRequest;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::status::status;
use crate::blocking;
use crate::request_rules::{check_dimensions, check_tensor_count};
use crate::size_limit::SizeLimit;

/// More bytes than this, but for raw contents, are read aside, so that others are answered meanwhile.
pub(super) const INLINE: usize = 256 << 10;

/// Requests for an inference, with answers of the type `A`.
#[derive(Debug)]
pub(super) struct InferCodec<A> {
    limit: SizeLimit,
    answers: PhantomData<fn() -> A>,
}

impl<A> InferCodec<A> {
    /// `limit` is what typed contents may become.
    pub(super) fn new(limit: SizeLimit) -> InferCodec<A> {
        InferCodec { limit, answers: PhantomData }
    }
}

impl<A: Message + 'static> Codec for InferCodec<A> {
    type Encode = A;
    type Decode = Unread;
    type Encoder = ProstEncoder<A>;
    type Decoder = InferDecoder;

    fn encoder(&mut self) -> ProstEncoder<A> {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> InferDecoder {
        InferDecoder { limit: self.limit }
    }
}

/// See the module's first line.
#[derive(Debug)]
pub(super) struct InferDecoder {
    limit: SizeLimit,
}

impl Decoder for InferDecoder {
    type Item = Unread;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Unread>, Status> {
        Ok(Some(Unread { message: message.copy_to_bytes(message.remaining()), limit: self.limit }))
    }
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Unread {
    message: Bytes,
    limit: SizeLimit,
}

impl Unread {
    /// Bytes of the message.
    pub(super) fn len(&self) -> usize {
        self.message.len()
    }

    /// Reads it, if it does not become more than a request may be; aside when there is much to be read.
    ///
    /// # Errors
    /// When it is not well formed, or too large.
    pub(super) async fn read(self) -> Result<ModelInferRequest, Status> {
        let Unread { message, limit } = self;
        let takes_long = message.len() > INLINE && to_be_read(&message) > INLINE;
        let read = move || {
            check(&message, limit)?;
            ModelInferRequest::decode(message).map_err(|error| malformed(&error))
        };
        let read =
            if takes_long { blocking::run("reading the request", read).await.flatten() } else { read() };
        read.map_err(|error| status(&error))
    }
}

/// Bytes of `message` that are not raw contents, which are taken over as they are. Looks at the first fields only: a
/// request has few.
fn to_be_read(message: &[u8]) -> usize {
    const FIELDS: usize = 4096;
    let (mut left, mut raw) = (FIELDS, 0);
    // What is malformed, or has too many fields, is refused by the one that reads it.
    let _ = each_field(message, |tag, field| {
        if let (7, Field::Bytes(contents)) = (tag, field) {
            raw += contents.len();
        }
        left -= 1;
        if left == 0 { Err(InferError::invalid("")) } else { Ok(()) }
    });
    message.len() - raw
}

fn malformed(error: &impl fmt::Display) -> InferError {
    InferError::invalid(format!("the request is not a ModelInferRequest: {error}"))
}

/// Checks that `message` has no more parts than a request may have. Returns the bytes that its typed contents
/// become, which are within `limit`. Costs a look at every key; tensor bytes are stepped over.
fn check(message: &[u8], limit: SizeLimit) -> Result<usize, InferError> {
    let (mut inputs, mut outputs, mut raw, mut parameters) = (0, 0, 0, 0);
    let mut typed = Typed { bytes: 0, limit };
    each_field(message, |tag, field| match (tag, field) {
        (4, _) => count(&mut parameters, Parameters::check_count),
        (5, Field::Bytes(input)) => {
            count(&mut inputs, |count| check_tensor_count("inputs", count))?;
            check_input(input, &mut typed)
        }
        (6, Field::Bytes(output)) => {
            count(&mut outputs, |count| check_tensor_count("outputs", count))?;
            check_output(output)
        }
        (7, _) => count(&mut raw, |count| check_tensor_count("raw_input_contents", count)),
        _ => Ok(()),
    })?;
    Ok(typed.bytes)
}

fn check_input(input: &[u8], typed: &mut Typed) -> Result<(), InferError> {
    let (mut name, mut dimensions, mut parameters) = (&[][..], 0, 0);
    each_field(input, |tag, field| match (tag, field) {
        (1, Field::Bytes(text)) => {
            name = text;
            Ok(())
        }
        (3, field) => {
            dimensions += field.varints();
            Ok(())
        }
        (4, _) => count(&mut parameters, Parameters::check_count),
        (5, Field::Bytes(contents)) => typed.add(contents),
        _ => Ok(()),
    })?;
    check_dimensions(&format_args!("input '{}'", String::from_utf8_lossy(name)), dimensions)
}

fn check_output(output: &[u8]) -> Result<(), InferError> {
    let mut parameters = 0;
    each_field(output, |tag, _| match tag {
        2 => count(&mut parameters, Parameters::check_count),
        _ => Ok(()),
    })
}

/// One more of something, unless that is too many.
fn count(seen: &mut usize, check: impl Fn(usize) -> Result<(), InferError>) -> Result<(), InferError> {
    *seen += 1;
    check(*seen)
}

/// What typed contents become.
struct Typed {
    bytes: usize,
    limit: SizeLimit,
}

impl Typed {
    fn add(&mut self, contents: &[u8]) -> Result<(), InferError> {
        each_field(contents, |tag, field| {
            self.bytes += match (tag, field) {
                (1, field) => field.varints(),
                (2 | 4, field) => field.varints() * size_of::<u32>(),
                (3 | 5, field) => field.varints() * size_of::<u64>(),
                (6 | 7, Field::Bytes(packed)) => packed.len(),
                (6 | 7, Field::Scalar) => size_of::<u64>(),
                (8, Field::Bytes(element)) => size_of::<Bytes>() + element.len(),
                _ => 0,
            };
            if self.bytes <= self.limit.bytes {
                return Ok(());
            }
            Err(self.limit.exceeded("what the typed contents of the request become"))
        })
    }
}

/// A field of a message.
#[derive(Clone, Copy)]
enum Field<'a> {
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// A number by itself.
    Scalar,
}

impl Field<'_> {
    /// How many integers it holds: each ends with the one byte whose first bit is not set.
    fn varints(self) -> usize {
        match self {
            Field::Bytes(packed) => packed.iter().filter(|byte| **byte < 0x80).count(),
            Field::Scalar => 1,
        }
    }
}

/// Calls `visit` with the number and the content of each field. What is malformed is refused here, so that
/// the decoder never goes where this did not look.
fn each_field<'a>(
    mut rest: &'a [u8],
    mut visit: impl FnMut(u32, Field<'a>) -> Result<(), InferError>,
) -> Result<(), InferError> {
    let invalid = |error: DecodeError| malformed(&error);
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(invalid)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(invalid)?;
            visit(tag, Field::Scalar)?;
            continue;
        }
        let length = decode_varint(&mut rest).map_err(invalid)?;
        let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let Some((field, after)) = split else {
            return Err(malformed(&format_args!(
                "field {tag} says it has {length} bytes, but {} are left",
                rest.len()
            )));
        };
        rest = after;
        visit(tag, Field::Bytes(field))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::v2::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use proto::v2::{InferParameter, InferTensorContents};

    use super::*;

    const LIMIT: SizeLimit = SizeLimit::of_inference(1 << 20);

    #[track_caller]
    fn refused(message: &[u8], words: &str) {
        let error = check(message, LIMIT).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }

    fn with_input(input: InferInputTensor) -> Vec<u8> {
        ModelInferRequest { inputs: vec![input], ..Default::default() }.encode_to_vec()
    }

    fn with_contents(contents: InferTensorContents) -> Vec<u8> {
        with_input(InferInputTensor { contents: Some(contents), ..Default::default() })
    }

    #[test]
    fn what_would_grow_is_refused_by_its_count() {
        refused(&[0x2a, 0].repeat(1025), "more than 1024 inputs");
        refused(&[0x32, 0].repeat(1025), "more than 1024 outputs");
        refused(&[0x3a, 0].repeat(1025), "more than 1024 raw_input_contents");
        refused(&[0x22, 0].repeat(257), "more than 256 parameters");
        assert_eq!(check(&[[0x2a, 0], [0x32, 0], [0x3a, 0]].concat().repeat(1024), LIMIT), Ok(0));
        let name = || "x".to_owned();
        let parameters =
            (0..257).map(|number: u32| (number.to_string(), InferParameter::default())).collect();
        let output = InferRequestedOutputTensor { name: name(), parameters };
        let outputs = ModelInferRequest { outputs: vec![output], ..Default::default() };
        refused(&outputs.encode_to_vec(), "more than 256 parameters");
        for dimensions in [vec![1; 65], vec![i64::MAX; 65]] {
            let input = InferInputTensor { name: name(), shape: dimensions, ..Default::default() };
            refused(&with_input(input), "input 'x' has a shape of more than 64 dimensions");
        }
    }

    #[test]
    fn typed_contents_count_as_what_they_become() {
        let none = InferTensorContents::default;
        for (contents, bytes) in [
            (InferTensorContents { bool_contents: vec![true; 3], ..none() }, 3),
            (InferTensorContents { int_contents: vec![1, -1, 300], ..none() }, 12),
            (InferTensorContents { int64_contents: vec![1, -1], ..none() }, 16),
            (InferTensorContents { uint_contents: vec![1, u32::MAX], ..none() }, 8),
            (InferTensorContents { uint64_contents: vec![1, u64::MAX], ..none() }, 16),
            (InferTensorContents { fp32_contents: vec![1.0; 3], ..none() }, 12),
            (InferTensorContents { fp64_contents: vec![1.0; 3], ..none() }, 24),
            (InferTensorContents { bytes_contents: vec![Bytes::from("abc"); 2], ..none() }, 70),
        ] {
            assert_eq!(check(&with_contents(contents.clone()), LIMIT), Ok(bytes), "{contents:?}");
        }
        // The same elements one by one, as proto2 has them, and contents that are given in two parts.
        let unpacked = [0x2a, 8, 0x2a, 2, 0x18, 5, 0x2a, 2, 0x18, 5];
        assert_eq!(check(&unpacked, LIMIT), Ok(16));
        assert_eq!(ModelInferRequest::decode(&unpacked[..]).unwrap().inputs.len(), 1);
        let small = InferTensorContents { int64_contents: vec![1; LIMIT.bytes / 8], ..none() };
        assert_eq!(check(&with_contents(small), LIMIT), Ok(LIMIT.bytes));
        let large = InferTensorContents { int64_contents: vec![1; LIMIT.bytes / 8 + 1], ..none() };
        refused(&with_contents(large), "exceeds the maximum allowed input size of 1048576 bytes");
        let strings =
            InferTensorContents { bytes_contents: vec![Bytes::new(); LIMIT.bytes / 32 + 1], ..none() };
        refused(&with_contents(strings), "--http-max-input-size");
    }

    #[test]
    fn a_part_that_reaches_beyond_its_whole_is_refused() {
        // The input has two bytes, but its contents say that they have more than that, which follow it.
        let overrun = [&[0x2a, 2, 0x2a, 100][..], &[0x42, 0].repeat(50)].concat();
        refused(&overrun, "field 5 says it has 100 bytes, but 0 are left");
        refused(&[0x2a], "not a ModelInferRequest");
        refused(&[7], "not a ModelInferRequest");
    }

    proptest! {
        #[test]
        fn what_is_looked_at_is_what_is_decoded(bytes in prop::collection::vec(
            prop_oneof![Just(0x2a_u8), Just(0x32), Just(0x3a), Just(0x22), Just(0x42), Just(0x1a), 0_u8..20, any::<u8>()],
            0..200,
        )) {
            if check(&bytes, LIMIT).is_err() {
                return Ok(());
            }
            // Whatever passes and is well formed has no more parts than were counted, and is small.
            if let Ok(message) = ModelInferRequest::decode(&bytes[..]) {
                let contents = message.inputs.iter().filter_map(|input| input.contents.as_ref());
                let strings: usize = contents.map(|contents| contents.bytes_contents.len()).sum();
                prop_assert!(strings <= check(&bytes, LIMIT).unwrap() / size_of::<Bytes>());
            }
        }
    }
}
