//! `ModelStreamInfer`: many requests and answers on one stream, answers in the order of the requests.

use std::future::ready;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use model::Parameter;
use proto::v2::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use tonic::Status;

use super::call::{Call, Caller};
use super::infer::{infer, parameter};
use crate::app::App;

/// Requests of one stream that are in work at the same time; the client's flow control holds the others.
const IN_FLIGHT: usize = 32;

/// Answers each message of `requests`. An error is told in its place in the stream, with the request's id;
/// with `fail`, the first one ends the stream with its status.
pub(super) fn answers(
    app: Arc<App>,
    requests: impl Stream<Item = Result<ModelInferRequest, Status>>,
    caller: Caller,
    fail: bool,
) -> impl Stream<Item = Result<ModelStreamInferResponse, Status>> {
    let answers = requests.map(move |message| {
        let (app, caller) = (Arc::clone(&app), caller.clone());
        async move {
            let message = message?;
            let id = message.id.clone();
            let call = Call::streamed(&message, &caller);
            let result = infer(&app, message, &call.request_id, call.arrived).await;
            call.log_inference(&result);
            result
                .map(answer)
                .or_else(|error| if fail { Err(call.status(&error)) } else { Ok(failure(id, error.text())) })
        }
    });
    // Nothing follows an error of the stream itself.
    answers.buffered(IN_FLIGHT).scan(false, |failed, answer| {
        let ended = *failed;
        *failed = answer.is_err();
        ready((!ended).then_some(answer))
    })
}

fn answer(mut response: ModelInferResponse) -> ModelStreamInferResponse {
    response.parameters.insert("triton_final_response".to_owned(), parameter(&Parameter::Bool(true)));
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

fn failure(id: String, error_message: String) -> ModelStreamInferResponse {
    let response = ModelInferResponse { id, ..Default::default() };
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}
