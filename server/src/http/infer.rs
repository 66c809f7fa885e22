//! `POST …/infer`: body to request, response to body.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use model::{
    Dims, InferError, InferRequest, InferResponse, ModelName, ModelVersion, Parameters, Tensor, bytes_tensor,
};
use smallvec::SmallVec;
use traffic::Route;

use super::answer::{self, Answer};
use super::body::{self, Encoding};
use super::codec::{self, Encoded, InferBody, Limits};
use super::compression;
use super::server::{Exchange, limits};
use crate::app::App;
use crate::asked::Asked;
use crate::blocking;
use crate::tensor_bytes::packed_tensor;

/// Smaller answers fit in one packet either way. Many clients accept compression with every request, and
/// would pay for it with half of their throughput.
const WORTH_COMPRESSING: u64 = 1024;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

pub(super) async fn infer(
    app: &Arc<App>,
    model: &str,
    version: Option<ModelVersion>,
    exchange: &mut Exchange,
) -> Result<Answer, InferError> {
    let encoding = match content_encoding(exchange.request.headers()) {
        Ok(encoding) => encoding,
        Err(answer) => return Ok(*answer),
    };
    let name = ModelName::parse(model).map_err(|_| InferError::UnknownModel { model: model.to_owned() })?;
    let header_length = header_length(exchange.request.headers())?;
    let limits = limits(app);
    app.expect_ready(&name, version)?;
    let in_place = header_length.filter(|_| encoding.is_none());
    let held = app.request_memory.hold(); // until this is answered
    let mut body = body::read(exchange.begin_body(), in_place, limits, &held).await?;
    if let Some(encoding) = encoding {
        body = body::decompress(body, encoding, limits, &held).await?;
    }
    if header_length.is_none() {
        held.grow(body.len())?; // what the JSON becomes
    }
    let decoded = match header_length {
        Some(0) => {
            let route = version.map_or(Route::Latest, Route::Explicit);
            app.served(&name, route).await?; // its inputs say what the body is
            raw_binary(app, model, version, body)?
        }
        length => decode(body, length, Limits { max_tensor_bytes: limits.size.bytes }).await?,
    };
    let InferBody { id, parameters, inputs, outputs, binary_data_output } = decoded;
    let request_id = exchange.identify(&id);
    let asked = outputs.iter().map(|output| output.binary.unwrap_or(binary_data_output)).collect();
    let binary = Binary { asked, default: binary_data_output };
    let outputs = outputs.into_iter().map(|output| output.output).collect();
    let request = InferRequest { id, model: name, version, parameters, inputs, outputs, deadline: None };
    let headers = exchange.request.headers();
    let asked = Asked { request_id: request_id.as_str(), arrived: exchange.arrived, headers };
    let response = app.infer(&request, asked).await?;
    drop(request); // its inputs need not stay until the answer is written
    exchange.version = Some(response.version.get());
    let encoded = encode(response, binary).await?;
    let answer = match encoded.json_length {
        None => answer::chunks(encoded.chunks, "application/json"),
        Some(length) => {
            let mut answer = answer::chunks(encoded.chunks, "application/octet-stream");
            answer.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
            answer
        }
    };
    // Only these answers are compressed: clients made for Triton do not decompress any other.
    match compression::wanted(exchange.request.headers()) {
        Some(encoding) if answer.body().len() >= WORTH_COMPRESSING => {
            Ok(compression::compress(answer, encoding).await)
        }
        _ => Ok(answer),
    }
}

/// Longer JSON is read and written on a thread of its own, so that others are answered meanwhile.
const INLINE: usize = 64 << 10;

/// The datatype of strings, as a request writes it.
const BYTES: &[u8] = b"\"BYTES\"";

async fn decode(body: Bytes, header_length: Option<usize>, limits: Limits) -> Result<InferBody, InferError> {
    let json = header_length.unwrap_or(body.len());
    // Strings are looked at one after the other, wherever they are.
    let has_strings = || body.windows(BYTES.len()).take(json).any(|words| words == BYTES);
    if json <= INLINE && (body.len() <= INLINE || !has_strings()) {
        return codec::decode(&body, header_length, &limits);
    }
    blocking::run("reading the request", move || codec::decode(&body, header_length, &limits)).await?
}

async fn encode(response: InferResponse, binary: Binary) -> Result<Encoded, InferError> {
    let as_json = |(index, output): (usize, &Tensor)| if binary.is(index) { 0 } else { output.data.len() };
    if response.outputs.iter().enumerate().map(as_json).sum::<usize>() <= INLINE {
        return codec::encode(&response, |index| binary.is(index));
    }
    blocking::run("writing the answer", move || codec::encode(&response, |index| binary.is(index))).await?
}

/// Which outputs are sent as binary data.
struct Binary {
    asked: SmallVec<[bool; 4]>,
    default: bool,
}

impl Binary {
    fn is(&self, index: usize) -> bool {
        self.asked.get(index).copied().unwrap_or(self.default)
    }
}

/// How the body is compressed, or the answer that says which ways there are.
fn content_encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Box<Answer>> {
    // Several lines are one list (RFC 9110 §5.3), and a body that is compressed twice is not taken.
    let lines = headers.get_all(CONTENT_ENCODING).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let listed = lines.collect::<Vec<_>>().join(", ");
    match listed.trim() {
        "" => Ok(None),
        name if name.eq_ignore_ascii_case("identity") => Ok(None),
        name if name.eq_ignore_ascii_case("gzip") => Ok(Some(Encoding::Gzip)),
        name if name.eq_ignore_ascii_case("deflate") => Ok(Some(Encoding::Deflate)),
        other => {
            let error = InferError::unsupported(format!(
                "Unsupported compression type '{other}': a request body may be gzip, deflate or identity"
            ));
            let mut answer = answer::error(&error);
            answer
                .headers_mut()
                .insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
            Err(Box::new(answer))
        }
    }
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, InferError> {
    let mut values = headers.get_all(HEADER_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if let Some(other) = values.find(|other| *other != value) {
        return Err(InferError::invalid(format!(
            "Inference-Header-Content-Length is given as {value:?} and as {other:?}; it has one value"
        )));
    }
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = value.to_str().ok().map(str::trim).filter(digits).and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or_else(|| {
        InferError::invalid(format!(
            "Unable to parse Inference-Header-Content-Length, got: {value:?}; it is a number of bytes"
        ))
    })
}

/// A body that is one raw tensor: the model's only input, in a batch of one. Every output comes back as
/// binary data.
fn raw_binary(
    app: &App,
    model: &str,
    version: Option<ModelVersion>,
    body: Bytes,
) -> Result<InferBody, InferError> {
    let served = app.standing(model, version)?;
    let inputs = served.inputs();
    let [input] = inputs.as_slice() else {
        return Err(InferError::invalid(format!(
            "a raw binary request is for a model with one input, but '{model}' has {}; send \
             Inference-Header-Content-Length with the JSON that describes them",
            inputs.len()
        )));
    };
    let mut shape = input.shape.clone();
    if served.takes_batches()
        && let Some(batch) = shape.first_mut()
    {
        *batch = 1;
    }
    let tensor = match input.datatype.element_size() {
        Some(size) => {
            fill_open_dimension(&mut shape, body.len() / size, &input.name, model)?;
            packed_tensor(input.name.clone(), input.datatype, shape, body)?
        }
        None => one_string(input.name.clone(), input.datatype, shape, &body, model)?,
    };
    Ok(InferBody {
        id: Default::default(),
        parameters: Parameters::default(),
        inputs: SmallVec::from_iter([tensor]),
        outputs: SmallVec::new(),
        binary_data_output: true,
    })
}

/// The one open dimension of `shape` takes what the others leave of `elements`.
fn fill_open_dimension(
    shape: &mut Dims,
    elements: usize,
    input: &str,
    model: &str,
) -> Result<(), InferError> {
    let shown = shape.clone();
    let fixed: i64 = shape.iter().filter(|dim| **dim != -1).product();
    let mut open = shape.iter_mut().filter(|dim| **dim == -1);
    if let Some(dim) = open.next() {
        *dim = i64::try_from(elements).unwrap_or(i64::MAX) / fixed.max(1);
    }
    match open.next() {
        None => Ok(()),
        Some(_) => Err(InferError::invalid(format!(
            "a raw binary request is for an input with at most one open dimension, but '{input}' of '{model}' has \
             shape {shown}"
        ))),
    }
}

/// The whole body is the one element.
fn one_string(
    name: smol_str::SmolStr,
    datatype: model::DataType,
    shape: Dims,
    body: &[u8],
    model: &str,
) -> Result<Tensor, InferError> {
    let shape: Dims = shape.iter().map(|dim| if *dim == -1 { 1 } else { *dim }).collect();
    if shape.iter().any(|dim| *dim != 1) {
        return Err(InferError::invalid(format!(
            "a raw binary request gives one string, but input '{name}' of '{model}' takes {shape}"
        )));
    }
    let mut data = Vec::with_capacity(4 + body.len());
    bytes_tensor::push(&mut data, body);
    Ok(Tensor { name, datatype, shape, data: data.into() })
}
