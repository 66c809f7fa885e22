//! Runs by load: the repeats of one load belong together.

use super::chart::{Hue, Key};
use super::units;
use crate::measurement::{Load, Run};

/// The runs of one load, in the order they ran.
#[derive(Clone, Debug)]
pub(crate) struct LoadRuns<'a> {
    pub(crate) load: &'a Load,
    pub(crate) runs: Vec<&'a Run>,
}

impl LoadRuns<'_> {
    /// The mean of a figure over the repeats that have it.
    pub(crate) fn mean(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.runs.iter().filter_map(|run| figure(run)).collect();
        #[expect(clippy::cast_precision_loss, reason = "there are few repeats")]
        let count = values.len() as f64;
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
    }
}

/// The runs of each load, in the order of the loads' first runs.
pub(crate) fn by_load(runs: &[Run]) -> Vec<LoadRuns<'_>> {
    let mut loads: Vec<LoadRuns<'_>> = Vec::new();
    for run in runs {
        match loads.iter_mut().find(|known| *known.load == run.load) {
            Some(known) => known.runs.push(run),
            None => loads.push(LoadRuns { load: &run.load, runs: vec![run] }),
        }
    }
    loads
}

/// A run with the colour of its load.
pub(crate) fn coloured<'a>(loads: &'a [LoadRuns<'a>]) -> impl Iterator<Item = (Hue, &'a Run)> {
    let count = loads.len();
    loads
        .iter()
        .enumerate()
        .flat_map(move |(index, load)| load.runs.iter().map(move |run| (Hue::of(index, count), *run)))
}

/// What the colours of the loads mean.
pub(crate) fn keys(loads: &[LoadRuns<'_>]) -> Vec<Key> {
    let name = |load: &LoadRuns<'_>| match load.runs.len() {
        1 => units::load(load.load),
        repeats => format!("{}, {repeats} times", units::load(load.load)),
    };
    let key = |(index, load)| Key { name: name(load), hue: Hue::of(index, loads.len()) };
    loads.iter().enumerate().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn repeats_belong_to_their_load() {
        let measurement = sample::of(&[sample::closed(2), sample::closed(1)], 3);
        let loads = by_load(&measurement.runs);
        assert_eq!(loads.len(), 2);
        assert_eq!((loads[0].load, loads[0].runs.len()), (&sample::closed(2), 3));
        assert_eq!(loads[1].mean(|run| Some(run.repeat as f64)), Some(1.0));
        assert_eq!(loads[1].mean(|_| None), None);
        assert_eq!(keys(&loads)[0].name, "2 in flight, 3 times");
    }
}
