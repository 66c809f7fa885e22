//! Runs the samples of `model_warmup` on each instance of a version, before it takes requests.
//!
//! A sample runs as requests do: it is checked, put together, run and taken apart by the same code. But nothing is
//! queued, no turn is waited for, and nothing is counted or learned.

mod elements;
mod finite;

use std::path::Path;
use std::time::{Duration, Instant};

use model::{Dims, InferRequest, Parameters, Tensor};
use proto::ModelConfig;
use smallvec::SmallVec;
use tracing::debug;

use crate::backend::LoadError;
use crate::config::{self, REQUIRE_FINITE, Sample, SampleInput};
use crate::engine::Engine;
use crate::execution::{Executed, Work};
use crate::repository::{Step, panic_words};

/// What a version runs before it takes requests; nothing by default.
#[derive(Debug, Default)]
pub(crate) struct Warmup {
    samples: Vec<PreparedSample>,
    /// Whether an output that holds NaN or infinity is a failure.
    require_finite: bool,
}

/// A sample, and the inputs of each of its requests.
#[derive(Debug)]
struct PreparedSample {
    sample: Sample,
    inputs: SmallVec<[Tensor; 2]>,
}

impl Warmup {
    /// What `config` asks for, which has been completed from and checked against the graph, with its data: made, or
    /// read from the model's `directory`. The configuration is called `config_file`.
    ///
    /// # Errors
    /// When it contradicts itself or the model, or a file cannot be read or does not hold what it should.
    pub(crate) fn prepare(
        config: &ModelConfig,
        directory: &Path,
        config_file: &str,
    ) -> Result<Warmup, LoadError> {
        let plan = config::warmup(config)
            .map_err(|reason| LoadError::Config { file: config_file.to_owned(), reason })?;
        let batched = config.max_batch_size > 0;
        let prepare = |sample: Sample| {
            let tensor = |input: &SampleInput| {
                let data = elements::of(input, &sample, &config.name, directory)
                    .map_err(|reason| format!("inputs[{:?}].{reason}", input.name))?;
                let shape = if batched { input.dims.with_outer(1) } else { Dims::clone(&input.dims) };
                Ok(Tensor { name: input.name.as_str().into(), datatype: input.datatype, shape, data })
            };
            match sample.inputs.iter().map(tensor).collect() {
                Ok(inputs) => Ok(PreparedSample { sample, inputs }),
                Err(reason) => Err(failed(&sample, reason)),
            }
        };
        let samples = plan.samples.into_iter().map(prepare).collect::<Result<_, _>>()?;
        Ok(Warmup { samples, require_finite: plan.require_finite })
    }

    /// Runs each sample on each instance of `engine`, one after the other; how long that took, if there was anything
    /// to run. Every sample has been checked before the first one runs. `tell` is told after each run.
    ///
    /// # Errors
    /// When a sample does not fit the model, or its run fails or panics.
    pub(crate) fn run(&self, engine: &Engine, tell: &dyn Fn(Step)) -> Result<Option<Duration>, LoadError> {
        if self.samples.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let batches = self
            .samples
            .iter()
            .map(|prepared| prepared.works(engine).map_err(|reason| failed(&prepared.sample, reason)));
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        let runs = self.samples.iter().map(|prepared| u64::from(prepared.sample.count)).sum::<u64>();
        let total = runs * engine.workers.len() as u64;
        let mut done = 0;
        let mut ran = || {
            done += 1;
            tell(Step::WarmingUp { done, total });
        };
        for index in 0..engine.workers.len() {
            for (PreparedSample { sample, .. }, works) in self.samples.iter().zip(&batches) {
                self.run_sample(engine, index, sample, works, &mut ran)
                    .map_err(|reason| failed(sample, format!("{reason} (on instance {index})")))?;
            }
        }
        Ok(Some(started.elapsed()))
    }

    fn run_sample(
        &self,
        engine: &Engine,
        instance: usize,
        sample: &Sample,
        works: &[Work],
        ran: &mut dyn FnMut(),
    ) -> Result<(), String> {
        let started = Instant::now();
        let mut worker = engine.workers[instance].lock();
        for _ in 0..sample.count {
            let executed = worker
                .execute(engine, works)
                .map_err(|panic| format!("the run panicked: {}", panic_words(&*panic)))??;
            if self.require_finite {
                outputs_are_finite(engine, works, &executed)?;
            }
            ran();
        }
        debug!(
            model = %engine.name,
            version = %engine.version,
            sample = sample.name,
            instance,
            requests = sample.requests,
            runs = sample.count,
            took = ?started.elapsed(),
            "warmed up"
        );
        Ok(())
    }
}

impl PreparedSample {
    /// What an instance has to do for each of its requests.
    fn works(&self, engine: &Engine) -> Result<Vec<Work>, String> {
        let request = InferRequest {
            id: "".into(),
            model: engine.name.clone(),
            version: None,
            parameters: Parameters::default(),
            inputs: self.inputs.clone(),
            outputs: SmallVec::new(),
            deadline: None,
        };
        let checked = engine.check.fit(&request)?;
        let queued = Instant::now();
        let work = || Work {
            inputs: checked.inputs.clone(),
            outputs: checked.outputs.iter().map(|output| output.spec.index).collect(),
            rows: checked.rows,
            size: checked.size,
            queued,
        };
        Ok((0..self.sample.requests).map(|_| work()).collect())
    }
}

/// # Errors
/// The first value that is not finite, and where it is.
fn outputs_are_finite(engine: &Engine, works: &[Work], executed: &Executed) -> Result<(), String> {
    let signature = engine.model.signature();
    for (work, outputs) in works.iter().zip(&executed.outputs) {
        for (index, output) in work.outputs.iter().zip(outputs) {
            let tensor = &signature.outputs[*index];
            if let Some((position, value)) = finite::first_that_is_not(tensor.datatype, &output.data) {
                return Err(format!(
                    "output {:?} of shape {} holds {value} at element {position}, which \
                     parameters[\"{REQUIRE_FINITE}\"] refuses",
                    tensor.name, output.shape
                ));
            }
        }
    }
    Ok(())
}

fn failed(sample: &Sample, reason: String) -> LoadError {
    LoadError::Warmup { sample: sample.name.clone(), reason }
}
