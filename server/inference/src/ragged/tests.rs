//! What a model gets and what each request gets, held against the simplest words for it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::backend::TensorSignature;
use crate::batch::Gather;

/// The inputs of one request, `x` and then an input that is not ragged, filled with `first` and what follows it.
fn request(shape: &[i64], first: i64) -> Inputs {
    let rows = shape[0];
    let tensor = |name: &str, shape: &[i64]| {
        let values = first..first + shape.iter().product::<i64>();
        let data = values.flat_map(|value| u8::try_from(value % 251).unwrap().to_le_bytes()).collect();
        Tensor { name: name.into(), datatype: DataType::Uint8, shape: Dims::new(shape), data }
    };
    let inputs = [tensor("x", shape), tensor("even", &[rows, 1])];
    inputs.into_iter().enumerate().map(|(index, tensor)| InstanceInput { index, tensor }).collect()
}

/// A model of flat `x`, `even`, and a batch input `told` of `kind`; its output `y` is cut by `x`.
fn ragged(kind: Kind, data_type: &str) -> Ragged {
    let name = kind.as_str_name();
    let text = format!(
        r#"max_batch_size: 64 input {{ name: "x" data_type: TYPE_UINT8 dims: [ -1, -1 ] allow_ragged_batch: true }}
           input {{ name: "even" data_type: TYPE_UINT8 dims: 1 }}
           output {{ name: "y" data_type: TYPE_UINT8 dims: [ -1, -1, 2 ] }} output {{ name: "z" dims: 1 }}
           batch_input {{ kind: {name} target_name: [ "told", "again" ] data_type: {data_type} source_input: "x" }}
           batch_output {{ target_name: "y" source_input: "x" }}"#
    );
    let config = proto::config_text::parse(&text, "config.pbtxt").unwrap();
    let tensors = |names: &[&str]| {
        let one = |name: &&str| TensorSignature {
            name: (*name).into(),
            datatype: DataType::Uint8,
            dims: Dims::new(&[-1]),
        };
        names.iter().map(one).collect()
    };
    let signature =
        Signature { inputs: tensors(&["x", "even", "told", "again"]), outputs: tensors(&["z", "y"]) };
    Ragged::new(&config, &signature).unwrap()
}

/// What the model gets for `requests`.
fn completed(ragged: &Ragged, requests: &[Inputs]) -> Result<Inputs, String> {
    let mut inputs = Gather::default().gather(requests.iter()).unwrap();
    ragged.complete(&mut inputs, requests.iter()).map(|()| inputs)
}

fn integers(data: &[u8]) -> Vec<i64> {
    data.chunks(4).map(|bytes| i64::from(i32::from_le_bytes(bytes.try_into().unwrap()))).collect()
}

/// What `kind` tells of shapes of three dimensions, in the simplest words.
fn oracle(kind: Kind, shapes: &[[i64; 3]]) -> (Vec<i64>, Vec<i64>) {
    let mut counts = Vec::new();
    let mut sums = Vec::new();
    let mut items = Vec::new();
    for [rows, height, width] in shapes {
        counts.push(rows * height * width);
        sums.push(counts.iter().sum());
        for _ in 0..*rows {
            items.extend([*height, *width]);
        }
    }
    let requests = i64::try_from(shapes.len()).unwrap();
    let rows = shapes.iter().map(|shape| shape[0]).sum();
    match kind {
        Kind::BatchElementCount => (vec![requests], counts),
        Kind::BatchAccumulatedElementCount => (vec![requests], sums),
        Kind::BatchAccumulatedElementCountWithZero => {
            sums.insert(0, 0);
            (vec![requests + 1], sums)
        }
        Kind::BatchMaxElementCountAsShape => {
            let most = *counts.iter().max().unwrap();
            (vec![most], vec![0; usize::try_from(most).unwrap()])
        }
        Kind::BatchItemShape => (vec![rows, 2], items),
        Kind::BatchItemShapeFlatten => (vec![2 * rows], items),
    }
}

const KINDS: [Kind; 6] = [
    Kind::BatchElementCount,
    Kind::BatchAccumulatedElementCount,
    Kind::BatchAccumulatedElementCountWithZero,
    Kind::BatchMaxElementCountAsShape,
    Kind::BatchItemShape,
    Kind::BatchItemShapeFlatten,
];

proptest! {
    /// Any requests: the flat input is their elements one after the other, and each kind tells what the oracle does.
    #[test]
    fn what_a_model_gets(shapes in vec([1..4_i64, 0..4_i64, 0..5_i64], 1..6), kind in 0..KINDS.len()) {
        let kind = KINDS[kind];
        let requests: Vec<Inputs> = shapes.iter().zip(0..).map(|(shape, n)| request(shape, 50 * n)).collect();
        let inputs = completed(&ragged(kind, "TYPE_INT32"), &requests).unwrap();
        let flat: Vec<u8> = requests.iter().flat_map(|request| request[0].tensor.data.to_vec()).collect();
        prop_assert_eq!(&inputs[0].tensor.shape[..], &[i64::try_from(flat.len()).unwrap()][..]);
        prop_assert_eq!(&inputs[0].tensor.data[..], &flat[..]);
        let rows: i64 = shapes.iter().map(|shape| shape[0]).sum();
        prop_assert_eq!(&inputs[1].tensor.shape[..], &[rows, 1][..]);
        let (shape, values) = oracle(kind, &shapes);
        prop_assert_eq!(inputs.len(), 4);
        for (input, (index, name)) in inputs[2..].iter().zip([(2, "told"), (3, "again")]) {
            prop_assert_eq!((input.index, &input.tensor.name[..]), (index, name));
            prop_assert_eq!(input.tensor.datatype, DataType::Int32);
            prop_assert_eq!(&input.tensor.shape[..], &shape[..]);
            prop_assert_eq!(integers(&input.tensor.data), &values[..]);
        }
    }

    /// An output of two elements for each of the input's, numbers or strings, comes apart in the requests' shapes.
    #[test]
    fn what_each_request_gets(shapes in vec([1..4_i64, 0..4_i64, 0..5_i64], 1..6), strings: bool) {
        let requests: Vec<Inputs> = shapes.iter().map(|shape| request(shape, 0)).collect();
        let mut parts = Vec::new();
        for (number, shape) in (0_u8..).zip(&shapes) {
            let mut part = Vec::new();
            for element in 0..2 * shape.iter().product::<i64>() {
                let length = usize::try_from(element % 3).unwrap();
                if strings { model::bytes_tensor::push(&mut part, &vec![number; length]) } else { part.push(number) }
            }
            parts.push(part);
        }
        let total = 2 * shapes.iter().map(|shape| shape.iter().product::<i64>()).sum::<i64>();
        let datatype = if strings { DataType::Bytes } else { DataType::Uint8 };
        let whole = InstanceOutput { shape: Dims::new(&[total]), data: parts.concat().into() };
        let ragged = ragged(Kind::BatchElementCount, "TYPE_INT32");
        prop_assert!(ragged.scatters(1) && !ragged.scatters(0));
        prop_assert!(ragged.scatter(0, &whole, datatype, requests.iter()).is_none());
        let cut = ragged.scatter(1, &whole, datatype, requests.iter()).unwrap().unwrap();
        prop_assert_eq!(cut.len(), shapes.len());
        for ((cut, part), [rows, height, width]) in cut.iter().zip(&parts).zip(&shapes) {
            prop_assert_eq!(&cut.data[..], &part[..]);
            prop_assert_eq!(&cut.shape[..], &[*rows, *height, *width, 2][..]);
        }
        let short = InstanceOutput { shape: Dims::new(&[total + 1]), ..whole };
        let error = ragged.scatter(1, &short, datatype, requests.iter()).unwrap().unwrap_err();
        prop_assert!(error.contains(&format!("came in shape [{}], but", total + 1)), "{}", error);
    }
}

#[test]
fn each_data_type_has_its_own_bytes_and_its_own_bound() {
    assert_eq!(packed(&[1, 0x0102_0304], DataType::Int32).unwrap()[..], [1, 0, 0, 0, 4, 3, 2, 1]);
    assert_eq!(packed(&[3], DataType::Int64).unwrap()[..], 3_i64.to_le_bytes());
    assert_eq!(packed(&[3, 1 << 24], DataType::Fp32).unwrap()[4..], 16_777_216_f32.to_le_bytes());
    assert_eq!(packed(&[0, 1 << 31], DataType::Int32), Err(1 << 31));
    assert_eq!(packed(&[(1 << 24) + 1], DataType::Fp32), Err((1 << 24) + 1));
    assert!(packed(&[1 << 31], DataType::Int64).is_ok());
}

/// A shape without elements may name sizes that no count can hold.
#[test]
fn a_size_that_the_data_type_cannot_hold_is_told() {
    let requests = [request(&[1, 0, 1 << 40], 0)];
    let error = completed(&ragged(Kind::BatchItemShape, "TYPE_INT32"), &requests).unwrap_err();
    assert!(error.contains("batch_input 'told' would hold 1099511627776, which INT32 cannot"), "{error}");
    assert!(completed(&ragged(Kind::BatchItemShape, "TYPE_INT64"), &requests).is_ok());
}

#[test]
fn most_models_have_nothing_ragged() {
    let text = r#"max_batch_size: 8 input { name: "x" data_type: TYPE_UINT8 dims: -1 }"#;
    let config = proto::config_text::parse(text, "config.pbtxt").unwrap();
    assert!(Ragged::new(&config, &Signature::default()).is_none());
}
