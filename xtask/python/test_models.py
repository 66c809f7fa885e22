"""Writes the models that only tests need, as two model repositories.

    python3 xtask/python/test_models.py --out DIRECTORY

`sound/` holds models that load, `broken/` models that must not. A second run writes the same bytes.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx
import repository
from onnx import TensorProto, helper, numpy_helper
from repository import tensor

# V2 data type, its name in ONNX graphs, its name in config.pbtxt.
DATA_TYPES = [
    ("BOOL", "BOOL", "TYPE_BOOL"),
    ("UINT8", "UINT8", "TYPE_UINT8"),
    ("UINT16", "UINT16", "TYPE_UINT16"),
    ("UINT32", "UINT32", "TYPE_UINT32"),
    ("UINT64", "UINT64", "TYPE_UINT64"),
    ("INT8", "INT8", "TYPE_INT8"),
    ("INT16", "INT16", "TYPE_INT16"),
    ("INT32", "INT32", "TYPE_INT32"),
    ("INT64", "INT64", "TYPE_INT64"),
    ("FP16", "FLOAT16", "TYPE_FP16"),
    ("FP32", "FLOAT", "TYPE_FP32"),
    ("FP64", "DOUBLE", "TYPE_FP64"),
    ("BYTES", "STRING", "TYPE_STRING"),
    ("BF16", "BFLOAT16", "TYPE_BF16"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    for name, models in [("sound", SOUND), ("broken", BROKEN)]:
        shutil.rmtree(out / name, ignore_errors=True)
        for write in models:
            write(out / name)


# Models that load.


def identities(out):
    """One model of each data type that answers what it is sent, a matrix of any size."""
    for v2, in_graph, in_config in DATA_TYPES:
        name = f"identity_{v2.lower()}"
        made = identity(name, in_graph, ["rows", "columns"])
        config = one_to_one(name, in_config, [-1, -1])
        repository.write(out / name, {1: made}, config)


def raw_bytes(out):
    """A model that can be sent one string as the whole body of a request."""
    config = one_to_one("raw_bytes", "TYPE_STRING", [1])
    repository.write(out / "raw_bytes", {1: identity("raw_bytes", "STRING", [1])}, config)


def no_config(out):
    """Takes batches and has no configuration: all of it is completed from the graph."""
    repository.write(out / "no_config", {1: identity("no_config", "FLOAT", ["batch", 3])})


def no_config_fixed(out):
    """Takes no batches and has no configuration."""
    repository.write(out / "no_config_fixed", {1: identity("no_config_fixed", "FLOAT", [2, 3])})


def reshape_scalar(out):
    """Its items have no dimension: completed to dims [1] with an empty reshape."""
    repository.write(out / "reshape_scalar", {1: identity("reshape_scalar", "FLOAT", ["batch"])})


def external_weights(out):
    """Weights in a file of their own: beside the graph, and in a directory that is called model.onnx."""
    weight = numpy_helper.from_array(np.arange(4096, dtype=np.float32), "weight")
    add = [helper.make_node("Add", ["INPUT0", "weight"], ["OUTPUT0"])]
    for name, place in [("external_weights", ""), ("external_weights_directory", "model.onnx")]:
        directory = out / name / "1" / place
        directory.mkdir(parents=True)
        made = repository.model(name, add, *ends("FLOAT", ["batch", 4096]), [weight])
        onnx.save(made, directory / "model.onnx", save_as_external_data=True, location="weights.bin")
        (out / name / "config.pbtxt").write_text(one_to_one(name, "TYPE_FP32", [4096], max_batch_size=4))


def two_versions_specific(out):
    """Versions 1 and 3 are served, 2 is not; each adds its number."""
    name = "two_versions_specific"
    config = one_to_one(name, "TYPE_FP32", [1], more="version_policy: { specific { versions: [ 1, 3 ] } }")
    repository.write(out / name, {version: adds(name, version) for version in (1, 2, 3)}, config)


def custom_filename(out):
    """Its file is not called model.onnx."""
    name = "custom_filename"
    config = one_to_one(name, "TYPE_FP32", [1], more='default_model_filename: "network.onnx"')
    repository.write(out / name, {1: adds(name, 1)}, config, filename="network.onnx")


def slow(out):
    """INPUT0 is how many matrices to multiply: a hundred take a few tenths of a second."""
    nodes = [
        helper.make_node("Squeeze", ["INPUT0"], ["rounds"]),
        helper.make_node("ConstantOfShape", ["square"], ["start"], value=constant(1 / SIDE)),
        *multiplications("rounds"),
        helper.make_node("ReduceSum", ["product"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "one"], ["OUTPUT0"]),
    ]
    initializers = [int64("square", [SIDE, SIDE]), int64("one", [1])]
    made = repository.model(
        "slow", nodes, [tensor("INPUT0", "INT64", [1])], [tensor("OUTPUT0", "FLOAT", [1])], initializers
    )
    config = repository.config(
        "slow", [("INPUT0", "TYPE_INT64", [1])], [("OUTPUT0", "TYPE_FP32", [1])], more=ONE_THREAD
    )
    repository.write(out / "slow", {1: made}, config)


def slow_rows(out):
    """Doubles each row; a run takes some milliseconds, however many rows it has."""
    nodes = [
        helper.make_node("ReduceMean", ["INPUT0"], ["mean_of_rows"], keepdims=0),
        helper.make_node("Expand", ["mean_of_rows", "square"], ["start"]),
        *multiplications("rounds"),
        helper.make_node("ReduceMean", ["product"], ["mean"], keepdims=0),
        # What the rows are doubled with takes all of the time.
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["INPUT0", "nothing"], ["row"]),
        helper.make_node("Add", ["row", "INPUT0"], ["OUTPUT0"]),
    ]
    initializers = [
        constant(0.0, "zero"),
        int64("square", [SIDE, SIDE]),
        numpy_helper.from_array(np.array(1, np.int64), "rounds"),
    ]
    made = repository.model("slow_rows", nodes, *ends("FLOAT", ["batch", 1]), initializers)
    config = one_to_one("slow_rows", "TYPE_FP32", [1], 8, ONE_THREAD)
    repository.write(out / "slow_rows", {1: made}, config)


def optional_outputs(out):
    """Three outputs: PLUS and TWICE take no time, EXPENSIVE some tenths of a second."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT0"], ["TWICE"]),
        helper.make_node("Add", ["INPUT0", "unit"], ["PLUS"]),
        helper.make_node("Expand", ["INPUT0", "square"], ["start"]),
        *multiplications("rounds"),
        helper.make_node("ReduceMean", ["product"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["EXPENSIVE"]),
    ]
    initializers = [
        constant(1.0, "unit"),
        int64("square", [SIDE, SIDE]),
        int64("one", [1]),
        numpy_helper.from_array(np.array(100, np.int64), "rounds"),
    ]
    names = ["PLUS", "TWICE", "EXPENSIVE"]
    outputs = [tensor(name, "FLOAT", [1]) for name in names]
    made = repository.model("optional_outputs", nodes, [tensor("INPUT0", "FLOAT", [1])], outputs, initializers)
    config = repository.config(
        "optional_outputs",
        [("INPUT0", "TYPE_FP32", [1])],
        [(name, "TYPE_FP32", [1]) for name in names],
        more=ONE_THREAD,
    )
    repository.write(out / "optional_outputs", {1: made}, config)


def classes(out):
    """Four numbers, and four strings, answered as they came; labels for three of them; no batches."""
    for name, in_graph, in_config in [("classes", "FLOAT", "TYPE_FP32"), ("string_labels", "STRING", "TYPE_STRING")]:
        config = repository.config(name, [("INPUT0", in_config, [4])], [("OUTPUT0", in_config, [4], "labels.txt")])
        repository.write(out / name, {1: identity(name, in_graph, [4])}, config)
        (out / name / "labels.txt").write_text("ash\nbirch\ncedar\n")


def fails_to_run(out):
    """Answers OUTPUT0 = row number INPUT0 of three, and fails when there is no such row."""
    name = "fails_to_run"
    rows = numpy_helper.from_array(np.array([10, 20, 30], np.float32), "rows")
    gather = [helper.make_node("Gather", ["rows", "INPUT0"], ["OUTPUT0"])]
    made = repository.model(name, gather, [tensor("INPUT0", "INT64", [1])], [tensor("OUTPUT0", "FLOAT", [1])], [rows])
    config = repository.config(name, [("INPUT0", "TYPE_INT64", [1])], [("OUTPUT0", "TYPE_FP32", [1])])
    repository.write(out / name, {1: made}, config)


def ragged_sums(out):
    """Sums the numbers of each request of a batch, whatever their counts, and doubles each number."""
    nodes = [
        helper.make_node("CumSum", ["VALUES", "axis"], ["sums"]),
        helper.make_node("Concat", ["nothing", "sums"], ["before"], axis=0),
        helper.make_node("Gather", ["before", "BOUNDS"], ["at"]),
        helper.make_node("Slice", ["at", "first", "end"], ["ends"]),
        helper.make_node("Slice", ["at", "zero", "last"], ["starts"]),
        helper.make_node("Sub", ["ends", "starts"], ["differences"]),
        helper.make_node("Unsqueeze", ["differences", "first"], ["SUM"]),
        helper.make_node("Add", ["VALUES", "VALUES"], ["TWICE"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array(0, np.int64), "axis"),
        constant(0.0, "nothing"),
        int64("zero", [0]),
        int64("first", [1]),
        int64("last", [-1]),
        int64("end", [2**31]),
    ]
    inputs = [tensor("VALUES", "FLOAT", ["elements"]), tensor("BOUNDS", "INT32", ["bounds"])]
    outputs = [tensor("SUM", "FLOAT", ["requests", 1]), tensor("TWICE", "FLOAT", ["elements"])]
    more = ragged_input("VALUES", "TYPE_FP32", [-1]) + batch_input(
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", "BOUNDS", "TYPE_INT32", "VALUES"
    )
    more += """batch_output [
  {
    kind: BATCH_SCATTER_WITH_INPUT_SHAPE
    target_name: "TWICE"
    source_input: "VALUES"
  }
]
"""
    config = repository.config(
        "ragged_sums", [], [("SUM", "TYPE_FP32", [1]), ("TWICE", "TYPE_FP32", [-1])], 8, more + ONE_BATCHER
    )
    made = repository.model("ragged_sums", nodes, inputs, outputs, initializers)
    repository.write(out / "ragged_sums", {1: made}, config)


def padded_sums(out):
    """Sums the numbers of each row that its mask keeps, and says at which length it ran."""
    nodes = [
        helper.make_node("Cast", ["NUMBERS"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "MASK"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "columns"], ["SUM"], keepdims=1),
        helper.make_node("Add", ["NUMBERS", "NUMBERS"], ["TWICE"]),
        helper.make_node("Unsqueeze", ["numbers", "columns"], ["across"]),
        helper.make_node("Unsqueeze", ["numbers", "last"], ["down"]),
        helper.make_node("Mul", ["down", "across"], ["PRODUCTS"]),
        helper.make_node("Shape", ["NUMBERS"], ["shape"]),
        helper.make_node("Gather", ["shape", "columns"], ["length"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Concat", ["rows", "columns"], ["column"], axis=0),
        helper.make_node("Expand", ["length", "column"], ["LENGTH"]),
    ]
    initializers = [int64("zero", [0]), int64("columns", [1]), int64("last", [2])]
    inputs = [tensor("NUMBERS", "INT64", ["rows", "length"]), tensor("MASK", "FLOAT", ["rows", "length"])]
    outputs = [
        tensor("SUM", "FLOAT", ["rows", 1]),
        tensor("TWICE", "INT64", ["rows", "length"]),
        tensor("PRODUCTS", "FLOAT", ["rows", "length", "length"]),
        tensor("LENGTH", "INT64", ["rows", 1]),
    ]
    more = """parameters [
  {
    key: "pad_batch"
    value { string_value: "NUMBERS=7, MASK=0, TWICE=cut, PRODUCTS=cut" }
  }
]
"""
    config = repository.config(
        "padded_sums",
        [("NUMBERS", "TYPE_INT64", [-1]), ("MASK", "TYPE_FP32", [-1])],
        [
            ("SUM", "TYPE_FP32", [1]),
            ("TWICE", "TYPE_INT64", [-1]),
            ("PRODUCTS", "TYPE_FP32", [-1, -1]),
            ("LENGTH", "TYPE_INT64", [1]),
        ],
        8,
        more + ONE_BATCHER,
    )
    made = repository.model("padded_sums", nodes, inputs, outputs, initializers)
    repository.write(out / "padded_sums", {1: made}, config)


def ragged_kinds(out):
    """Answers each request with what every kind of batch input tells of a ragged input of strings."""
    kinds = {
        "COUNT": ("BATCH_ELEMENT_COUNT", "FLOAT", "TYPE_FP32"),
        "SUM": ("BATCH_ACCUMULATED_ELEMENT_COUNT", "INT64", "TYPE_INT64"),
        "BOUNDS": ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", "INT32", "TYPE_INT32"),
        "MOST": ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", "FLOAT", "TYPE_FP32"),
        "ITEMS": ("BATCH_ITEM_SHAPE", "INT32", "TYPE_INT32"),
        "FLAT": ("BATCH_ITEM_SHAPE_FLATTEN", "FLOAT", "TYPE_FP32"),
    }
    nodes = [
        helper.make_node("Identity", ["TEXTS"], ["SAID"]),
        helper.make_node("Unsqueeze", ["COUNT", "one"], ["count"]),
        helper.make_node("Unsqueeze", ["SUM", "one"], ["sum"]),
        helper.make_node("Slice", ["BOUNDS", "zero", "last"], ["starts"]),
        helper.make_node("Unsqueeze", ["starts", "one"], ["start"]),
        helper.make_node("Shape", ["MOST"], ["most"]),
        helper.make_node("Shape", ["sum"], ["requests"]),
        helper.make_node("Expand", ["most", "requests"], ["most_of_each"]),
        helper.make_node("Reshape", ["FLAT", "pairs"], ["flat"]),
        *[
            helper.make_node("Cast", [name], [f"TOLD_{name.split('_')[0].upper()}"], to=TensorProto.INT64)
            for name in ("count", "sum", "start", "most_of_each", "ITEMS", "flat")
        ],
    ]
    inputs = [tensor("TEXTS", "STRING", ["elements"])]
    inputs += [
        tensor(name, in_graph, ["items", 2] if name == "ITEMS" else [f"length_of_{name}"])
        for name, (_, in_graph, _) in kinds.items()
    ]
    told = {"COUNT": 1, "SUM": 1, "START": 1, "MOST": 1, "ITEMS": 2, "FLAT": 2}
    outputs = [tensor("SAID", "STRING", ["elements"])]
    outputs += [tensor(f"TOLD_{name}", "INT64", ["rows", length]) for name, length in told.items()]
    initializers = [int64("zero", [0]), int64("one", [1]), int64("last", [-1]), int64("pairs", [-1, 2])]
    more = ragged_input("TEXTS", "TYPE_STRING", [-1, -1])
    more += "".join(batch_input(kind, name, in_config, "TEXTS") for name, (kind, _, in_config) in kinds.items())
    more += """batch_output [
  {
    target_name: "SAID"
    source_input: "TEXTS"
  }
]
"""
    outputs_in_config = [("SAID", "TYPE_STRING", [-1, -1])]
    outputs_in_config += [(f"TOLD_{name}", "TYPE_INT64", [length]) for name, length in told.items()]
    config = repository.config("ragged_kinds", [], outputs_in_config, 8, more + ONE_BATCHER)
    made = repository.model("ragged_kinds", nodes, inputs, outputs, initializers)
    repository.write(out / "ragged_kinds", {1: made}, config)


SOUND = [
    identities,
    raw_bytes,
    no_config,
    no_config_fixed,
    reshape_scalar,
    external_weights,
    two_versions_specific,
    custom_filename,
    slow,
    slow_rows,
    optional_outputs,
    classes,
    fails_to_run,
    ragged_sums,
    ragged_kinds,
    padded_sums,
]

# Models that must not load.


def corrupt(out):
    """The file is no graph."""
    repository.write(out / "corrupt", {1: adds("corrupt", 1)}, one_to_one("corrupt", "TYPE_FP32", [1]))
    (out / "corrupt" / "1" / "model.onnx").write_bytes(b"this is not a graph\n" * 50)


def truncated(out):
    """Half of the file is missing."""
    repository.write(out / "truncated", {1: adds("truncated", 1)}, one_to_one("truncated", "TYPE_FP32", [1]))
    file = out / "truncated" / "1" / "model.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def contradicts(out):
    """The configuration contradicts the graph: in a data type, in the dimensions, in a name."""
    made = adds("contradicts", 1)
    cases = {
        "contradicts_data_type": one_to_one("contradicts_data_type", "TYPE_INT32", [1]),
        "contradicts_dims": one_to_one("contradicts_dims", "TYPE_FP32", [2]),
        "contradicts_input": one_to_one("contradicts_input", "TYPE_FP32", [1]).replace("INPUT0", "INPUT9"),
        "contradicts_batching": one_to_one("contradicts_batching", "TYPE_FP32", [1], max_batch_size=8),
    }
    for name, config in cases.items():
        repository.write(out / name, {1: made}, config)


def bad_config(out):
    """A field that no configuration has, a near miss for one that every configuration may have."""
    config = one_to_one("bad_config", "TYPE_FP32", [1], more="max_batchsize: 8")
    repository.write(out / "bad_config", {1: adds("bad_config", 1)}, config)


def other_name(out):
    """The configuration names another model than the directory."""
    repository.write(out / "other_name", {1: adds("other_name", 1)}, one_to_one("another_name", "TYPE_FP32", [1]))


def no_versions(out):
    """There is a configuration and nothing to serve."""
    (out / "no_versions").mkdir(parents=True)
    (out / "no_versions" / "config.pbtxt").write_text(one_to_one("no_versions", "TYPE_FP32", [1]))


def missing_file(out):
    """The only version is an empty directory."""
    (out / "missing_file" / "1").mkdir(parents=True)
    (out / "missing_file" / "config.pbtxt").write_text(one_to_one("missing_file", "TYPE_FP32", [1]))


def missing_weights(out):
    """The graph's external weights are gone."""
    weight = numpy_helper.from_array(np.arange(4096, dtype=np.float32), "weight")
    add = [helper.make_node("Add", ["INPUT0", "weight"], ["OUTPUT0"])]
    directory = out / "missing_weights" / "1"
    directory.mkdir(parents=True)
    made = repository.model("missing_weights", add, *ends("FLOAT", [4096]), [weight])
    onnx.save(made, directory / "model.onnx", save_as_external_data=True, location="weights.bin")
    (directory / "weights.bin").unlink()


BROKEN = [
    corrupt,
    truncated,
    contradicts,
    bad_config,
    other_name,
    no_versions,
    missing_file,
    missing_weights,
]

# What they are made of.

SIDE = 512
# Time then depends on the machine's speed alone, not on the number of its cores.
ONE_THREAD = """
instance_group [
  {
    kind: KIND_CPU
    count: 1
  }
]
parameters: { key: "intra_op_thread_count" value: { string_value: "1" } }
"""


# Which requests run together is then known.
ONE_BATCHER = """
instance_group [
  {
    kind: KIND_CPU
    count: 1
  }
]
dynamic_batching { }
"""


def identity(name, datatype, shape):
    node = helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])
    return repository.model(name, [node], *ends(datatype, shape))


def adds(name, number):
    """OUTPUT0 = INPUT0 + `number`, one number each."""
    node = helper.make_node("Add", ["INPUT0", "number"], ["OUTPUT0"])
    return repository.model(name, [node], *ends("FLOAT", [1]), [constant(float(number), "number")])


def ends(datatype, shape):
    """The inputs and the outputs of a graph from INPUT0 to OUTPUT0."""
    return [tensor("INPUT0", datatype, shape)], [tensor("OUTPUT0", datatype, shape)]


def one_to_one(name, data_type, dims, max_batch_size=0, more=""):
    """The configuration of a model from INPUT0 to OUTPUT0."""
    return repository.config(name, [("INPUT0", data_type, dims)], [("OUTPUT0", data_type, dims)], max_batch_size, more)


def ragged_input(name, data_type, dims):
    """An input in whose shape the requests of a batch may differ."""
    return repository.block("input", name, data_type, dims).replace("dims:", "allow_ragged_batch: true\n    dims:")


def batch_input(kind, target, data_type, source):
    """An input that the server fills."""
    return f"""batch_input [
  {{
    kind: {kind}
    target_name: "{target}"
    data_type: {data_type}
    source_input: "{source}"
  }}
]
"""


def constant(value, name=""):
    return numpy_helper.from_array(np.array([value], np.float32), name)


def int64(name, values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def multiplications(rounds):
    """Nodes that multiply `start` by the matrix of means, `rounds` times, into `product`."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["still"]),
            helper.make_node("MatMul", ["state", "means"], ["next"]),
        ],
        "round",
        [tensor("round", "INT64", []), tensor("again", "BOOL", []), tensor("state", "FLOAT", [SIDE, SIDE])],
        [tensor("still", "BOOL", []), tensor("next", "FLOAT", [SIDE, SIDE])],
    )
    return [
        helper.make_node("Constant", [], ["side"], value=int64("", [SIDE, SIDE])),
        helper.make_node("ConstantOfShape", ["side"], ["means"], value=constant(1 / SIDE)),
        helper.make_node("Loop", [rounds, "", "start"], ["product"], body=body),
    ]


if __name__ == "__main__":
    main()
