//! Any bytes as the body of an inference request: it is decoded or refused, and what was decoded can be sent
//! back and decoded again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{Corpus, fuzz_target};
use model::{InferResponse, ModelName, ModelVersion, Parameters, Tensor};
use volley::http::codec::{Encoded, InferBody, Limits, decode, encode};

const LIMITS: Limits = Limits { max_tensor_bytes: 1 << 20 };

/// A header length that stands for a request without the header.
const NO_HEADER: u16 = u16::MAX;

// The first two bytes are the length of the JSON, the rest is the body.
fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((length, body)) = data.split_first_chunk() else { return Corpus::Reject };
    let length = Some(u16::from_le_bytes(*length)).filter(|length| *length != NO_HEADER);
    if let Ok(request) = decode(&Bytes::copy_from_slice(body), length.map(usize::from), &LIMITS) {
        send_back(request, false);
    }
    Corpus::Keep
});

/// Encodes the inputs of `request` as outputs, decodes those as inputs, and checks that they encode the same.
/// Encodings are compared, not tensors, because the bytes of a NaN or of `true` may be normalized.
fn send_back(request: InferBody, binary: bool) {
    let response = response(request.inputs);
    // Only byte strings that are no text cannot be written, and those only as JSON.
    let Ok(encoded) = encode(&response, |_| binary) else {
        assert!(!binary, "binary data can always be written: {response:?}");
        return send_back(InferBody { inputs: response.outputs, ..request }, true);
    };
    let (body, json_length) = as_request(&encoded);
    let again = decode(&body, json_length, &LIMITS).expect("what was encoded can be decoded");
    let again =
        encode(&self::response(again.inputs), |_| binary).expect("what was written can be written again");
    assert_eq!(as_request(&again), (body, json_length));
    if !binary {
        send_back(InferBody { inputs: response.outputs, ..request }, true);
    }
}

fn response(outputs: impl IntoIterator<Item = Tensor>) -> InferResponse {
    InferResponse {
        id: Default::default(),
        model: ModelName::parse("fuzz").expect("it is a name"),
        version: ModelVersion::new(1).expect("it is not 0"),
        parameters: Parameters::default(),
        outputs: outputs.into_iter().collect(),
    }
}

/// The same tensors as the inputs of a request: those have another key, and the same form.
fn as_request(encoded: &Encoded) -> (Bytes, Option<usize>) {
    const OUTPUTS: &[u8] = b"\"outputs\":";
    const INPUTS: &[u8] = b"\"inputs\":";
    let body = encoded.chunks.concat();
    let at = body.windows(OUTPUTS.len()).position(|key| key == OUTPUTS).expect("a response has outputs");
    let body = [&body[..at], INPUTS, &body[at + OUTPUTS.len()..]].concat();
    (body.into(), encoded.json_length.map(|length| length - (OUTPUTS.len() - INPUTS.len())))
}
