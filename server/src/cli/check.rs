//! `volley check`: validates model repositories by loading them, without serving.

use std::io::Write;
use std::sync::Arc;

use anyhow::bail;
use inference::backend::Backend;
use inference::repository::{Repository, State};

use crate::app::settings;
use crate::config::{OnDemand, RepositoryConfig};

/// Loads every version that a server with this configuration would serve, and prints one line for each, then the problems' number.
///
/// # Errors
/// When anything is wrong, after all of it was printed.
pub fn run(
    config: &RepositoryConfig,
    backend: Arc<dyn Backend>,
    acts_on_parameter: fn(&str) -> bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    // What is wrong with a model is seen by loading it, be it that a server would load it later.
    let config = RepositoryConfig { on_demand: OnDemand::Off, memory_limit: None, ..config.clone() };
    let repository = Repository::new(settings(&config, acts_on_parameter)?, backend);
    repository.load_all(None);
    let errors = repository.scan_errors();
    let mut problems = errors.len();
    for error in errors.iter() {
        writeln!(out, "error  {error}")?;
    }
    let index = repository.index();
    for entry in &index {
        let version = entry.version.map(|version| format!(" {version}")).unwrap_or_default();
        match entry.state {
            Some(State::Ready) => writeln!(out, "ok     {}{version}", entry.name)?,
            _ => {
                problems += 1;
                writeln!(out, "error  {}{version}: {}", entry.name, entry.reason)?;
            }
        }
    }
    for (name, fields) in repository.unacted() {
        writeln!(out, "note   {name}: valid, but not acted on yet: {}", fields.join(", "))?;
    }
    match problems {
        0 if index.is_empty() => bail!("no model was found"),
        0 => Ok(()),
        1 => bail!("1 problem"),
        problems => bail!("{problems} problems"),
    }
}
