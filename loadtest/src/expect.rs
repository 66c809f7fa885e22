//! The answer that a request should have, and whether one is it.

use volley_client::{InferResponse, Tensor, Value};

/// How far a float may be from the expected one: `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f64,
    pub(crate) relative: f64,
}

/// Outputs that an answer should have; others it may have, too.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) tolerance: Tolerance,
}

/// How an answer is wrong: in short, to be counted, and with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) kind: String,
    pub(crate) detail: String,
}

impl Expected {
    /// Whether `response` has the expected outputs.
    ///
    /// # Errors
    /// How it differs, at the first place.
    pub(crate) fn check(&self, response: &InferResponse) -> Result<(), Wrong> {
        self.outputs.iter().try_for_each(|expected| {
            let name = &expected.name;
            let got = response.outputs.iter().find(|output| output.name == *name);
            let got = got.ok_or_else(|| wrong(name, "is missing", String::new()))?;
            self.compare(expected, got)
        })
    }

    fn compare(&self, expected: &Tensor, got: &Tensor) -> Result<(), Wrong> {
        let name = &expected.name;
        if expected.datatype != got.datatype {
            let types = format!(": {} instead of {}", got.datatype, expected.datatype);
            return Err(wrong(name, "has another type", types));
        }
        if !same_shape(&expected.shape, &got.shape) {
            let shapes = format!(": {:?} instead of {:?}", got.shape, expected.shape);
            return Err(wrong(name, "has another shape", shapes));
        }
        let unreadable = |error| wrong(name, "cannot be read", format!(": {error}"));
        let pairs = expected.values().map_err(unreadable)?.zip(got.values().map_err(unreadable)?);
        for (index, (expected, got)) in pairs.enumerate() {
            if !self.tolerance.equal(expected, got) {
                let values = format!(": element {index} is {got} instead of {expected}");
                return Err(wrong(name, "has other values", values));
            }
        }
        Ok(())
    }
}

impl Tolerance {
    fn equal(self, expected: Value<'_>, got: Value<'_>) -> bool {
        let (expected, got) = match (expected, got) {
            (Value::Fp32(expected), Value::Fp32(got)) => (f64::from(expected), f64::from(got)),
            (Value::Fp64(expected), Value::Fp64(got)) => (expected, got),
            (expected, got) => return expected == got,
        };
        let near = (got - expected).abs() <= self.absolute + self.relative * expected.abs();
        near || got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan())
    }
}

/// Whether two shapes are the same but for dimensions of 1 in front, which a file of rows may lack.
fn same_shape(expected: &[i64], got: &[i64]) -> bool {
    let strip = |shape: &[i64]| -> Vec<i64> { shape.iter().copied().skip_while(|dim| *dim == 1).collect() };
    strip(expected) == strip(got)
}

fn wrong(output: &str, what: &str, values: String) -> Wrong {
    let place = format!("output {output:?} {what}");
    Wrong { kind: format!("wrong answer: {place}"), detail: format!("{place}{values}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: Tensor, got: Tensor) -> Result<(), String> {
        let tolerance = Tolerance { absolute: 0.01, relative: 0.1 };
        let response = InferResponse { outputs: vec![got], ..InferResponse::default() };
        Expected { outputs: vec![expected], tolerance }.check(&response).map_err(|wrong| wrong.detail)
    }

    fn floats(elements: &[f32]) -> Tensor {
        Tensor::from_slice("y", &[1, i64::try_from(elements.len()).unwrap()], elements).unwrap()
    }

    #[test]
    fn floats_may_differ_by_the_tolerance_and_no_more() {
        assert_eq!(check(floats(&[0.0, 100.0]), floats(&[0.009, 110.0])), Ok(()));
        assert_eq!(
            check(floats(&[0.0, 100.0]), floats(&[0.0, 110.1])).unwrap_err(),
            "output \"y\" has other values: element 1 is 110.1 instead of 100.0"
        );
        assert!(check(floats(&[0.0]), floats(&[0.011])).is_err());
        assert_eq!(check(floats(&[f32::NAN, f32::INFINITY]), floats(&[f32::NAN, f32::INFINITY])), Ok(()));
        assert!(check(floats(&[1.0]), floats(&[f32::NAN])).is_err());
        assert!(check(floats(&[f32::NAN]), floats(&[1.0])).is_err());
        assert!(check(floats(&[1.0]), floats(&[f32::INFINITY])).is_err());
    }

    #[test]
    fn whole_numbers_and_strings_must_be_the_same() {
        let ints = |elements: &[i64]| Tensor::from_slice("y", &[2], elements).unwrap();
        assert_eq!(check(ints(&[1, 2]), ints(&[1, 2])), Ok(()));
        assert!(check(ints(&[100, 2]), ints(&[101, 2])).is_err());
        let text = |text: &str| Tensor::from_strings("y", &[1], &[text]).unwrap();
        assert_eq!(check(text("a"), text("a")), Ok(()));
        assert!(check(text("a"), text("b")).unwrap_err().ends_with("element 0 is \"b\" instead of \"a\""));
    }

    #[test]
    fn another_type_shape_or_name_is_wrong() {
        let ints = Tensor::from_slice("y", &[1, 1], &[1_i32]).unwrap();
        assert!(check(floats(&[1.0]), ints).unwrap_err().contains("INT32 instead of FP32"));
        assert!(check(floats(&[1.0]), floats(&[1.0, 1.0])).unwrap_err().contains("[1, 2] instead of [1, 1]"));
        let row = Tensor::from_slice("y", &[2], &[1.0_f32, 1.0]).unwrap();
        assert_eq!(check(row, floats(&[1.0, 1.0])), Ok(()), "a row of a file lacks the batch dimension");
        let other = Tensor::from_slice("z", &[1, 1], &[1.0_f32]).unwrap();
        assert_eq!(check(floats(&[1.0]), other).unwrap_err(), "output \"y\" is missing");
    }
}
