//! The V2 / Triton wire contract: messages, services and model configuration.
//!
//! The two files under `inference/` define the protobuf package `inference` with Triton's names and
//! field numbers, so that its clients and its `config.pbtxt` files work unchanged. The build script
//! compiles them without `protoc`; `tests/wire_contract.rs` holds every number against a plain table.
//!
//! * [`v2`]: the messages, the client and the server trait. `bytes` fields are [`bytes::Bytes`], so
//!   tensor contents decoded from a `Bytes` body share its buffer.
//! * [`config_text`]: `config.pbtxt` to [`ModelConfig`], with errors that point at the place.
//! * [`config_json`]: [`ModelConfig`] to and from JSON, as `GET /v2/models/NAME/config` prints it.
//! * [`message_json`]: any other message as the HTTP protocol prints it.
//! * [`FILE_DESCRIPTOR_SET`] and [`descriptors`]: the contract about itself, for gRPC reflection.
//!
//! This crate knows nothing of serving: it reads no file, checks no value against another, and
//! completes no default.
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

pub mod config_json;
pub mod config_text;
pub mod message_json;

/// The protobuf package `inference`, generated.
///
/// Called `v2` after the protocol, because `inference` is the crate that runs models.
pub mod v2 {
    #![allow(clippy::all, clippy::pedantic, missing_debug_implementations, unreachable_pub)]
    tonic::include_proto!("inference");
}

pub use v2::ModelConfig;

/// The compiled .proto files, with comments, as `tonic-reflection` wants them.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Every message, field, enum and service of the contract; built on first use.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build script wrote a valid descriptor set")
    });
    &POOL
}

/// `inference.ModelConfig`, for reading its fields by name.
pub fn model_config_descriptor() -> MessageDescriptor {
    descriptors()
        .get_message_by_name("inference.ModelConfig")
        .expect("model_config.proto defines ModelConfig")
}
