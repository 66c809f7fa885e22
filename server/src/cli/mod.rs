//! The subcommands. `infer` and `models` ask a running server: black-box clients that know it by its
//! address alone, and work with any V2 server. `check` loads a repository by itself.

mod answer;
pub mod check;
mod connection;
pub mod infer;
mod input_file;
mod json_input;
pub mod models;
mod table;

pub use infer::InferArgs;
pub use models::ModelsArgs;
