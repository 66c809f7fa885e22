//! Which files beside an ONNX file hold weights of it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::fields::{Field, fields, text};

/// Field numbers of `onnx.proto`.
mod field {
    pub(super) const MODEL_GRAPH: u32 = 7;
    pub(super) const MODEL_FUNCTIONS: u32 = 25;
    pub(super) const FUNCTION_NODE: u32 = 7;
    pub(super) const GRAPH_NODE: u32 = 1;
    pub(super) const GRAPH_INITIALIZER: u32 = 5;
    pub(super) const GRAPH_SPARSE_INITIALIZER: u32 = 15;
    pub(super) const NODE_ATTRIBUTE: u32 = 5;
    pub(super) const ATTRIBUTE_TENSORS: [u32; 2] = [5, 10];
    pub(super) const ATTRIBUTE_GRAPHS: [u32; 2] = [6, 11];
    pub(super) const ATTRIBUTE_SPARSE_TENSORS: [u32; 2] = [22, 23];
    pub(super) const SPARSE_TENSORS: [u32; 2] = [1, 2];
    pub(super) const TENSOR_EXTERNAL_DATA: u32 = 13;
    pub(super) const ENTRY_KEY: u32 = 1;
    pub(super) const ENTRY_VALUE: u32 = 2;
}

/// Graphs inside the attributes of nodes nest no deeper than this.
const MAX_DEPTH: usize = 64;

/// The files that hold weights of the ONNX file at `path`, by their path relative to it, as the file has them; each
/// once. That it can be run is not looked at.
///
/// # Errors
/// When it cannot be read, or is no ONNX file.
pub fn external_data(path: &Path) -> Result<Vec<String>, String> {
    let model = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    locations(&model).map(|files| files.into_iter().collect())
}

fn locations(model: &[u8]) -> Result<BTreeSet<String>, String> {
    let (mut files, mut graphs) = (BTreeSet::new(), 0);
    for field in fields(model) {
        let field = field?;
        match field.number {
            field::MODEL_GRAPH if field.is_message => {
                graphs += 1;
                in_graph(field.payload, &mut files, 0)?;
            }
            field::MODEL_FUNCTIONS if field.is_message => {
                each(field.payload, field::FUNCTION_NODE, |node| in_node(node, &mut files, 0))?;
            }
            _ => {}
        }
    }
    if graphs == 0 { Err("it is no ONNX file: it holds no graph".to_owned()) } else { Ok(files) }
}

fn in_graph(graph: &[u8], files: &mut BTreeSet<String>, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("its graphs nest deeper than {MAX_DEPTH}"));
    }
    messages(graph, |field| match field.number {
        field::GRAPH_INITIALIZER => in_tensor(field.payload, files),
        field::GRAPH_SPARSE_INITIALIZER => in_sparse_tensor(field.payload, files),
        field::GRAPH_NODE => in_node(field.payload, files, depth),
        _ => Ok(()),
    })
}

fn in_node(node: &[u8], files: &mut BTreeSet<String>, depth: usize) -> Result<(), String> {
    each(node, field::NODE_ATTRIBUTE, |attribute| {
        messages(attribute, |field| match field.number {
            number if field::ATTRIBUTE_TENSORS.contains(&number) => in_tensor(field.payload, files),
            number if field::ATTRIBUTE_SPARSE_TENSORS.contains(&number) => {
                in_sparse_tensor(field.payload, files)
            }
            number if field::ATTRIBUTE_GRAPHS.contains(&number) => in_graph(field.payload, files, depth + 1),
            _ => Ok(()),
        })
    })
}

fn in_sparse_tensor(tensor: &[u8], files: &mut BTreeSet<String>) -> Result<(), String> {
    messages(tensor, |field| {
        if field::SPARSE_TENSORS.contains(&field.number) { in_tensor(field.payload, files) } else { Ok(()) }
    })
}

fn in_tensor(tensor: &[u8], files: &mut BTreeSet<String>) -> Result<(), String> {
    each(tensor, field::TENSOR_EXTERNAL_DATA, |entry| {
        if text(entry, field::ENTRY_KEY)? == "location" {
            files.insert(text(entry, field::ENTRY_VALUE)?.to_owned());
        }
        Ok(())
    })
}

/// Calls `visit` with each field of `message` that has a length.
fn messages(message: &[u8], mut visit: impl FnMut(Field<'_>) -> Result<(), String>) -> Result<(), String> {
    fields(message).try_for_each(|field| {
        let field = field?;
        if field.is_message { visit(field) } else { Ok(()) }
    })
}

/// Calls `visit` with each message that is field `number` of `message`.
fn each(
    message: &[u8],
    number: u32,
    mut visit: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    messages(message, |field| if field.number == number { visit(field.payload) } else { Ok(()) })
}

#[cfg(test)]
mod tests {
    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::*;

    fn message(parts: &[(u32, &[u8])]) -> Vec<u8> {
        let mut message = Vec::new();
        for (number, payload) in parts {
            encode_key(*number, WireType::LengthDelimited, &mut message);
            encode_varint(payload.len() as u64, &mut message);
            message.extend_from_slice(payload);
        }
        message
    }

    fn tensor(location: &str) -> Vec<u8> {
        let entry = |key: &str, value: &str| message(&[(1, key.as_bytes()), (2, value.as_bytes())]);
        message(&[(8, b"w"), (13, &entry("location", location)), (13, &entry("offset", "0"))])
    }

    fn model() -> Vec<u8> {
        let branch = message(&[(5, &tensor("branch.bin"))]);
        let node = message(&[
            (5, &message(&[(1, b"then_branch"), (6, &branch)])),
            (5, &message(&[(1, b"value"), (5, &tensor("constant.bin"))])),
            (5, &message(&[(1, b"sparse_value"), (22, &message(&[(1, &tensor("sparse.bin"))]))])),
        ]);
        let sparse = message(&[(1, &tensor("values.bin")), (2, &tensor("indices.bin"))]);
        let plain = message(&[(8, b"inside"), (9, &[0; 8])]);
        let graph = message(&[
            (1, &node),
            (5, &tensor("model.onnx.data")),
            (5, &plain),
            (5, &tensor("model.onnx.data")),
            (15, &sparse),
        ]);
        let function = message(&[(7, &message(&[(5, &message(&[(5, &tensor("function.bin"))]))]))]);
        message(&[(2, b"producer"), (7, &graph), (25, &function)])
    }

    #[test]
    fn every_tensor_that_is_elsewhere_is_found_once() {
        let found: Vec<_> = locations(&model()).unwrap().into_iter().collect();
        let expected = [
            "branch.bin",
            "constant.bin",
            "function.bin",
            "indices.bin",
            "model.onnx.data",
            "sparse.bin",
            "values.bin",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_onnx_file_is_refused() {
        assert_eq!(locations(b"garbage").unwrap_err(), "the file is not a valid ONNX model");
        assert_eq!(locations(b"").unwrap_err(), "it is no ONNX file: it holds no graph");
        let error = external_data(Path::new("no/such/file.onnx")).unwrap_err();
        assert!(error.starts_with("it cannot be read: "), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused() {
        let model = message(&[(7, &message(&[(5, &tensor("w"))]))]);
        for end in 0..model.len() {
            assert!(locations(&model[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn graphs_that_nest_without_end_are_refused() {
        let mut graph = Vec::new();
        for _ in 0..=MAX_DEPTH + 1 {
            graph = message(&[(1, &message(&[(5, &message(&[(6, &graph)]))]))]);
        }
        assert!(locations(&message(&[(7, &graph)])).unwrap_err().contains("nest deeper"));
    }
}
