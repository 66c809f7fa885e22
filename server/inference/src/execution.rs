//! One run of the model for one request or for many.

use std::time::Instant;

use model::DataType;
use smallvec::SmallVec;

use crate::backend::{Instance, InstanceOutput, Signature};
use crate::batch::{Gather, Inputs, scatter};
use crate::padding::Target;
use crate::ragged::Ragged;
use crate::request_check::RequestCheck;

/// The outputs of one request, in the order it asked for.
pub(crate) type Outputs = SmallVec<[InstanceOutput; 2]>;

/// Indexes of outputs in the signature.
pub(crate) type OutputIndexes = SmallVec<[usize; 4]>;

/// What an instance has to do for one request.
pub(crate) struct Work {
    /// Inputs in the shapes the graph wants; those that it takes flat still have the request's shape.
    pub(crate) inputs: Inputs,
    /// The outputs to compute.
    pub(crate) outputs: OutputIndexes,
    /// Items in the request's batch, at least 1.
    pub(crate) rows: u64,
    /// Elements of each item in the inputs whose shape is open; 1 where none is.
    pub(crate) size: u64,
    pub(crate) queued: Instant,
}

/// What came of a run, and when.
pub(crate) struct Executed {
    /// For each request, in their order.
    pub(crate) outputs: Vec<Outputs>,
    pub(crate) moments: Moments,
    /// Elements of the inputs that are padded, as they ran.
    pub(crate) padded_inputs: u64,
    /// Elements of padding among them.
    pub(crate) padding: u64,
}

/// Why a run gave nothing.
#[derive(Clone, Debug)]
pub(crate) enum Failed {
    /// In the backend's words.
    Said(String),
    /// The backend panicked.
    Panicked,
}

/// The moments of one run.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// An instance took the requests.
    pub taken: Instant,
    /// Their inputs were where the model wants them.
    pub inputs_ready: Instant,
    /// The model was done.
    pub inferred: Instant,
    /// The outputs of each request were ready.
    pub outputs_ready: Instant,
}

/// What is known of the model that runs.
pub(crate) struct Model<'a> {
    pub(crate) signature: &'a Signature,
    pub(crate) check: &'a RequestCheck,
    /// How requests of different shapes run together, when they may.
    pub(crate) ragged: Option<&'a Ragged>,
}

impl Model<'_> {
    /// Runs `works` together on `instance`.
    ///
    /// # Errors
    /// In the backend's words, or when what it gave is not what the configuration promises.
    pub(crate) fn run(
        &self,
        instance: &mut dyn Instance,
        gather: &mut Gather,
        works: &[Work],
    ) -> Result<Executed, String> {
        let taken = Instant::now();
        let asked = union(works);
        let target = self.check.padding().and_then(|padding| padding.target(inputs_of(works)));
        let padded = target.filter(|target| target.pads);
        let put_together = self.put_together(gather, works, padded)?;
        let inputs = put_together.as_ref().unwrap_or(&works[0].inputs);
        let (padded_inputs, padding) = self.padding(works, inputs);
        let executed = instance.execute(inputs, &asked);
        if let Some(inputs) = put_together {
            gather.reuse(inputs);
        }
        let execution = executed.map_err(|error| error.0)?;
        for (index, output) in asked.iter().zip(&execution.outputs) {
            if !self.ragged.is_some_and(|ragged| ragged.scatters(*index)) {
                self.check.output_fits(*index, output)?;
            }
            // Also where nothing was padded: what a wrong configuration takes for padding shows at once.
            target
                .map_or(Ok(()), |target| target.output_fits(*index, output))
                .map_err(|reason| format!("output '{}' {reason}", self.signature.outputs[*index].name))?;
        }
        let outputs = match works {
            [_] if self.ragged.is_none() && padded.is_none() => vec![execution.outputs],
            _ => self.take_apart(works, &asked, &execution.outputs, padded)?,
        };
        let moments = Moments {
            taken,
            inputs_ready: execution.inputs_ready,
            inferred: execution.inferred,
            outputs_ready: Instant::now(),
        };
        Ok(Executed { outputs, moments, padded_inputs, padding })
    }

    /// Elements of those of `inputs` that are padded, and how many of them are padding.
    fn padding(&self, works: &[Work], inputs: &Inputs) -> (u64, u64) {
        let Some(padding) = self.check.padding() else { return (0, 0) };
        let (all, own) =
            (padding.elements(inputs), inputs_of(works).map(|inputs| padding.elements(inputs)).sum());
        (all, all.saturating_sub(own))
    }

    /// The inputs of the run, when they are not those of the only one of `works`.
    fn put_together(
        &self,
        gather: &mut Gather,
        works: &[Work],
        padded: Option<Target<'_>>,
    ) -> Result<Option<Inputs>, String> {
        let requests = inputs_of(works);
        let mut inputs = match (works, padded, self.ragged) {
            ([_], None, None) => return Ok(None),
            ([work], None, Some(_)) => work.inputs.clone(),
            _ => gather.gather_padded(requests.clone(), padded)?,
        };
        if let Some(ragged) = self.ragged {
            ragged.complete(&mut inputs, requests)?;
        }
        Ok(Some(inputs))
    }

    /// Gives each of `works` its part of the outputs that it asked for.
    fn take_apart(
        &self,
        works: &[Work],
        asked: &[usize],
        outputs: &[InstanceOutput],
        padded: Option<Target<'_>>,
    ) -> Result<Vec<Outputs>, String> {
        let mut parts = Vec::with_capacity(outputs.len());
        for (index, output) in asked.iter().zip(outputs) {
            let tensor = &self.signature.outputs[*index];
            let requests = works.iter().map(|work| &work.inputs);
            let named = |reason| format!("output '{}' {reason}", tensor.name);
            let cut =
                self.ragged.and_then(|ragged| ragged.scatter(*index, output, tensor.datatype, requests));
            let part = match cut {
                Some(cut) => cut.map_err(named)?,
                None => rows_of(works, *index, output, tensor.datatype, padded).map_err(named)?,
            };
            parts.push((*index, part.into_iter()));
        }
        Ok(works
            .iter()
            .map(|work| {
                // Every part moves on by one for each request, whether it asked for it or not.
                let mut row: SmallVec<[_; 4]> =
                    parts.iter_mut().map(|(index, part)| (*index, part.next())).collect();
                let mut take = |wanted: &usize| {
                    row.iter_mut().find(|(index, _)| index == wanted).and_then(|(_, output)| output.take())
                };
                work.outputs.iter().filter_map(&mut take).collect()
            })
            .collect())
    }
}

/// Cuts `output` into the rows of each of `works`, and these back to the length that they were padded from.
fn rows_of(
    works: &[Work],
    index: usize,
    output: &InstanceOutput,
    datatype: DataType,
    padded: Option<Target<'_>>,
) -> Result<Vec<InstanceOutput>, String> {
    let parts = scatter(output, datatype, works.iter().map(|work| work.rows))?;
    let Some(target) = padded else { return Ok(parts) };
    let cut = |(part, work): (_, &Work)| target.cut(index, part, datatype, &work.inputs);
    Ok(parts.into_iter().zip(works).map(cut).collect())
}

fn inputs_of(works: &[Work]) -> impl Iterator<Item = &Inputs> + Clone {
    works.iter().map(|work| &work.inputs)
}

/// Every output that one of `works` asks for.
fn union(works: &[Work]) -> OutputIndexes {
    let mut all = works.first().map(|work| work.outputs.clone()).unwrap_or_default();
    for work in works.iter().skip(1).filter(|work| work.outputs != works[0].outputs) {
        for index in &work.outputs {
            if !all.contains(index) {
                all.push(*index);
            }
        }
    }
    all
}
