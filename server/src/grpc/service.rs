//! The RPCs of `inference.GRPCInferenceService`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use model::{InferError, Parameter, Parameters};
use proto::v2::grpc_inference_service_server::GrpcInferenceService;
use proto::v2::log_settings_request::setting_value::ParameterChoice as Setting;
use proto::v2::log_settings_response::setting_value::ParameterChoice as SettingAnswer;
use proto::v2::*;
use tonic::{Request, Response, Status, Streaming};

use super::infer::{infer, version};
use super::status::status;
use super::stream;
use crate::app::App;
use crate::describe::{MODEL_CONTROL, SHARED_MEMORY, TRACE, refuse_repository_name};
use crate::drain::Drain;
use crate::logging::AccessLog;
use crate::request_id::{self, RequestId};

/// Answers from the app.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) app: Arc<App>,
    pub(super) drain: Drain,
}

type Answered<T> = Result<Response<T>, Status>;

fn answered<T>(result: Result<T, InferError>) -> Answered<T> {
    result.map(Response::new).map_err(|error| status(&error))
}

/// Part of the protocol, but served by later work.
fn not_yet<T>(sentence: &str) -> Answered<T> {
    Err(Status::unimplemented(sentence))
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answered<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answered<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.app.is_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answered<ModelReadyResponse> {
        let request = request.into_inner();
        let ready =
            version(&request.version).and_then(|version| self.app.model_ready(&request.name, version));
        answered(ready.map(|ready| ModelReadyResponse { ready }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answered<ServerMetadataResponse> {
        Ok(Response::new(self.app.server_metadata()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answered<ModelMetadataResponse> {
        let request = request.into_inner();
        answered(
            version(&request.version).and_then(|version| self.app.model_metadata(&request.name, version)),
        )
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answered<ModelConfigResponse> {
        let request = request.into_inner();
        answered(version(&request.version).and_then(|version| self.app.model_config(&request.name, version)))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Answered<ModelStatisticsResponse> {
        let request = request.into_inner();
        answered(version(&request.version).and_then(|version| self.app.statistics(&request.name, version)))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Answered<RepositoryIndexResponse> {
        let request = request.into_inner();
        let index = || self.app.repository_index(request.ready);
        answered(refuse_repository_name(&request.repository_name).map(|()| index()))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answered<ModelInferResponse> {
        let arrived = Instant::now();
        let header_id = request.metadata().get(request_id::HEADER).and_then(|id| id.to_str().ok());
        let request_id = RequestId::choose(&request.get_ref().id, header_id);
        let access = AccessLog::wanted().then(|| Access::new(&request, request_id.clone()));
        let result = infer(&self.app, request.into_inner(), &request_id, arrived).await;
        if let Some(access) = access {
            access.write(&result, arrived);
        }
        answered(result).map_err(|mut status| {
            // By which the caller can ask about this in the log.
            if let Ok(id) = request_id.as_str().parse() {
                status.metadata_mut().insert(request_id::HEADER, id);
            }
            status
        })
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answered<Self::ModelStreamInferStream> {
        let metadata = request.metadata();
        let fail = metadata.get("triton_grpc_error").is_some_and(|value| value == "true");
        let header_id = metadata.get(request_id::HEADER).and_then(|id| id.to_str().ok()).map(str::to_owned);
        // When the server stops, what has come is answered, and the stream ends.
        let drain = self.drain.clone();
        let stopped = Box::pin(async move { drain.stopped().await });
        let messages = request.into_inner().take_until(stopped);
        let answers = stream::answers(Arc::clone(&self.app), messages, header_id, fail);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn log_settings(&self, request: Request<LogSettingsRequest>) -> Answered<LogSettingsResponse> {
        let changes = request.into_inner().settings;
        let updated = log_changes(changes).and_then(|changes| match changes.is_empty() {
            true => Ok(()),
            false => self.app.log.update(&changes),
        });
        answered(updated.map(|()| log_settings(&self.app)))
    }

    async fn repository_model_load(
        &self,
        _: Request<RepositoryModelLoadRequest>,
    ) -> Answered<RepositoryModelLoadResponse> {
        not_yet(MODEL_CONTROL)
    }

    async fn repository_model_unload(
        &self,
        _: Request<RepositoryModelUnloadRequest>,
    ) -> Answered<RepositoryModelUnloadResponse> {
        not_yet(MODEL_CONTROL)
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answered<SystemSharedMemoryStatusResponse> {
        not_yet(SHARED_MEMORY)
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answered<SystemSharedMemoryRegisterResponse> {
        not_yet(SHARED_MEMORY)
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answered<SystemSharedMemoryUnregisterResponse> {
        not_yet(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answered<CudaSharedMemoryStatusResponse> {
        not_yet(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answered<CudaSharedMemoryRegisterResponse> {
        not_yet(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answered<CudaSharedMemoryUnregisterResponse> {
        not_yet(SHARED_MEMORY)
    }

    async fn trace_setting(&self, _: Request<TraceSettingRequest>) -> Answered<TraceSettingResponse> {
        not_yet(TRACE)
    }
}

fn log_changes(
    settings: HashMap<String, log_settings_request::SettingValue>,
) -> Result<Parameters, InferError> {
    Parameters::check_count(settings.len())?;
    let mut changes = Parameters::default();
    for (name, value) in settings {
        let value = match value.parameter_choice {
            Some(Setting::BoolParam(value)) => Parameter::Bool(value),
            Some(Setting::Uint32Param(value)) => Parameter::Int(value.into()),
            Some(Setting::StringParam(value)) => Parameter::String(value),
            None => return Err(InferError::invalid(format!("setting '{name}' has no value"))),
        };
        changes.insert(name, value);
    }
    Ok(changes)
}

fn log_settings(app: &App) -> LogSettingsResponse {
    let state = app.log.get();
    let settings = [
        ("log_file", SettingAnswer::StringParam(state.log_file)),
        ("log_info", SettingAnswer::BoolParam(state.log_info)),
        ("log_warning", SettingAnswer::BoolParam(state.log_warning)),
        ("log_error", SettingAnswer::BoolParam(state.log_error)),
        ("log_verbose_level", SettingAnswer::Uint32Param(state.log_verbose_level)),
        ("log_format", SettingAnswer::StringParam(state.log_format.name().to_owned())),
    ];
    let value = |choice| log_settings_response::SettingValue { parameter_choice: Some(choice) };
    LogSettingsResponse {
        settings: settings.into_iter().map(|(name, choice)| (name.to_owned(), value(choice))).collect(),
    }
}

/// What an access line needs of a request, kept while it is answered.
struct Access {
    model: String,
    request_id: RequestId,
    bytes_in: u64,
    peer: Option<std::net::SocketAddr>,
}

impl Access {
    fn new(request: &Request<ModelInferRequest>, request_id: RequestId) -> Access {
        let message = request.get_ref();
        Access {
            model: message.model_name.clone(),
            request_id,
            bytes_in: prost_reflect::prost::Message::encoded_len(message) as u64,
            peer: request.extensions().get::<std::net::SocketAddr>().copied(),
        }
    }

    fn write(&self, result: &Result<ModelInferResponse, InferError>, arrived: Instant) {
        let code =
            result.as_ref().map_or_else(|error| super::status::grpc_code(error.code()), |_| tonic::Code::Ok);
        let answer = result.as_ref().ok();
        AccessLog {
            protocol: "grpc",
            method: "POST",
            route: "ModelInfer",
            status: u16::try_from(code as i32).unwrap_or_default(),
            model: Some(&self.model),
            version: answer.and_then(|answer| answer.model_version.parse().ok()),
            bytes_in: self.bytes_in,
            bytes_out: answer.map_or(0, |answer| prost_reflect::prost::Message::encoded_len(answer) as u64),
            took: arrived.elapsed(),
            request_id: self.request_id.as_str(),
            peer: self.peer,
        }
        .write();
    }
}
