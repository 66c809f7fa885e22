"""Questions as messages of gRPC."""

import grpc
import numpy as np
from public_clients import DATA_TYPES
from soak.over_http import NUMPY_TYPES, packed
from soak.question import Answer
from soak.refusals import Refusal
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor

# Channels to one address share a connection otherwise.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
TYPED = {"INT32": "int_contents", "INT64": "int64_contents", "FP32": "fp32_contents", "BYTES": "bytes_contents"}


def message(question, typed=False):
    """The request; its tensors as raw contents or as typed ones."""
    made = service_pb2.ModelInferRequest(
        model_name=question.model, model_version=question.version, id=question.id
    )
    for name, value in question.parameters.items():
        made.parameters[name].int64_param = value
    for name, array in question.inputs.items():
        datatype = DATA_TYPES[array.dtype]
        tensor = made.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if typed:
            getattr(tensor.contents, TYPED[datatype]).extend(array.ravel().tolist())
        else:
            made.raw_input_contents.append(packed(array))
    if question.named:
        for name in question.expected:
            output = made.outputs.add(name=name)
            if question.classes:
                output.parameters["classification"].int64_param = question.classes
    return made


def read(response):
    """What came."""
    outputs = {}
    for tensor, data in zip(response.outputs, response.raw_output_contents, strict=True):
        dtype = NUMPY_TYPES[tensor.datatype]
        values = deserialize_bytes_tensor(data) if dtype == object else np.frombuffer(data, dtype)
        outputs[tensor.name] = values.reshape(list(tensor.shape))
    return Answer(outputs, response.model_version, response.id)


def read_streamed(response):
    """What came in a stream, and the id of the request that it is for."""
    came = response.infer_response
    if response.error_message:
        return Refusal(None, response.error_message), came.id
    return read(came), came.id


def refusal(error):
    """What an exception of gRPC says."""
    return Refusal(error.code().name, error.details())


def channel(address):
    """A connection of its own, for asyncio."""
    return grpc.aio.insecure_channel(address, options=OWN_CONNECTION)
