"""Trains both versions of `digits` on the handwritten digits of the UCI repository.

The 1,797 images ship with scikit-learn. Beside the two ONNX models this writes the images that
neither version has seen, their labels, and a request that holds one of them. A second run writes
the same bytes. Needs numpy, onnx, onnxruntime and scikit-learn:

    python3 model_repository/digits/train.py
"""

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

HERE = Path(__file__).parent
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DARKEST = 16.0
HELD_OUT = 300


def main():
    digits = load_digits()
    images, labels = digits.images.astype(np.float32), digits.target.astype(np.int64)
    train_images, held_images, train_labels, held_labels = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=0
    )
    pixels = train_images.reshape(-1, 64) / DARKEST
    # One thread, since the order in which threads add up decides the last bits of a weight.
    with threadpool_limits(1):
        save(weak_layers(pixels, train_labels), HERE / "1" / "model.onnx")
        save(strong_layers(pixels, train_labels), HERE / "2" / "model.onnx")
    (HERE / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    np.save(HERE / "heldout_images.npy", held_images)
    np.save(HERE / "heldout_labels.npy", held_labels)
    write_request(held_images[held_labels == 7][0])
    for version in (1, 2):
        print(f"version {version}: {accuracy(version, held_images, held_labels):.1%} of {HELD_OUT} held-out images")


def weak_layers(pixels, labels):
    """Version 1: a linear model that has seen 60 images."""
    few, _, few_labels, _ = train_test_split(pixels, labels, train_size=60, stratify=labels, random_state=0)
    model = LogisticRegression(C=0.1).fit(few, few_labels)
    return [(model.coef_.T, model.intercept_)]


def strong_layers(pixels, labels):
    """Version 2: a hidden layer, trained on every image and on each shifted by a pixel."""
    shifted, repeated = shifts(pixels.reshape(-1, 8, 8)), np.tile(labels, 5)
    model = MLPClassifier((96,), alpha=1e-3, max_iter=60, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # It stops after 60 rounds on purpose.
        model.fit(shifted.reshape(-1, 64), repeated)
    return list(zip(model.coefs_, model.intercepts_, strict=True))


def shifts(images):
    """The images as they are, then moved up, down, left and right by one pixel."""
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    corners = [(1, 1), (2, 1), (0, 1), (1, 2), (1, 0)]
    return np.concatenate([framed[:, row : row + 8, column : column + 8] for row, column in corners])


def save(layers, path):
    """Writes dense layers as a graph from pixels to probabilities."""
    initializers = [numpy_helper.from_array(np.float32(DARKEST), "darkest")]
    nodes = [
        helper.make_node("Div", ["image", "darkest"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["activation_0"], axis=1),
    ]
    for index, (weight, bias) in enumerate(layers):
        last = index == len(layers) - 1
        initializers += [
            numpy_helper.from_array(np.ascontiguousarray(weight, np.float32), f"weight_{index}"),
            numpy_helper.from_array(np.asarray(bias, np.float32), f"bias_{index}"),
        ]
        sum_name = "scores" if last else f"sum_{index}"
        nodes.append(helper.make_node("Gemm", [f"activation_{index}", f"weight_{index}", f"bias_{index}"], [sum_name]))
        if not last:
            nodes.append(helper.make_node("Relu", [sum_name], [f"activation_{index + 1}"]))
    nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        initializers,
    )
    model = helper.make_model(graph, producer_name="volley", ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)


def write_request(image):
    """A V2 request for the likeliest digit of one image, a line for each row of pixels."""
    rows = ",\n      ".join(json.dumps([int(pixel) for pixel in row]) for row in image)
    (HERE / "request.json").write_text(
        f"""{{
  "inputs": [{{
    "name": "image", "datatype": "FP32", "shape": [1, 8, 8],
    "data": [[
      {rows}
    ]]
  }}],
  "outputs": [{{"name": "probabilities", "parameters": {{"classification": 1}}}}]
}}
"""
    )


def accuracy(version, images, labels):
    """The share of `images` that the saved model names right."""
    session = onnxruntime.InferenceSession(HERE / str(version) / "model.onnx", providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"image": images})
    return np.mean(probabilities.argmax(axis=1) == labels)


if __name__ == "__main__":
    main()
