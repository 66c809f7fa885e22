//! A tensor as it travels: its bytes are shared, never copied.

use bytes::Bytes;
use smol_str::SmolStr;

use crate::{DataType, Dims};

/// A named tensor. `data` holds the elements little-endian, packed, row-major; elements of
/// [`DataType::Bytes`] are each a 4-byte little-endian length and as many bytes.
///
/// Whoever builds one has checked that `data` holds what `shape` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The input's or output's name in the model.
    pub name: SmolStr,
    /// The type of each element.
    pub datatype: DataType,
    /// Every dimension, the batch dimension included; none is negative.
    pub shape: Dims,
    /// The elements.
    pub data: Bytes,
}
