//! The log: one line for each event, as text or JSON, on stderr or in a file.
//!
//! Invariants:
//! - an event is one line: what came from a user is escaped and bounded, so that no line can be forged or flood;
//! - a line that concerns a request carries its id ([`request_span`]);
//! - writing never waits for the reader of the log: lines that do not fit the buffer are dropped and counted;
//! - an event that is switched off costs a load and a branch, whatever was switched at run time.

mod access;
mod filter;
mod format;
mod layer;
mod panics;
mod settings;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;

pub use access::AccessLog;
pub use format::LogFormat;
pub use layer::request_span;
pub use settings::{LogSettings, LogState};

use layer::LogLayer;

/// What is logged, where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The file that lines are appended to; `None` for stderr.
    pub file: Option<PathBuf>,
    /// The form of the lines.
    pub format: LogFormat,
    /// Whether informative lines are written.
    pub info: bool,
    /// Whether warnings are written.
    pub warning: bool,
    /// Whether errors are written.
    pub error: bool,
    /// How much detail is written beyond that; 0 for none.
    pub verbose: u32,
    /// Whether each request is given a line.
    pub access: bool,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be appended to.
    #[error("cannot append to the log file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// The process has a log already.
    #[error("this process has a log already")]
    AlreadyStarted,
}

/// The log of this process, of its panics too; dropping it writes what is still buffered.
#[derive(Debug)]
pub struct Logging {
    settings: LogSettings,
    _writer: WorkerGuard,
}

/// Lines that wait to be written. At some 200 bytes each they take 2 MB; when they are all taken, the reader of the
/// log is stuck, and lines are dropped.
const BUFFERED_LINES: usize = 8192;

/// Starts the log of this process.
///
/// # Errors
/// When the log file cannot be opened, or a log was started before.
pub fn start(config: &LogConfig) -> Result<Logging, LogError> {
    let (output, writer) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .thread_name("log")
        .finish(destination(config)?);
    let settings = LogSettings::new(config, Some(output.error_counter()));
    let layer = LogLayer::new(settings.clone(), Box::new(output), SystemTime::now);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        .map_err(|_| LogError::AlreadyStarted)?;
    panics::log_them();
    Ok(Logging { settings, _writer: writer })
}

impl Logging {
    /// The switches that can be changed while the server runs.
    pub fn settings(&self) -> LogSettings {
        self.settings.clone()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        panics::leave_them(); // nobody would write them
    }
}

fn destination(config: &LogConfig) -> Result<Box<dyn Write + Send>, LogError> {
    let Some(path) = &config.file else {
        return Ok(Box::new(std::io::stderr()));
    };
    match OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(reason) => Err(LogError::File { path: path.clone(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let config = LogConfig {
            file: Some("no/such/directory/v.log".into()),
            format: LogFormat::Default,
            info: true,
            warning: true,
            error: true,
            verbose: 0,
            access: false,
        };
        let error = destination(&config).err().unwrap().to_string();
        assert!(error.starts_with("cannot append to the log file no/such/directory/v.log: "), "{error}");
    }
}
