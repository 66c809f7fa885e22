//! The difference of a server's V2 statistics.

use std::collections::BTreeMap;

use volley_client::{BatchStatistics, ModelStatistics, StatisticDuration};

use crate::measurement::ModelSide;

/// What was counted of all versions of `model` between two readings. `None` when a counter fell, which means
/// that it began anew: then nothing is known of what it had counted.
pub(super) fn since(before: &[ModelStatistics], after: &[ModelStatistics], model: &str) -> Option<ModelSide> {
    let mut sum = Sum::default();
    let mut versions = after.iter().filter(|statistics| statistics.name == model).peekable();
    versions.peek()?;
    for version in versions {
        let same = |earlier: &&ModelStatistics| earlier.name == model && earlier.version == version.version;
        // A version that was loaded in between counted from 0.
        let earlier = before.iter().find(same).cloned().unwrap_or_default();
        sum.add(&earlier, version)?;
    }
    Some(sum.side())
}

#[derive(Default)]
struct Sum {
    success: StatisticDuration,
    failures: u64,
    inferences: u64,
    executions: u64,
    queue: StatisticDuration,
    compute_input: StatisticDuration,
    compute_infer: StatisticDuration,
    compute_output: StatisticDuration,
    batches: BTreeMap<u64, u64>,
}

impl Sum {
    fn add(&mut self, before: &ModelStatistics, after: &ModelStatistics) -> Option<()> {
        let (a, b) = (&before.inference_stats, &after.inference_stats);
        add(&mut self.success, a.success, b.success)?;
        self.failures += b.fail.count.checked_sub(a.fail.count)?;
        self.inferences += after.inference_count.checked_sub(before.inference_count)?;
        self.executions += after.execution_count.checked_sub(before.execution_count)?;
        add(&mut self.queue, a.queue, b.queue)?;
        add(&mut self.compute_input, a.compute_input, b.compute_input)?;
        add(&mut self.compute_infer, a.compute_infer, b.compute_infer)?;
        add(&mut self.compute_output, a.compute_output, b.compute_output)?;
        for batch in &after.batch_stats {
            let executions = executions(Some(batch))
                .checked_sub(executions(find(&before.batch_stats, batch.batch_size)))?;
            if executions > 0 {
                *self.batches.entry(batch.batch_size).or_default() += executions;
            }
        }
        Some(())
    }

    fn side(self) -> ModelSide {
        ModelSide {
            requests: self.success.count,
            failures: self.failures,
            inferences: self.inferences,
            executions: self.executions,
            request_micros: mean_micros(self.success),
            queue_micros: mean_micros(self.queue),
            compute_input_micros: mean_micros(self.compute_input),
            compute_infer_micros: mean_micros(self.compute_infer),
            compute_output_micros: mean_micros(self.compute_output),
            batches: self.batches,
        }
    }
}

fn add(sum: &mut StatisticDuration, before: StatisticDuration, after: StatisticDuration) -> Option<()> {
    sum.count += after.count.checked_sub(before.count)?;
    sum.ns += after.ns.checked_sub(before.ns)?;
    Some(())
}

fn find(batches: &[BatchStatistics], size: u64) -> Option<&BatchStatistics> {
    batches.iter().find(|batch| batch.batch_size == size)
}

fn executions(batch: Option<&BatchStatistics>) -> u64 {
    batch.map_or(0, |batch| batch.compute_infer.count)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a hundred days are exact")]
fn mean_micros(sum: StatisticDuration) -> f64 {
    if sum.count == 0 { 0.0 } else { sum.ns as f64 / 1e3 / sum.count as f64 }
}

#[cfg(test)]
mod tests {
    use volley_client::InferStatistics;

    use super::*;

    fn counted(count: u64, ns: u64) -> StatisticDuration {
        StatisticDuration { count, ns }
    }

    fn statistics(version: &str, requests: u64) -> ModelStatistics {
        let batch = |batch_size, count| BatchStatistics {
            batch_size,
            compute_infer: counted(count, count * 70_000),
            ..BatchStatistics::default()
        };
        ModelStatistics {
            name: "m".to_owned(),
            version: version.to_owned(),
            inference_count: requests * 2,
            execution_count: requests / 2,
            inference_stats: InferStatistics {
                success: counted(requests, requests * 100_000),
                fail: counted(requests / 10, 0),
                queue: counted(requests, requests * 20_000),
                compute_infer: counted(requests, requests * 70_000),
                ..InferStatistics::default()
            },
            batch_stats: vec![batch(4, requests / 2), batch(8, 3)],
            ..ModelStatistics::default()
        }
    }

    #[test]
    fn the_difference_is_what_was_counted_in_between() {
        let found = since(&[statistics("1", 100)], &[statistics("1", 300)], "m").unwrap();
        let expected = ModelSide {
            requests: 200,
            failures: 20,
            inferences: 400,
            executions: 100,
            request_micros: 100.0,
            queue_micros: 20.0,
            compute_infer_micros: 70.0,
            batches: [(4, 100)].into(),
            ..ModelSide::default()
        };
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }

    #[test]
    fn versions_are_added_and_other_models_are_not() {
        let mut other = statistics("1", 5_000);
        other.name = "other".to_owned();
        let before = [statistics("1", 100), other.clone()];
        let after = [statistics("1", 110), statistics("2", 40), other];
        assert_eq!(since(&before, &after, "m").unwrap().requests, 50);
    }

    #[test]
    fn a_counter_that_fell_says_nothing() {
        assert!(since(&[statistics("1", 300)], &[statistics("1", 100)], "m").is_none());
        let mut batch_fell = statistics("1", 300);
        batch_fell.batch_stats[1].compute_infer.count = 1;
        assert!(since(&[statistics("1", 300)], &[batch_fell], "m").is_none());
        assert!(since(&[statistics("1", 300)], &[], "m").is_none(), "the model is gone");
    }
}
