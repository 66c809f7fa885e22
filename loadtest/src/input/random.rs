//! Random tensors of every type, the same for the same seed.

mod values;

use anyhow::{Context, bail, ensure};
use volley_client::input::Wanted;
use volley_client::{DataType, ModelMetadata, Tensor, TensorMetadata};

pub(crate) use self::values::{Range, StringLength};
use self::values::{append, drawn, fits, string};
use super::{Content, MAX_BYTES, Sources, shapes, too_many_bytes};
use crate::arrivals::{Stream, mixed};

/// Whole numbers, when nobody says which: every type holds them, and every vocabulary has so many words.
const WHOLE: (f64, f64) = (0.0, 100.0);
/// Floats, when nobody says which: pixels and probabilities lie there.
const FLOAT: (f64, f64) = (0.0, 1.0);
/// Characters of a string, when nobody says how many.
const STRING_LENGTH: usize = 16;

/// As many different contents as asked for.
pub(super) fn contents(
    model: &str,
    metadata: &ModelMetadata,
    sources: &Sources,
) -> anyhow::Result<Vec<Content>> {
    if metadata.inputs.is_empty() {
        bail!("the server says that model {model:?} has no inputs: give its requests with --input");
    }
    // Before anything is made: metadata may ask for more than there is memory.
    let sizes = metadata.inputs.iter().map(|input| size(model, input, sources));
    let size = sizes.sum::<anyhow::Result<u64>>()?.saturating_mul(sources.distinct as u64);
    ensure!(size <= MAX_BYTES as u64, "model {model:?}: {}", too_many_bytes());
    let content = |number: usize| {
        let mut random = fastrand::Rng::with_seed(mixed(Stream::Contents, sources.seed, number as u64));
        let tensor = |input| tensor(model, input, sources, &mut random);
        metadata.inputs.iter().map(tensor).collect::<anyhow::Result<_>>().map(Content::Tensors)
    };
    (0..sources.distinct).map(content).collect()
}

/// Bytes that a random tensor has on its way, or about as many as JSON.
fn size(model: &str, input: &TensorMetadata, sources: &Sources) -> anyhow::Result<u64> {
    let shape = shape(model, input, sources)?;
    let elements = shape.iter().product::<i64>().unsigned_abs();
    let datatype = Wanted { model, input }.datatype()?;
    let each = match datatype.element_size() {
        None => string_length(input, sources) + 4,
        Some(size) if !sources.as_text => size,
        Some(_) if !datatype.is_float() => 4,
        // As many digits as tell one number from the next.
        Some(size) => 2 + 5 * size / 2,
    };
    Ok(elements.saturating_mul(each as u64))
}

fn shape(model: &str, input: &TensorMetadata, sources: &Sources) -> anyhow::Result<Vec<i64>> {
    let given = sources.shapes.iter().find(|shape| shape.input == input.name);
    shapes::resolved(model, input, given.map(|shape| &shape.dims[..]), sources.batch)
}

fn string_length(input: &TensorMetadata, sources: &Sources) -> usize {
    let length = sources.string_lengths.iter().find(|length| length.input == input.name);
    length.map_or(STRING_LENGTH, |length| length.length)
}

/// Checks that every option is for an input of one of the models: a misspelt name would pass unnoticed.
///
/// # Errors
/// When one is not.
pub(crate) fn check_names(
    inputs: &[TensorMetadata],
    Sources { shapes, ranges, string_lengths, .. }: &Sources,
) -> anyhow::Result<()> {
    let shapes = shapes.iter().map(|shape| ("--shape", &shape.input));
    let ranges = ranges.iter().map(|range| ("--range", &range.input));
    let lengths = string_lengths.iter().map(|length| ("--string-length", &length.input));
    let text = |name: &String| {
        let named = inputs.iter().find(|input| input.name == *name);
        named.is_none_or(|input| input.datatype == DataType::Bytes.name())
    };
    if let Some(length) = string_lengths.iter().find(|length| !text(&length.input)) {
        bail!("--string-length: input {:?} holds no strings", length.input);
    }
    for (option, name) in shapes.chain(ranges).chain(lengths) {
        if !inputs.iter().any(|input| input.name == *name) {
            let names: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
            bail!("{option}: there is no input {name:?}, but {}", names.join(", "));
        }
    }
    Ok(())
}

/// The first input whose strings are random letters, when the requests to a model of `metadata` are random.
pub(crate) fn random_text(metadata: &ModelMetadata, sources: &Sources) -> Option<String> {
    let mut inputs = metadata.inputs.iter().filter(|_| sources.files.is_empty());
    let ranged = |name: &str| sources.ranges.iter().any(|range| range.input == name);
    let text = inputs.find(|input| input.datatype == DataType::Bytes.name() && !ranged(&input.name));
    text.map(|input| input.name.clone())
}

fn tensor(
    model: &str,
    input: &TensorMetadata,
    sources: &Sources,
    random: &mut fastrand::Rng,
) -> anyhow::Result<Tensor> {
    let shape = shape(model, input, sources)?;
    let datatype = Wanted { model, input }.datatype()?;
    let range = sources.ranges.iter().find(|range| range.input == input.name);
    let range = range.map(|range| (range.low, range.high));
    if let Some((low, high)) = range {
        fits(datatype, low, high).with_context(|| format!("--range {}={low}:{high}", input.name))?;
    }
    let count = usize::try_from(shape.iter().product::<i64>()).context("a dimension is negative")?;
    let mut data = Vec::with_capacity(count * datatype.element_size().unwrap_or(STRING_LENGTH));
    if datatype == DataType::Bytes {
        let length = string_length(input, sources);
        let strings: Vec<String> = (0..count).map(|_| string(range, length, random)).collect();
        return Ok(Tensor::from_strings(&input.name, &shape, &strings)?);
    }
    let (low, high) = range.unwrap_or(if datatype.is_float() { FLOAT } else { WHOLE });
    for _ in 0..count {
        append(datatype, drawn(datatype, low, high, random), &mut data);
    }
    Ok(Tensor::new(&input.name, datatype, &shape, data)?)
}

#[cfg(test)]
mod tests {
    use volley_client::Value;

    use super::*;

    fn sources() -> Sources {
        Sources {
            files: vec![],
            shapes: vec![],
            ranges: vec![],
            string_lengths: vec![],
            batch: None,
            distinct: 16,
            as_text: false,
            inputs: Vec::new(),
            scale: Default::default(),
            seed: 1,
        }
    }

    fn metadata(datatype: &str) -> ModelMetadata {
        let input = TensorMetadata { name: "x".into(), datatype: datatype.into(), shape: vec![-1, 200] };
        ModelMetadata { inputs: vec![input], ..ModelMetadata::default() }
    }

    fn tensors(datatype: &str, sources: &Sources) -> anyhow::Result<Vec<Tensor>> {
        let contents = contents("m", &metadata(datatype), sources)?;
        let tensors = contents.into_iter().map(|content| match content {
            Content::Tensors(mut tensors) => tensors.remove(0),
            Content::Body(_) => unreachable!("random contents are tensors"),
        });
        Ok(tensors.collect())
    }

    fn number(value: Value<'_>) -> f64 {
        match value {
            Value::Bool(bit) => f64::from(u8::from(bit)),
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            Value::Int(number) => number as f64,
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            Value::Uint(number) => number as f64,
            Value::Fp32(number) => number.into(),
            Value::Fp64(number) => number,
            Value::Bytes(text) => std::str::from_utf8(text).unwrap().parse().unwrap(),
        }
    }

    #[test]
    fn every_type_has_random_tensors_that_differ_and_come_again() {
        for datatype in DataType::ALL {
            let made = tensors(datatype.name(), &sources()).unwrap();
            assert_eq!(made.len(), 16);
            for tensor in &made {
                assert_eq!((tensor.datatype, &tensor.shape[..]), (datatype, &[1, 200][..]));
                assert_eq!(tensor.values().unwrap().count(), 200);
            }
            assert!((1..16).all(|at| made[at] != made[0]), "{datatype} repeats itself");
            assert_eq!(made, tensors(datatype.name(), &sources()).unwrap());
        }
    }

    #[test]
    fn a_range_is_kept_and_reached_by_every_type() {
        for datatype in DataType::ALL {
            let (low, high) = if datatype == DataType::Bool { (0.0, 1.0) } else { (3.0, 7.0) };
            let range = Range { input: "x".into(), low, high };
            let made = tensors(datatype.name(), &Sources { ranges: vec![range], ..sources() }).unwrap();
            let numbers: Vec<f64> =
                made.iter().flat_map(|tensor| tensor.values().unwrap()).map(number).collect();
            assert!(numbers.iter().all(|number| (low..=high).contains(number)), "{datatype}");
            let width = 0.1;
            assert!(numbers.iter().any(|number| *number < low + width), "{datatype} misses {low}");
            assert!(numbers.iter().any(|number| *number > high - width), "{datatype} misses {high}");
        }
    }

    #[test]
    fn strings_without_a_range_are_letters() {
        let range = Range { input: "x".into(), low: 0.0, high: 9.0 };
        let of = |datatype: &str, sources: &Sources| random_text(&metadata(datatype), sources);
        assert_eq!(of("BYTES", &sources()).as_deref(), Some("x"));
        assert_eq!(of("BYTES", &Sources { ranges: vec![range], ..sources() }), None);
        assert_eq!(of("BYTES", &Sources { files: vec!["x=a.npy".parse().unwrap()], ..sources() }), None);
        assert_eq!(of("FP32", &sources()), None);
    }

    #[test]
    fn strings_have_the_length_asked_for() {
        let length = StringLength { input: "x".into(), length: 5 };
        let made = tensors("BYTES", &Sources { string_lengths: vec![length], ..sources() }).unwrap();
        assert!(made[0].strings().unwrap().iter().all(|string| string.len() == 5));
    }

    #[test]
    fn what_the_model_cannot_take_is_refused() {
        let error =
            |datatype: &str, sources: &Sources| format!("{:#}", tensors(datatype, sources).unwrap_err());
        let range = |input: &str| Range { input: input.into(), low: 0.0, high: 300.0 };
        let with = |range| Sources { ranges: vec![range], ..sources() };
        assert!(error("UINT8", &with(range("x"))).contains("--range x=0:300: UINT8 takes 0 to 255"));
        let unknown = check_names(&metadata("UINT8").inputs, &with(range("y"))).unwrap_err().to_string();
        assert_eq!(unknown, "--range: there is no input \"y\", but x");
        assert!(check_names(&metadata("UINT8").inputs, &with(range("x"))).is_ok());
        let lengths = vec![StringLength { input: "x".into(), length: 5 }];
        let numbers =
            check_names(&metadata("FP32").inputs, &Sources { string_lengths: lengths, ..sources() });
        assert!(numbers.unwrap_err().to_string().contains("holds no strings"));
        assert!(error("FP8", &sources()).contains("a type that this client does not know"));
        let none = contents("m", &ModelMetadata::default(), &sources()).unwrap_err();
        assert!(none.to_string().contains("has no inputs"));
    }

    /// None of these may be made to find out that it is too large.
    #[test]
    fn more_than_can_be_held_is_refused_before_it_is_made() {
        let refused = |datatype: &str, shapes: &[&[i64]], sources: &Sources| {
            let input = |shape: &&[i64]| TensorMetadata {
                name: "x".into(),
                datatype: datatype.into(),
                shape: shape.to_vec(),
            };
            let metadata =
                ModelMetadata { inputs: shapes.iter().map(input).collect(), ..ModelMetadata::default() };
            let error = contents("m", &metadata, sources).unwrap_err().to_string();
            assert!(error.contains("--distinct") && error.contains("--shape"), "{error}");
        };
        refused("FP64", &[&[1 << 30]], &Sources { distinct: 1, ..sources() });
        refused("UINT8", &[&[1 << 20]], &Sources { distinct: 4_000_000_000, ..sources() });
        refused("UINT8", &[&[1 << 29], &[1 << 29], &[1]], &Sources { distinct: 1, ..sources() });
        refused("FP32", &[&[1 << 27]], &Sources { distinct: 1, as_text: true, ..sources() });
        let length = StringLength { input: "x".into(), length: 1 << 20 };
        refused("BYTES", &[&[1, 1000]], &Sources { string_lengths: vec![length], ..sources() });
    }
}
