//! How many elements a tensor has along each dimension.

use std::fmt;
use std::ops::{Deref, DerefMut};

use smallvec::SmallVec;

/// The dimensions of a tensor, outermost first. In a model's signature -1 means "any size".
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Dims(SmallVec<[i64; 6]>);

impl Dims {
    /// The dimensions in `dims`.
    pub fn new(dims: &[i64]) -> Dims {
        Dims(SmallVec::from_slice(dims))
    }

    /// Adds `dim` as the innermost dimension.
    pub fn push(&mut self, dim: i64) {
        self.0.push(dim);
    }

    /// These dimensions with `outer` in front.
    #[must_use]
    pub fn with_outer(&self, outer: i64) -> Dims {
        let mut dims = SmallVec::with_capacity(self.len() + 1);
        dims.push(outer);
        dims.extend_from_slice(&self.0);
        Dims(dims)
    }
}

impl Deref for Dims {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.0
    }
}

impl DerefMut for Dims {
    fn deref_mut(&mut self) -> &mut [i64] {
        &mut self.0
    }
}

impl FromIterator<i64> for Dims {
    fn from_iter<I: IntoIterator<Item = i64>>(dims: I) -> Dims {
        Dims(dims.into_iter().collect())
    }
}

impl From<Vec<i64>> for Dims {
    fn from(dims: Vec<i64>) -> Dims {
        Dims(SmallVec::from_vec(dims))
    }
}

/// Written as Triton writes shapes: `[1,64]`.
impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, dim) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Dimensions that no tensor can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidShape {
    /// A tensor that exists has a size along every dimension.
    #[error("dimension {dim} is negative")]
    Negative {
        /// The first negative dimension.
        dim: i64,
    },
    /// The product of the dimensions does not fit in 63 bits.
    #[error("it has more elements than a 64-bit size can count")]
    TooLarge,
}

/// The number of elements of a tensor of shape `dims`: 1 for a scalar, 0 when any dimension is 0.
///
/// # Errors
/// When a dimension is negative or the product overflows.
pub fn element_count(dims: &[i64]) -> Result<usize, InvalidShape> {
    if let Some(&dim) = dims.iter().find(|dim| **dim < 0) {
        return Err(InvalidShape::Negative { dim });
    }
    if dims.contains(&0) {
        return Ok(0);
    }
    let product = dims.iter().try_fold(1_i64, |product, &dim| product.checked_mul(dim));
    product.and_then(|count| usize::try_from(count).ok()).ok_or(InvalidShape::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_the_product_of_the_dimensions() {
        assert_eq!(element_count(&[]), Ok(1));
        assert_eq!(element_count(&[3, 224, 224]), Ok(150_528));
        assert_eq!(element_count(&[i64::MAX, 0]), Ok(0));
        assert_eq!(element_count(&[2, -1]), Err(InvalidShape::Negative { dim: -1 }));
        assert_eq!(element_count(&[i64::MAX, 2]), Err(InvalidShape::TooLarge));
        assert_eq!(element_count(&[1 << 32, 1 << 32]), Err(InvalidShape::TooLarge));
    }

    #[test]
    fn shapes_print_as_triton_prints_them() {
        assert_eq!(Dims::new(&[-1, 64]).to_string(), "[-1,64]");
        assert_eq!(Dims::default().to_string(), "[]");
        assert_eq!(Dims::new(&[2]).with_outer(8).to_string(), "[8,2]");
    }
}
