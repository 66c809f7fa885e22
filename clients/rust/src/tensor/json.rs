//! JSON numbers and strings, in any nesting, straight into the bytes of a tensor.

use std::fmt;

use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::append_string;
use crate::{DataType, Element, Tensor, TensorError};

impl Tensor {
    /// A tensor from JSON, flat or nested as its shape: `[1,2,3,4]` and `[[1,2],[3,4]]` are the same.
    ///
    /// `null` and the strings `"NaN"`, `"Infinity"` and `"-Infinity"` are the floats that JSON cannot say.
    ///
    /// # Errors
    /// When the JSON holds anything else than elements of `datatype`, or not as many as `shape` says.
    pub fn from_json(
        name: impl Into<String>,
        datatype: DataType,
        shape: &[i64],
        json: &str,
    ) -> Result<Tensor, TensorError> {
        let name = name.into();
        let (mut data, mut count) = (Vec::new(), 0);
        let mut json = serde_json::Deserializer::from_str(json);
        let read = Elements { datatype, data: &mut data, count: &mut count }.deserialize(&mut json);
        read.and_then(|()| json.end()).map_err(|error| TensorError::InvalidJson {
            name: name.clone(),
            datatype,
            reason: error.to_string(),
        })?;
        Tensor::with_count(name, datatype, shape, count, data)
    }
}

/// Appends the elements of one JSON value, at any depth; serde_json bounds the depth.
struct Elements<'a> {
    datatype: DataType,
    data: &'a mut Vec<u8>,
    count: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an element of type {} or an array of such", self.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let Elements { datatype, data, count } = self;
        while array.next_element_seed(Elements { datatype, data: &mut *data, count: &mut *count })?.is_some()
        {
        }
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        if self.datatype != DataType::Bool {
            return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self));
        }
        self.append(value)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.integer(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.integer(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        if self.datatype.is_float() {
            return self.float(number);
        }
        Err(E::custom(format_args!("{number} is not of type {}", self.datatype)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let number = match text {
            _ if self.datatype == DataType::Bytes => {
                append_string(self.data, text.as_bytes());
                *self.count += 1;
                return Ok(());
            }
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return Err(E::invalid_type(serde::de::Unexpected::Str(text), &self)),
        };
        self.visit_f64(number)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_f64(f64::NAN)
    }
}

impl Elements<'_> {
    #[allow(clippy::unnecessary_wraps, reason = "every visit ends with it")]
    fn append<E>(&mut self, element: impl Element) -> Result<(), E> {
        element.append(self.data);
        *self.count += 1;
        Ok(())
    }

    #[allow(clippy::cast_precision_loss, reason = "a float holds the nearest number it has")]
    fn integer<E: Error>(mut self, number: i128) -> Result<(), E> {
        match self.datatype {
            DataType::Bool => self.fit(number, u8::try_from(number).ok().filter(|bit| *bit < 2)),
            DataType::Uint8 => self.fit(number, u8::try_from(number).ok()),
            DataType::Uint16 => self.fit(number, u16::try_from(number).ok()),
            DataType::Uint32 => self.fit(number, u32::try_from(number).ok()),
            DataType::Uint64 => self.fit(number, u64::try_from(number).ok()),
            DataType::Int8 => self.fit(number, i8::try_from(number).ok()),
            DataType::Int16 => self.fit(number, i16::try_from(number).ok()),
            DataType::Int32 => self.fit(number, i32::try_from(number).ok()),
            DataType::Int64 => self.fit(number, i64::try_from(number).ok()),
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => self.float(number as f64),
            DataType::Bytes => self.fit(number, None::<u8>),
        }
    }

    fn fit<E: Error>(&mut self, number: i128, element: Option<impl Element>) -> Result<(), E> {
        match element {
            Some(element) => self.append(element),
            None => Err(E::custom(format_args!("{number} is not of type {}", self.datatype))),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "a narrower float holds the nearest number it has")]
    fn float<E: Error>(mut self, number: f64) -> Result<(), E> {
        match self.datatype {
            DataType::Fp16 => self.append(f16::from_f64(number)),
            DataType::Bf16 => self.append(bf16::from_f64(number)),
            DataType::Fp32 => self.append(number as f32),
            _ => self.append(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn any_nesting_gives_the_same_tensor() {
        for json in ["[1,2,3,4]", "[[1,2],[3,4]]", "[[[1],[2]],[3,[4]]]"] {
            let tensor = Tensor::from_json("x", DataType::Int16, &[2, 2], json).unwrap();
            assert_eq!(tensor.to_vec::<i16>().unwrap(), [1, 2, 3, 4], "{json}");
        }
    }

    #[test]
    fn floats_beyond_json_have_words() {
        let json = r#"[null, "NaN", "Infinity", "-Infinity", 3, 0.1]"#;
        let tensor = Tensor::from_json("x", DataType::Fp32, &[6], json).unwrap();
        let back = tensor.as_f32().unwrap();
        assert!(back[0].is_nan() && back[1].is_nan());
        assert_eq!(back[2..], [f32::INFINITY, f32::NEG_INFINITY, 3.0, 0.1]);
    }

    #[track_caller]
    fn refused(datatype: DataType, json: &str, text: &str) {
        let error = Tensor::from_json("x", datatype, &[1], json).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn what_is_not_of_the_type_is_refused() {
        refused(DataType::Uint8, "[256]", "its JSON data is not UINT8: 256 is not of type UINT8");
        refused(DataType::Int32, "[1.5]", "1.5 is not of type INT32");
        refused(DataType::Bool, "[2]", "2 is not of type BOOL");
        refused(DataType::Fp32, "[true]", "expected an element of type FP32 or an array of such");
        refused(DataType::Fp32, r#"["one"]"#, r#"string "one""#);
        refused(DataType::Bytes, "[1]", "1 is not of type BYTES");
        refused(DataType::Int8, "[1,2]", "2 elements, but shape [1] has 1");
        refused(DataType::Int8, "[1] 2", "trailing");
        refused(DataType::Int8, r#"{"a":1}"#, "map");
        refused(DataType::Int8, &"[".repeat(100_000), "recursion limit");
    }

    proptest! {
        #[test]
        fn what_json_says_is_what_is_read(numbers: Vec<f32>) {
            prop_assume!(numbers.iter().all(|number| number.is_finite()));
            let shape = [i64::try_from(numbers.len()).unwrap()];
            let json = serde_json::to_string(&numbers).unwrap();
            let tensor = Tensor::from_json("x", DataType::Fp32, &shape, &json).unwrap();
            prop_assert_eq!(tensor.as_f32().unwrap(), numbers);
        }
    }
}
