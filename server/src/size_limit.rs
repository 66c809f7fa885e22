//! How many bytes of a request are taken, whichever way it comes.

use model::InferError;

/// The most bytes of a request, as sent and decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimit {
    /// As many are taken.
    pub bytes: usize,
    option: Option<&'static str>,
}

impl SizeLimit {
    /// Of requests that carry no tensors: what they are parsed into is many times as large as they are.
    pub const CONTROL: SizeLimit = SizeLimit { bytes: 64 << 10, option: None };

    /// Of inferences, as `--http-max-input-size` says.
    pub const fn of_inference(bytes: usize) -> SizeLimit {
        SizeLimit { bytes, option: Some("--http-max-input-size") }
    }

    /// The error that `what` is beyond this.
    pub fn exceeded(self, what: impl Into<String>) -> InferError {
        let (what, limit) = (what.into(), self.bytes);
        match self.option {
            Some(option) => InferError::TooLarge { what, limit, option },
            None => InferError::invalid(format!(
                "{what} exceeds the {limit} bytes that a request without tensors may have"
            )),
        }
    }
}

/// Bytes that earn a slow client as much time again, so that one who sends byte after byte does not hold its
/// connection for ever.
pub const PROGRESS: usize = 64 << 10;
