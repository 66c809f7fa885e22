//! What does it cost to make a request of the bytes that came, over HTTP and over gRPC?

use bytes::Bytes;
use prost::Message as _;
use proto::v2::ModelInferRequest;
use volley::grpc;
use volley::http::codec::{Limits, decode};

use crate::HotPath;
use crate::tensor::{PICTURE, SMALL, Shape};

/// Nothing here comes near a limit.
const LIMITS: Limits = Limits { max_tensor_bytes: usize::MAX };

/// JSON with short and with long numbers, the binary extension, raw and typed contents; a small tensor and a large one.
pub fn paths() -> Vec<HotPath> {
    let of = |shape: Shape| {
        [
            HotPath::new(format!("decode/json/{}", shape.name), move || {
                let body = shape.json_body();
                move || decode(&body, None, &LIMITS).expect("the body is well-formed")
            })
            .rounds(shape.rounds),
            HotPath::new(format!("decode/json_long/{}", shape.name), move || {
                let body = shape.long_json_body();
                move || decode(&body, None, &LIMITS).expect("the body is well-formed")
            })
            .rounds(shape.rounds),
            HotPath::new(format!("decode/binary/{}", shape.name), move || {
                let (body, json_length) = shape.binary_body();
                move || decode(&body, Some(json_length), &LIMITS).expect("the body is well-formed")
            }),
            HotPath::new(format!("decode/grpc_raw/{}", shape.name), move || grpc(&shape.raw_message())),
            HotPath::new(format!("decode/grpc_typed/{}", shape.name), move || grpc(&shape.typed_message()))
                .rounds(shape.rounds),
        ]
    };
    [SMALL, PICTURE].into_iter().flat_map(of).collect()
}

/// From the bytes of a message, as the transport hands them over.
fn grpc(message: &ModelInferRequest) -> impl FnMut() -> model::InferRequest + use<> {
    let message = Bytes::from(message.encode_to_vec());
    move || {
        let message = ModelInferRequest::decode(message.clone()).expect("the message is well-formed");
        grpc::infer::decode(message).expect("the request is well-formed")
    }
}
