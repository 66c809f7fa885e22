"""A network of two small layers, the model of the benches: so quick that the server is what is measured."""

import numpy as np
import repository
from onnx import helper, numpy_helper
from repository import tensor

FEATURES, HIDDEN, CLASSES = 64, 64, 10


def write(directory):
    """Writes the model with random weights, the same every time."""
    random = np.random.default_rng(0)
    initializers = [
        weight(random, "weight_0", FEATURES, HIDDEN),
        numpy_helper.from_array(np.zeros(HIDDEN, np.float32), "bias_0"),
        weight(random, "weight_1", HIDDEN, CLASSES),
        numpy_helper.from_array(np.zeros(CLASSES, np.float32), "bias_1"),
    ]
    nodes = [
        helper.make_node("Gemm", ["input", "weight_0", "bias_0"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["activations"]),
        helper.make_node("Gemm", ["activations", "weight_1", "bias_1"], ["output"]),
    ]
    made = repository.model(
        "mlp",
        nodes,
        [tensor("input", "FLOAT", ["batch", FEATURES])],
        [tensor("output", "FLOAT", ["batch", CLASSES])],
        initializers,
    )
    config = repository.config(
        "mlp",
        [("input", "TYPE_FP32", [FEATURES])],
        [("output", "TYPE_FP32", [CLASSES])],
        max_batch_size=128,
        more="dynamic_batching {}",
    )
    repository.write(directory, {1: made}, config)


def weight(random, name, rows, columns):
    return numpy_helper.from_array((random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32), name)
