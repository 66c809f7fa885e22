"""The memory of all models: what each takes is known, loads keep to the bound, and models are loaded on demand."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from controlled import (
    Repository,
    adder,
    answer,
    ask,
    constant,
    control,
    index,
    k_of,
    large_adder,
    late_adder,
    load,
    serialised,
    slow_adder,
)
from event_stream import EventStream
from metrics import Metrics
from onnx import helper, numpy_helper
from tritonclient.utils import InferenceServerException

ONE_INSTANCE = "max_batch_size: 1\ninstance_group { count: 1 }\n"
MB = 1_000_000
# The weights of a large adder, as FP32.
WEIGHTS = 2240 * 2240 * 4


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def padded_adder(k, name):
    """X + K in a file of a megabyte."""
    weights = numpy_helper.from_array(np.zeros((500, 500), np.float32) + 1 / 500, "weights")
    nodes = [
        helper.make_node("ReduceSum", ["weights"], ["all"], keepdims=0),
        helper.make_node("Mul", ["all", "zero"], ["nothing"]),
        helper.make_node("Add", ["K", "nothing"], ["sum"]),
        helper.make_node("Add", ["X", "sum"], ["Y"]),
    ]
    return serialised(name, nodes, [constant("K", k), constant("zero", 0), weights])


def put_large(repository, *names):
    for k, name in enumerate(names, start=1):
        repository.put_model(name, {1: large_adder(float(k), name=name)}, ONE_INSTANCE)


def taken(server):
    return Metrics(server).value("volley_models_memory_bytes")


def test_what_each_version_takes_is_measured_and_given_back(start, repository):
    put_large(repository, "large")
    repository.put_model("small", {1: adder(1.0)}, ONE_INSTANCE)
    options = ("--model-control-mode=explicit", "--load-model=small", "--load-model=large", "--model-load-thread-count=1")
    server = start(repository.path, options=options).wait_until_ready()
    metrics = Metrics(server)
    large = metrics.value("volley_model_memory_bytes", model="large", version="1")
    small = metrics.value("volley_model_memory_bytes", model="small", version="1")
    assert WEIGHTS <= large < 1.5 * WEIGHTS and 0 < small < 1 * MB
    assert metrics.value("volley_models_memory_bytes") == large + small
    assert control(server, "large", "unload").status_code == 200
    server.wait_until(lambda: taken(server) == small, "the memory of the model that left")


def test_a_load_without_room_is_refused_and_what_serves_goes_on(start, repository):
    put_large(repository, "first", "second")
    options = ("--model-control-mode=explicit", "--load-model=first", f"--model-memory-limit={35 * MB}")
    server = start(repository.path, options=options).wait_until_ready()
    refused = control(server, "second", "load")
    assert refused.status_code == 400 and "--model-memory-limit" in refused.json()["error"], refused.text
    assert index(server, "second")["1"][0] == "UNAVAILABLE"
    assert answer(server, "first") == (1.0, "1")
    assert Metrics(server).value("volley_models_memory_limit_bytes") == 35 * MB
    control(server, "first", "unload")
    load(server, "second")
    assert answer(server, "second") == (2.0, "1")


def test_a_swap_without_room_for_both_unloads_first_and_says_so(start, repository):
    put_large(repository, "large")
    options = ("--model-control-mode=poll", "--repository-settle-secs=0", f"--model-memory-limit={35 * MB}")
    server = start(repository.path, options=options).wait_until_ready()
    assert answer(server, "large") == (1.0, "1")
    repository.put("large", 2, large_adder(2.0, name="large"))
    server.wait_until(lambda: k_of(server, "large") == 2.0, "the next version")
    assert "swap_policy resource, once" in server.text()
    assert taken(server) <= 35 * MB


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_on_demand_the_first_request_waits_for_its_model(start, repository, protocol):
    repository.put_model("cold", {1: late_adder(3.0, rounds=300, name="cold")}, ONE_INSTANCE)
    server = start(repository.path, options=("--load-on-demand=wait",)).wait_until_ready()
    assert index(server, "cold") == {"": ("", "")}
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    with module.InferenceServerClient(getattr(server, protocol)) as client:
        assert client.is_model_ready("cold"), "a request would be answered"
        metadata = client.get_model_metadata("cold")
        versions = metadata["versions"] if protocol == "http" else list(metadata.versions)
        assert versions == ["1"]
        with pytest.raises(InferenceServerException):
            client.get_model_metadata("unheard_of")
    assert answer(server, "cold") == (3.0, "1")


def test_on_demand_all_who_ask_meanwhile_are_answered_by_one_load(start, repository):
    repository.put_model("cold", {1: late_adder(3.0, rounds=300, name="cold")}, ONE_INSTANCE)
    server = start(repository.path, options=("--load-on-demand=wait",)).wait_until_ready()
    with EventStream(server) as events, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: answer(server, "cold"), range(16)))
        assert answers == [(3.0, "1")] * 16
        events.wait_for("cold", "1", "READY")
        assert [told for told in events.told() if told[2] == "LOADING"] == [("cold", "1", "LOADING")]


def test_on_demand_requests_are_refused_with_how_long_to_wait(start, repository):
    repository.put_model("cold", {1: late_adder(3.0, rounds=600, name="cold")}, ONE_INSTANCE)
    server = start(repository.path, options=("--load-on-demand=refuse",)).wait_until_ready()
    refused = ask(server, "cold")
    assert refused.status_code == 503 and "is being loaded on demand" in refused.json()["error"], refused.text
    assert int(refused.headers["Retry-After"]) >= 1
    assert server.get("/v2/models/cold/ready").status_code == 400
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        try:
            client.get_model_metadata("cold")
        except InferenceServerException as error:
            assert error.status() == "StatusCode.UNAVAILABLE"
    server.wait_until(lambda: ask(server, "cold").status_code == 200, "the model")
    assert answer(server, "cold") == (3.0, "1")


def test_on_demand_more_models_than_memory_all_answer(start, repository):
    names = [f"large_{each}" for each in range(1, 6)]
    put_large(repository, *names)
    limit = 62 * MB  # room for two, and for what is expected of a third before it is known
    options = ("--load-on-demand=wait", f"--model-memory-limit={limit}")
    server = start(repository.path, options=options).wait_until_ready()
    choices = random.Random(7).choices(range(1, 6), k=120)
    refused = []

    def one(k):
        response = ask(server, f"large_{k}")
        if response.status_code == 200:
            assert response.json()["outputs"][0]["data"] == [float(k)]
        else:
            assert response.status_code == 503 or "not at ready state" in response.text, response.text
            refused.append(response.text)

    for k in choices[:40]:
        assert answer(server, f"large_{k}") == (float(k), "1")
        assert taken(server) <= limit
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, choices[40:]))
    assert len(refused) <= 10, refused
    unloads = [reason for _, reason in (state for name in names for state in index(server, name).values())]
    assert "unloaded" in unloads


def test_on_demand_a_model_that_cannot_be_loaded_says_why_and_is_not_tried_for_each_request(start, repository):
    repository.put_model("broken", {1: b"not a model"}, ONE_INSTANCE)
    server = start(repository.path, options=("--load-on-demand=wait",)).wait_until_ready()
    with EventStream(server) as events:
        for _ in range(5):
            response = ask(server, "broken")
            assert response.status_code == 503 and "broken/1/model.onnx" in response.json()["error"], response.text
        events.wait_for("broken", "1", "UNAVAILABLE")
        assert sum(told[2] == "LOADING" for told in events.told()) == 1
    assert server.get("/v2/health/ready").status_code == 200


def test_at_the_end_all_who_wait_are_told_for_a_version_that_leaves_and_for_its_room(start, repository):
    padding = {"1/padding": bytes(4 * MB)}
    for k, name in enumerate(("leaves", "waits"), start=1):
        repository.put_model(name, {1: slow_adder(float(k), name=name)}, ONE_INSTANCE, padding)
    limits = (f"--model-memory-limit={5 * MB}", "--exit-timeout-secs=1")
    options = ("--model-control-mode=explicit", "--load-on-demand=wait", *limits)
    server = start(repository.path, options=options).wait_until_ready()
    assert k_of(server, "leaves") == 1
    forever = 1_000_000
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(ask, server, "leaves", forever)]
        in_flight = ("volley_inference_requests_in_flight", {"model": "leaves", "version": "1"})
        server.wait_until(lambda: Metrics(server).value(in_flight[0], **in_flight[1]) == 1, "the request")
        asked.append(threads.submit(ask, server, "waits"))
        server.wait_until(lambda: index(server, "leaves")["1"][0] == "UNLOADING", "the model leaving")
        server.terminate()
        assert [one.result().status_code for one in asked] == [503, 503]
    assert server.exit_code() == 0
    assert "unfinished=1" in server.text()


def test_two_hundred_models_load_side_by_side_while_the_index_answers(start, repository):
    for each in range(200):
        name = f"model_{each}"
        repository.put_model(name, {1: padded_adder(float(each), name)}, ONE_INSTANCE)
    began = time.monotonic()
    server = start(repository.path)
    server.wait_until(lambda: server.get("/v2/health/live").status_code == 200, "being live")
    seen = set()
    session = requests.Session()

    def loaded():
        entries = session.post(server.url("/v2/repository/index"), timeout=1).json()
        ready = sum(entry.get("state") == "READY" for entry in entries)
        seen.add(ready)
        return ready == 200

    server.wait_until(loaded, "all models")
    took = time.monotonic() - began
    assert any(0 < ready < 200 for ready in seen), "the index answers while they are loaded"
    assert took < 60, "seconds, on the slowest of machines"
    assert answer(server, "model_123") == (123.0, "1")
