//! Small ONNX files, written field by field: the tests need no other tool to have the models they want.

const INT64: u64 = 7;
const FLOAT: u64 = 1;

/// A model that multiplies a square of ones by itself: `size` (INT64 `[2]`) is the square's, `total`
/// (FP32 `[1,1]`) the sum of the product.
pub(crate) fn work() -> Vec<u8> {
    let graph = [
        node("ConstantOfShape", &["size"], "zeros"),
        node("Cos", &["zeros"], "square"),
        node("MatMul", &["square", "square"], "product"),
        node("ReduceSum", &["product"], "total"),
        text(2, "work"),
        bytes(11, &tensor("size", INT64, &[2])),
        bytes(12, &tensor("total", FLOAT, &[1, 1])),
    ];
    let opset = number(2, 13);
    [number(1, 8), bytes(8, &opset), bytes(7, &graph.concat())].concat()
}

/// A model that takes long to load: ONNX Runtime computes what does not depend on its input when it opens it,
/// here the product of two squares of `size`. Then `y` (FP32 `[1,1]`) is `x` and a number.
pub(crate) fn slow_to_load(size: u64) -> Vec<u8> {
    let sizes = [number(1, 2), number(2, INT64), bytes(7, &varint(size).repeat(2)), text(8, "size")];
    let graph = [
        node("ConstantOfShape", &["size"], "zeros"),
        node("Cos", &["zeros"], "square"),
        node("MatMul", &["square", "square"], "product"),
        node("ReduceSum", &["product"], "total"),
        node("Add", &["x", "total"], "y"),
        text(2, "slow_to_load"),
        bytes(5, &sizes.concat()),
        bytes(11, &tensor("x", FLOAT, &[1, 1])),
        bytes(12, &tensor("y", FLOAT, &[1, 1])),
    ];
    let opset = number(2, 13);
    [number(1, 8), bytes(8, &opset), bytes(7, &graph.concat())].concat()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|input| text(1, input));
    bytes(1, &inputs.chain(text(2, output)).chain(text(4, operator)).collect::<Vec<_>>())
}

/// A `ValueInfoProto`.
fn tensor(name: &str, element: u64, dims: &[u64]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| bytes(1, &number(1, *dim))).collect();
    let tensor = [number(1, element), bytes(2, &dims)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

fn text(field: u64, text: &str) -> Vec<u8> {
    bytes(field, text.as_bytes())
}

fn bytes(field: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(u8::try_from(value & 0x7f).expect("7 bits") | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).expect("at most 7 bits are left"));
    bytes
}
