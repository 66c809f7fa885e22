//! The RPCs of `inference.GRPCInferenceService`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use model::{InferError, Parameter, Parameters};
use prost_reflect::prost::Message as _;
use proto::v2::grpc_inference_service_server::GrpcInferenceService;
use proto::v2::log_settings_request::setting_value::ParameterChoice as Setting;
use proto::v2::log_settings_response::setting_value::ParameterChoice as SettingAnswer;
use proto::v2::model_repository_parameter::ParameterChoice as Given;
use proto::v2::*;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Call, Caller};
use super::codec::Unread;
use super::deadline::deadline;
use super::infer::infer;
use super::stream;
use crate::app::App;
use crate::describe::{SHARED_MEMORY, TRACE, refuse_repository_name};
use crate::drain::Drain;
use crate::model_control::LoadParameters;
use crate::request_rules::{parse_version, shortened, unknown_load_parameter};

/// Answers from the app.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) app: Arc<App>,
    pub(super) drain: Drain,
}

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, request: Request<ServerLiveRequest>) -> Answered<ServerLiveResponse> {
        let call = Call::about("ServerLive", &request, "");
        call.answer(Ok(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, request: Request<ServerReadyRequest>) -> Answered<ServerReadyResponse> {
        let call = Call::about("ServerReady", &request, "");
        call.answer(Ok(ServerReadyResponse { ready: self.app.is_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answered<ModelReadyResponse> {
        let call = Call::about("ModelReady", &request, &request.get_ref().name);
        let request = request.into_inner();
        let ready =
            parse_version(&request.version).and_then(|version| self.app.model_ready(&request.name, version));
        call.answer(ready.map(|ready| ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        request: Request<ServerMetadataRequest>,
    ) -> Answered<ServerMetadataResponse> {
        let call = Call::about("ServerMetadata", &request, "");
        call.answer(Ok(self.app.server_metadata()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answered<ModelMetadataResponse> {
        let call = Call::about("ModelMetadata", &request, &request.get_ref().name);
        let request = request.into_inner();
        let warm = self.app.warm(&request.name).await;
        call.answer(
            warm.and_then(|()| parse_version(&request.version))
                .and_then(|version| self.app.model_metadata(&request.name, version)),
        )
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answered<ModelConfigResponse> {
        let call = Call::about("ModelConfig", &request, &request.get_ref().name);
        let request = request.into_inner();
        let warm = self.app.warm(&request.name).await;
        call.answer(
            warm.and_then(|()| parse_version(&request.version))
                .and_then(|version| self.app.model_config(&request.name, version)),
        )
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Answered<ModelStatisticsResponse> {
        let call = Call::about("ModelStatistics", &request, &request.get_ref().name);
        let request = request.into_inner();
        call.answer(
            parse_version(&request.version).and_then(|version| self.app.statistics(&request.name, version)),
        )
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Answered<RepositoryIndexResponse> {
        let call = Call::about("RepositoryIndex", &request, "");
        let request = request.into_inner();
        let looked = match refuse_repository_name(&request.repository_name) {
            Ok(()) => self.app.look_for_index(request.ready).await,
            Err(error) => Err(error),
        };
        call.answer(looked.map(|()| self.app.repository_index(request.ready)))
    }

    /// Never called: `inference_service.rs` calls [`Service::infer`].
    async fn model_infer(&self, _: Request<ModelInferRequest>) -> Answered<ModelInferResponse> {
        Err(Status::unimplemented("it is read by a codec of its own"))
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    /// Never called: `inference_service.rs` calls [`Service::answer_stream`].
    async fn model_stream_infer(
        &self,
        _: Request<Streaming<ModelInferRequest>>,
    ) -> Answered<Self::ModelStreamInferStream> {
        Err(Status::unimplemented("it is read by a codec of its own"))
    }

    async fn log_settings(&self, request: Request<LogSettingsRequest>) -> Answered<LogSettingsResponse> {
        let call = Call::about("LogSettings", &request, "");
        let changes = request.into_inner().settings;
        let updated = log_changes(changes).and_then(|changes| match changes.is_empty() {
            true => Ok(()),
            false => self.app.log.update(&changes),
        });
        call.answer(updated.map(|()| log_settings(&self.app)))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answered<RepositoryModelLoadResponse> {
        let call = Call::about("RepositoryModelLoad", &request, &request.get_ref().model_name);
        let request = request.into_inner();
        let loaded = async {
            refuse_repository_name(&request.repository_name)?;
            let held = self.app.request_memory.hold();
            held.grow(request.encoded_len())?;
            let parameters = load_parameters(request.parameters)?;
            self.app.load_model(&request.model_name, parameters, held).await
        };
        let loaded = loaded.await;
        call.answer(loaded.map(|()| RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answered<RepositoryModelUnloadResponse> {
        let call = Call::about("RepositoryModelUnload", &request, &request.get_ref().model_name);
        let request = request.into_inner();
        let unloaded = match refuse_repository_name(&request.repository_name) {
            Ok(()) => self.app.unload_model(&request.model_name).await,
            Err(refusal) => Err(refusal),
        };
        call.answer(unloaded.map(|()| RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answered<SystemSharedMemoryStatusResponse> {
        let call = Call::about("SystemSharedMemoryStatus", &request, "");
        call.answer(Err(InferError::unsupported(SHARED_MEMORY)))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answered<SystemSharedMemoryRegisterResponse> {
        let call = Call::about("SystemSharedMemoryRegister", &request, "");
        call.answer(Err(InferError::unsupported(SHARED_MEMORY)))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answered<SystemSharedMemoryUnregisterResponse> {
        let call = Call::about("SystemSharedMemoryUnregister", &request, "");
        call.answer(Err(InferError::unsupported(SHARED_MEMORY)))
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answered<CudaSharedMemoryStatusResponse> {
        let call = Call::about("CudaSharedMemoryStatus", &request, "");
        call.answer(Err(InferError::unsupported(SHARED_MEMORY)))
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answered<CudaSharedMemoryRegisterResponse> {
        let call = Call::about("CudaSharedMemoryRegister", &request, "");
        call.answer(Err(InferError::unsupported(SHARED_MEMORY)))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        request: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answered<CudaSharedMemoryUnregisterResponse> {
        let call = Call::about("CudaSharedMemoryUnregister", &request, "");
        call.answer(Err(InferError::unsupported(SHARED_MEMORY)))
    }

    async fn trace_setting(&self, request: Request<TraceSettingRequest>) -> Answered<TraceSettingResponse> {
        let call = Call::about("TraceSetting", &request, &request.get_ref().model_name);
        call.answer(Err(InferError::unsupported(TRACE)))
    }
}

impl Service {
    /// Answers one message.
    pub(super) async fn infer(&self, request: Request<Unread>) -> Answered<ModelInferResponse> {
        let (metadata, extensions, message) = request.into_parts();
        let request = Request::from_parts(metadata, extensions, message.read().await?);
        let call = Call::infer(&request);
        let deadline = deadline(request.metadata(), call.arrived);
        let (metadata, _, message) = request.into_parts();
        let result = infer(&self.app, message, call.asked(metadata.as_ref()), deadline).await;
        call.log_inference(&result);
        result.map(Response::new).map_err(|error| call.status(&error))
    }

    /// Answers the messages of one stream.
    pub(super) fn answer_stream(
        &self,
        request: Request<Streaming<Unread>>,
    ) -> Response<<Service as GrpcInferenceService>::ModelStreamInferStream> {
        let caller = Caller::of(&request);
        let fail = request.metadata().get("triton_grpc_error").is_some_and(|value| value == "true");
        // When the server stops, what has come is answered, and the stream ends.
        let drain = self.drain.clone();
        let stopped = Box::pin(async move { drain.stopped().await });
        let messages = request.into_inner().take_until(stopped);
        let answers = stream::answers(Arc::clone(&self.app), messages, caller, fail, self.drain.clone());
        Response::new(Box::pin(answers))
    }
}

/// What a load request gives in place of files: `config`, JSON, and `file:PATH`, bytes.
fn load_parameters(
    parameters: HashMap<String, ModelRepositoryParameter>,
) -> Result<LoadParameters, InferError> {
    let mut given = LoadParameters::default();
    for (name, value) in parameters {
        let kind = |kind| InferError::invalid(format!("the parameter '{}' must be {kind}", shortened(&name)));
        match (name.strip_prefix("file:"), value.parameter_choice) {
            (Some(path), Some(Given::BytesParam(content))) => given.files.push((path.to_owned(), content)),
            (Some(_), _) => return Err(kind("bytes")),
            (None, Some(Given::StringParam(config))) if name == "config" => given.config = Some(config),
            (None, _) if name == "config" => return Err(kind("a string")),
            (None, _) => return Err(unknown_load_parameter(&name)),
        }
    }
    Ok(given)
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
