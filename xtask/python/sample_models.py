"""Writes the hand-made models of model_repository/: simple, simple_string and identity.

    python3 xtask/python/sample_models.py [--out model_repository]

A second run writes the same bytes. (`digits` has a training script of its own, beside it.)
"""

import argparse
from pathlib import Path

import repository
from onnx import TensorProto, helper
from repository import tensor

COUNT = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "model_repository")
    out = parser.parse_args().out
    simple(out / "simple")
    simple_string(out / "simple_string")
    identity(out / "identity")


def simple(directory):
    """OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1."""
    shape = ["batch", COUNT]
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    write(directory, nodes, ["INPUT0", "INPUT1"], ["OUTPUT0", "OUTPUT1"], "INT32", shape)


def simple_string(directory):
    """The same on decimal numbers that are written out as text."""
    nodes = [
        helper.make_node("Cast", ["INPUT0"], ["number0"], to=TensorProto.INT32),
        helper.make_node("Cast", ["INPUT1"], ["number1"], to=TensorProto.INT32),
        helper.make_node("Add", ["number0", "number1"], ["sum"]),
        helper.make_node("Sub", ["number0", "number1"], ["difference"]),
        helper.make_node("Cast", ["sum"], ["OUTPUT0"], to=TensorProto.STRING),
        helper.make_node("Cast", ["difference"], ["OUTPUT1"], to=TensorProto.STRING),
    ]
    write(directory, nodes, ["INPUT0", "INPUT1"], ["OUTPUT0", "OUTPUT1"], "STRING", ["batch", COUNT])


def identity(directory):
    """OUTPUT0 = INPUT0, of any length."""
    nodes = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    write(directory, nodes, ["INPUT0"], ["OUTPUT0"], "FLOAT", ["batch", "length"])


DATA_TYPES = {"INT32": "TYPE_INT32", "STRING": "TYPE_STRING", "FLOAT": "TYPE_FP32"}


def write(directory, nodes, inputs, outputs, datatype, shape):
    """Writes a model all of whose tensors have one type and shape, and takes 8 at a time."""
    made = repository.model(
        directory.name,
        nodes,
        [tensor(name, datatype, shape) for name in inputs],
        [tensor(name, datatype, shape) for name in outputs],
    )
    dims = [dim if isinstance(dim, int) else -1 for dim in shape[1:]]
    config = repository.config(
        directory.name,
        [(name, DATA_TYPES[datatype], dims) for name in inputs],
        [(name, DATA_TYPES[datatype], dims) for name in outputs],
        max_batch_size=8,
    )
    repository.write(directory, {1: made}, config)


if __name__ == "__main__":
    main()
