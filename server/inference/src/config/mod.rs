//! A model's configuration: read from `config.pbtxt`, completed from the graph, checked against it.
//!
//! In the order of a load: [`normalise`] before the graph is known, [`complete`] and [`check`]
//! with it, [`batching`] and the like when it is complete; [`unacted`] names what the configuration asks for and nothing here does yet.

mod batching;
mod check;
mod claims;
mod complete;
mod normalise;
mod padding;
mod ragged;
mod swap;
mod unacted;
mod warmup;

use model::DataType;
use proto::v2::DataType as ConfigDataType;

pub use batching::{Batching, batching};
pub use check::check;
pub(crate) use claims::{asks_for_a_limit, claims};
pub use complete::{Completion, complete};
pub use normalise::{Placement, normalise};
pub use padding::padding;
pub use swap::{SwapPolicy, swap_policy};
pub use unacted::unacted;
pub(crate) use warmup::{MOST_BYTES, MOST_CHARACTERS, REQUIRE_FINITE, Sample, SampleInput, Source, warmup};

/// Whether something here acts on the key `key` of `parameters`; the backend acts on others.
pub fn acts_on(key: &str) -> bool {
    batching::PARAMETERS.contains(&key) || key == swap::PARAMETER || key == REQUIRE_FINITE
}

/// The data type that `number` (of `inference.DataType`) stands for; `None` for `TYPE_INVALID` and numbers
/// that stand for none.
pub fn datatype(number: i32) -> Option<DataType> {
    let (_, datatype) = PAIRS.into_iter().find(|(config, _)| *config as i32 == number)?;
    Some(datatype)
}

/// The number (of `inference.DataType`) that stands for `datatype`.
pub fn datatype_number(datatype: DataType) -> i32 {
    PAIRS.into_iter().find(|(_, ours)| *ours == datatype).map_or(0, |(config, _)| config as i32)
}

/// The name that stands for `datatype` in a configuration, such as `TYPE_FP32`.
pub fn datatype_name(number: i32) -> &'static str {
    ConfigDataType::try_from(number).map_or("an unknown type", |datatype| datatype.as_str_name())
}

const PAIRS: [(ConfigDataType, DataType); 14] = [
    (ConfigDataType::TypeBool, DataType::Bool),
    (ConfigDataType::TypeUint8, DataType::Uint8),
    (ConfigDataType::TypeUint16, DataType::Uint16),
    (ConfigDataType::TypeUint32, DataType::Uint32),
    (ConfigDataType::TypeUint64, DataType::Uint64),
    (ConfigDataType::TypeInt8, DataType::Int8),
    (ConfigDataType::TypeInt16, DataType::Int16),
    (ConfigDataType::TypeInt32, DataType::Int32),
    (ConfigDataType::TypeInt64, DataType::Int64),
    (ConfigDataType::TypeFp16, DataType::Fp16),
    (ConfigDataType::TypeFp32, DataType::Fp32),
    (ConfigDataType::TypeFp64, DataType::Fp64),
    (ConfigDataType::TypeString, DataType::Bytes),
    (ConfigDataType::TypeBf16, DataType::Bf16),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_type_has_its_number() {
        for datatype_ in DataType::ALL {
            assert_eq!(datatype(datatype_number(datatype_)), Some(datatype_));
        }
        assert_eq!(datatype(0), None);
        assert_eq!(datatype(99), None);
        assert_eq!(datatype_name(11), "TYPE_FP32");
    }
}
