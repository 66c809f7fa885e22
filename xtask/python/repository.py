"""Writes ONNX models the way a model repository holds them; the same model gives the same bytes each time."""

import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, helper


def tensor(name, datatype, shape):
    """An input or output of a graph: `datatype` as in `TensorProto`; a dimension that is a name is open."""
    return helper.make_tensor_value_info(name, getattr(TensorProto, datatype), shape)


def model(name, nodes, inputs, outputs, initializers=()):
    """A checked model of one graph, in a format that servers of the last years can read."""
    graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
    made = helper.make_model(graph, producer_name="volley", ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(made, full_check=True)
    return made


def write(directory, versions, config=None, filename="model.onnx"):
    """Replaces the models of `directory` by `versions`, a dictionary from version number to model."""
    directory = Path(directory)
    for version, made in versions.items():
        place = directory / str(version)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        onnx.save(made, place / filename)
    if config is not None:
        (directory / "config.pbtxt").write_text(config)


def config(name, inputs, outputs, max_batch_size=0, more=""):
    """The text of a config.pbtxt; an input is (name, data type, dims), an output may name its labels too."""
    tensors = [block("input", *each) for each in inputs] + [block("output", *each) for each in outputs]
    head = f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {max_batch_size}\n'
    return head + "".join(tensors) + (f"{more.strip()}\n" if more else "")


def block(kind, name, data_type, dims, labels=None):
    listed = ", ".join(str(dim) for dim in dims)
    fields = [f'name: "{name}"', f"data_type: {data_type}", f"dims: [ {listed} ]"]
    if labels is not None:
        fields.append(f'label_filename: "{labels}"')
    return f"{kind} [\n  {{\n" + "".join(f"    {field}\n" for field in fields) + "  }\n]\n"
