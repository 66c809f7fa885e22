"""The life of the process: models that do not load, and an orderly end."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc
from metrics import Metrics
from server_process import SAMPLES, Server

# What the index must say about each model that does not load.
REASONS = {
    "bad_config": ["max_batchsize", "max_batch_size", "config.pbtxt"],
    "contradicts_batching": ["INPUT0"],
    "contradicts_data_type": ["INPUT0", "INT32", "FP32"],
    "contradicts_dims": ["INPUT0", "2", "1"],
    "contradicts_input": ["INPUT9"],
    "corrupt": ["Protobuf"],
    "missing_file": ["model.onnx"],
    "missing_weights": [],
    "no_versions": ["version"],
    "other_name": ["another_name"],
    "truncated": ["Protobuf"],
}


@pytest.fixture(scope="module")
def half_broken(test_models):
    """A server with the sample models and all those that do not load."""
    server = Server(SAMPLES, test_models / "broken", options=["--strict-readiness=false"])
    try:
        yield server.wait_until_ready()
    finally:
        server.stop()


def index(server):
    return server.post("/v2/repository/index").json()


def is_loaded(server):
    """True when every model has been tried."""
    entries = index(server)
    found = {entry["name"] for entry in entries}
    return found >= {"digits", *REASONS} and all(entry["state"] != "LOADING" for entry in entries)


@pytest.mark.parametrize("model", REASONS)
def test_a_model_that_does_not_load_says_why(half_broken, model):
    (entry,) = [entry for entry in index(half_broken) if entry["name"] == model]
    assert entry["state"] == "UNAVAILABLE" and entry["reason"]
    for words in REASONS[model]:
        assert words in entry["reason"]
    assert half_broken.get(f"/v2/models/{model}/ready").status_code in (400, 404)


def test_every_broken_model_has_its_reason(test_models):
    assert {path.name for path in (test_models / "broken").iterdir()} == set(REASONS)


def test_the_other_models_serve(half_broken):
    request = (SAMPLES / "digits/request.json").read_bytes()
    response = half_broken.post("/v2/models/digits/infer", data=request)
    assert response.json()["outputs"][0]["data"][0].endswith(":7:seven")


def test_a_broken_model_keeps_the_server_from_being_ready_unless_told_otherwise(start, test_models):
    server = start(SAMPLES, test_models / "broken")
    server.wait_until(lambda: is_loaded(server), "loading every model")
    assert server.get("/v2/health/live").status_code == 200
    assert server.get("/v2/health/ready").status_code == 400


def test_exit_on_error_exits(start, test_models):
    server = start(SAMPLES, test_models / "broken", options=["--exit-on-error=true"])
    assert server.exit_code() != 0
    assert "corrupt" in server.text()


def slow(server, rounds):
    body = {"inputs": [{"name": "INPUT0", "datatype": "INT64", "shape": [1], "data": [rounds]}]}
    return server.infer("slow", body)


def test_requests_in_flight_are_answered_before_the_end(start, test_models):
    server = start(test_models / "sound").wait_until_ready()
    with ThreadPoolExecutor() as threads:
        answers = [threads.submit(slow, server, 200) for _ in range(3)]
        server.wait_until(lambda: waiting(server) == 2, "the requests arriving")
        server.terminate()
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]
    assert server.exit_code() == 0, server.text()


def waiting(server):
    """How many requests wait while one runs, since the model has one instance."""
    return Metrics(server).value("nv_inference_pending_request_count", model="slow", version="1")


def test_during_the_drain_delay_it_answers_and_is_not_ready(start):
    server = start(SAMPLES, options=["--drain-delay=2"]).wait_until_ready()
    request = (SAMPLES / "digits/request.json").read_bytes()
    with grpc.insecure_channel(server.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.get("/v2/health/ready").status_code == 400
        assert server.get("/v2/health/live").status_code == 200
        assert server.post("/v2/models/digits/infer", data=request).status_code == 200
        watch.cancel()
    assert server.exit_code() == 0, server.text()


def test_the_same_model_in_two_repositories_is_refused(start, tmp_path):
    (tmp_path / "simple").symlink_to(SAMPLES / "simple")
    server = start(SAMPLES, tmp_path, options=["--strict-readiness=false"]).wait_until_ready()
    reasons = [entry["reason"] for entry in index(server) if entry["name"] == "simple"]
    assert reasons and all("two or more repositories" in reason for reason in reasons)


def test_idle_connections_do_not_delay_the_end(start):
    server = start(SAMPLES).wait_until_ready()
    with grpc.insecure_channel(server.grpc) as channel, requests.Session() as session:
        grpc.channel_ready_future(channel).result(timeout=60)
        assert session.get(server.url("/v2/health/live"), timeout=60).status_code == 200
        begun = time.monotonic()
        server.terminate()
        assert server.exit_code() == 0, server.text()
        # The longest wait for requests in flight is thirty seconds; there are none.
        assert time.monotonic() - begun < 15
