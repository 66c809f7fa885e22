//! An answer that is kept, and what keeping it takes.

use std::mem::size_of;
use std::sync::Arc;

use bytes::Bytes;
use model::Tensor;
use smallvec::SmallVec;

use super::key::{Key, spilled, tensor_bytes};

/// The outputs of a request, in the order it asked for.
pub(crate) type Tensors = SmallVec<[Tensor; 2]>;

/// An answer as it is kept.
pub(super) struct Answer {
    pub(super) outputs: Tensors,
    /// What it takes in the cache together with its key.
    pub(super) entry_bytes: u64,
}

impl Answer {
    /// `outputs` in memory of their own: those of a request are parts of what its batch gave.
    pub(super) fn copy_of(outputs: &Tensors, entry_bytes: u64) -> Answer {
        let copy = |tensor: &Tensor| Tensor { data: Bytes::copy_from_slice(&tensor.data), ..tensor.clone() };
        Answer { outputs: outputs.iter().map(copy).collect(), entry_bytes }
    }
}

/// What an entry takes in the tables of the cache: twice its place in them, since they grow by doubling, and what
/// the allocator adds to a key and to an answer.
const PLACE: usize = 2 * (size_of::<(Key, Arc<Answer>)>() + 32) + 2 * 32;

/// What the answer `outputs` to `key` would take, in bytes.
pub(super) fn kept_bytes(key: &Key, outputs: &Tensors) -> u64 {
    let tensors: usize = outputs.iter().map(tensor_bytes).sum();
    (PLACE + size_of::<Answer>() + spilled(outputs) + tensors + key.bytes()) as u64
}
