//! From the start of the program until the sample models are ready, and the memory it then holds.

use anyhow::Result;

use super::Args;
use super::figure::{Figure, Unit};
use super::server::Server;
use crate::child;
use crate::workspace::Workspace;

const REPEATS: usize = 5;

/// Starts the release build several times; the medians count.
pub(super) fn run(workspace: &Workspace, args: &Args) -> Result<Vec<Figure>> {
    child::run(&mut workspace.cargo(&["build", "--release", "--package", "volley"]))?;
    let repeats = args.repeats.map_or(REPEATS, Into::into);
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let server = Server::volley(workspace, &workspace.root.join("model_repository"))?;
        ready.push(server.ready_after.as_secs_f64() * 1e3);
        resident.push(server.resident_mib()?);
    }
    Ok(vec![
        Figure::of("startup/ready".to_owned(), Unit::Milliseconds, &ready),
        Figure::of("startup/resident".to_owned(), Unit::Mebibytes, &resident),
    ])
}
