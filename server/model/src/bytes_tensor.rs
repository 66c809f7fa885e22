//! The packing of BYTES tensors: each element is a 4-byte little-endian length, then its bytes.

/// Bytes of the length in front of each element.
pub const LENGTH_SIZE: usize = 4;

/// What is wrong with the packing of a BYTES tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPacking {
    /// Fewer than 4 bytes are left where a length should be.
    #[error("{left} bytes are left at offset {offset}, too few for the 4-byte length of an element")]
    NoLength {
        /// Where the length should start.
        offset: usize,
        /// Bytes left there.
        left: usize,
    },
    /// An element's length reaches past the end.
    #[error("the element at offset {offset} says it has {length} bytes, but {left} are left")]
    LengthPastEnd {
        /// Where the element starts.
        offset: usize,
        /// The length it claims.
        length: usize,
        /// Bytes left after the length.
        left: usize,
    },
}

/// Iterates over the elements packed in `data`; ends after the first error.
pub fn elements(data: &[u8]) -> impl Iterator<Item = Result<&[u8], InvalidPacking>> {
    Elements { data, offset: 0 }
}

/// Counts the elements packed in `data`.
///
/// # Errors
/// When a length is cut short or lies.
pub fn count(data: &[u8]) -> Result<usize, InvalidPacking> {
    elements(data).try_fold(0, |count, element| element.map(|_| count + 1))
}

/// Appends `element` to `packed`. Elements of 4 GiB and more do not exist on this wire.
pub fn push(packed: &mut Vec<u8>, element: &[u8]) {
    let length = u32::try_from(element.len()).expect("an element of a BYTES tensor is shorter than 4 GiB");
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(element);
}

struct Elements<'a> {
    data: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], InvalidPacking>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.data[self.offset..];
        if rest.is_empty() {
            return None;
        }
        let offset = self.offset;
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_SIZE>() else {
            self.offset = self.data.len();
            return Some(Err(InvalidPacking::NoLength { offset, left: rest.len() }));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(element) = rest.get(..length) else {
            self.offset = self.data.len();
            return Some(Err(InvalidPacking::LengthPastEnd { offset, length, left: rest.len() }));
        };
        self.offset += LENGTH_SIZE + length;
        Some(Ok(element))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(strings: Vec<Vec<u8>>) {
            let mut packed = Vec::new();
            for string in &strings {
                push(&mut packed, string);
            }
            let back: Vec<Vec<u8>> = elements(&packed).map(|element| element.unwrap().to_vec()).collect();
            prop_assert_eq!(back, strings);
        }

        #[test]
        fn no_bytes_make_it_panic_or_run_on(data: Vec<u8>) {
            prop_assert!(elements(&data).take(data.len() + 1).count() <= data.len());
        }
    }

    #[test]
    fn a_length_that_lies_is_told_with_both_values() {
        assert_eq!(count(&[9, 0, 0]), Err(InvalidPacking::NoLength { offset: 0, left: 3 }));
        let lie = [1, 0, 0, 0, b'x', 0xff, 0xff, 0xff, 0xff, b'y'];
        assert_eq!(
            count(&lie),
            Err(InvalidPacking::LengthPastEnd { offset: 5, length: 0xffff_ffff, left: 1 })
        );
    }
}
