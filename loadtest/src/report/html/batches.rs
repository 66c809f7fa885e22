//! How large the batches were that the server made of the requests.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::report::chart::columns::{Column, draw as draw_columns};
use crate::report::chart::grid::{Row, draw as draw_grid};
use crate::report::chart::scale::Scale;
use crate::report::chart::{self, Axis, HALF, Size, WIDE};
use crate::report::loads::LoadRuns;
use crate::report::units;

/// More sizes than this are put into classes that double.
const MAX_SIZES: usize = 16;

/// Executions by batch size, of one load and model.
type Sizes = BTreeMap<u64, u64>;

/// Nothing when the server does not tell.
pub(super) fn figure(loads: &[LoadRuns<'_>]) -> Markup {
    let rows = rows(loads);
    if rows.is_empty() {
        return html! {};
    }
    let classes = Classes::of(rows.iter().flat_map(|(_, sizes)| sizes.keys().copied()));
    let names: Vec<String> = classes.names();
    let drawing = if let ([(name, sizes)], [_, _, ..]) = (rows.as_slice(), names.as_slice()) {
        one(name, &names, &classes.counts(sizes))
    } else {
        let row = |(name, sizes): &(String, Sizes)| {
            let shares = shares(&classes.counts(sizes));
            Row { name: name.clone(), shares }
        };
        draw_grid(WIDE.width, "batch size", &names, &rows.iter().map(row).collect::<Vec<_>>())
    };
    chart::figure("Batch sizes", "share of the model's executions", &[], &drawing)
}

/// A row for each load, and for each model when there are several.
fn rows(loads: &[LoadRuns<'_>]) -> Vec<(String, Sizes)> {
    let mut rows: Vec<(String, Sizes)> = Vec::new();
    for load in loads {
        let mut models: BTreeMap<&str, Sizes> = BTreeMap::new();
        for (name, model) in
            load.runs.iter().filter_map(|run| run.server.as_ref()).flat_map(|side| &side.models)
        {
            let sizes = models.entry(name).or_default();
            for (size, executions) in &model.batches {
                *sizes.entry(*size).or_default() += executions;
            }
        }
        models.retain(|_, sizes| sizes.values().sum::<u64>() > 0);
        let several = models.len() > 1;
        rows.extend(models.into_iter().map(|(model, sizes)| {
            let load = units::load(load.load);
            (if several { format!("{load}, {}", units::plain(model, 32)) } else { load }, sizes)
        }));
    }
    rows
}

fn one(name: &str, names: &[String], counts: &[u64]) -> Markup {
    let shares = shares(counts);
    let column = |((size, share), executions): ((&String, &f64), &u64)| Column {
        name: size.clone(),
        value: 100.0 * share,
        title: format!(
            "{name}, batch size {size}: {} executions ({:.1} %)",
            units::count(*executions),
            100.0 * share
        ),
    };
    let columns: Vec<Column> = names.iter().zip(&shares).zip(counts).map(column).collect();
    let y = Axis {
        name: "% of executions".to_owned(),
        scale: Scale::from_zero(columns.iter().map(|column| column.value)),
        write: units::short,
    };
    draw_columns(Size { width: WIDE.width, height: HALF.height }, "batch size", &y, &columns)
}

fn shares(counts: &[u64]) -> Vec<f64> {
    let sum = counts.iter().sum();
    counts.iter().map(|count| units::share(*count, sum)).collect()
}

/// The sizes that share a column: each from the end of the one before to its own end.
struct Classes {
    ends: Vec<u64>,
    /// Whether sizes were put together.
    joined: bool,
}

impl Classes {
    fn of(sizes: impl Iterator<Item = u64>) -> Classes {
        let mut ends: Vec<u64> = sizes.collect();
        ends.sort_unstable();
        ends.dedup();
        let joined = ends.len() > MAX_SIZES;
        if joined {
            let largest = ends.last().copied().unwrap_or(1);
            ends = std::iter::successors(Some(1), |end: &u64| end.checked_mul(2)).collect();
            ends.truncate(1 + ends.partition_point(|end| *end < largest));
        }
        Classes { ends, joined }
    }

    /// `8`, or `5–8` when sizes are put together.
    fn names(&self) -> Vec<String> {
        let mut before = 0;
        let name = |end: &u64| {
            let start = std::mem::replace(&mut before, *end) + 1;
            if self.joined && start < *end { format!("{start}–{end}") } else { end.to_string() }
        };
        self.ends.iter().map(name).collect()
    }

    fn counts(&self, sizes: &Sizes) -> Vec<u64> {
        let mut counts = vec![0; self.ends.len()];
        for (size, executions) in sizes {
            if let Some(count) = counts.get_mut(self.ends.partition_point(|end| end < size)) {
                *count += executions;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_sizes_have_a_column_each() {
        let classes = Classes::of([8, 1, 3, 8].into_iter());
        assert_eq!(classes.names(), ["1", "3", "8"]);
        assert_eq!(classes.counts(&[(1, 5), (8, 2)].into()), [5, 0, 2]);
    }

    #[test]
    fn many_sizes_are_put_into_classes() {
        let classes = Classes::of(1..=40);
        assert_eq!(classes.names(), ["1", "2", "3–4", "5–8", "9–16", "17–32", "33–64"]);
        let sizes: Sizes = (1..=40).map(|size| (size, 1)).collect();
        assert_eq!(classes.counts(&sizes), [1, 1, 2, 4, 8, 16, 8]);
    }
}
