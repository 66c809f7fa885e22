//! Provisions ONNX Runtime: takes its shared library out of the `onnxruntime` wheel, pinned by version and
//! hash, into the target directory. A build without network still succeeds; the server then says at start
//! where it looked and what to do.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = "1.31.1";

/// The wheel's tag and SHA-256 for a target architecture. Any Python downloads it: only the library inside
/// is used.
fn wheel(architecture: &str) -> Option<(&'static str, &'static str)> {
    match architecture {
        "x86_64" => Some((
            "manylinux_2_28_x86_64",
            "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        )),
        "aarch64" => Some((
            "manylinux_2_28_aarch64",
            "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        )),
        _ => None,
    }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=VOLLEY_SKIP_PROVISION");
    let target = target_directory();
    let library = target.join("onnxruntime").join(VERSION).join("libonnxruntime.so");
    println!("cargo:rustc-env=VOLLEY_PROVISIONED_ORT={}", library.display());
    println!("cargo:rustc-env=VOLLEY_ORT_VERSION={VERSION}");
    println!("cargo:rerun-if-changed={}", library.display());
    if library.exists() || env::var_os("VOLLEY_SKIP_PROVISION").is_some() {
        return;
    }
    if let Err(reason) = provision(&target, &library) {
        println!("cargo:warning=ONNX Runtime {VERSION} was not provisioned: {reason}");
        println!(
            "cargo:warning=set ORT_DYLIB_PATH to a libonnxruntime.so when starting volley, or build again"
        );
    }
}

/// The build directory's root, found from OUT_DIR (`<target>/<profile>/build/<package>/out`).
fn target_directory() -> PathBuf {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let build = out.ancestors().find(|path| path.file_name().is_some_and(|name| name == "build"));
    build.and_then(|build| build.ancestors().nth(2)).unwrap_or(&out).to_owned()
}

fn provision(target: &Path, library: &Path) -> Result<(), String> {
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let (platform, sha256) = wheel(&architecture)
        .filter(|_| os == "linux")
        .ok_or_else(|| format!("no library is known for {os} on {architecture}"))?;
    let work = target.join("onnxruntime").join(format!("download-{}", std::process::id()));
    fs::create_dir_all(&work).map_err(|error| format!("cannot create {}: {error}", work.display()))?;
    let provisioned = download(&work, platform, sha256).and_then(|wheel| unpack(&work, &wheel, library));
    // What is left in the download directory is of no further use, whatever happened.
    let _ = fs::remove_dir_all(&work);
    provisioned
}

fn download(work: &Path, platform: &str, sha256: &str) -> Result<PathBuf, String> {
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, format!("onnxruntime=={VERSION} --hash=sha256:{sha256}\n"))
        .map_err(|error| format!("cannot write {}: {error}", requirements.display()))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args([
            "--python-version",
            "3.12",
            "--implementation",
            "cp",
            "--abi",
            "cp312",
            "--platform",
            platform,
        ])
        .arg("--dest")
        .arg(work)
        .arg("--requirement")
        .arg(&requirements);
    run(&mut pip, "python3 -m pip download onnxruntime")?;
    let wheels = fs::read_dir(work).map_err(|error| format!("cannot read {}: {error}", work.display()))?;
    let mut wheels = wheels.filter_map(|entry| Some(entry.ok()?.path()));
    wheels
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip left no wheel".into())
}

/// A wheel is a zip archive, which Python can read everywhere pip can run. The library appears by rename,
/// so that a concurrent build never sees half of it.
fn unpack(work: &Path, wheel: &Path, library: &Path) -> Result<(), String> {
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(wheel).arg(work);
    run(&mut unzip, "python3 -m zipfile")?;
    let unpacked = work.join(format!("onnxruntime/capi/libonnxruntime.so.{VERSION}"));
    let directory = library.parent().unwrap_or(work);
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
    fs::rename(&unpacked, library).map_err(|error| format!("cannot move {}: {error}", unpacked.display()))
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cannot run {what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("{what} failed: {last}"))
}
