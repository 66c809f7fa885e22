"""A model repository that changes while a server runs: each of its models answers X with X + K, so that an answer tells
which version gave it."""

import os
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The rows of the matrices that a slow model multiplies.
SIDE = 256
# The rows of the weights of a large model: twenty megabytes.
LARGE = 2240


def adder(k, *, name="adder"):
    """X + K, where X may be a batch."""
    return serialised(name, [helper.make_node("Add", ["X", "K"], ["Y"])], [constant("K", k)])


def slow_adder(k, *, name="adder"):
    """X + K, after as many multiplications of matrices as X says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("MatMul", ["before", "start"], ["after"]),
        ],
        "round",
        [info("round", "INT64", []), info("go_on", "BOOL", []), info("before", "FLOAT", [SIDE, SIDE])],
        [info("still", "BOOL", []), info("after", "FLOAT", [SIDE, SIDE])],
    )
    share = numpy_helper.from_array(np.array([1 / SIDE], np.float32))
    nodes = [
        helper.make_node("ReduceMax", ["X"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["rounds"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["square"], ["start"], value=share),
        helper.make_node("Loop", ["rounds", "", "start"], ["product"], body=body),
        helper.make_node("ReduceMean", ["product"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["K", "nothing"], ["sum"]),
        helper.make_node("Add", ["X", "sum"], ["Y"]),
    ]
    square = numpy_helper.from_array(np.array([SIDE, SIDE], np.int64), "square")
    return serialised(name, nodes, [constant("K", k), constant("zero", 0), square])


def late_adder(k, *, rounds=1500, name="adder"):
    """X + K, in a graph that takes long to load: what is constant in it is worked out then."""
    means = numpy_helper.from_array(np.full((SIDE, SIDE), 1 / SIDE, np.float32), "means_0")
    nodes = [
        helper.make_node("MatMul", [f"means_{each}", "means_0"], [f"means_{each + 1}"]) for each in range(rounds)
    ]
    nodes += [
        helper.make_node("ReduceMean", [f"means_{rounds}"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["K", "nothing"], ["sum"]),
        helper.make_node("Add", ["X", "sum"], ["Y"]),
    ]
    return serialised(name, nodes, [constant("K", k), constant("zero", 0), means])


def large_adder(k, *, name="adder"):
    """X + K, by way of twenty megabytes of weights."""
    weights = numpy_helper.from_array(np.eye(LARGE, dtype=np.float32), "weights")
    columns = numpy_helper.from_array(np.array([1, LARGE], np.int64), "columns")
    nodes = [
        helper.make_node("Expand", ["X", "columns"], ["wide"]),
        helper.make_node("MatMul", ["wide", "weights"], ["product"]),
        helper.make_node("ReduceMean", ["product"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Add", ["mean", "K"], ["Y"]),
    ]
    return serialised(name, nodes, [constant("K", k), weights, columns])


def info(name, datatype, shape):
    return helper.make_tensor_value_info(name, getattr(TensorProto, datatype), shape)


def constant(name, value):
    return numpy_helper.from_array(np.array(value, np.float32), name)


def serialised(name, nodes, initializers):
    x, y = (info(end, "FLOAT", ["batch", 1]) for end in "XY")
    graph = helper.make_graph(nodes, name, [x], [y], initializers)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


class Repository:
    """A model repository on disk. What is put into it is written elsewhere, and renamed."""

    def __init__(self, root):
        self.path, self._aside = root / "models", root / "aside"
        self.path.mkdir(parents=True)
        self._aside.mkdir()
        self._count = 0

    def aside(self):
        """A place beside the repository for what is not in it."""
        self._count += 1
        return self._aside / str(self._count)

    def put(self, model, version, content, config=None):
        """Puts a version there, in place of what has its number."""
        directory, written = self.path / model / str(version), self.aside()
        written.mkdir()
        (written / "model.onnx").write_bytes(content)
        directory.parent.mkdir(exist_ok=True)
        if config is not None:
            self.configure(model, config)
        if directory.exists():
            self.take(model, version)
        written.rename(directory)

    def configure(self, model, config):
        written = self.aside()
        written.write_text(config)
        written.rename(self.path / model / "config.pbtxt")

    def put_model(self, model, versions, config=None, files=()):
        """Puts a whole model there in one rename."""
        written = self.aside()
        for version, content in versions.items():
            (written / str(version)).mkdir(parents=True)
            (written / str(version) / "model.onnx").write_bytes(content)
        for path, content in dict(files).items():
            (written / path).parent.mkdir(exist_ok=True)
            (written / path).write_bytes(content)
        if config is not None:
            (written / "config.pbtxt").write_text(config)
        written.rename(self.path / model)

    def take(self, model, version=None):
        """Takes a model, or a version of it, out in one rename; returns where it is now."""
        directory, aside = self.path / model, self.aside()
        (directory if version is None else directory / str(version)).rename(aside)
        return aside

    def remove(self, model, version):
        """Removes a version as `rm -r` does: file by file."""
        shutil.rmtree(self.path / model / str(version))


def write_slowly(path, content, pieces, between):
    """Writes a file in pieces, each of which is on disk before `between` is called."""
    path.parent.mkdir(parents=True)
    size = -(-len(content) // pieces)
    with path.open("wb") as file:
        for start in range(0, len(content), size):
            file.write(content[start : start + size])
            file.flush()
            os.fsync(file.fileno())
            between()


def ask(server, model="adder", x=0.0, session=None, version=None):
    """The response to a request for X + K."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [x]}
    place = model if version is None else f"{model}/versions/{version}"
    if session is None:
        return server.infer(place, {"inputs": [tensor]})
    return session.post(server.url(f"/v2/models/{place}/infer"), json={"inputs": [tensor]}, timeout=60)


def answer(server, model="adder", x=0.0, version=None):
    """The K of the version that answers, and its number."""
    response = ask(server, model, x, version=version)
    assert response.status_code == 200, response.text
    body = response.json()
    (output,) = body["outputs"]
    return output["data"][0] - x, body["model_version"]


def k_of(server, model="adder"):
    """The K of the version that answers; nothing where none does."""
    response = ask(server, model)
    return response.json()["outputs"][0]["data"][0] if response.status_code == 200 else None


def index(server, model="adder"):
    """The state and the reason of each version in the index; a model without versions has one of the name ''."""
    entries = server.post("/v2/repository/index").json()
    return {
        entry.get("version", ""): (entry.get("state", ""), entry.get("reason", ""))
        for entry in entries
        if entry["name"] == model
    }


def control(server, model, verb, parameters=None):
    """POSTs `load`, `unload` or `rollback`."""
    body = {} if parameters is None else {"json": {"parameters": parameters}}
    return server.post(f"/v2/repository/models/{model}/{verb}", **body)


def load(server, model="adder"):
    response = control(server, model, "load")
    assert response.status_code == 200, response.text
