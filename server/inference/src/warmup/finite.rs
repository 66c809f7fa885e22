//! Looks for NaN and infinity among packed elements.

use half::{bf16, f16};
use model::DataType;

/// The first element of `data` that is neither, by its position and value; `None` also for types that know none.
pub(super) fn first_that_is_not(datatype: DataType, data: &[u8]) -> Option<(usize, f64)> {
    match datatype {
        DataType::Fp16 => first(data, |bytes| f16::from_le_bytes(bytes).into()),
        DataType::Bf16 => first(data, |bytes| bf16::from_le_bytes(bytes).into()),
        DataType::Fp32 => first(data, |bytes| f32::from_le_bytes(bytes).into()),
        DataType::Fp64 => first(data, f64::from_le_bytes),
        _ => None,
    }
}

fn first<const SIZE: usize>(data: &[u8], value: impl Fn([u8; SIZE]) -> f64) -> Option<(usize, f64)> {
    let (elements, _) = data.as_chunks::<SIZE>();
    elements.iter().map(|bytes| value(*bytes)).enumerate().find(|(_, value)| !value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_and_both_infinities_are_found_in_every_type_that_has_them() {
        for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let packed = |value: f32| {
                [
                    (DataType::Fp16, f16::from_f32(value).to_le_bytes().to_vec()),
                    (DataType::Bf16, bf16::from_f32(value).to_le_bytes().to_vec()),
                    (DataType::Fp32, value.to_le_bytes().to_vec()),
                    (DataType::Fp64, f64::from(value).to_le_bytes().to_vec()),
                ]
            };
            for ((datatype, finite), (_, special_bytes)) in packed(1.5).into_iter().zip(packed(special)) {
                let found =
                    first_that_is_not(datatype, &[&finite[..], &special_bytes, &special_bytes].concat());
                let (position, value) = found.unwrap();
                assert_eq!((position, value.to_string()), (1, special.to_string()), "{datatype}");
                assert_eq!(first_that_is_not(datatype, &[&finite[..], &finite].concat()), None);
            }
        }
        assert_eq!(first_that_is_not(DataType::Uint32, &f32::NAN.to_le_bytes()), None);
        assert_eq!(first_that_is_not(DataType::Fp16, &65504_f32.to_le_bytes()[..0]), None);
    }
}
