//! What does it cost to make bytes of a response, over HTTP and over gRPC?

use model::{InferResponse, ModelName, ModelVersion, Parameters};
use prost::Message as _;
use smallvec::SmallVec;
use smol_str::SmolStr;
use volley::grpc;
use volley::http::codec::encode;

use crate::HotPath;
use crate::tensor::{MODEL, PICTURE, SMALL, Shape};

/// JSON, the binary extension and gRPC; a small tensor and a large one.
pub fn paths() -> Vec<HotPath> {
    let of = |shape: Shape| {
        [
            HotPath::new(format!("encode/json/{}", shape.name), move || {
                let response = response(shape);
                move || encode(&response, |_| false).expect("numbers can be written")
            })
            .rounds(shape.rounds),
            HotPath::new(format!("encode/binary/{}", shape.name), move || {
                let response = response(shape);
                move || encode(&response, |_| true).expect("bytes can be sent")
            }),
            HotPath::new(format!("encode/grpc/{}", shape.name), move || {
                let response = response(shape);
                // The clone stands for the response that a server makes anew each time; it copies no tensor.
                move || grpc::infer::encode(response.clone()).encode_to_vec()
            }),
        ]
    };
    [SMALL, PICTURE].into_iter().flat_map(of).collect()
}

fn response(shape: Shape) -> InferResponse {
    InferResponse {
        id: SmolStr::default(),
        model: ModelName::parse(MODEL).expect("a name"),
        version: ModelVersion::new(1).expect("a positive number"),
        parameters: Parameters::default(),
        outputs: SmallVec::from_iter([shape.tensor("output")]),
    }
}
