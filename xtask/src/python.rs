//! Virtual environments: the one in which the Python programs of this repository run, and those of other servers.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::child;
use crate::workspace::Workspace;

/// What the environment of this repository's programs holds.
const REQUIREMENTS: &str = "clients/python/requirements.txt";

/// The interpreter of the environment of this repository's programs, which is made first if it is not there.
///
/// # Errors
/// When there is no Python 3 that can make environments, or a requirement cannot be installed.
pub(crate) fn interpreter(workspace: &Workspace) -> Result<PathBuf> {
    Ok(interpreter_in(&environment(workspace, Path::new(REQUIREMENTS))?))
}

/// The directory of the programs in the environment that holds `requirements`, a file of the checkout; it is made
/// first if it is not there.
///
/// # Errors
/// As [`interpreter`].
pub(crate) fn programs(workspace: &Workspace, requirements: &Path) -> Result<PathBuf> {
    Ok(environment(workspace, requirements)?.join("bin"))
}

fn environment(workspace: &Workspace, requirements: &Path) -> Result<PathBuf> {
    let requirements = workspace.root.join(requirements);
    let wanted =
        fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let environments = cache()?.join("python");
    fs::create_dir_all(&environments)
        .with_context(|| format!("cannot create {}; set VOLLEY_CACHE", environments.display()))?;

    let environment = environments.join(key(&wanted, &version()?));
    let lock = File::create(environment.with_extension("lock"))?;
    lock.lock().context("cannot lock the Python environment")?;
    let complete = environment.join("complete");
    if !complete.exists() {
        make(&environment, &requirements)?;
        File::create(&complete)?;
    }
    Ok(environment)
}

/// The directory that outlives checkouts: `$VOLLEY_CACHE`, else the user's cache directory.
fn cache() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("VOLLEY_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("volley")))
        .or_else(|| Some(variable("HOME")?.join(".cache/volley")))
        .context("cannot tell where to cache; set VOLLEY_CACHE to a directory")
}

/// The name of the environment that holds `wanted` for this `python`.
fn key(wanted: &[u8], python: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (wanted, python).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The version of the machine's Python, once it is known to be able to make environments.
fn version() -> Result<String> {
    let output = Command::new("python3")
        .args(["-c", "import sys, ensurepip, venv; print(sys.prefix, sys.version)"])
        .output()
        .context("cannot run python3; install Python 3 (Debian: apt-get install python3-venv)")?;
    ensure!(
        output.status.success(),
        "python3 cannot make virtual environments; install its venv module \
         (Debian: apt-get install python3-venv): {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes `environment` anew; one that an interrupted run left half made is thrown away.
fn make(environment: &Path, requirements: &Path) -> Result<()> {
    println!("making a Python environment in {}", environment.display());
    if environment.exists() {
        fs::remove_dir_all(environment)?;
    }
    child::run(Command::new("python3").args(["-m", "venv"]).arg(environment))
        .context("cannot make the Python environment")?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    child::run(Command::new(interpreter_in(environment)).args(pip).arg(requirements))
        .with_context(|| format!("cannot install {}", requirements.display()))
}

fn interpreter_in(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_requirements_or_another_python_are_another_environment() {
        let first = key(b"pytest==9.0.0", "3.11");
        assert_eq!(first, key(b"pytest==9.0.0", "3.11"));
        assert_ne!(first, key(b"pytest==9.0.1", "3.11"));
        assert_ne!(first, key(b"pytest==9.0.0", "3.12"));
    }
}
