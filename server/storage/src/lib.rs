//! Model repositories in object storage: what is there, and a copy of it on this machine.
//!
//! A [`Remote`] is a repository: [`Remote::list`] tells its models, [`Remote::fetch`] brings the files of one into a
//! [`Cache`] and answers with a [`Snapshot`], a directory that never changes and stays while it is held. [`Remote::upload`]
//! publishes a version.
//!
//! - Calls block: they are for the threads that load models and for the one that polls. They must not be made from
//!   async code.
//! - Nothing hangs: each request has a time limit and few retries, and what fails is a [`StorageError`] of few words.
//! - Nothing half done counts: what is fetched is checked, then renamed into its place. A file that is replaced while
//!   it is fetched is an error and never a mixture.
//! - No name of an object leads out of the cache, and no error holds a credential.
#![forbid(unsafe_code)]

mod cache;
mod error;
mod fetch;
mod listing_answer;
mod location;
mod options;
mod progress;
mod remembered;
mod remote;
mod service;
mod transfers;
mod tree;
mod upload;

pub use ::manifest::MANIFEST;
pub use cache::{Cache, Snapshot};
pub use error::StorageError;
pub use location::{InvalidUrl, check_url};
pub use options::{Environment, Limits, Options};
pub use progress::Progress;
pub use remote::Remote;
pub use transfers::Transfers;
pub use tree::{RemoteFile, RemoteModel, Tree};
pub use upload::{Upload, Uploaded};
