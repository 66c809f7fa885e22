//! Cuts a graph down to some of its outputs, so that the others are not computed.
//!
//! ONNX Runtime executes every node of a graph, whichever outputs a run asks for, and keeps nodes that lead
//! to no output. So what is not wanted is taken out of the model before it is loaded. The file is protobuf
//! (`onnx.proto`); it is read as fields, and those that stay are copied as they are.

use std::collections::HashSet;

use prost::encoding::WireType;

use crate::fields::{fields, text, utf8};

/// Field numbers of `onnx.proto`.
mod field {
    pub(super) const MODEL_GRAPH: u32 = 7;
    pub(super) const GRAPH_NODE: u32 = 1;
    pub(super) const GRAPH_INITIALIZER: u32 = 5;
    pub(super) const GRAPH_INPUT: u32 = 11;
    pub(super) const GRAPH_OUTPUT: u32 = 12;
    pub(super) const NODE_INPUT: u32 = 1;
    pub(super) const NODE_OUTPUT: u32 = 2;
    pub(super) const NODE_ATTRIBUTE: u32 = 5;
    pub(super) const ATTRIBUTE_GRAPH: u32 = 6;
    pub(super) const ATTRIBUTE_GRAPHS: u32 = 11;
    pub(super) const TENSOR_NAME: u32 = 8;
    pub(super) const VALUE_NAME: u32 = 1;
}

/// Graphs inside the attributes of nodes (the branches of an If) nest no deeper than this.
const MAX_DEPTH: usize = 64;

/// `model` with the outputs in `keep` only, and only the nodes and weights that they need.
///
/// # Errors
/// When the bytes are not a model, or it has no such output.
pub(crate) fn prune(model: &[u8], keep: &[&str]) -> Result<Vec<u8>, String> {
    let mut pruned = Vec::with_capacity(model.len());
    let mut found = false;
    for field in fields(model) {
        let field = field?;
        if field.number == field::MODEL_GRAPH {
            found = true;
            let graph = prune_graph(field.payload, keep)?;
            put_message(&mut pruned, field::MODEL_GRAPH, &graph);
        } else {
            pruned.extend_from_slice(field.whole);
        }
    }
    if found { Ok(pruned) } else { Err("the file holds no graph".to_owned()) }
}

fn prune_graph(graph: &[u8], keep: &[&str]) -> Result<Vec<u8>, String> {
    let mut nodes = Vec::new();
    let mut outputs = HashSet::new();
    let mut inputs = HashSet::new();
    for field in fields(graph) {
        let field = field?;
        match field.number {
            field::GRAPH_NODE => nodes.push(Node::read(field.payload)?),
            field::GRAPH_OUTPUT => drop(outputs.insert(text(field.payload, field::VALUE_NAME)?)),
            field::GRAPH_INPUT => drop(inputs.insert(text(field.payload, field::VALUE_NAME)?)),
            _ => {}
        }
    }
    if let Some(missing) = keep.iter().find(|name| !outputs.contains(**name)) {
        return Err(format!("the graph has no output {missing:?}"));
    }
    let needed = needed(&nodes, keep);
    let mut pruned = Vec::with_capacity(graph.len());
    let mut nodes = nodes.into_iter();
    for field in fields(graph) {
        let field = field?;
        let stays = match field.number {
            field::GRAPH_NODE => nodes.next().is_some_and(|node| node.is_needed(&needed)),
            field::GRAPH_OUTPUT => keep.contains(&text(field.payload, field::VALUE_NAME)?),
            field::GRAPH_INITIALIZER => {
                // The default of an input makes the input optional, whoever needs it.
                let name = text(field.payload, field::TENSOR_NAME)?;
                needed.contains(name) || inputs.contains(name)
            }
            _ => true,
        };
        if stays {
            pruned.extend_from_slice(field.whole);
        }
    }
    Ok(pruned)
}

/// The names of all values that `keep` is computed from, itself included.
fn needed<'a>(nodes: &[Node<'a>], keep: &[&'a str]) -> HashSet<&'a str> {
    let mut needed: HashSet<&str> = keep.iter().copied().collect();
    // Nodes are sorted, so that one pass from the end finds everything; a file that is not takes more.
    loop {
        let before = needed.len();
        for node in nodes.iter().rev() {
            if node.is_needed(&needed) {
                needed.extend(&node.uses);
            }
        }
        if needed.len() == before {
            return needed;
        }
    }
}

/// What a node makes and what it uses, in the graphs of its attributes, too.
struct Node<'a> {
    makes: Vec<&'a str>,
    uses: Vec<&'a str>,
}

impl<'a> Node<'a> {
    fn read(node: &'a [u8]) -> Result<Node<'a>, String> {
        let mut read = Node { makes: Vec::new(), uses: Vec::new() };
        for field in fields(node) {
            let field = field?;
            match field.number {
                field::NODE_OUTPUT => read.makes.push(utf8(field.payload)?),
                field::NODE_INPUT => read.uses.push(utf8(field.payload)?),
                field::NODE_ATTRIBUTE => used_in_attribute(field.payload, &mut read.uses, 0)?,
                _ => {}
            }
        }
        Ok(read)
    }

    fn is_needed(&self, needed: &HashSet<&str>) -> bool {
        self.makes.iter().any(|name| needed.contains(name))
    }
}

/// Everything named in the graphs of an attribute: more than is used from outside, never less.
fn used_in_attribute<'a>(attribute: &'a [u8], uses: &mut Vec<&'a str>, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("graphs nest deeper than {MAX_DEPTH}"));
    }
    for graph in fields(attribute) {
        let graph = graph?;
        if !matches!(graph.number, field::ATTRIBUTE_GRAPH | field::ATTRIBUTE_GRAPHS) || !graph.is_message {
            continue;
        }
        for field in fields(graph.payload) {
            let field = field?;
            match field.number {
                field::GRAPH_OUTPUT => uses.push(text(field.payload, field::VALUE_NAME)?),
                field::GRAPH_NODE => {
                    for part in fields(field.payload) {
                        let part = part?;
                        match part.number {
                            field::NODE_INPUT => uses.push(utf8(part.payload)?),
                            field::NODE_ATTRIBUTE => used_in_attribute(part.payload, uses, depth + 1)?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn put_message(buffer: &mut Vec<u8>, number: u32, payload: &[u8]) {
    prost::encoding::encode_key(number, WireType::LengthDelimited, buffer);
    prost::encoding::encode_varint(payload.len() as u64, buffer);
    buffer.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[(u32, &[u8])]) -> Vec<u8> {
        let mut message = Vec::new();
        parts.iter().for_each(|(number, payload)| put_message(&mut message, *number, payload));
        message
    }

    fn node(inputs: &[&str], outputs: &[&str], attribute: Option<&[u8]>) -> Vec<u8> {
        let mut parts: Vec<(u32, &[u8])> = Vec::new();
        parts.extend(inputs.iter().map(|name| (field::NODE_INPUT, name.as_bytes())));
        parts.extend(outputs.iter().map(|name| (field::NODE_OUTPUT, name.as_bytes())));
        parts.extend(attribute.map(|attribute| (field::NODE_ATTRIBUTE, attribute)));
        message(&parts)
    }

    fn output(name: &str) -> Vec<u8> {
        message(&[(field::VALUE_NAME, name.as_bytes())])
    }

    /// x -> a -> cheap; x, w -> b -> dear; an If whose branch reads v makes `branch`.
    fn model() -> Vec<u8> {
        let inner = message(&[
            (field::GRAPH_NODE, &node(&["v"], &["inner"], None)),
            (field::GRAPH_OUTPUT, &output("inner")),
        ]);
        let attribute = message(&[(field::ATTRIBUTE_GRAPH, &inner)]);
        let graph = message(&[
            (field::GRAPH_NODE, &node(&["x"], &["a"], None)),
            (field::GRAPH_NODE, &node(&["a"], &["cheap"], None)),
            (field::GRAPH_NODE, &node(&["x", "w"], &["dear"], None)),
            (field::GRAPH_NODE, &node(&["x"], &["v"], None)),
            (field::GRAPH_NODE, &node(&["c"], &["branch"], Some(&attribute))),
            (field::GRAPH_INITIALIZER, &message(&[(field::TENSOR_NAME, b"w")])),
            (field::GRAPH_OUTPUT, &output("cheap")),
            (field::GRAPH_OUTPUT, &output("dear")),
            (field::GRAPH_OUTPUT, &output("branch")),
        ]);
        let mut model = message(&[(2, b"producer")]);
        put_message(&mut model, field::MODEL_GRAPH, &graph);
        model
    }

    /// What the graph of `model` makes, and its weights.
    fn left(model: &[u8]) -> (Vec<String>, Vec<String>) {
        let graph =
            fields(model).map(Result::unwrap).find(|field| field.number == field::MODEL_GRAPH).unwrap();
        let (mut makes, mut weights) = (Vec::new(), Vec::new());
        for field in fields(graph.payload).map(Result::unwrap) {
            match field.number {
                field::GRAPH_NODE => {
                    makes.extend(Node::read(field.payload).unwrap().makes.iter().map(ToString::to_string));
                }
                field::GRAPH_INITIALIZER => {
                    weights.push(text(field.payload, field::TENSOR_NAME).unwrap().to_owned())
                }
                _ => {}
            }
        }
        (makes, weights)
    }

    #[track_caller]
    fn check(keep: &[&str], makes: &[&str], weights: &[&str]) {
        let (left_makes, left_weights) = left(&prune(&model(), keep).unwrap());
        assert_eq!(
            (left_makes, left_weights),
            (
                makes.iter().map(ToString::to_string).collect(),
                weights.iter().map(ToString::to_string).collect()
            )
        );
    }

    #[test]
    fn only_what_leads_to_an_output_stays() {
        check(&["cheap"], &["a", "cheap"], &[]);
        check(&["dear"], &["dear"], &["w"]);
        check(&["branch"], &["v", "branch"], &[]);
        check(&["branch", "dear", "cheap"], &["a", "cheap", "dear", "v", "branch"], &["w"]);
    }

    #[test]
    fn outputs_that_are_not_there_and_files_that_are_no_model_are_refused() {
        assert_eq!(prune(&model(), &["other"]).unwrap_err(), r#"the graph has no output "other""#);
        assert_eq!(prune(b"garbage", &["y"]).unwrap_err(), "the file is not a valid ONNX model");
        assert_eq!(prune(&[], &["y"]).unwrap_err(), "the file holds no graph");
    }

    #[test]
    fn no_cut_of_a_model_makes_it_panic() {
        let model = model();
        for end in 0..model.len() {
            let _ = prune(&model[..end], &["cheap"]);
        }
    }
}
