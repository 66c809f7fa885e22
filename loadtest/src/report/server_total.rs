//! What a server counted of all models of a run together.

use std::collections::BTreeMap;

use crate::measurement::{ModelSide, Run};

/// The sum over the models of a run; times are means over the requests of all of them, in microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServerTotal {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) inferences: u64,
    pub(crate) executions: u64,
    pub(crate) request_micros: f64,
    pub(crate) queue_micros: f64,
    pub(crate) compute_input_micros: f64,
    pub(crate) compute_infer_micros: f64,
    pub(crate) compute_output_micros: f64,
    pub(crate) batches: BTreeMap<u64, u64>,
}

impl ServerTotal {
    /// Of a run whose server counts; `None` when it does not, or answered nothing.
    pub(crate) fn of(run: &Run) -> Option<ServerTotal> {
        let models = &run.server.as_ref()?.models;
        let mut total = ServerTotal::default();
        for model in models.values() {
            total.add(model);
        }
        total.divide()
    }

    fn add(&mut self, model: &ModelSide) {
        let weight = precise(model.requests);
        self.requests += model.requests;
        self.failures += model.failures;
        self.inferences += model.inferences;
        self.executions += model.executions;
        self.request_micros += weight * model.request_micros;
        self.queue_micros += weight * model.queue_micros;
        self.compute_input_micros += weight * model.compute_input_micros;
        self.compute_infer_micros += weight * model.compute_infer_micros;
        self.compute_output_micros += weight * model.compute_output_micros;
        for (size, executions) in &model.batches {
            *self.batches.entry(*size).or_default() += executions;
        }
    }

    /// From sums of times to means.
    fn divide(mut self) -> Option<ServerTotal> {
        if self.requests == 0 {
            return None;
        }
        let requests = precise(self.requests);
        for sum in [
            &mut self.request_micros,
            &mut self.queue_micros,
            &mut self.compute_input_micros,
            &mut self.compute_infer_micros,
            &mut self.compute_output_micros,
        ] {
            *sum /= requests;
        }
        Some(self)
    }

    /// Inferences in an execution; `None` without executions.
    pub(crate) fn mean_batch(&self) -> Option<f64> {
        (self.executions > 0).then(|| precise(self.inferences) / precise(self.executions))
    }

    /// Input, infer and output together.
    pub(crate) fn compute_micros(&self) -> f64 {
        self.compute_input_micros + self.compute_infer_micros + self.compute_output_micros
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
fn precise(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::ServerSide;
    use crate::report::sample;

    #[test]
    fn times_are_weighted_by_requests() {
        let side = |requests, queue_micros| ModelSide {
            requests,
            queue_micros,
            inferences: requests,
            executions: 10,
            batches: BTreeMap::from([(2, 10)]),
            ..ModelSide::default()
        };
        let models = BTreeMap::from([("a".to_owned(), side(30, 100.0)), ("b".to_owned(), side(10, 500.0))]);
        let run = Run {
            server: Some(ServerSide { models, ..ServerSide::default() }),
            ..sample::run(&sample::closed(1), 1)
        };
        let total = ServerTotal::of(&run).unwrap();
        assert_eq!((total.requests, total.queue_micros), (40, 200.0));
        assert_eq!(total.mean_batch(), Some(2.0));
        assert_eq!(total.batches[&2], 20);
    }

    #[test]
    fn a_server_that_counted_nothing_has_no_total() {
        let models = BTreeMap::from([("a".to_owned(), ModelSide::default())]);
        let mut run = Run {
            server: Some(ServerSide { models, ..ServerSide::default() }),
            ..sample::run(&sample::closed(1), 1)
        };
        assert_eq!(ServerTotal::of(&run), None);
        run.server = None;
        assert_eq!(ServerTotal::of(&run), None);
    }
}
