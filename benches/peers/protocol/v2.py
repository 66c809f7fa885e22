"""What each peer needs of the V2 protocol and of ONNX Runtime, so that peers differ in how they serve and in
nothing else."""

import os

import numpy as np
import onnxruntime

MODEL = "mlp"
VERSION = "1"
PATH = f"/v2/models/{MODEL}/infer"

PORT = int(os.environ.get("PEER_PORT", "8000"))
CORES = int(os.environ.get("PEER_CORES") or os.cpu_count())


def session():
    """A session with one thread: peers run one process for each core, and more threads than cores only take
    turns (ONNX Runtime, "Thread management")."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"])


def tensor(datatype, shape, data):
    """The tensor that an input of a request holds; ValueError when its parts do not fit."""
    if datatype != "FP32":
        raise ValueError(f"input 'input' is {datatype}, but {MODEL} expects FP32")
    return np.asarray(data, np.float32).reshape(shape)


def decode(request):
    """The tensor of a request that has been parsed from JSON."""
    (given,) = request["inputs"]
    if given["name"] != "input":
        raise ValueError(f"{MODEL} has no input {given['name']!r}")
    return tensor(given["datatype"], given["shape"], given["data"])


def encode(output, identifier=None):
    """The answer that holds `output`, ready to be written as JSON."""
    data = output.ravel().tolist()
    answer = {
        "model_name": MODEL,
        "model_version": VERSION,
        "outputs": [{"name": "output", "datatype": "FP32", "shape": list(output.shape), "data": data}],
    }
    return answer if identifier is None else {**answer, "id": identifier}


def run(model, batch):
    """Runs the rows of `batch` at once, and gives each tensor its own rows back."""
    if len(batch) == 1:
        return model.run(["output"], {"input": batch[0]})
    (output,) = model.run(["output"], {"input": np.concatenate(batch)})
    return np.split(output, np.cumsum([len(each) for each in batch[:-1]]))
