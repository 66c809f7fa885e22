//! The subcommands. `infer`, `models`, `load`, `unload`, `rollback` and `events` ask a running server: black-box clients
//! that know it by its address alone. `check` loads a repository by itself, and `push` puts a version into one.

mod answer;
pub mod check;
mod connection;
pub mod control;
pub mod events;
pub mod infer;
mod input_file;
mod json_input;
mod model_file;
pub mod models;
pub mod push;
mod table;

pub use control::{LoadArgs, RollbackArgs, UnloadArgs};
pub use events::EventsArgs;
pub use infer::InferArgs;
pub use models::ModelsArgs;
pub use push::PushArgs;
