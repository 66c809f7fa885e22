//! What an answer depends on, and when two requests ask the same.

use std::hash::{BuildHasher, Hash, Hasher};
use std::mem::size_of;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::RandomState;
use model::{Parameter, Parameters, Tensor};
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::backend::InstanceInput;
use crate::batch::Inputs;

/// An output that is asked for: its index in the signature, and how many classes of it.
pub(crate) type AskedOutput = (usize, Option<u32>);

/// Parameters that say how a request waits or how it is answered over the wire, and nothing of the answer.
const OF_NO_EFFECT: [&str; 3] = ["priority", "timeout", "triton_enable_empty_final_response"];

/// What a request asks, as far as the answer depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Checked, so that an index stands for a name.
    pub(crate) inputs: &'a Inputs,
    /// In the order they are to be returned.
    pub(crate) outputs: &'a [AskedOutput],
    pub(crate) parameters: &'a Parameters,
}

/// What was asked of a loaded version. Two are equal when they have the same inputs, in any order, of the same
/// types, shapes and bytes, the same outputs in the same order, and the same parameters.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    hash: u64,
    question: Arc<Question>,
}

#[derive(Debug)]
struct Question {
    version: u64,
    /// By index.
    inputs: Inputs,
    outputs: SmallVec<[AskedOutput; 4]>,
    /// By name.
    parameters: Vec<(SmolStr, Parameter)>,
}

impl Key {
    pub(super) fn new(version: u64, asked: Asked<'_>, hasher: &RandomState) -> Key {
        let mut inputs = asked.inputs.clone();
        inputs.sort_unstable_by_key(|input| input.index);
        let of_effect = asked.parameters.iter().filter(|(name, _)| !OF_NO_EFFECT.contains(name));
        let mut parameters: Vec<_> =
            of_effect.map(|(name, value)| (SmolStr::new(name), value.clone())).collect();
        parameters.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let question = Question { version, inputs, outputs: SmallVec::from_slice(asked.outputs), parameters };
        Key { hash: hasher.hash_one(&question), question: Arc::new(question) }
    }

    /// The loaded version that was asked.
    pub(super) fn version(&self) -> u64 {
        self.question.version
    }

    /// The same, in memory of its own.
    pub(super) fn copied(&self) -> Key {
        let Question { version, inputs, outputs, parameters } = &*self.question;
        let inputs = inputs.iter().map(|input| InstanceInput {
            index: input.index,
            tensor: Tensor { data: Bytes::copy_from_slice(&input.tensor.data), ..input.tensor.clone() },
        });
        let question = Question {
            version: *version,
            inputs: inputs.collect(),
            outputs: outputs.clone(),
            parameters: parameters.clone(),
        };
        Key { hash: self.hash, question: Arc::new(question) }
    }

    /// What it takes when it is [`Key::copied`], in bytes.
    pub(super) fn bytes(&self) -> usize {
        let Question { inputs, outputs, parameters, .. } = &*self.question;
        let parameter = |(name, value): &(SmolStr, Parameter)| {
            let text = if let Parameter::String(text) = value { text.len() } else { 0 };
            size_of::<(SmolStr, Parameter)>() + name.len() + text
        };
        size_of::<Question>()
            + spilled(inputs)
            + spilled(outputs)
            + inputs.iter().map(|input| tensor_bytes(&input.tensor)).sum::<usize>()
            + parameters.iter().map(parameter).sum::<usize>()
    }
}

/// What `items` take outside themselves, in bytes.
pub(super) fn spilled<A: smallvec::Array>(items: &SmallVec<A>) -> usize {
    if items.spilled() { items.capacity() * size_of::<A::Item>() } else { 0 }
}

/// What the allocator and a shared buffer of bytes add to the bytes.
const BUFFER: usize = 64;

/// What a tensor holds outside itself, in bytes.
pub(super) fn tensor_bytes(tensor: &Tensor) -> usize {
    tensor.data.len() + BUFFER + tensor.name.len() + size_of_val::<[i64]>(&tensor.shape)
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.hash == other.hash
            && (Arc::ptr_eq(&self.question, &other.question) || self.question.same(&other.question))
    }
}

impl Eq for Key {}

impl Question {
    fn same(&self, other: &Question) -> bool {
        let same_input = |(one, other): (&InstanceInput, &InstanceInput)| {
            one.index == other.index && one.tensor == other.tensor
        };
        let same_parameter =
            |((name, value), (other_name, other)): (&(SmolStr, Parameter), &(SmolStr, Parameter))| {
                name == other_name && same_value(value, other)
            };
        self.version == other.version
            && self.outputs == other.outputs
            && self.inputs.len() == other.inputs.len()
            && self.parameters.len() == other.parameters.len()
            && self.parameters.iter().zip(&other.parameters).all(same_parameter)
            && self.inputs.iter().zip(&other.inputs).all(same_input)
    }
}

/// As far as bits go: a number that is none is the same as itself.
fn same_value(one: &Parameter, other: &Parameter) -> bool {
    match (one, other) {
        (Parameter::Double(one), Parameter::Double(other)) => one.to_bits() == other.to_bits(),
        (one, other) => one == other,
    }
}

/// Agrees with [`Question::same`].
impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.version);
        self.outputs.as_slice().hash(state);
        state.write_usize(self.parameters.len());
        for (name, value) in &self.parameters {
            name.hash(state);
            hash_value(value, state);
        }
        for input in &self.inputs {
            state.write_usize(input.index);
            input.tensor.shape.hash(state);
            state.write_usize(input.tensor.data.len());
            state.write(&input.tensor.data);
        }
    }
}

fn hash_value<H: Hasher>(value: &Parameter, state: &mut H) {
    match value {
        Parameter::Bool(value) => value.hash(state),
        Parameter::Int(value) => value.hash(state),
        Parameter::Uint(value) => value.hash(state),
        Parameter::Double(value) => value.to_bits().hash(state),
        Parameter::String(value) => value.hash(state),
    }
}

#[cfg(test)]
mod tests {
    use model::{DataType, Dims};
    use proptest::prelude::*;

    use super::*;

    /// What a client may vary, so that properties can change one part at a time.
    #[derive(Clone, Debug, PartialEq)]
    struct Request {
        version: u64,
        inputs: Vec<(usize, DataType, Vec<i64>, Vec<u8>)>,
        outputs: Vec<AskedOutput>,
        parameters: Vec<(String, i64)>,
    }

    impl Request {
        fn key(&self, hasher: &RandomState) -> Key {
            let input =
                |(index, datatype, shape, data): &(usize, DataType, Vec<i64>, Vec<u8>)| InstanceInput {
                    index: *index,
                    tensor: Tensor {
                        name: format!("input{index}").into(),
                        datatype: *datatype,
                        shape: Dims::new(shape),
                        data: Bytes::copy_from_slice(data),
                    },
                };
            let inputs: Inputs = self.inputs.iter().map(input).collect();
            let mut parameters = Parameters::default();
            for (name, value) in &self.parameters {
                parameters.insert(name.as_str(), Parameter::Int(*value));
            }
            let asked = Asked { inputs: &inputs, outputs: &self.outputs, parameters: &parameters };
            Key::new(self.version, asked, hasher)
        }
    }

    fn requests() -> impl Strategy<Value = Request> {
        let datatype = prop::sample::select(vec![DataType::Uint8, DataType::Int8, DataType::Bool]);
        let input = (datatype, prop::collection::vec(1..4_i64, 0..3), prop::collection::vec(0..3_u8, 0..4));
        let inputs = prop::collection::vec(input, 1..4).prop_map(|inputs| {
            let numbered = inputs.into_iter().enumerate();
            numbered.map(|(index, (datatype, shape, data))| (index, datatype, shape, data)).collect()
        });
        let outputs = prop::collection::vec((0..3_usize, prop::option::of(1..3_u32)), 1..3);
        let parameters = prop::collection::btree_map("[a-b]", 0..2_i64, 0..2);
        (0..2_u64, inputs, outputs, parameters).prop_map(|(version, inputs, outputs, parameters)| Request {
            version,
            inputs,
            outputs,
            parameters: parameters.into_iter().collect(),
        })
    }

    proptest! {
        /// The domain is small, so that equal requests and requests that differ in one part do occur.
        #[test]
        fn keys_are_equal_exactly_when_requests_are(one in requests(), other in requests()) {
            let hasher = RandomState::default();
            let (key, other_key) = (one.key(&hasher), other.key(&hasher));
            prop_assert_eq!(key == other_key, one == other);
            prop_assert_eq!(&key, &one.key(&hasher));
            // Not only by their hashes.
            prop_assert_eq!(key.question.same(&other_key.question), one == other);
        }

        #[test]
        fn the_order_of_inputs_and_parameters_does_not_matter(request in requests()) {
            let hasher = RandomState::default();
            let mut turned = request.clone();
            turned.inputs.reverse();
            turned.parameters.reverse();
            prop_assert_eq!(request.key(&hasher), turned.key(&hasher));
        }

        #[test]
        fn a_copy_is_the_same_and_shares_no_byte(request in requests()) {
            let key = request.key(&RandomState::default());
            let copy = key.copied();
            prop_assert_eq!(&key, &copy);
            prop_assert!(key.question.same(&copy.question));
            for (input, copied) in key.question.inputs.iter().zip(&copy.question.inputs) {
                let (data, copied) = (&input.tensor.data, &copied.tensor.data);
                prop_assert!(data.is_empty() || data.as_ptr() != copied.as_ptr());
            }
        }
    }

    fn request() -> Request {
        Request {
            version: 0,
            inputs: vec![
                (0, DataType::Uint8, vec![2, 2], vec![1, 2, 3, 4]),
                (1, DataType::Int8, vec![1], vec![5]),
            ],
            outputs: vec![(0, None), (1, None)],
            parameters: vec![("a".into(), 1)],
        }
    }

    #[track_caller]
    fn check_differs(change: impl Fn(&mut Request)) {
        let hasher = RandomState::default();
        let mut changed = request();
        change(&mut changed);
        assert_ne!(request().key(&hasher), changed.key(&hasher));
        assert!(!request().key(&hasher).question.same(&changed.key(&hasher).question));
    }

    #[test]
    fn whatever_changes_the_answer_changes_the_key() {
        check_differs(|request| request.version = 1);
        check_differs(|request| request.inputs[0].1 = DataType::Int8);
        check_differs(|request| request.inputs[0].2 = vec![1, 4]);
        check_differs(|request| request.inputs[0].2 = vec![4]);
        check_differs(|request| request.inputs[1].3 = vec![6]);
        check_differs(|request| request.inputs.truncate(1));
        // The same bytes under each other's names.
        check_differs(|request| {
            request.inputs[0].0 = 1;
            request.inputs[1].0 = 0;
        });
        check_differs(|request| request.outputs.reverse());
        check_differs(|request| request.outputs.truncate(1));
        check_differs(|request| request.outputs[0].1 = Some(1));
        check_differs(|request| request.parameters[0].1 = 2);
        check_differs(|request| request.parameters.clear());
    }

    #[test]
    fn how_a_request_waits_changes_nothing() {
        let hasher = RandomState::default();
        let mut urgent = request();
        urgent.parameters.extend([("priority".to_owned(), 1), ("timeout".to_owned(), 1000)]);
        assert_eq!(request().key(&hasher), urgent.key(&hasher));
    }

    #[test]
    fn a_parameter_that_is_not_a_number_is_itself() {
        assert!(same_value(&Parameter::Double(f64::NAN), &Parameter::Double(f64::NAN)));
        assert!(!same_value(&Parameter::Double(0.0), &Parameter::Double(-0.0)));
        assert!(!same_value(&Parameter::Int(1), &Parameter::Uint(1)));
    }
}
