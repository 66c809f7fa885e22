//! ONNX Runtime's run options: what lets another thread end a run.

use std::ptr::{self, NonNull};

use inference::backend::Terminate;
use ort::sys;

use crate::run::{Status, check};

/// The options of one instance's runs.
pub(crate) struct RunOptions {
    pointer: NonNull<sys::OrtRunOptions>,
}

// SAFETY: run options are memory that no thread owns.
unsafe impl Send for RunOptions {}
// SAFETY: shared, only the terminate flag is written; ONNX Runtime documents that it may be set while a run that
// uses the options is under way, which is what it is for.
unsafe impl Sync for RunOptions {}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: the pointer came from ONNX Runtime, which gave us its ownership, and is released once.
        unsafe { (ort::api().ReleaseRunOptions)(self.pointer.as_ptr()) }
    }
}

impl RunOptions {
    pub(crate) fn new() -> Result<RunOptions, Status> {
        let mut options = ptr::null_mut();
        // SAFETY: writes the address of options that belong to us.
        check(unsafe { (ort::api().CreateRunOptions)(&mut options) })?;
        let pointer = NonNull::new(options)
            .ok_or_else(|| Status::from("ONNX Runtime made no run options".to_owned()))?;
        Ok(RunOptions { pointer })
    }

    pub(crate) fn pointer(&self) -> *const sys::OrtRunOptions {
        self.pointer.as_ptr()
    }
}

impl Terminate for RunOptions {
    fn terminate(&self) {
        // SAFETY: the options are valid; see `Sync` above. A failure would leave the run going, which ends anyway.
        let _ = check(unsafe { (ort::api().RunOptionsSetTerminate)(self.pointer.as_ptr()) });
    }

    fn reset(&self) {
        // SAFETY: as above.
        let _ = check(unsafe { (ort::api().RunOptionsUnsetTerminate)(self.pointer.as_ptr()) });
    }
}
