//! `docs/performance.md`: the part between two markers is written here, the rest by hand.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::report::Report;
use super::{plot, table};
use crate::workspace::Workspace;

const PAGE: &str = "docs/performance.md";
const PLOT: &str = "docs/performance/peers.svg";
/// The plot, as the page names it.
const LINK: &str = "![Requests per second and p99 latency of each server](performance/peers.svg)";
const BEGIN: &str = "<!-- peers:begin -->";
const END: &str = "<!-- peers:end -->";

/// Puts `report` in the page and draws the plot beside it.
pub(super) fn write(workspace: &Workspace, report: &Report) -> Result<()> {
    let page = workspace.root.join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    let written = replaced(&text, &format!("\n{LINK}\n\n{}\n", table::markdown(report)))
        .with_context(|| format!("{PAGE} has no lines {BEGIN} and {END}, in this order"))?;
    let plot = workspace.root.join(PLOT);
    fs::create_dir_all(plot.parent().unwrap_or(Path::new(".")))?;
    fs::write(&plot, plot::svg(report)?).with_context(|| format!("cannot write {PLOT}"))?;
    fs::write(&page, written).with_context(|| format!("cannot write {PAGE}"))?;
    println!("written to {PAGE} and {PLOT}");
    Ok(())
}

/// `text` with `content` between the markers; `None` without them.
fn replaced(text: &str, content: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{content}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nBy hand.\n");
        let once = replaced(&page, "new\n").unwrap();
        assert_eq!(once, format!("# Title\n\n{BEGIN}\nnew\n{END}\n\nBy hand.\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
    }

    #[test]
    fn a_page_without_markers_is_left_alone() {
        assert_eq!(replaced("no markers", "new"), None);
        assert_eq!(replaced(&format!("{END} {BEGIN}"), "new"), None);
    }

    #[test]
    fn the_page_has_the_markers() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert!(replaced(&fs::read_to_string(root.join(PAGE)).unwrap(), "").is_some());
    }
}
