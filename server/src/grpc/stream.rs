//! `ModelStreamInfer`: many requests and answers on one stream, answers in the order of the requests.

use std::sync::Arc;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use model::Parameter;
use proto::v2::{ModelInferResponse, ModelStreamInferResponse};
use tonic::Status;

use super::call::{Call, Caller};
use super::codec::Unread;
use super::infer::{infer, parameter};
use crate::app::App;
use crate::drain::Drain;

/// Requests of one stream that are in work at the same time; the client's flow control holds the others.
const IN_FLIGHT: usize = 32;

/// Answers each message of `requests`, each in a task of its own: the stream is not polled while its client does not
/// read, and a request that is begun may hold up others until it is. An error is told in its place in the stream, with the request's id;
/// with `fail`, the first one ends the stream with its status.
pub(super) fn answers(
    app: Arc<App>,
    requests: impl Stream<Item = Result<Unread, Status>>,
    caller: Caller,
    fail: bool,
    drain: Drain,
) -> impl Stream<Item = Result<ModelStreamInferResponse, Status>> {
    // tonic would decode a message that was refused once more at every poll.
    let answers = until_error(requests).map(move |message| {
        let (app, caller) = (Arc::clone(&app), caller.clone());
        let answer = async move {
            let refused = |status| caller.refused(status, &app);
            let message = message.map_err(refused)?;
            let held = app.request_memory.hold(); // until this is answered
            let room = held.grow(message.len());
            let message = message.read().await.map_err(refused)?;
            let id = message.id.clone();
            let call = Call::streamed(&message, &caller);
            let result = match room {
                Ok(()) => infer(&app, message, call.asked(&caller.headers), caller.deadline).await,
                Err(spent) => Err(spent),
            };
            call.log_inference(&result);
            result
                .map(answer)
                .or_else(|error| if fail { Err(call.status(&error)) } else { Ok(failure(id, error.text())) })
        };
        let task = drain.spawn_owned(answer);
        async { task.await.unwrap_or_else(|_| Err(Status::internal("the server failed; see its log"))) }
    });
    until_error(answers.buffered(IN_FLIGHT))
}

/// `stream` up to its first error; it is not asked for more after that.
fn until_error<T>(stream: impl Stream<Item = Result<T, Status>>) -> impl Stream<Item = Result<T, Status>> {
    unfold(Some(Box::pin(stream)), async |stream| {
        let mut stream = stream?;
        let item = stream.next().await?;
        let rest = item.is_ok().then_some(stream);
        Some((item, rest))
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

#[cfg(test)]
mod tests {
    use futures_util::stream::{iter, poll_fn};

    use super::*;

    #[tokio::test]
    async fn nothing_is_asked_for_after_an_error() {
        let mut asked = 0;
        let items = poll_fn(|_| {
            asked += 1;
            std::task::Poll::Ready(Some(if asked < 3 { Ok(asked) } else { Err(Status::internal("broken")) }))
        });
        let got: Vec<_> = until_error(items).map(|item| item.map_err(|status| status.code())).collect().await;
        assert_eq!(got, [Ok(1), Ok(2), Err(tonic::Code::Internal)]);
        assert_eq!(asked, 3);
        let all: Vec<_> = until_error(iter([Ok::<_, Status>(1), Ok(2)])).collect().await;
        assert_eq!(all.len(), 2);
    }
}
