"""The V2 protocol over gRPC: typed contents, streams, health, reflection and statuses."""

import asyncio
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_asyncio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc

SERVICE = "inference.GRPCInferenceService"
DEADLINE = 60


@pytest.fixture(scope="module")
def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(model, *inputs, **more):
    """A request without data; an input is (name, data type, shape)."""
    made = service_pb2.ModelInferRequest(model_name=model, **more)
    for name, datatype, shape in inputs:
        made.inputs.add(name=name, datatype=datatype, shape=shape)
    return made


def simple_request(**more):
    made = request("simple", ("INPUT0", "INT32", [1, 16]), ("INPUT1", "INT32", [1, 16]), **more)
    made.raw_input_contents.extend([np.arange(16, dtype=np.int32).tobytes()] * 2)
    return made


def refused(call, made, code, *words):
    with pytest.raises(grpc.RpcError) as caught:
        call(made, timeout=DEADLINE)
    assert caught.value.code() == code, caught.value.details()
    for word in words:
        assert word in caught.value.details()
    return caught.value.details()


# Contents.

TYPED = {
    "BOOL": ("bool_contents", [True, False], np.bool_),
    "UINT8": ("uint_contents", [0, 255], np.uint8),
    "UINT16": ("uint_contents", [0, 65535], np.uint16),
    "UINT32": ("uint_contents", [0, 4294967295], np.uint32),
    "UINT64": ("uint64_contents", [0, 18446744073709551615], np.uint64),
    "INT8": ("int_contents", [-128, 127], np.int8),
    "INT16": ("int_contents", [-32768, 32767], np.int16),
    "INT32": ("int_contents", [-2147483648, 2147483647], np.int32),
    "INT64": ("int64_contents", [-9223372036854775808, 9223372036854775807], np.int64),
    "FP32": ("fp32_contents", [0.1, -2.5], np.float32),
    "FP64": ("fp64_contents", [0.1, float("-inf")], np.float64),
}


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents(stub, datatype):
    field, values, dtype = TYPED[datatype]
    made = request(f"identity_{datatype.lower()}", ("INPUT0", datatype, [1, 2]))
    getattr(made.inputs[0].contents, field).extend(values)
    answer = stub.ModelInfer(made, timeout=DEADLINE)
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [1, 2])
    assert list(answer.raw_output_contents) == [np.array(values, dtype).tobytes()]


def test_typed_strings(stub):
    made = request("identity_bytes", ("INPUT0", "BYTES", [1, 2]))
    made.inputs[0].contents.bytes_contents.extend([b"", b"\x00\xff"])
    answer = stub.ModelInfer(made, timeout=DEADLINE)
    assert list(answer.raw_output_contents) == [b"\x00\x00\x00\x00\x02\x00\x00\x00\x00\xff"]


def test_contents_that_do_not_fit(stub):
    invalid = grpc.StatusCode.INVALID_ARGUMENT

    made = simple_request()
    made.inputs[0].contents.int_contents.extend(range(16))
    refused(stub.ModelInfer, made, invalid, "INPUT0")

    made = simple_request()
    made.raw_input_contents.pop()
    refused(stub.ModelInfer, made, invalid)

    made = simple_request()
    made.raw_input_contents[1] = bytes(60)
    refused(stub.ModelInfer, made, invalid, "INPUT1", "60", "64")

    made = request("identity_uint8", ("INPUT0", "UINT8", [1, 2]))
    made.inputs[0].contents.uint_contents.extend([1, 256])
    refused(stub.ModelInfer, made, invalid, "INPUT0", "256")

    made = request("identity_uint8", ("INPUT0", "UINT8", [1, 2]))
    made.inputs[0].contents.uint_contents.extend([1, 2, 3])
    refused(stub.ModelInfer, made, invalid, "INPUT0", "3", "2")

    made = request("identity_uint8", ("INPUT0", "UINT8", [1, 2]))
    made.inputs[0].contents.fp32_contents.extend([1, 2])
    refused(stub.ModelInfer, made, invalid, "INPUT0")

    for shape in ([-1, 2], [1 << 62, 1 << 62]):
        made = request("identity_uint8", ("INPUT0", "UINT8", shape))
        made.raw_input_contents.append(bytes(2))
        refused(stub.ModelInfer, made, invalid, "INPUT0")


def test_statuses(stub):
    not_found = grpc.StatusCode.NOT_FOUND
    made = simple_request()
    made.model_name = "nope"
    refused(stub.ModelInfer, made, not_found, "Request for unknown model: 'nope' is not found")
    made = simple_request(model_version="9")
    refused(stub.ModelInfer, made, not_found, "'simple' version 9 is not found")
    made = simple_request(model_version="one")
    refused(stub.ModelInfer, made, grpc.StatusCode.INVALID_ARGUMENT, "one")
    refused(stub.ModelMetadata, service_pb2.ModelMetadataRequest(name="nope"), not_found, "nope")
    made = request("fails_to_run", ("INPUT0", "INT64", [1]))
    made.raw_input_contents.append(np.array([7]).tobytes())
    refused(stub.ModelInfer, made, grpc.StatusCode.INTERNAL, "fails_to_run")


UNSUPPORTED = {
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="one", key="/one", byte_size=64),
    "SystemSharedMemoryUnregister": service_pb2.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": service_pb2.CudaSharedMemoryRegisterRequest(name="one", byte_size=64),
    "CudaSharedMemoryUnregister": service_pb2.CudaSharedMemoryUnregisterRequest(),
}


@pytest.mark.parametrize("method", UNSUPPORTED)
def test_what_is_not_done_says_so(stub, method):
    sentence = refused(getattr(stub, method), UNSUPPORTED[method], grpc.StatusCode.UNIMPLEMENTED)
    assert len(sentence.split()) > 3


def test_shared_memory_in_a_request_says_so(stub):
    made = simple_request()
    made.inputs[1].parameters["shared_memory_region"].string_param = "one"
    made.inputs[1].parameters["shared_memory_byte_size"].int64_param = 64
    made.raw_input_contents.pop()
    refused(stub.ModelInfer, made, grpc.StatusCode.UNIMPLEMENTED, "shared memory")


def test_a_deadline_that_passes_ends_the_call_and_nothing_else(stub):
    made = request("slow", ("INPUT0", "INT64", [1]))
    made.raw_input_contents.append(np.array([100]).tobytes())
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(made, timeout=0.01)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert stub.ModelInfer(simple_request(), timeout=DEADLINE).model_name == "simple"


# Streams.


def pair(number):
    """Inputs for `simple`, all of one number."""
    inputs = []
    for name in ("INPUT0", "INPUT1"):
        tensor = triton.InferInput(name, [1, 16], "INT32")
        tensor.set_data_from_numpy(np.full((1, 16), number, np.int32))
        inputs.append(tensor)
    return inputs


def test_a_stream_answers_in_order(server):
    answers = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            client.async_stream_infer("simple", pair(number), request_id=f"number {number}")
        for number in range(20):
            result, error = answers.get(timeout=DEADLINE)
            assert error is None
            response = result.get_response()
            assert response.id == f"number {number}"
            assert response.parameters["triton_final_response"].bool_param is True
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), np.full((1, 16), 2 * number))
        client.stop_stream()


def test_an_error_leaves_the_stream_open(server):
    answers = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("nope", pair(1), request_id="first")
        client.async_stream_infer("simple", pair(2), request_id="second")
        result, error = answers.get(timeout=DEADLINE)
        assert result is None and "Request for unknown model: 'nope' is not found" in error.message()
        result, error = answers.get(timeout=DEADLINE)
        assert error is None and result.get_response().id == "second"
        client.stop_stream()


def test_an_error_in_a_stream_names_its_request(stub):
    unknown = simple_request(id="mine")
    unknown.model_name = "nope"
    first, second = stub.ModelStreamInfer(iter([unknown, simple_request(id="next")]), timeout=DEADLINE)
    assert "nope" in first.error_message and first.infer_response.id == "mine"
    assert not second.error_message and second.infer_response.id == "next"


def test_a_stream_may_ask_for_a_status_as_its_first_error(stub):
    unknown = simple_request()
    unknown.model_name = "nope"
    answers = stub.ModelStreamInfer(
        iter([simple_request(), unknown]), metadata=[("triton_grpc_error", "true")], timeout=DEADLINE
    )
    assert next(answers).infer_response.model_name == "simple"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_an_asyncio_stream_answers_in_order(server):
    async def requests():
        for number in range(20):
            yield {"model_name": "simple", "inputs": pair(number), "request_id": str(number)}

    async def answers():
        async with triton_asyncio.InferenceServerClient(server.grpc) as client:
            return [each async for each in client.stream_infer(requests())]

    received = asyncio.run(asyncio.wait_for(answers(), DEADLINE))
    assert [result.get_response().id for result, _ in received] == [str(number) for number in range(20)]
    for number, (result, error) in enumerate(received):
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), np.full((1, 16), 2 * number))


# Health and reflection.


@pytest.mark.parametrize("service", ["", SERVICE])
def test_the_health_service(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(asked, timeout=DEADLINE).status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(asked, timeout=DEADLINE)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_reflection_describes_the_services(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    served = DescriptorPool(database).FindServiceByName(SERVICE).methods_by_name
    known = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(known) == set(served)
