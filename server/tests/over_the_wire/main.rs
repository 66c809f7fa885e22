//! What the server promises, seen from outside: the real program, asked over real sockets.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod onnx_file;
mod raw_http;
mod real_server;
mod repository_files;

mod access_log;
mod agreement;
mod bad_input;
mod cli;
mod framing;
mod golden;
mod grpc;
mod grpc_bounds;
mod http2;
mod log_lines;
mod process;
mod rate_limit;
mod repository;
mod response_cache;
mod slow_clients;
