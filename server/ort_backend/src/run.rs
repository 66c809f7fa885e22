//! One run of a session.
//!
//! Instances of a version run its one session at the same time. ONNX Runtime documents `Run` as safe to be
//! called concurrently on one session; `ort` takes `&mut self` because some execution providers break that
//! promise. The CPU provider, the only one here, keeps it: a run has its own execution frame, and what runs
//! share (the arena, the thread pool, the cached memory patterns) is locked inside ONNX Runtime. The
//! stress test in `tests/concurrent_runs.rs` checks answers under contention, and
//! `docs/decisions/0001-weights-once.md` has the measurements.

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use inference::backend::{ExecuteError, Execution, Instance, InstanceInput, InstanceOutput, Terminate};
use ort::AsPointer;
use ort::sys;
use smallvec::SmallVec;

use crate::run_options::RunOptions;
use crate::session::{Session, without_paths};
use crate::tensor::{Input, Value};

/// An error of ONNX Runtime, in its own words.
#[derive(Debug)]
pub(crate) struct Status(String);

impl From<String> for Status {
    fn from(message: String) -> Status {
        Status(message)
    }
}

impl From<Status> for ExecuteError {
    fn from(status: Status) -> ExecuteError {
        ExecuteError(without_paths(&status.0))
    }
}

impl From<Status> for String {
    fn from(status: Status) -> String {
        status.0
    }
}

/// Turns ONNX Runtime's status into a result and releases it.
pub(crate) fn check(status: sys::OrtStatusPtr) -> Result<(), Status> {
    if status.0.is_null() {
        return Ok(());
    }
    let api = ort::api();
    // SAFETY: a status that is not null is valid until it is released; its message is a C string inside it.
    let message = unsafe { CStr::from_ptr((api.GetErrorMessage)(status.0)) }.to_string_lossy().into_owned();
    // SAFETY: released once, and not used afterwards.
    unsafe { (api.ReleaseStatus)(status.0) };
    Err(Status(message))
}

/// One thread's way into the session that all instances share.
pub(crate) struct SessionInstance {
    session: Arc<Session>,
    options: Arc<RunOptions>,
}

impl SessionInstance {
    pub(crate) fn new(session: Arc<Session>) -> Result<SessionInstance, Status> {
        Ok(SessionInstance { session, options: Arc::new(RunOptions::new()?) })
    }
}

impl Instance for SessionInstance {
    fn execute(&mut self, inputs: &[InstanceInput], outputs: &[usize]) -> Result<Execution, ExecuteError> {
        let session = &*self.session.for_outputs(outputs);
        let mut input_names: SmallVec<[*const c_char; 4]> = SmallVec::new();
        let mut values: SmallVec<[Input; 4]> = SmallVec::new();
        for input in inputs {
            input_names.push(name(&session.input_names, input.index)?);
            values.push(Input::new(&input.tensor, &session.memory)?);
        }
        let output_names = outputs
            .iter()
            .map(|index| name(&session.output_names, *index))
            .collect::<Result<SmallVec<[_; 4]>, _>>()?;
        let inputs_ready = Instant::now();
        let made = run(session, &self.options, &input_names, &values, &output_names)?;
        let inferred = Instant::now();
        let outputs = outputs.iter().zip(made).map(|(index, value)| {
            let (shape, data) =
                value.into_output(session.signature.outputs[*index].datatype, &session.inner)?;
            Ok(InstanceOutput { shape, data })
        });
        let outputs = outputs.collect::<Result<_, Status>>()?;
        Ok(Execution { outputs, inputs_ready, inferred })
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        Some(Arc::clone(&self.options) as Arc<dyn Terminate>)
    }
}

fn name(names: &[CString], index: usize) -> Result<*const c_char, Status> {
    names
        .get(index)
        .map(|name| name.as_ptr())
        .ok_or_else(|| Status(format!("the model has no tensor {index}")))
}

/// Runs the session once; ONNX Runtime allocates the outputs, and gives none but these (it executes the
/// session's whole graph all the same: see `prune.rs`).
fn run(
    session: &Session,
    options: &RunOptions,
    input_names: &[*const c_char],
    inputs: &[Input],
    output_names: &[*const c_char],
) -> Result<SmallVec<[Value; 4]>, Status> {
    let inputs: SmallVec<[*const sys::OrtValue; 4]> = inputs.iter().map(Input::pointer).collect();
    let mut outputs: SmallVec<[*mut sys::OrtValue; 4]> =
        SmallVec::from_elem(ptr::null_mut(), output_names.len());
    // SAFETY: the session lives as long as `session.inner`, the options as long as `options`; names are C strings owned by `session`; the
    // inputs are valid values that `inputs`' owner holds until this returns; each slice is as long as said.
    // Concurrent calls on one session: see the module's first lines.
    let status = unsafe {
        (ort::api().Run)(
            session.inner.ptr().cast_mut(),
            options.pointer(),
            input_names.as_ptr(),
            inputs.as_ptr(),
            inputs.len(),
            output_names.as_ptr(),
            output_names.len(),
            outputs.as_mut_ptr(),
        )
    };
    let ran = check(status);
    // Taken over whether the run succeeded or not, so that none is leaked.
    let made: SmallVec<[_; 4]> = outputs.into_iter().map(Value::from_run).collect();
    ran?;
    made.into_iter().collect()
}
