//! `cargo xtask models`: the models that are generated, never committed.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{child, python};

/// `cargo xtask models`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Models to generate; all when none is named.
    names: Vec<String>,
}

/// Generates what `args` names under `target/models`.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let models = workspace.target.join("models");
    generate(workspace, "models.py", &models, &args.names)?;
    println!("models are in {}", workspace.relative(&models).display());
    Ok(ExitCode::SUCCESS)
}

/// Runs `script`, which writes the models `names` (all when empty) as a model repository in `out`.
pub(crate) fn generate(workspace: &Workspace, script: &str, out: &Path, names: &[String]) -> Result<()> {
    let script = Path::new("xtask/python").join(script);
    let python = python::interpreter(workspace)?;
    child::run(workspace.command(python).arg(&script).arg("--out").arg(out).args(names))
        .with_context(|| format!("{} could not generate its models", script.display()))
}
