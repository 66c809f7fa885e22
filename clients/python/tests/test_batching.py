"""Which requests run together, and what becomes of those that wait: `dynamic_batching` and its queue policies.

`--delay-scheduler` holds a model until so many requests wait, so that a test knows what is batched together.
"""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from metrics import Metrics
from server_process import SAMPLES

# Longer than any test waits.
FOR_EVER = 3_600_000_000


@pytest.fixture
def serve(serve_edited):
    """A server of one sample model with a configuration of the test's own."""

    def serve(model, dynamic_batching, *, hold=0, more="", max_batch_size=8, ready=True):
        def edit(config):
            config = config.replace("max_batch_size: 8", f"max_batch_size: {max_batch_size}")
            return config + f"instance_group {{ count: 1 }} dynamic_batching {{ {dynamic_batching} }} {more}"

        return serve_edited(SAMPLES / model, edit, hold=hold, ready=ready)

    return serve


def floats(values):
    return {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": list(values.shape), "data": values.tolist()}]}


def rows(count, length=4, first=0.0):
    return np.arange(first, first + count * length, dtype=np.float32).reshape(count, length)


def together(server, model, bodies):
    """Sends `bodies` at the same time."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: server.infer(model, body), bodies))


def one_after_the_other(server, model, bodies):
    """Sends each of `bodies` once the one before waits."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = []
        for count, body in enumerate(bodies, 1):
            answers.append(pool.submit(server.infer, model, body))
            if count < len(bodies):
                server.wait_until(lambda: pending(server, model) == count, f"{count} requests waiting")
        return [answer.result() for answer in answers]


def pending(server, model):
    return Metrics(server).value("nv_inference_pending_request_count", model=model, version="1")


def executions(server, model):
    """How many executions there were of each batch size."""
    stats = server.get(f"/v2/models/{model}/stats").json()["model_stats"][0]
    sizes = {each["batch_size"]: each["compute_infer"]["count"] for each in stats.get("batch_stats", [])}
    assert stats["execution_count"] == sum(sizes.values())
    assert stats["inference_count"] == sum(size * count for size, count in sizes.items())
    return sizes


def test_what_waits_runs_as_one_batch_and_each_gets_its_own_rows(serve):
    server = serve("identity", "", hold=4)
    sent = [rows(count, first=100.0 * count) for count in (1, 3, 2, 2)]
    answers = together(server, "identity", [floats(values) for values in sent])
    for values, answer in zip(sent, answers, strict=True):
        output = answer.json()["outputs"][0]
        assert (output["shape"], output["data"]) == (list(values.shape), values.ravel().tolist())
    assert executions(server, "identity") == {8: 1}
    stats = server.get("/v2/models/identity/stats").json()["model_stats"][0]["inference_stats"]
    assert {stats[phase]["count"] for phase in ("success", "queue", "compute_infer")} == {4}


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc])
def test_strings_and_requested_outputs_are_taken_apart(serve, module):
    server = serve("simple_string", "", hold=3)
    address = server.grpc if module is tritonclient.grpc else server.http

    def ask(request):
        count, outputs = request
        numbers = np.arange(16 * count).reshape(count, 16)
        inputs = [module.InferInput(name, [count, 16], "BYTES") for name in ("INPUT0", "INPUT1")]
        inputs[0].set_data_from_numpy(np.char.mod("%d", numbers * 10).astype(np.object_))
        inputs[1].set_data_from_numpy(np.char.mod("%d", numbers).astype(np.object_))
        with module.InferenceServerClient(address) as client:
            asked = [module.InferRequestedOutput(name) for name in outputs]
            result = client.infer("simple_string", inputs, outputs=asked)
            answered = {name: result.as_numpy(name) for name in ("OUTPUT0", "OUTPUT1")}
        expected = {"OUTPUT0": numbers * 11, "OUTPUT1": numbers * 9}
        for name, answer in answered.items():
            if name in outputs:
                np.testing.assert_array_equal(answer.astype(np.int64), expected[name])
            else:
                assert answer is None
        return True

    requests = [(1, ["OUTPUT0"]), (2, ["OUTPUT1", "OUTPUT0"]), (3, ["OUTPUT1"])]
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(ask, requests))
    assert executions(server, "simple_string") == {6: 1}


def test_another_shape_ends_a_batch(serve):
    server = serve("identity", "", hold=4)
    lengths = [4, 4, 5, 4]
    answers = one_after_the_other(server, "identity", [floats(rows(1, length)) for length in lengths])
    assert [answer.json()["outputs"][0]["shape"] for answer in answers] == [[1, length] for length in lengths]
    assert executions(server, "identity") == {1: 2, 2: 1}


def test_a_preferred_size_is_sent_first_and_the_rest_when_its_time_is_over(serve):
    server = serve("identity", "preferred_batch_size: 4 max_queue_delay_microseconds: 100000", hold=6)
    answers = together(server, "identity", [floats(rows(1))] * 6)
    assert {answer.status_code for answer in answers} == {200}
    assert executions(server, "identity") == {4: 1, 2: 1}


def test_without_dynamic_batching_no_two_requests_run_together(start):
    server = start(SAMPLES, options=("--delay-scheduler=3",))
    server.wait_until_ready()
    together(server, "identity", [floats(rows(2))] * 3)
    assert executions(server, "identity") == {2: 3}


def test_one_that_fails_takes_no_other_with_it(serve):
    server = serve("simple_string", "", hold=3)

    def body(text):
        tensor = {"datatype": "BYTES", "shape": [1, 16], "data": [text] * 16}
        return {"inputs": [tensor | {"name": "INPUT0"}, tensor | {"name": "INPUT1"}]}

    good, bad, also_good = together(server, "simple_string", [body("7"), body("seven"), body("8")])
    assert [good.status_code, bad.status_code, also_good.status_code] == [200, 500, 200]
    assert good.json()["outputs"][0]["data"] == ["14"] * 16
    assert also_good.json()["outputs"][0]["data"] == ["16"] * 16
    assert "failed to execute" in bad.json()["error"]
    stats = server.get("/v2/models/simple_string/stats").json()["model_stats"][0]
    assert (stats["inference_stats"]["success"]["count"], stats["inference_stats"]["fail"]["count"]) == (2, 1)


def test_a_lone_client_does_not_wait_for_company(serve):
    server = serve("identity", f"max_queue_delay_microseconds: {FOR_EVER}")
    for _ in range(20):
        assert server.infer("identity", floats(rows(1))).status_code == 200


def test_the_whole_delay_is_waited_for_where_the_configuration_says_so(serve):
    more = 'parameters { key: "adaptive_queue_delay" value { string_value: "false" } }'
    server = serve("identity", "max_queue_delay_microseconds: 300000", more=more)
    began = time.monotonic()
    assert server.infer("identity", floats(rows(1))).status_code == 200
    assert time.monotonic() - began >= 0.3
    began = time.monotonic()
    together(server, "identity", [floats(rows(4))] * 2)
    assert executions(server, "identity") == {1: 1, 8: 1}


@pytest.mark.parametrize("request_timeout", [None, 50_000, FOR_EVER])
def test_a_request_that_waits_too_long_is_refused_by_a_timer(serve, request_timeout):
    """No instance ever looks at it, since the model is held."""
    policy = "default_queue_policy { default_timeout_microseconds: 200000 allow_timeout_override: true }"
    server = serve("identity", policy, hold=2)
    body = floats(rows(1))
    if request_timeout is not None:
        body["parameters"] = {"timeout": request_timeout}
    began = time.monotonic()
    answer = server.infer("identity", body)
    assert time.monotonic() - began >= (0.05 if request_timeout == 50_000 else 0.2)
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("Request timeout expired")
    metrics = Metrics(server)
    assert metrics.value("nv_inference_request_failure", model="identity", version="1", reason="REJECTED") == 1
    assert pending(server, "identity") == 0


def test_a_full_level_refuses_and_others_do_not(serve):
    levels = "priority_levels: 2 default_priority_level: 2 priority_queue_policy { key: 1 value { max_queue_size: 1 } }"
    server = serve("identity", levels, hold=4)
    urgent = floats(rows(1)) | {"parameters": {"priority": 1}}
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(server.infer, "identity", urgent)
        server.wait_until(lambda: pending(server, "identity") == 1, "one waiting")
        refused = server.infer("identity", urgent)
        others = [pool.submit(server.infer, "identity", floats(rows(1))) for _ in range(3)]
        assert refused.status_code == 503
        assert refused.json()["error"].startswith("Exceeds maximum queue size: 1 ")
        assert [answer.result().status_code for answer in [first, *others]] == [200] * 4
    beyond = server.infer("identity", floats(rows(1)) | {"parameters": {"priority": 3}})
    assert beyond.status_code == 400
    assert "priority 3 is none of the levels, which are 1 to 2" in beyond.json()["error"]


def test_who_leaves_waits_no_more(serve):
    server = serve("identity", "", hold=2)
    body = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,1],"data":[1]}]}'
    head = f"POST /v2/models/identity/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        server.wait_until(lambda: pending(server, "identity") == 1, "one waiting")
    server.wait_until(lambda: pending(server, "identity") == 0, "the one that left being gone")
    metrics = Metrics(server)
    assert metrics.value("nv_inference_request_failure", model="identity", version="1", reason="CANCELED") == 1


@pytest.mark.parametrize(
    ("dynamic_batching", "max_batch_size", "reason"),
    [
        ("preferred_batch_size: 9", 8, "preferred_batch_size has 9, but sizes are 1 to max_batch_size (8)"),
        ("priority_levels: 2", 8, "default_priority_level is 0"),
        (
            "preserve_ordering: true priority_levels: 2 default_priority_level: 1",
            8,
            "preserve_ordering contradicts priority_levels",
        ),
    ],
)
def test_a_contradiction_is_why_the_model_is_unavailable(serve, dynamic_batching, max_batch_size, reason):
    server = serve("identity", dynamic_batching, max_batch_size=max_batch_size, ready=False)

    def entry():
        return server.post("/v2/repository/index").json()[0]

    server.wait_until(lambda: entry().get("state") == "UNAVAILABLE", "the model failing")
    assert reason in entry()["reason"]


def test_a_grpc_deadline_is_kept_by_the_server(serve):
    """Nothing runs, since the model is held; a client without a deadline of its own is answered by the server."""
    server = serve("identity", "", hold=2)
    request = tritonclient.grpc.service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(np.float32(1).tobytes())
    with grpc.insecure_channel(server.grpc) as channel:
        stub = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request, metadata=[("grpc-timeout", "100m")])
        assert time.monotonic() - began >= 0.1
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "model 'identity' did not answer within" in refused.value.details()
    assert pending(server, "identity") == 0
