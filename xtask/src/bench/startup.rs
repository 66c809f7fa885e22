//! From the start of the program until the sample models are ready, and the memory it then holds.

use anyhow::Result;

use super::server::Server;
use super::{Args, median};
use crate::child;
use crate::workspace::Workspace;

const REPEATS: usize = 5;

/// Starts the release build several times and prints the medians.
pub(super) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    child::run(&mut workspace.cargo(&["build", "--release", "--package", "volley"]))?;
    let repeats = args.repeats.map_or(REPEATS, Into::into);
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let server = Server::volley(workspace, &workspace.root.join("model_repository"))?;
        ready.push(server.ready_after.as_secs_f64() * 1e3);
        resident.push(server.resident_mib()?);
    }
    println!(
        "ready after {:.0} ms, {:.0} MiB resident when idle (median of {repeats})",
        median(ready),
        median(resident)
    );
    Ok(())
}
