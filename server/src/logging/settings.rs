//! The switches of the log that the logging extension of the protocol reads and changes at run time.

use std::sync::Arc;

use model::{InferError, Parameter, Parameters};
use parking_lot::RwLock;
use tracing_appender::non_blocking::ErrorCounter;

use super::filter::Filter;
use super::{LogConfig, LogFormat};

/// A handle to the switches of the log.
#[derive(Clone, Debug)]
pub struct LogSettings(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Where lines go, as it was given; empty for stderr. It stays as it was at start.
    file: String,
    /// Lines that nobody has seen; `None` where the output has room for all.
    dropped: Option<ErrorCounter>,
    /// Guards the switches while they are read or replaced as a whole, which is a copy of a few bytes.
    switches: RwLock<Switches>,
}

#[derive(Clone, Copy, Debug)]
struct Switches {
    filter: Filter,
    format: LogFormat,
}

/// The settings of the log, named as in the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Where lines go; empty for stderr.
    pub log_file: String,
    /// Whether informative lines are written.
    pub log_info: bool,
    /// Whether warnings are written.
    pub log_warning: bool,
    /// Whether errors are written.
    pub log_error: bool,
    /// How much detail is written beyond that.
    pub log_verbose_level: u32,
    /// The form of the lines.
    pub log_format: LogFormat,
}

impl LogSettings {
    /// The switches as `config` has them, of an output that counts what it drops in `dropped`.
    pub fn new(config: &LogConfig, dropped: Option<ErrorCounter>) -> LogSettings {
        let file = config.file.as_deref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let switches = Switches { filter: Filter::new(config), format: config.format };
        LogSettings(Arc::new(Shared { file, dropped, switches: RwLock::new(switches) }))
    }

    /// How many lines were dropped because the reader of the log did not keep up.
    pub fn dropped_lines(&self) -> usize {
        self.0.dropped.as_ref().map_or(0, ErrorCounter::dropped_lines)
    }

    /// The settings now.
    pub fn get(&self) -> LogState {
        let Switches { filter, format } = *self.0.switches.read();
        LogState {
            log_file: self.0.file.clone(),
            log_info: filter.info,
            log_warning: filter.warning,
            log_error: filter.error,
            log_verbose_level: filter.verbose,
            log_format: format,
        }
    }

    /// Changes the settings that `changes` names: all of them, or, when one is refused, none.
    ///
    /// # Errors
    /// When a setting is unknown, its value is not of its type, or it cannot be changed at run time.
    pub fn update(&self, changes: &Parameters) -> Result<(), InferError> {
        {
            let mut switches = self.0.switches.write();
            let mut changed = *switches;
            for (name, value) in changes.iter() {
                change(&mut changed, name, value)?;
            }
            *switches = changed;
        }
        // Each event remembers whether it is shown; this makes them ask again.
        tracing_core::callsite::rebuild_interest_cache();
        Ok(())
    }

    pub(super) fn filter(&self) -> Filter {
        self.0.switches.read().filter
    }

    pub(super) fn format(&self) -> LogFormat {
        self.0.switches.read().format
    }
}

fn change(switches: &mut Switches, name: &str, value: &Parameter) -> Result<(), InferError> {
    match name {
        "log_info" => switches.filter.info = boolean(name, value)?,
        "log_warning" => switches.filter.warning = boolean(name, value)?,
        "log_error" => switches.filter.error = boolean(name, value)?,
        "log_verbose_level" => switches.filter.verbose = level(name, value)?,
        "log_format" => switches.format = format(name, value)?,
        "log_file" => {
            return Err(InferError::unsupported(
                "log file location can not be updated through network protocol; set it at start with --log-file",
            ));
        }
        _ => {
            return Err(InferError::invalid(format!(
                "{name:?} is not a log setting; they are log_info, log_warning, log_error, log_verbose_level and \
                 log_format"
            )));
        }
    }
    Ok(())
}

fn boolean(name: &str, value: &Parameter) -> Result<bool, InferError> {
    match value {
        Parameter::Bool(value) => Ok(*value),
        other => Err(wrong(name, other, "true or false")),
    }
}

fn level(name: &str, value: &Parameter) -> Result<u32, InferError> {
    let level = match value {
        Parameter::Int(value) => u32::try_from(*value).ok(),
        _ => None,
    };
    level.ok_or_else(|| wrong(name, value, "an integer from 0 to 4294967295"))
}

fn format(name: &str, value: &Parameter) -> Result<LogFormat, InferError> {
    let format = match value {
        Parameter::String(value) => LogFormat::parse(value),
        _ => None,
    };
    format.ok_or_else(|| wrong(name, value, "\"default\", \"ISO8601\" or \"json\""))
}

fn wrong(name: &str, value: &Parameter, expected: &str) -> InferError {
    let got = match value {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int(value) => value.to_string(),
        Parameter::Uint(value) => value.to_string(),
        Parameter::Double(value) => value.to_string(),
        Parameter::String(value) => format!("{:?}", value.chars().take(64).collect::<String>()),
    };
    InferError::invalid(format!("{name} is {got}, but it must be {expected}"))
}

#[cfg(test)]
mod tests {
    use model::Code;

    use super::*;

    fn settings() -> LogSettings {
        let config = LogConfig {
            file: Some("v.log".into()),
            format: LogFormat::Default,
            info: true,
            warning: true,
            error: true,
            verbose: 0,
            access: false,
        };
        LogSettings::new(&config, None)
    }

    fn changes<const N: usize>(pairs: [(&str, Parameter); N]) -> Parameters {
        let mut changes = Parameters::default();
        for (name, value) in pairs {
            changes.insert(name, value);
        }
        changes
    }

    #[test]
    fn what_is_set_is_read_back() {
        let settings = settings();
        let all = changes([
            ("log_info", Parameter::Bool(false)),
            ("log_warning", Parameter::Bool(false)),
            ("log_error", Parameter::Bool(false)),
            ("log_verbose_level", Parameter::Int(3)),
            ("log_format", Parameter::String("json".into())),
        ]);
        settings.update(&all).unwrap();
        let expected = LogState {
            log_file: "v.log".into(),
            log_info: false,
            log_warning: false,
            log_error: false,
            log_verbose_level: 3,
            log_format: LogFormat::Json,
        };
        assert_eq!(settings.get(), expected);
        settings.update(&Parameters::default()).unwrap();
        assert_eq!(settings.get(), expected);
    }

    #[track_caller]
    fn check_refused(name: &str, value: Parameter, code: Code, expected: &str) {
        let settings = settings();
        let before = settings.get();
        let error =
            settings.update(&changes([("log_info", Parameter::Bool(false)), (name, value)])).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (code, expected));
        assert_eq!(settings.get(), before, "a refused change changes nothing");
    }

    #[test]
    fn what_is_wrong_is_refused_as_a_whole() {
        check_refused(
            "log_color",
            Parameter::Bool(true),
            Code::InvalidArgument,
            "\"log_color\" is not a log setting; they are log_info, log_warning, log_error, log_verbose_level and \
             log_format",
        );
        check_refused(
            "log_error",
            Parameter::Int(1),
            Code::InvalidArgument,
            "log_error is 1, but it must be true or false",
        );
        check_refused(
            "log_verbose_level",
            Parameter::Int(-1),
            Code::InvalidArgument,
            "log_verbose_level is -1, but it must be an integer from 0 to 4294967295",
        );
        check_refused(
            "log_format",
            Parameter::String("xml\n".into()),
            Code::InvalidArgument,
            "log_format is \"xml\\n\", but it must be \"default\", \"ISO8601\" or \"json\"",
        );
        check_refused(
            "log_file",
            Parameter::String("/etc/passwd".into()),
            Code::Unsupported,
            "log file location can not be updated through network protocol; set it at start with --log-file",
        );
    }
}
