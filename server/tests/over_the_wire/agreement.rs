//! HTTP and gRPC are two ways to the same answer: the same fault has the same sentence, and codes that correspond.

use bytes::Bytes;
use model::Code;
use proto::v2::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::v2::infer_parameter::ParameterChoice;
use proto::v2::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use proto::v2::{InferParameter, ModelInferRequest};
use serde_json::json;
use volley::{grpc::status::grpc_code, http::status::http_status};

use crate::real_server::{Server, Setup};
use crate::repository_files::samples;

/// A request as both protocols can carry it: inputs are name, data type, shape and bytes.
#[derive(Clone)]
struct Asked {
    model: &'static str,
    version: &'static str,
    id: &'static str,
    inputs: Vec<(&'static str, &'static str, Vec<i64>, Vec<u8>)>,
    outputs: Vec<&'static str>,
    parameter: Option<(&'static str, bool)>,
}

/// A request that is answered, for [`faults`] to break.
fn sound() -> Asked {
    Asked {
        model: "identity",
        version: "",
        id: "",
        inputs: vec![("INPUT0", "FP32", vec![1, 2], vec![0; 8])],
        outputs: vec![],
        parameter: None,
    }
}

fn broken(change: impl FnOnce(&mut Asked)) -> Asked {
    let mut asked = sound();
    change(&mut asked);
    asked
}

fn faults() -> Vec<Asked> {
    let int32 = |name| (name, "INT32", vec![1, 16], vec![0; 64]);
    vec![
        broken(|asked| asked.model = "nothing"),
        broken(|asked| asked.version = "99"),
        broken(|asked| asked.version = "0"),
        broken(|asked| asked.version = "099"),
        broken(|asked| asked.version = "18446744073709551616"),
        broken(|asked| asked.inputs.clear()),
        broken(|asked| asked.inputs[0].0 = "INPUT9"),
        broken(|asked| asked.inputs[0].1 = "INT32"),
        broken(|asked| asked.inputs[0].2 = vec![1, 3]),
        broken(|asked| asked.inputs[0].2 = vec![2]),
        broken(|asked| asked.inputs[0].2 = vec![1; 65]),
        broken(|asked| asked.inputs[0].2 = vec![3_037_000_500, 3_037_000_500]),
        broken(|asked| asked.inputs[0] = ("INPUT0", "FP32", vec![9, 1], vec![0; 36])),
        broken(|asked| asked.inputs[0] = ("INPUT0", "FP32", vec![0, 2], vec![])),
        broken(|asked| asked.inputs[0].3 = vec![0; 7]),
        broken(|asked| asked.outputs = vec!["OUTPUT9"]),
        broken(|asked| asked.parameter = Some(("priority", true))),
        broken(|asked| asked.parameter = Some(("triton_anything", true))),
        broken(|asked| (asked.id, asked.outputs) = ("mine", vec!["OUTPUT9"])),
        broken(|asked| (asked.model, asked.inputs) = ("simple", vec![int32("INPUT0")])),
        broken(|asked| (asked.model, asked.inputs) = ("simple", vec![int32("INPUT0"), int32("INPUT0")])),
        broken(|asked| (asked.outputs) = vec!["OUTPUT0", "OUTPUT0"]),
        broken(|asked| (asked.outputs) = vec!["OUTPUT0"; 1025]),
        broken(|asked| {
            asked.model = "simple_string";
            asked.inputs = vec![("INPUT0", "BYTES", vec![1, 16], vec![255, 255, 255, 255, 1])];
        }),
        broken(|asked| {
            asked.model = "simple_string";
            asked.inputs = vec![("INPUT0", "BYTES", vec![1, 16], vec![0; 4])];
        }),
    ]
}

/// Status and sentence over HTTP, with the tensors as binary data.
fn over_http(server: &Server, asked: &Asked) -> (u16, String) {
    let inputs: Vec<_> = asked.inputs.iter().map(|(name, datatype, shape, data)| {
        json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": data.len()}})
    }).collect();
    let outputs: Vec<_> = asked.outputs.iter().map(|name| json!({"name": name})).collect();
    let mut request = json!({"id": asked.id, "inputs": inputs, "outputs": outputs});
    if let Some((name, value)) = asked.parameter {
        request["parameters"] = json!({name: value});
    }
    let json = request.to_string();
    let data: Vec<_> = asked.inputs.iter().flat_map(|(.., data)| data.clone()).collect();
    let version =
        if asked.version.is_empty() { String::new() } else { format!("/versions/{}", asked.version) };
    let path = format!("/v2/models/{}{version}/infer", asked.model);
    let headers = format!("Inference-Header-Content-Length: {}\r\n", json.len());
    let answer = server.connect().post(&path, &headers, [json.as_bytes(), &data].concat());
    let sentence = if answer.status == 200 { String::new() } else { answer.error() };
    (answer.status, sentence)
}

fn message(asked: &Asked) -> ModelInferRequest {
    let input = |(name, datatype, shape, _): &(&str, &str, Vec<i64>, Vec<u8>)| InferInputTensor {
        name: (*name).to_owned(),
        datatype: (*datatype).to_owned(),
        shape: shape.clone(),
        ..Default::default()
    };
    let output = |name: &&str| InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() };
    let parameter = |(name, value): (&str, bool)| {
        (name.to_owned(), InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) })
    };
    ModelInferRequest {
        model_name: asked.model.to_owned(),
        model_version: asked.version.to_owned(),
        id: asked.id.to_owned(),
        parameters: asked.parameter.map(parameter).into_iter().collect(),
        inputs: asked.inputs.iter().map(input).collect(),
        outputs: asked.outputs.iter().map(output).collect(),
        raw_input_contents: asked.inputs.iter().map(|(.., data)| Bytes::from(data.clone())).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_same_fault_has_the_same_sentence_and_codes_that_correspond() {
    let server = Setup::over(&samples()).start();
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", server.grpc)).await.unwrap();
    assert_eq!(over_http(&server, &sound()), (200, String::new()));
    client.model_infer(message(&sound())).await.unwrap();
    let zeros_before = broken(|asked| asked.version = "01");
    assert_eq!(over_http(&server, &zeros_before), (200, String::new()));
    client.model_infer(message(&zeros_before)).await.unwrap();
    for asked in faults() {
        let (http, sentence) = over_http(&server, &asked);
        let status = client.model_infer(message(&asked)).await.unwrap_err();
        assert_eq!(status.message(), sentence);
        let corresponds =
            |code: &Code| http_status(*code).as_u16() == http && grpc_code(*code) == status.code();
        assert!(Code::ALL.iter().any(corresponds), "{http} and {:?} for {sentence:?}", status.code());
        assert!((400..500).contains(&http), "{http}: {sentence}");
    }
}
