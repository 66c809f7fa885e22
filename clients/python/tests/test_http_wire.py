"""The V2 protocol over HTTP as any program may speak it, byte by byte where that matters."""

import gzip
import json
import math
import zlib

import ml_dtypes
import numpy as np
import pytest
from server_process import SAMPLES

JSON_LENGTH = "Inference-Header-Content-Length"


def tensor(datatype, shape, data, name="INPUT0"):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def simple_request(**more):
    row = list(range(16))
    inputs = [tensor("INT32", [1, 16], row), tensor("INT32", [1, 16], [row], name="INPUT1")]
    return {"inputs": inputs, **more}


def answered(response):
    assert response.status_code == 200, response.text
    return response.json()


def data_of(response, name="OUTPUT0"):
    (data,) = [output["data"] for output in answered(response)["outputs"] if output["name"] == name]
    return data


def refused(response, status, *words):
    """The one sentence of an error, which holds `words`."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].split(";")[0] == "application/json"
    answer = response.json()
    assert set(answer) == {"error"}
    for word in words:
        assert word in answer["error"]
    return answer["error"]


# Health and descriptions.


def test_health_answers_without_a_body(server):
    paths = ["/v2/health/live", "/v2/health/ready", "/v2/models/simple/ready", "/v2/models/digits/versions/1/ready"]
    for path in paths:
        response = server.get(path)
        assert (response.status_code, response.content) == (200, b""), path
    assert server.get("/v2/models/nope/ready").status_code in (400, 404)
    assert server.get("/v2/models/simple/versions/9/ready").status_code in (400, 404)


def test_every_description_has_its_route(server):
    for path in [
        "/v2",
        "/v2/models/simple",
        "/v2/models/simple/versions/1",
        "/v2/models/simple/config",
        "/v2/models/simple/versions/1/config",
        "/v2/models/simple/stats",
        "/v2/models/simple/versions/1/stats",
        "/v2/models/stats",
        "/v2/logging",
    ]:
        response = server.get(path)
        assert response.headers["content-type"].split(";")[0] == "application/json", path
        assert isinstance(answered(response), dict), path


def test_config_prints_every_default(server):
    config = answered(server.get("/v2/models/simple/config"))
    assert config["max_batch_size"] == 8
    assert config["input"][0]["dims"] == [16]
    assert config["input"][0]["optional"] is False
    assert config["output"][0]["label_filename"] == ""
    assert config["default_model_filename"] == "model.onnx"
    assert {"instance_group", "parameters", "model_warmup", "metric_tags"} <= set(config)


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"ready": true}'])
def test_the_index(server, body):
    entries = answered(server.post("/v2/repository/index", data=body))
    assert all(entry.pop("since").endswith("Z") for entry in entries)
    assert {"name": "simple", "version": "1", "state": "READY"} in entries


def test_unknown_routes_and_methods(server):
    for path in ["/", "/v2/", "/v3", "/v2/models/simple/", "/v2/models/simple/versions/one", "/v2/models/simple/nope"]:
        refused(server.get(path), 404, "Not Found")
    refused(server.get("/v2/models/simple/infer"), 405, "Method Not Allowed")
    refused(server.post("/v2/health/live"), 405, "Method Not Allowed")


# JSON.


def test_the_request_of_the_readme_names_a_seven(server):
    response = server.post("/v2/models/digits/infer", data=(SAMPLES / "digits/request.json").read_bytes())
    answer = answered(response)
    (output,) = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 1])
    probability, index, label = output["data"][0].split(":")
    assert (index, label) == ("7", "seven") and float(probability) > 0.5
    assert (answer["model_name"], answer["model_version"]) == ("digits", "2")


def test_data_may_be_flat_or_nested(server):
    answer = answered(server.infer("simple", simple_request(id="mine")))
    assert answer["id"] == "mine"
    first, second = sorted(answer["outputs"], key=lambda output: output["name"])
    assert first == {"name": "OUTPUT0", "datatype": "INT32", "shape": [1, 16], "data": [2 * n for n in range(16)]}
    assert second["data"] == [0] * 16


SHAPE = [2, 2]
JSON_VALUES = {
    "BOOL": [True, False, False, True],
    "UINT8": [0, 1, 2, 255],
    "UINT16": [0, 1, 2, 65535],
    "UINT32": [0, 1, 2, 4294967295],
    "UINT64": [0, 1, 2, 18446744073709551615],
    "INT8": [-128, -1, 0, 127],
    "INT16": [-32768, -1, 0, 32767],
    "INT32": [-2147483648, -1, 0, 2147483647],
    "INT64": [-9223372036854775808, -1, 0, 9223372036854775807],
    "FP16": [0.1, -2.5, 2048, 6e-8],
    "FP32": [0.1, -2.5, 3.4028235e38, 1e-45],
    "FP64": [0.1, -2.5, 1.7976931348623157e308, 5e-324],
    "BYTES": ["", "text", 'quote " back \\ line \n tab \t', "zw\u00f6lf \U0001f600 \u0000"],
    "BF16": [0.1, -2.5, 3.39e38, 9e-41],
}


@pytest.mark.parametrize("datatype", JSON_VALUES)
def test_every_data_type_as_json(server, datatype):
    sent = JSON_VALUES[datatype]
    for data in (sent, [sent[:2], sent[2:]]):
        response = server.infer(f"identity_{datatype.lower()}", {"inputs": [tensor(datatype, SHAPE, data)]})
        assert data_of(response) == sent


@pytest.mark.parametrize(
    "datatype, dtype", [("FP16", np.float16), ("BF16", ml_dtypes.bfloat16), ("FP32", np.float32), ("FP64", np.float64)]
)
def test_floats_are_rounded_to_the_nearest_and_printed_to_be_read_back(server, datatype, dtype):
    sent = np.random.default_rng(0).standard_normal((5, 100)) * 10.0 ** np.arange(-2, 3)[:, None]
    request = {"inputs": [tensor(datatype, [5, 100], sent.tolist())]}
    received = np.array(data_of(server.infer(f"identity_{datatype.lower()}", request)))
    np.testing.assert_array_equal(received.astype(dtype).ravel(), sent.astype(dtype).ravel())


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_what_is_no_number_is_written_as_text(server, datatype):
    words = ["NaN", "Infinity", "-Infinity"]
    # Both forms are read: text, and the bare words that JSON lacks and many libraries write.
    for data in (words, [math.nan, math.inf, -math.inf]):
        body = json.dumps({"inputs": [tensor(datatype, [1, 3], data)]})
        assert data_of(server.post(f"/v2/models/identity_{datatype.lower()}/infer", data=body)) == words


@pytest.mark.parametrize(
    "datatype, value",
    [
        ("UINT8", 256),
        ("UINT8", -1),
        ("INT8", 128),
        ("INT64", 9223372036854775808),
        ("UINT64", 18446744073709551616),
        ("INT32", 1.5),
        ("INT32", "7"),
        ("INT32", None),
        ("FP32", "seven"),
        ("FP32", True),
        ("BOOL", 2),
        ("BYTES", 7),
    ],
)
def test_values_that_do_not_fit_their_type(server, datatype, value):
    response = server.infer(f"identity_{datatype.lower()}", {"inputs": [tensor(datatype, [1, 1], [value])]})
    refused(response, 400, "INPUT0", datatype)


def test_parameters_of_the_request_are_accepted(server):
    parameters = {"text": "value", "whole": 7, "fraction": 0.5, "truth": True}
    answered(server.infer("simple", simple_request(parameters=parameters)))


def test_requested_outputs(server):
    answer = answered(server.infer("simple", simple_request(outputs=[{"name": "OUTPUT1"}])))
    assert [output["name"] for output in answer["outputs"]] == ["OUTPUT1"]


# Binary tensors.


def binary_body(request, *tensors):
    """A body of JSON and the tensors after it, and the header that says where they meet."""
    head = json.dumps(request).encode()
    return head + b"".join(tensors), {JSON_LENGTH: str(len(head))}


def binary_parts(response):
    """The JSON of an answer, and its binary tensors by name."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[JSON_LENGTH])
    head, rest = json.loads(response.content[:length]), response.content[length:]
    tensors = {}
    for output in head["outputs"]:
        if size := output.get("parameters", {}).get("binary_data_size"):
            tensors[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return head, tensors


def binary_input(name, array):
    return {
        "name": name,
        "datatype": "INT32",
        "shape": list(array.shape),
        "parameters": {"binary_data_size": array.nbytes},
    }


def test_binary_tensors_both_ways(server):
    first = np.arange(32, dtype=np.int32).reshape(2, 16)
    second = first[::-1].copy()
    request = {
        "inputs": [binary_input("INPUT0", first), binary_input("INPUT1", second)],
        "parameters": {"binary_data_output": True},
    }
    body, headers = binary_body(request, first.tobytes(), second.tobytes())
    head, tensors = binary_parts(server.post("/v2/models/simple/infer", data=body, headers=headers))
    assert [output["shape"] for output in head["outputs"]] == [[2, 16], [2, 16]]
    assert tensors == {"OUTPUT0": (first + second).tobytes(), "OUTPUT1": (first - second).tobytes()}


def test_an_output_may_be_json_while_the_rest_is_binary(server):
    request = simple_request(
        parameters={"binary_data_output": True},
        outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": False}}, {"name": "OUTPUT1"}],
    )
    head, tensors = binary_parts(server.infer("simple", request))
    outputs = {output["name"]: output for output in head["outputs"]}
    assert outputs["OUTPUT0"]["data"] == [2 * n for n in range(16)]
    assert tensors == {"OUTPUT1": bytes(64)}


def test_a_body_that_is_one_raw_tensor(server):
    values = np.arange(5, dtype=np.float32)
    response = server.post("/v2/models/identity/infer", data=values.tobytes(), headers={JSON_LENGTH: "0"})
    head, tensors = binary_parts(response)
    assert head["outputs"][0]["shape"] == [1, 5]
    assert tensors == {"OUTPUT0": values.tobytes()}


def test_a_body_that_is_one_raw_string(server):
    response = server.post("/v2/models/raw_bytes/infer", data=b"any text", headers={JSON_LENGTH: "0"})
    head, tensors = binary_parts(response)
    assert (head["outputs"][0]["datatype"], head["outputs"][0]["shape"]) == ("BYTES", [1])
    assert tensors == {"OUTPUT0": b"\x08\x00\x00\x00any text"}


def test_a_raw_body_needs_a_model_of_one_input(server):
    refused(server.post("/v2/models/simple/infer", data=bytes(64), headers={JSON_LENGTH: "0"}), 400, "input")


@pytest.mark.parametrize("length", ["-1", "five", "999999", "99999999999999999999999", "10"])
def test_a_wrong_length_of_the_json(server, length):
    body = json.dumps(simple_request())
    refused(server.post("/v2/models/simple/infer", data=body, headers={JSON_LENGTH: length}), 400)


@pytest.mark.parametrize("declared, sent", [(64, 60), (64, 68), (60, 60), (2**63, 64), (-64, 64)])
def test_binary_sizes_that_do_not_agree(server, declared, sent):
    whole = np.zeros((1, 16), np.int32)
    inputs = [binary_input("INPUT0", whole), binary_input("INPUT1", whole)]
    inputs[1]["parameters"]["binary_data_size"] = declared
    body, headers = binary_body({"inputs": inputs}, bytes(64), bytes(sent))
    refused(server.post("/v2/models/simple/infer", data=body, headers=headers), 400)


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\x05\x00\x00\x00abc", b"\x01\x00\x00\x00a\x01\x00", b"\x01\x00\x00\x00ab"]
)
def test_lengths_of_strings_that_lie(server, data):
    parameters = {"binary_data_size": len(data)}
    request = {"inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "parameters": parameters}]}
    body, headers = binary_body(request, data)
    refused(server.post("/v2/models/identity_bytes/infer", data=body, headers=headers), 400, "INPUT0")


# Compression.

COMPRESSIONS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", COMPRESSIONS)
def test_a_compressed_request(server, encoding):
    body = COMPRESSIONS[encoding](json.dumps(simple_request()).encode())
    response = server.post("/v2/models/simple/infer", data=body, headers={"Content-Encoding": encoding})
    assert data_of(response) == [2 * n for n in range(16)]


@pytest.mark.parametrize("encoding", COMPRESSIONS)
def test_a_compressed_request_with_binary_tensors(server, encoding):
    # The length is that of the JSON before compression.
    first = np.arange(16, dtype=np.int32).reshape(1, 16)
    request = {"inputs": [binary_input("INPUT0", first), binary_input("INPUT1", first)]}
    body, headers = binary_body(request, first.tobytes(), first.tobytes())
    headers["Content-Encoding"] = encoding
    response = server.post("/v2/models/simple/infer", data=COMPRESSIONS[encoding](body), headers=headers)
    assert data_of(response) == (first * 2).ravel().tolist()


@pytest.mark.parametrize(
    "accepted, chosen",
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("identity", None),
        ("deflate;q=0.5, gzip;q=0.9", "gzip"),
        ("deflate, gzip", "deflate"),
        ("br", None),
        ("gzip;q=0", None),
    ],
)
def test_a_compressed_answer(server, accepted, chosen):
    values = [float(n) for n in range(1000)]
    body = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 1000], "data": values}]}
    response = server.infer("identity", body, headers={"Accept-Encoding": accepted})
    assert response.headers.get("content-encoding") in ([chosen] if chosen else [None, "identity"])
    assert data_of(response) == values
    small = server.infer("simple", simple_request(), headers={"Accept-Encoding": accepted})
    assert small.headers.get("content-encoding") is None, "an answer of one packet is not worth it"


def test_compressions_that_are_not_known_or_not_true(server):
    body = json.dumps(simple_request())
    response = server.post("/v2/models/simple/infer", data=body, headers={"Content-Encoding": "br"})
    refused(response, 501, "br")
    assert {"gzip", "deflate"} <= set(response.headers["accept-encoding"].replace(" ", "").split(","))
    for encoding in COMPRESSIONS:
        headers = {"Content-Encoding": encoding}
        refused(server.post("/v2/models/simple/infer", data=body, headers=headers), 400)
        whole = COMPRESSIONS[encoding](body.encode())
        refused(server.post("/v2/models/simple/infer", data=whole[:-9], headers=headers), 400)


def test_a_small_body_that_grows_without_bound(server):
    bomb = gzip.compress(bytes(200 << 20), compresslevel=9)
    response = server.post("/v2/models/simple/infer", data=bomb, headers={"Content-Encoding": "gzip"})
    assert 400 <= response.status_code < 500, response.text
    answered(server.infer("simple", simple_request()))


# Requests that cannot be answered.

DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"inputs": [',
        b'{"inputs": 7}',
        b"not json",
        b'{"inputs": []} trailing',
        b'{"id": "\xff\xfe", "inputs": []}',
        b'{"inputs": ' + DEEP,
        b'{"inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [1, 16], "data": ' + DEEP,
        DEEP + b"]" * len(DEEP),
    ],
    ids=range(12),
)
def test_bodies_that_are_no_request(server, body):
    refused(server.post("/v2/models/simple/infer", data=body), 400)
    assert server.get("/v2/health/live").status_code == 200


def wrong(**changes):
    """A request for `simple` whose second input is changed."""
    request = simple_request()
    request["inputs"][1] = {**request["inputs"][1], **changes}
    return request


@pytest.mark.parametrize(
    "request_body, words",
    [
        ({}, ["inputs"]),
        ({"inputs": []}, ["expected 2 inputs but got 0 inputs for model 'simple'"]),
        (wrong(data=list(range(15))), ["INPUT1", "15", "16"]),
        (wrong(data=list(range(17))), ["INPUT1", "16"]),
        (wrong(data=[[1, 2], [3]]), ["INPUT1"]),
        (wrong(datatype="FP32"), ["INPUT1", "FP32", "INT32"]),
        (wrong(datatype="FP8"), ["INPUT1", "FP8"]),
        (wrong(shape=[1, 17], data=list(range(17))), ["INPUT1", "17", "16"]),
        (wrong(shape=[16]), ["INPUT1"]),
        (wrong(shape=[2, 16], data=list(range(32))), ["INPUT1"]),
        (wrong(shape=[-1, 16]), ["INPUT1", "-1"]),
        (wrong(shape=[1 << 62, 1 << 62]), ["INPUT1"]),
        (wrong(shape=[10**30]), ["INPUT1"]),
        (wrong(shape="wide"), ["shape"]),
        (wrong(name="INPUT0"), ["INPUT0"]),
        (wrong(name="INPUT9"), ["INPUT9"]),
        (wrong(name=7), ["name"]),
        ({**simple_request(), "outputs": [{"name": "OUTPUT9"}]}, ["OUTPUT9"]),
        ({**simple_request(), "outputs": [{"name": "OUTPUT0"}, {"name": "OUTPUT0"}]}, ["OUTPUT0"]),
    ],
    ids=range(19),
)
def test_requests_that_contradict_the_model(server, request_body, words):
    refused(server.infer("simple", request_body), 400, *words)


def test_an_input_without_data_or_with_two_sources(server):
    request = wrong()
    del request["inputs"][1]["data"]
    refused(server.infer("simple", request), 400, "INPUT1")
    refused(server.infer("simple", wrong(parameters={"binary_data_size": 64})), 400, "INPUT1")


def test_unknown_models_and_versions(server):
    refused(server.infer("nope", simple_request()), 404, "Request for unknown model: 'nope' is not found")
    refused(server.infer("simple/versions/9", simple_request()), 404, "'simple' version 9 is not found")
    refused(server.get("/v2/models/nope"), 404, "Request for unknown model: 'nope' is not found")
    refused(server.get("/v2/models/nope/config"), 404, "Request for unknown model: 'nope' is not found")
    refused(server.get("/v2/models/nope/stats"), 400, "requested model 'nope' is not available")


def test_a_batch_that_is_too_large(server):
    inputs = [tensor("INT32", [9, 16], list(range(144)), name) for name in ("INPUT0", "INPUT1")]
    refused(server.infer("simple", {"inputs": inputs}), 400, "inference request batch-size must be <= 8 for 'simple'")


def test_a_model_that_fails(server):
    response = server.infer("fails_to_run", {"inputs": [tensor("INT64", [1], [7])]})
    refused(response, 500, "fails_to_run")


# What is part of the protocol and not done yet.


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/v2/models/simple/generate"),
        ("POST", "/v2/models/simple/versions/1/generate_stream"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/models/simple/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/one/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("GET", "/v2/cudasharedmemory/region/one/status"),
        ("POST", "/v2/cudasharedmemory/region/one/register"),
        ("POST", "/v2/cudasharedmemory/region/one/unregister"),
    ],
)
def test_what_is_not_done_says_so(server, method, path):
    response = server.get(path) if method == "GET" else server.post(path, json={})
    assert len(refused(response, 501).split()) > 3


def test_shared_memory_in_a_request_says_so(server):
    request = simple_request()
    del request["inputs"][1]["data"]
    request["inputs"][1]["parameters"] = {"shared_memory_region": "one", "shared_memory_byte_size": 64}
    refused(server.infer("simple", request), 501, "shared memory")
