//! Volley: an inference server for ONNX models that speaks the KServe V2 / Triton protocols.
//!
//! The composition root of the data plane. In the order a request meets the parts: [`serve`] accepts
//! connections for [`io_threads`], [`http`] and [`grpc`] decode, [`infer`] tells the life of a request, and the crates
//! `traffic` and `inference` do the work. [`describe`] answers questions about the server and its models,
//! [`admin`] exports metrics, [`drain`] stops it all in order.
#![forbid(unsafe_code)]

pub mod activity;
pub mod admin;
pub mod app;
pub mod asked;
mod beside;
pub mod blocking;
pub mod cli;
mod cold_models;
pub mod config;
mod delivery;
pub mod describe;
pub mod drain;
pub mod grpc;
pub mod http;
pub mod infer;
pub mod io_threads;
pub mod load_trial;
pub mod logging;
pub mod model_control;
pub mod object_storage;
mod open_files;
pub mod readiness;
mod repository_poll;
pub mod request_id;
pub mod request_memory;
pub mod request_rules;
pub mod room;
pub mod serve;
pub mod server;
pub mod size_limit;
pub mod tensor_bytes;
